"""Super-resolution learned from pairs: images of low resolution, and the same without noise on finer pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lensdeblend.lensing.finer_images import binned
from lensdeblend.networks import build
from lensdeblend.training.deeplense_pairs import DeepLenseBatch
from lensdeblend.training.tasks.deeplense_task import FACTOR, DeepLenseTask

__all__ = ["SuperresolvePairs"]

_PANELS = 6
_FLOOR = 1e-7


class SuperresolvePairs(DeepLenseTask):
    """Learn to draw the finer image.

    Losses, each with its weight in the recipe, in units of the true image's maximum: ``absolute``, the mean absolute
    error; ``log_squared``, the logarithm of each image's mean squared error.
    """

    watched = ("psnr", True)
    memory_format = torch.contiguous_format
    losses = ("absolute", "log_squared")
    resolutions = "pairs of images with noise and without, the latter on pixels half the size"

    def network(self) -> tuple[nn.Module, dict[str, Any]]:
        options = dict(self.recipe.network.options)
        return build(self.recipe.network.architecture, options), options

    def draw(self, count: int, seed: tuple[int, ...], device: torch.device, split: str) -> DeepLenseBatch:
        return self.stream.draw(count, seed, device)

    def loss(self, network: nn.Module, batch: DeepLenseBatch) -> tuple[Tensor, dict[str, Tensor]]:
        error = (network(self.seen(batch)) - batch.fine) / batch.fine.amax((1, 2), keepdim=True)
        parts = {
            "absolute": error.abs().mean(),
            "log_squared": (error.square().flatten(1).mean(1) + _FLOOR).log().mean(),
        }
        return sum(self.recipe.loss.get(name, 0.0) * value for name, value in parts.items()), parts

    def measure(self, network: nn.Module, batch: DeepLenseBatch) -> dict[str, float]:
        fine = network(self.seen(batch))
        residual = (batch.image - binned(fine, FACTOR)) / batch.sigma
        return {**self.likeness(fine, batch.fine), "chi2": float(residual.square().mean())}

    def panels(self, network: nn.Module, batch: DeepLenseBatch, path: Path) -> None:
        from lensdeblend.training.pictures import draw_rows

        fine = network(self.seen(batch))
        shown = {"data": batch.image, "finer truth": batch.fine, "found": fine, "found - truth": fine - batch.fine}
        shown = {name: value.cpu().numpy() for name, value in shown.items()}
        draw_rows([{name: value[i] for name, value in shown.items()} for i in range(min(_PANELS, len(fine)))], path)
