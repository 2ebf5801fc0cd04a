"""Light given as pixels, looked up between them by bilinear interpolation."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["interpolate"]


def interpolate(image: Tensor, x: Tensor, y: Tensor, scale: float | Tensor) -> Tensor:
    """Value of ``image`` at arcsec positions from its centre; 0 outside.

    Parameters
    ----------
    image : Tensor
        (ny, nx), or (batch, ny, nx) with positions (batch, points).
    x, y : Tensor
        Arcsec from the image's centre.
    scale : float
        Arcsec a pixel.
    """
    ny, nx = image.shape[-2:]
    column, row = x / scale + (nx - 1) / 2, y / scale + (ny - 1) / 2
    left, low = torch.floor(column), torch.floor(row)
    right_share, high_share = column - left, row - low
    left, low = left.long(), low.long()
    flat = image.reshape(*image.shape[:-2], ny * nx)

    def at(j: Tensor, i: Tensor) -> Tensor:
        inside = (i >= 0) & (i < nx) & (j >= 0) & (j < ny)
        index = j.clamp(0, ny - 1) * nx + i.clamp(0, nx - 1)
        values = flat[index] if flat.dim() == 1 else torch.gather(flat, -1, index)
        return values * inside

    return (
        at(low, left) * (1 - high_share) * (1 - right_share)
        + at(low, left + 1) * (1 - high_share) * right_share
        + at(low + 1, left) * high_share * (1 - right_share)
        + at(low + 1, left + 1) * high_share * right_share
    )
