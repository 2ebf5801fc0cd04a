"""Whether an image asks for a lens: the best lens model held against galaxies without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lensdeblend.lensing.least_squares import levenberg_marquardt
from lensdeblend.lensing.parametric import LENS_NAMES, LIGHT_NAMES, ParametricLens, SersicLens
from lensdeblend.lensing.subdivision import Subdivision
from lensdeblend.reconstructors.fitting import LensFit, sharpen
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.starts import bounds

__all__ = ["bands_see_lens", "sees_lens"]

# By how much the Bayesian information criterion must be better for a lens to be believed.
_PREFERRED = 10.0
# What a rough fit may be off in chi-square and yet be worth fitting out: a part of that of the best lens, as it has
# not converged, and a part of that of an empty sky, as evenly divided pixels miss some of the light of a cusp.
_UNCONVERGED = 0.15
# The same after few steps, and after more.
_ROUGH = (3, 2.0), (8, _UNCONVERGED)
_UNDIVIDED = 1e-4
_CUSP_PIXELS = 2.5
# Half-light radius in pixels and Sérsic index from which an unlensed galaxy is fitted.
_PROFILES = ((1.0, 1.5), (5.0, 2.0))
_BESIDE_PIXELS = 4.0


def sees_lens(frame: Frame, fit: LensFit) -> bool:
    """Whether the data prefer ``fit`` both to an empty sky and to as many Sérsic components without a lens.

    Preferred is what has a Bayesian information criterion smaller by more than 10. The components without a lens
    begin where the lens light is, and where most light is left beside it. A rough fit of them is far off for most
    lenses; only where it is close are they fitted out.
    """
    worst = fit.bayesian_information + _PREFERRED
    empty = float((frame.weighted_data**2).sum())
    if empty <= worst:
        return False
    begins = list(_begins(frame, fit))
    for steps, unconverged in _ROUGH:
        fits = [_rough_fit(frame.single(), begin, steps) for begin in begins]
        begin, rough = min(fits, key=lambda pair: pair[1])
        if rough > (1 + unconverged) * worst + _UNDIVIDED * empty:
            return True
    return sharpen(frame, SersicLens(0, fit.model.components), begin).bayesian_information > worst


def bands_see_lens(
    frames: Sequence[Frame], fits: Sequence[LensFit], bayesian_information: float, parameters: int
) -> bool:
    """The same for several bands: ``fits`` are the common fit as each band tells it.

    Without a lens every band is fitted alone, which leaves it more freedom than the ``parameters`` it is charged for:
    a lens is rather not seen than seen where there is none.
    """
    worst = bayesian_information + _PREFERRED
    empty = sum(float((frame.weighted_data**2).sum()) for frame in frames)
    if empty <= worst:
        return False
    rough = [
        min((_rough_fit(frame.single(), begin) for begin in _begins(frame, fit)), key=lambda pair: pair[1])
        for frame, fit in zip(frames, fits)
    ]
    if sum(chi2 for _, chi2 in rough) > (1 + _UNCONVERGED) * worst + _UNDIVIDED * empty:
        return True
    unlensed = sum(
        sharpen(frame, SersicLens(0, fit.model.components), begin).chi2
        for frame, fit, (begin, _) in zip(frames, fits, rough)
    )
    return unlensed + parameters * np.log(sum(int(frame.used.sum()) for frame in frames)) > worst


def _rough_fit(frame: Frame, begin: np.ndarray, steps: int = 8) -> tuple[Tensor, float]:
    """The best unlensed parameters (1, P) on evenly divided pixels, and their chi-square away from the cusps."""
    begin = torch.as_tensor(begin, dtype=frame.data.dtype)
    model = SersicLens(0, (begin.shape[1] - len(LENS_NAMES)) // len(LIGHT_NAMES))
    subdivision = Subdivision.uniform(frame.grid, 2, frame.data.dtype)
    lens = ParametricLens(model, subdivision, frame.convolution, frame.weight)
    lower, upper = bounds(model, frame, begin[0])
    data = frame.weighted_data
    found = levenberg_marquardt(lens.linearise, data, begin, lower, upper, iterations=steps, tolerance=3.0)
    best = int(found.objective.argmin())
    parameters = found.parameters[best][None]
    residual = data - found.amplitudes[best] @ lens.linearise(parameters, False).basis[0]
    x, y = (torch.as_tensor(axis.reshape(-1))[lens.used] for axis in frame.positions())
    away = torch.ones_like(x, dtype=torch.bool)
    for k in range(model.components):
        cx, cy = parameters[0, model.light_columns(k)][:2]
        away &= torch.hypot(x - cx, y - cy) > _CUSP_PIXELS * frame.grid.scale
    return parameters.double(), float((residual[away] ** 2).sum())


def _begins(frame: Frame, fit: LensFit) -> Iterator[np.ndarray]:
    """Starts (n, P) without a lens: the lens light as found, a galaxy on the brightest spot left, and for a second
    source another within it or on the brightest spot beside it."""
    model, scale = fit.model, frame.grid.scale
    found = fit.parameters[8 + 6 * model.sources:].numpy()
    images = fit.lens.images(fit.parameters[None])[0, model.sources:]
    left = frame.with_data(frame.data - (fit.amplitudes[model.sources:, None, None] * images).sum(0)).smoothed(1.5)
    x, y = frame.positions()
    left = np.where(frame.used.numpy(), left, -np.inf)
    places = [np.unravel_index(left.argmax(), left.shape)]
    around = np.hypot(x - x[places[0]], y - y[places[0]])
    if model.sources > 1:
        places.append(np.unravel_index(np.where(around > _BESIDE_PIXELS * scale, left, -np.inf).argmax(), left.shape))
    galaxies = [
        [[x[place], y[place], np.log(radius * scale), np.log(n), 0, 0] for radius, n in _PROFILES] for place in places
    ]
    lens = [1.0, 2.0, 0, 0, 0, 0, 0, 0]
    first = galaxies[0]
    if model.sources == 1:
        yield np.array([[*lens, *one, *found] for one in first])
        return
    yield np.array([[*lens, *first[0], *first[1], *found]])
    yield np.array([[*lens, *one, *two, *found] for one in first for two in galaxies[1]])
