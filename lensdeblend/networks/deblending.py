"""A conditional generator that draws one galaxy of a blend, and the patches by which a critic judges what it draws.

The generator sees the blend, the blend turned by 180 degrees about the galaxy's own centre, the galaxy's share of the
blend by symmetry (which is that of the classical deblenders: noisy, and cut where neighbours are), and where it and
its neighbours are. It answers with the share of every pixel that is the galaxy's, and with what must be added.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, pixel_shuffle, pixel_unshuffle

from lensdeblend.networks.unlenser import ResidualUNet

__all__ = ["Generator", "Overlap", "PatchCritic", "symmetric_templates"]

_MARKER = 2.0
_FAINT = 0.1
# No galaxy is that much brighter than at its middle; neighbours are, and what is left of them would be.
_BRIGHTEST = 2.5
_LEAST_SHARE = 0.02
_FEATURES = 8
_REACH = 2.0
# Of a picture's white: by how much the brighter must be brighter.
_SURE = 0.03


@dataclass
class Overlap:
    """One galaxy each of a batch of blends: what a generator is shown.

    ``image`` (batch, bands, n, n): the blend, 0 where masked. ``sigma`` (batch, bands): its noise. ``psf_fwhm``
    (batch,), pixels. ``center`` (batch, 2): x, y of the galaxy from the centre of the frame's first pixel. ``others``
    (batch, m, 2): the same of its neighbours, NaN where there are fewer.
    """

    image: Tensor
    sigma: Tensor
    psf_fwhm: Tensor
    center: Tensor
    others: Tensor


class Generator(nn.Module):
    """Draws a galaxy: `Overlap` to (batch, bands, n, n), in the units of the image.

    Parameters
    ----------
    bands : int
    widths : sequence of int
        Channels of the levels of the U-Net, which works on pixels twice as large.
    fine : int
        Channels of the layers on the pixels themselves.
    rule : {"sum", "maximum"}
        How galaxies make a blend. Under the maximum, the published rule, a galaxy is a share of the blend and nothing
        else; in a sum there is noise on it, and the network may add to the share.
    """

    def __init__(self, bands: int = 3, widths=(24, 48, 96, 128), fine: int = 16, rule: str = "sum"):
        super().__init__()
        if rule not in ("sum", "maximum"):
            raise ValueError(f"rule must be 'sum' or 'maximum'; got {rule!r}")
        self.bands, self.rule = bands, rule
        views = 4 * bands + 4
        self.unet = ResidualUNet(4 * views, tuple(widths), 4 * _FEATURES)
        self.fine = nn.Sequential(
            nn.Conv2d(_FEATURES + views, fine, 3, padding=1), nn.SiLU(), nn.Conv2d(fine, fine, 3, padding=1), nn.SiLU(),
            nn.Conv2d(fine, bands if rule == "maximum" else 2 * bands, 3, padding=1),
        )
        # At the beginning, the galaxy is what symmetry says it is.
        nn.init.zeros_(self.fine[-1].weight)
        nn.init.zeros_(self.fine[-1].bias)

    def forward(self, seen: Overlap) -> Tensor:
        """Draw one galaxy a blend."""
        with torch.no_grad(), torch.autocast(seen.image.device.type, enabled=False):
            templates, opposite = symmetric_templates(seen, smooth=self.rule == "sum")
            own = self._first_guess(seen, templates).clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
            scale = self._scale(seen, own)
            image = seen.image / scale
            parts = image, opposite / scale, own * image, templates[:, 1:].amax(1) / scale
            views = torch.cat([
                *(torch.asinh(part / _FAINT) / 3 for part in parts), self._markers(seen), self._levels(seen, scale),
            ], 1)
        features = pixel_shuffle(self.unet(pixel_unshuffle(views, 2)), 2)
        out = self.fine(torch.cat([features, views], 1)).float()
        share = torch.sigmoid(torch.logit(own) + out[:, :self.bands])
        if self.rule == "maximum":
            return share * seen.image
        return (share * image.clamp(max=_BRIGHTEST) + out[:, self.bands:]) * scale

    def _first_guess(self, seen: Overlap, templates: Tensor) -> Tensor:
        """The galaxy's share by symmetry alone, (batch, bands, n, n)."""
        own, others = templates[:, 0], templates[:, 1:]
        if self.rule == "sum":
            return own / (own + others.sum(1)).clamp_min(1e-30)
        # The brighter has the pixel; a galaxy that is the fainter is no fainter than its other side.
        brighter = avg_pool2d((own - others.amax(1)).mean(1, keepdim=True), 5, 1, 2, count_include_pad=False)
        return torch.lerp(own / seen.image.clamp_min(1e-6), torch.ones_like(own), torch.sigmoid(brighter / _SURE))

    def _scale(self, seen: Overlap, own: Tensor) -> Tensor:
        """Brightness of the galaxy's middle in each band, (batch, bands, 1, 1); no less than the noise."""
        if self.rule == "maximum":
            return torch.ones_like(seen.image[:, :, :1, :1])
        smooth = avg_pool2d(own * seen.image, 3, 1, 1)
        near = _distances(seen.center[:, None], smooth.shape[-1]) < _REACH
        middle = torch.where(near, smooth, torch.zeros_like(smooth)).flatten(2).amax(2)
        floor = torch.maximum(seen.sigma, 1e-6 * seen.image.abs().flatten(2).amax(2)).clamp_min(1e-30)
        return middle.maximum(floor)[:, :, None, None]

    def _markers(self, seen: Overlap) -> Tensor:
        n = seen.image.shape[-1]
        own = torch.exp(-0.5 * (_distances(seen.center[:, None], n) / _MARKER) ** 2)
        others = torch.exp(-0.5 * (_distances(seen.others, n) / _MARKER) ** 2).nan_to_num()
        return torch.cat([own, others.amax(1, keepdim=True)], 1)

    def _levels(self, seen: Overlap, scale: Tensor) -> Tensor:
        """Noise over brightness, and width of the PSF, as constant images."""
        noise = (seen.sigma / scale[:, :, 0, 0]).mean(1).clamp(1e-3, 1.0).log10() / 3 + 1
        levels = torch.stack([noise, seen.psf_fwhm / 4], 1)
        return levels[:, :, None, None].expand(-1, -1, *seen.image.shape[-2:])


def symmetric_templates(seen: Overlap, *, smooth: bool = True) -> tuple[Tensor, Tensor]:
    """Of the galaxy and its neighbours, the fainter of each two opposite pixels.

    Where the other side lies off the frame, and where no template has any light, the nearest galaxy has it all.

    Parameters
    ----------
    seen : Overlap
    smooth : bool
        Whether to average over three pixels a side first, so that noise does not eat the fainter of two.

    Returns
    -------
    templates : Tensor
        (batch, 1 + m, bands, n, n), nowhere negative; 0 for a neighbour that is not there.
    opposite : Tensor
        (batch, bands, n, n): the blend turned by 180 degrees about the galaxy.
    """
    image = avg_pool2d(seen.image, 3, 1, 1) if smooth else seen.image
    centers = torch.cat([seen.center[:, None], seen.others], 1)
    there = torch.isfinite(centers).all(-1)
    count, n = centers.shape[1], image.shape[-1]
    turned, inside = _turned(
        image[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1), centers.nan_to_num().flatten(0, 1)
    )
    turned, inside = turned.unflatten(0, (-1, count)), inside.unflatten(0, (-1, count))
    distance = torch.where(there[:, :, None, None], _distances(centers.nan_to_num(), n), torch.inf)
    nearest = (distance == distance.amin(1, keepdim=True))[:, :, None]
    trace = 1e-3 * image.abs().flatten(2).mean(2)[:, None, :, None, None].clamp_min(1e-20)
    templates = turned.minimum(image[:, None]).clamp_min(0) * (inside | nearest) * there[:, :, None, None, None]
    templates = templates + trace * nearest
    opposite = _turned(seen.image, seen.center)[0] if smooth else turned[:, 0]
    return templates, opposite


def _turned(images: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """By 180 degrees about (x, y), and (batch, 1, n, n) where that lies in the frame; elsewhere images stay."""
    n = images.shape[-1]
    steps = torch.arange(n, dtype=images.dtype, device=images.device)
    x, y = 2 * centers[:, 0, None] - steps, 2 * centers[:, 1, None] - steps
    grid = torch.stack([x[:, None, :].expand(-1, n, -1), y[:, :, None].expand(-1, -1, n)], -1)
    found = grid_sample(images, (2 * grid + 1) / n - 1, mode="bilinear", padding_mode="border", align_corners=False)
    inside = ((x >= -0.5) & (x <= n - 0.5))[:, None, :] & ((y >= -0.5) & (y <= n - 0.5))[:, :, None]
    return torch.where(inside[:, None], found, images), inside[:, None]


def _distances(centers: Tensor, n: int) -> Tensor:
    """(batch, m, 2) to (batch, m, n, n): of every pixel from each."""
    steps = torch.arange(n, dtype=centers.dtype, device=centers.device)
    x, y = centers[..., None, None].unbind(2)
    return torch.hypot(steps - x, steps[:, None] - y)


class PatchCritic(nn.Module):
    """Tells drawn galaxies from true ones, patch by patch, given the blend; for training only.

    (batch, bands, n, n) of galaxy and of blend to the maps of every layer, the last (batch, 1, h, w) the verdict.
    """

    def __init__(self, bands: int = 3, widths=(16, 32, 64)):
        super().__init__()
        before = (2 * bands, *widths[:-1])
        self.layers = nn.ModuleList(
            nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2))
            for a, b in zip(before, widths)
        )
        self.verdict = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, galaxy: Tensor, blend: Tensor) -> list[Tensor]:
        """Judge galaxies in their blends."""
        maps, x = [], torch.cat([galaxy, blend], 1)
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return [*maps, self.verdict(x)]
