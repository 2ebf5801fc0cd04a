"""Pixels cut into finer cells where the light asks for it, and averaged back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

__all__ = ["Block", "PixelGrid", "Subdivision", "refine"]

# Points worked on at once: arrays of this length stay in a core's cache, below the size at which allocation is slow.
_BLOCK_POINTS = 8192
_DEEPEST = 12


@dataclass(frozen=True)
class PixelGrid:
    """Pixel centres of an image in arcsec, with ``border`` more pixels on every side; ``centre`` is where its middle
    lies."""

    shape: tuple[int, int]
    scale: float
    border: int = 0
    centre: tuple[float, float] = (0.0, 0.0)

    @property
    def padded_shape(self) -> tuple[int, int]:
        """(ny, nx) with the border."""
        return self.shape[0] + 2 * self.border, self.shape[1] + 2 * self.border

    @property
    def size(self) -> int:
        """Number of pixels, border included."""
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
class _Cells:
    """Squares within pixels: which pixel, where, how large (in pixels)."""

    pixel: Tensor
    x: Tensor
    y: Tensor
    side: Tensor

    def __len__(self) -> int:
        return len(self.pixel)

    def __getitem__(self, index) -> _Cells:
        return _Cells(self.pixel[index], self.x[index], self.y[index], self.side[index])

    def quartered(self, scale: float) -> _Cells:
        """Four cells for each, standing next to each other in memory."""
        sign_x = self.x.new_tensor([-1, 1, -1, 1])
        sign_y = self.x.new_tensor([-1, -1, 1, 1])
        step = self.side[:, None] * (0.25 * scale)
        return _Cells(
            self.pixel.repeat_interleave(4), (self.x[:, None] + step * sign_x).reshape(-1),
            (self.y[:, None] + step * sign_y).reshape(-1), (self.side / 2).repeat_interleave(4),
        )

    @classmethod
    def of_pixels(cls, grid: PixelGrid, pixel: Tensor, dtype, device) -> _Cells:
        x, y = grid.centres(dtype, device)
        return cls(pixel, x[pixel], y[pixel], torch.ones(len(pixel), dtype=dtype, device=device))

    @classmethod
    def joined(cls, parts: list[_Cells]) -> _Cells:
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in ("pixel", "x", "y", "side")))


@dataclass(frozen=True)
class Block:
    """Some cells with their sample points ``x``, ``y`` (cells times points a cell)."""

    pixel: Tensor
    x: Tensor
    y: Tensor
    share: Tensor
    area: Tensor

    def average(self, values: Tensor) -> Tensor:
        """(..., points) to the cells' contributions to their pixels' averages, (..., cells)."""
        return values.reshape(*values.shape[:-1], len(self.pixel), len(self.share)) @ self.share * self.area


class Subdivision:
    """Points at which a grid's pixels are sampled.

    Parameters
    ----------
    grid : PixelGrid
    cells : _Cells
        From `uniform` or `refine`.
    points : int
        Sample points a side of each cell.
    rule : {"gauss", "midpoint"}
        Gauss-Legendre points converge faster on smooth light; midpoints are what other codes' supersampling uses.
    """

    def __init__(self, grid: PixelGrid, cells: _Cells, points: int, rule: Literal["gauss", "midpoint"] = "gauss"):
        self.grid, self.cells = grid, cells
        like = cells.x
        offset, part = (torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in _points(points, rule))
        dy, dx = (o.reshape(1, -1) * grid.scale for o in torch.meshgrid(offset, offset, indexing="ij"))
        share = torch.outer(part, part).reshape(-1)
        self.blocks = []
        for index in torch.arange(len(cells), device=like.device).split(max(1, _BLOCK_POINTS // points**2)):
            some = cells[index]
            x = (some.x[:, None] + some.side[:, None] * dx).reshape(-1)
            y = (some.y[:, None] + some.side[:, None] * dy).reshape(-1)
            self.blocks.append(Block(some.pixel, x, y, share, some.side**2))

    @classmethod
    def uniform(
        cls, grid: PixelGrid, points: int, dtype=torch.float64, device="cpu", rule="gauss", used: Tensor | None = None
    ) -> Subdivision:
        """Every pixel (of those ``used``, flat) sampled ``points`` by ``points``."""
        pixel = torch.arange(grid.size) if used is None else torch.nonzero(used).reshape(-1)
        return cls(grid, _Cells.of_pixels(grid, pixel.to(device), dtype, device), points, rule)

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def render(self, brightness: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Average ``brightness(x, y)`` (..., points) over each pixel: (..., ny, nx), border included; 0 where there
        is no cell."""
        image = None
        for block in self.blocks:
            values = block.average(brightness(block.x, block.y))
            if image is None:
                image = values.new_zeros((*values.shape[:-1], self.grid.size))
            image = image.index_add(-1, block.pixel, values)
        return image.reshape(*image.shape[:-1], *self.grid.padded_shape)

    def cell_averages(self, brightness: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Each cell's contribution to its pixel's average: (..., cells)."""
        return torch.cat([block.average(brightness(block.x, block.y)) for block in self.blocks], -1)


def _points(count: int, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Offsets from a cell's centre, in its sides, and weights that sum to 1."""
    if rule == "midpoint":
        return (np.arange(count) + 0.5) / count - 0.5, np.full(count, 1 / count)
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return nodes / 2, weights / 2


def refine(
    grid: PixelGrid, brightness: Callable[[Tensor, Tensor], Tensor], tolerance: Tensor, *, used: Tensor | None = None,
    points: int = 2, shared: bool = False, most: int | None = None, dtype=torch.float64, device="cpu",
) -> Subdivision:
    """Cut pixels into quarters, and these again, until cutting changes no pixel's average by more than ``tolerance``.

    Parameters
    ----------
    brightness : callable
        ``(x, y) -> (points,)``, or ``(batch, points)``: then the most demanding image decides.
    tolerance : Tensor
        Of every pixel of the grid, border included, flat.
    used : Tensor of bool, optional
        Pixels to sample; the others get no cell.
    points : int
        Sample points a side of each cell.
    shared : bool
        Whether the cells of a pixel share its tolerance, so that their sum keeps it, too. Otherwise each of them may be
        wrong by as much, and a pixel with a cusp by some ten times that.
    most : int, optional
        Cutting stops before there are more cells than this.

    Returns
    -------
    Subdivision

    Notes
    -----
    Pixels beside one that is cut are cut with it: a cusp can escape the points of one pixel, but not of all around it.
    """
    pixel = torch.arange(grid.size) if used is None else torch.nonzero(used).reshape(-1)
    cells = _Cells.of_pixels(grid, pixel.to(device), dtype, device)
    tolerance = tolerance.to(device)
    coarse = Subdivision(grid, cells, points).cell_averages(brightness)
    done = []
    for depth in range(_DEEPEST):
        finer = cells.quartered(grid.scale)
        fine = Subdivision(grid, finer, points).cell_averages(brightness)
        together = fine.reshape(*fine.shape[:-1], len(cells), 4).sum(-1)
        change = (together - coarse).abs()
        change = change.reshape(-1, len(cells)).amax(0)
        cut = change > tolerance[cells.pixel] * (cells.side if shared else 1)
        if depth:
            # A cusp can escape the points of one cell, but hardly those of its three siblings as well.
            cut = cut.reshape(-1, 4).any(1).repeat_interleave(4)
        if depth < 2:
            marked = torch.zeros(grid.size, dtype=torch.bool, device=device)
            marked[cells.pixel[cut]] = True
            cut = cut | _with_neighbours(marked, grid.padded_shape)[cells.pixel]
        if most is not None and sum(map(len, done)) + len(cells) + 3 * int(cut.sum()) > most:
            done.append(cells)
            break
        done.append(cells[~cut])
        if not bool(cut.any()):
            break
        chosen = cut.repeat_interleave(4)
        cells, coarse = finer[chosen], fine[..., chosen]
    else:
        done.append(cells)
    return Subdivision(grid, _Cells.joined(done), points)


def _with_neighbours(chosen: Tensor, shape: tuple[int, int]) -> Tensor:
    spread = torch.nn.functional.max_pool2d(chosen.reshape(1, 1, *shape).float(), 3, stride=1, padding=1)
    return spread.reshape(-1) > 0
