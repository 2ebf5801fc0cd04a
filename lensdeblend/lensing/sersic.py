r"""The elliptical Sérsic profile and its derivatives by every parameter.

Normalised to total flux 1:

.. math::

    I = \frac{b^{2n}}{2\pi n R_e^2 \Gamma(2n)} \exp\left[-b\,(r/R_e)^{1/n}\right],

with the elliptical radius written without angles,

.. math::

    r^2 = \frac{(1 + e^2)(x^2 + y^2) - 2 e_1 (x^2 - y^2) - 4 e_2 x y}{1 - e^2},

which is :math:`q x'^2 + y'^2/q` in the axes' frame, and :math:`b(n)` a series in :math:`1/n`
as of Ciotti & Bertin (1999A&A...352..447C), whose own coefficients leave 1e-4 of the light below :math:`n = 1`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["elliptical_radius2", "gaussian", "sersic", "sersic_b", "sersic_jacobian"]

# Fitted to half of the incomplete gamma function, P(2n, b) = 1/2, for n from 0.25 to 12: good to 4e-8 there.
_B_IN_INVERSE_N = (
    -1 / 3, 0.009878906893, 0.001785841602, 0.0001273462337, -0.0001394641884,
    3.102472928e-05, -3.466472223e-06, 1.644580665e-07,
)
# Of that series' slope, in powers of 1/n from the second.
_B_SLOPE_IN_INVERSE_N = tuple(-k * coefficient for k, coefficient in enumerate(_B_IN_INVERSE_N))[1:]
# Keeps the cusp's logarithm finite; far below any pixel (arcsec squared).
_SOFTENING2 = 1e-12


def sersic_b(n: Tensor) -> Tensor:
    """The constant that makes the radius contain half of the light."""
    return 2 * n + _polynomial(_B_IN_INVERSE_N, n.reciprocal())


def _sersic_b_slope(n: Tensor) -> Tensor:
    inverse = n.reciprocal()
    return 2 + inverse * inverse * _polynomial(_B_SLOPE_IN_INVERSE_N, inverse)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    total = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = coefficient + x * total
    return total


def _log_normalisation(n: Tensor, b: Tensor) -> Tensor:
    return 2 * n * torch.log(b) - torch.log(2 * math.pi * n) - torch.lgamma(2 * n)


def elliptical_radius2(dx: Tensor, dy: Tensor, e1: Tensor, e2: Tensor) -> Tensor:
    """Squared elliptical radius, the geometric mean of the axes as unit."""
    modulus2 = e1 * e1 + e2 * e2
    inverse = 1 / (1 - modulus2)
    along_x, along_y = (1 + modulus2 - 2 * e1) * inverse, (1 + modulus2 + 2 * e1) * inverse
    cross = -4 * e2 * inverse
    return torch.addcmul(along_y * dy * dy, dx, torch.addcmul(along_x * dx, cross, dy))


def sersic(
    x: Tensor, y: Tensor, radius: Tensor, n: Tensor, e1: Tensor, e2: Tensor, center_x: Tensor, center_y: Tensor
) -> Tensor:
    """Surface brightness, per square arcsec, of a Sérsic profile of flux 1."""
    b = sersic_b(n)
    r2 = elliptical_radius2(x - center_x, y - center_y, e1, e2) + _SOFTENING2
    half = 0.5 / n
    shape = torch.addcmul(-2 * half * torch.log(radius), half, r2.log()).exp()
    return torch.addcmul(_log_normalisation(n, b) - 2 * torch.log(radius), -b, shape).exp()


def gaussian(
    x: Tensor, y: Tensor, sigma: Tensor, e1: Tensor, e2: Tensor, center_x: Tensor, center_y: Tensor
) -> Tensor:
    """Surface brightness, per square arcsec, of an elliptical Gaussian of flux 1."""
    r2 = elliptical_radius2(x - center_x, y - center_y, e1, e2)
    variance = sigma * sigma
    return torch.exp(-0.5 * r2 / variance) / (2 * math.pi * variance)


def sersic_jacobian(
    dx: Tensor, dy: Tensor, radius: Tensor, n: Tensor, e1: Tensor, e2: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Surface brightness of flux 1 and its derivatives by ``dx``, ``dy``, ``radius``, ``n``, ``e1``, ``e2``."""
    b = sersic_b(n)
    b_slope = _sersic_b_slope(n)
    modulus2 = e1 * e1 + e2 * e2
    inverse = 1 / (1 - modulus2)
    xx, yy, xy = dx * dx, dy * dy, dx * dy
    r2 = elliptical_radius2(dx, dy, e1, e2) + _SOFTENING2
    log_ratio = r2.log() - 2 * torch.log(radius)
    b_shape = b * torch.exp(log_ratio * (0.5 / n))
    light = torch.exp(_log_normalisation(n, b) - 2 * torch.log(radius) - b_shape)
    by_log_r2 = light * b_shape * (-0.5 / n)
    by_r2 = by_log_r2 / r2
    log_norm_slope = 2 * torch.log(b) + 2 * n * b_slope / b - 1 / n - 2 * torch.digamma(2 * n)
    sums, differences = xx + yy, xx - yy
    return light, [
        by_r2 * ((2 * (1 + modulus2 - 2 * e1) * inverse) * dx - (4 * e2 * inverse) * dy),
        by_r2 * ((2 * (1 + modulus2 + 2 * e1) * inverse) * dy - (4 * e2 * inverse) * dx),
        (by_log_r2 + light) * (-2 / radius),
        light * (log_norm_slope - (b_slope / b) * b_shape + b_shape * log_ratio * (0.5 / (n * n))),
        by_r2 * ((2 * inverse) * (e1 * (sums + r2) - differences)),
        by_r2 * ((2 * inverse) * (e2 * (sums + r2) - 2 * xy)),
    ]
