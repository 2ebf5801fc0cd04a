r"""Importance re-weighting: samples of a proposal that count as much as the likelihood says.

A sample :math:`\theta` drawn from :math:`q` gets the weight :math:`w = L(\theta)\, p(\theta) / q(\theta)`. Half of the
samples are the network's, half those of the Laplace approximation about the best fit, widened and with heavy tails;
:math:`q` is the mixture of both (the balance heuristic: Veach & Guibas 1995), so that a region that one of them misses
costs no more than half of the samples. How many unweighted samples they are worth is
:math:`(\sum w)^2 / \sum w^2` (Kong 1992).

The likelihood is that of the parametric model. Its amplitude, which is linear, is integrated out in closed form with a
flat prior above 0; the Sérsic index and the ellipticity of the source, of which the network says nothing, are sampled
along, from the Laplace approximation given the rest, and so marginalised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lensdeblend.lensing.parametric import ParametricLens
from lensdeblend.reconstructors.fitting import LensFit
from lensdeblend.reconstructors.network_posterior import NetworkPosterior
from lensdeblend.reconstructors.population_prior import PopulationPrior
from lensdeblend.reconstructors.posterior_samples import covariance

__all__ = ["Weighted", "effective_samples", "log_likelihood", "reweight", "weigh"]

_READ = 11
_WIDENED = 1.15
_FREEDOM = 8.0
# Of a parameter that the fit leaves at a bound, as a share of the interval.
_LOOSE = 0.05
_BATCH = 16


@dataclass(frozen=True)
class Weighted:
    """Points (n, parameters) and their weights (n,), which sum to 1."""

    points: np.ndarray
    weights: np.ndarray

    @property
    def effective(self) -> float:
        """How many samples of equal weight they are worth."""
        return effective_samples(self.weights)

    @property
    def mean(self) -> np.ndarray:
        return self.weights @ self.points

    @property
    def covariance(self) -> np.ndarray:
        off = self.points - self.mean
        return (self.weights[:, None] * off).T @ off

    def resampled(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """So many points of equal weight, by systematic resampling."""
        steps = (np.arange(count) + rng.random()) / count
        return self.points[np.searchsorted(np.cumsum(self.weights), steps).clip(max=len(self.points) - 1)]


def effective_samples(weights: np.ndarray) -> float:
    """Kong's effective number of samples of ``weights``, whatever their sum; 0 where all are 0."""
    square = float(np.sum(weights**2))
    return float(np.sum(weights)) ** 2 / square if square > 0 else 0.0


def weigh(log_target: np.ndarray, log_proposal: np.ndarray) -> np.ndarray:
    """Weights (n,) that sum to 1, or are all 0 where no sample is possible."""
    logarithm = np.where(np.isfinite(log_target), log_target - log_proposal, -np.inf)
    largest = logarithm.max()
    if not np.isfinite(largest):
        return np.zeros(len(logarithm))
    weights = np.exp(logarithm - largest)
    return weights / weights.sum()


def reweight(
    read: NetworkPosterior, fit: LensFit, data: Tensor, prior: PopulationPrior, count: int, rng: np.random.Generator
) -> tuple[Weighted, float]:
    """``count`` weighted samples of the columns the network knows; and how many its own samples alone are worth.

    ``fit`` is the best fit with one source and no lens light, ``data`` what it was fitted to, in units of the noise.
    """
    laplace = _Laplace.about(fit)
    own = read.sample(-(-count // 2), rng)
    own[:, 10] = np.log(own[:, 10])
    points = np.concatenate([laplace.completed(own, rng), laplace.sample(count // 2, rng)])
    network = read.log_prob(_natural(points)) + points[:, 10] + laplace.log_shape_given_rest(points)
    mixture = np.logaddexp(network + np.log(len(own) / count), laplace.log_prob(points) + np.log(1 - len(own) / count))
    target = _bounded(fit, points, lambda inside: log_likelihood(fit.lens, data, inside) + prior.log_density(inside))
    alone = weigh(target[:len(own)], network[:len(own)])
    return Weighted(_natural(points), weigh(target, mixture)), effective_samples(alone)


def log_likelihood(lens: ParametricLens, data: Tensor, points: np.ndarray) -> np.ndarray:
    """Logarithm of the likelihood (n,) of one source's parameters (n, 14), its amplitude integrated out."""
    found = []
    for part in torch.as_tensor(points).split(_BATCH):
        basis = lens.linearise(part, False).basis[:, 0]
        norm = (basis**2).sum(1).clamp_min(1e-300)
        projection = basis @ data / norm.sqrt()
        # The Gaussian integral over amplitudes above 0.
        found.append(0.5 * projection**2 + torch.special.log_ndtr(projection) - 0.5 * norm.log())
    return torch.cat(found).numpy() - 0.5 * float(data @ data)


def _bounded(fit: LensFit, points: np.ndarray, density: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    lower, upper = fit.lower.numpy(), fit.upper.numpy()
    inside = ((points >= lower) & (points <= upper)).all(1)
    result = np.full(len(points), -np.inf)
    if inside.any():
        result[inside] = density(points[inside])
    return result


def _natural(points: np.ndarray) -> np.ndarray:
    """The eleven columns the network knows, the radius itself instead of its logarithm."""
    return np.column_stack([points[:, :10], np.exp(points[:, 10])])


@dataclass(frozen=True)
class _Laplace:
    """A multivariate t about the best fit, and, in it, the shape of the source given all else as a Gaussian."""

    center: np.ndarray
    scale: np.ndarray

    @classmethod
    def about(cls, fit: LensFit) -> _Laplace:
        size = len(fit.parameters)
        spread = _WIDENED**2 * covariance(fit)[:size, :size].numpy()
        loose = (_LOOSE * (fit.upper - fit.lower).numpy()) ** 2
        held = np.diag(spread) <= 0
        spread[held, held] = loose[held]
        return cls(fit.parameters.numpy(), spread + 1e-12 * np.diag(loose))

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        white = rng.standard_normal((count, len(self.center))) @ np.linalg.cholesky(self.scale).T
        return self.center + white / np.sqrt(rng.chisquare(_FREEDOM, count) / _FREEDOM)[:, None]

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        from scipy.stats import multivariate_t

        return multivariate_t(self.center, self.scale, _FREEDOM).logpdf(points)

    def completed(self, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Samples (n, 11) with a shape for each: (n, 14)."""
        mean, root = self._shape_given(own)
        return np.concatenate([own, mean + rng.standard_normal(mean.shape) @ root.T], 1)

    def log_shape_given_rest(self, points: np.ndarray) -> np.ndarray:
        mean, root = self._shape_given(points[:, :_READ])
        white = np.linalg.solve(root, (points[:, _READ:] - mean).T)
        normal = 0.5 * len(white) * np.log(2 * np.pi) + np.log(np.diag(root)).sum()
        return -0.5 * (white**2).sum(0) - normal

    def _shape_given(self, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope = np.linalg.solve(self.scale[:_READ, :_READ], self.scale[:_READ, _READ:]).T
        mean = self.center[_READ:] + (own - self.center[:_READ]) @ slope.T
        return mean, np.linalg.cholesky(self.scale[_READ:, _READ:] - slope @ self.scale[:_READ, _READ:])
