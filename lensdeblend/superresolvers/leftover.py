r"""What a model leaves of an image, on finer pixels: where it is more than noise, it is interpolated.

Of the residual :math:`r` and the noise :math:`\sigma`, the mean square about a pixel,
:math:`m = G * (r / \sigma)^2`, exceeds 1 where the model is wrong. What it exceeds that by, beyond five standard
deviations of chance, is taken as the power of what the model lacks, :math:`e`, and the residual counts by Wiener's
share :math:`e / (1 + e)`. So a model that leaves noise alone stays as it is, and one that lacks something is about as
near to the truth as an interpolation, or nearer.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from lensdeblend.superresolvers.filling import known
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.kernels import interpolated

__all__ = ["left_by"]

# Pixels of the data: standard deviation of the Gaussian.
_AROUND = 2.0
_CHANCE = 5.0


def left_by(model: np.ndarray, pixels: FinePixels) -> np.ndarray:
    """Of the data ``pixels.image``, by a model on their pixels (ny, nx): flux per finer pixel."""
    image = pixels.image
    used = known(image) & np.isfinite(image.uncertainty.array) & (image.uncertainty.array > 0)
    residual = np.where(used, image.data - model, 0.0)
    squares = np.where(used, residual**2 / np.where(used, image.uncertainty.array, 1.0), 0.0)
    share = np.maximum(gaussian_filter(used.astype(float), _AROUND), 1e-3)
    by_chance = np.sqrt(2 / (4 * np.pi * _AROUND**2 * share))
    excess = np.maximum(gaussian_filter(squares, _AROUND) / share - 1 - _CHANCE * by_chance, 0.0)
    if not excess.any():
        return np.zeros(pixels.shape)
    return interpolated(residual * excess / (1 + excess), pixels, "spline")
