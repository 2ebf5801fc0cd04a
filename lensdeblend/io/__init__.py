"""FITS in and out."""

from lensdeblend.io.read import read_bands, read_image

__all__ = ["read_bands", "read_image"]
