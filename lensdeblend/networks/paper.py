"""The published pair of networks: a CNN that reads lens parameters and a U-Net that draws the unlensed galaxy.

Both see the image alone, divided by its maximum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lensdeblend.networks.blocks import Upsample, conv_block, steady_norm
from lensdeblend.networks.unlensing import Seen, Unlensed, standard_deviations

__all__ = ["PaperUnlenser"]

_LEVELS = (16, 32, 64, 128, 256)


class PaperRegressor(nn.Module):
    """Three blocks convolution - max pool - batch norm - ReLU, then 64 and 8: (batch, 1, n, n) to (batch, 8)."""

    def __init__(self, size: int):
        super().__init__()
        layers, channels = [], 1
        for out in (32, 64, 64):
            layers += [
                nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.MaxPool2d(2), steady_norm(out), nn.ReLU(),
            ]
            channels = out
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * (size // 8) ** 2, 64), nn.ReLU(), nn.Linear(64, 8)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))


class PaperUNet(nn.Module):
    """Five levels of 16 to 256 channels, pairs of convolutions, three at the third level.

    (batch, 1, n, n) to (batch, 1, n, n), n a multiple of 16.
    """

    def __init__(self):
        super().__init__()
        counts = (2, 2, 3, 2, 2)
        self.down = nn.ModuleList(
            conv_block(before, out, count) for before, out, count in zip((1, *_LEVELS), _LEVELS, counts)
        )
        upward = list(zip(_LEVELS[:0:-1], _LEVELS[-2::-1], counts[-2::-1]))
        self.grow = nn.ModuleList(Upsample(before, out) for before, out, _ in upward)
        self.up = nn.ModuleList(conv_block(2 * out, out, count) for _, out, count in upward)
        self.out = nn.Sequential(nn.Conv2d(_LEVELS[0], 1, 1), steady_norm(1))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x if not skips else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for grow, block, skip in zip(self.grow, self.up, skips[-2::-1]):
            x = block(grow(x, skip))
        return self.out(x)


class PaperUnlenser(nn.Module):
    """CNN and U-Net side by side.

    In evaluation the drawn galaxy is nowhere negative and nowhere brighter than the lensed image: lensing keeps surface
    brightness, and the PSF dims the smaller galaxy more. Batch normalisation with its running statistics is unstable
    on images unlike the average, and without these bounds draws a few in a hundred a hundred times too bright.

    Parameters
    ----------
    size : int
        Pixels a side of the images.
    center, spread : sequence of 8 floats
        Mean and standard deviation of the lens parameters over the population, lengths in pixels: what the CNN's
        outputs of 0 and 1 mean.
    """

    def __init__(self, size: int = 64, center=(0.0,) * 8, spread=(1.0,) * 8):
        super().__init__()
        self.regressor = PaperRegressor(size)
        self.unet = PaperUNet()
        self.register_buffer("center", torch.tensor(center, dtype=torch.float32))
        self.register_buffer("spread", standard_deviations(spread))

    def forward(self, seen: Seen) -> Unlensed:
        """Map images to lens parameters and the unlensed galaxy; the CNN gives no errors, the U-Net no sharp source."""
        scale = seen.image.flatten(1).amax(1).clamp_min(1e-30)
        image = (seen.image / scale[:, None, None])[:, None]
        standard, unlensed = self.regressor(image), self.unet(image)[:, 0].float()
        if not self.training:
            unlensed = unlensed.clamp(0, 1)
        return Unlensed(
            parameters=self.center + self.spread * standard.float(), standard=standard.float(), log_spread=None,
            unlensed=unlensed * scale[:, None, None], source=None,
        )
