"""Pixels cut into finer ones where the light asks for it, and averaged back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PixelGrid", "Subdivision"]


@dataclass(frozen=True)
class PixelGrid:
    """Pixel centres of a ``shape`` image in arcsec from its centre; ``border`` pixels are added on every side."""

    shape: tuple[int, int]
    scale: float
    border: int = 0

    @property
    def padded_shape(self) -> tuple[int, int]:
        return self.shape[0] + 2 * self.border, self.shape[1] + 2 * self.border

    def centres(self, dtype=torch.float64, device="cpu") -> tuple[Tensor, Tensor]:
        """Flat x and y of every pixel centre of the padded image."""
        ny, nx = self.padded_shape
        y = (torch.arange(ny, dtype=dtype, device=device) - (ny - 1) / 2) * self.scale
        x = (torch.arange(nx, dtype=dtype, device=device) - (nx - 1) / 2) * self.scale
        yy, xx = torch.meshgrid(y, x, indexing="ij")
        return xx.reshape(-1), yy.reshape(-1)


class Subdivision:
    """Points at which a grid's pixels are sampled: each pixel its own number of divisions.

    Parameters
    ----------
    grid : PixelGrid
    levels : Tensor of int
        Divisions a side for every pixel of the padded image, flat; 0 leaves a pixel out (its average is 0).
    """

    def __init__(self, grid: PixelGrid, levels: Tensor, dtype=torch.float64, device="cpu"):
        self.grid, self.levels = grid, levels
        centre_x, centre_y = grid.centres(dtype, device)
        self._groups: list[tuple[Tensor, int]] = []
        xs, ys = [], []
        for level in sorted(int(v) for v in torch.unique(levels) if v > 0):
            index = torch.nonzero(levels == level).reshape(-1).to(device)
            offset = ((torch.arange(level, dtype=dtype, device=device) + 0.5) / level - 0.5) * grid.scale
            dy, dx = torch.meshgrid(offset, offset, indexing="ij")
            xs.append((centre_x[index, None] + dx.reshape(1, -1)).reshape(-1))
            ys.append((centre_y[index, None] + dy.reshape(1, -1)).reshape(-1))
            self._groups.append((index, level))
        self.x, self.y = torch.cat(xs), torch.cat(ys)

    @classmethod
    def uniform(cls, grid: PixelGrid, level: int, dtype=torch.float64, device="cpu") -> Subdivision:
        """Every pixel cut ``level`` by ``level``."""
        ny, nx = grid.padded_shape
        return cls(grid, torch.full((ny * nx,), level, dtype=torch.int64), dtype, device)

    def average(self, values: Tensor) -> Tensor:
        """Average point values (..., points) over each pixel: (..., ny, nx) of the padded image."""
        lead = values.shape[:-1]
        ny, nx = self.grid.padded_shape
        if len(self._groups) == 1 and len(self._groups[0][0]) == ny * nx:
            level = self._groups[0][1]
            return values.reshape(*lead, ny, nx, level * level).mean(-1) if level > 1 else values.reshape(*lead, ny, nx)
        image = values.new_zeros((*lead, ny * nx))
        start = 0
        for index, level in self._groups:
            stop = start + len(index) * level * level
            block = values[..., start:stop].reshape(*lead, len(index), level * level)
            image[..., index] = block.mean(-1)
            start = stop
        return image.reshape(*lead, ny, nx)
