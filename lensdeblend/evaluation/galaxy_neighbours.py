"""How near generated galaxies come to those that a network learned from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from scipy.ndimage import map_coordinates

__all__ = ["GalaxyShapes", "nearest_distances"]

_SIDE, _REACH = 20, 2.5
_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class GalaxyShapes:
    """Images (n, ny, nx) with the Sérsic profiles of their galaxies: ``center`` (n, 2), x and y from the middle of the
    image, ``radius``, ``e1``, ``e2`` (n,), in pixels."""

    images: np.ndarray
    center: np.ndarray
    radius: np.ndarray
    e1: np.ndarray
    e2: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, table: Table, scale: float) -> GalaxyShapes:
        """Galaxies in the middle, with radii in units of ``1 / scale`` pixels."""
        radius, e1, e2 = (np.asarray(table[name], float) for name in ("radius", "e1", "e2"))
        return cls(images, np.zeros((len(images), 2)), radius / scale, e1, e2)

    def standard(self) -> np.ndarray:
        """In the frame in which the profiles are round, of radius 1: (m, 20, 20), the root of the sum of squares 1.

        Galaxies without a profile are left out.
        """
        steps = np.linspace(-_REACH, _REACH, _SIDE)
        frame = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
        middle = (np.array(self.images.shape[:0:-1]) - 1) / 2
        found = []
        for image, center, radius, e1, e2 in zip(self.images, self.center, self.radius, self.e1, self.e2):
            if not np.isfinite([radius, e1, e2]).all():
                continue
            stretch = np.array([[1 + e1, e2], [e2, 1 - e1]]) * radius / np.sqrt(1 - e1**2 - e2**2)
            x, y = (frame @ stretch.T + middle + center).T
            stamp = map_coordinates(image, [y, x], order=1)
            norm = np.sqrt((stamp**2).sum())
            found.append((stamp / (norm if norm > 0 else 1.0)).reshape(_SIDE, _SIDE))
        return np.array(found).reshape(-1, _SIDE, _SIDE)


def nearest_distances(stamps: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """Of each of ``stamps`` (n, m, m), the least distance to any of ``learned``, turned by right angles, mirrored or
    not: 0 where it is the same, at most the root of 2 for light that is positive.

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.evaluation.galaxy_neighbours import nearest_distances
    >>> one = np.array([[[0.6, 0.8], [0, 0]]])
    >>> nearest_distances(np.rot90(one, axes=(1, 2)), one)
    array([0.])
    """
    flat = learned.reshape(len(learned), -1)
    best = np.full(len(stamps), -np.inf)
    for which in range(8):
        turned = np.rot90(stamps[:, :, ::-1] if which >= 4 else stamps, which % 4, axes=(1, 2)).reshape(len(stamps), -1)
        for start in range(0, len(flat), _AT_ONCE):
            best = np.maximum(best, (turned @ flat[start:start + _AT_ONCE].T).max(1))
    return np.sqrt(np.clip(2 - 2 * best, 0, None))
