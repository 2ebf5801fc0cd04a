"""Procedural galaxies as sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lensdeblend.lensing.procedural import checked_mix, draw_procedural
from lensdeblend.training.sources.base import Brightness, Sources, checked_radius

__all__ = ["Procedural"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Procedural(Sources):
    """Bulges, discs, log-spiral arms, bars, knots, dust and tidal asymmetry.

    Parameters
    ----------
    mix : mapping, optional
        How often each kind of `lensdeblend.lensing.procedural.KINDS` is drawn.

    Examples
    --------
    >>> import torch
    >>> from lensdeblend.training.sources import Procedural
    >>> brightness = Procedural(mix={"spiral": 2, "barred": 1}).draw(
    ...     torch.full((4,), 0.25), torch.Generator().manual_seed(1))
    >>> x = torch.zeros(4, 9)
    >>> bool((brightness(x, x) > 0).all())
    True
    """

    mix: Mapping[str, float] | None = None

    def __post_init__(self):
        checked_mix(self.mix)

    def draw(self, radius: Tensor, generator: torch.Generator) -> Brightness:
        radius = checked_radius(radius)
        galaxies = draw_procedural(len(radius), generator, mix=self.mix, device=radius.device, dtype=radius.dtype)
        return lambda x, y: galaxies.brightness(x / radius, y / radius) / radius**2
