"""A regressor that reads the lens off the image, and a U-Net that works where the lens is undone.

The regressor gives the eight lens parameters with their errors. Through them every pixel is traced into the source
plane (`lensdeblend.lensing.delensing.delens`), so that the U-Net sees measurements of the source at the place where the
source is: it has to mend, sharpen and fill, not to learn the lens equation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lensdeblend.lensing.delensing import delens
from lensdeblend.networks.blocks import Attention, ResidualBlock, Upsample
from lensdeblend.networks.unlensing import Seen, Unlensed, standard_deviations

__all__ = ["Unlenser", "brightness_scale", "views"]

_TERMS = 10
_FAINT = 0.1
_FEWEST_NOISE = 1e-3


def brightness_scale(seen: Seen) -> Tensor:
    """Typical brightness (batch,) of the pixels three sigma above zero, weighted by themselves; positive."""
    bright = torch.where(seen.used & (seen.image > 3 * seen.sigma), seen.image, torch.zeros_like(seen.image))
    bright = bright.flatten(1)
    total = bright.sum(1)
    fallback = torch.maximum(seen.sigma.flatten(1).amax(1), seen.image.abs().flatten(1).amax(1)).clamp_min(1e-30)
    return torch.where(total > 0, bright.square().sum(1) / total.clamp_min(1e-30), fallback)


def views(seen: Seen, scale: Tensor) -> Tensor:
    """What the networks see (batch, 4, n, n): brightness, its compressed form, noise, PSF width.

    Masked pixels are dark and as noisy as pixels can be.
    """
    image = torch.where(seen.used, seen.image / scale[:, None, None], torch.zeros_like(seen.image))
    noise = (seen.sigma / scale[:, None, None]).clamp(_FEWEST_NOISE, 1.0)
    noise = torch.where(seen.used, noise, torch.ones_like(noise))
    width = (seen.psf_fwhm / 4)[:, None, None].expand_as(image)
    return torch.stack([image, torch.asinh(image / _FAINT) / 3, 1 + noise.log10() / 3, width], 1)


class Regressor(nn.Module):
    """Residual network on the views: (batch, 4, size, size) to (batch, outputs)."""

    def __init__(self, size: int, width: int, outputs: int, blocks: int = 1):
        super().__init__()
        channels = (width, width, 2 * width, 4 * width)
        layers = [nn.Conv2d(4, width, 5, 2, padding=2, bias=False), nn.BatchNorm2d(width), nn.SiLU()]
        for index, (before, out) in enumerate(zip(channels, channels[1:])):
            layers.append(ResidualBlock(before, out, 1 if index == 0 else 2))
            layers += [ResidualBlock(out, out) for _ in range(blocks if index else blocks - 1)]
        layers += [nn.Conv2d(channels[-1], width, 1), nn.SiLU(), nn.Flatten()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(width * (size // 8) ** 2, 8 * width), nn.SiLU(), nn.Linear(8 * width, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class ResidualUNet(nn.Module):
    """Residual blocks on each level, attention on the deepest: (batch, channels, n, n) to (batch, outputs, n, n)."""

    def __init__(self, channels: int, widths: tuple[int, ...], outputs: int):
        super().__init__()
        before = (channels, *widths[:-1])
        self.down = nn.ModuleList(
            ResidualBlock(a, b, 1 if level == 0 else 2) for level, (a, b) in enumerate(zip(before, widths))
        )
        self.deepest = nn.Sequential(Attention(widths[-1]), ResidualBlock(widths[-1], widths[-1]))
        upward = list(zip(widths[:0:-1], widths[-2::-1]))
        self.grow = nn.ModuleList(Upsample(a, b) for a, b in upward)
        self.up = nn.ModuleList(ResidualBlock(2 * b, b) for _, b in upward)
        self.out = nn.Conv2d(widths[0], outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        x = self.deepest(x)
        for grow, block, skip in zip(self.grow, self.up, skips[-2::-1]):
            x = block(grow(x, skip))
        return self.out(x)


class Unlenser(nn.Module):
    """Regressor, tracing, U-Net.

    Parameters
    ----------
    size : int
        Pixels a side of the images, a multiple of 8.
    width : int
        Channels of the regressor's first level.
    blocks : int
        Its residual blocks a level.
    widths : sequence of int
        Channels of the U-Net's levels.
    finer : int
        How many times smaller the pixels of the source before the PSF are.
    center, spread : sequence of 8 floats
        Mean and standard deviation of the lens parameters over the population, lengths in pixels.
    """

    def __init__(
        self, size: int = 64, width: int = 32, blocks: int = 1, widths=(16, 32, 64, 96), finer: int = 2,
        center=(0.0,) * 8, spread=(1.0,) * 8,
    ):
        super().__init__()
        self.finer = finer
        self.regressor = Regressor(size, width, 16, blocks)
        self.unet = ResidualUNet(4 + 4, tuple(widths), 1 + finer**2)
        self.register_buffer("center", torch.tensor(center, dtype=torch.float32))
        self.register_buffer("spread", standard_deviations(spread))

    def forward(self, seen: Seen) -> Unlensed:
        """Map images to the lens, its errors and the source behind that lens."""
        scale = brightness_scale(seen)
        standard, log_spread, parameters = self.read(seen, scale)
        return Unlensed(parameters, standard, log_spread, *self.draw(seen, parameters.detach(), scale))

    def read(self, seen: Seen, scale: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Lens parameters in units of the population, the logarithm of their errors, and the parameters in pixels."""
        out = self.regressor(views(seen, brightness_scale(seen) if scale is None else scale)).float()
        standard, log_spread = out[:, :8], out[:, 8:].clamp(-8, 2)
        return standard, log_spread, self.center + self.spread * standard

    def draw(self, seen: Seen, lens: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The source through the PSF and before it, behind the lens (batch, 8)."""
        scale = brightness_scale(seen) if scale is None else scale
        image = views(seen, scale)
        with torch.autocast(image.device.type, enabled=False), torch.no_grad():
            mean, scatter, weight = delens(image[:, 0], _bounded(lens), terms=_TERMS)
        traced = torch.stack([mean, torch.asinh(mean / _FAINT) / 3, scatter, torch.log1p(weight)], 1)
        out = self.unet(torch.cat([traced, image], 1)).float()
        sharp = nn.functional.interpolate(mean[:, None], scale_factor=self.finer, mode="bilinear", align_corners=False)
        source = (sharp + nn.functional.pixel_shuffle(out[:, 1:], self.finer))[:, 0]
        return (mean + out[:, 0]) * scale[:, None, None], source * scale[:, None, None]


def _bounded(lens: Tensor) -> Tensor:
    """A guess of an untrained network is no lens: keep the slope and the ellipticity where the deflection is finite."""
    theta_E, gamma, e1, e2, *rest = lens.unbind(1)
    kept = theta_E.clamp_min(0.01), gamma.clamp(1.1, 2.9), e1.clamp(-0.6, 0.6), e2.clamp(-0.6, 0.6)
    return torch.stack([*kept, *rest], 1)
