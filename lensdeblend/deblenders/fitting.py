"""From positions to the galaxies of a blend: Sérsic pairs through the PSF, all of them and all bands at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lensdeblend.deblenders.blend import Blend
from lensdeblend.lensing.blend import BandData, BlendProblem
from lensdeblend.lensing.fourier import FourierFrame, GalaxyLayout
from lensdeblend.lensing.least_squares import Fit, descend

__all__ = ["BlendFit", "Priors", "fit_blend"]

log = logging.getLogger(__name__)

_DISC = (1.0,)
# Where a disc turns into two components, their radii in units of the disc's.
_DISC_GROWS, _BULGE_OF_DISC = 1.1, 0.5
_FARTHEST_MOVE = 3.0
_SMALLEST, _LARGEST_OF_FRAME = 0.05, 0.5
_MOST_ELLIPTICAL = 0.85
_FIRST_RADIUS_OF_PSF = 0.6
# First radii in units of that one, and how stiffly (pixels) positions are held before shapes are known.
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


@dataclass(frozen=True)
class BlendFit:
    """The galaxies as they were found.

    ``images`` are one array a band, (galaxies, ny, nx); ``fluxes`` (bands, components); ``covariance`` is over
    parameters and fluxes, band by band.
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


def fit_blend(
    blend: Blend, positions: np.ndarray, levels: Sequence[float], *, indices: tuple[float | None, ...] = (1.0, 4.0),
    priors: Priors = Priors(), select: bool = False, device: str = "cpu",
) -> BlendFit:
    """Fit galaxies at ``positions`` (n, 2).

    Parameters
    ----------
    blend : Blend
    positions : ndarray
        Pixels of the first band.
    levels : sequence of float
        Of the sky in each band, taken off before the fit.
    indices : tuple
        Sérsic indices of the components of each galaxy, None for a free one.
    priors : Priors
    select : bool
        Whether to drop components that the data do not ask for.
    device : str
    """
    prepared = _Prepared.of(blend, levels, device)
    best = None
    for factor, stiffness in _STARTS:
        problem, fit = _from_discs(prepared, positions, indices, priors, factor, stiffness)
        if best is None or float(fit.objective[0]) < float(best[1].objective[0]):
            best = problem, fit
        if _is_good(prepared, *best):
            break
    if select:
        best = _selected(prepared, *best, positions, priors)
    return _told(prepared, *best)


def _from_discs(prepared: _Prepared, positions, indices, priors: Priors, factor: float, stiffness: float):
    """First a round disc a galaxy, which may hardly move, then what is wished."""
    simple = GalaxyLayout((_DISC,) * len(positions))
    start = [[x, y, 0.0, 0.0, np.log(factor * prepared.first_radius)] for x, y in positions]
    held = replace(priors, position=min(stiffness, priors.position or stiffness))
    _, fit = _fitted(
        prepared, simple, np.concatenate(start), positions, held, iterations=8, tolerance=1.0, fold=False
    )
    layout = GalaxyLayout((tuple(indices),) * len(positions))
    begin = _grown(layout, fit.parameters[0].cpu().numpy().astype(float))
    return _fitted(prepared, layout, begin, positions, priors, iterations=25, tolerance=0.1)


def _is_good(prepared: _Prepared, problem: BlendProblem, fit: Fit) -> bool:
    """Whether all galaxies shine and what is left is noise."""
    layout = problem.layout
    fluxes = fit.amplitudes[0].reshape(len(prepared.units), -1).sum(0)
    shining = {layout.galaxy[c] for c in torch.nonzero(fluxes > 0).flatten().tolist()}
    freedom = max(prepared.blend.used - len(layout.names) - fit.amplitudes.shape[1], 1)
    few = float(fit.objective[0]) / freedom < 1 + 3 * np.sqrt(2 / freedom)
    return few and len(shining) == len(layout) and bool(fit.converged[0])


@dataclass(frozen=True)
class _Prepared:
    """The bands as tensors, those on one grid together, each in units of its noise."""

    blend: Blend
    grids: tuple[BandData, ...]
    units: tuple[float, ...]

    @classmethod
    def of(cls, blend: Blend, levels: Sequence[float], device: str) -> _Prepared:
        units = tuple(float(np.median(band.sigma[band.used])) if band.used.any() else 1.0 for band in blend.bands)
        together: dict[tuple, list[int]] = {}
        for number, band in enumerate(blend.bands):
            placed = () if band.aligned else (*band.matrix.ravel(), *band.offset)
            together.setdefault((band.data.shape, *placed), []).append(number)
        grids = []
        for numbers in together.values():
            bands = [blend.bands[number] for number in numbers]
            first = bands[0]
            frame = FourierFrame.of(
                first.data.shape, *(band.psf for band in bands), matrix=None if first.aligned else first.matrix,
                offset=None if first.aligned else first.offset, dtype=torch.float32, device=device,
            )
            data = [np.where(b.used, (b.data - levels[k]) / units[k], 0.0) for b, k in zip(bands, numbers)]
            weight = [band.weight * units[number] for band, number in zip(bands, numbers)]
            grids.append(BandData(frame, tuple(numbers), *(
                torch.as_tensor(np.stack(values), dtype=torch.float32, device=device)[None] for values in (data, weight)
            )))
        return cls(blend, tuple(grids), units)

    def band(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Data and weight, (ny, nx)."""
        grid = next(grid for grid in self.grids if number in grid.numbers)
        place = grid.numbers.index(number)
        return grid.data[0, place], grid.weight[0, place]

    @property
    def first_radius(self) -> float:
        """Pixels."""
        psf = self.blend.first.psf
        if psf is None:
            return 1.0
        # The side of a square with the PSF's effective area.
        return max(1.0, _FIRST_RADIUS_OF_PSF * float(np.sqrt(1 / np.sum((psf / psf.sum()) ** 2))))


def _fitted(
    prepared, layout, begin, positions, priors, *, iterations, tolerance, fold=True
) -> tuple[BlendProblem, Fit]:
    problem, lower, upper = _problem(prepared, layout, positions, priors)
    problem = replace(problem, fold=fold)
    start = torch.as_tensor(begin, dtype=torch.float32, device=lower.device)[None].clamp(lower, upper)
    fit = descend(problem, start, lower, upper, iterations=iterations, tolerance=tolerance)
    log.debug("%d galaxies: objective %.1f after %d steps", len(layout), fit.objective[0], fit.iterations)
    return problem, fit


def _problem(prepared: _Prepared, layout: GalaxyLayout, positions, priors: Priors):
    mean, weight, lower, upper = (np.zeros(len(layout.names)) for _ in range(4))
    scale, ny_nx = prepared.blend.scale, prepared.blend.shape
    for g, components in enumerate(layout.indices):
        for axis, key in enumerate("xy"):
            column = layout.places[key][g]
            place = positions[g][axis]
            mean[column], weight[column] = place, _weight(priors.position)
            lower[column], upper[column] = place - _FARTHEST_MOVE, place + _FARTHEST_MOVE
        if components:
            for key in ("e1", "e2"):
                column = layout.places[key][g]
                weight[column] = _weight(priors.ellipticity)
                lower[column], upper[column] = -_MOST_ELLIPTICAL, _MOST_ELLIPTICAL
    median, width = priors.radius or (1.0, None)
    for c, g in enumerate(layout.galaxy):
        column = layout.places["log_radius"][c]
        if column >= len(mean):
            continue
        first = layout.galaxy.index(g) == c
        mean[column] = np.log(median * (1 if first else priors.bulge_ratio) / scale)
        weight[column] = _weight(width)
        lower[column], upper[column] = np.log(_SMALLEST), np.log(_LARGEST_OF_FRAME * max(ny_nx))
        column = layout.places["log_n"][c]
        if column < len(mean):
            mean[column], weight[column] = np.log(1.5), 1.0
            lower[column], upper[column] = np.log(0.5), np.log(6.0)
    device = prepared.grids[0].data.device
    mean, weight, lower, upper = (
        torch.as_tensor(v, dtype=torch.float32, device=device) for v in (mean, weight, lower, upper)
    )
    return BlendProblem(layout, prepared.grids, mean, weight), lower, upper


def _weight(width: float | None) -> float:
    return 0.0 if width is None else width**-2


def _grown(layout: GalaxyLayout, discs: np.ndarray) -> np.ndarray:
    """Start for ``layout`` from a disc a galaxy."""
    begin = np.zeros(len(layout.names))
    for g, disc in enumerate(discs.reshape(-1, 5)):
        for key, value in zip(("x", "y", "e1", "e2"), disc):
            begin[layout.places[key][g]] = value
    for c, g in enumerate(layout.galaxy):
        if layout.places["log_n"][c] < len(begin):
            begin[layout.places["log_n"][c]] = np.log(1.5)
        several = layout.galaxy.count(g) > 1
        factor = (_DISC_GROWS if layout.galaxy.index(g) == c else _BULGE_OF_DISC) if several else 1.0
        begin[layout.places["log_radius"][c]] = discs[5 * g + 4] + np.log(factor)
    return begin


def _selected(prepared, problem: BlendProblem, fit: Fit, positions, priors) -> tuple[BlendProblem, Fit]:
    """Without components that have no flux in any band, or whose flux the data could do without.

    Without a component, chi-square would rise by about its flux squared in units of its error; what it must be worth is
    two for each of its numbers (Akaike's information criterion: a steeper one drops bulges that are there, and fluxes
    come out low).
    """
    layout = problem.layout
    size, count = len(layout.names), len(layout.galaxy)
    fluxes = fit.amplitudes[0].cpu().double().numpy().reshape(-1, count)
    covariance = _covariance(fit)
    penalty = 2.0 * (1 + len(prepared.units))
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
    return _fitted(prepared, smaller, begin, positions, priors, iterations=12, tolerance=0.1)


def _covariance(fit: Fit) -> np.ndarray:
    """Of parameters and fluxes; fluxes held at zero have none."""
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


def _told(prepared: _Prepared, problem: BlendProblem, fit: Fit) -> BlendFit:
    layout, blend = problem.layout, prepared.blend
    size, count = len(layout.names), len(layout.galaxy)
    parameters = fit.parameters[0].cpu().double().numpy()
    unit = np.concatenate([np.ones(size), np.repeat(prepared.units, count)])
    images, chi2 = [], 0.0
    for number, drawn in enumerate(problem.components(fit.parameters, fit.amplitudes)):
        data, weight = prepared.band(number)
        whole = drawn[0].sum(0)
        chi2 += float((((data - whole) * weight).double() ** 2).sum())
        galaxies = np.zeros((len(layout), *whole.shape))
        np.add.at(galaxies, list(layout.galaxy), drawn[0].cpu().double().numpy())
        images.append(galaxies * prepared.units[number])
    return BlendFit(
        blend, layout, parameters, fit.amplitudes[0].cpu().double().numpy().reshape(-1, count) *
        np.asarray(prepared.units)[:, None], _covariance(fit) * unit[:, None] * unit, images, chi2,
        float(fit.objective[0]), bool(fit.converged[0]), _at_bounds(prepared, problem, parameters),
    )


def _at_bounds(prepared, problem: BlendProblem, parameters: np.ndarray) -> tuple[tuple[str, ...], ...]:
    layout = problem.layout
    found: list[list[str]] = [[] for _ in layout.indices]
    for g in range(len(layout)):
        if layout.places["e1"][g] < len(parameters):
            modulus = np.hypot(*(parameters[layout.places[key][g]] for key in ("e1", "e2")))
            if modulus > 0.99 * _MOST_ELLIPTICAL:
                found[g].append("at a bound: ellipticity")
        moved = [abs(parameters[layout.places[k][g]] - float(problem.prior_mean[layout.places[k][g]])) for k in "xy"]
        if max(moved) > 0.99 * _FARTHEST_MOVE:
            found[g].append("at a bound: position")
    largest = np.log(_LARGEST_OF_FRAME * max(prepared.blend.shape))
    for c, g in enumerate(layout.galaxy):
        column = layout.places["log_radius"][c]
        if column < len(parameters) and parameters[column] > largest - 0.01:
            found[g].append("at a bound: radius")
    return tuple(map(tuple, found))
