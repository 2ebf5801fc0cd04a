r"""Departures that leave a galaxy's Sérsic profile the closest one to it.

A departure :math:`D` may make a galaxy as a whole larger, longer or more concentrated, and move it. A Sérsic profile
fitted to it then differs from the one that :math:`D` departs from. Seen through a PSF :math:`G`, the profile :math:`S`
is the closest in least squares where

.. math::

    \int \left[G * S\, b_k\right] \left[G * S\,(e^{D} - 1)\right] d^2u = 0, \qquad
    b_k = \partial \ln S / \partial \theta_k

for amplitude, place, size, both ellipticities and index. What breaks this is taken off :math:`D` along the
:math:`b_k`, by Newton's steps. The PSF is a Gaussian of a fixed part of the half-light radius: with none, the cusps of
concentrated profiles would outweigh all the rest, which no telescope sees. A galaxy does not depend on who looks at it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from lensdeblend.lensing.sersic import sersic_b
from lensdeblend.lensing.standard_light import squeezed_area, unsqueezed

__all__ = ["centred_on_profile"]

# Half-light radii: nearer to the middle, a profile is taken as flat, as pixels would make it.
_FLAT = 0.1
_FARTHEST = 3.0
_INDEX_STEP = 0.01
# Newton's steps, and the longest.
_ROUNDS, _MOST = 10, 0.5
# Standard deviation of the PSF, half-light radii.
_BLUR = 0.17
# Pixels a side of the frame in which slopes are blurred, and half its width in half-light radii.
_PIXELS, _HALF = 384, 7.5
# Of the indices for which that is done.
_LEAST_INDEX, _GREATEST_INDEX, _INDICES = 0.25, 8.5, 28


def centred_on_profile(n: Tensor, departure: Tensor) -> Tensor:
    """The departures (batch, bands, m, m) less what a profile takes up that is fitted to the first band.

    ``n`` (batch,) are the Sérsic indices. The same is taken off all bands, so colours stay.
    """
    side = departure.shape[-1]
    # How much is to be taken off shows with half of the pixels, in a quarter of the time.
    few = avg_pool2d(departure[:, :1], 2)[:, 0].flatten(1) if side % 2 == 0 else departure[:, 0].flatten(1)
    fewer = side // 2 if side % 2 == 0 else side
    s, t = _frame(fewer, departure)
    slopes, light = _slopes(n, *unsqueezed(s, t))
    weight = light * squeezed_area(s, t) * ((s.square() + t.square()) < 1)
    weighted = (_blurred(n, fewer) * weight[:, None]).transpose(1, 2)
    taken = few.new_zeros(len(few), slopes.shape[1])
    for _ in range(_ROUNDS):
        factor = (few - (taken[:, None] @ slopes)[:, 0]).exp()[:, None]
        score = (factor - 1) @ weighted
        bend = (slopes * factor) @ weighted
        step = torch.linalg.solve(bend, score[:, 0])
        taken = taken + step * (_MOST / step.abs().amax(1, keepdim=True)).clamp_max(1)
    slopes, _ = _slopes(n, *unsqueezed(*_frame(side, departure)))
    return departure - (taken[:, None] @ slopes).unflatten(2, (side, side))


def _blurred(n: Tensor, side: int) -> Tensor:
    """The profile's derivatives through the PSF, and through it once more, at the pixels of `_frame`: (batch, 7,
    points)."""
    table = _blurred_table(side, n.dtype, str(n.device))
    place = (n / _LEAST_INDEX).log() * ((_INDICES - 1) / math.log(_GREATEST_INDEX / _LEAST_INDEX))
    before = place.floor().clamp(0, _INDICES - 2).long()
    share = (place - before).clamp(0, 1)[:, None, None]
    return torch.lerp(table[before], table[before + 1], share)


@lru_cache(maxsize=8)
def _blurred_table(side: int, dtype: torch.dtype, device: str) -> Tensor:
    """Of as many indices, (indices, 7, points)."""
    options = {"dtype": dtype, "device": device}
    step = 2 * _HALF / _PIXELS
    axis = (torch.arange(_PIXELS, **options) + 0.5) * step - _HALF
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    indices = torch.logspace(math.log10(_LEAST_INDEX), math.log10(_GREATEST_INDEX), _INDICES, **options)
    places = torch.stack(unsqueezed(*_frame(side, axis)), -1)[None, None] / _HALF
    along, across = (frequencies(_PIXELS, d=step, **options) for frequencies in (torch.fft.fftfreq, torch.fft.rfftfreq))
    passed = torch.exp(-((2 * math.pi * _BLUR) ** 2) * (along[:, None] ** 2 + across**2))
    rows = []
    for index in indices:
        slopes, light = _slopes(index[None], u.flatten(), v.flatten())
        maps = (slopes * light[:, None]).unflatten(2, (_PIXELS, _PIXELS))
        seen = torch.fft.irfft2(torch.fft.rfft2(maps) * passed, s=(_PIXELS, _PIXELS))
        rows.append(grid_sample(seen, places, padding_mode="border", align_corners=False)[0, :, 0])
    return torch.stack(rows)


def _frame(side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Squeezed coordinates s, t of the pixels, (points,) each."""
    steps = (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) * (2 / side) - 1
    t, s = torch.meshgrid(steps, steps, indexing="ij")
    return s.flatten(), t.flatten()


def _slopes(n: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the profile's logarithm (batch, 7, points), those far out as at the edge of what counts, and the
    profile (batch, points), 1 at one radius."""
    far = torch.sqrt(u * u + v * v + _FLAT**2).expand(len(n), -1)
    r = far.clamp_max(_FARTHEST)
    index, b = n[:, None], sersic_b(n)[:, None]
    exponent = b * r ** (1 / index)
    steeper = index * math.exp(_INDEX_STEP)
    by_index = -(sersic_b(steeper) * (r ** (1 / steeper) - 1) - (exponent - b)) / _INDEX_STEP
    falling = exponent / index
    cos, sin = u / far, v / far
    return torch.stack([
        torch.ones_like(r), falling * cos / r, falling * sin / r, falling, falling * (cos**2 - sin**2),
        falling * 2 * cos * sin, by_index,
    ], 1), torch.exp(b - b * far ** (1 / index))
