"""What models of galaxies are off by, as noise in proportion to the light.

No galaxy is a bulge and a disc. By the noise alone, what a bright one departs from them by would have to be explained
by its fainter neighbours, which grow and wander for it. An error in proportion to the light leaves them to what is
theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from lensdeblend.deblenders.blend import Blend

__all__ = ["with_model_error"]

_SMOOTH = 1.0


def with_model_error(blend: Blend, levels: Sequence[float], fraction: float) -> Blend:
    """The same pixels, each noisier by ``fraction`` of the light above the sky's ``levels``, one a band."""
    if not fraction:
        return blend
    return replace(blend, bands=tuple(
        replace(band, sigma=np.where(band.used, np.hypot(band.sigma, fraction * _light(band, level)), 1.0))
        for band, level in zip(blend.bands, levels)
    ))


def _light(band, level: float) -> np.ndarray:
    return gaussian_filter(np.where(band.used, band.data - level, 0.0), _SMOOTH).clip(0)
