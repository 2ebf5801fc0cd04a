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
from lensdeblend.lensing.procedural_light import ProceduralGalaxies, bump
from lensdeblend.lensing.sersic import sersic_b

__all__ = ["ComposedGalaxies", "Parts", "draw_composed"]

_SOFTENING2 = 1e-6
# Of the light of arms.
_YOUNG = 0.5
_FADING = 1 / 12
# Axis ratios: discs flatter than the first show no arms, those rounder than the second all of them.
_EDGE_ON, _ARMS_SEEN = 0.15, 0.4
_LEAST = 1e-6
_COLUMNS = 208
# Power of the disc's index with which knots and rings lie farther out.
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
        ``amplitude`` are left aside. Cusps are no sharper than ``softening``.

        What none of the galaxies has takes no time.
        """
        old = self._bulge(u, v, softening) if _any(self.bulge) else torch.zeros_like(u)
        disc = young = depth = torch.zeros_like(u)
        if _any(self.warp):
            u, v = self._warped(u, v)
        if _any(self.bar):
            old = old + self._bar(u, v)
        r2 = torch.addcmul(u * u, v, v).add_(_SOFTENING2)
        log_r2 = r2.log()
        if _any(self.disc):
            disc = self._smooth(u, v, r2, log_r2)
        if _any(self.ring):
            young = self._ring(r2)
        if _any(self.arms):
            phase = self._wound(u, v, log_r2)
            rise = r2 / torch.addcmul(r2 + self.arm_start**2, r2, r2, value=_FADING)
            sharpness = self.arm_sharpness
            across = (sharpness * torch.cos(phase)).sub_(sharpness + torch.special.i0e(sharpness).log()).exp_()
            arms = (self.arms * rise).mul_(disc)
            in_arms = across.mul_(arms)
            disc = disc.sub_(arms).add_(in_arms, alpha=1 - _YOUNG)
            young = torch.add(young, in_arms, alpha=_YOUNG)
            if _any(self.arm_dust):
                depth = (phase + self.dust_offset).cos_().sub_(1).mul_(6).exp_().mul_(rise).mul_(self.arm_dust)
        return Parts(old=old, disc=disc, young=young, depth=self._other_dust(u, v, depth))

    def knot_places(self) -> tuple[Tensor, Tensor]:
        """Of the knots in the plane as it is before it is warped, (batch, knots)."""
        u, v = self.knot_x, self.knot_y
        for _ in range(_UNWARPING):
            warped_u, warped_v = self._warped(u, v)
            u, v = u - (warped_u - self.knot_x), v - (warped_v - self.knot_y)
        return u, v

    def _bulge(self, u: Tensor, v: Tensor, softening: Tensor | float) -> Tensor:
        ratio, b = (1 - self.bulge_e1) / (1 + self.bulge_e1), sersic_b(self.bulge_n)
        r2 = torch.addcmul(ratio * u * u, v / ratio, v).add_(softening**2)
        return _sersic(self.bulge, r2.log_(), self.bulge_radius / b**self.bulge_n, self.bulge_n)

    def _smooth(self, u: Tensor, v: Tensor, r2: Tensor, log_r2: Tensor) -> Tensor:
        light = _sersic(self.disc, log_r2, self.disc_scale, self.disc_n)
        if not (_any(self.lopsided_x) or _any(self.lopsided_y)):
            return light
        side = torch.addcmul(self.lopsided_x * u, self.lopsided_y, v).mul_(torch.rsqrt(r2 + self.disc_scale**2))
        return light.addcmul_(light, side)

    def _ring(self, r2: Tensor) -> Tensor:
        per_area = self.ring / ((2 * math.pi) ** 1.5 * self.ring_radius * self.ring_width)
        spread = torch.addcmul(-self.ring_radius / self.ring_width, r2.sqrt(), 1 / self.ring_width)
        return per_area * spread.square_().mul_(-0.5).exp_()

    def _other_dust(self, u: Tensor, v: Tensor, depth: Tensor) -> Tensor:
        if _any(self.lane_depth):
            depth = depth + self.lane_depth * self._lane(u, v)
        if _any(self.patch_depth):
            for k in range(self.patch_depth.shape[1]):
                one = slice(k, k + 1)
                cloud = bump(u, v, self.patch_x[:, one], self.patch_y[:, one], self.patch_size[:, one] ** 2)
                depth = torch.addcmul(depth, self.patch_depth[:, one], cloud)
        return depth


def _sersic(flux: Tensor, log_r2: Tensor, scale: Tensor, n: Tensor) -> Tensor:
    """That has fallen by e at ``scale``."""
    level = (flux / (2 * math.pi * n * scale**2)).log() - torch.lgamma(2 * n)
    fall = torch.addcmul(-scale.log() / n, log_r2, 0.5 / n).exp_()
    return torch.sub(level, fall).exp_()


def _any(strength: Tensor) -> bool:
    return bool(strength.any())


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
        "elliptical": early * torch.sigmoid((0.42 - ellipticity) / 0.025),
        "lenticular": 0.5 * torch.sigmoid((n.log() - math.log(1.5)) / 0.12),
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
    bulge_n = discs * (n * drawn.uniform(0.6, 1.0)).clamp(1.0, 4.0) + elliptical * n
    bulge_radius = discs * drawn.log_uniform(0.14, 0.3) * (1 + 2.5 * bulge) + elliptical
    flattening = drawn.uniform(0.3, 0.7) + 0.25 * ((n - 1) / 3).clamp(0, 1)
    bulge_e = (discs * flattening + elliptical) * ellipticity
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
        "warp": base.warp * (1 - 0.7 * kind["lenticular"]),
        # A lane is a disc of dust seen from the side.
        "lane_depth": base.lane_depth * ((0.75 - axis_ratio) / 0.3).clamp(0, 1) / (n / 1.2).clamp_min(1),
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
