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
from scipy.ndimage import map_coordinates

from lensdeblend.images import on_grid, pixel_scale
from lensdeblend.options import check_factor

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
        """Flux of the fine pixels (ny, nx) in the pixels of the image, each by the area it has there.

        Where the fine pixels end within a pixel of the image, what they hold of it stands for all of it.
        """
        rows, columns = (
            _shares(n, count, self.factor) for n, count in zip(self.image.data.shape, self.shape)
        )
        return rows @ data @ columns.T

    def psf(self) -> np.ndarray | None:
        """The image's PSF on the fine pixels: the cubic spline through its pixels, zero beyond; odd, sum 1."""
        if self.image.psf is None:
            return None
        psf = np.asarray(self.image.psf, dtype=float)
        places = []
        for n in psf.shape:
            half = int(np.floor(n / 2 * self.factor))
            places.append(np.arange(-half, half + 1) / self.factor + n // 2)
        fine = map_coordinates(psf, np.meshgrid(*places, indexing="ij"), order=3, mode="grid-constant")
        return fine / fine.sum()


def _shares(n: int, count: int, factor: float) -> np.ndarray:
    """How much of each of ``count`` fine pixels lies in each of ``n`` pixels."""
    edges = (np.arange(n + 1) - n / 2) * factor
    fine = np.arange(count + 1) - count / 2
    overlap = np.minimum(edges[1:, None], fine[None, 1:]) - np.maximum(edges[:-1, None], fine[None, :-1])
    overlap = overlap.clip(0)
    return overlap * (factor / overlap.sum(1, keepdims=True))
