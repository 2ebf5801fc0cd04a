"""Galaxies that nowhere rise outwards."""

from __future__ import annotations

import numpy as np

__all__ = ["falling"]


def falling(images: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Galaxies (n, ny, nx) that nowhere rise outwards: no pixel brighter than all its neighbours that are nearer to
    ``positions``, (n, 2) as x and y."""
    _, ny, nx = images.shape
    row, column = np.mgrid[-1:ny + 1, -1:nx + 1]
    distance = np.hypot(column - positions[:, :1, None], row - positions[:, 1:, None])
    inner = distance[:, 1:-1, 1:-1]
    shifts = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    nearer = [distance[:, dy:dy + ny, dx:dx + nx] < inner for dy, dx in shifts]
    central = ~np.any(nearer, axis=0)
    fallen = images
    for _ in range(ny + nx):
        framed = np.pad(fallen, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        most = np.max([
            np.where(inwards, framed[:, dy:dy + ny, dx:dx + nx], -np.inf) for inwards, (dy, dx) in zip(nearer, shifts)
        ], axis=0)
        lower = np.where(central | ~np.isfinite(most), fallen, np.minimum(fallen, most))
        if np.array_equal(lower, fallen):
            break
        fallen = lower
    return fallen
