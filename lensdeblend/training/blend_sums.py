"""Physical blends: galaxies of three colours summed, seen through a PSF, with noise; drawn as a network trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.networks.deblending import Overlap
from lensdeblend.scenes.populations import Distribution, Integer, LogUniform, Normal, Uniform
from lensdeblend.training.blend_pairs import BlendPairs
from lensdeblend.training.moffat import MOFFAT_BETA, moffats
from lensdeblend.training.soft_stamps import soft_stamps
from lensdeblend.training.sources import Parametric, read_galaxies, sources
from lensdeblend.training.sources.galaxies import SPLITS
from lensdeblend.training.stream_priors import DRAWS_FOR_RANGES, ranges_of

__all__ = ["PRIORS", "SMALLEST", "BlendSums", "Stamps", "ranges", "stamps"]

#: Number of galaxies; distance of each from its nearest neighbour, half-light radii and the PSF's width, in pixels;
#: signal to noise of a matched filter in a band; magnitudes of a band over their mean.
PRIORS: dict[str, Distribution] = {
    "count": Integer(2, 6), "separation": Uniform(2.0, 15.0), "radius": LogUniform(1.2, 8.0),
    "psf_fwhm": Uniform(2.0, 5.0), "snr": LogUniform(8.0, 800.0), "colour": Normal(0.0, 0.5),
}
_BANDS = 3
_STAMP = 48
_MADE = 400
# Of a galaxy that is made, its half-light radius on its stamp.
_MADE_RADIUS = 6.0
_SOFT = 10.0
_BORDER, _POINTS = 6, 2
_FEWEST_PIXELS_TO_EDGE = 3.0
# Of given positions, pixels along each axis.
_POSITION_ERROR = 0.3
# Shares of blends of one band, shown in place of all three, and of blends smaller than the frame, 0 beyond.
_ALONE, _SMALLER = 0.25, 0.4
#: Pixels of those, at least.
SMALLEST = 44


@dataclass(frozen=True, eq=False)
class Stamps:
    """Galaxies alone, noise-free: ``images`` (galaxies, 3, 48, 48), the mean over bands of the sum 1; ``radius``
    (galaxies,), half-light radii in their pixels; ``weights`` (galaxies,), how often each is drawn, their sum 1."""

    images: Tensor
    radius: Tensor
    weights: Tensor

    @classmethod
    def joined(cls, parts: Sequence[tuple[Stamps, float]]) -> Stamps:
        """Several, each with its share."""
        total = sum(share for _, share in parts)
        return cls(
            torch.cat([one.images for one, _ in parts]), torch.cat([one.radius for one, _ in parts]),
            torch.cat([one.weights * share / total for one, share in parts]),
        )


def stamps(shares: Mapping[str, float], split: str, folders: Sequence[Path] = ()) -> Stamps:
    """Galaxies of each kind of `lensdeblend.training.sources.sources`: ``real`` ones from folders of pictures, others
    made, each a body and a bulge of another colour.

    Raises
    ------
    ValueError
        For an unknown kind or split, and for shares that are not positive.
    """
    if not shares or any(not isinstance(share, (int, float)) or share <= 0 for share in shares.values()):
        raise ValueError(f"the recipe: data: sources must be a mapping of kind to a positive share; got {shares!r}")
    parts = []
    for kind, share in shares.items():
        if kind != "real":
            parts.append((_made(kind, split), share))
            continue
        found = [_even(read_galaxies(folder, colour=True).split(split)) for folder in folders]
        count = sum(len(one.radius) for one in found)
        parts += [(one, share * len(one.radius) / count) for one in found]
    return Stamps.joined(parts)


def _even(galaxies) -> Stamps:
    images = 4 * avg_pool2d(torch.from_numpy(galaxies.stamps), 2)
    return Stamps(images, torch.from_numpy(galaxies.radius) / 2, torch.full((len(images),), 1 / len(images)))


def _made(kind: str, split: str) -> Stamps:
    rng = np.random.default_rng((list(SPLITS).index(split), len(kind)))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    radius = torch.full((_MADE,), _MADE_RADIUS)
    stamps_of = partial(soft_stamps, side=_STAMP, soft=_SOFT)
    body = stamps_of(sources(kind), radius, generator)
    bulge = stamps_of(Parametric(), radius * torch.rand(_MADE, generator=generator).mul(0.4).add(0.2), generator)
    share = 0.5 * torch.rand(_MADE, generator=generator)[:, None, None, None]
    redder = torch.randn(_MADE, 1, 1, 1, generator=generator) * torch.tensor([0.4, 0.0, -0.4])[:, None, None]
    images = (1 - share) * body[:, None] + share * torch.exp(redder) * bulge[:, None]
    images = images / images.sum((2, 3), keepdim=True).mean(1, keepdim=True)
    return Stamps(images, radius * (1 - 0.5 * share[:, 0, 0, 0]), torch.full((_MADE,), 1 / _MADE))


class BlendSums:
    """Draws galaxies, places, sizes, colours, a PSF and noise, and sums.

    Parameters
    ----------
    galaxies : Stamps
    priors : mapping of str to Distribution
        As `PRIORS`; noise is 1 a pixel.
    pixels : int
        A side of the blends.
    """

    def __init__(self, galaxies: Stamps, priors: Mapping[str, Distribution] = PRIORS, *, pixels: int = 64):
        missing = [name for name in PRIORS if name not in priors]
        if missing:
            raise ValueError(f"blends need priors on {', '.join(missing)}")
        low = int(np.min(priors["count"].draw(np.random.default_rng(0), DRAWS_FOR_RANGES)))
        if low < 2:
            raise ValueError(f"a blend has at least 2 galaxies; the prior on count gives {low}")
        self.galaxies, self.priors, self.pixels = galaxies, priors, pixels

    def draw(self, count: int, seed: int | tuple[int, ...], device: str | torch.device = "cpu") -> BlendPairs:
        """``count`` galaxies of half as many blends, two of each one after the other; the same seed gives the same."""
        rng = np.random.default_rng(seed)
        blends = -(-count // 2)
        numbers = np.asarray(self.priors["count"].draw(rng, blends), int)
        smallest = min(SMALLEST, self.pixels)
        sizes = np.where(rng.random(blends) < _SMALLER, rng.integers(smallest, self.pixels + 1, blends), self.pixels)
        places = [self._places(number, size, rng) for number, size in zip(numbers, sizes)]
        fwhm = np.asarray(self.priors["psf_fwhm"].draw(rng, blends), float)
        light = self._light(numbers, places, fwhm, rng).to(device)
        # The first two of each blend are to be drawn; of the others only the sum is seen.
        of = torch.as_tensor(np.repeat(np.arange(blends), numbers))
        order = np.concatenate([np.minimum(np.arange(number), 2) for number in numbers])
        grouped = light.new_zeros((blends * 3, *light.shape[1:]))
        grouped.index_add_(0, (3 * of + torch.as_tensor(order)).to(device), light)
        parts = self._blurred(grouped.unflatten(0, (blends, 3)), fwhm, rng, device)
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(parts[:, :1].shape, generator=generator, device=device)
        alone = torch.as_tensor(rng.random(blends) < _ALONE, device=device)[:, None, None, None, None]
        within = self._within(sizes).to(device)[:, None, None]
        parts, noise = (torch.where(alone, part[:, :, :1], part) * within for part in (parts, noise))
        clean = parts.sum(1)
        centers, others = self._told(places, rng, device)
        image, clean = ((clean + extra).repeat_interleave(2, 0)[:count] for extra in (noise[:, 0], 0))
        width = torch.as_tensor(fwhm.repeat(2)[:count], dtype=image.dtype, device=device)
        seen = Overlap(image, torch.ones_like(image[:, :, 0, 0]), width, centers[:count], others[:count])
        return BlendPairs(seen, parts[:, :2].flatten(0, 1)[:count], clean)

    def _within(self, sizes: np.ndarray) -> Tensor:
        """(blends, n, n): 1 in the middle of the frame, ``sizes`` pixels a side, else 0."""
        first, steps = (self.pixels - sizes) // 2, np.arange(self.pixels)
        line = (steps >= first[:, None]) & (steps < (first + sizes)[:, None])
        return torch.as_tensor(line[:, :, None] & line[:, None, :], dtype=torch.float32)

    def _places(self, number: int, size: int, rng: np.random.Generator) -> np.ndarray:
        """(number, 2), x and y; the group lies anywhere, its galaxies within ``size`` pixels in the frame's middle."""
        places = np.zeros((1, 2))
        while len(places) < number:
            distance, angle = self.priors["separation"].draw(rng), rng.uniform(0, 2 * np.pi)
            candidate = places[rng.integers(len(places))] + distance * np.array([np.cos(angle), np.sin(angle)])
            if np.hypot(*(places - candidate).T).min() >= distance - 1e-9:
                places = np.vstack([places, candidate])
        middle = (self.pixels - 1) / 2 + rng.uniform(-0.25, 0.25, 2) * size
        first = (self.pixels - size) // 2
        inside = first + _FEWEST_PIXELS_TO_EDGE, first + size - 1 - _FEWEST_PIXELS_TO_EDGE
        return np.clip(rng.permutation(places - places.mean(0)) + middle, *inside)

    def _light(self, numbers, places, fwhm, rng: np.random.Generator) -> Tensor:
        """Every galaxy before the PSF, on the frame with a border: (galaxies, bands, side, side)."""
        total = int(numbers.sum())
        chosen = torch.as_tensor(np.searchsorted(np.cumsum(self.galaxies.weights.numpy()), rng.random(total)))
        chosen = chosen.clamp(max=len(self.galaxies.radius) - 1)
        radius = np.asarray(self.priors["radius"].draw(rng, total), float)
        width = np.repeat(fwhm, numbers) ** 2 / (8 * np.log(2)) + radius**2 / (2 * np.log(2))
        flux = np.asarray(self.priors["snr"].draw(rng, total), float) * np.sqrt(4 * np.pi * width)
        magnitude = np.asarray(self.priors["colour"].draw(rng, (total, _BANDS)), float)
        flux = torch.as_tensor(flux[:, None] * 10 ** (-0.4 * magnitude), dtype=torch.float32)
        magnified = torch.as_tensor(radius, dtype=torch.float32) / self.galaxies.radius[chosen]
        angle = torch.as_tensor(rng.uniform(0, 2 * np.pi, total), dtype=torch.float32)
        mirror = torch.as_tensor(rng.choice([-1.0, 1.0], total), dtype=torch.float32)
        cos, sin = torch.cos(angle), torch.sin(angle)
        turn = torch.stack([torch.stack([mirror * cos, mirror * sin], 1), torch.stack([-sin, cos], 1)], 1)
        side = self.pixels + 2 * _BORDER
        # From half sides of the frame to half sides of the stamp.
        turn = turn * (side / (_STAMP * magnified))[:, None, None]
        offset = torch.as_tensor(np.concatenate(places) - (self.pixels - 1) / 2, dtype=torch.float32) * 2 / side
        theta = torch.cat([turn, -turn @ offset[:, :, None]], 2)
        grid = affine_grid(theta, [total, 1, side * _POINTS, side * _POINTS], align_corners=False)
        light = avg_pool2d(grid_sample(self.galaxies.images[chosen], grid, align_corners=False), _POINTS)
        return light * (flux / magnified[:, None] ** 2)[:, :, None, None]

    def _blurred(self, light: Tensor, fwhm: np.ndarray, rng: np.random.Generator, device) -> Tensor:
        """Through Moffat PSFs, a little wider or narrower from band to band."""
        widths = fwhm[:, None] * rng.uniform(0.9, 1.1, (len(fwhm), _BANDS))
        kernel = moffats(widths, rng.uniform(*MOFFAT_BETA, len(fwhm))[:, None], device)
        return Convolution(kernel[:, None], (self.pixels, self.pixels), _BORDER)(light)

    def _told(self, places, rng: np.random.Generator, device) -> tuple[Tensor, Tensor]:
        """Positions, a little off, of the first two galaxies of each blend and of the others of each."""
        most = max(map(len, places)) - 1
        centers, others = np.zeros((len(places), 2, 2)), np.full((len(places), 2, most, 2), np.nan)
        for blend, true in enumerate(places):
            told = true + rng.normal(0, _POSITION_ERROR, true.shape)
            for own in (0, 1):
                centers[blend, own] = told[own]
                others[blend, own, :len(told) - 1] = np.delete(told, own, 0)
        return tuple(
            torch.as_tensor(part, dtype=torch.float32, device=device).flatten(0, 1) for part in (centers, others)
        )


def ranges(priors: Mapping[str, Distribution]) -> dict[str, list[float]]:
    """What blends span, as ``[low, high]``: ``galaxies``, ``psf_fwhm`` (pixels) and ``snr``."""
    names = {"galaxies": "count", "psf_fwhm": "psf_fwhm", "snr": "snr"}
    return ranges_of({name: priors[key] for name, key in names.items()})
