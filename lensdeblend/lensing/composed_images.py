r"""Composed galaxies drawn as wished: their size, shape and index those of a profile that is fitted to them.

In a band where the parts :math:`p` have the weights :math:`w_p` and the dust the optical depth :math:`k\tau`,

.. math::

    I(x) = \frac{F}{N} \, e^{-\sum_k a_k b_k(u)}\, e^{-k\tau(u)} \sum_p w_p P_p(u),

:math:`u` the plane of the galaxy, :math:`N` the integral of all that follows it, so that the flux is :math:`F`, and the
first exponential that of `lensdeblend.lensing.profile_correction` for the first band, where all weights are 1. Smooth
parts are averaged over pixels by their curvature, and over many points in the middle; knots, which may be smaller than
a pixel, are integrated over each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lensdeblend.lensing.composed import ComposedGalaxies, Parts
from lensdeblend.lensing.profile_correction import CORE, profile_frame

__all__ = ["ComposedShapes", "composed_images", "composed_shapes"]

# Rings of the integrals over a galaxy: from, to, how many, and points along each.
_RINGS = ((0.0005, CORE, 12, 4), (CORE, 0.3, 4, 12), (0.3, 3.0, 18, 18), (3.0, 150.0, 10, 8))
_IN_CORE = _RINGS[0][2] * _RINGS[0][3]
_CACHED_POINTS = 2**17
# Pixels from the middle that are divided, and into how many a side.
_MIDDLE, _DIVIDED = 2.0, 6
# Of the side of a cell: how near to a cusp the point may come that stands for it.
_SOFT = 0.2


@dataclass(frozen=True)
class ComposedShapes:
    """How galaxies are seen: ``coefficients`` (batch, 7) of the factor that shapes them, ``flux`` (batch, bands) before
    it is divided by."""

    coefficients: Tensor
    flux: Tensor


def composed_shapes(galaxies: ComposedGalaxies, n: Tensor, weights: Tensor, reddening: Tensor) -> ComposedShapes:
    """Shape the galaxies so that the profile of index ``n`` (batch,) is the closest to them in the first band.

    Parameters
    ----------
    galaxies : ComposedGalaxies
    n : Tensor
    weights : Tensor
        (bands, 3), of old, disc and young stars.
    reddening : Tensor
        (bands,), of the optical depth.
    """
    u, v, area = (part.to(n) for part in _nodes())
    rows = max(1, _CACHED_POINTS // (2 * len(u)))
    pieces = [
        _shaped(galaxies[i:i + rows], n[i:i + rows], weights, reddening, u, v, area) for i in range(0, len(n), rows)
    ]
    return ComposedShapes(*(torch.cat(parts) for parts in zip(*pieces)))


def composed_images(
    galaxies: ComposedGalaxies, shapes: ComposedShapes, n: Tensor, radius: Tensor, e1: Tensor, e2: Tensor,
    weights: Tensor, reddening: Tensor, side: int,
) -> Tensor:
    """Draw galaxies of flux 1 in the middle of square images, before any PSF: (batch, bands, side, side).

    Parameters
    ----------
    galaxies, shapes, n, weights, reddening
        As for and from `composed_shapes`.
    radius, e1, e2 : Tensor
        (batch,): half-light radius in pixels, the geometric mean of the axes, and the ellipticity of modulus
        (1 - q) / (1 + q), x towards +column.
    side : int
        Pixels.
    """
    images = n.new_empty(len(n), len(weights), side, side)
    # Galaxies of like parts together.
    has = [(part != 0).any(1) for part in (galaxies.disc, galaxies.arms, galaxies.patch_depth, galaxies.ring)]
    order = sum(2**k * one.long() for k, one in enumerate(reversed(has))).argsort(stable=True)
    for some in order.split(max(1, _CACHED_POINTS // side**2)):
        shape = ComposedShapes(shapes.coefficients[some], shapes.flux[some])
        place = _Place(radius[some], e1[some], e2[some], side)
        images[some] = _drawn(galaxies[some], shape, n[some], place, weights, reddening)
    return images


class _Place:
    """Where galaxies lie on the pixels of an image."""

    def __init__(self, radius: Tensor, e1: Tensor, e2: Tensor, side: int):
        self.radius, self.side, self.center = radius[:, None], side, (side - 1) / 2
        modulus, angle = torch.hypot(e1, e2)[:, None], 0.5 * torch.atan2(e2, e1)[:, None]
        self.cos, self.sin, self.stretch = angle.cos(), angle.sin(), torch.sqrt((1 - modulus) / (1 + modulus))

    def plane(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """From pixels about the centre, (points,) each, to the planes of the galaxies, (batch, points)."""
        along, across = self.stretch / self.radius, 1 / (self.stretch * self.radius)
        return (self.cos * along) * x + (self.sin * along) * y, (self.cos * across) * y - (self.sin * across) * x

    def sky(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The way back, (batch, points)."""
        along, across = u * (self.radius / self.stretch), v * (self.radius * self.stretch)
        return self.cos * along - self.sin * across, self.sin * along + self.cos * across


@lru_cache(1)
def _nodes() -> tuple[Tensor, Tensor, Tensor]:
    """Points of the plane, (points,), and the areas for which they stand."""
    places = []
    for start, end, count, angles in _RINGS:
        step = math.log(end / start) / count
        r = torch.exp(math.log(start) + step * (torch.arange(count, dtype=torch.float64) + 0.5))
        # Every ring turned by the golden ratio, so that arms and knots are not met in step.
        turns = torch.arange(angles) / angles + 0.618034 / angles * torch.arange(count)[:, None]
        theta = 2 * math.pi * turns.double()
        area = (r * r * (2 * math.pi * step / angles))[:, None].expand_as(theta)
        places.append(torch.stack([r[:, None] * theta.cos(), r[:, None] * theta.sin(), area]).flatten(1))
    places = torch.cat(places, 1)
    inside = math.pi * _RINGS[0][0] ** 2 / _RINGS[0][3]
    places[2, :_RINGS[0][3]] += inside
    return places.unbind(0)


def _shaped(
    galaxies: ComposedGalaxies, n: Tensor, weights: Tensor, reddening: Tensor, u: Tensor, v: Tensor, area: Tensor
) -> tuple[Tensor, Tensor]:
    knot_u, knot_v = (part.flatten(1) for part in _spread_knots(galaxies))
    count = len(u)
    u, v = (torch.cat([one.expand(len(n), -1), knots], 1) for one, knots in ((u, knot_u), (v, knot_v)))
    area = torch.cat([area, torch.zeros_like(knot_u[0])])
    parts, frame = galaxies.parts(u, v), profile_frame(n, u, v)
    old, disc, young = (part * area for part in (parts.old, parts.disc, parts.young))
    young[:, count:] = galaxies.knot_flux.repeat_interleave(4, 1) / 4
    parts = Parts(old, disc, young, parts.depth)
    light = _weighed(parts, weights[0]) * (-reddening[0] * parts.depth).exp()
    coefficients = frame.coefficients(n, u, v, light, area, _IN_CORE)
    factor = frame.log_factor(coefficients)
    flux = [
        (_weighed(parts, weight) * (factor - red * parts.depth).exp()).sum(1)
        for weight, red in zip(weights, reddening)
    ]
    return coefficients, torch.stack(flux, 1)


def _spread_knots(galaxies: ComposedGalaxies) -> Tensor:
    """Four points in the plane for each knot, (2, batch, knots, 4), that have its centre and its moments."""
    signs = galaxies.knot_size.new_tensor([[1, -1, 0, 0], [0, 0, 1, -1]])[:, None, None]
    stretch = torch.stack([galaxies.axis_ratio.sqrt(), galaxies.axis_ratio.rsqrt()])
    offsets = math.sqrt(2) * signs * (galaxies.knot_size * stretch)[..., None]
    return torch.stack(galaxies.knot_places())[..., None] + offsets


def _weighed(parts: Parts, weight: Tensor) -> Tensor:
    return torch.addcmul(torch.addcmul(weight[0] * parts.old, weight[1], parts.disc), weight[2], parts.young)


def _drawn(
    galaxies: ComposedGalaxies, shapes: ComposedShapes, n: Tensor, place: _Place, weights: Tensor, reddening: Tensor
) -> Tensor:
    grid, side = _Grid(place.side, n), place.side
    u, v = place.plane(grid.x, grid.y)
    parts = galaxies.parts(u, v, _SOFT * grid.cell / place.radius)
    factor = profile_frame(n, u, v).log_factor(shapes.coefficients)
    knots = _knots(galaxies, place, grid.steps) if bool(galaxies.knot_flux.any()) else None
    images = []
    for band, (weight, red) in enumerate(zip(weights, reddening)):
        dimming = torch.addcmul(factor, parts.depth, -red).exp_()
        light = grid.averaged(_weighed(parts, weight) * dimming) / (place.radius**2)[..., None]
        if knots is not None:
            light = torch.addcmul(light, weight[2] * knots, dimming[:, :side**2].unflatten(1, (side, side)))
        images.append(light / shapes.flux[:, band, None, None])
    return torch.stack(images, 1)


class _Grid:
    """The pixels of a square image, and after them the cells into which those in the middle are divided.

    ``x``, ``y`` (points,) from the centre and the side of each ``cell``; ``steps`` (side,) of the pixels.
    """

    def __init__(self, side: int, like: Tensor):
        self.side, self.steps = side, torch.arange(side, dtype=like.dtype, device=like.device) - (side - 1) / 2
        middle = torch.nonzero(self.steps.abs() < _MIDDLE)[:, 0]
        self._first, self._last = int(middle[0]), int(middle[-1]) + 1
        cells = (torch.arange(_DIVIDED, dtype=like.dtype, device=like.device) + 0.5) / _DIVIDED - 0.5
        lines = self.steps, (self.steps[middle, None] + cells).flatten()
        points = [torch.meshgrid(line, line, indexing="ij") for line in lines]
        self.y, self.x = (torch.cat([part.flatten() for part in axis]) for axis in zip(*points))
        self.cell = torch.where(torch.arange(len(self.x), device=like.device) < side**2, 1.0, 1 / _DIVIDED).to(like)

    def averaged(self, light: Tensor) -> Tensor:
        """Light at the points (batch, points) as means over pixels (batch, side, side)."""
        pixels, fine = light[:, :self.side**2].unflatten(1, (self.side, self.side)), light[:, self.side**2:]
        means = pixels.clone()
        means[:, 1:-1, 1:-1].add_(_curvature(pixels), alpha=1 / 24).clamp_min_(0)
        near = self._last - self._first
        block = fine.unflatten(1, (near, _DIVIDED, near, _DIVIDED)).mean((2, 4))
        means[:, self._first:self._last, self._first:self._last] = block
        return means


def _curvature(images: Tensor) -> Tensor:
    """Sum of the second differences inside of the border: a 24th of it takes a pixel's middle to its mean."""
    around = images[:, 1:-1, 2:] + images[:, 1:-1, :-2] + images[:, 2:, 1:-1] + images[:, :-2, 1:-1]
    return around - 4 * images[:, 1:-1, 1:-1]


def _knots(galaxies: ComposedGalaxies, place: _Place, steps: Tensor) -> Tensor:
    """Light of the knots in each pixel, (batch, side, side)."""
    edges = torch.cat([steps - 0.5, steps[-1:] + 0.5])
    width = math.sqrt(2) * galaxies.knot_size * place.radius
    along, up = (
        torch.erf((edges - center[..., None]) / width[..., None]).diff(dim=-1) / 2
        for center in place.sky(*galaxies.knot_places())
    )
    return (up * galaxies.knot_flux[..., None]).transpose(1, 2) @ along
