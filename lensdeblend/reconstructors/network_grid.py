"""From an image of any scale and size to the pixels a network was trained on, and back: flux is conserved both ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.nddata import NDData
from scipy.optimize import brentq

from lensdeblend.images import pixel_scale

__all__ = ["NetworkGrid", "Stamp", "gaussian_width"]

_SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))
_WIDEST = 60.0


@dataclass(frozen=True)
class NetworkGrid:
    """Square pixels of ``scale`` arcsec, ``pixels`` a side, about the centre of an image of ``shape`` and
    ``image_scale``, moved by ``offset`` image pixels (0 or a half, so that unresampled pixels stay whole).

    Attributes
    ----------
    pixels : int
    scale, image_scale : float
    shape : tuple of int
    offset : tuple of float
        (x, y).
    """

    pixels: int
    scale: float
    image_scale: float
    shape: tuple[int, int]
    offset: tuple[float, float]

    @classmethod
    def for_image(cls, image: NDData, pixels: int, scales: tuple[float, float]) -> NetworkGrid:
        """The image's own pixels where their scale is within ``scales`` (arcsec); else whole multiples of them, or the
        nearest scale that is."""
        own = pixel_scale(image).to_value("arcsec")
        low, high = scales
        factor = 1.0
        if own < low * (1 - 1e-6):
            factor = np.ceil(low / own * (1 - 1e-6))
            if factor * own > high * (1 + 1e-6):
                factor = low / own
        elif own > high * (1 + 1e-6):
            factor = high / own
        offset = (0.0, 0.0)
        if factor == 1.0:
            offset = tuple(0.5 * ((n - pixels) % 2) for n in reversed(image.data.shape))
        return cls(pixels, own * factor, own, image.data.shape, offset)

    @property
    def factor(self) -> float:
        """Image pixels a network pixel, along one side."""
        return self.scale / self.image_scale

    def from_image(self, values: np.ndarray) -> np.ndarray:
        """Sum flux a pixel onto the network's pixels."""
        rows, columns = self._overlaps()
        return rows @ values @ columns.T

    def variance(self, values: np.ndarray) -> np.ndarray:
        """The variance of `from_image`, pixels taken as independent."""
        rows, columns = (overlap**2 for overlap in self._overlaps())
        return rows @ values @ columns.T

    def to_image(self, values: np.ndarray) -> np.ndarray:
        """Spread flux a network pixel over the image's pixels; none beyond the network's frame."""
        rows, columns = self._overlaps()
        return rows.T @ values @ columns / self.factor**2

    def _overlaps(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of each image row, and of each column, that falls into each network row and column."""
        return tuple(
            _overlap(self.pixels, self.factor, n, shift) for n, shift in zip(self.shape, reversed(self.offset))
        )


@dataclass(frozen=True)
class Stamp:
    """An image on a network's pixels: flux, its standard deviation, where it is used, the PSF's width in pixels."""

    data: np.ndarray
    sigma: np.ndarray
    used: np.ndarray
    psf_fwhm: float

    @classmethod
    def of(cls, image: NDData, grid: NetworkGrid) -> Stamp:
        """Take it from a prepared image; what lies outside the image is not used."""
        good = np.ones(image.data.shape) if image.mask is None else (~image.mask).astype(float)
        share = grid.from_image(good) / grid.factor**2
        data = grid.from_image(np.where(good > 0, image.data, 0.0).astype(float))
        variance = grid.variance(np.where(good > 0, image.uncertainty.array, 0.0).astype(float))
        used = share > 0.5
        norm = np.where(used, share, 1.0)
        fwhm = 0.0 if image.psf is None else gaussian_width(image.psf) / grid.factor
        return cls(
            np.where(used, data / norm, 0.0), np.where(used, np.sqrt(variance) / norm, 0.0), used, fwhm,
        )


def gaussian_width(psf: np.ndarray) -> float:
    """FWHM in pixels of the Gaussian that blurs as much: of the same sum of squares."""
    squares = float(np.sum(psf**2))
    if squares >= _squares(0.1):
        return 0.1
    if squares <= _squares(_WIDEST):
        return _WIDEST
    return brentq(lambda fwhm: _squares(fwhm) - squares, 0.1, _WIDEST, xtol=1e-4)


def _squares(fwhm: float) -> float:
    sigma = fwhm * _SIGMA_PER_FWHM
    half = int(np.ceil(5 * sigma))
    line = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    return float(((line / line.sum()) ** 2).sum() ** 2)


def _overlap(pixels: int, factor: float, size: int, shift: float) -> np.ndarray:
    """(pixels, size): length that network pixel and image pixel share, in image pixels."""
    edges = (np.arange(pixels + 1) - pixels / 2) * factor + shift
    own = np.arange(size + 1) - size / 2
    low = np.maximum(edges[:-1, None], own[None, :-1])
    high = np.minimum(edges[1:, None], own[None, 1:])
    return np.clip(high - low, 0, None)
