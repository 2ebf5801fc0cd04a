"""Interpolation of pixels: the flux of finer ones from those around."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from lensdeblend.superresolvers.finer import FinePixels

__all__ = ["KERNELS", "interpolated"]

KERNELS = ("bicubic", "lanczos", "spline")
_LOBES = 3


def interpolated(data: np.ndarray, pixels: FinePixels, kernel: str) -> np.ndarray:
    """Flux per fine pixel, by a kernel of `KERNELS`."""
    rows, columns = pixels.centres()
    if kernel == "spline":
        at = np.meshgrid(rows, columns, indexing="ij")
        return map_coordinates(data, at, order=3, mode="reflect") / pixels.factor**2
    of = {"bicubic": _keys, "lanczos": _lanczos}[kernel]
    down, across = (_weights(of, places, n) for places, n in zip((rows, columns), data.shape))
    return down @ data @ across.T / pixels.factor**2


def _keys(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near, far = 1 - 2.5 * x**2 + 1.5 * x**3, 2 - 4 * x + 2.5 * x**2 - 0.5 * x**3
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < _LOBES, np.sinc(x) * np.sinc(x / _LOBES), 0.0)


def _weights(kernel, places: np.ndarray, n: int) -> np.ndarray:
    """Of each of ``n`` pixels at ``places``, those beyond the edges mirrored back: (places, n)."""
    nearest = np.floor(places).astype(int)
    steps = np.arange(1 - _LOBES, _LOBES + 1)
    sample = nearest[:, None] + steps
    weight = kernel(places[:, None] - sample)
    weight /= weight.sum(1, keepdims=True)
    folded = sample % (2 * n)
    folded = np.minimum(folded, 2 * n - 1 - folded)
    matrix = np.zeros((len(places), n))
    np.add.at(matrix, (np.arange(len(places))[:, None], folded), weight)
    return matrix
