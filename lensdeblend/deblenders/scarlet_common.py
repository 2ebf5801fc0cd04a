"""What both generations of scarlet have in common: bands as one cube, and galaxies before the PSF turned into a result.

Both describe a galaxy as one or more non-negative images times fluxes by band, seen with a narrow PSF of the model's
own, and convolve from that PSF to those of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lensdeblend.deblenders.blend import Band, Blend
from lensdeblend.deblenders.catalog import blendedness, catalogue, flags_of, moments, shape, together
from lensdeblend.deblenders.detection import Detection
from lensdeblend.deblenders.dressing import dressed, segmented
from lensdeblend.results import Deblending

__all__ = ["Cube", "Found", "inside", "told"]

# Of the sharpest PSF in the data: a model's PSF must be narrower than that.
_NARROWER = 0.8


@dataclass(frozen=True)
class Cube:
    """Bands of one grid: ``data``, ``variance`` and ``weights`` (bands, ny, nx), ``psfs`` (bands, size, size).

    The sky is taken off; masked pixels have weight 0, datum 0 and the median variance.
    """

    bands: tuple[str, ...]
    data: np.ndarray
    variance: np.ndarray
    weights: np.ndarray
    psfs: np.ndarray

    @classmethod
    def of(cls, blend: Blend, levels: Sequence[float], least: int) -> Cube:
        """Take the bands of a blend, their PSFs padded to one odd size of at least ``least`` pixels.

        Raises
        ------
        ValueError
            Where bands have different pixels, or one has no PSF.
        """
        for band in blend.bands:
            if not band.aligned or band.data.shape != blend.shape:
                raise ValueError(
                    f"scarlet takes bands of one grid; the pixels of {band.name!r} are not those of "
                    f"{blend.first.name!r}: reproject it, or use method='joint'"
                )
            if band.psf is None:
                which = f"band {band.name!r}" if blend.banded else "the image"
                raise ValueError(f"scarlet needs the PSF, and {which} has none: set psf= of the NDData")
        size = max(least, *(max(band.psf.shape) for band in blend.bands))
        return cls(
            tuple(band.name for band in blend.bands),
            np.stack([np.where(band.used, band.data - level, 0.0) for band, level in zip(blend.bands, levels)]),
            np.stack([_variance(band) for band in blend.bands]),
            np.stack([band.weight**2 for band in blend.bands]),
            np.stack([_padded(band.psf, size) for band in blend.bands]),
        )

    @property
    def noise(self) -> np.ndarray:
        """(bands,), of a pixel."""
        return np.sqrt(self.variance).mean((1, 2))

    def narrow(self, sigma: float) -> float:
        """The standard deviation (pixels) of a Gaussian model PSF: ``sigma``, or less for sharper data."""
        sharpest = 1 / np.sqrt(2 * np.pi * self.psfs.max())
        return float(min(sigma, _NARROWER * sharpest))


def _variance(band: Band) -> np.ndarray:
    return np.where(band.used, band.sigma, band.noise) ** 2


def _padded(psf: np.ndarray, size: int) -> np.ndarray:
    return np.pad(psf, [((size - length) // 2,) * 2 for length in psf.shape])


def inside(positions: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Which positions are in a pixel of the image."""
    return ((positions >= -0.5) & (positions < np.array(shape[::-1]) - 0.5)).all(1)


@dataclass(frozen=True)
class Found:
    """Galaxies: ``light`` (n, bands, ny, nx) through the model's PSF of ``sigma`` pixels, ``images`` (the same shape)
    through those of the data, ``fluxes`` (n, bands)."""

    light: np.ndarray
    images: np.ndarray
    fluxes: np.ndarray
    sigma: float
    converged: bool


def told(
    blend: Blend, detection: Detection, levels: Sequence[float], found: Found, threshold: float
) -> Deblending:
    """The result. Fluxes count as fitted numbers, the pixels of the shapes do not: constraints leave few of them free.
    """
    light, whole = (together(blend, images.swapaxes(0, 1)) for images in (found.light, found.images))
    shapes = np.array([shape(one, found.sigma) for one in light])
    positions = np.array([
        moments(one)[:2] if (one > 0).any() else position for one, position in zip(light, detection.positions)
    ])
    catalog = catalogue(
        blend, positions, found.fluxes, np.full(found.fluxes.shape, np.nan), shapes[:, :2], shapes[:, 2],
        blendedness(whole),
        [flags_of(position, fluxes, blend) for position, fluxes in zip(detection.positions, found.fluxes)],
    )
    return dressed(
        blend, list(found.images.transpose(1, 0, 2, 3)), levels, catalog,
        segmented(whole, detection.significance, threshold), found.fluxes.size,
        [] if found.converged else ["not converged"], judged=True,
    )
