"""A generator of deflections that is trained against critics, one a scale (Ledig et al. 2017, 2016arXiv160904802L).

The generator is SRResNet's, its maps the deflection; each critic judges images of one scale: those of low resolution
interpolated or averaged to it, and what the deflection makes of a disc there.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lensdeblend.networks.blocks import Added
from lensdeblend.networks.super_paper import Deflector, finer_maps

__all__ = ["Critics", "LensClassifier", "SrganDeflector"]


class SrganDeflector(Deflector):
    """Tells radial and tangential deflection.

    Parameters
    ----------
    width : int
        Channels.
    blocks : int
        Residual blocks.
    """

    def __init__(self, width: int = 64, blocks: int = 14):
        super().__init__(nn.Sequential(
            nn.Sequential(nn.Conv2d(1, width, 9, padding=4), nn.PReLU()),
            Added(*(Added(*_normal(width), nn.PReLU(), *_normal(width)) for _ in range(blocks)), *_normal(width)),
            finer_maps(width, width, 2, kernel=9),
        ))


class Critics(nn.Module):
    """A critic for each of several scales, the finest first: images (batch, ny, nx) to verdicts (batch,), one a scale.

    Parameters
    ----------
    scales : int
        How many.
    widths : sequence of int
        Channels of each critic's layers, each of half the resolution.
    """

    def __init__(self, scales: int = 3, widths: Sequence[int] = (16, 32, 64)):
        super().__init__()
        self.critics = nn.ModuleList(_judging(widths, 1) for _ in range(scales))

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Judge images of every scale; positive for what looks like data."""
        return [critic(image[:, None])[:, 0] for critic, image in zip(self.critics, images, strict=True)]


class LensClassifier(nn.Module):
    """Tells the three classes of lenses apart on images of low resolution; its ``features`` are for a perceptual loss.

    Parameters
    ----------
    widths : sequence of int
        Channels of the layers, each of half the resolution.
    classes : int
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64), classes: int = 3):
        super().__init__()
        *layers, self.pool, self.flat, self.last = _judging(widths, classes)
        self.layers = nn.Sequential(*layers)

    def features(self, images: Tensor) -> Tensor:
        """Latent maps (batch, channels, h, w) of images (batch, ny, nx)."""
        return self.layers(images[:, None])

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        return self.last(self.flat(self.pool(self.features(images))))


def _judging(widths: Sequence[int], outputs: int) -> nn.Sequential:
    layers = []
    for before, out in zip((1, *widths), widths):
        layers += [nn.Conv2d(before, out, 4, 2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], outputs))


def _normal(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
