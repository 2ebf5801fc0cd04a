r"""Galaxies as a Sérsic profile times the exponential of a departure, in a frame where all are alike.

In the standard frame a galaxy is centred, round and of half-light radius 1,

.. math::

    I(x) = \frac{F}{N} \, |\det L| \; S_n(|u|) \, e^{D(u)}, \qquad u = L\,(x - c),

with :math:`S_n` the Sérsic profile of flux 1, :math:`L` the matrix that undoes ellipticity and size, and :math:`N` the
integral of :math:`S_n e^D`, so that the flux is :math:`F` whatever the departure :math:`D`: arms, bars, knots, and
where the profile is no Sérsic. Departures are images on squeezed coordinates, in which the middle of a galaxy has more
room than its outskirts: :math:`w = u\,\mathrm{asinh}(|u|/c_0) / (|u|\,\mathrm{asinh}(u_0/c_0))`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from lensdeblend.lensing.sersic import sersic, sersic_b

__all__ = ["Placed", "placed", "sampled", "squeezed", "squeezed_area", "standard_light", "unsqueezed", "whole_flux"]

_CORE, _REACH = 0.5, 6.0
_WHOLE = math.asinh(_REACH / _CORE)
_TINY2 = 1e-12
# Pixels on each side of the one in the middle that are divided, and into how many a side.
_MIDDLE, _DIVIDED = 2, 6
# Of the side of a cell: how near to a cusp the point may come that stands for it.
_SOFT = 0.2
# Rings and angles of the integral over a departure.
_INNERMOST, _RINGS, _ANGLES = 0.05, 32, 24


@dataclass(frozen=True)
class Placed:
    """Where galaxies lie on the pixels of an image.

    ``matrix`` (batch, 2, 2): from pixels to the standard frame. ``center`` (batch, 2): x, y from the centre of the
    first pixel.
    """

    matrix: Tensor
    center: Tensor

    def points(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels x, y, (points,) or (batch, points), in the standard frame: (batch, points)."""
        dx, dy = x - self.center[:, :1], y - self.center[:, 1:]
        xx, xy, yx, yy = self.matrix.flatten(1).T[..., None]
        return xx * dx + xy * dy, yx * dx + yy * dy

    @property
    def density(self) -> Tensor:
        """Standard areas a pixel, (batch,)."""
        return torch.linalg.det(self.matrix).abs()


def placed(
    center: Tensor, radius: Tensor, e1: Tensor, e2: Tensor, *, matrix: Tensor | None = None,
    offset: Tensor | None = None,
) -> Placed:
    """Galaxies by their centre (batch, 2), half-light radius and ellipticity, (batch,) each, in pixels.

    Parameters
    ----------
    center, radius, e1, e2 : Tensor
        The radius is the geometric mean of the axes; the ellipticity of modulus (1 - q) / (1 + q), x towards +column.
    matrix, offset : Tensor, optional
        (2, 2) and (2,): from these pixels to those of the image to be drawn, where it is another one.
    """
    rows = torch.stack([torch.stack([1 - e1, -e2], -1), torch.stack([-e2, 1 + e1], -1)], -2)
    round_ = rows / (radius * torch.sqrt(1 - e1 * e1 - e2 * e2))[:, None, None]
    if matrix is None:
        return Placed(round_, center)
    return Placed(round_ @ torch.linalg.inv(matrix), center @ matrix.T + offset)


def squeezed(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """From the standard frame to where departures have their pixels: within the unit circle to six radii."""
    r = torch.sqrt(u * u + v * v + _TINY2)
    shrunk = torch.asinh(r / _CORE) / (r * _WHOLE)
    return u * shrunk, v * shrunk


def unsqueezed(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The way back."""
    rho = torch.sqrt(s * s + t * t + _TINY2)
    grown = _CORE * torch.sinh(rho * _WHOLE) / rho
    return s * grown, t * grown


def squeezed_area(s: Tensor, t: Tensor) -> Tensor:
    """Of the standard frame in that of squeezed coordinates."""
    rho = torch.sqrt(s * s + t * t + _TINY2)
    return _CORE**2 * torch.sinh(rho * _WHOLE) * torch.cosh(rho * _WHOLE) * _WHOLE / rho


def sampled(maps: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Maps on squeezed coordinates, (batch, channels, n, n), at standard places (batch, points): (batch, channels,
    points)."""
    places = torch.stack(squeezed(u, v), -1)[:, None]
    return grid_sample(maps, places, mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0]


def standard_light(
    place: Placed, n: Tensor, departure: Tensor | None, shape: tuple[int, int], *, slopes: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Draw galaxies of flux 1, averaged over pixels, before any PSF.

    Parameters
    ----------
    place : Placed
    n : Tensor
        (batch,), Sérsic indices.
    departure : Tensor or None
        (batch, bands, m, m), see `sampled`; None for none, in one band.
    shape : tuple of two ints
        Of the image.
    slopes : Tensor, optional
        (batch, bands, numbers, m, m): derivatives of the departure by some numbers.

    Returns
    -------
    images : Tensor
        (batch, bands, ny, nx).
    derivatives : Tensor or None
        (batch, bands, numbers, ny, nx), of the images by these numbers.
    """
    (ny, nx), like = shape, place.center
    steps = [torch.arange(count, dtype=like.dtype, device=like.device) for count in shape]
    y, x = (part.reshape(1, -1) for part in torch.meshgrid(*steps, indexing="ij"))
    light = _light(place, n, departure, slopes, x, y, 0.0).unflatten(-1, (ny, nx))
    light = light + _curvature(light) / 24
    light = _middle_divided(light, place, n, departure, slopes)
    if departure is None:
        return light, None
    flux, by_numbers = whole_flux(n, departure, slopes)
    bands = departure.shape[1]
    images = light[:, :bands] / flux[:, :, None, None]
    if slopes is None:
        return images, None
    derivatives = light[:, bands:].unflatten(1, (bands, -1)) / flux[:, :, None, None, None]
    return images, derivatives - images[:, :, None] * (by_numbers / flux[:, :, None])[..., None, None]


def whole_flux(n: Tensor, departure: Tensor, slopes: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Integral of Sérsic times departure, (batch, bands), and its derivatives, (batch, bands, numbers)."""
    edges = torch.logspace(
        math.log10(_INNERMOST), math.log10(2 * _REACH), _RINGS, dtype=n.dtype, device=n.device
    )
    inside = torch.special.gammainc(2 * n[:, None], sersic_b(n)[:, None] * edges ** (1 / n[:, None]))
    whole = torch.cat([torch.zeros_like(inside[:, :1]), inside, torch.ones_like(inside[:, :1])], 1)
    weight = (whole.diff(dim=1) / _ANGLES).repeat_interleave(_ANGLES, 1)
    middles = torch.cat([edges[:1] / 2, (edges[1:] * edges[:-1]).sqrt(), edges[-1:]])
    angles = torch.arange(_ANGLES, dtype=n.dtype, device=n.device) * (2 * math.pi / _ANGLES)
    # Each ring is turned, so that no arm is met by all of them.
    angles = angles + 0.618034 * torch.arange(len(middles), dtype=n.dtype, device=n.device)[:, None]
    u, v = (middles[:, None] * torch.stack([angles.cos(), angles.sin()])).flatten(1)
    parts = _departed(departure, slopes, u.expand(len(n), -1), v.expand(len(n), -1))
    total = (parts * weight[:, None]).sum(-1)
    bands = departure.shape[1]
    return total[:, :bands], None if slopes is None else total[:, bands:].unflatten(1, (bands, -1))


def _light(
    place: Placed, n: Tensor, departure: Tensor | None, slopes: Tensor | None, x: Tensor, y: Tensor, cell: float
) -> Tensor:
    """At points that stand for cells of so many pixels, (batch, channels, points), not divided by the whole flux."""
    u, v = place.points(x, y)
    one, zero = torch.ones_like(n)[:, None], torch.zeros_like(n)[:, None]
    r = torch.sqrt(u * u + v * v + (_SOFT * cell) ** 2 * place.density[:, None])
    profile = sersic(r, zero, one, n[:, None], zero, zero, zero, zero) * place.density[:, None]
    return profile[:, None] if departure is None else _departed(departure, slopes, u, v) * profile[:, None]


def _departed(departure: Tensor, slopes: Tensor | None, u: Tensor, v: Tensor) -> Tensor:
    """The exponential of the departure, and its derivatives after it, as channels."""
    if slopes is None:
        return sampled(departure, u, v).exp()
    bands = departure.shape[1]
    maps = sampled(torch.cat([departure, slopes.flatten(1, 2)], 1), u, v)
    factor = maps[:, :bands].exp()
    return torch.cat([factor, (maps[:, bands:].unflatten(1, (bands, -1)) * factor[:, :, None]).flatten(1, 2)], 1)


def _curvature(images: Tensor) -> Tensor:
    """Sum of the second differences: a 24th of it takes a pixel's middle to its mean."""
    wide = pad(images, (1, 1, 1, 1), mode="replicate")
    around = wide[..., 1:-1, 2:] + wide[..., 1:-1, :-2] + wide[..., 2:, 1:-1] + wide[..., :-2, 1:-1]
    return around - 4 * images


def _middle_divided(
    light: Tensor, place: Placed, n: Tensor, departure: Tensor | None, slopes: Tensor | None
) -> Tensor:
    """With the pixels about the centres, where light is cuspy, replaced by means over many points."""
    ny, nx = light.shape[-2:]
    like = place.center
    steps = torch.arange(-_MIDDLE, _MIDDLE + 1, device=like.device)
    parts = (torch.arange(_DIVIDED, dtype=like.dtype, device=like.device) + 0.5) / _DIVIDED - 0.5
    # Not to the even one of two that are as near: the frame must not matter.
    nearest = (place.center.detach() + 0.5).floor()
    rows, columns = (nearest[:, axis, None] + steps for axis in (1, 0))
    y, x = ((line[..., None] + parts).flatten(1) for line in (rows, columns))
    points = x[:, None, :].expand(-1, y.shape[1], -1).flatten(1), y[:, :, None].expand(-1, -1, x.shape[1]).flatten(1)
    fine = _light(place, n, departure, slopes, *points, 1 / _DIVIDED)
    side = len(steps)
    block = fine.unflatten(-1, (side, _DIVIDED, side, _DIVIDED)).mean((-3, -1)).flatten(2)
    inside = ((rows >= 0) & (rows < ny))[:, :, None] & ((columns >= 0) & (columns < nx))[:, None, :]
    index = torch.where(inside, rows.long()[:, :, None] * nx + columns.long()[:, None, :], ny * nx).flatten(1)
    # What lies off the image goes to one place beyond it.
    beyond = torch.cat([light.flatten(2), light.new_zeros(*light.shape[:2], 1)], 2)
    beyond = beyond.scatter(2, index[:, None].expand(-1, light.shape[1], -1), block)
    return beyond[..., :-1].unflatten(-1, (ny, nx))
