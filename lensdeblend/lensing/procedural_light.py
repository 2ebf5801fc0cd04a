r"""Galaxies made up of bulge, disc, log-spiral arms, bar, star-forming knots, dust and tidal asymmetry.

In the plane of the galaxy, with :math:`\psi` the phase of an arm,

.. math::

    I = \left[B + D\,a(\psi)\,\ell + \mathrm{bar} + \sum_k G_k\right] e^{-\tau}\, t(r), \qquad
    \psi = m\theta - \frac{m}{\tan p}\ln r + \psi_0 + \delta\sin(j\theta + \omega\ln r + \phi),

:math:`B` a Sérsic bulge, :math:`D` an exponential disc, :math:`a` a von Mises profile across the arms of pitch
:math:`p` that rises beyond an inner radius, :math:`\ell` the lopsidedness (:math:`m=1`, Zaritsky & Rix
1997ApJ...477..118Z), the bar a Ferrers profile :math:`(1-s)^2`, the :math:`G_k` knots, :math:`\tau` dust on the
inner edges of the arms, in a lane and in patches, and :math:`t` a taper that ends the galaxy. The plane is warped by
long sine waves, then inclined. Gaussians are :math:`(1 - r^2/8\sigma^2)^4`, which has an end: the exponentials of
far points underflow, at ten times the cost. After Seigar & James (1998MNRAS.299..685S), whose pitch angles the draws
span.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lensdeblend.lensing.sersic import sersic

__all__ = ["ProceduralGalaxies", "bump"]

# The plane's own unit is near the half-light radius; light ends this many of them from the centre.
_EDGE = 8.0
_SOFTENING2 = 1e-6
# Arms lose their contrast far out; lanes end.
_FADING = 1 / 12
_LANE_LENGTH = 1.6
# Tensors of more points leave the cache of a processor, and take twice the time.
_CACHED_POINTS = 2**17


@dataclass(frozen=True)
class ProceduralGalaxies:
    """Parameters of a batch of galaxies, each (batch, 1) unless said otherwise; lengths in the plane's own unit.

    Attributes
    ----------
    scale, amplitude : Tensor
        Plane units a half-light radius, and the factor that makes the flux 1.
    axis_ratio, cos_angle, sin_angle : Tensor
        Of the inclined plane; the angle is that of the major axis, counter-clockwise from x.
    warp, warp_wave, warp_phase, warp_phase2 : Tensor
        Amplitude, wave number and phases of the waves that bend the plane.
    lopsided_x, lopsided_y : Tensor
        Strength of the m=1 asymmetry along the plane's axes; the modulus is below 1.
    bulge, bulge_radius, bulge_n, bulge_e1, bulge_e2 : Tensor
        Flux and Sérsic parameters, on the sky.
    disc, disc_scale : Tensor
        Flux and scale length.
    arms, arm_number, arm_winding, arm_phase, arm_sharpness, arm_start : Tensor
        Contrast (0 to 1), number, number over the tangent of the pitch angle (signed by the handedness), phase,
        concentration of the von Mises profile and inner radius.
    jitter, jitter_number, jitter_winding, jitter_phase : Tensor
        Waves that make arms ragged.
    bar, bar_length, bar_width, bar_cos, bar_sin : Tensor
        Flux, semi-axes and direction in the plane.
    knot_flux, knot_x, knot_y, knot_size : Tensor
        (batch, knots): flux, place and standard deviation in the plane.
    arm_dust, dust_offset : Tensor
        Optical depth along the arms, and how far in phase it lies from them.
    lane_depth, lane_offset, lane_width : Tensor
        Optical depth of a lane along the major axis.
    patch_depth, patch_x, patch_y, patch_size : Tensor
        (batch, patches): optical depth, place and standard deviation of dust clouds.
    """

    scale: Tensor
    amplitude: Tensor
    axis_ratio: Tensor
    cos_angle: Tensor
    sin_angle: Tensor
    warp: Tensor
    warp_wave: Tensor
    warp_phase: Tensor
    warp_phase2: Tensor
    lopsided_x: Tensor
    lopsided_y: Tensor
    bulge: Tensor
    bulge_radius: Tensor
    bulge_n: Tensor
    bulge_e1: Tensor
    bulge_e2: Tensor
    disc: Tensor
    disc_scale: Tensor
    arms: Tensor
    arm_number: Tensor
    arm_winding: Tensor
    arm_phase: Tensor
    arm_sharpness: Tensor
    arm_start: Tensor
    jitter: Tensor
    jitter_number: Tensor
    jitter_winding: Tensor
    jitter_phase: Tensor
    bar: Tensor
    bar_length: Tensor
    bar_width: Tensor
    bar_cos: Tensor
    bar_sin: Tensor
    knot_flux: Tensor
    knot_x: Tensor
    knot_y: Tensor
    knot_size: Tensor
    arm_dust: Tensor
    dust_offset: Tensor
    lane_depth: Tensor
    lane_offset: Tensor
    lane_width: Tensor
    patch_depth: Tensor
    patch_x: Tensor
    patch_y: Tensor
    patch_size: Tensor

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, index) -> ProceduralGalaxies:
        """Some of the galaxies, by slice, mask or tensor of indices."""
        return type(self)(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def brightness(self, x: Tensor, y: Tensor) -> Tensor:
        """Flux per square half-light radius at positions in half-light radii from the centre; total flux 1.

        Parameters
        ----------
        x, y : Tensor
            (batch, points).

        Returns
        -------
        Tensor
            (batch, points), non-negative.
        """
        rows = max(1, _CACHED_POINTS // max(1, x.shape[-1]))
        if x.device.type != "cpu" or rows >= len(self):
            return self.amplitude * self._plane_brightness(x * self.scale, y * self.scale)
        parts = range(0, len(self), rows)
        return torch.cat([self[i:i + rows].brightness(x[i:i + rows], y[i:i + rows]) for i in parts])

    def to_plane(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """From the sky to the face-on plane, areas kept."""
        stretch = torch.sqrt(self.axis_ratio)
        along = (self.cos_angle * stretch) * x + (self.sin_angle * stretch) * y
        across = (self.cos_angle / stretch) * y - (self.sin_angle / stretch) * x
        return along, across

    def to_sky(self, along: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `to_plane`."""
        stretch = torch.sqrt(self.axis_ratio)
        along, across = along / stretch, across * stretch
        return self.cos_angle * along - self.sin_angle * across, self.sin_angle * along + self.cos_angle * across

    def _plane_brightness(self, x: Tensor, y: Tensor) -> Tensor:
        u, v = self.to_plane(x, y)
        taper = torch.clamp(1 - (u * u + v * v) / _EDGE**2, min=0)
        u, v = self._warped(u, v)
        r2 = torch.addcmul(u * u, v, v) + _SOFTENING2
        phase, rise = self._arm_phase(u, v, r2), r2 / (r2 + self.arm_start**2 + _FADING * r2 * r2)
        zero = torch.zeros_like(self.scale)
        light = self.bulge * sersic(x, y, self.bulge_radius, self.bulge_n, self.bulge_e1, self.bulge_e2, zero, zero)
        light = light + self._disc(u, v, r2, phase, rise) + self._bar(u, v)
        for k in range(self.knot_flux.shape[1]):
            size2 = self.knot_size[:, k:k + 1] ** 2
            light = torch.addcmul(
                light, self.knot_flux[:, k:k + 1] * (5 / (8 * math.pi)) / size2,
                bump(u, v, self.knot_x[:, k:k + 1], self.knot_y[:, k:k + 1], size2),
            )
        return light * torch.exp(-self._optical_depth(u, v, phase, rise)) * (taper * taper)

    def _warped(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return (
            torch.addcmul(u, self.warp, torch.sin(torch.addcmul(self.warp_phase, self.warp_wave, v))),
            torch.addcmul(v, self.warp, torch.sin(torch.addcmul(self.warp_phase2, self.warp_wave, u))),
        )

    def _arm_phase(self, u: Tensor, v: Tensor, r2: Tensor) -> Tensor:
        return self._wound(u, v, torch.log(r2))

    def _wound(self, u: Tensor, v: Tensor, log_r2: Tensor) -> Tensor:
        angle = torch.atan2(v, u)
        ragged = torch.sin(
            torch.addcmul(self.jitter_phase, self.jitter_number, angle) + 0.5 * self.jitter_winding * log_r2
        )
        phase = torch.addcmul(self.arm_phase, self.arm_number, angle)
        phase = torch.addcmul(phase, -0.5 * self.arm_winding, log_r2)
        return torch.addcmul(phase, self.jitter, ragged)

    def _disc(self, u: Tensor, v: Tensor, r2: Tensor, phase: Tensor, rise: Tensor) -> Tensor:
        smooth = torch.exp(-torch.sqrt(r2) / self.disc_scale) * (self.disc / (2 * math.pi * self.disc_scale**2))
        mean = torch.special.i0e(self.arm_sharpness)
        across = torch.exp(self.arm_sharpness * torch.cos(phase) - self.arm_sharpness) / mean
        arms = torch.addcmul(torch.ones_like(self.arms), self.arms * rise, across - 1)
        lopsided = 1 + (self.lopsided_x * u + self.lopsided_y * v) * torch.rsqrt(r2 + self.disc_scale**2)
        return smooth * arms * lopsided

    def _bar(self, u: Tensor, v: Tensor) -> Tensor:
        along = (self.bar_cos / self.bar_length) * u + (self.bar_sin / self.bar_length) * v
        across = (self.bar_cos / self.bar_width) * v - (self.bar_sin / self.bar_width) * u
        inside = torch.clamp(1 - torch.addcmul(along * along, across, across), min=0)
        return (3 * self.bar / (math.pi * self.bar_length * self.bar_width)) * inside * inside

    def _optical_depth(self, u: Tensor, v: Tensor, phase: Tensor, rise: Tensor) -> Tensor:
        edge = torch.exp(6 * torch.cos(phase + self.dust_offset) - 6)
        depth = self.arm_dust * edge * rise
        depth = torch.addcmul(depth, self.lane_depth, self._lane(u, v))
        for k in range(self.patch_depth.shape[1]):
            cloud = bump(
                u, v, self.patch_x[:, k:k + 1], self.patch_y[:, k:k + 1], self.patch_size[:, k:k + 1] ** 2
            )
            depth = torch.addcmul(depth, self.patch_depth[:, k:k + 1], cloud)
        return depth

    def _lane(self, u: Tensor, v: Tensor) -> Tensor:
        stretched = u * (self.lane_width / _LANE_LENGTH)
        return bump(stretched, v, torch.zeros_like(self.scale), self.lane_offset, self.lane_width**2)

    def normalised(self, radii: int = 96, angles: int = 80) -> ProceduralGalaxies:
        """Half-light radius and flux measured, and made 1.

        The radius is that of the circle in the plane, on the sky the geometric mean of the axes of an ellipse.
        """
        like = self.scale
        log_r = torch.linspace(math.log(0.004), math.log(_EDGE), radii + 1, device=like.device, dtype=like.dtype)
        step = log_r[1] - log_r[0]
        r = torch.exp(log_r[:-1] + step / 2)
        theta = torch.arange(angles, device=like.device, dtype=like.dtype) * (2 * math.pi / angles)
        # Every ring turned by the golden ratio, so that knots are not met in step.
        turn = torch.arange(radii, device=like.device, dtype=like.dtype)[:, None] * (0.618034 * 2 * math.pi / angles)
        theta = theta + turn
        along, across = (r[:, None] * torch.cos(theta)).reshape(1, -1), (r[:, None] * torch.sin(theta)).reshape(1, -1)
        light = self._plane_brightness(*self.to_sky(along, across)).reshape(-1, radii, angles)
        rings = light.mean(dim=2) * (2 * math.pi * step) * r**2
        within = torch.cumsum(rings, dim=1)
        flux = within[:, -1:]
        # The first ring beyond half of the light; rings' outer edges are the grid's.
        place = torch.searchsorted(within.contiguous(), 0.5 * flux).clamp(1, radii - 1)
        inner, outer = torch.gather(within, 1, place - 1), torch.gather(within, 1, place)
        half = torch.exp(log_r[0] + step * (place + (0.5 * flux - inner) / (outer - inner)))
        return replace(self, scale=half, amplitude=half**2 / flux)


def bump(u: Tensor, v: Tensor, center_u: Tensor, center_v: Tensor, size2: Tensor) -> Tensor:
    """A Gaussian but for its end, of height 1 and variance ``size2``."""
    du, dv = u - center_u, v - center_v
    inside = torch.clamp(torch.addcmul(torch.ones_like(size2), torch.addcmul(du * du, dv, dv), -0.125 / size2), min=0)
    inside = inside * inside
    return inside * inside
