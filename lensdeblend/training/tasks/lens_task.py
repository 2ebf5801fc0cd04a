"""What tasks on images of lenses share: their data, and what the card says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from lensdeblend.training.folder_pairs import FolderPairs
from lensdeblend.training.lens_data import LensData
from lensdeblend.training.lens_pairs import LensPairs, Pairs
from lensdeblend.training.recipe import Recipe
from lensdeblend.training.tasks.task import Task

__all__ = ["LensTask"]


class LensTask(Task):
    """A task whose batches are `lensdeblend.training.lens_pairs.Pairs`, simulated or from a folder."""

    #: The losses that a recipe may weigh.
    losses: ClassVar[tuple[str, ...]]

    def __init__(self, recipe: Recipe, *, images: Sequence[Path] = (), pairs: Path | None = None):
        unknown = [name for name in recipe.loss if name not in self.losses]
        if unknown:
            raise ValueError(f"the recipe: loss has the unknown key {unknown[0]!r}; known are {', '.join(self.losses)}")
        self.recipe, self.images, self.pairs = recipe, tuple(images), pairs
        self.data = LensData.of(recipe.data)
        self._streams: dict[str, LensPairs | FolderPairs] = {}

    def draw(self, count: int, seed: tuple[int, ...], device: torch.device, split: str) -> Pairs:
        return self._stream(split).draw(count, seed, device)

    def domain(self) -> dict[str, Any]:
        return {
            "pixels": self.data.pixels, "bands": 1, "noise_free_share": self.data.noise_free,
            **self._stream("train").ranges(),
        }

    def priors(self) -> dict[str, str]:
        return {name: str(prior) for name, prior in self.data.all_priors.items()}

    @property
    def learned_from(self) -> str:
        if self.pairs is not None:
            return f"simulations in the folder {self.pairs.name}"
        folders = f" (folders: {', '.join(folder.name for folder in self.images)})" if self.images else ""
        return ", ".join(f"{kind}{folders if kind == 'real' else ''}" for kind in self.data.sources)

    def _stream(self, split: str) -> LensPairs | FolderPairs:
        if split not in self._streams:
            if self.pairs is None:
                self._streams[split] = self.data.pairs(split, self.images)
            else:
                self._streams[split] = FolderPairs(self.pairs, pixels=self.data.pixels, split=split)
        return self._streams[split]
