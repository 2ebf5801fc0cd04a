"""FITS in and out."""

from lensdeblend.io.read import read_bands, read_image
from lensdeblend.io.write import write_image

__all__ = ["read_bands", "read_image", "write_image"]
