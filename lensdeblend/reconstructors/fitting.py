"""From a frame to the best parametric lens: many blurred starts, fewer sharp ones, one fit on adaptively divided
pixels."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lensdeblend.lensing.least_squares import levenberg_marquardt
from lensdeblend.lensing.parametric import ParametricLens, SersicLens
from lensdeblend.lensing.subdivision import Subdivision, refine
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.starts import (
    LensLight, blurred_data, blurred_lens, bounds, draw_starts, find_arcs, fit_lens_light, rank_starts,
)

__all__ = [
    "LensFit", "degrees_of_freedom", "divided", "evenly_divided", "finest_division", "fit_lens", "is_good",
    "light_in_frame", "settle", "sharpen", "with_another", "within_noise",
]

log = logging.getLogger(__name__)

# The error of a pixel's average that is left standing, in units of its noise.
_DIVISION_TOLERANCE = 0.01
# Of the brightest pixel.
_FINEST_DIVISION = 1e-5
# Several times what the cusps of a lens take; a fit that would need more is no lens.
_SPARE_CELLS = 10_000
_FEWEST_SHOWN = 20
# Of chi-square, from the error that the division of the pixels leaves standing.
_ROUGHNESS = 0.2
# A move that is worth less chi-square than this does not ask for other cells.
_SETTLED = 1.0
# How many of the proposed starts are fitted: they lie close to each other.
_PROPOSED = 4
# Standard deviations of chi-square; three make a fit poor.
_TWICE_POOR = 6.0
# Two searches that end this close in chi-square have found the same minimum.
_SAME_MINIMUM = 1.0


@dataclass(frozen=True)
class LensFit:
    """The best parameters, their normal matrix, and the forward model they belong to.

    ``residual`` is over the unmasked pixels, in sigma; ``shown`` marks those of them where the sources exceed two
    sigma.
    """

    model: SersicLens
    lens: ParametricLens
    parameters: Tensor
    amplitudes: Tensor
    normal: Tensor
    residual: Tensor
    shown: Tensor
    converged: bool
    lower: Tensor
    upper: Tensor

    @property
    def chi2(self) -> float:
        return float((self.residual**2).sum())

    @property
    def degrees_of_freedom(self) -> int:
        return degrees_of_freedom(self.lens, self.model)

    @property
    def reduced_chi2(self) -> float:
        return self.chi2 / self.degrees_of_freedom

    @property
    def bayesian_information(self) -> float:
        """Bayesian information criterion; smaller is better."""
        count = len(self.lens.used)
        return self.chi2 + (count - self.degrees_of_freedom) * np.log(count)


def degrees_of_freedom(lens: ParametricLens, model: SersicLens) -> int:
    """Unmasked pixels less fitted numbers."""
    return len(lens.used) - (8 * bool(model.sources) + 7 * model.components)


def is_good(fit: LensFit) -> bool:
    """Whether the reduced chi-square lies within three sigma of 1, or below: over all pixels, and over those where
    the source shows.

    The second catches a source that does not fit in an image that is mostly empty, or whose noise is overstated.
    """
    return within_noise(fit.residual, fit.shown, fit.degrees_of_freedom)


def within_noise(residual: Tensor, shown: Tensor, degrees_of_freedom: float) -> bool:
    """The same of a residual in sigma and the pixels where the source shows."""
    if float((residual**2).sum()) / degrees_of_freedom > 1 + 3 * np.sqrt(2 / degrees_of_freedom):
        return False
    count = int(shown.sum())
    if count < _FEWEST_SHOWN:
        return True
    return float((residual[shown] ** 2).sum()) / count < 1 + 3 * np.sqrt(2 / count)


def fit_lens(
    frame: Frame, model: SersicLens, rng: np.random.Generator, *, draws: int = 256, starts: int = 12, rounds: int = 3,
    priors: Callable[[SersicLens], tuple[Tensor, Tensor]] | None = None, light: LensLight | None = None,
    hopeless: float = np.inf, propose: Callable[[Frame], np.ndarray | None] | None = None,
) -> LensFit | None:
    """Fit ``model`` with one source to ``frame``; more rounds of wider starts while the fit stays poor.

    Where ``propose`` gives starts (n, 14) for the frame without its lens light, these are tried before any are drawn,
    and alone for a model that may be ``hopeless``: None where the blurred or the rough sharp fits leave more than that
    chi-square a pixel.
    """
    single = frame.single()
    light_start = np.zeros(0)
    arcs_frame, center = single, frame.grid.centre
    if model.lens_lights:
        light = light or fit_lens_light(single, model.lens_lights)
        arcs_frame = single.with_data(single.data - light.image)
        light_start, center = light.parameters, light.center
    arcs = find_arcs(arcs_frame, center)
    log.debug("arcs: %d pixels, mean radius %.3f arcsec about %s", len(arcs.x), arcs.radius, center)

    def fitted(drawn: np.ndarray, keep: int, most: int = 2) -> LensFit | None:
        candidates, blurred = _search(arcs_frame, drawn, keep)
        if blurred > hopeless * int(frame.used.sum()):
            return None
        candidates = np.concatenate([candidates, np.tile(light_start, (len(candidates), 1))], 1)
        return _polish(frame, single, model, candidates, priors, hopeless, most)

    best = None
    proposed = None if propose is None else propose(arcs_frame)
    if proposed is not None:
        best = fitted(proposed, _PROPOSED, 1)
        log.debug("proposed starts: reduced chi-square %.4f", np.inf if best is None else best.reduced_chi2)
        if np.isfinite(hopeless) or (best is not None and is_good(best)):
            return best
    for attempt in range(rounds):
        drawn = draw_starts(arcs, draws * (attempt + 1), rng, spread=1 + 0.7 * attempt)
        fit = fitted(drawn, starts)
        if fit is None:
            return best
        log.debug("round %d: reduced chi-square %.4f", attempt, fit.reduced_chi2)
        found_again = best is not None and abs(fit.chi2 - best.chi2) < _SAME_MINIMUM
        if best is None or fit.chi2 < best.chi2:
            best = fit
        if is_good(best) or found_again:
            break
    return best


def _search(frame: Frame, drawn: np.ndarray, keep: int) -> tuple[np.ndarray, float]:
    """Rank starts, then fit the best of them to the blurred arcs; also the chi-square of the best there."""
    drawn, _ = rank_starts(frame, drawn, blur=1.0)
    model = SersicLens(1, 0)
    lens, data = blurred_lens(frame, model, 1.0), blurred_data(frame, 1.0)
    lower, upper = bounds(model, frame)
    begin = torch.as_tensor(drawn[:keep], dtype=frame.data.dtype)
    fit = levenberg_marquardt(lens.linearise, data, begin, lower, upper, iterations=8, tolerance=1.0, damping=0.1)
    order = torch.argsort(fit.objective)
    return _distinct(fit.parameters[order], 3).double().numpy(), float(fit.objective[order[0]])


def _distinct(parameters: Tensor, count: int) -> Tensor:
    """The first ``count`` parameter sets that differ from each other in lens or source position."""
    kept = [0]
    for index in range(1, len(parameters)):
        if all(float((parameters[index] - parameters[k])[:10].abs().max()) > 0.02 for k in kept):
            kept.append(index)
        if len(kept) == count:
            break
    return parameters[kept]


def _polish(
    frame: Frame, single: Frame, model: SersicLens, candidates: np.ndarray, priors, hopeless: float, most: int
) -> LensFit | None:
    """Fit sharp images: the candidates in single precision on evenly divided pixels, the best one, or those nearly as
    good and not more than ``most``, adaptively in double."""
    lower, upper = bounds(model, single, torch.as_tensor(candidates[0]))
    mean, weight = priors(model) if priors else (None, None)
    single_priors = {} if mean is None else {"prior_mean": mean.float(), "prior_weight": weight.float()}
    lens = ParametricLens(model, Subdivision.uniform(single.grid, 2, torch.float32), single.convolution, single.weight)
    begin = torch.as_tensor(candidates, dtype=torch.float32)
    fit = levenberg_marquardt(
        lens.linearise, single.weighted_data, begin, lower, upper, iterations=10, tolerance=2.0, **single_priors
    )
    order = torch.argsort(fit.objective)
    if float(fit.objective[order[0]]) > hopeless * len(lens.used):
        return None
    close = fit.objective[order] < fit.objective[order[0]] * 1.2 + 20
    count = len(lens.used)
    give_up = np.inf if np.isinf(hopeless) else count + _TWICE_POOR * np.sqrt(2 * count)
    fits = [
        sharpen(frame, model, fit.parameters[i][None].double(), priors, give_up=give_up) for i in order[close][:most]
    ]
    return min(fits, key=lambda f: f.chi2)


def sharpen(
    frame: Frame, model: SersicLens, begin: Tensor, priors=None, *, passes: int = 3, give_up: float = np.inf
) -> LensFit:
    """Fit in double precision from a good start, the pixels divided as finely as the model needs; not on and on where
    chi-square stays above ``give_up``."""
    lower, upper = bounds(model, frame, begin[0])
    mean, weight = priors(model) if priors else (None, None)
    lens, fit = settle(
        evenly_divided(frame, model), lambda p, a: divided(frame, model, p, a), frame.weighted_data, begin, lower,
        upper, passes=passes, give_up=give_up, prior_mean=mean, prior_weight=weight,
    )
    parameters, amplitudes = fit.parameters, fit.amplitudes
    basis = lens.linearise(parameters, False).basis
    layers = amplitudes[0, :, None] * basis[0]
    return LensFit(
        model, lens, parameters[0], amplitudes[0], fit.normal[0], frame.weighted_data - layers.sum(0),
        layers[:model.sources].sum(0) > 2, bool(fit.converged[0]), lower, upper,
    )


def with_another(parameters: Tensor, old: SersicLens, new: SersicLens) -> list[Tensor]:
    """Starts (P,) for the component in which ``new`` exceeds ``old``: something smaller and steeper beside what is
    there, or something larger; a first lens light around the centre of the mass."""
    behind_sources = old.light_columns(old.sources).start
    if new.sources > old.sources:
        seed, place, variants = parameters[old.light_columns(0)], behind_sources, ((0.4, 0.3), (2.0, 0.0))
    elif old.lens_lights:
        seed, place = parameters[old.light_columns(old.sources)], len(parameters)
        variants = (0.3, 0.5), (2.5, 0.0)
    else:
        seed = torch.cat([parameters[4:6], parameters.new_tensor([parameters[0].log(), 0.0, 0.0, 0.0])])
        place, variants = len(parameters), ((0.3, 1.0), (0.8, 1.0))
    begins = []
    for factor, log_n in variants:
        more = seed.clone()
        more[2:4] = more.new_tensor([float(seed[2]) + np.log(factor), log_n])
        begins.append(torch.cat([parameters[:place], more, parameters[place:]]))
    return begins


def settle(
    lens, divide: Callable, data: Tensor, begin: Tensor, lower: Tensor, upper: Tensor, *, passes: int,
    give_up: float = np.inf, **priors,
):
    """Fit ``lens``, then again with the pixels divided for what was found, until that changes little.

    ``divide(parameters, amplitudes)`` gives the lens on pixels divided as these need. Returns the last lens and its
    `~lensdeblend.lensing.least_squares.Fit`.
    """
    fit = levenberg_marquardt(lens.linearise, data, begin, lower, upper, iterations=3, **priors)
    parameters, amplitudes = fit.parameters, fit.amplitudes
    for _ in range(passes):
        lens = divide(parameters, amplitudes)
        fit = levenberg_marquardt(
            lens.linearise, data, parameters, lower, upper, iterations=25, tolerance=1e-3, roughness=_ROUGHNESS,
            damping=1e-3, **priors,
        )
        step = fit.parameters - parameters
        parameters, amplitudes = fit.parameters, fit.amplitudes
        size = parameters.shape[1]
        # In units of the normal matrix: how much chi-square the move made since the pixels were cut is worth.
        if float(step[0] @ fit.normal[0, :size, :size] @ step[0]) < _SETTLED or float(fit.objective) > give_up:
            break
    return lens, fit


def evenly_divided(frame: Frame, model: SersicLens) -> ParametricLens:
    """The model on pixels cut into four."""
    subdivision = Subdivision.uniform(frame.grid, 2, used=frame.reachable)
    return ParametricLens(model, subdivision, frame.convolution, frame.weight)


def divided(frame: Frame, model: SersicLens, parameters: Tensor, amplitudes: Tensor) -> ParametricLens:
    """The model on pixels divided as finely as its light there needs."""
    brightness = _brightness(model, parameters, amplitudes, frame.grid.scale)
    subdivision = refine(
        frame.grid, brightness, _tolerance(frame), used=frame.reachable, most=2 * frame.grid.size + _SPARE_CELLS
    )
    return ParametricLens(model, subdivision, frame.convolution, frame.weight)


def light_in_frame(fit: LensFit) -> Tensor:
    """The model (ny, nx) in the frame it was fitted to."""
    return (fit.amplitudes[:, None, None] * fit.lens.images(fit.parameters[None])[0]).sum(0)


def _tolerance(frame: Frame) -> Tensor:
    sigma = frame.sigma.clone()
    sigma[~frame.used] = sigma[frame.used].median()
    padded = torch.nn.functional.pad(sigma[None, None], [frame.grid.border] * 4, mode="replicate")[0, 0]
    return (padded.reshape(-1) * _DIVISION_TOLERANCE).clamp_min(finest_division(frame))


def finest_division(frame: Frame) -> float:
    """The smallest light in a pixel that is worth dividing it for: a saturated one would be divided without end."""
    return _FINEST_DIVISION * float(frame.data[frame.used].abs().max())


def _brightness(model: SersicLens, parameters: Tensor, amplitudes: Tensor, scale: float):
    def total(x: Tensor, y: Tensor) -> Tensor:
        return (amplitudes[:, :, None] * model.brightness(parameters, x, y)).sum(1) * scale**2

    return total
