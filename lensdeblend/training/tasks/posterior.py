"""The posterior of lens and source given an image: a density trained on parameters and images drawn together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lensdeblend.networks import build
from lensdeblend.networks.posterior import NAMES, standardisation
from lensdeblend.training.folder_pairs import FolderPairs
from lensdeblend.training.lens_data import LensData
from lensdeblend.training.lens_pairs import LensPairs, Pairs
from lensdeblend.training.recipe import Recipe
from lensdeblend.training.tasks.task import Task

__all__ = ["Posterior", "coverage"]

_LOSSES = ("likelihood", "parameters")
_SAMPLES = 200
_PANELS = 6
_DRAWN = 1000


class Posterior(Task):
    """Learn the density of lens parameters, source position and half-light radius.

    Losses, each with its weight in the recipe: ``likelihood``, the negative logarithm of the density at the truth, per
    parameter; ``parameters``, the error of its mean in units of the population's spread, which brings the embedding
    under way before the density is sharp.
    """

    watched = ("nll", False)

    def __init__(self, recipe: Recipe, *, images: Sequence[Path] = (), pairs: Path | None = None):
        unknown = [name for name in recipe.loss if name not in _LOSSES]
        if unknown:
            raise ValueError(f"the recipe: loss has the unknown key {unknown[0]!r}; known are {', '.join(_LOSSES)}")
        if not recipe.loss.get("likelihood"):
            raise ValueError("the recipe: loss needs likelihood: without it no density is learned")
        self.recipe, self.images, self.pairs = recipe, tuple(images), pairs
        self.data = LensData.of(recipe.data)
        self._streams: dict[str, LensPairs | FolderPairs] = {}

    def network(self) -> tuple[nn.Module, dict[str, Any]]:
        theta = self._stream("train").parameters()
        if not bool(torch.isfinite(theta).all()):
            raise ValueError(
                f"a posterior is learned from sources with a half-light radius; some in {self.pairs} have none"
            )
        center, spread = standardisation(theta)
        options = {**self.recipe.network.options, "size": self.data.pixels, "center": center, "spread": spread}
        return build(self.recipe.network.architecture, options), options

    def draw(self, count: int, seed: tuple[int, ...], device: torch.device, split: str) -> Pairs:
        return self._stream(split).draw(count, seed, device)

    def loss(self, network: nn.Module, batch: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        read, theta = network(batch.seen), _theta(batch)
        parts = {"likelihood": -network.log_prob_given(read, theta).mean() / len(NAMES)}
        if self.recipe.loss.get("parameters"):
            error = read[0] - network.standardise(theta)[0]
            parts["parameters"] = 2 * nn.functional.huber_loss(error, torch.zeros_like(error), delta=2.0)
        return sum(self.recipe.loss[name] * value for name, value in parts.items()), parts

    def measure(self, network: nn.Module, batch: Pairs) -> dict[str, float]:
        read, theta = network(batch.seen), _theta(batch)
        samples = network.sample_given(read, _SAMPLES, torch.Generator(theta.device).manual_seed(0))
        figures = {"nll": float(-network.log_prob_given(read, theta).mean())}
        for share in (0.68, 0.95):
            figures[f"within_{100 * share:.0f}"] = float(coverage(samples, theta, share).mean())
        error = samples.mean(0) - theta
        return figures | {f"mse_{name}": float(error[:, i].square().mean()) for i, name in enumerate(NAMES)}

    def panels(self, network: nn.Module, batch: Pairs, path: Path) -> None:
        from lensdeblend.training.pictures import draw_marginals

        samples = network.sample(batch.seen, _DRAWN, torch.Generator(batch.lens.device).manual_seed(0))
        prior = self._stream("test").parameters()
        ranges = torch.stack([prior.quantile(0.001, 0), prior.quantile(0.999, 0)], 1).tolist()
        images, samples, truth = (
            part[..., :_PANELS, :].cpu().numpy() for part in (batch.seen.image.flatten(1), samples, _theta(batch))
        )
        side = batch.seen.image.shape[-1]
        draw_marginals(images.reshape(-1, side, side), samples, truth, NAMES, ranges, path)

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


def coverage(samples: Tensor, truth: Tensor, share: float) -> Tensor:
    """For each parameter, how often the central interval that holds ``share`` of the samples holds the truth.

    ``samples`` (many, batch, parameters), ``truth`` (batch, parameters); the result (parameters,).
    """
    low, high = samples.quantile(torch.tensor([0.5 - share / 2, 0.5 + share / 2]).to(samples), 0)
    return ((truth >= low) & (truth <= high)).float().mean(0)


def _theta(batch: Pairs) -> Tensor:
    return torch.cat([batch.lens, batch.place, batch.radius[:, None]], 1)
