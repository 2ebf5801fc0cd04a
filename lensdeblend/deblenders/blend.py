"""The bands of a blend as arrays, and how their pixels lie on each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.nddata import NDData

from lensdeblend.images import pixel_scale
from lensdeblend.interfaces import Image

__all__ = ["Band", "Blend"]


@dataclass(frozen=True)
class Band:
    """One band: ``data`` and ``sigma`` (ny, nx), 0 and 1 where not ``used``.

    ``matrix`` (2, 2) and ``offset`` (2,) take pixel (x, y) of the first band to those of this one.
    """

    name: str
    image: NDData
    data: np.ndarray
    sigma: np.ndarray
    used: np.ndarray
    psf: np.ndarray | None
    matrix: np.ndarray
    offset: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        """One over the noise, 0 where masked."""
        return self.used / self.sigma

    @property
    def noise(self) -> float:
        """Of a pixel: the median, 1 where all are masked."""
        return float(np.median(self.sigma[self.used])) if self.used.any() else 1.0

    @property
    def aligned(self) -> bool:
        """Whether its pixels are those of the first band."""
        return np.allclose(self.matrix, np.eye(2), atol=1e-6) and np.allclose(self.offset, 0, atol=1e-3)

    @property
    def placed(self) -> tuple[float, ...]:
        """What tells pixels of one place from those of another; nothing for those of the first band."""
        return () if self.aligned else (*self.matrix.ravel().tolist(), *self.offset.tolist())


@dataclass(frozen=True)
class Blend:
    """The bands of one image; ``banded`` tells a mapping from a single image."""

    bands: tuple[Band, ...]
    banded: bool

    @classmethod
    def of(cls, image: Image) -> Blend:
        """Take a prepared image, or several by name.

        Raises
        ------
        ValueError
            Where a band does not overlap with the first.
        """
        images = image if isinstance(image, Mapping) else {"": image}
        first = next(iter(images.values()))
        return cls(tuple(_band(name, one, first) for name, one in images.items()), isinstance(image, Mapping))

    @property
    def first(self) -> Band:
        return self.bands[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Of the first band."""
        return self.first.data.shape

    @property
    def scale(self) -> float:
        """Arcsec a pixel of the first band."""
        return pixel_scale(self.first.image).to_value(u.arcsec)

    @property
    def grids(self) -> list[list[int]]:
        """Which bands lie on the same pixels."""
        together: dict[tuple, list[int]] = {}
        for number, band in enumerate(self.bands):
            together.setdefault((band.data.shape, band.placed), []).append(number)
        return list(together.values())

    @property
    def used(self) -> int:
        """Unmasked pixels of all bands."""
        return sum(int(band.used.sum()) for band in self.bands)

    def as_given(self, values: list) -> object:
        """One value a band as the input came: alone, or by name."""
        return dict(zip((band.name for band in self.bands), values)) if self.banded else values[0]


def _band(name: str, image: NDData, first: NDData) -> Band:
    used = np.ones(image.data.shape, bool) if image.mask is None else ~image.mask
    matrix, offset = (np.eye(2), np.zeros(2)) if image is first else _onto(image, first)
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * (np.array(first.data.shape[::-1]) - 1) @ matrix.T + offset
    ny, nx = image.data.shape
    if (corners.max(0) < -0.5).any() or (corners.min(0) > np.array([nx, ny]) - 0.5).any():
        raise ValueError(f"band {name!r} shows another part of the sky than the first band: leave it out")
    return Band(
        name, image, np.where(used, image.data, 0.0).astype(float),
        np.where(used, np.sqrt(np.where(used, image.uncertainty.array, 1.0)), 1.0), used,
        None if image.psf is None else np.asarray(image.psf, float), matrix, offset,
    )


def _onto(image: NDData, first: NDData) -> tuple[np.ndarray, np.ndarray]:
    """By the WCS of both; where one has none, their centres are the same place."""
    centre, other = (np.array(one.data.shape[::-1]) / 2 - 0.5 for one in (first, image))
    if image.wcs is None or first.wcs is None:
        matrix = np.eye(2) * float(pixel_scale(first) / pixel_scale(image))
        return matrix, other - matrix @ centre
    points = centre + np.array([[0, 0], [1, 0], [0, 1]])
    there = np.stack(image.wcs.world_to_pixel(first.wcs.pixel_to_world(*points.T)), 1)
    matrix = np.stack([there[1] - there[0], there[2] - there[0]], 1)
    return matrix, there[0] - matrix @ centre
