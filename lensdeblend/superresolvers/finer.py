"""The finer pixels of an image: where they lie, how flux goes back to the input's, what the PSF is on them.

The fine grid has pixels exactly ``factor`` times smaller and the centre of the input. Where the side is a whole number
of fine pixels, the outer edges of both images coincide; otherwise there are ``round(n * factor)`` pixels, whose edges
lie at most a quarter of a fine pixel from those of the input.
"""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.nddata import NDData
from scipy.interpolate import CubicSpline

from lensdeblend.images import on_grid, pixel_scale
from lensdeblend.options import check_factor
from lensdeblend.superresolvers.finer_psf import finer_psf

__all__ = ["FinePixels"]


@dataclass(frozen=True)
class FinePixels:
    """Pixels ``factor`` times smaller than those of ``image``."""

    image: NDData
    factor: float

    def __post_init__(self):
        check_factor(self.factor)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        ny, nx = (round(n * self.factor) for n in self.image.data.shape)
        return ny, nx

    @property
    def scale(self) -> float:
        """Arcsec a fine pixel."""
        return pixel_scale(self.image).to_value(u.arcsec) / self.factor

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of the fine pixels' centres, in pixels of the image."""
        return tuple(
            (np.arange(count) - (count - 1) / 2) / self.factor + (n - 1) / 2
            for count, n in zip(self.shape, self.image.data.shape)
        )

    def dressed(self, data: np.ndarray, **fields) -> NDData:
        """An array on the fine pixels as an image of the class, unit and sky of the input."""
        return on_grid(self.image, data, pixel_scale=self.scale * u.arcsec, **fields)

    def gathered(self, data: np.ndarray) -> np.ndarray:
        """Flux of the fine pixels (ny, nx) in the pixels of the image.

        The sums of fine pixels where the factor is whole. Where it is not, the flux up to an edge is read off between
        the edges of the fine pixels by a cubic spline.
        """
        for axis, (n, count) in enumerate(zip(self.image.data.shape, self.shape)):
            data = np.moveaxis(_gathered(np.moveaxis(data, axis, 0), n, count, self.factor), 0, axis)
        return data

    def psf(self) -> np.ndarray | None:
        """The image's PSF on the fine pixels (`lensdeblend.superresolvers.finer_psf`); odd, sum 1."""
        return None if self.image.psf is None else finer_psf(self.image.psf, self.factor)


def _gathered(data: np.ndarray, n: int, count: int, factor: float) -> np.ndarray:
    """``count`` fine pixels along the first axis in ``n``."""
    within = np.concatenate([np.zeros_like(data[:1]), np.cumsum(data, 0)])
    flux = CubicSpline(np.arange(count + 1) - count / 2, within)
    return np.diff(flux((np.arange(n + 1) - n / 2) * factor), axis=0)
