"""Damped least squares for many starts at once, the linear amplitudes solved at every step.

Levenberg-Marquardt with Marquardt's scaling; amplitudes are eliminated as in variable projection (Golub & Pereyra
2003InvPr..19R...1G), in the approximation of Kaufman 1975 (10.1007/BF01932995): the joint normal equations give the
step of the other parameters, then the amplitudes are solved anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["DeferredState", "Fit", "Linearisation", "State", "descend", "levenberg_marquardt", "nonnegative_amplitudes"]

# Of normal equations whose diagonal is scaled to 1.
_SLIGHT_DAMPING = 1e-2


@dataclass
class Linearisation:
    """A model at given parameters, in units of the noise.

    ``basis`` (starts, K, M): each component at amplitude 1. ``slopes`` (starts, F, M): the derivatives that are not
    zero; ``components`` and ``columns`` (F,) say of which component by which parameter.
    """

    basis: Tensor
    slopes: Tensor | None = None
    components: Tensor | None = None
    columns: Tensor | None = None

    def combined_slopes(self, amplitudes: Tensor, size: int) -> Tensor:
        """Derivatives of the whole model by each of ``size`` parameters: (starts, size, M)."""
        weighted = self.slopes * amplitudes[:, self.components, None]
        total = weighted.new_zeros(len(weighted), size, weighted.shape[-1])
        return total.index_add_(1, self.columns, weighted)


@dataclass
class State:
    """Where the starts are: amplitudes, chi-square with priors, normal matrix and downward gradient over parameters and
    amplitudes."""

    amplitudes: Tensor
    objective: Tensor
    normal: Tensor
    gradient: Tensor

    def __post_init__(self):
        self.objective = torch.where(torch.isfinite(self.objective), self.objective, torch.inf)

    def free(self, size: int) -> Tensor:
        """What may move: all ``size`` parameters, and amplitudes that are not held at zero."""
        parameters = torch.ones(len(self.objective), size, dtype=torch.bool, device=self.objective.device)
        return torch.cat([parameters, self.amplitudes > 0], 1)

    def keep(self, which: Tensor) -> State:
        """The starts ``which`` alone."""
        return State(self.amplitudes[which], self.objective[which], self.normal[which], self.gradient[which])

    def replaced(self, new: State, which: Tensor) -> State:
        """``new`` for the starts ``which``."""
        if not bool(which.any()):
            return self
        one, two = which[:, None], which[:, None, None]
        return State(
            torch.where(one, new.amplitudes, self.amplitudes), torch.where(which, new.objective, self.objective),
            torch.where(two, new.normal, self.normal), torch.where(one, new.gradient, self.gradient),
        )


class DeferredState(State):
    """With a normal matrix and a gradient that wait until they are asked for: those of a failed step never are."""

    def __init__(self, amplitudes: Tensor, objective: Tensor, derive: Callable[[], tuple[Tensor, Tensor]]):
        self.amplitudes, self.objective, self._derive = amplitudes, objective, derive
        self.__post_init__()

    @cached_property
    def _derived(self) -> tuple[Tensor, Tensor]:
        found = self._derive()
        # It holds the images of all components.
        del self._derive
        return found

    @property
    def normal(self) -> Tensor:
        return self._derived[0]

    @property
    def gradient(self) -> Tensor:
        return self._derived[1]


@dataclass
class Fit:
    """State of the starts: parameters, amplitudes, chi-square (with priors), and the normal matrix over both."""

    parameters: Tensor
    amplitudes: Tensor
    objective: Tensor
    normal: Tensor
    converged: Tensor
    iterations: int

    def keep(self, index: Tensor) -> Fit:
        """The chosen starts alone."""
        return Fit(*(part[index] for part in self._parts), self.iterations)

    def improved(self, index: Tensor, other: Fit) -> Fit:
        """With the starts ``index`` as ``other`` found them, where that is better."""
        better = other.objective < self.objective[index]
        parts = [part.clone() for part in self._parts]
        for part, found in zip(parts, other._parts):
            part[index[better]] = found[better]
        return Fit(*parts, max(self.iterations, other.iterations))

    @property
    def _parts(self) -> tuple[Tensor, ...]:
        return self.parameters, self.amplitudes, self.objective, self.normal, self.converged


def nonnegative_amplitudes(basis: Tensor, data: Tensor) -> Tensor:
    """Amplitudes (..., K) that bring ``basis`` (..., K, M) closest to ``data``, (M,) or (..., M), and are not negative.

    Components whose amplitude would be negative are dropped one by one, the most negative first.
    """
    gram = basis @ basis.transpose(-1, -2)
    right = basis @ data if data.dim() == 1 else (basis @ data[..., None])[..., 0]
    count = basis.shape[-2]
    scale = gram.diagonal(dim1=-2, dim2=-1)
    alive = scale > 0
    eye = torch.eye(count, dtype=basis.dtype, device=basis.device)
    norm = torch.where(alive, scale, torch.ones_like(scale)).rsqrt()
    # Two equal components leave the matrix singular but for this.
    ridge = max(1e-12, 8 * torch.finfo(basis.dtype).eps)
    gram = gram * norm[..., :, None] * norm[..., None, :] + ridge * eye
    right = right * norm
    amplitudes = torch.zeros_like(right)
    for _ in range(count + 1):
        both = alive[..., :, None] & alive[..., None, :]
        system = torch.where(both, gram, eye)
        amplitudes = torch.linalg.solve(system, torch.where(alive, right, torch.zeros_like(right)))
        lowest, which = amplitudes.min(-1)
        negative = lowest < 0
        if not bool(negative.any()):
            break
        drop = torch.nn.functional.one_hot(which, count).bool() & negative[..., None]
        alive = alive & ~drop
    return amplitudes.clamp_min(0) * norm


def levenberg_marquardt(
    linearise: Callable[[Tensor, bool], Linearisation],
    data: Tensor,
    start: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    prior_mean: Tensor | None = None,
    prior_weight: Tensor | None = None,
    iterations: int = 30,
    tolerance: float = 1e-3,
    roughness: float = 0.0,
    damping: float = 1e-2,
) -> Fit:
    """Minimise the chi-square of every start.

    Parameters
    ----------
    linearise : callable
        ``(parameters (starts, P), with_slopes) -> Linearisation``.
    data : Tensor
        (M,), in units of the noise.
    start, lower, upper : Tensor
        (starts, P) and the bounds (P,).
    prior_mean, prior_weight : Tensor, optional
        (P,): Gaussian priors; weight is one over variance, 0 for none.
    tolerance : float
        A start has converged when a step changes its objective by less than this, or none lowers it however short.
    roughness : float
        It has, too, when a nearly undamped step that promised less than this did not lower it: by how much the
        objective jumps as a cusp moves past the points at which pixels are sampled.

    Returns
    -------
    Fit
    """
    size = start.shape[1]
    if prior_weight is None:
        prior_mean, prior_weight = torch.zeros_like(lower), torch.zeros_like(lower)

    def state(parameters: Tensor) -> State:
        model = linearise(parameters, True)
        amplitudes = nonnegative_amplitudes(model.basis, data)
        residual = data - torch.einsum("sk,skm->sm", amplitudes, model.basis)
        offset = parameters - prior_mean
        objective = (residual * residual).sum(-1) + (prior_weight * offset * offset).sum(-1)
        joint = torch.cat([model.combined_slopes(amplitudes, size), model.basis], 1)
        normal = joint @ joint.transpose(-1, -2)
        normal[:, range(size), range(size)] += prior_weight
        gradient = torch.einsum("spm,sm->sp", joint, residual)
        gradient[:, :size] -= prior_weight * offset
        return State(amplitudes, objective, normal, gradient)

    return descend(
        state, start.clamp(lower, upper), lower, upper, iterations=iterations, tolerance=tolerance,
        roughness=roughness, damping=damping,
    )


def descend(
    state: Callable[[Tensor], State], start: Tensor, lower: Tensor, upper: Tensor, *, iterations: int = 30,
    tolerance: float = 1e-3, roughness: float = 0.0, damping: float = 1e-2,
    some: Callable[[Tensor], Callable[[Tensor], State]] | None = None, within: Callable[[Tensor], Tensor] | None = None,
) -> Fit:
    """Lower the objective of every start by damped steps.

    Parameters
    ----------
    state : callable
        From parameters (starts, P) to the `State` there, the amplitudes solved.
    start, lower, upper, iterations, tolerance
        As in `levenberg_marquardt`; bounds may differ by start.
    some : callable, optional
        From the indices of starts to the ``state`` of these alone, where starts are problems of their own: those that
        have converged are then left alone.
    within : callable, optional
        Brings parameters inside of bounds that concern several together.
    """
    parameters = start
    starts, size = start.shape
    lower, upper = lower.expand_as(start), upper.expand_as(start)
    damp = torch.full((starts,), damping, dtype=start.dtype, device=start.device)
    now = state(parameters)
    converged = torch.zeros(starts, dtype=torch.bool, device=start.device)
    active, finished = torch.arange(starts, device=start.device), []
    used = 0
    for used in range(1, iterations + 1):
        step, promise = _damped_step(parameters, now.normal, now.gradient, now.free(size), lower, upper, damp)
        trial = (parameters + step).clamp(lower, upper)
        trial = trial if within is None else within(trial)
        new = state(trial)
        gain = now.objective - new.objective
        better = gain > 0
        converged = converged | (better & (gain < tolerance)) | (~better & (damp > 1e6)) | (
            ~better & (gain.abs() < tolerance)
        ) | (~better & (promise < roughness) & (damp < _SLIGHT_DAMPING))
        parameters = torch.where(better[:, None], trial, parameters)
        now = now.replaced(new, better)
        damp = torch.where(better, damp / 5, damp * 6).clamp(1e-8, 1e8)
        if bool(converged.all()):
            break
        if some is not None and bool(converged.any()):
            finished.append((active[converged], _reached(parameters, now, converged, used).keep(converged)))
            going = ~converged
            active, parameters, now, damp = active[going], parameters[going], now.keep(going), damp[going]
            lower, upper, state, converged = lower[going], upper[going], some(active), converged[going]
    finished.append((active, _reached(parameters, now, converged, used)))
    if len(finished) == 1:
        return finished[0][1]
    order = torch.cat([index for index, _ in finished]).argsort()
    parts = [
        torch.cat([getattr(fit, name) for _, fit in finished])[order]
        for name in ("parameters", "amplitudes", "objective", "normal", "converged")
    ]
    return Fit(*parts, used)


def _reached(parameters: Tensor, now: State, converged: Tensor, used: int) -> Fit:
    return Fit(
        parameters, now.amplitudes, now.objective, now.normal, converged & torch.isfinite(now.objective), used
    )


def _damped_step(parameters, normal, gradient, free, lower, upper, damp) -> tuple[Tensor, Tensor]:
    """The step, and by how much the objective would fall were the model linear."""
    size = parameters.shape[1]
    pushed = ((parameters <= lower) & (gradient[:, :size] < 0)) | ((parameters >= upper) & (gradient[:, :size] > 0))
    free = free.clone()
    free[:, :size] &= ~pushed
    diagonal = normal.diagonal(dim1=-2, dim2=-1)
    norm = torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).rsqrt()
    scaled = normal * norm[:, :, None] * norm[:, None, :]
    both = free[:, :, None] & free[:, None, :]
    eye = torch.eye(normal.shape[-1], dtype=normal.dtype, device=normal.device)
    system = torch.where(both, scaled, eye) + damp[:, None, None] * eye
    right = torch.where(free, gradient * norm, torch.zeros_like(gradient))
    step, failed = torch.linalg.solve_ex(system, right)
    step = torch.where(torch.isfinite(step) & (failed == 0)[:, None], step, torch.zeros_like(step))
    promise = (step * right).sum(-1) + damp * (step * step).sum(-1)
    return (step * norm)[:, :size], promise
