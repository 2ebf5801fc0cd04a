"""A network that reads lens, clumps of mass and source off the image of a lens; physics draws what follows from them.

Its answer is a convergence and the parameters of a Sérsic source, so that the deflection is the gradient of a potential
and no mass is negative (`lensdeblend.lensing.clumps`). Drawn again by `lensdeblend.lensing.finer_images.FinerLens`, at
any resolution, it can be held against the data themselves: no truth is needed to train it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, pixel_shuffle, softplus

from lensdeblend.networks.blocks import ResidualBlock
from lensdeblend.networks.unlenser import brightness_scale, views
from lensdeblend.networks.unlensing import Seen

__all__ = ["NAMES", "SuperLens", "SuperLensed"]

#: What the network tells of lens and source, lengths in arcsec.
NAMES = (
    "theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2",
    "source_radius", "source_n", "source_e1", "source_e2", "source_x", "source_y",
)
_LENS = 8
# How many spreads from its centre a parameter may be read, so that an untrained network tells of a lens as well.
_FARTHEST = 4.0
# Of the convergence, where the network says 0: a thousandth of what makes a lens.
_FAINT, _DARK = 0.1, -4.0


@dataclass
class SuperLensed:
    """``lens`` (batch, 8), ``source`` (batch, 7) of flux 1, ``clumps`` (batch, cells, cells) of convergence.

    Lengths in arcsec. ``standard`` (batch, 14): the parameters in units of their spreads.
    """

    lens: Tensor
    source: Tensor
    clumps: Tensor
    standard: Tensor


class SuperLens(nn.Module):
    """Residual network with a head for parameters and one for clumps.

    Parameters
    ----------
    size : int
        Pixels a side of the images.
    width : int
        Channels at half the resolution; there are twice and four times as many at a quarter and an eighth.
    cells : int
        Cells of convergence a side; they cover the image.
    hidden : int
        Neurons between features and parameters.
    center, spread : sequences of 14 floats
        Of the parameters, `NAMES`: what the network departs from, and by how much at a time.
    """

    def __init__(
        self, size: int = 64, width: int = 16, cells: int = 32, hidden: int = 256,
        center: Sequence[float] = (1.0, 2.0, *[0.0] * 6, 0.25, 1.0, *[0.0] * 4), spread: Sequence[float] = (0.1,) * 14,
    ):
        super().__init__()
        for name, values in (("center", center), ("spread", spread)):
            values = torch.tensor(values, dtype=torch.float32)
            if values.shape != (len(NAMES),) or (name == "spread" and not bool((values > 0).all())):
                raise ValueError(f"{name} must be {len(NAMES)} numbers, spreads positive; got {values.tolist()}")
            self.register_buffer(name, values)
        self.cells = cells
        self.first = nn.Sequential(
            nn.Conv2d(4, width, 5, 2, padding=2, bias=False), nn.BatchNorm2d(width), nn.SiLU(),
            ResidualBlock(width, width),
        )
        self.quarter = nn.Sequential(ResidualBlock(width, 2 * width, 2), ResidualBlock(2 * width, 2 * width))
        self.eighth = nn.Sequential(ResidualBlock(2 * width, 4 * width, 2), ResidualBlock(4 * width, 4 * width))
        smallest = -(-size // 8)
        self.head = nn.Sequential(
            nn.Conv2d(4 * width, 32, 1), nn.SiLU(), nn.Flatten(), nn.Linear(32 * smallest**2, hidden), nn.SiLU(),
            nn.Linear(hidden, len(NAMES)),
        )
        self.clumps = nn.Sequential(
            nn.Conv2d(6 * width, 2 * width, 3, padding=1), nn.SiLU(), nn.Conv2d(2 * width, 4, 3, padding=1)
        )
        for last in (self.head[-1], self.clumps[-1]):
            nn.init.zeros_(last.bias)
            last.weight.data.mul_(0.1)

    def forward(self, seen: Seen) -> SuperLensed:
        """Map images to what is drawn again."""
        image = views(seen, brightness_scale(seen))
        over = [-side % 8 for side in reversed(image.shape[2:])]
        image = pad(image, (0, over[0], 0, over[1])).contiguous(memory_format=torch.channels_last)
        quarter = self.quarter(self.first(image))
        eighth = self.eighth(quarter)
        standard = _FARTHEST * torch.tanh(self.head(eighth).float() / _FARTHEST)
        found = self.center + self.spread * standard
        wide = interpolate(eighth, quarter.shape[2:], mode="nearest")
        raw = pixel_shuffle(self.clumps(torch.cat([quarter, wide], 1)), 2).float()
        if raw.shape[-1] != self.cells:
            raw = interpolate(raw, (self.cells, self.cells), mode="bilinear", align_corners=False)
        return SuperLensed(*self.parts(found), _FAINT * softplus(raw[:, 0] + _DARK), standard)

    @staticmethod
    def parts(parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (batch, 14) as the lens (batch, 8) and a source of flux 1 (batch, 7)."""
        lens, source = parameters.split((_LENS, len(NAMES) - _LENS), 1)
        return lens, torch.cat([torch.ones_like(source[:, :1]), source], 1)
