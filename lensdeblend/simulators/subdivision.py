"""Light averaged over each pixel: subdivided everywhere, and more finely where that is not enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import binary_dilation

__all__ = ["average_over_pixels"]

FINEST = 640
_CHUNK = 500_000

Brightness = Callable[[np.ndarray, np.ndarray], np.ndarray]


def average_over_pixels(
    brightness: Brightness, shape: tuple[int, int], pixel_scale: float, *,
    subdivision: int, precision: float | None, center: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Average surface brightness over the pixels of a grid.

    Each pixel is cut into ``subdivision`` by ``subdivision`` parts, and the brightness taken in the middle of each.
    Pixels over which it changes by much are cut twice as finely, again and again, until their average is stable.

    Parameters
    ----------
    brightness : callable
        From (N,) arrays of x and y in arcsec to a (K, N) array.
    shape : tuple of int
        ``(ny, nx)``.
    pixel_scale : float
        Arcsec.
    subdivision : int
    precision : float or None
        How well the average is to be known, as a fraction of the brightest pixel of each of the K; None for no
        refinement.
    center : tuple of float
        (x, y) of the middle of the grid, arcsec.

    Returns
    -------
    `~numpy.ndarray`
        (K, ny, nx).
    """
    y, x = (axis.ravel().astype(float) for axis in np.indices(shape))
    x = (x - (shape[1] - 1) / 2) * pixel_scale + center[0]
    y = (y - (shape[0] - 1) / 2) * pixel_scale + center[1]
    average, spread = _average(brightness, x, y, pixel_scale, subdivision)
    if precision is not None:
        limit = precision * np.abs(average).max(axis=1, keepdims=True)
        changing = (spread > subdivision**2 * limit).any(axis=0).reshape(shape)
        # A cusp can escape the points of one pixel, but not of all around it.
        unresolved = np.flatnonzero(binary_dilation(changing, np.ones((3, 3), bool)))
        while unresolved.size and subdivision < FINEST:
            subdivision *= 2
            finer, _ = _average(brightness, x[unresolved], y[unresolved], pixel_scale, subdivision)
            change = np.abs(finer - average[:, unresolved])
            average[:, unresolved] = finer
            unresolved = unresolved[(change > limit).any(axis=0)]
    return average.reshape(-1, *shape)


def _average(brightness: Brightness, x, y, pixel_scale: float, subdivision: int) -> tuple[np.ndarray, np.ndarray]:
    part = ((np.arange(subdivision) + 0.5) / subdivision - 0.5) * pixel_scale
    dy, dx = (axis.ravel() for axis in np.meshgrid(part, part, indexing="ij"))
    averages, spreads = [], []
    for piece in np.array_split(np.arange(x.size), max(1, -(-x.size * dx.size // _CHUNK))):
        values = brightness((x[piece, None] + dx).ravel(), (y[piece, None] + dy).ravel())
        values = values.reshape(len(values), piece.size, dx.size)
        averages.append(values.mean(axis=2))
        spreads.append(np.ptp(values, axis=2))
    return np.concatenate(averages, axis=1), np.concatenate(spreads, axis=1)
