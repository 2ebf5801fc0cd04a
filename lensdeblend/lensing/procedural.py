"""Procedural galaxies at random, of every common kind."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lensdeblend.lensing.procedural_light import ProceduralGalaxies

__all__ = ["KINDS", "Drawn", "ProceduralGalaxies", "checked_mix", "draw_procedural", "shaped"]

#: Kinds of galaxies and how often they are drawn unless told otherwise.
KINDS = {"elliptical": 0.18, "lenticular": 0.12, "spiral": 0.36, "barred": 0.2, "irregular": 0.14}

_KNOTS, _PATCHES = 14, 4


def draw_procedural(
    count: int,
    generator: torch.Generator,
    *,
    mix: Mapping[str, float] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ProceduralGalaxies:
    """Galaxies at random: ellipticals, lenticulars, spirals with and without a bar, irregulars.

    Galaxy ``i`` of a seed is the same whatever ``count``.

    Parameters
    ----------
    count : int
        How many.
    generator : torch.Generator
        Where the randomness comes from.
    mix : mapping, optional
        How often each of `KINDS` is drawn, up to a common factor.
    device, dtype
        Of the parameters.

    Raises
    ------
    ValueError
        For an unknown kind, or weights that are negative or all zero.

    Examples
    --------
    >>> import torch
    >>> from lensdeblend.lensing.procedural import draw_procedural
    >>> galaxies = draw_procedural(3, torch.Generator().manual_seed(1), mix={"barred": 1})
    >>> x = torch.linspace(-3, 3, 50).expand(3, -1)
    >>> galaxies.brightness(x, 0 * x).shape
    torch.Size([3, 50])
    """
    drawn = Drawn(count, generator, device, dtype)
    kind = drawn.choice(list(KINDS), checked_mix(mix))
    return shaped(drawn, kind).normalised()


def checked_mix(mix: Mapping[str, float] | None) -> list[float]:
    """One weight a kind of `KINDS`, or a clear error."""
    mix = KINDS if mix is None else mix
    unknown = sorted(set(mix) - set(KINDS))
    if unknown:
        raise ValueError(f"unknown kinds of galaxies {unknown}; known are {sorted(KINDS)}")
    weights = [float(mix.get(kind, 0)) for kind in KINDS]
    if min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise ValueError(f"the weights of a mix are non-negative and sum to more than 0, not {dict(mix)}")
    return weights


class Drawn:
    """Columns of one block of uniform numbers, a row a galaxy."""

    def __init__(self, count: int, generator: torch.Generator, device, dtype, *, columns: int = 192):
        if count < 1:
            raise ValueError(f"at least one galaxy is drawn, not {count}")
        block = torch.rand((count, columns), generator=generator, device=generator.device)
        self._block, self._next = block.to(device=device, dtype=dtype), 0

    def uniform(self, low: float | Tensor = 0.0, high: float | Tensor = 1.0, columns: int = 1) -> Tensor:
        taken = self._block[:, self._next:self._next + columns]
        assert taken.shape[1] == columns, "more columns are asked for than are drawn"
        self._next += columns
        return low + (high - low) * taken

    def normal(self, sd: float | Tensor = 1.0, columns: int = 1) -> Tensor:
        return sd * math.sqrt(2) * torch.erfinv(self.uniform(-1 + 1e-6, 1 - 1e-6, columns))

    def log_uniform(self, low: float, high: float, columns: int = 1) -> Tensor:
        return torch.exp(self.uniform(math.log(low), math.log(high), columns))

    def angle(self, columns: int = 1) -> Tensor:
        return self.uniform(0, 2 * math.pi, columns)

    def happens(self, share: float | Tensor) -> Tensor:
        """1 for this share of the galaxies, else 0."""
        return (self.uniform() < share).to(self._block.dtype)

    def choice(self, names: list[str], weights: list[float]) -> dict[str, Tensor]:
        """For each name 1 where it was chosen, else 0."""
        edges = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        edges = (edges[:-1] / edges[-1]).to(self._block)
        chosen = (self.uniform() >= edges).sum(dim=1, keepdim=True)
        return {name: (chosen == place).to(self._block.dtype) for place, name in enumerate(names)}


def shaped(drawn: Drawn, kind: Mapping[str, Tensor]) -> ProceduralGalaxies:
    """Galaxies of given kinds, not normalised; for each of `KINDS` 1 where a galaxy is of it, else 0, (batch, 1)."""
    elliptical, lenticular, irregular = kind["elliptical"], kind["lenticular"], kind["irregular"]
    spiral, barred = kind["spiral"] + kind["barred"], kind["barred"]
    discs = 1 - elliptical

    thickness = drawn.uniform(0.12, 0.3)
    inclined = torch.sqrt(drawn.uniform(0.08, 1.0) ** 2 * (1 - thickness**2) + thickness**2)
    axis_ratio = elliptical * drawn.uniform(0.45, 1.0) + discs * inclined
    angle = drawn.angle()
    # The sphere-like bulge is less flattened than the disc around it; an elliptical is all bulge.
    bulge_ratio = elliptical * axis_ratio + discs * (1 - drawn.uniform(0.2, 0.6) * (1 - axis_ratio))
    bulge_e = (1 - bulge_ratio) / (1 + bulge_ratio)

    bulge = elliptical + lenticular * drawn.uniform(0.25, 0.65) + spiral * drawn.uniform() ** 2 * 0.5
    bulge = bulge + irregular * drawn.happens(0.2) * drawn.uniform(0.02, 0.15)
    bar = barred * drawn.uniform(0.08, 0.22) + lenticular * drawn.happens(0.25) * drawn.uniform(0.05, 0.15)
    knots = spiral * drawn.uniform() ** 2 * 0.28 + irregular * drawn.uniform(0.1, 0.45)
    disc = discs * torch.clamp(1 - bulge - bar - knots, min=0.15)
    disc_scale = drawn.uniform(0.5, 0.75)

    number = drawn.choice(["2", "3", "4"], [0.7, 0.17, 0.13])
    arm_number = 2 * number["2"] + 3 * number["3"] + 4 * number["4"]
    hand = 1 - 2 * drawn.happens(0.5)
    winding = hand * arm_number / torch.tan(drawn.uniform(math.radians(11), math.radians(38)))
    bar_length = drawn.uniform(0.5, 1.1)
    arm_start = barred * bar_length * 0.8 + (1 - barred) * drawn.uniform(0.15, 0.5)
    # Arms that start where the bar ends; without a bar the direction is of no matter.
    bar_angle = drawn.angle()
    arm_phase = winding * torch.log(bar_length) - arm_number * bar_angle
    lopsided, lopsided_angle = drawn.uniform() ** 2 * (0.35 + 0.6 * irregular), drawn.angle()
    tidal = discs * (0.03 + drawn.happens(0.25) * drawn.uniform(0.05, 0.2)) + irregular * drawn.uniform(0.1, 0.3)
    lane = drawn.happens(torch.where(axis_ratio < 0.4, 0.6, 0.08)) * (1 - irregular)
    dusty = drawn.happens(0.6 * spiral + 0.4 * irregular + 0.08)

    knot_x, knot_y, knot_size, knot_share = _knots(drawn, irregular, arm_number, winding, arm_phase, arm_start)
    one = torch.ones_like(angle)
    return ProceduralGalaxies(
        scale=one, amplitude=one,
        axis_ratio=axis_ratio, cos_angle=torch.cos(angle), sin_angle=torch.sin(angle),
        warp=tidal, warp_wave=drawn.uniform(0.6, 1.8), warp_phase=drawn.angle(), warp_phase2=drawn.angle(),
        lopsided_x=lopsided * torch.cos(lopsided_angle), lopsided_y=lopsided * torch.sin(lopsided_angle),
        bulge=bulge, bulge_n=elliptical * drawn.uniform(1.8, 5.0) + discs * drawn.uniform(0.8, 3.5),
        bulge_radius=elliptical + discs * drawn.log_uniform(0.12, 0.35),
        bulge_e1=bulge_e * torch.cos(2 * angle), bulge_e2=bulge_e * torch.sin(2 * angle),
        disc=disc, disc_scale=disc_scale,
        arms=spiral * drawn.uniform(0.35, 0.95) + irregular * drawn.uniform(0.0, 0.4),
        arm_number=arm_number, arm_winding=winding, arm_phase=arm_phase,
        arm_sharpness=drawn.log_uniform(0.6, 4.0), arm_start=arm_start,
        jitter=drawn.uniform(0.0, 0.6) + 0.5 * irregular,
        jitter_number=torch.floor(drawn.uniform(1, 6)), jitter_winding=drawn.normal(4.0), jitter_phase=drawn.angle(),
        bar=bar, bar_length=bar_length, bar_width=bar_length * drawn.uniform(0.2, 0.45),
        bar_cos=torch.cos(bar_angle), bar_sin=torch.sin(bar_angle),
        knot_flux=knots * knot_share, knot_x=knot_x, knot_y=knot_y, knot_size=knot_size,
        arm_dust=spiral * dusty * drawn.uniform(0.3, 1.5), dust_offset=-hand * drawn.uniform(0.7, 1.4),
        lane_depth=lane * drawn.uniform(0.3, 1.6), lane_offset=drawn.uniform(-0.35, 0.35),
        lane_width=drawn.uniform(0.08, 0.25) / torch.sqrt(axis_ratio),
        patch_depth=dusty * drawn.uniform(0.0, 1.2, _PATCHES), patch_x=drawn.normal(0.7, _PATCHES),
        patch_y=drawn.normal(0.7, _PATCHES), patch_size=drawn.log_uniform(0.1, 0.4, _PATCHES),
    )


def _knots(drawn: Drawn, irregular, arm_number, winding, arm_phase, arm_start) -> tuple[Tensor, ...]:
    """Places in the plane, sizes and shares of the knots: most in the arms, those of irregulars anywhere."""
    radius = arm_start * 0.7 + 0.75 * (drawn.uniform(columns=_KNOTS) + drawn.uniform(columns=_KNOTS))
    which = torch.floor(drawn.uniform(columns=_KNOTS) * arm_number)
    on_arm = (winding * torch.log(radius) - arm_phase + 2 * math.pi * which) / arm_number
    astray = (drawn.uniform(columns=_KNOTS) < 0.25 + 0.75 * irregular).to(radius.dtype)
    angle = on_arm + drawn.normal(0.12, _KNOTS) + astray * drawn.angle(_KNOTS)
    size = drawn.log_uniform(0.035, 0.12, _KNOTS) * (1 + irregular * drawn.uniform(0.5, 3.0, _KNOTS))
    # A few bright ones among many faint ones.
    share = drawn.uniform(0.03, 1.0, _KNOTS) ** 3 * torch.exp(-radius)
    share = share / share.sum(dim=1, keepdim=True)
    return radius * torch.cos(angle), radius * torch.sin(angle), size, share
