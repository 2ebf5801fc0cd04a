r"""Super-resolution as published: radial deflections learned from images of low resolution.

A network tells of the deflection on pixels half the size, `lensdeblend.lensing.radial_decoder` what source and image
follow; both are held against what the data themselves say of them, without the truth and without their noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, mse_loss, softplus

from lensdeblend.lensing.finer_images import binned
from lensdeblend.lensing.radial_decoder import (
    LEVELS, Decoded, RadialDecoder, brought_to, resized, unit_range, variation,
)
from lensdeblend.networks import build
from lensdeblend.networks.srgan import Critics, LensClassifier
from lensdeblend.training.deeplense_pairs import DeepLenseBatch
from lensdeblend.training.recipe import Length
from lensdeblend.training.tasks.deeplense_task import FACTOR, DeepLenseData, DeepLenseTask

__all__ = ["SuperresolveRadial"]

_PANELS = 6
_CLASSES_SEEN = 3


@dataclass(frozen=True)
class RadialData(DeepLenseData):
    """The ``data`` of a recipe.

    Attributes
    ----------
    classifier : mapping
        Length of the training of a classifier, for the loss ``features``.
    """

    classifier: Mapping[str, Any] | None = None


class SuperresolveRadial(DeepLenseTask):
    """Learn deflections that are all but radial.

    Losses, each with its weight in the recipe, images from 0 to 1 by their own minimum and maximum: ``source``, the
    mean squared difference of the image traced back from the disc about its brightest pixel, summed over pixels two
    times smaller than the data's, as large, and two times larger; ``image``, that of the disc, lensed, from the data
    interpolated to pixels two times smaller; ``variation``, the total variation of the deflection (arcsec);
    ``adversarial``, that critics, one a scale, tell the lensed disc from the data, as sigmoid cross-entropy;
    ``features``, the squared difference of both in the latent maps of a classifier that was trained first, on images of
    low resolution, to tell the classes apart, as a share of the data's own square. Critics and classifier are no part
    of the weights. The truth is no part of the losses: `measure` alone sees it.
    """

    watched = ("chi2", False)
    memory_format = torch.contiguous_format
    losses = ("source", "image", "variation", "adversarial", "features")
    of_data = RadialData

    def __init__(self, recipe, **folders):
        super().__init__(recipe, **folders)
        self._decoders: dict[str, RadialDecoder] = {}
        self._classifier: LensClassifier | None = None
        self._classifier_length = None
        if recipe.loss.get("features"):
            if self.data.classifier is None:
                raise ValueError("the loss 'features' needs data: classifier, the length of a training: {steps: 2000}")
            self._classifier_length = Length(**self.data.classifier)

    def network(self) -> tuple[nn.Module, dict[str, Any]]:
        options = dict(self.recipe.network.options)
        return build(self.recipe.network.architecture, options), options

    def adversary(self) -> nn.Module | None:
        return Critics(len(LEVELS)) if self.recipe.loss.get("adversarial") else None

    def begin(self, device: torch.device, *, progress: bool = True) -> None:
        if self._classifier_length is not None:
            self._classifier = self._taught(device, self._classifier_length).eval().requires_grad_(False)

    def loss(self, network: nn.Module, batch: DeepLenseBatch) -> tuple[Tensor, dict[str, Tensor]]:
        data = unit_range(batch.image)
        return self._weighed(self._errors(self._decoded(network, batch), data))

    def contest(
        self, network: nn.Module, adversary: nn.Module, batch: DeepLenseBatch
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        data, found = unit_range(batch.image), self._decoded(network, batch)
        true = [unit_range(resized(data, tuple(image.shape[1:]))) for image in found.images]
        adverse = sum(
            softplus(-real).mean() + softplus(drawn).mean()
            for real, drawn in zip(adversary(true), adversary([image.detach() for image in found.images]))
        )
        adversary.requires_grad_(False)
        verdicts = adversary(found.images)
        adversary.requires_grad_(True)
        parts = self._errors(found, data)
        parts["adversarial"] = sum(softplus(-verdict).mean() for verdict in verdicts)
        return *self._weighed(parts), adverse

    def measure(self, network: nn.Module, batch: DeepLenseBatch) -> dict[str, float]:
        found = self._decoded(network, batch)
        fine = self._in_flux(found, batch)
        off = (avg_pool2d(found.deflection, FACTOR) - batch.deflection).square().sum(1).mean((1, 2)).sqrt()
        residual = (batch.image - binned(fine, FACTOR)) / batch.sigma
        data = unit_range(batch.image)
        figures = {
            **self.likeness(fine, batch.fine), "deflection": float((off / batch.lens[:, 0]).mean()),
            "chi2": float(residual.square().mean()), "radial": float(found.polar[:, 0].mean()),
            **{name: float(part) for name, part in self._errors(found, data).items()},
        }
        if self._classifier is not None:
            figures["classified"] = float((self._classifier(data).argmax(1) == batch.kind).float().mean())
        return figures

    def panels(self, network: nn.Module, batch: DeepLenseBatch, path: Path) -> None:
        from lensdeblend.training.pictures import draw_rows

        found = self._decoded(network, batch)
        fine = self._in_flux(found, batch)
        peak = fine.amax((1, 2), keepdim=True)
        shown = {
            "data": batch.image, "finer truth": batch.fine, "found": fine, "found - truth": fine - batch.fine,
            "traced back": found.sources[0] * peak, "disc": found.profiles[0] * peak,
        }
        shown = {name: value.cpu().numpy() for name, value in shown.items()}
        draw_rows([{name: value[i] for name, value in shown.items()} for i in range(min(_PANELS, len(fine)))], path)

    def _decoded(self, network: nn.Module, batch: DeepLenseBatch) -> Decoded:
        shares = network(self.seen(batch))
        with torch.autocast(shares.device.type, enabled=False):
            return self._decoder(shares.device)(unit_range(batch.image), shares.float())

    def _errors(self, found: Decoded, data: Tensor) -> dict[str, Tensor]:
        finer = unit_range(resized(data, tuple(found.images[0].shape[1:])))
        parts = {
            "source": sum(mse_loss(*pair) for pair in zip(found.sources, found.profiles)),
            "image": mse_loss(found.images[0], finer),
            "variation": variation(found.polar).mean(),
        }
        if self._classifier is not None:
            drawn, true = (self._classifier.to(data.device).features(images) for images in (found.images[1], data))
            parts["features"] = mse_loss(drawn, true) / true.square().mean()
        return {name: part for name, part in parts.items() if self.recipe.loss.get(name)}

    def _weighed(self, parts: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return sum(self.recipe.loss.get(name, 0.0) * value for name, value in parts.items()), parts

    def _in_flux(self, found: Decoded, batch: DeepLenseBatch) -> Tensor:
        """The lensed disc in the data's unit, flux per finer pixel."""
        fine = found.images[0] / FACTOR**2
        slope, offset = brought_to(batch.image, binned(fine, FACTOR), 1 / batch.sigma)
        return slope[:, None, None] * fine + offset[:, None, None] / FACTOR**2

    def _decoder(self, device: torch.device) -> RadialDecoder:
        if str(device) not in self._decoders:
            observation = self.stream.observation
            self._decoders[str(device)] = RadialDecoder(
                observation.shape, observation.pixel_scale.to_value(u.arcsec), device=device
            )
        return self._decoders[str(device)]

    def _taught(self, device: torch.device, length: Length) -> LensClassifier:
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            classifier = LensClassifier().to(device)
        optimizer = torch.optim.AdamW(classifier.parameters(), length.learning_rate, weight_decay=length.weight_decay)
        for step in range(length.steps):
            batch = self.draw(length.batch, (self.recipe.seed, _CLASSES_SEEN, step), device, "train")
            loss = cross_entropy(classifier(unit_range(batch.image)), batch.kind)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return classifier
