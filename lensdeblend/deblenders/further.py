r"""Where a further galaxy would help: the score test of a star at every pixel, the galaxies' numbers free to give way.

With :math:`J` the derivatives of the model by all its numbers, :math:`N` their normal matrix (priors included),
:math:`D` the PSF at a pixel in each band and :math:`r` the residual, in units of the noise, chi-square would fall by

.. math::

    s^T S^{-1} s, \qquad s = D^T r, \qquad S = D^T D - D^T J \, N^{-1} J^T D

(the score test of Rao 1948, 10.1017/S0305004100023987). A neighbour that the galaxies have swallowed shows in
:math:`S` where it no longer shows in :math:`r`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.signal import fftconvolve
from scipy.stats import chi2, norm

from lensdeblend.deblenders.detection import peaks
from lensdeblend.deblenders.fitting import BlendFit, covariance_of

__all__ = ["further_places", "gain", "star_gains"]

# Of a star's information, what the galaxies must leave for it to be told from them.
_LEAST_LEFT = 0.02
_APART = 2


def further_places(fit: BlendFit, threshold: float) -> np.ndarray:
    """(n, 2) pixels of the first band where a star is as significant as ``threshold`` says, the best first."""
    gains, bands = star_gains(fit)
    least = chi2.isf(norm.sf(threshold), bands) if bands else np.inf
    return peaks(gains, least, _APART)


def star_gains(fit: BlendFit) -> tuple[np.ndarray, int]:
    """What a star at each pixel of the first band is worth in chi-square, by the bands on these pixels, and how many
    they are."""
    problem, found = fit.problem, fit.solution
    covariance, size = covariance_of(found), found.parameters.shape[1]
    blend, count = fit.blend, len(fit.layout.galaxy)
    scores, told, crossed = [], [], []
    for grid, drawn in zip(problem.grids, problem.rendered(found.parameters)):
        amplitudes = found.amplitudes.unflatten(1, (problem.bands, -1))[:, list(grid.numbers)]
        slopes = torch.cat([drawn.derivatives(amplitudes), drawn.basis], 2)[0].cpu().double().numpy()
        model = (drawn.basis * amplitudes[..., None, None]).sum(2)
        residual = (grid.data - model)[0].cpu().double().numpy()
        weight = grid.weight[0].cpu().double().numpy()
        for place, number in enumerate(grid.numbers):
            band = blend.bands[number]
            if not band.aligned or band.data.shape != blend.shape:
                continue
            kernel = (np.ones((1, 1)) if band.psf is None else band.psf)[::-1, ::-1]
            inverse = weight[place] ** 2
            scores.append(fftconvolve(residual[place] * inverse, kernel, mode="same"))
            told.append(fftconvolve(inverse, kernel**2, mode="same").clip(1e-12))
            own = fftconvolve(slopes[place] * inverse, kernel[None], mode="same", axes=(1, 2))
            cross = np.zeros((len(covariance), *blend.shape))
            cross[:size] = own[:size]
            cross[size + number * count:size + (number + 1) * count] = own[size:]
            crossed.append(cross)
    if not scores:
        return np.zeros(blend.shape), 0
    score, told, crossed = (np.array(part) for part in (scores, told, crossed))
    taken = np.einsum("apyx,pq,bqyx->yxab", crossed, covariance, crossed, optimize=True)
    left = np.einsum("ayx,ab->yxab", told, np.eye(len(told))) - taken
    share = np.einsum("yxaa->yxa", left) / told.transpose(1, 2, 0)
    hidden = (share < _LEAST_LEFT).any(-1)
    left[hidden] = np.eye(len(told))
    flux = np.linalg.solve(left, score.transpose(1, 2, 0)[..., None])[..., 0]
    gains = np.einsum("ayx,yxa->yx", score, flux)
    shines = (flux * np.sqrt(told.transpose(1, 2, 0))).sum(-1) > 0
    return np.where(hidden | ~shines, 0.0, gains), len(told)


def gain(before: BlendFit, after: BlendFit, levels: Sequence[float], structure: float) -> float:
    """By how much chi-square falls from one fit to another, with ``structure`` times the model counted as noise.

    Galaxies have arms and knots that no model of theirs has: at high signal-to-noise these would pass for galaxies.
    """
    total = 0.0
    for band, level, old, new in zip(before.blend.bands, levels, before.images, after.images):
        old, new = old.sum(0), new.sum(0)
        variance = band.sigma**2 + (structure * new) ** 2
        squares = (band.data - level - old) ** 2 - (band.data - level - new) ** 2
        total += float((squares / variance)[band.used].sum())
    return total
