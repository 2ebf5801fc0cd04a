"""The files of a GalSim ``RealGalaxyCatalog``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

__all__ = ["write_real_galaxies"]

_PSF_FILE = "psf.fits"


def write_real_galaxies(
    path: Path, catalog: Table, fitted: Table | None, *, galaxies: str, extensions: Sequence[tuple[str, int]],
    psfs: Sequence[np.ndarray], psf_of: Sequence[int],
) -> None:
    """Write the tables and the PSFs of a catalogue beside the file with its images.

    Parameters
    ----------
    path : path
        Of the catalogue. The fits are written to ``NAME_fits.fits``, the PSFs to ``psf.fits``.
    catalog : `~astropy.table.Table`
        All columns but those that say where images are.
    fitted : `~astropy.table.Table` or None
    galaxies : str
        Name of the file with the images, in the same folder.
    extensions : sequence of (str, int)
        EXTNAME and EXTVER of each galaxy's image.
    psfs : sequence of (ny, nx) array
    psf_of : sequence of int
        Which of them each galaxy was seen through.
    """
    with fits.open(path.parent / galaxies) as hdus:
        places = [hdus.index_of(extension) for extension in extensions]
    table = catalog.copy()
    table["GAL_FILENAME"], table["PSF_FILENAME"] = [galaxies] * len(table), [_PSF_FILE] * len(table)
    table["GAL_HDU"], table["PSF_HDU"] = places, [1 + place for place in psf_of]
    table.write(path, format="fits")
    if fitted is not None:
        fitted.write(path.with_name(f"{path.stem}_fits.fits"), format="fits")
    images = [fits.ImageHDU(psf, name="PSF", ver=number) for number, psf in enumerate(psfs, 1)]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path.with_name(_PSF_FILE), checksum=True)
