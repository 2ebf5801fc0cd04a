"""What a recipe about lenses says of its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lensdeblend.scenes import populations
from lensdeblend.scenes.populations import Distribution, population
from lensdeblend.scenes.populations.distributions import distribution
from lensdeblend.training.lens_pairs import LensPairs
from lensdeblend.training.recipe import from_mapping
from lensdeblend.training.sources import Mixture, sources

__all__ = ["LensData", "distribution"]

_REAL = "real"


@dataclass(frozen=True)
class LensData:
    """The ``data`` of a recipe.

    Attributes
    ----------
    population : str
        A name of `lensdeblend.scenes.populations.populations` whose priors are taken.
    sources : mapping
        Kind of source to its share, or to a mapping of ``share`` and the kind's options.
    priors : mapping
        Priors to replace or add, as ``{Uniform: [0.8, 1.6]}``.
    pixels : int
        A side of the images.
    noise_free : float
        Share of images without noise.
    """

    population: str
    sources: Mapping[str, Any]
    priors: Mapping[str, Any] = field(default_factory=dict)
    pixels: int = 64
    noise_free: float = 0.0

    @classmethod
    def of(cls, content: Any) -> LensData:
        """Read it from the recipe."""
        data = from_mapping(cls, content, "the recipe: data")
        if not isinstance(data.sources, Mapping) or not data.sources:
            raise ValueError(f"the recipe: data: sources must be a mapping of kind to share; got {data.sources!r}")
        return data

    @property
    def needs_images(self) -> bool:
        """Whether real galaxies are wanted."""
        return _REAL in self.sources

    def pairs(self, split: str, images: Sequence[Path]) -> LensPairs:
        """The stream of one split, real galaxies from the folders ``images``.

        Raises
        ------
        ValueError
            Where real galaxies are wanted and no folder is given, or one is given and none are wanted.
        """
        if self.needs_images and not images:
            raise ValueError(
                "the recipe learns from real galaxies: name their folder with --images FOLDER, or leave them out with "
                f"--set data.sources.{_REAL}=null"
            )
        if images and not self.needs_images:
            raise ValueError(f"the recipe has no {_REAL} galaxies among its data: sources; leave --images out")
        kinds = {}
        for kind, content in self.sources.items():
            options = dict(content) if isinstance(content, Mapping) else {"share": content}
            share = options.pop("share", 1.0)
            if kind == _REAL:
                folders = [sources(kind, **options, galaxies=folder, split=split) for folder in images]
                count = sum(map(len, folders))
                kinds |= {folder: share * len(folder) / count for folder in folders}
                continue
            options = {
                key: distribution(value, f"data: sources: {kind}: {key}")
                if kind == "parametric" and isinstance(value, Mapping) else value
                for key, value in options.items()
            }
            kinds[sources(kind, **options)] = share
        mixture = Mixture(kinds) if len(kinds) > 1 else next(iter(kinds))
        return LensPairs(self.all_priors, mixture, pixels=self.pixels, noise_free=self.noise_free)

    @property
    def all_priors(self) -> dict[str, Distribution]:
        """Those of the population with the recipe's own."""
        base = population(self.population)
        observation = base.observation
        known = {
            "pixel_scale": populations.Fixed(float(observation.pixel_scale.to_value("arcsec"))),
            "psf_fwhm": populations.Fixed(float(observation.psf.fwhm.to_value("arcsec"))),
            **base.priors,
        }
        return {**known, **{name: distribution(value, f"data: priors: {name}") for name, value in self.priors.items()}}
