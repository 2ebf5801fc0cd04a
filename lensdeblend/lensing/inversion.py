r"""Semi-linear inversion: the source as pixels, solved for linearly behind a lens that is not.

The data in units of the noise, less what is parametric, are :math:`r = F g + n` with the mapping matrix :math:`F` of
`PixelMapping`. With the prior :math:`g \sim N(0, (\lambda C)^{-1})` the most probable source and the evidence are

.. math::

    A = F^T F + \lambda C, \qquad \hat g = A^{-1} F^T r,

.. math::

    -2 \ln E = |r|^2 - r^T F \hat g + \ln\det A - N \ln\lambda - \ln\det C + \mathrm{const}

(Warren & Dye 2003ApJ...590..673W; Suyu et al. 2006MNRAS.371..983S). Derivatives by the lens parameters are in closed
form: those of :math:`F \hat g` through the gradient of the source, those of :math:`\ln\det A` through the mapping.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from scipy.linalg.blas import dsyrk
from scipy.optimize import minimize_scalar
from torch import Tensor

from lensdeblend.lensing.epl import epl_jacobian
from lensdeblend.lensing.source_grids import DelaunayGrid, Interpolation, RegularGrid
from lensdeblend.lensing.subdivision import Subdivision

__all__ = ["Inversion", "Mapped", "PixelMapping", "Solution", "SourceFrame", "seeing_matrix", "trace_back"]


def trace_back(x: Tensor, y: Tensor, lens: Tensor) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Source positions of points, and how they change with each of the eight lens parameters (as in `SersicLens`)."""
    theta_E, gamma, e1, e2, cx, cy, g1, g2 = lens
    z = torch.complex(x, y)
    alpha, by_lens = epl_jacobian(z, theta_E, gamma, e1, e2, torch.complex(cx, cy))
    beta = z - alpha - torch.complex(g1, g2) * z.conj().resolve_conj()
    moves = [(-d.real, -d.imag) for d in by_lens] + [(-x, y), (-y, -x)]
    return beta.real.contiguous(), beta.imag.contiguous(), moves


class SourceFrame:
    """Coordinates of the source plane that move with the lens: from the centre of the light, in units of its size.

    A lens that magnifies less makes the source larger, and leaves fewer pixels of sky around it on a grid that stays;
    so evidence would favour it. In this frame the grid grows along.

    Parameters
    ----------
    x, y : Tensor
        Image positions of the arcs.
    weight : Tensor
        Their light.
    """

    def __init__(self, x: Tensor, y: Tensor, weight: Tensor):
        self._x, self._y, self._weight = x, y, weight / weight.sum()

    def at(self, lens: Tensor) -> tuple[Tensor, Tensor]:
        """The centre (2,), and the matrix (2, 2) from arcsec from there to the frame."""
        centre, matrix, _, _ = self._with_slopes(lens)
        return centre, matrix

    def __call__(self, x: Tensor, y: Tensor, moves, lens: Tensor):
        """Positions in the frame, and how they change with the lens if they move in the source plane by ``moves``."""
        centre, matrix, centre_moves, matrix_moves = self._with_slopes(lens)
        dx, dy = x - centre[0], y - centre[1]
        moved = []
        for (by_x, by_y), (cx, cy), ((kxx, kxy), (kyx, kyy)) in zip(moves, centre_moves, matrix_moves):
            (xx, xy), (yx, yy) = matrix
            by_x, by_y = by_x - cx, by_y - cy
            moved.append((
                xx * by_x + xy * by_y + kxx * dx + kxy * dy, yx * by_x + yy * by_y + kyx * dx + kyy * dy
            ))
        px, py = matrix @ torch.stack([dx, dy])
        return px, py, moved

    def _with_slopes(self, lens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, y, moves = trace_back(self._x, self._y, lens)
        positions = torch.stack([x, y])
        change = torch.stack([torch.stack([mx.expand_as(x), my.expand_as(y)]) for mx, my in moves])
        centre, centre_moves = positions @ self._weight, change @ self._weight
        off = positions - centre[:, None]
        spread = (off * self._weight) @ off.T
        half = torch.einsum("pin,jn,n->pij", change, off, self._weight)
        spread_moves = half + half.transpose(1, 2)
        # The square root of a symmetric 2 by 2 matrix S is (S + sqrt(det S)) / sqrt(tr S + 2 sqrt(det S)).
        eye = torch.eye(2, dtype=x.dtype)
        root_det = torch.linalg.det(spread).sqrt()
        scale = (spread.trace() + 2 * root_det).sqrt()
        root = (spread + root_det * eye) / scale
        root_det_moves = 0.5 * root_det * torch.einsum("ij,pji->p", torch.linalg.inv(spread), spread_moves)
        scale_moves = (torch.einsum("pii->p", spread_moves) / 2 + root_det_moves) / scale
        root_moves = (
            spread_moves + root_det_moves[:, None, None] * eye - scale_moves[:, None, None] * root
        ) / scale
        matrix = torch.linalg.inv(root)
        return centre, matrix, centre_moves, -matrix @ root_moves @ matrix


def seeing_matrix(subdivision: Subdivision, kernel: Tensor | None, weight: Tensor) -> sparse.csr_matrix:
    """From light in the padded pixels to the unmasked pixels in units of the noise: through the PSF.

    ``weight`` (ny, nx) is one over the noise, 0 where masked.
    """
    grid = subdivision.grid
    ny, nx = grid.padded_shape
    weight = weight.double().cpu().numpy()
    rows, columns = np.nonzero(weight > 0)
    kernel = np.ones((1, 1)) if kernel is None else kernel.double().cpu().numpy()
    half_y, half_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    dy, dx = np.indices(kernel.shape)
    from_y = rows[:, None] + grid.border - (dy.ravel() - half_y)
    from_x = columns[:, None] + grid.border - (dx.ravel() - half_x)
    values = weight[rows, columns][:, None] * kernel.ravel()
    inside = (from_y >= 0) & (from_y < ny) & (from_x >= 0) & (from_x < nx) & (values != 0)
    index = np.broadcast_to(np.arange(len(rows))[:, None], values.shape)[inside]
    return sparse.csr_matrix(
        (values[inside], (index, from_y[inside] * nx + from_x[inside])), shape=(len(rows), ny * nx)
    )


@dataclass(frozen=True)
class Mapped:
    """The mapping at given lens parameters.

    ``matrix`` (rows, N) leads from the source to those unmasked pixels that see it, ``rows``, in units of the noise.
    """

    matrix: Tensor
    rows: Tensor
    points: Interpolation
    moves: list[tuple[Tensor, Tensor]]


class PixelMapping:
    """From the vertices of a source grid to the pixels of an image.

    Parameters
    ----------
    grid : RegularGrid or DelaunayGrid
        Of the source.
    subdivision : Subdivision
        Sample points of the image's pixels.
    seeing : sparse matrix
        From `seeing_matrix`.
    scaling : Tensor, optional
        (N,): the light at a vertex is this times the unknown there; 1 where left out.
    """

    def __init__(
        self, grid: RegularGrid | DelaunayGrid, subdivision: Subdivision, seeing: sparse.csr_matrix,
        scaling: Tensor | None = None, frame: SourceFrame | None = None,
    ):
        self.grid, self.seeing, self.frame = grid, seeing, frame
        self.scaling = torch.ones(len(grid), dtype=torch.float64) if scaling is None else scaling
        self._seeing_single = seeing.astype(np.float32)
        self._size = subdivision.grid.size
        self._x, self._y = (torch.cat([getattr(block, c) for block in subdivision]) for c in "xy")
        self._pixel = torch.cat([b.pixel.repeat_interleave(len(b.share)) for b in subdivision])
        area = subdivision.grid.scale**2
        self._share = torch.cat([(b.area[:, None] * b.share).reshape(-1) for b in subdivision]) * area

    def __call__(self, lens: Tensor) -> Mapped:
        """At eight lens parameters."""
        x, y, moves = trace_back(self._x, self._y, lens)
        if self.frame is not None:
            x, y, moves = self.frame(x, y, moves, lens)
        points = self.grid.interpolate(x, y)
        values = (points.weight * self.scaling[points.vertex] * self._share[:, None]).numpy()
        pixel = self._pixel[:, None].expand_as(points.vertex).numpy()
        hit = values != 0
        unseen = sparse.csr_matrix(
            (values[hit], (pixel[hit], points.vertex.numpy()[hit])), shape=(self._size, len(self.grid))
        )
        seen = self.seeing @ unseen
        rows = np.nonzero(np.diff(seen.indptr))[0]
        return Mapped(torch.as_tensor(seen[rows].toarray()), torch.as_tensor(rows), points, moves)

    def lens_slopes(self, mapped: Mapped, source: Tensor) -> Tensor:
        """Derivatives (8, M) of the image of ``source`` (N,), in units of the noise, over all unmasked pixels."""
        along_x, along_y = mapped.points.slopes(source * self.scaling)
        change = torch.stack([(along_x * mx + along_y * my) * self._share for mx, my in mapped.moves])
        pixels = change.new_zeros(len(change), self._size).index_add_(1, self._pixel, change)
        return torch.as_tensor((self.seeing @ pixels.T.numpy()).T)

    def log_determinant_slopes(self, mapped: Mapped, times_inverse: Tensor) -> Tensor:
        """Derivatives (8,) of ln det A, for ``times_inverse`` the matrix (rows, N) times the inverse of A."""
        back = torch.as_tensor(self._seeing_single[mapped.rows.numpy()].T @ times_inverse.float().numpy())
        points = mapped.points
        at = back[self._pixel[:, None], points.vertex] * self.scaling[points.vertex] * self._share[:, None]
        along_x, along_y = (points.by_x * at).sum(1), (points.by_y * at).sum(1)
        return 2 * torch.stack([(along_x * mx + along_y * my).sum() for mx, my in mapped.moves])


@dataclass(frozen=True)
class Solution:
    """The most probable source at one strength.

    ``objective`` is minus twice the logarithm of the evidence, but for a constant.
    """

    strength: float
    source: Tensor
    factor: Tensor
    chi2: float
    penalty: float
    log_determinant: float
    objective: float

    def solve(self, right: Tensor) -> Tensor:
        """The inverse of A times ``right`` (N, ...)."""
        return torch.cholesky_solve(right.to(self.factor.device), self.factor).to(right.device)

    @property
    def covariance(self) -> Tensor:
        """Of the source: the inverse of A."""
        return torch.cholesky_inverse(self.factor).cpu()


def _gram(matrix: Tensor) -> Tensor:
    """``matrix.T @ matrix``; on a CPU half of it is computed, and mirrored."""
    if matrix.device.type != "cpu":
        return matrix.T @ matrix
    upper = torch.as_tensor(dsyrk(1.0, matrix.T.numpy()))
    return upper + upper.T - torch.diag(upper.diagonal())


class Inversion:
    """The linear problem at one mapping.

    Parameters
    ----------
    matrix : Tensor
        (M, N), in units of the noise.
    precision : Tensor
        (N, N): C, on the device where the dense algebra is to be done. What goes in and comes out is on the CPU.
    log_determinant : float
        Of C.
    """

    def __init__(self, matrix: Tensor, precision: Tensor, log_determinant: float):
        self.matrix = matrix.to(precision.device)
        self.precision, self.precision_log_determinant = precision, log_determinant
        self.gram = _gram(self.matrix)

    def solve(self, data: Tensor, strength: float, factor: Tensor | None = None) -> Solution:
        """For ``data`` (M,) in units of the noise; ``factor`` is that of another solution at this strength."""
        data = data.to(self.matrix.device)
        right = self.matrix.T @ data
        if factor is None:
            factor = torch.linalg.cholesky(self.gram + strength * self.precision)
        source = torch.cholesky_solve(right[:, None], factor)[:, 0]
        log_determinant = 2 * float(factor.diagonal().log().sum())
        total = float(data @ data - right @ source)
        penalty = strength * float(source @ (self.precision @ source))
        objective = total + log_determinant - len(right) * np.log(strength) - self.precision_log_determinant
        return Solution(strength, source.cpu(), factor, total - penalty, penalty, log_determinant, objective)

    def solve_nonnegative(self, data: Tensor, free: Solution) -> Solution:
        """The most probable source without negative values, at the strength of ``free``.

        Block principal pivoting (Kim & Park 2011, SIAM J. Sci. Comput. 33, 3261): all values of the wrong sign change
        sides at once, and one by one where that does not end.
        """
        system = (self.gram + free.strength * self.precision).cpu()
        right = (self.matrix.T @ data.to(self.matrix.device)).cpu()
        positive = free.source > 0
        fewest, patience = len(right) + 1, 3
        for _ in range(10 * len(right)):
            source = torch.zeros_like(right)
            index = torch.nonzero(positive).reshape(-1)
            if len(index):
                factor = torch.linalg.cholesky(system[index][:, index])
                source[index] = torch.cholesky_solve(right[index][:, None], factor)[:, 0]
            slope = system @ source - right
            wrong = (positive & (source < 0)) | (~positive & (slope < -1e-9 * right.abs().max()))
            count = int(wrong.sum())
            if not count:
                break
            if count < fewest:
                fewest, patience = count, 3
            elif patience:
                patience -= 1
            else:
                last = int(torch.nonzero(wrong).max())
                wrong = torch.zeros_like(wrong)
                wrong[last] = True
            positive = positive ^ wrong
        residual = data - self.matrix.cpu() @ source
        penalty = free.strength * float(source @ (self.precision.cpu() @ source))
        return replace(free, source=source, chi2=float(residual @ residual), penalty=penalty)

    def best_strength(self, data: Tensor, around: float, decades: float = 3.0) -> Solution:
        """With the strength of most evidence, sought ``decades`` up and down."""

        def objective(exponent: float) -> float:
            return self.solve(data, 10.0**exponent).objective

        middle = np.log10(around)
        found = minimize_scalar(
            objective, bounds=(middle - decades, middle + decades), method="bounded", options={"xatol": 0.05}
        )
        return self.solve(data, 10.0**found.x)
