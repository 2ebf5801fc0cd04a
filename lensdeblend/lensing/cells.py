"""Square cells of convergence about any point, for rays wherever they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lensdeblend.lensing.clumps import Clumps
from lensdeblend.lensing.parametric import Bend
from lensdeblend.lensing.subdivision import PixelGrid

__all__ = ["Cells"]


@dataclass(frozen=True)
class Cells:
    """``count`` by ``count`` square cells of ``side`` arcsec about ``middle`` (x, y).

    ``reach`` is how far from the middle, along an axis, rays may be (arcsec).

    Examples
    --------
    >>> import torch
    >>> from lensdeblend.lensing.cells import Cells
    >>> cells = Cells(9, 0.1, (0.0, 0.0), 1.0)
    >>> one = torch.zeros(9, 9, dtype=torch.float64)
    >>> one[4, 4] = torch.pi
    >>> x, _ = cells.bend(one)(torch.tensor([0.4], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    >>> print(f"{x.item():.4f}, of a point mass {0.1**2 / 0.4:.4f}")
    0.0250, of a point mass 0.0250
    """

    count: int
    side: float
    middle: tuple[float, float]
    reach: float

    @classmethod
    def over(cls, grid: PixelGrid, middle: tuple[float, float], half: float, count: int) -> Cells:
        """Cells over the square of ``half`` the width about a point, none smaller than a pixel, for the rays of a grid
        and some pixels beyond it."""
        count = max(1, min(count, int(2 * half / grid.scale)))
        edges = [
            abs(centre - place) + (n / 2 + 2) * grid.scale
            for centre, place, n in zip(grid.centre, middle, reversed(grid.padded_shape))
        ]
        return cls(count, 2 * half / count, middle, max(edges))

    def rays(self, grid: PixelGrid, dtype=torch.float64) -> Clumps:
        """What the cells do at the centres of the pixels of a grid, border included."""
        x, y = (axis.reshape(grid.padded_shape) for axis in grid.centres(dtype))
        return Clumps((self.count,) * 2, self.side, x[0] - self.middle[0], y[:, 0] - self.middle[1])

    def bend(self, convergence: Tensor) -> Bend:
        """From x and y of rays, whatever their order, to their deflection by convergences (rows, columns)."""
        side = len(self._nodes)
        first, second = (axis.reshape(side, side) for axis in self._at_nodes(convergence[None]))
        field = torch.stack([first, second], -1).reshape(-1, 2)

        def deflection(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            (column, along), (row, up) = (
                _between(at, place, self.side, side) for at, place in zip((x, y), self.middle)
            )
            corner = row * side + column
            low = torch.lerp(field[corner], field[corner + 1], along)
            high = torch.lerp(field[corner + side], field[corner + side + 1], along)
            return torch.lerp(low, high, up).unbind(-1)

        return deflection

    @cached_property
    def _nodes(self) -> Tensor:
        beyond = max(1, int(self.reach / self.side - (self.count - 1) / 2) + 1)
        count = self.count + 2 * beyond
        return (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * self.side

    @cached_property
    def _at_nodes(self) -> Clumps:
        return Clumps((self.count,) * 2, self.side, self._nodes, self._nodes)


def _between(at: Tensor, middle: float, side: float, count: int) -> tuple[Tensor, Tensor]:
    """The whole number below a place among nodes, and how far it is beyond that (points, 1)."""
    place = (at - middle) / side + (count - 1) / 2
    first = place.floor().clamp(0, count - 2)
    return first.long(), (place - first)[:, None]
