"""Samples of a blend's posterior by randomise-then-optimise (Bardsley et al. 2014, 10.1137/140964023).

Data and prior are disturbed by noise of their own, and the fit is made again; in a linear problem what comes out is the
posterior. The slopes are those of the best fit, so that a sample costs a few models; what that leads astray is caught
by shorter steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lensdeblend.deblenders.latent_blend import PROFILE, LatentBlend
from lensdeblend.lensing.least_squares import Fit

__all__ = ["Samples", "disturbed_solutions"]

_STEPS, _TOLERANCE, _SHORTER = 8, 0.3, 3
_RIDGE = 1e-6


@dataclass(frozen=True)
class Samples:
    """``profiles`` (samples, n, 6) and ``fluxes`` (samples, n, bands) in units of the noise."""

    profiles: np.ndarray
    fluxes: np.ndarray


@dataclass(frozen=True)
class _Disturbed:
    """The problem with its data off by ``noise``, (pixels,), and its prior by as much as makes ``mean``."""

    problem: LatentBlend
    noise: Tensor
    mean: Tensor

    def residual(self, numbers: Tensor, fluxes: Tensor) -> Tensor:
        return self.problem.residual(numbers, fluxes) + self.noise

    def objective(self, residual: Tensor, numbers: Tensor) -> float:
        prior = (self.problem.prior_weight * (numbers - self.mean).square()).sum()
        return float(residual.square().sum() + prior)

    def pull(self, numbers: Tensor) -> Tensor:
        """Of the prior, on the numbers."""
        return (self.problem.prior_weight * (self.mean - numbers)).flatten()


def disturbed_solutions(
    problem: LatentBlend, fit: Fit, within: Callable[[Tensor], Tensor], count: int, rng: np.random.Generator
) -> Samples:
    """``count`` samples about the ``fit``; ``within`` brings parameters (1, P) inside of their bounds."""
    size, galaxies = fit.parameters.shape[1], len(problem)
    best, amplitudes = fit.parameters[0].reshape(galaxies, -1), fit.amplitudes[0].reshape(-1, galaxies)
    slopes, solve = problem.linearised(best, amplitudes), _solver(fit)
    held = problem.prior_weight > 0
    width = torch.where(held, problem.prior_weight, torch.ones_like(problem.prior_weight)).rsqrt()
    profiles, found = [], []

    def white(shape) -> Tensor:
        return torch.as_tensor(rng.normal(size=tuple(shape)), dtype=best.dtype, device=best.device)

    for _ in range(count):
        other = _Disturbed(problem, white(slopes.shape[1:]), problem.prior_mean + width * white(best.shape))
        numbers, fluxes, share = best, amplitudes, 1.0
        residual = other.residual(numbers, fluxes)
        objective = other.objective(residual, numbers)
        for _ in range(_STEPS):
            gradient = slopes @ residual
            gradient[:size] += other.pull(numbers)
            step = share * solve(gradient)
            moved = within((numbers + step[:size].reshape(galaxies, -1)).reshape(1, -1)).reshape(galaxies, -1)
            brightened = (fluxes + step[size:].reshape(-1, galaxies)).clamp_min(0)
            left = other.residual(moved, brightened)
            gain = objective - other.objective(left, moved)
            if gain > 0:
                numbers, fluxes, residual, objective = moved, brightened, left, objective - gain
            else:
                share /= _SHORTER
            if abs(gain) < _TOLERANCE:
                break
        profiles.append(numbers[:, :len(PROFILE)].cpu().double().numpy())
        found.append(fluxes.T.cpu().double().numpy())
    return Samples(np.stack(profiles), np.stack(found))


def _solver(fit: Fit) -> Callable[[Tensor], Tensor]:
    """Applies the inverse of the normal matrix, fluxes that are held at zero left alone."""
    normal, size = fit.normal[0].double(), fit.parameters.shape[1]
    free = torch.cat([torch.ones(size, dtype=torch.bool, device=normal.device), fit.amplitudes[0] > 0])
    scale = normal.diagonal()[free].clamp_min(1e-30).rsqrt()
    ridge = _RIDGE * torch.eye(len(scale), dtype=normal.dtype, device=normal.device)
    factor = torch.linalg.cholesky(normal[free][:, free] * scale[:, None] * scale + ridge)

    def solve(right: Tensor) -> Tensor:
        step = torch.zeros_like(right)
        inner = torch.cholesky_solve((right[free].double() * scale)[:, None], factor)[:, 0]
        step[free] = (inner * scale).to(step)
        return step

    return solve
