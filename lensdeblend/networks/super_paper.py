"""The published network of unsupervised super-resolution: a residual CNN that tells how light was deflected.

Its two maps, of numbers from 0 to 1 on pixels half the size, are radial and tangential deflection on the scales of
`lensdeblend.lensing.radial_decoder.RadialDecoder`.

Left open by the description, and chosen here: each residual block is its two convolutions with a ReLU between them,
added to what came in; what skips them all is the output of the first convolution; after it and after the pixel shuffle
there is no further activation.
"""

from __future__ import annotations

from torch import Tensor, nn

from lensdeblend.lensing.radial_decoder import unit_range
from lensdeblend.networks.blocks import Added
from lensdeblend.networks.unlensing import Seen

__all__ = ["Deflector", "PaperDeflector", "finer_maps"]


def finer_maps(channels: int, hidden: int, maps: int, kernel: int = 3) -> nn.Sequential:
    """Features (batch, channels, h, w) to maps on pixels half the size, through ``hidden`` channels shuffled."""
    return nn.Sequential(
        nn.Conv2d(channels, 4 * hidden, 3, padding=1), nn.PixelShuffle(2),
        nn.Conv2d(hidden, maps, kernel, padding=kernel // 2),
    )


class Deflector(nn.Module):
    """``features`` that find radial and tangential deflection in one image scaled by its minimum and maximum.

    Parameters
    ----------
    features : Module
        (batch, 1, h, w) to (batch, 2, 2 h, 2 w).
    """

    def __init__(self, features: nn.Module):
        super().__init__()
        self.features = features
        self.shares = nn.Sequential(nn.BatchNorm2d(2), nn.Sigmoid())

    def forward(self, seen: Seen) -> Tensor:
        """Numbers from 0 to 1: (batch, 2, 2 ny, 2 nx)."""
        return self.shares(self.features(unit_range(seen.image)[:, None])).float()


class PaperDeflector(Deflector):
    """Convolutions of 3, of 3 and 5 in residual blocks, of 9, and of 3 after a pixel shuffle.

    Parameters
    ----------
    width : int
        Channels.
    blocks : int
        Residual blocks.
    """

    def __init__(self, width: int = 64, blocks: int = 3):
        trunk = [Added(_conv(width, width, 3), nn.ReLU(), _conv(width, width, 5)) for _ in range(blocks)]
        super().__init__(nn.Sequential(
            nn.Sequential(_conv(1, width, 3), nn.BatchNorm2d(width), nn.ReLU()),
            Added(*trunk, _conv(width, width, 9)),
            finer_maps(width, width, 2),
        ))


def _conv(channels: int, out: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, padding=kernel // 2)
