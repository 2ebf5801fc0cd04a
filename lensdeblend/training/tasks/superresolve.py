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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import torch
from torch import Tensor, nn

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.finer_images import FinerLens, amplitudes, binned
from lensdeblend.networks import build
from lensdeblend.networks.losses import dissimilarity
from lensdeblend.networks.super_lens import SuperLensed
from lensdeblend.networks.unlensing import Seen
from lensdeblend.training.deeplense_pairs import DeepLenseBatch, DeepLensePairs
from lensdeblend.training.recipe import Recipe, from_mapping
from lensdeblend.training.tasks.task import Task

__all__ = ["Superresolve"]

_FACTOR = 2
_PANELS = 6
_DRAWS = 48
# Six terms of the deflection's series are good to 1e-5 for ellipticities below 0.2, and cheap to differentiate.
_TERMS = 6
# The least spreads: what the models hold fixed, the network may tell none the less. Of theta_E, radius and n a share.
_LEAST = np.array([0.05, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.1, 0.05, 0.05, 0.05, 0.02, 0.02])
_SHARES = [0, 8, 9]


@dataclass(frozen=True)
class SuperresolveData:
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


class Superresolve(Task):
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
        unknown = [name for name in recipe.loss if name not in self.losses]
        if unknown:
            raise ValueError(f"the recipe: loss has the unknown key {unknown[0]!r}; known are {', '.join(self.losses)}")
        if pairs is not None or images:
            raise ValueError("the task 'superresolve' makes its own images; leave --pairs and --images out")
        self.recipe = recipe
        self.data = from_mapping(SuperresolveData, recipe.data, "the recipe: data")
        self.stream = DeepLensePairs(self.data.model, self.data.published, self.data.shares, _FACTOR)
        self._views: dict[tuple, _View] = {}

    def network(self) -> tuple[nn.Module, dict[str, Any]]:
        known = self._some
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

    def draw(self, count: int, seed: tuple[int, ...], device: torch.device, split: str) -> DeepLenseBatch:
        return self.stream.draw(count, seed, device, fine=split != "train")

    def loss(self, network: nn.Module, batch: DeepLenseBatch) -> tuple[Tensor, dict[str, Tensor]]:
        seen = self._seen(batch)
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
            "finer": lambda: mismatch(seen.image - flux * binned(view.imager.see(unseen), _FACTOR), weight),
            "consistency": lambda: mismatch(seen.image - flux * view.traced(unseen), weight),
            "smoothness": lambda: view.imager.roughness(bend).mean(),
            "mass": lambda: found.clumps.mean(),
            "prior": lambda: 0.5 * found.standard.square().mean(),
        }
        return {name: values[name]() for name, weight in self.recipe.loss.items() if weight}

    def measure(self, network: nn.Module, batch: DeepLenseBatch) -> dict[str, float]:
        seen = self._seen(batch)
        found = network(seen)
        model, fine, view = self._drawn(found, seen)
        peak = batch.fine.flatten(1).amax(1)
        squared = ((fine - batch.fine) / peak[:, None, None]).square().flatten(1).mean(1)
        at_pixels = FinerLens(seen.image.shape[1:], view.scale, clumps=found.clumps.shape[1:], device=fine.device)
        off = (at_pixels.deflection(found.lens, found.clumps) - batch.deflection).square().sum(1).mean((1, 2)).sqrt()
        figures = {
            "psnr": float((-10 * squared.log10()).mean()), "mse": float(squared.mean()),
            "ssim": 1 - float(dissimilarity(fine, batch.fine, peak)),
            "deflection": float((off / batch.lens[:, 0]).mean()),
            "chi2": float(((seen.image - model) / seen.sigma).square().mean()),
            "mass": float(found.clumps.mean()),
        }
        error = found.standard - (torch.cat([batch.lens, batch.source[:, 1:]], 1) - network.center) / network.spread
        return {**figures, "parameters": float(error.square().mean().sqrt())}

    def panels(self, network: nn.Module, batch: DeepLenseBatch, path: Path) -> None:
        from lensdeblend.training.pictures import draw_rows

        seen = self._seen(batch)
        found = network(seen)
        _, fine, _ = self._drawn(found, seen)
        shown = {
            "data": batch.image, "finer truth": batch.fine, "found": fine, "found - truth": fine - batch.fine,
            "clumps": found.clumps / found.clumps.flatten(1).amax(1)[:, None, None] * fine.amax((1, 2), keepdim=True),
        }
        shown = {name: value.cpu().numpy() for name, value in shown.items()}
        draw_rows([{name: value[i] for name, value in shown.items()} for i in range(min(_PANELS, len(fine)))], path)

    def domain(self) -> dict[str, Any]:
        observation, known = self.stream.observation, self._some
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
        return f"Sérsic sources of the populations {names}; images of low resolution alone"

    @cached_property
    def _some(self) -> DeepLenseBatch:
        """What is known beforehand of such lenses: the population, not the images learned from."""
        return self.stream.draw(_DRAWS, (self.recipe.seed, 0), "cpu", fine=False)

    @property
    def _fwhm(self) -> float:
        observation = self.stream.observation
        return (observation.psf.fwhm / observation.pixel_scale).to_value(u.dimensionless_unscaled)

    def _seen(self, batch: DeepLenseBatch) -> Seen:
        image = batch.image
        return Seen(image, batch.sigma, torch.isfinite(image), image.new_full((len(image),), self._fwhm))

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
            for seen in (observation, observation.refined(_FACTOR))
        )
        self.border = max(kernel.shape) // 2
        self.imager = FinerLens(
            self.shape, self.scale, finer, factor=_FACTOR, clumps=clumps, supersampling=points,
            border=self.border * _FACTOR, terms=_TERMS, device=device,
        )
        self._convolution = Convolution(kernel, self.shape, self.border)

    def coarse(self, unseen: Tensor) -> Tensor:
        """On the data's pixels, through their PSF."""
        return self._convolution(binned(unseen, _FACTOR))

    def traced(self, unseen: Tensor) -> Tensor:
        """On the data's pixels, before the PSF."""
        (ny, nx), b = self.shape, self.border
        return binned(unseen, _FACTOR)[:, b:b + ny, b:b + nx]
