"""The posterior of lens and source given an image: a density trained on parameters and images drawn together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lensdeblend.networks import build
from lensdeblend.networks.posterior import NAMES, standardisation
from lensdeblend.training.lens_pairs import Pairs
from lensdeblend.training.recipe import Recipe
from lensdeblend.training.tasks.lens_task import LensTask

__all__ = ["Posterior", "coverage"]

_SAMPLES = 200
_PANELS = 6
_DRAWN = 1000


class Posterior(LensTask):
    """Learn the density of lens parameters, source position and half-light radius.

    Losses, each with its weight in the recipe: ``likelihood``, the negative logarithm of the density at the truth, per
    parameter; ``parameters``, the error of its mean in units of the population's spread, which brings the embedding
    under way before the density is sharp.
    """

    watched = ("nll", False)
    losses = ("likelihood", "parameters")

    def __init__(self, recipe: Recipe, *, images: Sequence[Path] = (), pairs: Path | None = None):
        super().__init__(recipe, images=images, pairs=pairs)
        if not recipe.loss.get("likelihood"):
            raise ValueError("the recipe: loss needs likelihood: without it no density is learned")

    def network(self) -> tuple[nn.Module, dict[str, Any]]:
        theta = self._stream("train").parameters()
        if not bool(torch.isfinite(theta).all()):
            raise ValueError(
                f"a posterior is learned from sources with a half-light radius; some in {self.pairs} have none"
            )
        center, spread = standardisation(theta)
        options = {**self.recipe.network.options, "size": self.data.pixels, "center": center, "spread": spread}
        return build(self.recipe.network.architecture, options), options

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


def coverage(samples: Tensor, truth: Tensor, share: float) -> Tensor:
    """For each parameter, how often the central interval that holds ``share`` of the samples holds the truth.

    ``samples`` (many, batch, parameters), ``truth`` (batch, parameters); the result (parameters,).
    """
    low, high = samples.quantile(torch.tensor([0.5 - share / 2, 0.5 + share / 2]).to(samples), 0)
    return ((truth >= low) & (truth <= high)).float().mean(0)


def _theta(batch: Pairs) -> Tensor:
    return torch.cat([batch.lens, batch.place, batch.radius[:, None]], 1)
