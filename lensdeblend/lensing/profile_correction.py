r"""The factor that makes a given Sérsic profile the closest one to a galaxy that is composed of parts.

A galaxy :math:`P(u)` in the frame where the profile :math:`S_n` is round and of half-light radius 1 is multiplied by

.. math::

    e^{-\sum_k a_k b_k(u)}, \qquad b_k = \partial \ln S_n / \partial \theta_k

for amplitude, place, size, both ellipticities and index, with the :math:`a_k` for which no small change of any of the
:math:`\theta_k` brings :math:`S_n` closer in least squares:

.. math::

    \int S_n\, b_k \left(P e^{-\sum_j a_j b_j} - S_n\right) d^2u = 0 .

This is `lensdeblend.lensing.closest_profile` for light that is known at points instead of a departure on squeezed
coordinates, so that what is sharp stays so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lensdeblend.lensing.sersic import sersic, sersic_b

__all__ = ["CORE", "ProfileFrame", "profile_frame"]

# Half-light radii: nearer to the middle, slopes are flat; farther out, and where the profile has fallen by so many
# powers of e, they are what they are there.
_FLAT, _FARTHEST, _FALLEN = 0.1, 3.0, 3.0
#: Within this radius light counts as a whole, as it would in a pixel.
CORE = 0.12
_SLOPE_STEP = 1e-3
_ROUNDS, _MOST, _CLOSE, _RIDGE = 12, 1.0, 0.02, 1e-9


@dataclass(frozen=True)
class ProfileFrame:
    """Slopes of the logarithm of Sérsic profiles (batch,) at points of the frame in which they are round.

    ``cos``, ``sin``: of the direction. ``falling``: by the logarithm of the size. ``nearer``: ``falling`` over the
    radius. ``by_index``: by the logarithm of the index. All (batch, points).
    """

    cos: Tensor
    sin: Tensor
    falling: Tensor
    nearer: Tensor
    by_index: Tensor

    def log_factor(self, coefficients: Tensor) -> Tensor:
        """Logarithm of what a galaxy is multiplied by, (batch, points), for ``coefficients`` (batch, 7)."""
        level, along, across, size, plus, cross, index = (-coefficients).unsqueeze(-1).unbind(1)
        place = torch.addcmul(along * self.cos, across, self.sin)
        # plus (cos² - sin²) + 2 cross cos sin
        shape = torch.addcmul(size, self.cos, torch.addcmul(plus * self.cos, 2 * cross, self.sin))
        shape = shape.addcmul_(plus * self.sin, self.sin, value=-1)
        total = torch.addcmul(level, index, self.by_index)
        return total.addcmul_(self.falling, shape).addcmul_(self.nearer, place)

    def coefficients(self, n: Tensor, u: Tensor, v: Tensor, light: Tensor, area: Tensor, core: int) -> Tensor:
        """The coefficients (batch, 7) that leave the profile of index ``n`` (batch,) the closest to the ``light``.

        Parameters
        ----------
        n : Tensor
        u, v : Tensor
            (batch, points), where the slopes are.
        light : Tensor
            (batch, points), the flux that each point stands for.
        area : Tensor
            (points,), what part of the frame it stands for: 0 for what is compact.
        core : int
            So many points, the first ones, make up the circle of radius `CORE`.
        """
        profile = _profile(n, u, v, (area == 0) * CORE)
        slopes = torch.stack([
            torch.ones_like(self.cos), self.nearer * self.cos, self.nearer * self.sin, self.falling,
            self.falling * (self.cos.square() - self.sin.square()), 2 * self.falling * self.cos * self.sin,
            self.by_index,
        ], 1).double()
        tested = slopes * profile[:, None]
        # Light in the core counts as a whole, as it would in a pixel.
        tested[:, :, :core] = (tested[:, :, :core] @ area[:core].double() / area[:core].sum())[..., None]
        aim = (tested @ (profile * area).double()[..., None])[..., 0]
        return _newton(slopes, tested, light.double(), aim).to(self.cos.dtype)


def _newton(slopes: Tensor, tested: Tensor, light: Tensor, aim: Tensor) -> Tensor:
    found, going = torch.zeros_like(aim), torch.arange(len(aim), device=aim.device)
    flipped, ridge = slopes.transpose(1, 2).contiguous(), _RIDGE * torch.eye(aim.shape[1]).to(aim)
    for _ in range(_ROUNDS):
        weighted = tested * (light * (-(found[going, None] @ slopes)[:, 0]).exp())[:, None]
        bend = weighted @ flipped
        bend = bend + ridge * bend.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
        step = torch.linalg.solve(bend, weighted.sum(-1) - aim)
        most = step.abs().amax(1)
        found[going] += step * (_MOST / most).clamp_max(1)[:, None]
        left = most > _CLOSE
        if not bool(left.any()):
            break
        if bool(left.sum() <= len(left) // 2):
            going, slopes, flipped, tested, light, aim = (
                part[left] for part in (going, slopes, flipped, tested, light, aim)
            )
    return found


def profile_frame(n: Tensor, u: Tensor, v: Tensor) -> ProfileFrame:
    """Slopes of the profiles of index ``n`` (batch,) at ``u``, ``v`` (batch, points)."""
    r2 = torch.addcmul(u * u, v, v).add_(_FLAT**2)
    inverse = r2.rsqrt()
    index, b = n[:, None], sersic_b(n)[:, None]
    near = torch.minimum(r2, (1 + _FALLEN / b) ** (2 * index)).clamp_max(_FARTHEST**2)
    slope = (sersic_b(index * math.exp(_SLOPE_STEP)) - b) / _SLOPE_STEP
    log_r2 = near.log()
    power = (log_r2 * (0.5 / index)).exp_()
    falling = (b / index) * power
    by_index = torch.addcmul(slope, slope, power, value=-1).addcmul_(falling, log_r2, value=0.5)
    return ProfileFrame(u * inverse, v * inverse, falling, falling * near.rsqrt_(), by_index)


def _profile(n: Tensor, u: Tensor, v: Tensor, nearest: Tensor) -> Tensor:
    one, zero = torch.ones_like(n)[:, None], torch.zeros_like(n)[:, None]
    r = torch.maximum(torch.sqrt(u * u + v * v), nearest)
    return sersic(r, zero, one, n[:, None], zero, zero, zero, zero)
