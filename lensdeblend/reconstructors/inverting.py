"""From a frame and a start to the pixelated source of most evidence, and the lens in front of it.

Lens and lens light take damped Gauss-Newton steps in which the source is eliminated (its pixels are solved for at
every step); the steps follow the gradient of the evidence, its determinant included.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lensdeblend.lensing.inversion import Inversion, Mapped, PixelMapping, Solution
from lensdeblend.lensing.least_squares import nonnegative_amplitudes
from lensdeblend.lensing.parametric import ParametricLens

__all__ = ["PixelFit", "PixelProblem", "evaluate", "fit_pixels", "with_evidence_gradient", "with_nonnegative_source"]

log = logging.getLogger(__name__)

# Gains in minus twice the logarithm of the evidence that are not worth another step.
_SETTLED = 0.1
_SAME_STRENGTH = 0.3
_MOST_DAMPING = 1e6


@dataclass(frozen=True)
class PixelProblem:
    """What stays the same while the lens moves.

    ``lights`` renders the lens light alone (a `ParametricLens` without sources); ``data`` are unmasked pixels in units
    of the noise; the prior on the pixels is ``precision`` times a strength, and on the rest Gaussian with
    ``prior_mean`` and ``prior_weight``; ``free`` marks what of lens and lens light may move.
    """

    mapping: PixelMapping
    precision: Tensor
    precision_log_determinant: float
    lights: ParametricLens
    data: Tensor
    lower: Tensor
    upper: Tensor
    prior_mean: Tensor
    prior_weight: Tensor
    free: Tensor


@dataclass(frozen=True)
class PixelFit:
    """State of a fit: where it is, the most probable source there, and what is known about both.

    ``normal`` is the normal matrix of parameters and amplitudes with the source marginalised (its Schur complement);
    ``follow`` (N, parameters and amplitudes) is how the most probable source moves with them.
    """

    problem: PixelProblem
    parameters: Tensor
    amplitudes: Tensor
    mapped: Mapped
    inversion: Inversion
    solution: Solution
    residual: Tensor
    objective: float
    normal: Tensor
    gradient: Tensor
    follow: Tensor
    converged: bool = False

    @property
    def chi2(self) -> float:
        return float(self.residual @ self.residual)

    @property
    def source(self) -> Tensor:
        """Surface brightness at the vertices of the grid."""
        return self.solution.source * self.problem.mapping.scaling


def evaluate(problem: PixelProblem, parameters: Tensor, strength: float) -> PixelFit:
    """The most probable source and amplitudes at given parameters, and the derivatives of the evidence."""
    mapped = problem.mapping(parameters[:8])
    inversion = Inversion(mapped.matrix, problem.precision, problem.precision_log_determinant)
    return _complete(problem, parameters, mapped, inversion, strength)


def _complete(problem, parameters, mapped, inversion, strength) -> PixelFit:
    rows, matrix = mapped.rows, mapped.matrix
    size = len(parameters)
    amplitudes = parameters.new_zeros(0)
    rest = problem.data
    basis = parameters.new_zeros(0, len(problem.data))
    slopes = parameters.new_zeros(size, len(problem.data))
    solution = inversion.solve(rest[rows], strength)
    if problem.lights.model.components:
        lights = problem.lights.linearise(parameters[None])
        basis = lights.basis[0]
        amplitudes = _amplitudes(basis, rest, rows, matrix, solution)
        rest = rest - amplitudes @ basis
        slopes = slopes + lights.combined_slopes(amplitudes[None], size)[0]
        solution = inversion.solve(rest[rows], strength, solution.factor)
    outside = float(rest @ rest) - float(rest[rows] @ rest[rows])
    residual = rest.clone()
    residual[rows] -= matrix @ solution.source
    slopes[:8] += problem.mapping.lens_slopes(mapped, solution.source)
    jacobian = torch.cat([slopes, basis])
    offset = parameters - problem.prior_mean
    objective = solution.objective + outside + float((problem.prior_weight * offset * offset).sum())
    inner = (jacobian[:, rows] @ matrix).T
    follow = -solution.solve(inner)
    normal = jacobian @ jacobian.T + inner.T @ follow
    normal.diagonal()[:size] += problem.prior_weight
    gradient = jacobian @ residual
    gradient[:size] -= problem.prior_weight * offset
    return PixelFit(
        problem, parameters, amplitudes, mapped, inversion, solution, residual, objective, (normal + normal.T) / 2,
        gradient, follow,
    )


def _amplitudes(basis: Tensor, data: Tensor, rows: Tensor, matrix: Tensor, solution: Solution) -> Tensor:
    """The lens light's amplitudes with the source eliminated, which takes F A^-1 F^T away from all products."""
    inner = (basis[:, rows] @ matrix).T
    gram = basis @ basis.T - inner.T @ solution.solve(inner)
    right = basis @ data - inner.T @ solution.source
    root = torch.linalg.cholesky(gram + 1e-12 * gram.diagonal().max() * torch.eye(len(gram), dtype=gram.dtype))
    inside = torch.linalg.solve_triangular(root, right[:, None], upper=False)[:, 0]
    return nonnegative_amplitudes(root.T[None], inside)[0]


def with_evidence_gradient(fit: PixelFit) -> PixelFit:
    """The gradient with that of the determinant, which costs as much as all the rest."""
    # Single precision will do: it is summed over all pixels, and only steers.
    times_inverse = fit.mapped.matrix.float() @ fit.solution.covariance.float()
    slopes = fit.problem.mapping.log_determinant_slopes(fit.mapped, times_inverse)
    gradient = fit.gradient.clone()
    gradient[:8] -= slopes / 2
    return replace(fit, gradient=gradient)


def strengthen(fit: PixelFit, decades: float) -> PixelFit:
    """At the same place, with the strength of most evidence."""
    best = fit.inversion.best_strength(_lensed_data(fit), fit.solution.strength, decades)
    new = _complete(fit.problem, fit.parameters, fit.mapped, fit.inversion, best.strength)
    return replace(new, converged=fit.converged)


def _lensed_data(fit: PixelFit) -> Tensor:
    """The data less the lens light, where the source is seen."""
    return fit.residual[fit.mapped.rows] + fit.mapped.matrix @ fit.solution.source


def with_nonnegative_source(fit: PixelFit) -> PixelFit:
    """The same with the most probable of the sources that are nowhere negative."""
    data = _lensed_data(fit)
    solution = fit.inversion.solve_nonnegative(data, fit.solution)
    residual = fit.residual.clone()
    residual[fit.mapped.rows] = data - fit.mapped.matrix @ solution.source
    return replace(fit, solution=solution, residual=residual)


def fit_pixels(
    problem: PixelProblem, begin: Tensor, strength: float | None, around: float, *, decades: float = 3.0,
    rounds: int = 3, iterations: int = 8,
) -> PixelFit:
    """Move lens and lens light to the most evidence, and where ``strength`` is None the strength with them.

    The strength is sought first ``decades`` up and down from ``around``.
    """
    fit = evaluate(problem, begin, around if strength is None else strength)
    if strength is None:
        fit = strengthen(fit, decades)
    for turn in range(rounds):
        fit = _climb(fit, iterations)
        log.debug("round %d: objective %.2f, strength %.3g", turn, fit.objective, fit.solution.strength)
        if strength is not None or turn == rounds - 1:
            break
        before = fit.objective
        fit = strengthen(fit, 0.7)
        if before - fit.objective < _SAME_STRENGTH:
            break
    return fit


def _climb(fit: PixelFit, iterations: int) -> PixelFit:
    problem = fit.problem
    damping = 1e-2
    fit = with_evidence_gradient(fit)
    for _ in range(iterations):
        step = _step(fit, damping)
        trial = (fit.parameters + step).clamp(problem.lower, problem.upper)
        expected = float((trial - fit.parameters) @ fit.gradient[:len(trial)])
        if expected < _SETTLED:
            return replace(fit, converged=True)
        new = evaluate(problem, trial, fit.solution.strength)
        gain = fit.objective - new.objective
        log.debug("gain %.3f of expected %.3f, damping %.1e", gain, expected, damping)
        if gain > 0:
            fit, damping = with_evidence_gradient(new), damping / 5
            if gain < _SETTLED:
                return replace(fit, converged=True)
        else:
            damping *= 8
            if damping > _MOST_DAMPING:
                return replace(fit, converged=True)
    return fit


def _step(fit: PixelFit, damping: float) -> Tensor:
    problem, size = fit.problem, len(fit.parameters)
    pushed = (fit.parameters <= problem.lower) & (fit.gradient[:size] < 0)
    pushed |= (fit.parameters >= problem.upper) & (fit.gradient[:size] > 0)
    free = torch.cat([problem.free & ~pushed, fit.amplitudes > 0])
    index = torch.nonzero(free).reshape(-1)
    step = torch.zeros(len(free), dtype=torch.float64)
    if len(index):
        part = fit.normal[index][:, index]
        scale = part.diagonal().clamp_min(1e-300).rsqrt()
        system = part * scale[:, None] * scale + damping * torch.eye(len(index), dtype=part.dtype)
        step[index] = torch.linalg.solve(system, fit.gradient[index] * scale) * scale
    return step[:size]
