"""Undo a lens: read its parameters off the image, draw the galaxy as it would be seen without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lensdeblend.networks import build
from lensdeblend.networks.losses import dissimilarity, log_squared_error, spread_loss, squared_error
from lensdeblend.networks.unlensing import Unlensed
from lensdeblend.training.lens_pairs import Pairs
from lensdeblend.training.tasks.lens_task import LensTask

__all__ = ["Unlens"]

_NAMES = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
_PANELS = 6
_READ_FOR_ONE_DRAWN = 3


class Unlens(LensTask):
    """Learn lens parameters and unlensed galaxy together.

    Losses, each with its weight in the recipe: ``parameters``, the mean squared error of the parameters in units of
    the population's spread; ``spread``, the likelihood of their errors; ``squared``, ``dissimilarity`` (one minus SSIM)
    and ``log_squared`` of the unlensed galaxy on the scale of its peak; ``log_squared_source`` of the source before the
    PSF.

    A network that reads and draws apart reads the lens off all images of a batch and draws the source of one in three:
    reading needs more images than drawing, and costs less.
    """

    watched = ("psnr", True)
    losses = ("parameters", "spread", "squared", "dissimilarity", "log_squared", "log_squared_source")

    def network(self) -> tuple[nn.Module, dict[str, Any]]:
        center, spread = self._stream("train").statistics()
        options = {**self.recipe.network.options, "size": self.data.pixels, "center": center, "spread": spread}
        return build(self.recipe.network.architecture, options), options

    def loss(self, network: nn.Module, batch: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        if not hasattr(network, "draw"):
            return self._total(network(batch.seen), batch, network)
        standard, log_spread, read = network.read(batch.seen)
        drawn = max(1, len(read) // _READ_FOR_ONE_DRAWN)
        # Between the true lens and the one that is read: what draws the source must bear both.
        lens = torch.lerp(batch.lens[:drawn], read[:drawn].detach(), batch.dice[:drawn, None])
        found = Unlensed(read, standard, log_spread, *network.draw(batch.seen[:drawn], lens))
        return self._total(found, batch, network)

    def _total(self, found: Unlensed, batch: Pairs, network: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        error = found.standard - (batch.lens - network.center) / network.spread
        true, true_source = batch.unlensed[:len(found.unlensed)], batch.source[:len(found.unlensed)]
        peak, sharp_peak = true.flatten(1).amax(1), true_source.flatten(1).amax(1)
        parts = {}
        for name, weight in self.recipe.loss.items():
            if not weight:
                continue
            if name == "parameters":
                parts[name] = torch.nn.functional.huber_loss(error, torch.zeros_like(error), delta=2.0) * 2
            elif name == "spread":
                parts[name] = spread_loss(error, found.log_spread)
            elif name == "log_squared_source":
                parts[name] = log_squared_error(found.source, true_source, sharp_peak)
            else:
                kind = {"squared": squared_error, "dissimilarity": dissimilarity, "log_squared": log_squared_error}
                parts[name] = kind[name](found.unlensed, true, peak)
        return sum(self.recipe.loss[name] * value for name, value in parts.items()), parts

    def measure(self, network: nn.Module, batch: Pairs) -> dict[str, float]:
        found = network(batch.seen)
        peak = batch.unlensed.flatten(1).amax(1)[:, None, None]
        squared = ((found.unlensed - batch.unlensed) / peak) ** 2
        lit = torch.nn.functional.max_pool2d((batch.unlensed > 0.01 * peak).float()[:, None], 5, 1, 2)[:, 0]
        figures = {
            "psnr": float((-10 * squared.flatten(1).mean(1).log10()).mean()),
            "footprint_psnr": float((-10 * ((squared * lit).sum((1, 2)) / lit.sum((1, 2))).log10()).mean()),
            "mse": float(squared.mean()),
            "ssim": 1 - float(dissimilarity(found.unlensed, batch.unlensed, peak.flatten())),
        }
        error = found.parameters - batch.lens
        figures |= {f"mse_{name}": float(error[:, i].square().mean()) for i, name in enumerate(_NAMES)}
        if found.log_spread is not None:
            inside = (error.abs() < found.log_spread.exp() * network.spread).float().mean()
            figures["within_68"] = float(inside)
        return figures

    def panels(self, network: nn.Module, batch: Pairs, path: Path) -> None:
        from lensdeblend.training.pictures import draw_rows

        found = network(batch.seen)
        rows = [
            {"image": batch.seen.image[i], "true source": batch.unlensed[i], "found": found.unlensed[i],
             "found - true": found.unlensed[i] - batch.unlensed[i]}
            for i in range(min(_PANELS, len(batch.lens)))
        ]
        draw_rows([{name: value.float().cpu().numpy() for name, value in row.items()} for row in rows], path)
