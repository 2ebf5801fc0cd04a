"""Blends of two galaxies by the published rule: pictures of galaxies, the brighter of two pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from lensdeblend.networks.deblending import Overlap
from lensdeblend.training.sources.galaxies import SPLITS, split_of

__all__ = ["BlendPairs", "PublishedPairs", "read_pictures"]

_PICTURES = {".jpg", ".jpeg", ".png"}
# Pictures are kept at half their size: finer than anything that is made of them.
_KEPT = 212
_POINTS = 2


@dataclass
class BlendPairs:
    """A batch of what a network sees and what it should draw: ``seen``, one galaxy each of blends; ``truth`` (batch,
    bands, n, n), that galaxy alone; ``clean`` (batch, bands, n, n), the blend without noise."""

    seen: Overlap
    truth: Tensor
    clean: Tensor


class PublishedPairs:
    """Draws two pictures and blends them by the pixelwise maximum, as Reiman & Göhre 2019 (2019MNRAS.485.2617R).

    The first picture stays in the middle (turned by right angles, mirrored); the second is turned by any angle,
    mirrored and moved, black beyond its edges. Both are taken as they are, surroundings and stretch and all, in [0, 1].

    Parameters
    ----------
    pictures : Tensor
        (galaxies, 3, 212, 212), uint8: from `read_pictures`.
    pixels : int
        A side of the blends.
    crop : tuple of two floats
        Least and largest side of what is cut from the middle of the pictures, 1 being all of it.
    offset : tuple of two floats
        Least and largest offset of the second galaxy along each axis, in sides of the picture.
    scale : tuple of two floats
        By how much the second picture is magnified, drawn evenly in the logarithm.
    """

    def __init__(
        self, pictures: Tensor, *, pixels: int = 80, crop: tuple[float, float] = (1.0, 1.0),
        offset: tuple[float, float] = (10 / 424, 50 / 424), scale: tuple[float, float] = (1.0, 1.0),
    ):
        if len(pictures) < 2:
            raise ValueError(f"a blend needs two pictures; there are {len(pictures)}")
        if not 0 < crop[0] <= crop[1] <= 1:
            raise ValueError(f"crop must be two sides within 0 and 1; got {crop!r}")
        if not 0 <= offset[0] <= offset[1] <= 0.5:
            raise ValueError(f"offset must be two numbers from 0 to 0.5; got {offset!r}")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale must be two positive numbers; got {scale!r}")
        self.pictures, self.pixels = pictures, pixels
        self.crop, self.offset, self.scale = tuple(crop), tuple(offset), tuple(scale)

    def draw(self, count: int, seed: int | tuple[int, ...], device: str | torch.device = "cpu") -> BlendPairs:
        """``count`` galaxies of half as many blends, both of each one after the other; the same seed gives the same."""
        rng = np.random.default_rng(seed)
        pairs, total = -(-count // 2), len(self.pictures)
        first = rng.integers(total, size=pairs)
        second = (first + rng.integers(1, total, size=pairs)) % total
        crop = rng.uniform(*self.crop, pairs)
        shift = rng.uniform(*self.offset, (pairs, 2)) * rng.choice([-1.0, 1.0], (pairs, 2))
        angles = np.stack([rng.integers(4, size=pairs) * math.pi / 2, rng.uniform(0, 2 * math.pi, pairs)], 1)
        mirrored = rng.choice([-1.0, 1.0], (pairs, 2))
        scales = np.stack([np.ones(pairs), np.exp(rng.uniform(*np.log(self.scale), pairs))], 1)
        shifts = np.stack([np.zeros((pairs, 2)), shift], 1)
        chosen = torch.as_tensor(np.stack([first, second], 1).ravel())
        each = shifts.reshape(-1, 2), angles.ravel(), mirrored.ravel(), scales.ravel()
        galaxies = self._placed(chosen, crop.repeat(2), *each)
        galaxies = galaxies.unflatten(0, (pairs, 2)).to(device)
        blend = galaxies.amax(1)
        centers = (self.pixels - 1) / 2 + torch.as_tensor(shifts / crop[:, None, None] * self.pixels, dtype=blend.dtype)
        centers = centers.to(device)
        zeros = blend.new_zeros(2 * pairs, self.pictures.shape[1] + 1)
        image = blend.repeat_interleave(2, 0)
        seen = Overlap(image, zeros[:, 1:], zeros[:, 0], centers.flatten(0, 1), centers.flip(1).flatten(0, 1)[:, None])
        cut = [part[:count] for part in (seen.image, seen.sigma, seen.psf_fwhm, seen.center, seen.others)]
        return BlendPairs(Overlap(*cut), galaxies.flatten(0, 1)[:count], image[:count])

    def _placed(self, chosen: Tensor, crop, shift, angle, mirror, scale) -> Tensor:
        """The pictures through the map from the frame's pixels to theirs: shift, turn, mirror, shrink."""
        crop, angle, mirror, scale = (
            torch.as_tensor(part, dtype=torch.float32) for part in (crop, angle, mirror, scale)
        )
        shift = torch.as_tensor(2 * shift, dtype=torch.float32)
        cos, sin = torch.cos(angle), torch.sin(angle)
        turn = torch.stack([torch.stack([mirror * cos, mirror * sin], 1), torch.stack([-sin, cos], 1)], 1)
        turn = turn / scale[:, None, None]
        theta = torch.cat([turn * crop[:, None, None], -turn @ shift[:, :, None]], 2)
        side = _POINTS * self.pixels
        grid = affine_grid(theta, [len(chosen), 1, side, side], align_corners=False)
        pictures = self.pictures[chosen].float() / 255
        return avg_pool2d(grid_sample(pictures, grid, mode="bilinear", align_corners=False), _POINTS)


def read_pictures(folders: Sequence[Path], split: str) -> Tensor:
    """Pictures of a split, by a hash of their names, as (galaxies, 3, 212, 212), uint8.

    Raises
    ------
    ValueError
        For an unknown split, or folders that hold no picture of it.
    ImportError
        Without pillow.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('pictures need pillow, which is not installed: pip install "lensdeblend[train]"') from error
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    files = sorted(
        file for folder in folders for file in Path(folder).rglob("*")
        if file.suffix.lower() in _PICTURES and split_of(file.stem) == split
    )
    if not files:
        raise ValueError(f"no picture of the split {split!r} in {', '.join(Path(folder).name for folder in folders)}")
    pictures = []
    for file in files:
        with Image.open(file) as picture:
            resized = picture.convert("RGB").resize((_KEPT, _KEPT), Image.Resampling.BOX)
        pictures.append(np.asarray(resized).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(pictures))
