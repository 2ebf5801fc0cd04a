"""Patches of real sky, into which simulated galaxies are put: noise and neighbours as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from lensdeblend.evaluation.detectors import photutils_defaults
from lensdeblend.io.planes import background_sigma
from lensdeblend.io.read import open_fits

__all__ = ["Sky", "SkyPatch"]


@dataclass(frozen=True, eq=False)
class SkyPatch:
    """A piece of sky.

    Attributes
    ----------
    data : dict of str to ndarray
        By band.
    sigma : dict of str to float
        Standard deviation of a pixel: 1.4826 times the median absolute deviation of what 3-sigma clipping leaves.
    neighbours : ndarray
        (n, 2), x and y of what photutils finds there with its default settings, on the sum of the bands.
    """

    data: dict[str, np.ndarray]
    sigma: dict[str, float]
    neighbours: np.ndarray


@dataclass(frozen=True, eq=False)
class Sky:
    """``planes``, (patches, ny, nx) by band, all of one shape; without NaN."""

    planes: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, folder: str | PathLike, bands: Sequence[str]) -> Sky:
        """Read ``BAND.fits`` of a folder, each one patch or a cube of patches, the same places in all bands.

        Patches with pixels that are not finite are left out.

        Raises
        ------
        FileNotFoundError
            Where the folder or the file of a band is missing.
        OSError
            Where a file is no FITS file.
        ValueError
            Where a file has no patches, the bands do not have the same, or none is without NaN.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}; name that of the sky's {_listed(bands)}")
        planes = {band: _patches(folder / f"{band}.fits") for band in bands}
        if len({cube.shape for cube in planes.values()}) != 1:
            shapes = ", ".join(f"{band} {cube.shape}" for band, cube in planes.items())
            raise ValueError(f"the bands in {folder} must have the same patches; their shapes are {shapes}")
        whole = np.all([np.isfinite(cube).all((1, 2)) for cube in planes.values()], axis=0)
        if not whole.any():
            raise ValueError(f"every patch in {folder} has pixels that are not finite")
        return cls({band: cube[whole] for band, cube in planes.items()})

    def patch(self, shape: tuple[int, int], rng: np.random.Generator) -> SkyPatch:
        """Cut a piece of ``shape`` out of one of the patches, at random.

        Raises
        ------
        ValueError
            Where the patches are smaller.
        """
        count, *size = next(iter(self.planes.values())).shape
        if any(own < wanted for own, wanted in zip(size, shape)):
            raise ValueError(f"the patches of sky have {tuple(size)} pixels, fewer than the {shape} of the images")
        number = int(rng.integers(count))
        row, column = (int(rng.integers(own - wanted + 1)) for own, wanted in zip(size, shape))
        whole = {band: cube[number] for band, cube in self.planes.items()}
        # Of the whole patch, in which there is more empty sky than in a piece.
        sigma = {band: background_sigma(pixels) for band, pixels in whole.items()}
        data = {band: pixels[row:row + shape[0], column:column + shape[1]] for band, pixels in whole.items()}
        noise = np.full(shape, np.sqrt(sum(value**2 for value in sigma.values())))
        return SkyPatch(data, sigma, photutils_defaults(sum(data.values()), noise)[0])


def _patches(path: Path) -> np.ndarray:
    with open_fits(path) as hdus:
        found = next((hdu.data for hdu in hdus if hdu.is_image and hdu.data is not None), None)
    if found is None or found.ndim not in (2, 3):
        raise ValueError(f"{path} must hold one patch of sky or a cube of them, (patches, ny, nx)")
    return np.array(found, dtype=float, ndmin=3)


def _listed(bands: Sequence[str]) -> str:
    return ", ".join(f"{band}.fits" for band in bands)
