"""Masked pixels made up from those around, for what cannot do without."""

from __future__ import annotations

import numpy as np
from astropy.nddata import NDData
from scipy.ndimage import gaussian_filter

__all__ = ["filled", "known"]

# A pixel is filled from the narrowest Gaussian that reaches this much weight of unmasked pixels.
_ENOUGH = 0.05


def known(image: NDData) -> np.ndarray:
    """Pixels that are finite and not masked."""
    finite = np.isfinite(image.data)
    return finite if image.mask is None else finite & ~image.mask


def filled(data: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """With masked pixels as the unmasked ones around them."""
    if mask.all():
        raise ValueError("every pixel of the image is masked: there is nothing to interpolate")
    told = np.where(mask, 0.0, data)
    whole, left, sigma = told.copy(), mask.copy(), 1.0
    while left.any():
        share = gaussian_filter((~mask).astype(float), sigma, mode="reflect")
        reached = left & (share > _ENOUGH)
        whole[reached] = gaussian_filter(told, sigma, mode="reflect")[reached] / share[reached]
        left &= ~reached
        sigma *= 2
    return whole
