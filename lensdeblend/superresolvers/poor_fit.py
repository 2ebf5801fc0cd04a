"""When a fit counts as poor."""

from __future__ import annotations

import numpy as np

__all__ = ["is_poor"]

_SIGMA = 3.0


def is_poor(chi2: float, freedom: float) -> bool:
    """Whether a reduced chi-square is more than three standard deviations above 1."""
    return bool(chi2 > 1 + _SIGMA * np.sqrt(2 / freedom))
