"""Galaxies of any kind of sources on stamps, to be cut, turned and magnified."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lensdeblend.training.sources import Sources

__all__ = ["soft_stamps"]


def soft_stamps(kind: Sources, radius: Tensor, generator: torch.Generator, *, side: int, soft: float) -> Tensor:
    """Galaxies of ``radius`` (galaxies,) pixels, (galaxies, side, side), each pixel the mean over four points.

    Wide wings end softly, over ``soft`` pixels, not where the stamp does.
    """
    points = 2 * side
    steps = (torch.arange(points) + 0.5) / 2 - side / 2
    y, x = (part.reshape(1, -1).expand(len(radius), -1) for part in torch.meshgrid(steps, steps, indexing="ij"))
    light = kind.draw(radius, generator)(x, y)
    edge = ((side / 2 - torch.hypot(x, y)) / soft).clamp(0, 1)
    return avg_pool2d((light * edge**2 * (3 - 2 * edge)).reshape(-1, 1, points, points), 2)[:, 0]
