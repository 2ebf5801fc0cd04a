"""Maps of a power law with shear, each with its derivatives by the eight lens parameters (as in `SersicLens`)."""

from __future__ import annotations

import torch
from torch import Tensor

from lensdeblend.lensing.critical import inverse_magnification
from lensdeblend.lensing.epl import epl_convergence, epl_convergence_jacobian, epl_jacobian
from lensdeblend.lensing.subdivision import PixelGrid, Subdivision, refine

__all__ = ["convergence_map", "deflection_map", "determinant_map"]

_PRECISION = 1e-4
_MOST_CELLS = 40_000
_STEP = 1e-5


def deflection_map(grid: PixelGrid, lens: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection at the pixel centres, shear included: (2, ny, nx), and (8, 2, ny, nx) by the parameters."""
    z = torch.complex(*grid.centres())
    theta_E, gamma, e1, e2, cx, cy, gamma1, gamma2 = lens
    alpha, slopes = epl_jacobian(z, theta_E, gamma, e1, e2, torch.complex(cx, cy))
    along = z.conj().resolve_conj()
    whole = torch.stack([alpha + torch.complex(gamma1, gamma2) * along, *slopes, along, 1j * along])
    parts = torch.stack([whole.real, whole.imag], 1).reshape(9, 2, *grid.padded_shape)
    return parts[0], parts[1:]


def convergence_map(grid: PixelGrid, lens: Tensor) -> tuple[Tensor, Tensor]:
    """Convergence averaged over each pixel, since it is infinite at the centre: (ny, nx), and (8, ny, nx) by the
    parameters, zero for the shear."""

    def convergence(x: Tensor, y: Tensor) -> Tensor:
        return epl_convergence(x, y, *lens[:6])

    def both(x: Tensor, y: Tensor) -> Tensor:
        values, slopes = epl_convergence_jacobian(x, y, *lens[:6])
        return torch.stack([values, *slopes])

    rough = Subdivision.uniform(grid, 2).render(convergence).reshape(-1)
    maps = refine(grid, convergence, _PRECISION * rough, most=_MOST_CELLS + 4 * grid.size).render(both)
    return maps[0], torch.cat([maps[1:], torch.zeros_like(maps[:2])])


def determinant_map(grid: PixelGrid, lens: Tensor) -> tuple[Tensor, Tensor]:
    """Determinant of the lensing Jacobian at the pixel centres, one over the magnification: (ny, nx), and (8, ny, nx)
    by the parameters, by central differences."""
    x, y = grid.centres()
    steps = torch.eye(8, dtype=lens.dtype) * _STEP
    slopes = [
        (inverse_magnification(x, y, lens + step) - inverse_magnification(x, y, lens - step)) / (2 * _STEP)
        for step in steps
    ]
    shape = grid.padded_shape
    return inverse_magnification(x, y, lens).reshape(shape), torch.stack(slopes).reshape(8, *shape)
