r"""Departures that leave a galaxy's Sérsic profile the closest one to it.

A departure :math:`D` may make a galaxy as a whole larger, longer or more concentrated, and move it. A Sérsic profile
fitted to it then differs from the one that :math:`D` departs from. The profile :math:`S` is the closest in least
squares where

.. math::

    \int S^2\, b_k \,(e^{D} - 1)\, d^2u = 0, \qquad b_k = \partial \ln S / \partial \theta_k

for amplitude, place, size, both ellipticities and index. What breaks this is taken off :math:`D` along the
:math:`b_k`, by Newton's steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lensdeblend.lensing.sersic import sersic_b
from lensdeblend.lensing.standard_light import squeezed_area, unsqueezed

__all__ = ["centred_on_profile"]

# Half-light radii: nearer to the middle, a profile is taken as flat, as pixels would make it.
_FLAT = 0.1
_FARTHEST = 3.0
_INDEX_STEP = 0.01
_MOST = 0.5
_ROUNDS = 4


def centred_on_profile(n: Tensor, departure: Tensor) -> Tensor:
    """The departures (batch, bands, m, m) less what a profile takes up that is fitted to the first band.

    ``n`` (batch,) are the Sérsic indices. The same is taken off all bands, so colours stay.
    """
    side = departure.shape[-1]
    # How much is to be taken off shows with half of the pixels, in a quarter of the time.
    few = avg_pool2d(departure[:, :1], 2)[:, 0].flatten(1) if side % 2 == 0 else departure[:, 0].flatten(1)
    s, t = _frame(side // 2 if side % 2 == 0 else side, departure)
    slopes, light = _slopes(n, *unsqueezed(s, t))
    weight = light.square() * squeezed_area(s, t) * ((s.square() + t.square()) < 1)
    weighted = (slopes * weight[:, None]).transpose(1, 2)
    taken = few.new_zeros(len(few), slopes.shape[1])
    for _ in range(_ROUNDS):
        factor = (few - (taken[:, None] @ slopes)[:, 0]).exp()[:, None]
        score = (factor - 1) @ weighted
        bend = (slopes * factor) @ weighted
        taken = taken + torch.linalg.solve(bend, score[:, 0]).clamp(-_MOST, _MOST)
    slopes, _ = _slopes(n, *unsqueezed(*_frame(side, departure)))
    return departure - (taken[:, None] @ slopes).unflatten(2, (side, side))


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
