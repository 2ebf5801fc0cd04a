"""The eight orientations of a square image, and what they do to a lens."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lensdeblend.networks.unlensing import Seen

__all__ = ["ORIENTATIONS", "Orientation", "turned", "turned_lens", "turned_place"]


class Orientation(NamedTuple):
    """Mirror x, mirror y, then exchange the axes."""

    mirror_x: bool = False
    mirror_y: bool = False
    exchange: bool = False


#: All of them, the identity first.
ORIENTATIONS = tuple(Orientation(x, y, e) for e in (False, True) for y in (False, True) for x in (False, True))


def turned(images, orientation: Orientation, *, back: bool = False):
    """Images (..., n, n), or a `Seen` of them, in another orientation, or ``back`` from it."""
    if isinstance(images, Seen):
        parts = {name: turned(getattr(images, name), orientation, back=back) for name in ("image", "sigma", "used")}
        return replace(images, **parts)
    axes = [axis for axis, mirrored in ((-1, orientation.mirror_x), (-2, orientation.mirror_y)) if mirrored]
    if back:
        images = images.transpose(-1, -2) if orientation.exchange else images
        return images.flip(axes) if axes else images
    images = images.flip(axes) if axes else images
    return images.transpose(-1, -2) if orientation.exchange else images


def turned_lens(lens: Tensor, orientation: Orientation, *, back: bool = False) -> Tensor:
    """Lens parameters (batch, 8) of a turned image, or of the image behind one that was turned."""
    theta_E, gamma, e1, e2, x, y, gamma1, gamma2 = lens.unbind(-1)

    def exchanged():
        return -e1, e2, y, x, -gamma1, gamma2

    if back and orientation.exchange:
        e1, e2, x, y, gamma1, gamma2 = exchanged()
    if orientation.mirror_x:
        e2, x, gamma2 = -e2, -x, -gamma2
    if orientation.mirror_y:
        e2, y, gamma2 = -e2, -y, -gamma2
    if not back and orientation.exchange:
        e1, e2, x, y, gamma1, gamma2 = exchanged()
    return torch.stack([theta_E, gamma, e1, e2, x, y, gamma1, gamma2], -1)


def turned_place(place: Tensor, orientation: Orientation, *, back: bool = False) -> Tensor:
    """Positions (..., 2) from the centre of a turned image, or of the image behind one that was turned."""
    x, y = place.unbind(-1)
    if back and orientation.exchange:
        x, y = y, x
    x, y = -x if orientation.mirror_x else x, -y if orientation.mirror_y else y
    if not back and orientation.exchange:
        x, y = y, x
    return torch.stack([x, y], -1)
