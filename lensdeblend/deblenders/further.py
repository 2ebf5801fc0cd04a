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
from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import fftconvolve
from scipy.stats import chi2, norm

from lensdeblend.deblenders.detection import peaks
from lensdeblend.deblenders.fitting import BlendFit, covariance_of

__all__ = ["further_places", "star_gains"]

# Of a star's information, what the galaxies must leave for it to be told from them.
_LEAST_LEFT = 0.02
_APART = 2
# Numbers that are held of a block of rows, for each band.
_AT_ONCE = 2**22


def further_places(fit: BlendFit, threshold: float) -> np.ndarray:
    """(n, 2) pixels of the first band where a star is as significant as ``threshold`` says, the best first."""
    gains, bands = star_gains(fit)
    least = chi2.isf(norm.sf(threshold), bands) if bands else np.inf
    return peaks(gains, least, _APART)


def star_gains(fit: BlendFit, *, rows: int | None = None) -> tuple[np.ndarray, int]:
    """What a star at each pixel of the first band is worth in chi-square, by the bands on these pixels, and how many
    they are.

    It works on so many ``rows`` of pixels at once; left out, on all of a small blend and few of one of many galaxies.
    """
    blend, covariance, bands = fit.blend, covariance_of(fit.solution), _aligned(fit)
    ny, nx = blend.shape
    rows = rows or max(_AT_ONCE // (nx * len(covariance)), max((len(band.kernel) for band in bands), default=1))
    gains = np.zeros(blend.shape)
    for start in range(0, ny if bands else 0, rows):
        block = slice(start, min(start + rows, ny))
        gains[block] = _gains(bands, covariance, block)
    return gains, len(bands)


@dataclass(frozen=True)
class _Aligned:
    """A band on the pixels of the first one: of a star at each, the product with the residual (``score``) and with
    itself (``told``), (ny, nx); ``slopes`` (own, ny, nx), the derivatives of the model that are not zero, by the
    numbers ``columns`` of all."""

    score: np.ndarray
    told: np.ndarray
    slopes: Sequence[torch.Tensor]
    columns: np.ndarray
    inverse: np.ndarray
    kernel: np.ndarray

    def crossed(self, block: slice) -> np.ndarray:
        """Products of the stars in a block of rows with ``slopes``, (own, rows, nx)."""
        reach = len(self.kernel) // 2
        first, last = max(block.start - reach, 0), block.stop + reach
        slopes = np.concatenate([part[:, first:last].cpu().double().numpy() for part in self.slopes])
        slopes *= self.inverse[first:last]
        wide = fftconvolve(slopes, self.kernel[None], mode="same", axes=(1, 2))
        return wide[:, block.start - first:block.stop - first]


def _aligned(fit: BlendFit) -> list[_Aligned]:
    problem, found, blend = fit.problem, fit.solution, fit.blend
    size, count, bands = found.parameters.shape[1], len(fit.layout.galaxy), []
    for grid, drawn in zip(problem.grids, problem.rendered(found.parameters)):
        amplitudes = found.amplitudes.unflatten(1, (problem.bands, -1))[:, list(grid.numbers)]
        for place, number in enumerate(grid.numbers):
            band = blend.bands[number]
            if not band.aligned or band.data.shape != blend.shape:
                continue
            basis, own = drawn.basis[0, place], amplitudes[:, [place]]
            residual = grid.data[0, place] - (own[0, 0, :, None, None] * basis).sum(0)
            inverse = grid.weight[0, place].cpu().double().numpy() ** 2
            kernel = (np.ones((1, 1)) if band.psf is None else band.psf)[::-1, ::-1]
            bands.append(_Aligned(
                fftconvolve(residual.cpu().double().numpy() * inverse, kernel, mode="same"),
                fftconvolve(inverse, kernel**2, mode="same").clip(1e-12),
                (drawn.band(place).derivatives(own)[0, 0], basis),
                np.concatenate([np.arange(size), size + number * count + np.arange(count)]), inverse, kernel,
            ))
    return bands


def _gains(bands: Sequence[_Aligned], covariance: np.ndarray, block: slice) -> np.ndarray:
    """Of a block of rows."""
    score, told = (np.array([getattr(band, part)[block] for band in bands]) for part in ("score", "told"))
    crossed = [band.crossed(block) for band in bands]
    taken = np.empty((*score.shape[1:], len(bands), len(bands)))
    for a, one in enumerate(bands):
        for b, other in enumerate(bands[:a + 1]):
            through = np.tensordot(covariance[np.ix_(other.columns, one.columns)], crossed[a], 1)
            taken[..., a, b] = taken[..., b, a] = np.einsum("pyx,pyx->yx", crossed[b], through)
    left = np.einsum("ayx,ab->yxab", told, np.eye(len(told))) - taken
    share = np.einsum("yxaa->yxa", left) / told.transpose(1, 2, 0)
    hidden = (share < _LEAST_LEFT).any(-1)
    left[hidden] = np.eye(len(told))
    flux = np.linalg.solve(left, score.transpose(1, 2, 0)[..., None])[..., 0]
    gains = np.einsum("ayx,yxa->yx", score, flux)
    shines = (flux * np.sqrt(told.transpose(1, 2, 0))).sum(-1) > 0
    return np.where(hidden | ~shines, 0.0, gains)
