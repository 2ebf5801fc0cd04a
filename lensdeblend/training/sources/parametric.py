"""Sérsic galaxies, with a bulge in a disc where asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensdeblend.lensing.sersic import sersic, sersic_b
from lensdeblend.scenes.populations.distributions import Distribution, Normal, Uniform
from lensdeblend.training.sources.base import Brightness, Sources, checked_radius, numpy_rng

__all__ = ["Parametric"]

# Rounder than a galaxy can be flat: what lies beyond is drawn back to it, direction kept.
_LARGEST_ELLIPTICITY = 0.85


@dataclass(frozen=True, eq=False, kw_only=True)
class Parametric(Sources):
    """Sérsic profiles, one a galaxy, or two of one centre and ellipticity.

    Parameters
    ----------
    n : Distribution
        Sérsic index, kept within 0.3 to 8.
    e1, e2 : Distribution
        Ellipticity, its modulus kept below 0.85.
    bulge : Distribution, optional
        Share of the flux in a second Sérsic; ``n`` is then that of the disc.
    bulge_n, bulge_size : Distribution
        Index of the bulge, and its radius over the disc's.

    Examples
    --------
    >>> import torch
    >>> from lensdeblend.training.sources import Parametric
    >>> radius = torch.tensor([0.2, 0.3])
    >>> brightness = Parametric().draw(radius, torch.Generator().manual_seed(1))
    >>> x = torch.zeros(2, 5)
    >>> brightness(x, x + 0.1).shape
    torch.Size([2, 5])
    """

    n: Distribution = Uniform(0.5, 4.0)
    e1: Distribution = Normal(0.0, 0.18)
    e2: Distribution = Normal(0.0, 0.18)
    bulge: Distribution | None = None
    bulge_n: Distribution = Uniform(2.0, 5.0)
    bulge_size: Distribution = Uniform(0.1, 0.5)

    def draw(self, radius: Tensor, generator: torch.Generator) -> Brightness:
        radius, rng = checked_radius(radius), numpy_rng(generator)

        def drawn(distribution: Distribution, low: float, high: float) -> Tensor:
            values = torch.as_tensor(distribution.draw(rng, len(radius))).clamp(low, high)
            return values.to(radius)[:, None]

        n, e1, e2 = drawn(self.n, 0.3, 8), drawn(self.e1, -1, 1), drawn(self.e2, -1, 1)
        shrunk = torch.clamp(_LARGEST_ELLIPTICITY / torch.hypot(e1, e2), max=1)
        e1, e2, zero = e1 * shrunk, e2 * shrunk, torch.zeros_like(radius)
        if self.bulge is None:
            return lambda x, y: sersic(x, y, radius, n, e1, e2, zero, zero)
        share, bulge_n = drawn(self.bulge, 0, 1), drawn(self.bulge_n, 0.3, 8)
        size = drawn(self.bulge_size, 0.02, 10)
        disc_radius = radius / half_light_radius(share, n, bulge_n, size)
        bulge_radius = disc_radius * size

        def brightness(x: Tensor, y: Tensor) -> Tensor:
            disc = sersic(x, y, disc_radius, n, e1, e2, zero, zero)
            return torch.lerp(disc, sersic(x, y, bulge_radius, bulge_n, e1, e2, zero, zero), share)

        return brightness


def half_light_radius(share: Tensor, n: Tensor, bulge_n: Tensor, size: Tensor) -> Tensor:
    """Of two Sérsic profiles of radii 1 and ``size``, the second holding ``share`` of the light: by bisection."""
    low, high = torch.minimum(torch.ones_like(size), size), torch.maximum(torch.ones_like(size), size)
    for _ in range(40):
        middle = 0.5 * (low + high)
        too_far = (1 - share) * _within(middle, n) + share * _within(middle / size, bulge_n) > 0.5
        low, high = torch.where(too_far, low, middle), torch.where(too_far, middle, high)
    return 0.5 * (low + high)


def _within(radius: Tensor, n: Tensor) -> Tensor:
    return torch.special.gammainc(2 * n, sersic_b(n) * radius ** (1 / n))
