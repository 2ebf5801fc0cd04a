"""Samples of the posterior of a lens fit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lensdeblend.reconstructors.fitting import LensFit

__all__ = ["covariance", "hamiltonian_samples", "inverse_where", "laplace_samples"]


def covariance(fit: LensFit) -> Tensor:
    """Of the parameters, then the amplitudes; zero for what lies at a bound and for absent components."""
    free = torch.cat([(fit.parameters > fit.lower) & (fit.parameters < fit.upper), fit.amplitudes > 0])
    return inverse_where(free, fit.normal)


def inverse_where(free: Tensor, normal: Tensor, least: float = 1e-12) -> Tensor:
    """The inverse of the ``free`` part of a normal matrix, 0 elsewhere.

    With its diagonal scaled to 1, no eigenvalue counts as smaller than ``least``.
    """
    diagonal = normal.diagonal()
    # The shape of what has no light moves nothing, and has a diagonal of exactly 0.
    index = torch.nonzero(free & (diagonal > 0)).reshape(-1)
    result = torch.zeros_like(normal)
    if not len(index):
        return result
    scale = diagonal[index].rsqrt()
    part = normal[index][:, index] * scale[:, None] * scale
    values, vectors = torch.linalg.eigh(part)
    inverse = vectors @ torch.diag(1 / values.clamp_min(least)) @ vectors.T
    result[index[:, None], index] = inverse * scale[:, None] * scale
    return result


def laplace_samples(fit: LensFit, data: Tensor, count: int, rng: np.random.Generator, priors) -> np.ndarray:
    """Gaussian samples (count, parameters and amplitudes) about the best fit, kept within the bounds."""
    values, vectors = torch.linalg.eigh(covariance(fit))
    root = (vectors * values.clamp_min(0).sqrt()).numpy()
    best = torch.cat([fit.parameters, fit.amplitudes]).numpy()
    draws = best + rng.standard_normal((count, len(best))) @ root.T
    return _inside(draws, fit)


def hamiltonian_samples(
    fit: LensFit, data: Tensor, count: int, rng: np.random.Generator, priors, *, chains: int = 8, leaps: int = 6,
    warm_up: int = 15,
) -> np.ndarray:
    """Hamiltonian Monte Carlo (Duane et al. 1987PhLB..195..216D) in the coordinates in which the Laplace
    approximation is round.

    Flat priors within the bounds, and the Gaussian ones of the fit; amplitudes are sampled along.
    """
    size = len(fit.parameters)
    spread = covariance(fit)
    values, vectors = torch.linalg.eigh(spread)
    root = vectors * values.clamp_min(0).sqrt()
    best = torch.cat([fit.parameters, fit.amplitudes])
    lower = torch.cat([fit.lower, torch.zeros_like(fit.amplitudes)])
    upper = torch.cat([fit.upper, torch.full_like(fit.amplitudes, torch.inf)])
    mean, weight = priors

    def energy_and_slope(white: Tensor) -> tuple[Tensor, Tensor]:
        point = best + white @ root.T
        outside = ((point < lower) | (point > upper)).any(1)
        point = torch.minimum(torch.maximum(point, lower), upper)
        model = fit.lens.linearise(point[:, :size].contiguous())
        amplitudes = point[:, size:]
        residual = data - torch.einsum("sk,skm->sm", amplitudes, model.basis)
        offset = point[:, :size] - mean
        energy = 0.5 * (residual * residual).sum(-1) + 0.5 * (weight * offset * offset).sum(-1)
        slopes = torch.cat([model.combined_slopes(amplitudes, size), model.basis], 1)
        slope = -torch.einsum("spm,sm->sp", slopes, residual)
        slope[:, :size] += weight * offset
        return torch.where(outside, torch.inf, energy), slope @ root

    dimensions = len(best)
    white = 0.5 * torch.as_tensor(rng.standard_normal((chains, dimensions)))
    energy, slope = energy_and_slope(white)
    unusable = ~torch.isfinite(energy)
    white[unusable] = 0
    energy, slope = energy_and_slope(white)
    kept = []
    needed = warm_up + -(-count // chains)
    for turn in range(needed):
        step = 0.25 * (0.8 + 0.4 * rng.random())
        momentum = torch.as_tensor(rng.standard_normal((chains, dimensions)))
        before = energy + 0.5 * (momentum * momentum).sum(1)
        place, force = white, slope
        new_energy = energy
        for _ in range(leaps):
            momentum = momentum - 0.5 * step * force
            place = place + step * momentum
            new_energy, force = energy_and_slope(place)
            momentum = momentum - 0.5 * step * force
        after = new_energy + 0.5 * (momentum * momentum).sum(1)
        accept = torch.as_tensor(np.log(rng.random(chains))) < before - after
        white = torch.where(accept[:, None], place, white)
        slope = torch.where(accept[:, None], force, slope)
        energy = torch.where(accept, new_energy, energy)
        if turn >= warm_up:
            kept.append((best + white @ root.T).numpy())
    return _inside(np.concatenate(kept)[:count], fit)


def _inside(draws: np.ndarray, fit: LensFit) -> np.ndarray:
    size = len(fit.parameters)
    draws[:, :size] = np.clip(draws[:, :size], fit.lower.numpy(), fit.upper.numpy())
    draws[:, size:] = np.clip(draws[:, size:], 0, None)
    return draws
