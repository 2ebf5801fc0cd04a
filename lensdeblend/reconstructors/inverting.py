"""From frames and a start to the pixelated sources of most evidence, and the lens in front of them.

Lens and lens light take damped Gauss-Newton steps in which the sources are eliminated (their pixels are solved for at
every step); the steps follow the gradient of the evidence, its determinant included. Each band has a source of its
own, and the evidences multiply; a plain image is one band.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lensdeblend.lensing.banded import BandedLens
from lensdeblend.lensing.inversion import Inversion, Mapped, PixelMapping, Solution
from lensdeblend.lensing.least_squares import nonnegative_amplitudes
from lensdeblend.lensing.parametric import ParametricLens
from lensdeblend.lensing.placement import Placement, carried

__all__ = [
    "JointFit", "JointProblem", "Part", "PixelFit", "PixelProblem", "evaluate", "fit_pixels", "with_evidence_gradient",
    "with_nonnegative_sources",
]

log = logging.getLogger(__name__)

# Gains in minus twice the logarithm of the evidence that are not worth another step.
_SETTLED = 0.1
_SAME_STRENGTH = 0.3
# By about so much the evidence jumps as pixels move from one triangle of the source to the next: where a nearly
# undamped step that promised less does not raise it, nothing is left to gain.
_ROUGHNESS, _SLIGHT_DAMPING = 0.6, 1e-2
_MOST_DAMPING = 1e6


@dataclass(frozen=True)
class PixelProblem:
    """What stays the same in one band while the lens moves.

    ``lights`` renders the lens light alone (a `ParametricLens` without sources); ``data`` are unmasked pixels in units
    of the noise; the prior on the pixels is ``precision`` times a strength.
    """

    mapping: PixelMapping
    precision: Tensor
    precision_log_determinant: float
    lights: ParametricLens
    data: Tensor


@dataclass(frozen=True)
class PixelFit:
    """One band: its parameters, told from its own centre, the most probable source there, and what is known about both.

    ``normal`` is the normal matrix of parameters and amplitudes with the source marginalised (its Schur complement);
    it knows of no prior but the source's. ``follow`` (N, parameters and amplitudes) is how the most probable source
    moves with them.
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

    @property
    def chi2(self) -> float:
        return float(self.residual @ self.residual)

    @property
    def source(self) -> Tensor:
        """Surface brightness at the vertices of the grid."""
        return self.solution.source * self.problem.mapping.scaling


@dataclass(frozen=True)
class Part:
    """How one band's parameters follow from those of all: ``shapes @ parameters + offset``.

    ``whole`` is ``shapes`` with the amplitudes behind the parameters, the band's own among those of all.
    """

    shapes: Tensor
    offset: Tensor
    whole: Tensor

    @classmethod
    def of(cls, model: BandedLens, number: int, placement: Placement) -> Part:
        """Of the band of that number; ``placement`` leads from its positions to those of the first band."""
        size, columns, own = len(model.names), model.columns(number), model.one.components
        # Without sources all that is carried is linear.
        points = torch.cat([torch.zeros(1, size), torch.eye(size)]).double()[:, columns]
        points = carried(points, model.one, placement.inverse)
        shapes = (points[1:] - points[0]).T.contiguous()
        whole = shapes.new_zeros(len(columns) + own, size + model.components)
        whole[:len(columns), :size] = shapes
        whole[len(columns):, size:][:, model.amplitude_columns(number)] = torch.eye(own).double()
        return cls(shapes, points[0], whole)

    def __call__(self, parameters: Tensor) -> Tensor:
        return self.shapes @ parameters + self.offset


@dataclass(frozen=True)
class JointProblem:
    """All bands, and what is known of their parameters beforehand.

    The prior is Gaussian with ``prior_mean`` and ``prior_weight``; ``free`` marks what may move.
    """

    model: BandedLens
    bands: Sequence[PixelProblem]
    parts: Sequence[Part]
    lower: Tensor
    upper: Tensor
    prior_mean: Tensor
    prior_weight: Tensor
    free: Tensor


@dataclass(frozen=True)
class JointFit:
    """State of a fit: parameters and amplitudes of all bands, and the bands there.

    ``objective`` is minus twice the logarithm of the evidence, ``normal`` and ``gradient`` are its, the prior included.
    """

    problem: JointProblem
    bands: Sequence[PixelFit]
    parameters: Tensor
    objective: float
    normal: Tensor
    gradient: Tensor
    converged: bool = False

    @property
    def amplitudes(self) -> Tensor:
        return torch.cat([band.amplitudes for band in self.bands])

    @property
    def strengths(self) -> list[float]:
        """Of the regularisation, one a band."""
        return [band.solution.strength for band in self.bands]

    @property
    def at_bound(self) -> Tensor:
        """Which of the parameters lie on the edge of their range."""
        return (self.parameters <= self.problem.lower) | (self.parameters >= self.problem.upper)


def evaluate(problem: JointProblem, parameters: Tensor, strengths: Sequence[float]) -> JointFit:
    """The most probable sources and amplitudes at given parameters, and the derivatives of the evidence."""
    bands = []
    for band, part, strength in zip(problem.bands, problem.parts, strengths):
        own = part(parameters)
        mapped = band.mapping(own[:8])
        inversion = Inversion(mapped.matrix, band.precision, band.precision_log_determinant)
        bands.append(_complete(band, own, mapped, inversion, strength))
    return _joined(problem, parameters, bands)


def _joined(problem: JointProblem, parameters: Tensor, bands: Sequence[PixelFit]) -> JointFit:
    size = len(parameters)
    normal = sum(part.whole.T @ band.normal @ part.whole for part, band in zip(problem.parts, bands))
    gradient = sum(part.whole.T @ band.gradient for part, band in zip(problem.parts, bands))
    offset = parameters - problem.prior_mean
    objective = sum(band.objective for band in bands) + float((problem.prior_weight * offset * offset).sum())
    normal.diagonal()[:size] += problem.prior_weight
    gradient[:size] -= problem.prior_weight * offset
    return JointFit(problem, bands, parameters, objective, (normal + normal.T) / 2, gradient)


def _complete(problem: PixelProblem, parameters, mapped, inversion, strength) -> PixelFit:
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
    inner = (jacobian[:, rows] @ matrix).T
    follow = -solution.solve(inner)
    normal = jacobian @ jacobian.T + inner.T @ follow
    return PixelFit(
        problem, parameters, amplitudes, mapped, inversion, solution, residual, solution.objective + outside, normal,
        jacobian @ residual, follow,
    )


def _amplitudes(basis: Tensor, data: Tensor, rows: Tensor, matrix: Tensor, solution: Solution) -> Tensor:
    """The lens light's amplitudes with the source eliminated, which takes F A^-1 F^T away from all products."""
    inner = (basis[:, rows] @ matrix).T
    gram = basis @ basis.T - inner.T @ solution.solve(inner)
    right = basis @ data - inner.T @ solution.source
    root = torch.linalg.cholesky(gram + 1e-12 * gram.diagonal().max() * torch.eye(len(gram), dtype=gram.dtype))
    inside = torch.linalg.solve_triangular(root, right[:, None], upper=False)[:, 0]
    return nonnegative_amplitudes(root.T[None], inside)[0]


def with_evidence_gradient(fit: JointFit) -> JointFit:
    """The gradient with that of the determinants, which costs as much as all the rest."""
    gradient = fit.gradient.clone()
    for band, part in zip(fit.bands, fit.problem.parts):
        # Single precision will do: it is summed over all pixels, and only steers.
        times_inverse = band.mapped.matrix.float() @ band.solution.covariance.float()
        slopes = band.problem.mapping.log_determinant_slopes(band.mapped, times_inverse)
        gradient -= part.whole[:8].T @ slopes / 2
    return replace(fit, gradient=gradient)


def strengthen(fit: JointFit, decades: float) -> JointFit:
    """At the same place, with the strengths of most evidence."""
    bands = []
    for band in fit.bands:
        best = band.inversion.best_strength(_lensed_data(band), band.solution.strength, decades)
        bands.append(_complete(band.problem, band.parameters, band.mapped, band.inversion, best.strength))
    return replace(_joined(fit.problem, fit.parameters, bands), converged=fit.converged)


def _lensed_data(fit: PixelFit) -> Tensor:
    """The data less the lens light, where the source is seen."""
    return fit.residual[fit.mapped.rows] + fit.mapped.matrix @ fit.solution.source


def with_nonnegative_sources(fit: JointFit) -> JointFit:
    """The same with the most probable of the sources that are nowhere negative."""
    return replace(fit, bands=[_with_nonnegative_source(band) for band in fit.bands])


def _with_nonnegative_source(fit: PixelFit) -> PixelFit:
    data = _lensed_data(fit)
    solution = fit.inversion.solve_nonnegative(data, fit.solution)
    residual = fit.residual.clone()
    residual[fit.mapped.rows] = data - fit.mapped.matrix @ solution.source
    return replace(fit, solution=solution, residual=residual)


def fit_pixels(
    problem: JointProblem, begin: Tensor, strength: float | None, around: Sequence[float], *, decades: float = 3.0,
    rounds: int = 3, iterations: int = 8,
) -> JointFit:
    """Move lens and lens light to the most evidence, and where ``strength`` is None the strengths with them.

    The strength of each band is sought first ``decades`` up and down from its ``around``.
    """
    fit = evaluate(problem, begin, around if strength is None else [strength] * len(problem.bands))
    if strength is None:
        fit = strengthen(fit, decades)
    for turn in range(rounds):
        fit = _climb(fit, iterations)
        log.debug("round %d: objective %.2f, strengths %s", turn, fit.objective, fit.strengths)
        if strength is not None or turn == rounds - 1:
            break
        before = fit.objective
        fit = strengthen(fit, 0.7)
        if before - fit.objective < _SAME_STRENGTH:
            break
    return fit


def _climb(fit: JointFit, iterations: int) -> JointFit:
    problem = fit.problem
    damping = 1e-2
    fit = with_evidence_gradient(fit)
    for _ in range(iterations):
        step = _step(fit, damping)
        trial = (fit.parameters + step).clamp(problem.lower, problem.upper)
        expected = float((trial - fit.parameters) @ fit.gradient[:len(trial)])
        if expected < _SETTLED:
            return replace(fit, converged=True)
        new = evaluate(problem, trial, fit.strengths)
        gain = fit.objective - new.objective
        log.debug("gain %.3f of expected %.3f, damping %.1e", gain, expected, damping)
        if gain > 0:
            fit, damping = with_evidence_gradient(new), damping / 5
            if gain < _SETTLED:
                return replace(fit, converged=True)
        else:
            rough = expected < _ROUGHNESS and damping < _SLIGHT_DAMPING
            damping *= 8
            if rough or damping > _MOST_DAMPING:
                return replace(fit, converged=True)
    return fit


def _step(fit: JointFit, damping: float) -> Tensor:
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
