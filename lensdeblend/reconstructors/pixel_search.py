"""Where the parametric start lies in a wrong minimum: other lenses that the arcs allow, by the evidence of a coarse
inversion.

A Sérsic that stands for a galaxy with arms may fit best behind a wrong lens. Pixels have no such preference, and as
they grow with the source (see `SourceFrame`), the lens that is right has the most evidence by far.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lensdeblend.lensing.placement import carried
from lensdeblend.reconstructors.inverting import JointProblem, evaluate, fit_pixels, strengthen
from lensdeblend.reconstructors.pixel_start import PixelStart
from lensdeblend.reconstructors.starts import draw_starts, find_arcs

__all__ = ["searched"]

log = logging.getLogger(__name__)

_DRAWN, _CLIMBED = 64, 4
_STRENGTH, _DECADES = 1e-2, 2.0


def searched(
    start: PixelStart, problem: Callable[[PixelStart, int], JointProblem], rng: np.random.Generator
) -> PixelStart:
    """The start whose lens, of many drawn about the arcs, has the most evidence; the lens light is kept.

    ``problem(start, points)`` is a coarse inversion from a start, with so many sample points a side of a pixel.
    """
    drawn = _drawn(start, rng)
    ranked = problem(replace(start, parameters=drawn[0]), 1)
    values = [strengthen(evaluate(ranked, one, _around(start)), _DECADES).objective for one in drawn]
    best = None
    for number in np.argsort(values)[:_CLIMBED]:
        begin = replace(start, parameters=drawn[number])
        fit = fit_pixels(problem(begin, 3), begin.parameters, None, _around(start), rounds=2)
        log.debug("searched: objective %.1f, then %.1f", values[number], fit.objective)
        if best is None or fit.objective < best.objective:
            best = fit
    return replace(start, parameters=best.parameters)


def _around(start: PixelStart) -> list[float]:
    return [_STRENGTH] * len(start.bands)


def _drawn(start: PixelStart, rng: np.random.Generator) -> list[Tensor]:
    """The start with other lenses (P,), drawn about the arcs of the band of highest signal-to-noise."""
    number, band = max(enumerate(start.bands), key=lambda pair: pair[1].signal)
    (row, column), (ny, nx) = band.frame.corner, band.frame.grid.shape
    light = torch.as_tensor(start.lights[number][row:row + ny, column:column + nx])
    frame = band.frame.with_data(band.frame.data - light).single()
    one = start.model.one
    own = carried(start.parameters[start.model.columns(number)], one, band.placement.inverse)
    center = tuple(own[one.light_columns(0)][:2].tolist()) if one.components else frame.grid.centre
    drawn = []
    for lens in draw_starts(find_arcs(frame, center), _DRAWN, rng)[:, :8]:
        own = own.clone()
        own[:8] = torch.as_tensor(lens)
        whole = start.parameters.clone()
        whole[:8] = carried(own, one, band.placement)[:8]
        drawn.append(whole)
    return drawn
