"""Residual channel-attention networks (Zhang et al. 2018, arXiv:1807.02758), with attention over pixels as well.

Residual blocks in residual groups; in each block channels are weighed by what they are on the average of the image,
then pixels by what their channels are (Qin et al. 2020, arXiv:1911.07559). One tells of the deflection, trained without
truth; the other, trained on pairs, of the finer image itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lensdeblend.lensing.radial_decoder import resized
from lensdeblend.networks.blocks import Added
from lensdeblend.networks.super_paper import Deflector, finer_maps
from lensdeblend.networks.unlenser import brightness_scale, views
from lensdeblend.networks.unlensing import Seen

__all__ = ["RcanDeflector", "RcanImager"]


class _Weighed(nn.Module):
    """Features times shares that are read off their mean over the image, or off each pixel."""

    def __init__(self, channels: int, hidden: int, shares: int, mean: bool):
        super().__init__()
        self.mean = mean
        self.shares = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, shares, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.shares(x.mean((2, 3), keepdim=True) if self.mean else x)


def _block(width: int, reduction: int) -> Added:
    return Added(
        _conv(width), nn.ReLU(), _conv(width), _Weighed(width, max(1, width // reduction), width, mean=True),
        _Weighed(width, max(1, 2 * width // reduction), 1, mean=False),
    )


def _trunk(channels: int, width: int, groups: int, blocks: int, reduction: int, maps: int) -> nn.Sequential:
    """Features (batch, channels, h, w) to maps (batch, maps, 2 h, 2 w)."""
    each = (Added(*(_block(width, reduction) for _ in range(blocks)), _conv(width)) for _ in range(groups))
    first = nn.Conv2d(channels, width, 3, padding=1)
    return nn.Sequential(first, Added(*each, _conv(width)), finer_maps(width, width, maps))


class RcanDeflector(Deflector):
    """Tells radial and tangential deflection.

    Parameters
    ----------
    width : int
        Channels.
    groups, blocks : int
        Residual groups, and blocks in each.
    reduction : int
        How many times fewer channels there are between the two layers of the channel attention.
    """

    def __init__(self, width: int = 64, groups: int = 3, blocks: int = 9, reduction: int = 16):
        super().__init__(_trunk(1, width, groups, blocks, reduction, 2))


class RcanImager(nn.Module):
    """Draws the finer image: what is to be added to an interpolation.

    Brightness is that of the image's own bright pixels, on the way in and out, and flux is kept.

    Parameters
    ----------
    width, groups, blocks, reduction : int
        As of `RcanDeflector`.
    """

    def __init__(self, width: int = 64, groups: int = 3, blocks: int = 9, reduction: int = 16):
        super().__init__()
        self.features = _trunk(4, width, groups, blocks, reduction, 1)
        # Untrained it is the interpolation, all but.
        self.features[-1][-1].weight.data.mul_(0.1)
        nn.init.zeros_(self.features[-1][-1].bias)

    def forward(self, seen: Seen) -> Tensor:
        """Flux per finer pixel: (batch, 2 ny, 2 nx)."""
        scale = brightness_scale(seen)[:, None, None]
        image = torch.where(seen.used, seen.image, torch.zeros_like(seen.image)) / scale
        shape = tuple(2 * n for n in image.shape[1:])
        more = self.features(views(seen, scale[:, 0, 0]))[:, 0].float()
        return (resized(image, shape) + more) * scale / 4


def _conv(width: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, padding=1)
