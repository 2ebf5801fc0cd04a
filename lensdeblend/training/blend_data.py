"""What a recipe about blends says of its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lensdeblend.training.blend_pairs import PublishedPairs, read_pictures
from lensdeblend.training.recipe import from_mapping
from lensdeblend.training.stream_priors import replaced

__all__ = ["BlendData"]

_BANDS = 3


@dataclass(frozen=True)
class BlendData:
    """The ``data`` of a recipe.

    Attributes
    ----------
    rule : {"sum", "maximum"}
        Whether blends are sums of galaxies with PSF and noise, or the brighter of two pixels of pictures.
    pixels : int
        A side of the blends.
    crop : sequence of two floats
        For the maximum: least and largest side of what is cut from the middle of the pictures, 1 being all of it.
    sources : mapping
        For the sum: kind of galaxies to its share; the kind ``real`` is that of ``--images``.
    priors : mapping
        For the sum: priors to replace, as ``{Uniform: [0.8, 1.6]}``; `lensdeblend.training.blend_sums.PRIORS` has all.
    """

    rule: str
    pixels: int = 64
    crop: Sequence[float] = (1.0, 1.0)
    sources: Mapping[str, float] = field(default_factory=lambda: {"parametric": 1.0})
    priors: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.rule not in ("sum", "maximum"):
            raise ValueError(f"the recipe: data: rule must be sum or maximum; got {self.rule!r}")
        if isinstance(self.pixels, bool) or not isinstance(self.pixels, int) or self.pixels < 16 or self.pixels % 16:
            raise ValueError(f"the recipe: data: pixels must be a multiple of 16; got {self.pixels!r}")

    @classmethod
    def of(cls, content: Any) -> BlendData:
        """Read it from the recipe."""
        return from_mapping(cls, content, "the recipe: data")

    def stream(self, split: str, images: Sequence[Path]):
        """Blends of one split, real galaxies from the folders ``images``.

        Raises
        ------
        ValueError
            Where real galaxies are wanted and no folder is given, or one is given and none are wanted.
        """
        wanted = self.rule == "maximum" or "real" in self.sources
        if wanted and not images:
            raise ValueError("the recipe learns from real galaxies: name their folder with --images FOLDER")
        if images and not wanted:
            raise ValueError("the recipe has no real galaxies among its data: sources; leave --images out")
        if self.rule == "maximum":
            return PublishedPairs(read_pictures(images, split), pixels=self.pixels, crop=tuple(self.crop))
        from lensdeblend.training.blend_sums import BlendSums, stamps

        return BlendSums(stamps(self.sources, split, images), self.all_priors, pixels=self.pixels)

    @property
    def all_priors(self) -> dict:
        """Those of a sum, with the recipe's own."""
        from lensdeblend.training.blend_sums import PRIORS

        return replaced(PRIORS, self.priors)

    def domain(self) -> dict[str, Any]:
        """What blends span, as a card tells it."""
        if self.rule == "maximum":
            return {"pixels": self.pixels, "bands": _BANDS, "galaxies": [2, 2]}
        from lensdeblend.training.blend_sums import SMALLEST, ranges

        smallest = min(SMALLEST, self.pixels)
        return {
            "pixels": self.pixels, "smallest": smallest, "bands": _BANDS, "alone": True, **ranges(self.all_priors),
        }

    def priors_as_text(self) -> dict[str, str]:
        """Each prior as text."""
        return {} if self.rule == "maximum" else {name: str(prior) for name, prior in self.all_priors.items()}

    def learned_from(self, images: Sequence[Path]) -> str:
        """The galaxies, in words."""
        folders = f"folders: {', '.join(folder.name for folder in images)}"
        if self.rule == "maximum":
            return f"pictures ({folders})"
        return ", ".join(f"real ({folders})" if kind == "real" else kind for kind in self.sources)
