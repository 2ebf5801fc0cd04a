"""Galaxies alone, noise-free, whose profiles are measured: what images of single galaxies are made of."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lensdeblend.lensing.sersic_fit import fit_sersics
from lensdeblend.scenes.populations import Uniform
from lensdeblend.training.soft_stamps import soft_stamps
from lensdeblend.training.sources import Cuts, Parametric, read_galaxies, sources
from lensdeblend.training.sources.galaxies import SPLITS

__all__ = ["GalaxyLibrary", "library"]

log = logging.getLogger(__name__)

_STAMP = 96
_MADE = {"train": 1500, "validation": 200, "test": 200}
# Half-light radii of those that are made, in pixels of their stamps.
_LEAST_RADIUS, _MOST_RADIUS = 6.0, 9.0
_SOFT = 16.0
# A profile with much more or less light than its galaxy is none of it.
_FLUX_OFF = 2.0
# Profiles are fitted with errors that are a share of the brightest pixel and a share of the pixel itself: were all
# alike, the profile would be that of the bulge.
_FAINT, _UNLIKE = 0.005, 0.3
_FITTED_PIXELS = 2
_DISC_INDEX, _BULGE_SHARE = Uniform(0.5, 2.5), Uniform(0.0, 0.7)
# Magnitudes by which a bulge is redder than its disc, between neighbouring bands.
_BULGE_COLOUR, _BULGE_SCATTER = 0.25, 0.15


@dataclass(frozen=True, eq=False)
class GalaxyLibrary:
    """Galaxies and their Sérsic profiles.

    ``stamps`` (galaxies, bands, 96, 96): the mean over bands of the sum 1. ``center`` (galaxies, 2), from the middle of
    the stamp, and ``radius``, ``e1``, ``e2``, ``n`` (galaxies,): in pixels of the stamp. ``colours`` (galaxies, bands -
    1): magnitudes of each band less those of the next. ``weights`` (galaxies,): how often each is drawn, their sum 1.
    """

    stamps: Tensor
    center: Tensor
    radius: Tensor
    e1: Tensor
    e2: Tensor
    n: Tensor
    colours: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.radius)

    @property
    def bands(self) -> int:
        return self.stamps.shape[1]

    @classmethod
    def measured(cls, stamps: Tensor) -> GalaxyLibrary:
        """Of stamps (galaxies, bands, 96, 96): those to which a profile can be fitted."""
        grey = _FITTED_PIXELS**2 * avg_pool2d(stamps.mean(1, keepdim=True), _FITTED_PIXELS)[:, 0]
        peak = grey.flatten(1).amax(1)[:, None, None].clamp_min(1e-30)
        fits = fit_sersics(grey, 1 / (_FAINT * peak + _UNLIKE * grey))
        ratio = fits.flux / grey.sum((1, 2))
        kept = fits.converged & (ratio < _FLUX_OFF) & (ratio > 1 / _FLUX_OFF)
        middle = (grey.shape[-1] - 1) / 2
        magnitudes = -2.5 * stamps.sum((2, 3)).clamp_min(1e-12).log10()
        found = cls(
            stamps, torch.stack([fits.x - middle, fits.y - middle], 1) * _FITTED_PIXELS, fits.radius * _FITTED_PIXELS,
            fits.e1, fits.e2, fits.n, magnitudes[:, :-1] - magnitudes[:, 1:],
            torch.full((len(stamps),), 1 / max(1, int(kept.sum()))),
        )
        log.info("%d of %d galaxies have a profile", int(kept.sum()), len(stamps))
        return cls(*(getattr(found, field.name)[kept] for field in fields(cls)))

    @classmethod
    def joined(cls, parts: Sequence[tuple[GalaxyLibrary, float]]) -> GalaxyLibrary:
        """Several, each with its share."""
        total = sum(share for _, share in parts)
        weighed = [
            cls(*(getattr(one, field.name) for field in fields(cls)[:-1]), one.weights * share / total)
            for one, share in parts
        ]
        return cls(*(torch.cat([getattr(one, field.name) for one in weighed]) for field in fields(cls)))


def library(
    shares: Mapping[str, float], split: str, folders: Sequence[Path] = (), *, bands: int = 1, cuts: Cuts = Cuts()
) -> GalaxyLibrary:
    """Galaxies of each kind of `lensdeblend.training.sources.sources`: ``real`` ones from folders, others made.

    Parameters
    ----------
    shares : mapping of str to float
    split : {"train", "validation", "test"}
    folders : sequence of Path
        Of pictures, for three bands; for one band of whatever `read_galaxies` reads.
    bands : int
        One, or three, from red to blue. Galaxies that are made have a redder bulge in three bands.
    cuts : `~lensdeblend.training.sources.Cuts`
        On the galaxies of catalogues.

    Raises
    ------
    ValueError
        For an unknown kind or split, for shares that are not positive, for another number of bands.
    """
    if bands not in (1, 3):
        raise ValueError(f"galaxies are learned in 1 or 3 bands, not {bands}")
    if not shares or any(not isinstance(share, (int, float)) or share <= 0 for share in shares.values()):
        raise ValueError(f"the recipe: data: sources must be a mapping of kind to a positive share; got {shares!r}")
    parts = []
    for kind, share in shares.items():
        if kind != "real":
            parts.append((GalaxyLibrary.measured(_made(kind, split, bands)), share))
            continue
        read = [read_galaxies(folder, colour=bands == 3, cuts=cuts).split(split) for folder in folders]
        count = sum(len(one) for one in read)
        for one in read:
            stamps = torch.from_numpy(one.stamps)
            parts.append((GalaxyLibrary.measured(stamps if bands == 3 else stamps[:, None]), share * len(one) / count))
    return GalaxyLibrary.joined(parts)


def _made(kind: str, split: str, bands: int) -> Tensor:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    rng = np.random.default_rng((7, list(SPLITS).index(split), len(kind)))
    generator, count = torch.Generator().manual_seed(int(rng.integers(2**62))), _MADE[split]
    radius = torch.as_tensor(rng.uniform(_LEAST_RADIUS, _MOST_RADIUS, count), dtype=torch.float32)
    stamps_of = partial(soft_stamps, side=_STAMP, soft=_SOFT)
    if kind == "parametric":
        body = stamps_of(Parametric(n=_DISC_INDEX, bulge=_BULGE_SHARE), radius, generator)
    else:
        body = stamps_of(sources(kind), radius, generator)
    if bands == 1:
        return (body / body.sum((1, 2), keepdim=True))[:, None]
    smaller = torch.as_tensor(rng.uniform(0.15, 0.5, count), dtype=torch.float32)
    bulge = stamps_of(Parametric(), smaller * radius, generator)
    share = torch.as_tensor(0.5 * rng.uniform(size=count) ** 2, dtype=torch.float32)[:, None, None]
    step = torch.as_tensor(rng.normal(_BULGE_COLOUR, _BULGE_SCATTER, count), dtype=torch.float32)
    whole = torch.as_tensor(rng.normal(0.35, 0.2, count), dtype=torch.float32)
    places = torch.arange(bands) - (bands - 1) / 2
    redder, red = (10 ** (-0.4 * one[:, None] * places)[:, :, None, None] for one in (step, whole))
    images = red * ((1 - share) * body)[:, None] + red * redder * (share * bulge)[:, None]
    return images / images.sum((2, 3), keepdim=True).mean(1, keepdim=True)
