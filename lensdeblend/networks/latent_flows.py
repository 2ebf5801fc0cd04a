r"""Flows that turn white noise into latent vectors of galaxies of a kind.

`SplineFlow` has coupling layers of rational-quadratic splines (Durkan et al. 2019arXiv190604032D) and is trained by its
density. `MatchedFlow` follows a velocity through a time from 0 to 1,

.. math::

    \frac{dz}{dt} = v(z, t, k), \qquad z(0) \sim \mathcal{N}(0, 1),

and is trained by flow matching (Lipman et al. 2022arXiv221002747L): on the straight line from noise :math:`z_0` to a
latent vector :math:`z_1`, the velocity is to be :math:`z_1 - z_0`, in the mean over all lines through a place. It
learns latent vectors of many numbers that hang together where coupling layers of the same cost do not.
"""

from __future__ import annotations

import math

import torch
import zuko
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

__all__ = ["MatchedFlow", "SplineFlow"]

_WAVES = 5
_TOLD = 64
_STEPS = 4


class SplineFlow(zuko.flows.NSF):
    """Coupling layers of splines.

    Parameters
    ----------
    latent, kinds : int
        Numbers of a latent vector, and of what is told of its galaxy.
    transforms, hidden, bins : int
        Coupling layers, neurons in each of their two hidden layers, bins of the splines.
    """

    def __init__(self, latent: int, kinds: int, transforms: int, hidden: int, bins: int):
        super().__init__(
            latent, kinds, transforms=transforms, passes=2, hidden_features=(hidden, hidden), bins=bins
        )
        self.noise = 0

    def from_white(self, white: Tensor, kind: Tensor) -> Tensor:
        """White noise to latent vectors, (batch, latent)."""
        return self(kind).transform.inv(white)

    def loss(self, z: Tensor, kind: Tensor, noise: Tensor) -> Tensor:
        """Negative log density, (batch,); no ``noise`` is used."""
        return -self(kind).log_prob(z)


class MatchedFlow(nn.Module):
    """A velocity, learned by flow matching.

    Parameters
    ----------
    latent, kinds : int
        Numbers of a latent vector, and of what is told of its galaxy.
    blocks, hidden : int
        Residual blocks, and neurons of each.

    Attributes
    ----------
    noise : int
        Numbers that `loss` takes a line; 0 of `SplineFlow`.
    """

    def __init__(self, latent: int, kinds: int, blocks: int, hidden: int):
        super().__init__()
        self.latent = latent
        self.noise = latent + 1
        self.told = nn.Sequential(
            nn.Linear(kinds + 1 + 2 * _WAVES, _TOLD), nn.SiLU(), nn.Linear(_TOLD, _TOLD), nn.SiLU()
        )
        self.first, self.last = nn.Linear(latent, hidden), nn.Linear(hidden, latent)
        self.blocks = nn.ModuleList(_Block(hidden, _TOLD) for _ in range(blocks))

    def velocity(self, z: Tensor, time: Tensor, kind: Tensor) -> Tensor:
        """Of places (batch, latent) at times (batch, 1)."""
        waves = time * (math.pi * 2 ** torch.arange(_WAVES, device=z.device, dtype=z.dtype))
        told = self.told(torch.cat([kind, time, waves.sin(), waves.cos()], 1))
        x = self.first(z)
        for block in self.blocks:
            x = block(x, told)
        return self.last(x)

    def from_white(self, white: Tensor, kind: Tensor) -> Tensor:
        """White noise to latent vectors, (batch, latent), by the midpoint rule."""
        z, step = white, 1 / _STEPS
        for number in range(_STEPS):
            time = torch.full_like(z[:, :1], number * step)
            half = z + 0.5 * step * self.velocity(z, time, kind)
            z = z + step * self.velocity(half, time + 0.5 * step, kind)
        return z

    def loss(self, z: Tensor, kind: Tensor, noise: Tensor) -> Tensor:
        """Mean square of what the velocity is off by, a number of the latent vector, (batch,).

        ``noise`` (batch, any multiple of `noise`) is white: where lines begin, and the places along them.
        """
        start, along = noise.unflatten(1, (-1, self.noise)).split((self.latent, 1), 2)
        time = torch.sigmoid(along)
        end = z[:, None].expand_as(start)
        place = torch.lerp(start, end, time)
        kinds = kind[:, None].expand(-1, start.shape[1], -1)
        found = self.velocity(*(part.flatten(0, 1) for part in (place, time, kinds))).unflatten(0, start.shape[:2])
        return (found - (end - start)).square().mean((1, 2))


class _Block(nn.Module):
    def __init__(self, width: int, told: int):
        super().__init__()
        self.inner, self.outer, self.told = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(told, 2 * width)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        gain, shift = self.told(told).chunk(2, 1)
        return x + self.outer(silu(self.inner(layer_norm(x, x.shape[1:]) * (1 + gain) + shift)))
