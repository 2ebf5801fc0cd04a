r"""Procedural galaxies whose parts are told apart, so that each can have its own spectrum.

The parts are those of `lensdeblend.lensing.procedural_light`, with a disc of any Sérsic index and a ring

.. math::

    R = \frac{F_R}{(2\pi)^{3/2}\, r_R\, w}\; e^{-(r - r_R)^2 / 2w^2},

grouped by age: old stars are in bulge and bar, young ones in knots, ring and half of the arms, the others in the disc.
Knots are round on the sky.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lensdeblend.lensing.procedural import KINDS, Drawn, shaped
from lensdeblend.lensing.procedural_light import ProceduralGalaxies
from lensdeblend.lensing.sersic import elliptical_radius2, sersic, sersic_b

__all__ = ["ComposedGalaxies", "Parts", "draw_composed"]

# Half-light radii at which galaxies end.
_EDGE = 16.0
_SOFTENING2 = 1e-6
# Of the light of arms.
_YOUNG = 0.5
_FADING = 1 / 12
# Flatter discs show no arms: they are seen through.
_EDGE_ON, _ARMS_SEEN = 0.15, 0.4
_LEAST = 1e-6
_COLUMNS = 208
_REACH = 0.4
_BISECTIONS = 30
_UNWARPING = 5


@dataclass(frozen=True)
class Parts:
    """Surface brightness of ``old``, ``disc`` and ``young`` stars without knots, and the optical ``depth`` of the dust
    before them; (batch, points)."""

    old: Tensor
    disc: Tensor
    young: Tensor
    depth: Tensor


@dataclass(frozen=True)
class ComposedGalaxies(ProceduralGalaxies):
    """`~lensdeblend.lensing.procedural_light.ProceduralGalaxies` with a ring and discs of any index.

    Attributes
    ----------
    disc_n : Tensor
        Sérsic index of the disc; ``disc_scale`` is where it has fallen by e.
    ring, ring_radius, ring_width : Tensor
        Flux, radius and standard deviation of the annulus.
    """

    disc_n: Tensor
    ring: Tensor
    ring_radius: Tensor
    ring_width: Tensor

    def parts(self, u: Tensor, v: Tensor, softening: Tensor | float = 0.0) -> Parts:
        """At places (batch, points) in the plane of the galaxy, along and across the major axis; its ``scale`` and
        ``amplitude`` are left aside. Cusps are no sharper than ``softening`` (batch, 1)."""
        taper = torch.clamp(1 - (u * u + v * v) / _EDGE**2, min=0).square()
        bulge = self._bulge(u, v, softening)
        u, v = self._warped(u, v)
        r2 = torch.addcmul(u * u, v, v) + _SOFTENING2
        phase, rise = self._arm_phase(u, v, r2), r2 / (r2 + self.arm_start**2 + _FADING * r2 * r2)
        r = r2.sqrt()
        smooth = self._smooth(u, v, r2, r) * taper
        across = torch.exp(self.arm_sharpness * torch.cos(phase) - self.arm_sharpness)
        arms = smooth * (self.arms * rise)
        in_arms = arms * (across / torch.special.i0e(self.arm_sharpness))
        spread = (r - self.ring_radius) / self.ring_width
        ring = torch.exp(-0.5 * spread * spread)
        per_area = self.ring / ((2 * math.pi) ** 1.5 * self.ring_radius * self.ring_width)
        return Parts(
            old=(bulge + self._bar(u, v)) * taper, disc=smooth - arms + (1 - _YOUNG) * in_arms,
            young=torch.addcmul(_YOUNG * in_arms, per_area, ring), depth=self._optical_depth(u, v, phase, rise),
        )

    def knot_places(self) -> tuple[Tensor, Tensor]:
        """Of the knots in the plane as it is before it is warped, (batch, knots)."""
        u, v = self.knot_x, self.knot_y
        for _ in range(_UNWARPING):
            warped_u, warped_v = self._warped(u, v)
            u, v = u - (warped_u - self.knot_x), v - (warped_v - self.knot_y)
        return u, v

    def _bulge(self, u: Tensor, v: Tensor, softening: Tensor | float) -> Tensor:
        zero = torch.zeros_like(self.bulge)
        r = torch.sqrt(elliptical_radius2(u, v, self.bulge_e1, self.bulge_e2) + softening**2)
        return self.bulge * sersic(r, zero, self.bulge_radius, self.bulge_n, zero, zero, zero, zero)

    def _smooth(self, u: Tensor, v: Tensor, r2: Tensor, r: Tensor) -> Tensor:
        norm = 2 * math.pi * self.disc_n * self.disc_scale**2 * torch.lgamma(2 * self.disc_n).exp()
        fall = ((r.log() - self.disc_scale.log()) / self.disc_n).exp()
        lopsided = 1 + (self.lopsided_x * u + self.lopsided_y * v) * torch.rsqrt(r2 + self.disc_scale**2)
        return (-fall).exp() * (self.disc / norm) * lopsided


def draw_composed(
    n: Tensor, ellipticity: Tensor, generator: torch.Generator, *, mix: list[float] | None = None,
) -> tuple[ComposedGalaxies, Tensor]:
    """Galaxies at random that suit their Sérsic index and their ellipticity.

    Galaxy ``i`` of a seed is the same whatever their number.

    Parameters
    ----------
    n, ellipticity : Tensor
        (batch,), the latter of modulus (1 - q) / (1 + q).
    generator : torch.Generator
    mix : list of float, optional
        A weight for each of `~lensdeblend.lensing.procedural.KINDS`, by which its likelihood is multiplied.

    Returns
    -------
    ComposedGalaxies
        With the major axis along x and the half-light radius near 1.
    Tensor
        (batch,), the place of the kind among `~lensdeblend.lensing.procedural.KINDS`.
    """
    drawn = Drawn(len(n), generator, n.device, n.dtype, columns=_COLUMNS)
    n, ellipticity = n[:, None], ellipticity[:, None]
    kind = _chosen(drawn.uniform(), _likelihoods(n, ellipticity, mix))
    is_kind = {name: (kind == place).to(n) for place, name in enumerate(KINDS)}
    base = shaped(drawn, is_kind)
    return _suited(base, drawn, is_kind, n, ellipticity), kind[:, 0]


def _likelihoods(n: Tensor, ellipticity: Tensor, mix: list[float] | None) -> Tensor:
    """Of each kind, (batch, kinds): early ones at high indices, ellipticals never flatter than E7."""
    late, early = 1 / (1 + (n / 2.6) ** 6), torch.sigmoid((n.log() - math.log(2.2)) / 0.15)
    suited = {
        "elliptical": early * torch.sigmoid((0.42 - ellipticity) / 0.05),
        "lenticular": 0.5 * torch.sigmoid((n.log() - math.log(1.5)) / 0.15),
        "spiral": 0.6 * late, "barred": 0.35 * late, "irregular": 0.35 / (1 + (n / 1.1) ** 6),
    }
    likelihoods = torch.cat([suited[kind] for kind in KINDS], 1).clamp_min(_LEAST)
    return likelihoods if mix is None else likelihoods * likelihoods.new_tensor(mix)


def _chosen(uniform: Tensor, likelihoods: Tensor) -> Tensor:
    edges = likelihoods.cumsum(1)
    return (uniform * edges[:, -1:] >= edges[:, :-1]).sum(1, keepdim=True)


def _suited(
    base: ProceduralGalaxies, drawn: Drawn, kind: dict[str, Tensor], n: Tensor, ellipticity: Tensor
) -> ComposedGalaxies:
    elliptical, irregular = kind["elliptical"], kind["irregular"]
    discs = 1 - elliptical
    axis_ratio = (1 - ellipticity) / (1 + ellipticity)
    disc_n = n.clamp(0.3, 1.0)
    # The more concentrated, the more of the light is in a bulge.
    bulge = 0.75 * (1 - torch.exp(-(n - 1).clamp_min(0) / 2.2)) * drawn.uniform(0.8, 1.2)
    bulge = discs * (1 - irregular) * torch.maximum(bulge, 0.2 * base.bulge * (n > 0.8))
    bulge_n = discs * (n * drawn.uniform(0.8, 1.2)).clamp(1.0, 5.0) + elliptical * n
    bulge_radius = discs * drawn.log_uniform(0.14, 0.3) * (1 + 2.5 * bulge) + elliptical
    bulge_e = discs * drawn.uniform(0.3, 0.7) * ellipticity + elliptical * ellipticity
    # As seen in the plane of the disc, where what is rounder than it is longer across.
    bulge_e = (bulge_e - ellipticity) / (1 - bulge_e * ellipticity)
    rest = discs * (1 - bulge) + elliptical
    seen = ((axis_ratio - _EDGE_ON) / (_ARMS_SEEN - _EDGE_ON)).clamp(0, 1)
    bar, knots = (rest * part for part in (base.bar, base.knot_flux.sum(1, keepdim=True)))
    ringed = drawn.happens(0.15 * kind["spiral"] + 0.35 * kind["barred"] + 0.2 * kind["lenticular"])
    ring = rest * ringed * drawn.uniform(0.06, 0.25)
    inner = drawn.happens(kind["barred"])
    # Discs of low index end soon.
    reach = disc_n**_REACH
    ring_radius = (inner * base.bar_length + (1 - inner) * drawn.uniform(0.9, 1.8)) * reach
    disc = discs * (rest - bar - knots - ring).clamp_min(0.15)
    radius = _disc_radius(bulge + elliptical, bulge_radius, bulge_n, disc_n)
    one, zero = torch.ones_like(n), torch.zeros_like(n)
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__}
    return ComposedGalaxies(**fields | {
        "scale": one, "amplitude": one, "axis_ratio": axis_ratio, "cos_angle": one, "sin_angle": zero,
        "bulge": bulge + elliptical, "bulge_n": bulge_n, "bulge_radius": bulge_radius, "bulge_e1": bulge_e,
        "bulge_e2": zero, "disc": disc, "disc_n": disc_n, "disc_scale": radius / sersic_b(disc_n) ** disc_n,
        "bar": bar, "knot_flux": rest * base.knot_flux, "arms": base.arms * seen, "ring": ring,
        "knot_x": base.knot_x * reach, "knot_y": base.knot_y * reach,
        "ring_radius": ring_radius, "ring_width": ring_radius * drawn.uniform(0.08, 0.2),
        "lane_width": base.lane_width * torch.sqrt(base.axis_ratio / axis_ratio),
    })


def _disc_radius(bulge: Tensor, bulge_radius: Tensor, bulge_n: Tensor, disc_n: Tensor) -> Tensor:
    """Half-light radius of a disc that with its bulge has that of 1; at most 2.5."""
    within = (0.5 - bulge * _within(1 / bulge_radius, bulge_n)) / (1 - bulge).clamp_min(0.05)
    low, high = torch.full_like(bulge, 0.5), torch.full_like(bulge, 2.5)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        large = _within(1 / middle, disc_n) < within
        low, high = torch.where(large, low, middle), torch.where(large, middle, high)
    return (low + high) / 2


def _within(radius: Tensor, n: Tensor) -> Tensor:
    return torch.special.gammainc(2 * n, sersic_b(n) * radius ** (1 / n))
