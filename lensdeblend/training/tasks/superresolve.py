r"""Super-resolution learned from data of low resolution alone.

A network tells of lens, clumps and source; they are drawn again, on pixels half the size, and what they show the
telescope is held against the data :math:`d` (`lensdeblend.networks.super_lens`). The source's amplitude is solved for.
With :math:`\chi^2` of an image per pixel, the mismatch that is made small is

.. math::

    \tfrac12 \ln(1 + \chi^2),

which is :math:`\chi^2 / 2` where the model is as good as the noise; where it is not, it is the likelihood maximised
over a common factor of the noise, so that a few bright images, hundreds of sigma off, do not outweigh all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import torch
from torch import Tensor, nn

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.finer_images import FinerLens, amplitudes, binned
from lensdeblend.networks import build
from lensdeblend.networks.super_lens import SuperLensed
from lensdeblend.networks.unlensing import Seen
from lensdeblend.training.deeplense_pairs import DeepLenseBatch, DeepLensePairs
from lensdeblend.training.recipe import Recipe
from lensdeblend.training.tasks.deeplense_task import FACTOR, DeepLenseTask

__all__ = ["Superresolve"]

_PANELS = 6
# Six terms of the deflection's series are good to 1e-5 for ellipticities below 0.2, and cheap to differentiate.
_TERMS = 6
# The least spreads: what the models hold fixed, the network may tell none the less. Of theta_E, radius and n a share.
_LEAST = np.array([0.05, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.1, 0.05, 0.05, 0.05, 0.02, 0.02])
_SHARES = [0, 8, 9]


class Superresolve(DeepLenseTask):
    """Learn to tell of lens, clumps and source what makes the data.

    Losses, each with its weight in the recipe: ``likelihood``, the mismatch on the data's pixels and on those two by
    two together; ``finer``, that of the image through the PSF on pixels half the size, summed on the data's pixels;
    ``consistency``, that of the data with the source where their pixels are traced back to, without the PSF;
    ``smoothness``, the total variation of the clumps' deflection; ``mass``, the mean convergence of the clumps, none of
    which is negative; ``prior``, half the mean square of the parameters in units of their spreads. The truth is no part
    of them: `measure` alone sees it.
    """

    watched = ("chi2", False)
    losses = ("likelihood", "finer", "consistency", "smoothness", "mass", "prior")

    def __init__(self, recipe: Recipe, *, images: Sequence[Path] = (), pairs: Path | None = None):
        super().__init__(recipe, images=images, pairs=pairs)
        self._views: dict[tuple, _View] = {}

    def network(self) -> tuple[nn.Module, dict[str, Any]]:
        known = self.some
        told = torch.cat([known.lens, known.source[:, 1:]], 1).double().numpy()
        center = told.mean(0)
        least = _LEAST.copy()
        least[_SHARES] *= center[_SHARES]
        size = self.stream.observation.shape[0]
        options = {
            "cells": -(-size // 2), **self.recipe.network.options, "size": size, "center": center.tolist(),
            "spread": np.maximum(told.std(0), least).tolist(),
        }
        return build(self.recipe.network.architecture, options), options

    def loss(self, network: nn.Module, batch: DeepLenseBatch) -> tuple[Tensor, dict[str, Tensor]]:
        seen = self.seen(batch)
        found = network(seen)
        with torch.autocast(seen.image.device.type, enabled=False):
            parts = self._parts(found, seen)
        return sum(self.recipe.loss[name] * value for name, value in parts.items()), parts

    def _parts(self, found: SuperLensed, seen: Seen) -> dict[str, Tensor]:
        view = self._view(found.clumps, points=1)
        bend = view.imager.bend(found.clumps)
        unseen = view.imager.unseen(found.lens, found.source, bend)
        weight = seen.used / seen.sigma
        model = view.coarse(unseen)
        flux = amplitudes(seen.image, model, weight)[:, None, None]
        left = seen.image - flux * model

        def mismatch(residual: Tensor, weight: Tensor) -> Tensor:
            return 0.5 * torch.log1p((residual * weight).square().mean((1, 2))).mean()

        halves = binned(seen.sigma.square(), 2).rsqrt()
        values = {
            "likelihood": lambda: 0.5 * (mismatch(left, weight) + mismatch(binned(left, 2), halves)),
            "finer": lambda: mismatch(seen.image - flux * binned(view.imager.see(unseen), FACTOR), weight),
            "consistency": lambda: mismatch(seen.image - flux * view.traced(unseen), weight),
            "smoothness": lambda: view.imager.roughness(bend).mean(),
            "mass": lambda: found.clumps.mean(),
            "prior": lambda: 0.5 * found.standard.square().mean(),
        }
        return {name: values[name]() for name, weight in self.recipe.loss.items() if weight}

    def measure(self, network: nn.Module, batch: DeepLenseBatch) -> dict[str, float]:
        seen = self.seen(batch)
        found = network(seen)
        model, fine, view = self._drawn(found, seen)
        at_pixels = FinerLens(seen.image.shape[1:], view.scale, clumps=found.clumps.shape[1:], device=fine.device)
        off = (at_pixels.deflection(found.lens, found.clumps) - batch.deflection).square().sum(1).mean((1, 2)).sqrt()
        figures = {
            **self.likeness(fine, batch.fine),
            "deflection": float((off / batch.lens[:, 0]).mean()),
            "chi2": float(((seen.image - model) / seen.sigma).square().mean()),
            "mass": float(found.clumps.mean()),
        }
        error = found.standard - (torch.cat([batch.lens, batch.source[:, 1:]], 1) - network.center) / network.spread
        return {**figures, "parameters": float(error.square().mean().sqrt())}

    def panels(self, network: nn.Module, batch: DeepLenseBatch, path: Path) -> None:
        from lensdeblend.training.pictures import draw_rows

        seen = self.seen(batch)
        found = network(seen)
        _, fine, _ = self._drawn(found, seen)
        shown = {
            "data": batch.image, "finer truth": batch.fine, "found": fine, "found - truth": fine - batch.fine,
            "clumps": found.clumps / found.clumps.flatten(1).amax(1)[:, None, None] * fine.amax((1, 2), keepdim=True),
        }
        shown = {name: value.cpu().numpy() for name, value in shown.items()}
        draw_rows([{name: value[i] for name, value in shown.items()} for i in range(min(_PANELS, len(fine)))], path)

    def _drawn(self, found: SuperLensed, seen: Seen) -> tuple[Tensor, Tensor, _View]:
        """Model on the data's pixels, and on finer ones."""
        view = self._view(found.clumps, points=2)
        unseen = view.imager.unseen(found.lens, found.source, view.imager.bend(found.clumps))
        model = view.coarse(unseen)
        flux = amplitudes(seen.image, model, seen.used / seen.sigma)[:, None, None]
        return flux * model, flux * view.imager.see(unseen), view

    def _view(self, clumps: Tensor, points: int) -> _View:
        key = str(clumps.device), points
        if key not in self._views:
            self._views[key] = _View(self.stream, tuple(clumps.shape[1:]), points, clumps.device)
        return self._views[key]


class _View:
    """The same rays at both resolutions."""

    def __init__(self, stream: DeepLensePairs, clumps: tuple[int, int], points: int, device):
        observation = stream.observation
        self.shape, self.scale = observation.shape, observation.pixel_scale.to_value(u.arcsec)
        kernel, finer = (
            torch.as_tensor(seen.kernel, dtype=torch.float32, device=device)
            for seen in (observation, observation.refined(FACTOR))
        )
        self.border = max(kernel.shape) // 2
        self.imager = FinerLens(
            self.shape, self.scale, finer, factor=FACTOR, clumps=clumps, supersampling=points,
            border=self.border * FACTOR, terms=_TERMS, device=device,
        )
        self._convolution = Convolution(kernel, self.shape, self.border)

    def coarse(self, unseen: Tensor) -> Tensor:
        """On the data's pixels, through their PSF."""
        return self._convolution(binned(unseen, FACTOR))

    def traced(self, unseen: Tensor) -> Tensor:
        """On the data's pixels, before the PSF."""
        (ny, nx), b = self.shape, self.border
        return binned(unseen, FACTOR)[:, b:b + ny, b:b + nx]
