"""From positions to the galaxies of a blend: Sérsic pairs through the PSF, all of them and all bands at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.stack import Stack, alike
from lensdeblend.lensing.blend import BlendProblem
from lensdeblend.lensing.galaxy_layout import GalaxyLayout
from lensdeblend.lensing.least_squares import Fit, descend
from lensdeblend.options import check_gaussian, check_positive

__all__ = ["BlendFit", "Priors", "covariance_of", "fit_blends"]

log = logging.getLogger(__name__)

_DISC = (1.0,)
# Where a disc turns into two components, their radii in units of the disc's.
_DISC_GROWS, _BULGE_OF_DISC = 1.1, 0.5
_FARTHEST_MOVE = 3.0
_SMALLEST, _LARGEST_OF_FRAME = 0.05, 0.5
# Pixels, and share of the flux that may be larger in a point.
_UNRESOLVED, _RESOLVED_SHARE = 0.5, 0.02
_MOST_ELLIPTICAL = 0.85
# How many blends are fitted at once.
_TOGETHER, _TOGETHER_ON_GPU = 4, 128
# Two starts that end this close in chi-square have found the same minimum.
_SAME_MINIMUM = 1.0
# First radii in units of the stack's, and how stiffly (pixels) positions are held before shapes are known.
_STARTS = (1.0, 0.3), (0.5, 0.1), (2.0, 0.1)


@dataclass(frozen=True)
class Priors:
    """Gaussian priors, None for none.

    ``position`` (pixels): about the given places; ``ellipticity``: of each component about 0; ``radius``: median
    (arcsec) of the half-light radius of discs and standard deviation of its natural logarithm; a bulge is
    ``bulge_ratio`` as large.
    """

    position: float | None = 0.5
    ellipticity: float | None = 0.3
    radius: tuple[float, float] | None = (0.4, 0.8)
    bulge_ratio: float = 0.4

    def __post_init__(self):
        for name in ("position", "ellipticity"):
            check_positive(f"{name}_prior", getattr(self, name), "a positive standard deviation")
        check_gaussian("radius_prior", self.radius)
        if self.radius is not None and self.radius[0] <= 0:
            raise ValueError(f"radius_prior must have a positive median in arcsec; got {self.radius[0]}")


@dataclass(frozen=True)
class BlendFit:
    """The galaxies as they were found.

    ``images`` are one array a band, (galaxies, ny, nx); ``fluxes`` (bands, components); ``covariance`` is over
    parameters and fluxes, band by band. ``problem`` and ``solution``: the same as tensors, in units of the noise.
    """

    blend: Blend
    layout: GalaxyLayout
    parameters: np.ndarray
    fluxes: np.ndarray
    covariance: np.ndarray
    images: list[np.ndarray]
    chi2: float
    objective: float
    converged: bool
    at_bounds: tuple[tuple[str, ...], ...]
    problem: BlendProblem
    solution: Fit

    def __len__(self) -> int:
        return len(self.layout)

    def flux(self, galaxy: int) -> tuple[np.ndarray, np.ndarray]:
        """Of one galaxy in each band, and its error."""
        own = [c for c, g in enumerate(self.layout.galaxy) if g == galaxy]
        columns = len(self.parameters) + np.arange(self.fluxes.size).reshape(self.fluxes.shape)[:, own]
        errors = [np.sqrt(max(self.covariance[np.ix_(band, band)].sum(), 0.0)) for band in columns]
        return self.fluxes[:, own].sum(1), np.array(errors)

    def value(self, key: str, galaxy: int) -> tuple[float, float]:
        """``x``, ``y``, ``e1`` or ``e2`` of one galaxy and its error; 0 and NaN for the shape of a point."""
        column = self.layout.places[key][galaxy]
        if column >= len(self.parameters):
            return 0.0, np.nan
        return float(self.parameters[column]), float(np.sqrt(max(self.covariance[column, column], 0.0)))


def fit_blends(
    blends: Sequence[Blend], positions: Sequence[np.ndarray], levels: Sequence[Sequence[float]], *,
    indices: tuple[float | None, ...] = (1.0, 4.0), priors: Priors = Priors(), select: bool = False,
    device: str = "cpu",
) -> list[BlendFit]:
    """Fit galaxies at ``positions``; blends of one kind are fitted together.

    Parameters
    ----------
    blends : sequence of Blend
    positions : sequence of ndarray
        (n, 2) for each blend: pixels of the first band.
    levels : sequence of sequences of float
        Of the sky in each band of each blend, taken off before the fit.
    indices : tuple
        Sérsic indices of the components of each galaxy, None for a free one.
    priors : Priors
    select : bool
        Whether to drop components that the data do not ask for.
    device : str
    """
    found: list[BlendFit | None] = [None] * len(blends)
    most = _TOGETHER if device == "cpu" else _TOGETHER_ON_GPU
    for index in alike(blends, [len(places) for places in positions], most):
        stack = Stack.of([blends[i] for i in index], [levels[i] for i in index], device)
        places = np.array([positions[i] for i in index], dtype=float)
        problem, fit = _fit_alike(stack, places, indices, priors)
        for k, i in enumerate(index):
            own, alone = stack.some([k]), (problem.some(_index([k], stack)), fit.keep(_index([k], stack)))
            if select:
                alone = _selected(own, *alone, places[[k]], priors)
            alone = _with_points(own, *alone, places[[k]], priors)
            found[i] = _told(own, *alone)
    return found


def _index(numbers: Sequence[int], stack: Stack) -> Tensor:
    return torch.as_tensor(numbers, dtype=torch.long, device=stack.device)


def _fit_alike(stack: Stack, positions: np.ndarray, indices, priors: Priors) -> tuple[BlendProblem, Fit]:
    """From the first start; those that do not end well from the others too."""
    layout = GalaxyLayout((tuple(indices),) * positions.shape[1])
    problem, *_ = _problem(stack, layout, positions, priors)
    left, best = list(range(len(stack))), None
    for factor, stiffness in _STARTS:
        fit = _from_discs(stack.some(left), layout, positions[left], priors, factor, stiffness)
        again = [] if best is None else [
            k for place, k in enumerate(left) if abs(float(fit.objective[place] - best.objective[k])) < _SAME_MINIMUM
        ]
        best = fit if best is None else best.improved(_index(left, stack), fit)
        left = [k for k in left if k not in again and not _is_good(stack, k, layout, best)]
        if not left:
            break
    return problem, best


def _from_discs(stack: Stack, layout: GalaxyLayout, positions, priors: Priors, factor: float, stiffness: float) -> Fit:
    """First a round disc a galaxy, which may hardly move, then what is wished."""
    simple = GalaxyLayout((_DISC,) * positions.shape[1])
    start = np.zeros((*positions.shape[:2], 5))
    start[..., :2] = positions
    start[..., 4] = np.log(factor * stack.first_radii)[:, None]
    held = replace(priors, position=min(stiffness, priors.position or stiffness))
    _, fit = _fitted(
        stack, simple, start.reshape(len(stack), -1), positions, held, iterations=8, tolerance=1.0, fold=False
    )
    begin = _grown(layout, fit.parameters.cpu().numpy().astype(float))
    return _fitted(stack, layout, begin, positions, priors, iterations=25, tolerance=0.1)[1]


def _is_good(stack: Stack, k: int, layout: GalaxyLayout, fit: Fit) -> bool:
    """Whether all galaxies of blend ``k`` shine and what is left is noise."""
    fluxes = fit.amplitudes[k].reshape(stack.units.shape[1], -1).sum(0)
    shining = {layout.galaxy[c] for c in torch.nonzero(fluxes > 0).flatten().tolist()}
    freedom = max(stack.blends[k].used - len(layout.names) - fit.amplitudes.shape[1], 1)
    few = float(fit.objective[k]) / freedom < 1 + 3 * np.sqrt(2 / freedom)
    return few and len(shining) == len(layout) and bool(fit.converged[k])


def _fitted(
    stack: Stack, layout, begin, positions, priors, *, iterations, tolerance, fold=True
) -> tuple[BlendProblem, Fit]:
    problem, lower, upper = _problem(stack, layout, positions, priors)
    problem = replace(problem, fold=fold)
    start = torch.as_tensor(begin, dtype=torch.float32, device=stack.device).clamp(lower, upper)
    fit = descend(
        problem, start, lower, upper, iterations=iterations, tolerance=tolerance, some=problem.some,
        within=partial(_rounded, layout),
    )
    log.debug("%d x %d galaxies: objectives %s", len(stack), len(layout), fit.objective.tolist())
    return problem, fit


def _rounded(layout: GalaxyLayout, parameters: Tensor) -> Tensor:
    """With no galaxy more elliptical than allowed."""
    owned = [g for g in range(len(layout)) if layout.places["e1"][g] < len(layout.names)]
    columns = [[layout.places[key][g] for g in owned] for key in ("e1", "e2")]
    shapes = parameters[:, columns]
    shrunk = (_MOST_ELLIPTICAL / shapes.square().sum(1, keepdim=True).sqrt().clamp_min(1e-9)).clamp_max(1.0)
    parameters = parameters.clone()
    parameters[:, columns] = shapes * shrunk
    return parameters


def _problem(stack: Stack, layout: GalaxyLayout, positions: np.ndarray, priors: Priors):
    """With the bounds of the parameters; ``positions`` (batch, n, 2)."""
    size = len(layout.names)
    mean, lower, upper = (np.zeros((len(stack), size)) for _ in range(3))
    weight = np.zeros(size)
    scale, ny_nx = np.array([blend.scale for blend in stack.blends]), stack.blends[0].shape
    for g, components in enumerate(layout.indices):
        for axis, key in enumerate("xy"):
            column = layout.places[key][g]
            mean[:, column], weight[column] = positions[:, g, axis], _weight(priors.position)
            lower[:, column] = positions[:, g, axis] - _FARTHEST_MOVE
            upper[:, column] = positions[:, g, axis] + _FARTHEST_MOVE
        if components:
            for key in ("e1", "e2"):
                column = layout.places[key][g]
                weight[column] = _weight(priors.ellipticity)
                lower[:, column], upper[:, column] = -_MOST_ELLIPTICAL, _MOST_ELLIPTICAL
    median, width = priors.radius or (1.0, None)
    for c, g in enumerate(layout.galaxy):
        column = layout.places["log_radius"][c]
        if column >= size:
            continue
        first = layout.galaxy.index(g) == c
        mean[:, column] = np.log(median * (1 if first else priors.bulge_ratio) / scale)
        weight[column] = _weight(width)
        lower[:, column], upper[:, column] = np.log(_SMALLEST), np.log(_LARGEST_OF_FRAME * max(ny_nx))
        column = layout.places["log_n"][c]
        if column < size:
            mean[:, column], weight[column] = np.log(1.5), 1.0
            lower[:, column], upper[:, column] = np.log(0.5), np.log(6.0)
    mean, weight, lower, upper = (
        torch.as_tensor(v, dtype=torch.float32, device=stack.device) for v in (mean, weight, lower, upper)
    )
    return BlendProblem(layout, stack.grids, mean, weight), lower, upper


def _weight(width: float | None) -> float:
    return 0.0 if width is None else width**-2


def _grown(layout: GalaxyLayout, discs: np.ndarray) -> np.ndarray:
    """Starts (batch, P) for ``layout`` from a disc a galaxy, (batch, 5 x galaxies)."""
    begin = np.zeros((len(discs), len(layout.names)))
    for g in range(len(layout)):
        for place, key in enumerate(("x", "y", "e1", "e2")):
            begin[:, layout.places[key][g]] = discs[:, 5 * g + place]
    for c, g in enumerate(layout.galaxy):
        if layout.places["log_n"][c] < begin.shape[1]:
            begin[:, layout.places["log_n"][c]] = np.log(1.5)
        several = layout.galaxy.count(g) > 1
        factor = (_DISC_GROWS if layout.galaxy.index(g) == c else _BULGE_OF_DISC) if several else 1.0
        begin[:, layout.places["log_radius"][c]] = discs[:, 5 * g + 4] + np.log(factor)
    return begin


def _selected(stack: Stack, problem: BlendProblem, fit: Fit, positions, priors) -> tuple[BlendProblem, Fit]:
    """Without components that have no flux in any band, or whose flux the data could do without.

    Without a component, chi-square would rise by about its flux squared in units of its error; what it must be worth is
    two for each of its numbers (Akaike's information criterion: a steeper one drops bulges that are there, and fluxes
    come out low).
    """
    layout = problem.layout
    size, count = len(layout.names), len(layout.galaxy)
    fluxes = fit.amplitudes[0].cpu().double().numpy().reshape(-1, count)
    covariance = covariance_of(fit)
    penalty = 2.0 * (1 + stack.units.shape[1])
    kept: list[tuple[float | None, ...]] = []
    places: list[int] = []
    for g, components in enumerate(layout.indices):
        own = [c for c in range(count) if layout.galaxy[c] == g]
        if len(own) < 2:
            kept.append(components)
            places += own
            continue
        worth = []
        for c in own:
            alive = np.nonzero(fluxes[:, c] > 0)[0]
            columns = size + alive * count + c
            matrix = covariance[np.ix_(columns, columns)]
            worth.append(float(fluxes[alive, c] @ np.linalg.lstsq(matrix, fluxes[alive, c])[0]) if len(alive) else 0.0)
        needed = [i for i, value in enumerate(worth) if value > penalty] or [int(np.argmax(worth))]
        kept.append(tuple(components[i] for i in needed))
        places += [own[i] for i in needed]
    if len(places) == count:
        return problem, fit
    return _fitted(
        stack, *_smaller(layout, fit, kept, places), positions, priors, iterations=12, tolerance=0.1
    )


def _smaller(layout: GalaxyLayout, fit: Fit, kept: Sequence[tuple], places: Sequence[int]):
    """Galaxies of the ``kept`` components, each at one of the old ``places``, and where these were."""
    smaller = GalaxyLayout(tuple(kept))
    old = fit.parameters[0].cpu().double().numpy()
    begin = np.zeros(len(smaller.names))
    for key in ("x", "y", "e1", "e2"):
        for new, place in zip(smaller.places[key], layout.places[key]):
            if new < len(begin):
                begin[new] = old[place]
    for c, place in enumerate(places):
        for key in ("log_radius", "log_n"):
            if smaller.places[key][c] < len(begin):
                begin[smaller.places[key][c]] = old[layout.places[key][place]]
    return smaller, begin[None]


def _with_points(stack: Stack, problem: BlendProblem, fit: Fit, positions, priors) -> tuple[BlendProblem, Fit]:
    """Galaxies whose light is all unresolved as points, if the data do as well with that."""
    layout = problem.layout
    count = len(layout.galaxy)
    fluxes = fit.amplitudes[0].cpu().double().numpy().reshape(-1, count).clip(0).sum(0)
    parameters = fit.parameters[0].cpu().double().numpy()
    kept: list[tuple[float | None, ...]] = []
    places: list[int] = []
    for g, components in enumerate(layout.indices):
        own = [c for c in range(count) if layout.galaxy[c] == g]
        resolved = sum(
            fluxes[c] for c in own if components and parameters[layout.places["log_radius"][c]] > np.log(_UNRESOLVED)
        )
        point = components and fluxes[own].sum() > 0 and resolved < _RESOLVED_SHARE * fluxes[own].sum()
        kept.append(() if point else components)
        places += own[:1] if point else own
    if tuple(kept) == layout.indices:
        return problem, fit
    simpler = _fitted(stack, *_smaller(layout, fit, kept, places), positions, priors, iterations=12, tolerance=0.1)
    saved = fit.normal.shape[-1] - simpler[1].normal.shape[-1]
    return simpler if float(simpler[1].objective[0] - fit.objective[0]) < 2 * saved else (problem, fit)


def covariance_of(fit: Fit) -> np.ndarray:
    """Of parameters and fluxes of the first of a batch; fluxes held at zero have none."""
    normal = fit.normal[0].cpu().double().numpy()
    size = normal.shape[0] - fit.amplitudes.shape[1]
    free = np.concatenate([np.ones(size, bool), fit.amplitudes[0].cpu().numpy() > 0])
    covariance = np.zeros_like(normal)
    part = normal[np.ix_(free, free)]
    scale = 1 / np.sqrt(np.clip(part.diagonal(), 1e-300, None))
    # Single precision leaves the smallest eigenvalues uncertain by this much.
    values, vectors = np.linalg.eigh(part * scale[:, None] * scale)
    inverse = (vectors / np.clip(values, 1e-6, None)) @ vectors.T
    covariance[np.ix_(free, free)] = inverse * scale[:, None] * scale
    return covariance


def _told(stack: Stack, problem: BlendProblem, fit: Fit) -> BlendFit:
    """Of a stack of one."""
    layout, (blend,), (units,) = problem.layout, stack.blends, stack.units
    size, count = len(layout.names), len(layout.galaxy)
    parameters = fit.parameters[0].cpu().double().numpy()
    unit = np.concatenate([np.ones(size), np.repeat(units, count)])
    images, chi2 = [], 0.0
    for number, drawn in enumerate(problem.components(fit.parameters, fit.amplitudes)):
        data, weight = (part[0] for part in stack.band(number))
        whole = drawn[0].sum(0)
        chi2 += float((((data - whole) * weight).double() ** 2).sum())
        galaxies = np.zeros((len(layout), *whole.shape))
        np.add.at(galaxies, list(layout.galaxy), drawn[0].cpu().double().numpy())
        images.append(galaxies * units[number])
    return BlendFit(
        blend, layout, parameters, fit.amplitudes[0].cpu().double().numpy().reshape(-1, count) *
        units[:, None], covariance_of(fit) * unit[:, None] * unit, images, chi2,
        float(fit.objective[0]), bool(fit.converged[0]), _at_bounds(blend, problem, parameters),
        problem, fit,
    )


def _at_bounds(blend: Blend, problem: BlendProblem, parameters: np.ndarray) -> tuple[tuple[str, ...], ...]:
    layout = problem.layout
    found: list[list[str]] = [[] for _ in layout.indices]
    for g in range(len(layout)):
        if layout.places["e1"][g] < len(parameters):
            modulus = np.hypot(*(parameters[layout.places[key][g]] for key in ("e1", "e2")))
            if modulus > 0.99 * _MOST_ELLIPTICAL:
                found[g].append("at a bound: ellipticity")
        moved = [abs(parameters[layout.places[k][g]] - float(problem.prior_mean[0, layout.places[k][g]])) for k in "xy"]
        if max(moved) > 0.99 * _FARTHEST_MOVE:
            found[g].append("at a bound: position")
    largest = np.log(_LARGEST_OF_FRAME * max(blend.shape))
    for c, g in enumerate(layout.galaxy):
        column = layout.places["log_radius"][c]
        if column < len(parameters) and parameters[column] > largest - 0.01:
            found[g].append("at a bound: radius")
    return tuple(map(tuple, found))
