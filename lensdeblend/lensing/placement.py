"""The same sky from the pixels of another image: axes turned or mirrored, the origin elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensdeblend.lensing.parametric import SersicLens

__all__ = ["Placement", "carried"]


@dataclass(frozen=True)
class Placement:
    """Positions in one image (arcsec from its centre) as positions in another: ``matrix @ position + offset``.

    ``matrix`` ((a, b), (c, d)) is orthogonal: a turn, or a turn and a reflection.
    """

    matrix: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0))
    offset: tuple[float, float] = (0.0, 0.0)

    def __call__(self, x, y):
        """Where x and y lie in the other image."""
        (a, b), (c, d) = self.matrix
        return a * x + b * y + self.offset[0], c * x + d * y + self.offset[1]

    def turned(self, e1, e2):
        """The two components of an ellipticity or a shear in the other image."""
        (a, b), (c, d) = self.matrix
        return (a * a - b * b) * e1 + 2 * a * b * e2, (a * c - b * d) * e1 + (a * d + b * c) * e2

    @property
    def inverse(self) -> Placement:
        """From the other image back to the one."""
        (a, b), (c, d) = self.matrix
        x, y = self.offset
        return Placement(((a, c), (b, d)), (-(a * x + c * y), -(b * x + d * y)))


def carried(parameters: Tensor, model: SersicLens, placement: Placement, *, lensed: bool = True) -> Tensor:
    """Parameters (..., P) of `SersicLens` told from the one image as told from the other.

    Shear is zero at the centre of the image it is told from, so each image has a source plane of its own. ``lensed``
    moves the sources from plane to plane, so that the lensed image stays the same; otherwise they keep their place on
    the sky.
    """
    result = parameters.clone()
    result[..., 2], result[..., 3] = placement.turned(parameters[..., 2], parameters[..., 3])
    result[..., 4], result[..., 5] = placement(parameters[..., 4], parameters[..., 5])
    result[..., 6], result[..., 7] = gamma1, gamma2 = placement.turned(parameters[..., 6], parameters[..., 7])
    dx, dy = placement.offset
    between_planes = torch.stack([gamma1 * dx + gamma2 * dy, gamma2 * dx - gamma1 * dy], -1)
    for k in range(model.components):
        start = model.light_columns(k).start
        x, y = placement(parameters[..., start], parameters[..., start + 1])
        result[..., start], result[..., start + 1] = x, y
        if lensed and k < model.sources:
            result[..., start:start + 2] -= between_planes
        turned = placement.turned(parameters[..., start + 4], parameters[..., start + 5])
        result[..., start + 4], result[..., start + 5] = turned
    return result
