"""Real galaxies as sources."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from lensdeblend.training.sources.base import Brightness, Sources, checked_radius
from lensdeblend.training.sources.galaxies import GalaxyStamps, read_galaxies

__all__ = ["RealImages"]


@dataclass(frozen=True, eq=False)
class RealImages(Sources):
    """Galaxies from images, each turned by any angle, mirrored half of the times and magnified to the wished radius.

    Parameters
    ----------
    galaxies : path or GalaxyStamps
        A catalogue or a folder for `read_galaxies`, or what it returned (without colours).
    split : {"train", "validation", "test", "all"}
        Which of the galaxies: they are divided by a hash of their ids, so that no galaxy is in two.
    turn : bool
        Whether galaxies are turned and mirrored.
    options : mapping
        Of `read_galaxies`.
    """

    galaxies: str | PathLike | GalaxyStamps
    split: str = "train"
    turn: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        galaxies = self.galaxies
        if not isinstance(galaxies, GalaxyStamps):
            galaxies = read_galaxies(galaxies, **self.options)
        if galaxies.stamps.ndim != 3:
            raise ValueError("sources have one band: read the galaxies with colour=False")
        chosen = galaxies.split(self.split)
        object.__setattr__(self, "_ids", chosen.ids)
        object.__setattr__(self, "_stamps", torch.from_numpy(chosen.stamps))
        object.__setattr__(self, "_radius", torch.from_numpy(chosen.radius))

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"RealImages({len(self)} galaxies, split={self.split!r})"

    def draw(self, radius: Tensor, generator: torch.Generator) -> Brightness:
        radius, count = checked_radius(radius), len(radius)
        chosen = torch.randint(len(self), (count,), generator=generator, device=generator.device)
        turned = torch.rand((count, 2), generator=generator, device=generator.device).to(radius) * self.turn
        self._bring_to(radius.device)
        chosen = chosen.to(radius.device)
        stamps = self._stamps[chosen].to(radius.dtype)
        scale = radius / self._radius[chosen, None].to(radius.dtype)
        angle, mirror = 2 * math.pi * turned[:, :1], 1 - 2 * (turned[:, 1:] > 0.5).to(radius.dtype)
        cos, sin = torch.cos(angle), torch.sin(angle)

        def brightness(x: Tensor, y: Tensor) -> Tensor:
            # In half widths of the stamp, from its centre.
            half = scale * ((stamps.shape[-1] - 1) / 2)
            places = torch.stack((mirror * (cos * x + sin * y) / half, (cos * y - sin * x) / half), dim=-1)
            # Six times as fast as lensing.pixels.interpolate, which can be differentiated twice.
            light = grid_sample(stamps[:, None], places[:, None], mode="bilinear", align_corners=True)
            return light[:, 0, 0] / scale**2

        return brightness

    def _bring_to(self, device: torch.device) -> None:
        if self._stamps.device != device:
            object.__setattr__(self, "_stamps", self._stamps.to(device))
            object.__setattr__(self, "_radius", self._radius.to(device))
