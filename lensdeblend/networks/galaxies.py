r"""A variational auto-encoder of what makes a galaxy more than a Sérsic profile, and a flow on its latent space.

The decoder gives departures :math:`D(u; z)` in the standard frame (`lensdeblend.lensing.standard_light`), so that
flux, size and shape are physics' own and the network has the arms, bars, knots, and what colours do within a galaxy.
It draws the galaxy before the PSF; trained is the evidence's lower bound under the Gaussian likelihood of the pixels,

.. math::

    \sum_b \sum_p \frac{\big(d_{bp} - a_b\,[P_b \otimes I_b(z)]_p\big)^2}{2\sigma_{bp}^2} + \mathrm{KL}\big(q(z|d)\,\|\,
    \mathcal{N}(0, 1)\big),

each image with its own PSF, noise and mask, the amplitudes :math:`a_b` solved for (Kingma & Welling 2013,
arXiv:1312.6114; Lanusse et al. 2021MNRAS.504.5543L for the PSF within the likelihood). A flow
(`lensdeblend.networks.latent_flows`) learns what latent vectors galaxies of a Sérsic index, ellipticity and colour
have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate, pixel_shuffle

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.standard_light import Placed, placed, standard_light, unsqueezed
from lensdeblend.networks.blocks import ResidualBlock
from lensdeblend.networks.latent_flows import MatchedFlow, SplineFlow

__all__ = ["GalaxyAutoencoder", "GalaxyImages"]

_SIDE = 64
_CELLS = 8
# Departures stay within this much of a factor's logarithm, of either sign.
_STRONGEST = 3.5
# Of the profile, what a departure of one unit is to the encoder.
_UNIT = 0.15
_BORDER = 8
# Through each latent vector in a step of the training, where the flow is a matched one.
_LINES = 8


@dataclass(frozen=True)
class GalaxyImages:
    """Images of one galaxy each, whose profiles are known.

    ``data``, ``weight`` (batch, bands, ny, nx): one over the noise, 0 where masked or missing. ``psf`` (batch, bands,
    ky, kx): odd sizes. ``center`` (batch, 2), ``radius``, ``e1``, ``e2``, ``n`` (batch,): the Sérsic profile, pixels.
    ``colours`` (batch, bands - 1): magnitudes of each band less those of the next.
    """

    data: Tensor
    weight: Tensor
    psf: Tensor
    center: Tensor
    radius: Tensor
    e1: Tensor
    e2: Tensor
    n: Tensor
    colours: Tensor

    @property
    def kind(self) -> Tensor:
        """What the flow is told: (batch, 3 + bands - 1)."""
        return torch.cat([torch.stack([self.n.log(), self.e1, self.e2], 1), self.colours], 1)

    @property
    def place(self) -> Placed:
        return placed(self.center, self.radius, self.e1, self.e2)

    def drawn(self, departure: Tensor | None = None) -> Tensor:
        """Galaxies of these profiles and departures (batch, bands, m, m), of flux 1, through their PSFs."""
        shape = tuple(self.data.shape[-2:])
        wide = standard_light(
            replace(self.place, center=self.center + _BORDER), self.n, departure,
            tuple(side + 2 * _BORDER for side in shape),
        )[0]
        return Convolution(self.psf, shape, _BORDER)(wide)

    def amplitudes(self, drawn: Tensor) -> Tensor:
        """Of what is ``drawn``, those that come closest to the data, (batch, bands); 0 where a band is missing."""
        weighted = drawn * self.weight
        square = weighted.square().sum((2, 3))
        return ((self.data * self.weight * weighted).sum((2, 3)) / square.clamp_min(1e-30)).clamp_min(0)

    def chi_square(self, drawn: Tensor) -> Tensor:
        """Of each galaxy, (batch,)."""
        model = self.amplitudes(drawn)[:, :, None, None] * drawn
        return ((self.data - model) * self.weight).square().sum((1, 2, 3))


class GalaxyAutoencoder(nn.Module):
    """Encoder, decoder and flow.

    Parameters
    ----------
    bands : int
    latent : int
        Numbers of a latent vector.
    mapped : bool
        Whether the latent vector is a map of 8 by 8 cells of the squeezed frame, ``latent`` a multiple of 64, so that
        each number tells of one place; otherwise each tells of the whole galaxy.
    widths : sequence of four ints
        Channels of the maps of 4, 8, 16 and 32 pixels a side.
    flow : {"spline", "matched"}
        Which of `lensdeblend.networks.latent_flows`.
    transforms, hidden, bins : int
        Of the flow: coupling layers or residual blocks, neurons in each of their hidden layers, bins of the splines.
    center, spread : sequences of 2 + bands floats
        Mean and standard deviation of `GalaxyImages.kind` over the population.
    """

    def __init__(
        self, bands: int = 1, latent: int = 32, widths: Sequence[int] = (96, 64, 32, 16), transforms: int = 4,
        hidden: int = 64, bins: int = 8, center: Sequence[float] | None = None, spread: Sequence[float] | None = None,
        mapped: bool = False, flow: str = "spline",
    ):
        super().__init__()
        if flow not in ("spline", "matched"):
            raise ValueError(f"flow must be 'spline' or 'matched'; got {flow!r}")
        self.bands, self.latent = bands, latent
        kinds = bands + 2
        for name, values, usual in (("center", center, 0.0), ("spread", spread, 1.0)):
            values = torch.tensor([usual] * kinds if values is None else values, dtype=torch.float32)
            if values.shape != (kinds,):
                raise ValueError(f"{name} must be {kinds} numbers for {bands} bands")
            self.register_buffer(name, values)
        d, c, b, a = widths
        if mapped and latent % _CELLS**2:
            raise ValueError(f"a map of latent numbers has a multiple of {_CELLS**2} of them; got {latent}")
        seen = [
            nn.Conv2d(2 * bands + 1, a, 3, 2, 1, bias=False), nn.BatchNorm2d(a), nn.SiLU(), ResidualBlock(a, b, 2),
            ResidualBlock(b, c, 2),
        ]
        deepest = nn.Sequential(ResidualBlock(c if mapped else d, c), ResidualBlock(c, c))
        if mapped:
            planes = latent // _CELLS**2
            self.encoder = nn.Sequential(
                *seen, ResidualBlock(c, c), nn.Conv2d(c, 2 * planes, 3, padding=1), nn.Flatten()
            )
            self.first = nn.Sequential(
                nn.Unflatten(1, (planes, _CELLS, _CELLS)), nn.Conv2d(planes, c, 3, padding=1), nn.SiLU()
            )
        else:
            self.encoder = nn.Sequential(
                *seen, ResidualBlock(c, d, 2), nn.Flatten(), nn.Linear(16 * d, 128), nn.SiLU(),
                nn.Linear(128, 2 * latent),
            )
            self.first = nn.Sequential(nn.Linear(latent, 16 * d), nn.SiLU())
        self.mapped = mapped
        self.grow = nn.ModuleList([deepest, ResidualBlock(c, b), ResidualBlock(b, a)])
        self.out = nn.Conv2d(a, 4 * bands, 3, padding=1)
        # At the beginning, all galaxies are Sérsics.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.flow = (
            SplineFlow(latent, kinds, transforms, hidden, bins) if flow == "spline"
            else MatchedFlow(latent, kinds, transforms, hidden)
        )

    def decode(self, z: Tensor) -> Tensor:
        """Latent vectors (batch, latent) to departures (batch, bands, 64, 64)."""
        # CPUs convolve twice as fast with the channels last.
        x = self.first(z) if self.mapped else self.first(z).unflatten(1, (-1, 4, 4))
        x = x.contiguous(memory_format=torch.channels_last)
        for place, block in enumerate(self.grow):
            # A map has as many cells as the first block draws.
            x = block(x if self.mapped and not place else interpolate(x, scale_factor=2.0, mode="nearest"))
        return _STRONGEST * torch.tanh(pixel_shuffle(self.out(x), 2) / _STRONGEST)

    def encode(self, seen: GalaxyImages) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation of the latent vectors, (batch, latent) each."""
        mean, log_sd = self.encoder(self.views(seen)).chunk(2, 1)
        return mean, log_sd.clamp(-6, 1)

    def views(self, seen: GalaxyImages) -> Tensor:
        """In the standard frame, how far the data are from the profile, and how bright that is over the noise."""
        with torch.no_grad():
            profile = seen.drawn()
            shown = profile * seen.amplitudes(profile)[:, :, None, None] * seen.weight
            off = (seen.data * seen.weight - shown) / torch.sqrt(1 + (_UNIT * shown) ** 2)
            there = _in_standard_frame(torch.cat([off, torch.asinh(shown)], 1), seen)
            sharpness = (seen.psf.square().sum((2, 3)).mean(1).rsqrt() / seen.radius / 4)[:, None, None, None]
            return torch.cat([there, sharpness.expand(-1, 1, _SIDE, _SIDE)], 1)

    @property
    def noise(self) -> int:
        """Numbers that `loss` takes a galaxy."""
        return self.latent + _LINES * self.flow.noise

    def loss(self, seen: GalaxyImages, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Chi-square over two, divergence from the white prior, and the flow's loss, (batch,) each; ``noise`` (batch,
        `noise`) is white."""
        mean, log_sd = (part.float() for part in self.encode(seen))
        own, rest = noise.tensor_split((self.latent,), 1)
        z = mean + log_sd.exp() * own
        departure = self.decode(z).float()
        divergence = (0.5 * (mean.square() + (2 * log_sd).exp() - 1) - log_sd).sum(1)
        off = self.flow.loss(z.detach(), self.told(seen), rest)
        return 0.5 * seen.chi_square(seen.drawn(departure)), divergence, off

    def latents(self, white: Tensor, kind: Tensor) -> Tensor:
        """White noise to latent vectors (batch, latent) of galaxies of these kinds (batch, 2 + bands)."""
        return self.flow.from_white(white, self._standard(kind))

    def told(self, seen: GalaxyImages) -> Tensor:
        """What the flow is told of galaxies, in units of the population, (batch, 2 + bands)."""
        return self._standard(seen.kind)

    def _standard(self, kind: Tensor) -> Tensor:
        return (kind - self.center) / self.spread


def _in_standard_frame(maps: Tensor, seen: GalaxyImages) -> Tensor:
    """From pixels (batch, channels, ny, nx) to the squeezed frame (batch, channels, 64, 64); 0 off the image."""
    ny, nx = maps.shape[-2:]
    steps = (torch.arange(_SIDE, dtype=maps.dtype, device=maps.device) + 0.5) * (2 / _SIDE) - 1
    t, s = torch.meshgrid(steps, steps, indexing="ij")
    points = torch.stack(unsqueezed(s, t), -1).reshape(-1, 2)
    place = seen.place
    x, y = (points @ torch.linalg.inv(place.matrix).transpose(1, 2) + place.center[:, None]).unbind(-1)
    grid = torch.stack([(2 * x + 1) / nx - 1, (2 * y + 1) / ny - 1], -1).unflatten(1, (_SIDE, _SIDE))
    return grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
