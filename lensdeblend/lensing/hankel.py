r"""Fourier transforms of Sérsic profiles, which depend on :math:`k R` and the index alone.

.. math::

    F_n(\kappa) = 2 \pi \int_0^\infty I_n(r) \, J_0(\kappa r) \, r \, dr, \qquad \kappa = k R_\mathrm{half}, \quad
    F_n(0) = 1,

tabulated once by a fast Hankel transform on logarithmic grids (Hamilton 2000MNRAS.312..257H) and interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lensdeblend.lensing.sersic import sersic_b

__all__ = ["LARGEST_INDEX", "SMALLEST_INDEX", "SersicTransform", "sersic_transform"]

SMALLEST_INDEX, LARGEST_INDEX = 0.4, 6.5
_INDICES = 64
# Of the transform; the table keeps the part of it where light is seen.
_POINTS = 4096
_REACH = np.log(1e8)
_KEPT = np.log(1e-3), np.log(1e4)


@dataclass(frozen=True)
class SersicTransform:
    """The table: ``values`` (indices, points) and their ``slopes`` by log kappa, from ``log_kappa`` on in ``step``; the
    indices go from ``log_n`` on in ``step_n``."""

    values: Tensor
    slopes: Tensor
    log_kappa: float
    step: float
    log_n: float
    step_n: float

    def rows(self, log_n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Profiles of the indices ``log_n`` (...): values, slopes by log kappa, slopes by log n, each (..., points)."""
        place = ((log_n - self.log_n) / self.step_n).clamp(1, len(self.values) - 2.001)
        left = place.floor()
        t = (place - left)[..., None]
        index = left.long()
        before, here, there, after = (self.values[index + shift] for shift in (-1, 0, 1, 2))
        value, by_place = _cubic(before, here, there, after, t)
        slope, _ = _cubic(*(self.slopes[index + shift] for shift in (-1, 0, 1, 2)), t)
        return value, slope, by_place / self.step_n

    def at(self, rows: tuple[Tensor, ...], log_kappa: Tensor) -> tuple[Tensor, ...]:
        """Each of the ``rows`` (..., points) at ``log_kappa`` (..., M)."""
        points = self.values.shape[-1]
        place = ((log_kappa - self.log_kappa) / self.step).clamp(0, points - 1.001)
        left = place.floor()
        t, index = place - left, left.long()
        return tuple(
            torch.lerp(row.gather(-1, index), row.gather(-1, index + 1), t) for row in rows
        )


def _cubic(before: Tensor, here: Tensor, there: Tensor, after: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Catmull-Rom spline and its slope."""
    b = (there - before) / 2
    d = (after - here) / 2
    c = 3 * (there - here) - 2 * b - d
    e = b + d - 2 * (there - here)
    return here + t * (b + t * (c + t * e)), b + t * (2 * c + 3 * t * e)


@lru_cache(maxsize=8)
def sersic_transform(dtype: torch.dtype = torch.float64, device: str = "cpu") -> SersicTransform:
    """The table, made at the first call."""
    from scipy.fft import fht

    log_n = np.linspace(np.log(SMALLEST_INDEX), np.log(LARGEST_INDEX), _INDICES)
    # One more on each side, for the spline.
    step_n = log_n[1] - log_n[0]
    log_n = np.concatenate([[log_n[0] - step_n], log_n, [log_n[-1] + step_n, log_n[-1] + 2 * step_n]])
    n = np.exp(log_n)[:, None]
    log_r, step = np.linspace(-_REACH, _REACH, _POINTS, retstep=True)
    r = np.exp(log_r)
    b = sersic_b(torch.as_tensor(n)).numpy()
    profile = r * np.exp(-np.minimum(b * r ** (1 / n), 700.0))
    flux = (profile * r).sum(1, keepdims=True) * step
    log_kappa = log_r
    values = fht(profile / flux, step, mu=0) / np.exp(log_kappa)
    slopes = np.gradient(values, step, axis=1)
    kept = (log_kappa >= _KEPT[0]) & (log_kappa <= _KEPT[1])
    tensors = (torch.as_tensor(part[:, kept].copy(), dtype=dtype, device=device) for part in (values, slopes))
    return SersicTransform(*tensors, float(log_kappa[kept][0]), float(step), float(log_n[0]), float(step_n))
