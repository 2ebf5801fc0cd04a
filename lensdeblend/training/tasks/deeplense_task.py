"""What tasks on the DeepLense models share: their data, what the card says of it, how finer images are judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import astropy.units as u
import torch
from torch import Tensor

from lensdeblend.networks.losses import dissimilarity
from lensdeblend.networks.unlensing import Seen
from lensdeblend.training.deeplense_pairs import DeepLenseBatch, DeepLensePairs
from lensdeblend.training.recipe import Recipe, from_mapping
from lensdeblend.training.tasks.task import Task

__all__ = ["FACTOR", "DeepLenseData", "DeepLenseTask"]

#: How many times smaller the finer pixels are.
FACTOR = 2
_DRAWS = 48


@dataclass(frozen=True)
class DeepLenseData:
    """The ``data`` of a recipe.

    Attributes
    ----------
    model : int
        Which DeepLense model, 1 to 3.
    published : bool
        As published, or corrected (`lensdeblend.scenes.populations.deeplense`).
    shares : mapping
        Of its classes.
    """

    model: int
    published: bool = True
    shares: Mapping[str, float] = field(default_factory=lambda: {"none": 1.0, "cdm": 1.0, "axion": 1.0})


class DeepLenseTask(Task):
    """A task whose batches are `~lensdeblend.training.deeplense_pairs.DeepLenseBatch`."""

    #: The losses that a recipe may weigh, and what its ``data`` may say.
    losses: ClassVar[tuple[str, ...]]
    of_data: ClassVar[type[DeepLenseData]] = DeepLenseData
    #: What was learned from beside the populations, in words for the card.
    resolutions: ClassVar[str] = "images of low resolution alone"

    def __init__(self, recipe: Recipe, *, images: Sequence[Path] = (), pairs: Path | None = None):
        unknown = [name for name in recipe.loss if name not in self.losses]
        if unknown:
            raise ValueError(f"the recipe: loss has the unknown key {unknown[0]!r}; known are {', '.join(self.losses)}")
        if pairs is not None or images:
            raise ValueError(f"the task {recipe.task!r} makes its own images; leave --pairs and --images out")
        self.recipe = recipe
        self.data = from_mapping(self.of_data, recipe.data, "the recipe: data")
        self.stream = DeepLensePairs(self.data.model, self.data.published, self.data.shares, FACTOR)

    def draw(self, count: int, seed: tuple[int, ...], device: torch.device, split: str) -> DeepLenseBatch:
        return self.stream.draw(count, seed, device, fine=split != "train")

    def domain(self) -> dict[str, Any]:
        observation, known = self.stream.observation, self.some
        scale = observation.pixel_scale.to_value(u.arcsec)
        ratio = known.clean.flatten(1).amax(1) / known.sigma.flatten(1).median(1).values
        return {
            "model": self.data.model, "published": self.data.published, "pixels": observation.shape[0], "bands": 1,
            "pixel_scale": [scale, scale], "psf_fwhm": [self._fwhm, self._fwhm],
            "psf_fwhm_arcsec": observation.psf.fwhm.to_value(u.arcsec), "psf_truncation": observation.psf.truncation,
            "peak_snr": [round(float(ratio.min()), 1), round(float(ratio.max()), 1)],
        }

    def priors(self) -> dict[str, str]:
        return {
            name: str(prior) for one in self.stream.populations.values() for name, prior in one.priors.items()
        }

    @property
    def learned_from(self) -> str:
        names = ", ".join(one.name for one in self.stream.populations.values())
        return f"Sérsic sources of the populations {names}; {self.resolutions}"

    @cached_property
    def some(self) -> DeepLenseBatch:
        """What is known beforehand of such lenses: the population, not the images learned from."""
        return self.stream.draw(_DRAWS, (self.recipe.seed, 0), "cpu", fine=False)

    @property
    def _fwhm(self) -> float:
        observation = self.stream.observation
        return (observation.psf.fwhm / observation.pixel_scale).to_value(u.dimensionless_unscaled)

    def seen(self, batch: DeepLenseBatch) -> Seen:
        """What the network is shown."""
        image = batch.image
        return Seen(image, batch.sigma, torch.isfinite(image), image.new_full((len(image),), self._fwhm))

    @staticmethod
    def likeness(fine: Tensor, truth: Tensor) -> dict[str, float]:
        """How finer images (batch, ny, nx) are like the truth, on the scale of its maximum."""
        peak = truth.flatten(1).amax(1)
        squared = ((fine - truth) / peak[:, None, None]).square().flatten(1).mean(1)
        return {
            "psnr": float((-10 * squared.log10()).mean()), "mse": float(squared.mean()),
            "ssim": 1 - float(dissimilarity(fine, truth, peak)),
        }
