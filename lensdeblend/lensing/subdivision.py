"""Pixels cut into finer ones where the light asks for it, and averaged back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

__all__ = ["Block", "PixelGrid", "Subdivision", "refine"]

# Points worked on at once: arrays of this length stay in a core's cache and below the size at which allocation gets slow.
_BLOCK_POINTS = 8192


@dataclass(frozen=True)
class PixelGrid:
    """Pixel centres of an image in arcsec, with ``border`` more pixels on every side; ``centre`` is where its middle lies."""

    shape: tuple[int, int]
    scale: float
    border: int = 0
    centre: tuple[float, float] = (0.0, 0.0)

    @property
    def padded_shape(self) -> tuple[int, int]:
        return self.shape[0] + 2 * self.border, self.shape[1] + 2 * self.border

    @property
    def size(self) -> int:
        """Number of pixels with border."""
        ny, nx = self.padded_shape
        return ny * nx

    def centres(self, dtype=torch.float64, device="cpu") -> tuple[Tensor, Tensor]:
        """Flat x and y of every pixel centre, border included."""
        ny, nx = self.padded_shape
        y = (torch.arange(ny, dtype=dtype, device=device) - (ny - 1) / 2) * self.scale + self.centre[1]
        x = (torch.arange(nx, dtype=dtype, device=device) - (nx - 1) / 2) * self.scale + self.centre[0]
        yy, xx = torch.meshgrid(y, x, indexing="ij")
        return xx.reshape(-1), yy.reshape(-1)


@dataclass(frozen=True)
class Block:
    """Some pixels of a grid, all sampled ``level`` by ``level``: flat pixel numbers, the points' positions and shares of a pixel."""

    index: Tensor
    level: int
    x: Tensor
    y: Tensor
    share: Tensor

    def average(self, values: Tensor) -> Tensor:
        """(..., points) to (..., pixels)."""
        if self.level == 1:
            return values
        return values.reshape(*values.shape[:-1], len(self.index), self.level**2) @ self.share


class Subdivision:
    """Points at which a grid's pixels are sampled: each pixel its own number of divisions.

    Parameters
    ----------
    grid : PixelGrid
    levels : Tensor of int
        Points a side for every pixel, border included, flat; 0 leaves a pixel out (its average is 0).
    rule : {"gauss", "midpoint"}
        Gauss-Legendre points converge faster on smooth light; midpoints are what other codes' supersampling uses.
    """

    def __init__(
        self, grid: PixelGrid, levels: Tensor, dtype=torch.float64, device="cpu", rule: Literal["gauss", "midpoint"] = "gauss"
    ):
        self.grid, self.levels = grid, levels
        centre_x, centre_y = grid.centres(dtype, device)
        self.blocks: list[Block] = []
        for level in sorted(int(v) for v in torch.unique(levels) if v > 0):
            offset, part = (torch.as_tensor(v, dtype=dtype, device=device) for v in _points(level, rule))
            dy, dx = (o.reshape(1, -1) for o in torch.meshgrid(offset * grid.scale, offset * grid.scale, indexing="ij"))
            share = torch.outer(part, part).reshape(-1)
            pixels = torch.nonzero(levels == level).reshape(-1).to(device)
            for index in pixels.split(max(1, _BLOCK_POINTS // level**2)):
                x = (centre_x[index, None] + dx).reshape(-1)
                y = (centre_y[index, None] + dy).reshape(-1)
                self.blocks.append(Block(index, level, x, y, share))

    @classmethod
    def uniform(cls, grid: PixelGrid, level: int, dtype=torch.float64, device="cpu", rule="gauss") -> Subdivision:
        """Every pixel sampled ``level`` by ``level``."""
        return cls(grid, torch.full((grid.size,), level, dtype=torch.int64), dtype, device, rule)

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def render(self, brightness: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Average ``brightness(x, y)`` (..., points) over each pixel: (..., ny, nx), border included."""
        image = None
        for block in self.blocks:
            values = block.average(brightness(block.x, block.y))
            if image is None:
                image = values.new_zeros((*values.shape[:-1], self.grid.size))
            image[..., block.index] = values
        return image.reshape(*image.shape[:-1], *self.grid.padded_shape)


def _points(level: int, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Offsets from a pixel's centre, in pixels, and weights that sum to 1."""
    if rule == "midpoint":
        return (np.arange(level) + 0.5) / level - 0.5, np.full(level, 1 / level)
    nodes, weights = np.polynomial.legendre.leggauss(level)
    return nodes / 2, weights / 2


def refine(
    grid: PixelGrid, brightness: Callable[[Tensor, Tensor], Tensor], tolerance: Tensor, *, coarsest: int = 2,
    finest: int = 32, dtype=torch.float64, device="cpu",
) -> Tensor:
    """Divisions a side that bring each pixel's average within ``tolerance`` of the next finer one.

    Parameters
    ----------
    brightness : callable
        ``(x, y) -> (points,)``, or ``(batch, points)``: then the most demanding image decides.
    tolerance : Tensor
        A value for every pixel of the grid, border included, flat; infinite where nothing need be refined.
    """
    levels = torch.full((grid.size,), coarsest, dtype=torch.int64, device=device)
    active = torch.isfinite(tolerance)
    level = coarsest

    def averages(level: int, where: Tensor) -> Tensor:
        sampled = Subdivision(grid, where * level, dtype, device)
        image = sampled.render(brightness).reshape(-1, grid.size) if sampled.blocks else torch.zeros(1, grid.size)
        return image.to(device)

    coarse = averages(level, active)
    while level < finest and bool(active.any()):
        fine = averages(2 * level, active)
        active = active & ((fine - coarse).abs().amax(0) > tolerance)
        level *= 2
        levels[active] = level
        coarse = fine
    return levels
