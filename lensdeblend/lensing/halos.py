"""Deflections of everything that is not the main lens: shear, haloes, point masses, the axion vortex."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["nfw", "point_mass", "point_masses", "shear", "truncated_nfw", "vortex"]


def shear(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection of an external shear, zero at the origin."""
    return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y


def point_mass(x: Tensor, y: Tensor, theta_E: Tensor, center_x: Tensor, center_y: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection of a point mass of Einstein radius ``theta_E``."""
    dx, dy = x - center_x, y - center_y
    factor = theta_E * theta_E / (dx * dx + dy * dy + 1e-16)
    return factor * dx, factor * dy


def point_masses(
    x: Tensor, y: Tensor, theta_E: Tensor, center_x: Tensor, center_y: Tensor
) -> tuple[Tensor, Tensor]:
    """Deflection of many point masses, stacked along the last axis of the parameters; summed one by one."""
    alpha_x = x.new_zeros(torch.broadcast_shapes(x.shape, (*theta_E.shape[:-1], 1)))
    alpha_y = torch.zeros_like(alpha_x)
    for index in range(theta_E.shape[-1]):
        one = slice(index, index + 1)
        more_x, more_y = point_mass(x, y, theta_E[..., one], center_x[..., one], center_y[..., one])
        alpha_x, alpha_y = alpha_x + more_x, alpha_y + more_y
    return alpha_x, alpha_y


def vortex(
    x: Tensor, y: Tensor, theta_E: Tensor, half_length: Tensor, angle: Tensor, center_x: Tensor, center_y: Tensor,
    n: int = 100,
) -> tuple[Tensor, Tensor]:
    """Deflection of an axion vortex: ``n`` equal point masses on a line; ``theta_E`` is that of all together."""
    step = torch.linspace(-1, 1, n, dtype=x.dtype, device=x.device) if n > 1 else x.new_zeros(1)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    dx, dy = x - center_x, y - center_y
    along, across = dx * cosine + dy * sine, dy * cosine - dx * sine
    off2 = across * across + 1e-16
    # All points are as far from the line: only the distance along it has to be told apart.
    total, moment = torch.zeros_like(along), torch.zeros_like(along)
    for place in (half_length.unsqueeze(-1) * step).unbind(-1):
        distance = along - place
        inverse = torch.addcmul(off2, distance, distance).reciprocal()
        total, moment = total + inverse, torch.addcmul(moment, distance, inverse)
    share = theta_E * theta_E / n
    across = across * total
    return share * (moment * cosine - across * sine), share * (moment * sine + across * cosine)


def _nfw_f(s: Tensor) -> Tensor:
    """arccosh(1/s)/sqrt(1-s^2), continued to s > 1 and through s = 1 by its series."""
    near = (s - 1).abs() < 1e-3
    inside = torch.where(near | (s > 1), torch.full_like(s, 0.5), s)
    outside = torch.where(near | (s < 1), torch.full_like(s, 2.0), s)
    below = torch.acosh(1 / inside) / torch.sqrt(1 - inside * inside)
    above = torch.acos(1 / outside) / torch.sqrt(outside * outside - 1)
    h = s - 1
    through = 1 - 2 / 3 * h + 7 / 15 * h * h - 12 / 35 * h * h * h
    return torch.where(near, through, torch.where(s < 1, below, above))


def _nfw_mass(s: Tensor) -> Tensor:
    """log(s/2) + _nfw_f(s), the projected mass within s; by its series where the two cancel."""
    deep = s < 0.03
    inner = torch.where(deep, s, torch.full_like(s, 0.03))
    square, log = inner * inner, -torch.log(inner / 2)
    series = square * (0.5 * log - 1 / 4 + square * (3 / 8 * log - 7 / 32 + square * (5 / 16 * log - 37 / 192)))
    outer = torch.where(deep, torch.full_like(s, 0.03), s)
    return torch.where(deep, series, torch.log(outer / 2) + _nfw_f(outer))


def nfw(
    x: Tensor, y: Tensor, Rs: Tensor, alpha_Rs: Tensor, center_x: Tensor, center_y: Tensor
) -> tuple[Tensor, Tensor]:
    """Deflection of an NFW halo (Navarro, Frenk & White 1997ApJ...490..493N) with deflection ``alpha_Rs`` at ``Rs``."""
    dx, dy = x - center_x, y - center_y
    s = torch.sqrt(dx * dx + dy * dy + 1e-18) / Rs
    factor = alpha_Rs / (1 + math.log(0.5)) * _nfw_mass(s) / (s * s * Rs)
    return factor * dx, factor * dy


def truncated_nfw(
    x: Tensor, y: Tensor, Rs: Tensor, alpha_Rs: Tensor, r_trunc: Tensor, center_x: Tensor, center_y: Tensor
) -> tuple[Tensor, Tensor]:
    """Deflection of a smoothly truncated NFW halo (Baltz, Marshall & Oguri 2009JCAP...01..015B, n = 1)."""
    dx, dy = x - center_x, y - center_y
    s = torch.sqrt(dx * dx + dy * dy + 1e-18) / Rs
    tau = r_trunc / Rs
    tau2 = tau * tau
    root = torch.sqrt(tau2 + s * s)
    # Written so that every term vanishes at the centre: in the usual form they cancel there.
    rise = s * s / (root + tau)
    log_term = torch.log(s / (root + tau))
    mass = tau2 / (tau2 + 1) ** 2 * (
        2 * s * s * _nfw_f(s) - math.pi * rise
        + (tau2 - 1) * (_nfw_mass(s) - torch.log1p(0.5 * rise / tau) + rise / tau * log_term)
    )
    factor = alpha_Rs / (1 + math.log(0.5)) * mass / (s * s * Rs)
    return factor * dx, factor * dy
