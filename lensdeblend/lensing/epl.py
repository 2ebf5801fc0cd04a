r"""Deflection of the elliptical power law, and its derivatives by every parameter.

With complex positions :math:`z = x + iy` from the centre, ellipticity :math:`\epsilon = e_1 + i e_2`, slope :math:`t
= \gamma - 1` and :math:`\zeta = z - \epsilon z^*`, the angular series of Tessore & Metcalf (2015) takes a form
without angles or axis ratios, smooth through :math:`\epsilon = 0`:

.. math::

    \alpha = \theta_E^t (1 - |\epsilon|^2)^{t/2}\, |\zeta|^{-t}\, \zeta\, S(w), \qquad w = -\epsilon^* \zeta / \zeta^*,

.. math::

    S(w) = \sum_n c_n w^n, \qquad c_0 = 1, \quad c_n = c_{n-1}\, \frac{2n - (2 - t)}{2n + (2 - t)}.

Since :math:`|w| = |\epsilon|`, the number of terms follows from the ellipticity alone. The series has real
coefficients, so it is summed by Clenshaw's recurrence in two real accumulators (Tessore & Metcalf 2015,
2015A&A...580A..79T).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["epl", "epl_convergence", "epl_convergence_jacobian", "epl_jacobian", "series_terms", "sie"]

_SERIES_TOLERANCE = {torch.float32: 1e-8, torch.float64: 1e-13}
# Squared arcsec; keeps the centre finite, and so that of its inverse square, which gradients take.
_SOFTENING2 = {torch.float32: 1e-18, torch.float64: 1e-24}


def series_terms(ellipticity: float, dtype: torch.dtype = torch.float64) -> int:
    """Number of series terms that leave a truncation error below the rounding of ``dtype``."""
    ellipticity = min(max(ellipticity, 1e-3), 0.97)
    tolerance = _SERIES_TOLERANCE[dtype]
    return max(3, math.ceil(math.log(tolerance * (1 - ellipticity)) / math.log(ellipticity)) + 1)


def _modulus_bound(e1: Tensor, e2: Tensor) -> float:
    return float(torch.hypot(e1.detach(), e2.detach()).max())


def _coefficients(t: Tensor, terms: int) -> tuple[Tensor, ...]:
    n = 2 * torch.arange(1, terms, dtype=t.dtype, device=t.device)
    s = t.unsqueeze(-1)
    tail = torch.cumprod((n - 2 + s) / (n + 2 - s), -1)
    return torch.cat([torch.ones_like(s), tail], -1).unbind(-1)


def _coefficients_and_slopes(t: Tensor, terms: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    n = 2 * torch.arange(1, terms, dtype=t.dtype, device=t.device)
    s = t.unsqueeze(-1)
    tail = torch.cumprod((n - 2 + s) / (n + 2 - s), -1)
    slopes = tail * torch.cumsum(1 / (n - 2 + s) + 1 / (n + 2 - s), -1)
    return tail.unbind(-1), slopes.unbind(-1)


def _clenshaw(coefficients: Sequence[Tensor], real: Tensor, imag: Tensor, modulus2: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of a polynomial with real coefficients at complex points of common modulus.

    Where no gradient is recorded, two buffers are used again and again.
    """
    twice, minus = 2 * real, -modulus2
    last = coefficients[-1] + torch.zeros_like(twice)
    before = torch.zeros_like(last)
    in_place = not torch.is_grad_enabled()
    for coefficient in coefficients[-2:0:-1]:
        if in_place:
            before.mul_(minus).add_(coefficient).addcmul_(twice, last)
        else:
            before = torch.addcmul(before * minus + coefficient, twice, last)
        last, before = before, last
    return torch.addcmul(before * minus + coefficients[0], real, last), imag * last


def epl(
    x: Tensor, y: Tensor, theta_E: Tensor, gamma: Tensor, e1: Tensor, e2: Tensor, center_x: Tensor, center_y: Tensor,
    terms: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Deflection of the elliptical power law.

    Parameters
    ----------
    x, y : Tensor
        Positions in arcsec.
    theta_E, gamma, e1, e2, center_x, center_y : Tensor
        lenstronomy's ``EPL``; any shapes that broadcast against the positions.
    terms : int, optional
        Length of the series; by default what the largest ellipticity needs.

    Returns
    -------
    alpha_x, alpha_y : Tensor
        In arcsec.

    Examples
    --------
    An isothermal sphere deflects by its Einstein radius everywhere.

    >>> import torch
    >>> from lensdeblend.lensing.epl import epl
    >>> zero = torch.tensor(0.0)
    >>> alpha_x, _ = epl(torch.tensor([0.5, 3.0]), zero, torch.tensor(1.2), torch.tensor(2.0), zero, zero, zero, zero)
    >>> alpha_x
    tensor([1.2000, 1.2000])
    """
    if terms is None:
        terms = series_terms(_modulus_bound(e1, e2), x.dtype)
    t = gamma - 1
    dx, dy = x - center_x, y - center_y
    zx = torch.addcmul((1 - e1) * dx, -e2, dy)
    zy = torch.addcmul((1 + e1) * dy, -e2, dx)
    xx, yy = zx * zx, zy * zy
    length2 = xx + yy + _SOFTENING2[xx.dtype]
    inverse = length2.reciprocal()
    cosine, sine = (xx - yy) * inverse, 2 * (zx * zy) * inverse
    modulus2 = e1 * e1 + e2 * e2
    w_real, w_imag = torch.addcmul(-e1 * cosine, -e2, sine), torch.addcmul(e2 * cosine, -e1, sine)
    s_real, s_imag = _clenshaw(_coefficients(t, terms), w_real, w_imag, modulus2)
    log_scale = t * torch.log(theta_E) + 0.5 * t * torch.log1p(-modulus2)
    scale = torch.addcmul(log_scale, -0.5 * t, length2.log()).exp()
    return scale * (zx * s_real - zy * s_imag), scale * (zx * s_imag + zy * s_real)


def sie(
    x: Tensor, y: Tensor, theta_E: Tensor, e1: Tensor, e2: Tensor, center_x: Tensor, center_y: Tensor,
    terms: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Deflection of the singular isothermal ellipsoid: `epl` of slope 2."""
    return epl(x, y, theta_E, torch.full_like(theta_E, 2.0), e1, e2, center_x, center_y, terms)


def epl_convergence(
    x: Tensor, y: Tensor, theta_E: Tensor, gamma: Tensor, e1: Tensor, e2: Tensor, center_x: Tensor, center_y: Tensor
) -> Tensor:
    """Convergence of the elliptical power law."""
    t = gamma - 1
    dx, dy = x - center_x, y - center_y
    zx, zy = (1 - e1) * dx - e2 * dy, (1 + e1) * dy - e2 * dx
    log_length = 0.5 * torch.log(zx * zx + zy * zy + _SOFTENING2[zx.dtype])
    return (1 - t / 2) * torch.exp(t * (torch.log(theta_E) + 0.5 * torch.log1p(-(e1 * e1 + e2 * e2)) - log_length))


def epl_convergence_jacobian(
    x: Tensor, y: Tensor, theta_E: Tensor, gamma: Tensor, e1: Tensor, e2: Tensor, center_x: Tensor, center_y: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Convergence, and its derivatives by ``theta_E``, ``gamma``, ``e1``, ``e2``, ``center_x``, ``center_y``."""
    t, round_part = gamma - 1, 1 - (e1 * e1 + e2 * e2)
    dx, dy = x - center_x, y - center_y
    zx, zy = (1 - e1) * dx - e2 * dy, (1 + e1) * dy - e2 * dx
    length2 = zx * zx + zy * zy + _SOFTENING2[zx.dtype]
    log_ratio = torch.log(theta_E) + 0.5 * torch.log(round_part) - 0.5 * torch.log(length2)
    power = torch.exp(t * log_ratio)
    convergence = (1 - t / 2) * power
    steep = convergence * t / length2
    return convergence, [
        convergence * t / theta_E,
        convergence * log_ratio - power / 2,
        steep * (zx * dx - zy * dy) - convergence * t * e1 / round_part,
        steep * (zx * dy + zy * dx) - convergence * t * e2 / round_part,
        steep * ((1 - e1) * zx - e2 * zy),
        steep * ((1 + e1) * zy - e2 * zx),
    ]


def epl_jacobian(
    z: Tensor, theta_E: Tensor, gamma: Tensor, e1: Tensor, e2: Tensor, center: Tensor, terms: int | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Deflection and its derivatives, in complex numbers.

    Parameters
    ----------
    z : Tensor
        Complex positions.
    theta_E, gamma, e1, e2 : Tensor
        Real; broadcast against ``z``.
    center : Tensor
        Complex centre.

    Returns
    -------
    alpha : Tensor
        Complex deflection.
    derivatives : list of Tensor
        By ``theta_E``, ``gamma``, ``e1``, ``e2``, ``center_x``, ``center_y``.
    """
    if terms is None:
        terms = series_terms(_modulus_bound(e1, e2), e1.dtype)
    t = gamma - 1
    epsilon = torch.complex(e1, e2)
    z = z - center
    z_conj = z.conj().resolve_conj()
    zeta = z - epsilon * z_conj
    zeta_real, zeta_imag = zeta.real.contiguous(), zeta.imag.contiguous()
    length2 = zeta_real * zeta_real + zeta_imag * zeta_imag + _SOFTENING2[zeta_real.dtype]
    phase = zeta * zeta / length2
    w = -epsilon.conj() * phase
    w_real, w_imag = w.real.contiguous(), w.imag.contiguous()
    modulus2 = e1 * e1 + e2 * e2

    coefficients, slopes = _coefficients_and_slopes(t, terms)
    tail = torch.complex(*_clenshaw(coefficients, w_real, w_imag, modulus2))
    tail_slope = torch.complex(*_clenshaw(slopes, w_real, w_imag, modulus2))
    series = 1 + w * tail
    series_by_t = w * tail_slope
    # The coefficients obey 2 w S' + (2-t) S = (2-t) + w (2 w S' + t S), which gives S' without a second sum.
    by_w = (t * series - (2 - t) * tail) / (2 * (1 - w))

    log_length2 = length2.log()
    log_scale = t * torch.log(theta_E) + 0.5 * t * torch.log1p(-modulus2)
    amplitude = torch.exp(log_scale - 0.5 * t * log_length2)
    alpha = amplitude * zeta * series
    w_by_w = w * by_w
    by_zeta = amplitude * ((1 - t / 2) * series + w_by_w)
    by_zeta_conj = -amplitude * phase * (t / 2 * series + w_by_w)
    by_epsilon_conj = -amplitude * zeta * phase * by_w
    first, second = by_zeta * z_conj, by_zeta_conj * z
    shrink = -t / (1 - modulus2)
    derivatives = [
        alpha * (t / theta_E),
        amplitude * zeta * series_by_t
        + alpha * (torch.log(theta_E) + 0.5 * torch.log1p(-modulus2) - 0.5 * log_length2),
        by_epsilon_conj - first - second + alpha * (shrink * e1),
        -1j * (by_epsilon_conj + first - second) + alpha * (shrink * e2),
        -(by_zeta * (1 - epsilon) + by_zeta_conj * (1 - epsilon.conj())),
        -1j * (by_zeta * (1 + epsilon) - by_zeta_conj * (1 + epsilon.conj())),
    ]
    return alpha, derivatives
