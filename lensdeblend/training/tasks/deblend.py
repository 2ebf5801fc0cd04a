"""Draw one galaxy of a blend, against a critic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, softplus

from lensdeblend.networks import build
from lensdeblend.networks.deblending import PatchCritic
from lensdeblend.networks.losses import dissimilarity
from lensdeblend.training.blend_data import BlendData
from lensdeblend.training.blend_pairs import BlendPairs
from lensdeblend.training.recipe import Recipe
from lensdeblend.training.tasks.task import Task

__all__ = ["Deblend"]

_PANELS = 6
_FAINT = 0.1
_FLOOR = 1e-6
_CONTESTED = ("features", "adversarial")


class Deblend(Task):
    """Learn to draw the galaxies of blends one by one.

    Losses, each with its weight in the recipe, on the scale of the true galaxy's peak in each band (of pictures, on
    that of white): ``absolute``, the mean absolute error; ``log_squared``, the logarithm of each galaxy's mean squared
    error; ``dissimilarity``, one minus SSIM; ``features``, the distance from the true galaxy in all layers of the
    critic (Salimans et al. 2016, arXiv:1606.03498); ``adversarial``, that the critic tells them apart, as sigmoid
    cross-entropy. Without the last two there is no critic.
    """

    watched = ("psnr", True)
    losses = ("absolute", "log_squared", "dissimilarity", *_CONTESTED)

    def __init__(self, recipe: Recipe, *, images: Sequence[Path] = (), pairs: Path | None = None):
        unknown = [name for name in recipe.loss if name not in self.losses]
        if unknown:
            raise ValueError(f"the recipe: loss has the unknown key {unknown[0]!r}; known are {', '.join(self.losses)}")
        if pairs is not None:
            raise ValueError("the task 'deblend' makes its own blends; leave --pairs out")
        self.recipe, self.images, self.data = recipe, tuple(images), BlendData.of(recipe.data)
        self._streams: dict[str, Any] = {}

    def network(self) -> tuple[nn.Module, dict[str, Any]]:
        options = {**self.recipe.network.options, "rule": self.data.rule}
        return build(self.recipe.network.architecture, options), options

    def adversary(self) -> nn.Module | None:
        return PatchCritic() if any(self.recipe.loss.get(name) for name in _CONTESTED) else None

    def draw(self, count: int, seed: tuple[int, ...], device: torch.device, split: str) -> BlendPairs:
        if split not in self._streams:
            self._streams[split] = self.data.stream(split, self.images)
        return self._streams[split].draw(count, seed, device)

    def loss(self, network: nn.Module, batch: BlendPairs) -> tuple[Tensor, dict[str, Tensor]]:
        return self._weighed(self._errors(network(batch.seen), batch))

    def contest(
        self, network: nn.Module, adversary: nn.Module, batch: BlendPairs
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        drawn, peak = network(batch.seen), self._peak(batch)
        shown, true, blend = (_compressed(part, peak) for part in (drawn, batch.truth, batch.seen.image))
        *_, verdict_true = real = adversary(true, blend)
        verdict_drawn = adversary(shown.detach(), blend)[-1]
        adverse = softplus(-verdict_true).mean() + softplus(verdict_drawn).mean()
        adversary.requires_grad_(False)
        *features, verdict = adversary(shown, blend)
        adversary.requires_grad_(True)
        parts = self._errors(drawn, batch)
        parts["features"] = sum(l1_loss(one, other.detach()) for one, other in zip(features, real)) / len(features)
        parts["adversarial"] = softplus(-verdict).mean()
        return *self._weighed(parts), adverse

    def measure(self, network: nn.Module, batch: BlendPairs) -> dict[str, float]:
        drawn, peak = network(batch.seen), self._peak(batch)
        squared = ((drawn - batch.truth) / peak).square().flatten(1).mean(1)
        return {
            "psnr": float((-10 * squared.clamp_min(1e-12).log10()).mean()), "mse": float(squared.mean()),
            "ssim": 1 - float(_dissimilarity(drawn, batch.truth, peak)),
        }

    def panels(self, network: nn.Module, batch: BlendPairs, path: Path) -> None:
        from lensdeblend.training.pictures import draw_rows

        drawn = network(batch.seen)
        rows = [
            {"blend": batch.seen.image[i], "true galaxy": batch.truth[i], "drawn": drawn[i],
             "drawn - true": drawn[i] - batch.truth[i]}
            for i in range(min(_PANELS, len(drawn)))
        ]
        draw_rows([{name: value.mean(0).cpu().numpy() for name, value in row.items()} for row in rows], path)

    def domain(self) -> dict[str, Any]:
        return self.data.domain()

    def priors(self) -> dict[str, str]:
        return self.data.priors_as_text()

    @property
    def learned_from(self) -> str:
        return self.data.learned_from(self.images)

    def _peak(self, batch: BlendPairs) -> Tensor:
        """(batch, bands, 1, 1)."""
        peak = batch.truth.flatten(2).amax(2)[:, :, None, None].clamp_min(1e-30)
        return torch.ones_like(peak) if self.data.rule == "maximum" else peak

    def _errors(self, drawn: Tensor, batch: BlendPairs) -> dict[str, Tensor]:
        peak, parts = self._peak(batch), {}
        error = (drawn - batch.truth) / peak
        if self.recipe.loss.get("absolute"):
            parts["absolute"] = error.abs().mean()
        if self.recipe.loss.get("log_squared"):
            parts["log_squared"] = (error.square().flatten(1).mean(1) + _FLOOR).log().mean()
        if self.recipe.loss.get("dissimilarity"):
            parts["dissimilarity"] = _dissimilarity(drawn, batch.truth, peak)
        return parts

    def _weighed(self, parts: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return sum(self.recipe.loss.get(name, 0.0) * value for name, value in parts.items()), parts


def _compressed(image: Tensor, peak: Tensor) -> Tensor:
    return torch.asinh(image / (_FAINT * peak)) / 3


def _dissimilarity(drawn: Tensor, truth: Tensor, peak: Tensor) -> Tensor:
    return dissimilarity(drawn.flatten(0, 1), truth.flatten(0, 1), peak.flatten())
