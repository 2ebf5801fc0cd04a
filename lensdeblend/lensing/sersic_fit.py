"""Sérsic profiles fitted to many images of one galaxy each, all at once: what their sizes, shapes and indices are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.least_squares import Fit, Linearisation, levenberg_marquardt
from lensdeblend.lensing.standard_light import placed, standard_light

__all__ = ["SersicShapes", "fit_sersics"]

_FLATTEST = 0.85
_LOWEST_N, _HIGHEST_N = 0.3, 8.0
_SMALLEST = 0.3
_STEPS = (1e-2, 1e-2, 1e-2, 5e-3, 5e-3, 1e-2)
_STARTS_AT_ONCE = 64
_ITERATIONS, _TOLERANCE = 30, 0.02
# Of the brightest pixel, where no noise is given.
_SIGNIFICANCE = 50


class SersicShapes:
    """Columns ``x``, ``y`` (from the centre of the first pixel), ``radius``, ``e1``, ``e2``, ``n``, ``flux``, (batch,)
    each, and whether the fits ``converged``."""

    def __init__(self, parameters: Tensor, flux: Tensor, converged: Tensor):
        self.x, self.y, log_radius, self.e1, self.e2, log_n = parameters.unbind(1)
        self.radius, self.n, self.flux, self.converged = log_radius.exp(), log_n.exp(), flux, converged


def fit_sersics(images: Tensor, weight: Tensor | None = None, *, psf: Tensor | None = None) -> SersicShapes:
    """Fit each image by a Sérsic profile through its PSF, in least squares.

    Parameters
    ----------
    images : Tensor
        (batch, ny, nx), a galaxy near the middle of each.
    weight : Tensor, optional
        Likewise, one over the noise, 0 where masked; left out, all pixels count alike.
    psf : Tensor, optional
        (batch, ky, kx), odd sizes, sums of 1.
    """
    peaks = images.flatten(1).amax(1).clamp_min(1e-30)
    weight = (_SIGNIFICANCE / peaks)[:, None, None].expand_as(images) if weight is None else weight
    parts = []
    for start in range(0, len(images), _STARTS_AT_ONCE):
        some = slice(start, start + _STARTS_AT_ONCE)
        parts.append(_fitted(images[some], weight[some], None if psf is None else psf[some]))
    return SersicShapes(*(torch.cat([part[i] for part in parts]) for i in range(3)))


def _fitted(images: Tensor, weight: Tensor, psf: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    (ny, nx), steps = images.shape[1:], images.new_tensor(_STEPS)
    blur = None if psf is None else Convolution(psf, (ny, nx))

    def drawn(parameters: Tensor) -> Tensor:
        x, y, log_radius, e1, e2, log_n = parameters.unbind(1)
        shrunk = (_FLATTEST / torch.hypot(e1, e2).clamp_min(1e-9)).clamp(max=1)
        place = placed(torch.stack([x, y], 1), log_radius.exp(), e1 * shrunk, e2 * shrunk)
        found = standard_light(place, log_n.exp(), None, (ny, nx))[0][:, 0]
        found = found if blur is None else blur(found)
        return (found * weight).flatten(1)

    def linearise(parameters: Tensor, with_slopes: bool) -> Linearisation:
        here = drawn(parameters)
        there = torch.stack([
            (drawn(parameters + step) - here) / step.max() for step in torch.diag(steps)
        ], 1)
        none = torch.zeros(len(steps), dtype=torch.long, device=images.device)
        return Linearisation(here[:, None], there, none, torch.arange(len(steps), device=images.device))

    start = _moments(images * (weight > 0))
    lower = images.new_tensor([0, 0, math.log(_SMALLEST), -_FLATTEST, -_FLATTEST, math.log(_LOWEST_N)])
    upper = images.new_tensor([nx - 1, ny - 1, math.log(max(ny, nx)), _FLATTEST, _FLATTEST, math.log(_HIGHEST_N)])
    fit: Fit = levenberg_marquardt(
        linearise, (images * weight).flatten(1), start, lower, upper, iterations=_ITERATIONS, tolerance=_TOLERANCE,
    )
    return fit.parameters, fit.amplitudes[:, 0], fit.converged


def _moments(images: Tensor) -> Tensor:
    """Where a fit begins: centre, size and shape by moments about the middle."""
    ny, nx = images.shape[1:]
    y, x = (
        steps.to(images) for steps in torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
    )
    window = torch.exp(-0.5 * ((x - (nx - 1) / 2) ** 2 + (y - (ny - 1) / 2) ** 2) / (0.25 * min(ny, nx)) ** 2)
    light = images.clamp_min(0) * window
    light = light / light.sum((1, 2), keepdim=True).clamp_min(1e-30)
    mean = [(light * k).sum((1, 2)) for k in (x, y)]
    dx, dy = (k - m[:, None, None] for k, m in zip((x, y), mean))
    xx, yy, xy = ((light * k).sum((1, 2)) for k in (dx * dx, dy * dy, dx * dy))
    size = (xx + yy).clamp_min(0.2)
    shape = [(0.4 * k / size).clamp(-0.5, 0.5) for k in (xx - yy, 2 * xy)]
    return torch.stack([*mean, 0.5 * (0.35 * size).log(), *shape, torch.zeros_like(size)], 1)
