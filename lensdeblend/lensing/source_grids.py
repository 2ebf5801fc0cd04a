"""Where the pixels of a source stand, how light is read off between them, and what its roughness is.

Light is continuous: quadratic B-splines on square pixels, linear in Delaunay's triangles, and zero from the edge on.
``stiffness`` is the matrix of the integral of the squared gradient (of the coefficients, for splines: Eilers & Marx
1996, Statist. Sci. 11, 89), ``area`` what belongs to each vertex, so that a regularisation built of them means the same
on any grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.spatial import Delaunay
from torch import Tensor

__all__ = ["DelaunayGrid", "Interpolation", "RegularGrid"]


@dataclass(frozen=True)
class Interpolation:
    """How much each of a few vertices counts at points, and how that changes with the position.

    All (points, vertices a point); ``vertex`` is an index into the grid, with weight 0 where there is none.
    """

    vertex: Tensor
    weight: Tensor
    by_x: Tensor
    by_y: Tensor

    def slopes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (x, y) at the points of the light that has ``values`` (vertices,)."""
        at = values[self.vertex]
        return (self.by_x * at).sum(1), (self.by_y * at).sum(1)

    def matrix(self, count: int) -> sparse.csr_matrix:
        """From the values at ``count`` vertices to the light at the points."""
        point = np.broadcast_to(np.arange(len(self.vertex))[:, None], self.vertex.shape).ravel()
        entries = self.weight.reshape(-1).numpy(), (point, self.vertex.reshape(-1).numpy())
        return sparse.csr_matrix(entries, shape=(len(self.vertex), count))

    def values(self, values: Tensor) -> Tensor:
        """Light at the points, for ``values`` (vertices,)."""
        return (self.weight * values[self.vertex]).sum(1)


class RegularGrid:
    """Square pixels, between which the light is smooth: so is then what depends on where the lens leads.

    Parameters
    ----------
    centre : (float, float)
        x and y in arcsec.
    scale : float
        Arcsec a pixel.
    shape : (int, int)
        Rows and columns.
    """

    def __init__(self, centre: tuple[float, float], scale: float, shape: tuple[int, int]):
        self.centre, self.scale, self.shape = centre, scale, shape
        ny, nx = shape
        y, x = np.indices(shape, dtype=float)
        self.x = torch.as_tensor(((x - (nx - 1) / 2) * scale + centre[0]).reshape(-1))
        self.y = torch.as_tensor(((y - (ny - 1) / 2) * scale + centre[1]).reshape(-1))
        self.area = torch.full((ny * nx,), scale**2, dtype=torch.float64)
        one = [sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n)) for n in shape]
        self.stiffness = sparse.kronsum(one[1], one[0], format="csr")

    def __len__(self) -> int:
        return len(self.x)

    def interpolate(self, x: Tensor, y: Tensor) -> Interpolation:
        """Of points in arcsec (flat)."""
        ny, nx = self.shape
        column = (x - self.centre[0]) / self.scale + (nx - 1) / 2
        row = (y - self.centre[1]) / self.scale + (ny - 1) / 2
        nearest_column, nearest_row = torch.round(column), torch.round(row)
        u, by_u = _spline(column - nearest_column)
        v, by_v = _spline(row - nearest_row)
        step = torch.arange(-1, 2, device=x.device)
        columns = (nearest_column[:, None].long() + step)[:, None, :].expand(-1, 3, 3).reshape(-1, 9)
        rows = (nearest_row[:, None].long() + step)[:, :, None].expand(-1, 3, 3).reshape(-1, 9)
        inside = ((columns >= 0) & (columns < nx) & (rows >= 0) & (rows < ny)).to(x.dtype)

        def both(along_rows: Tensor, along_columns: Tensor) -> Tensor:
            return (along_rows[:, :, None] * along_columns[:, None, :]).reshape(-1, 9) * inside

        return Interpolation(
            rows.clamp(0, ny - 1) * nx + columns.clamp(0, nx - 1), both(v, u), both(v, by_u) / self.scale,
            both(by_v, u) / self.scale,
        )


def _spline(offset: Tensor) -> tuple[Tensor, Tensor]:
    """Quadratic B-splines of the pixels before, at and after the nearest one, and their slopes: (points, 3) each."""
    before, after = 0.5 - offset, 0.5 + offset
    return (
        torch.stack([before * before / 2, 0.75 - offset * offset, after * after / 2], 1),
        torch.stack([-before, -2 * offset, after], 1),
    )


class DelaunayGrid:
    """Triangles between given points; the light falls to zero on a ring of further points around them.

    Parameters
    ----------
    x, y : ndarray
        Arcsec.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, *, ring: int = 32):
        points = np.stack([x, y], 1)
        middle = (points.max(0) + points.min(0)) / 2
        reach = np.hypot(*(points - middle).T).max()
        spacing = np.sqrt(np.pi * reach**2 / len(points))
        angle = 2 * np.pi * np.arange(ring) / ring
        around = middle + (reach + spacing) * np.stack([np.cos(angle), np.sin(angle)], 1)
        self._count = len(points)
        self._mesh = Delaunay(np.concatenate([points, around]))
        self.x, self.y = (torch.as_tensor(np.ascontiguousarray(v, dtype=float)) for v in points.T)
        corners = self._mesh.points[self._mesh.simplices]
        side = corners[:, [2, 0, 1]] - corners[:, [1, 2, 0]]
        double = side[:, 0, 0] * side[:, 1, 1] - side[:, 0, 1] * side[:, 1, 0]
        # The slope of the light by the value at a corner: the opposite side, turned by a quarter, over twice the area.
        self._gradient = np.stack([-side[..., 1], side[..., 0]], -1) / double[:, None, None]
        total = len(self._mesh.points)
        each = np.einsum("tic,tjc->tij", self._gradient, self._gradient) * (np.abs(double) / 2)[:, None, None]
        rows, columns = (np.broadcast_to(i, each.shape).ravel() for i in (
            self._mesh.simplices[:, :, None], self._mesh.simplices[:, None, :]))
        whole = sparse.coo_matrix((each.ravel(), (rows, columns)), shape=(total, total)).tocsr()
        self.stiffness = whole[:self._count, :self._count]
        area = np.bincount(self._mesh.simplices.ravel(), np.repeat(np.abs(double) / 6, 3), minlength=total)
        self.area = torch.as_tensor(area[:self._count])

    def __len__(self) -> int:
        return self._count

    def interpolate(self, x: Tensor, y: Tensor) -> Interpolation:
        """Of points in arcsec (flat)."""
        points = torch.stack([x, y], 1).double().cpu().numpy()
        triangle = self._mesh.find_simplex(points)
        inside = (triangle >= 0)[:, None]
        vertex = self._mesh.simplices[triangle]
        gradient = self._gradient[triangle]
        from_corner = points[:, None, :] - self._mesh.points[vertex]
        weight = 1 + np.einsum("pkc,pkc->pk", gradient, from_corner)
        known = inside & (vertex < self._count)
        kind = {"dtype": x.dtype, "device": x.device}
        return Interpolation(
            torch.as_tensor(np.where(known, vertex, 0), device=x.device).long(),
            *(torch.as_tensor(v * known, **kind) for v in (weight, gradient[..., 0], gradient[..., 1])),
        )
