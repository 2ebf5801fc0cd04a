"""Images of single galaxies: turned, mirrored, magnified, seen through a PSF, with noise, masks and missing bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.networks.galaxies import GalaxyImages
from lensdeblend.scenes.populations import Distribution, LogUniform, Uniform
from lensdeblend.training.galaxy_library import GalaxyLibrary
from lensdeblend.training.moffat import MOFFAT_BETA, moffats

__all__ = ["BORDER", "PRIORS", "DrawnGalaxies", "GalaxyDraws"]

#: Half-light radius and width of the PSF in pixels; signal to noise of the whole galaxy in a band, by its own light.
PRIORS: dict[str, Distribution] = {
    "radius": LogUniform(2.0, 10.0), "psf_fwhm": Uniform(1.5, 4.0), "snr": LogUniform(20.0, 1000.0),
}
#: Pixels on each side of the image that a PSF may reach over.
BORDER = 8
_POINTS = 2
_SHIFT = 1.0
_MISSING, _MASKED = 0.15, 0.01


@dataclass(frozen=True)
class DrawnGalaxies:
    """What is seen, and the same without noise, (batch, bands, n, n)."""

    seen: GalaxyImages
    clean: Tensor


class GalaxyDraws:
    """Draws galaxies of a library.

    Parameters
    ----------
    galaxies : GalaxyLibrary
    priors : mapping of str to Distribution
        As `PRIORS`.
    pixels : int
        A side of the images.
    """

    def __init__(self, galaxies: GalaxyLibrary, priors: Mapping[str, Distribution] = PRIORS, *, pixels: int = 64):
        missing = [name for name in PRIORS if name not in priors]
        if missing:
            raise ValueError(f"images of galaxies need priors on {', '.join(missing)}")
        self.galaxies, self.priors, self.pixels = galaxies, priors, pixels

    def draw(self, count: int, seed: int | tuple[int, ...], device: str | torch.device = "cpu") -> DrawnGalaxies:
        """``count`` images; the same seed gives the same. Noise is 1 a pixel where data are good."""
        rng, bands = np.random.default_rng(seed), self.galaxies.bands
        chosen = torch.as_tensor(np.searchsorted(np.cumsum(self.galaxies.weights.numpy()), rng.random(count)))
        chosen = chosen.clamp(max=len(self.galaxies) - 1)

        def tensor(values) -> Tensor:
            return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=device)

        radius = tensor(self.priors["radius"].draw(rng, count))
        magnified = radius / self.galaxies.radius[chosen].to(device)
        angle, mirror = tensor(rng.uniform(0, 2 * np.pi, count)), tensor(rng.choice([-1.0, 1.0], count))
        place = (self.pixels - 1) / 2 + tensor(rng.uniform(-_SHIFT, _SHIFT, (count, 2)))
        light = self.light(chosen, magnified, angle, mirror, place)
        fwhm = np.asarray(self.priors["psf_fwhm"].draw(rng, count), float)
        widths = fwhm[:, None] * rng.uniform(0.9, 1.1, (count, bands))
        psf = moffats(widths, rng.uniform(*MOFFAT_BETA, count)[:, None], device)
        shape = self.pixels, self.pixels
        clean = Convolution(psf, shape, BORDER)(light)
        snr = tensor(self.priors["snr"].draw(rng, count))
        scale = snr / clean.mean(1).square().sum((1, 2)).sqrt().clamp_min(1e-30)
        noise = tensor(rng.uniform(0.7, 1.4, (count, bands)))[:, :, None, None]
        clean = clean * scale[:, None, None, None] / noise
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        data = clean + torch.randn(clean.shape, generator=generator, device=device)
        used = torch.rand(clean.shape, generator=generator, device=device) > _MASKED
        if bands > 1:
            gone = np.where(rng.random(count) < _MISSING, rng.integers(bands, size=count), -1)
            used &= torch.as_tensor(np.arange(bands) != gone[:, None], device=device)[:, :, None, None]
        e1, e2 = (getattr(self.galaxies, name)[chosen].to(device) for name in ("e1", "e2"))
        cos, sin = torch.cos(2 * angle), torch.sin(2 * angle)
        e2 = mirror * e2
        seen = GalaxyImages(
            torch.where(used, data, 0.0), used.float(), psf, place, radius, cos * e1 - sin * e2, sin * e1 + cos * e2,
            self.galaxies.n[chosen].to(device), self.galaxies.colours[chosen].to(device),
        )
        return DrawnGalaxies(seen, clean)

    def light(self, chosen: Tensor, magnified: Tensor, angle: Tensor, mirror: Tensor, place: Tensor) -> Tensor:
        """Galaxies before the PSF, (batch, bands, m, m) on the frame with a border of `BORDER` pixels.

        Parameters
        ----------
        chosen, magnified, angle, mirror : Tensor
            (batch,): which galaxy of the library, pixels of the image a pixel of its stamp, radians, and 1 or -1.
        place : Tensor
            (batch, 2): x, y of the centre, from the centre of the first pixel within the border.
        """
        side, device = self.pixels + 2 * BORDER, place.device
        steps = (torch.arange(side * _POINTS, device=device) + 0.5) / _POINTS - 0.5 - BORDER
        dx, dy = steps[None, None] - place[:, :1, None], steps[None, :, None] - place[:, 1:, None]
        cos, sin = (part[:, None, None] for part in (torch.cos(angle), torch.sin(angle)))
        u = mirror[:, None, None] * (cos * dx + sin * dy) / magnified[:, None, None]
        v = (cos * dy - sin * dx) / magnified[:, None, None]
        center = self.galaxies.center[chosen].to(device)
        stamps = self.galaxies.stamps[chosen].to(device)
        half = stamps.shape[-1] / 2
        grid = torch.stack([(u + center[:, 0, None, None]) / half, (v + center[:, 1, None, None]) / half], -1)
        light = avg_pool2d(grid_sample(stamps, grid, align_corners=False), _POINTS)
        return light / magnified[:, None, None, None] ** 2

    def kinds(self) -> Tensor:
        """`GalaxyImages.kind` of the population, (many, 2 + bands)."""
        return self.draw(2048, (0, 0)).seen.kind
