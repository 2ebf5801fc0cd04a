"""From the image plane to the source plane and back, by tracing the pixels themselves: no source model.

Gravitational lensing conserves surface brightness, so each image pixel is a measurement of the source where its ray
ends. `delens` collects these measurements on a grid in the source plane; `relens` looks a source up where the rays end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lensdeblend.lensing.epl import epl
from lensdeblend.lensing.halos import shear
from lensdeblend.lensing.subdivision import PixelGrid

__all__ = ["delens", "relens", "source_positions"]


def source_positions(lens: Tensor, x: Tensor, y: Tensor, terms: int | None = None) -> tuple[Tensor, Tensor]:
    """Where rays through ``x``, ``y`` (points,) end behind each lens.

    Parameters
    ----------
    lens : Tensor
        (batch, 8): ``theta_E``, ``gamma``, ``e1``, ``e2``, ``center_x``, ``center_y``, ``gamma1``, ``gamma2``, in the
        unit of the positions.
    x, y : Tensor
        (points,), or (batch, points).
    terms : int, optional
        Length of the deflection's series.

    Returns
    -------
    x, y : Tensor
        (batch, points).
    """
    columns = [column[:, None] for column in lens.unbind(1)]
    x, y = (axis if axis.dim() > 1 else axis[None] for axis in (x, y))
    along_x, along_y = epl(x, y, *columns[:6], terms=terms)
    shear_x, shear_y = shear(x, y, *columns[6:])
    return x - along_x - shear_x, y - along_y - shear_y


def delens(
    image: Tensor, lens: Tensor, *, supersampling: int = 2, terms: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Surface brightness measured in the source plane.

    Parameters
    ----------
    image : Tensor
        (batch, ny, nx).
    lens : Tensor
        (batch, 8) as for `source_positions`, lengths in pixels from the image's centre.
    supersampling : int
        Rays a side of each pixel; between pixel centres the image is interpolated.

    Returns
    -------
    mean, scatter, weight : Tensor
        (batch, ny, nx): mean and standard deviation of the rays' brightness around each pixel of the source plane, both
        0 where none ends, and the number of rays, in units of the number a pixel sends out.
    """
    ny, nx = image.shape[-2:]
    fine = PixelGrid((ny * supersampling, nx * supersampling), 1 / supersampling)
    x, y = fine.centres(image.dtype, image.device)
    values = image
    if supersampling > 1:
        values = torch.nn.functional.interpolate(
            image[:, None], scale_factor=supersampling, mode="bilinear", align_corners=False
        )[:, 0]
    values = values.flatten(1)
    beta_x, beta_y = source_positions(lens, x, y, terms)
    column, row = beta_x + (nx - 1) / 2, beta_y + (ny - 1) / 2
    left, low = column.floor(), row.floor()
    right_share, high_share = column - left, row - low
    left, low = left.long(), low.long()
    total = image.new_zeros(3, len(image), ny * nx)
    for up in (0, 1):
        for right in (0, 1):
            i, j = left + right, low + up
            share = (right_share if right else 1 - right_share) * (high_share if up else 1 - high_share)
            share = share * ((i >= 0) & (i < nx) & (j >= 0) & (j < ny))
            index = j.clamp(0, ny - 1) * nx + i.clamp(0, nx - 1)
            once = share * values
            total[0].scatter_add_(1, index, share)
            total[1].scatter_add_(1, index, once)
            total[2].scatter_add_(1, index, once * values)
    weight, first, second = total
    seen = weight > 1e-3
    norm = torch.where(seen, weight, torch.ones_like(weight))
    mean = torch.where(seen, first / norm, torch.zeros_like(first))
    variance = torch.where(seen, second / norm - mean**2, torch.zeros_like(mean)).clamp_min(0)
    scatter = (variance + 1e-12).sqrt() - 1e-6
    return tuple(part.reshape(-1, ny, nx) for part in (mean, scatter, weight / supersampling**2))


def relens(
    source: Tensor, lens: Tensor, shape: tuple[int, int], *, pixel: float = 1.0, border: int = 0,
    supersampling: int = 2, terms: int | None = None, center: Tensor | None = None,
) -> Tensor:
    """Image of a source given as pixels, before the point-spread function.

    Parameters
    ----------
    source : Tensor
        (batch, my, mx): surface brightness; 0 outside.
    lens : Tensor
        (batch, 8) as for `source_positions`, lengths in image pixels.
    shape : tuple of int
        (ny, nx) of the image.
    pixel : float
        Side of a source pixel in image pixels.
    border : int
        Pixels rendered beyond the frame.
    supersampling : int
        Rays a side of each pixel.
    center : Tensor, optional
        (2,): x, y of the middle of the source's grid; left out, the origin.

    Returns
    -------
    Tensor
        (batch, ny + 2 border, nx + 2 border): mean brightness a pixel.
    """
    size = tuple(n + 2 * border for n in shape)
    fine = PixelGrid(tuple(n * supersampling for n in size), 1 / supersampling)
    x, y = fine.centres(source.dtype, source.device)
    beta_x, beta_y = source_positions(lens, x, y, terms)
    if center is not None:
        beta_x, beta_y = beta_x - center[0], beta_y - center[1]
    my, mx = source.shape[-2:]
    where = torch.stack([beta_x / (pixel * mx / 2), beta_y / (pixel * my / 2)], -1)
    where = where.reshape(len(source), *(n * supersampling for n in size), 2)
    image = torch.nn.functional.grid_sample(source[:, None], where, mode="bilinear", align_corners=False)
    return torch.nn.functional.avg_pool2d(image, supersampling)[:, 0] if supersampling > 1 else image[:, 0]
