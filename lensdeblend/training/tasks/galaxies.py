"""What galaxies look like: an auto-encoder of their departures from Sérsic profiles, and a flow on its latent space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lensdeblend.networks import build
from lensdeblend.networks.galaxies import GalaxyImages
from lensdeblend.training.flow_learning import FlowLength, learn_flow
from lensdeblend.training.galaxy_draws import PRIORS, DrawnGalaxies, GalaxyDraws
from lensdeblend.training.galaxy_library import library
from lensdeblend.training.recipe import Recipe, from_mapping
from lensdeblend.training.sources import Cuts
from lensdeblend.training.stream_priors import ranges_of, replaced
from lensdeblend.training.tasks.task import Task

__all__ = ["Galaxies"]

_PANELS = 6
# The stream of images for the flow, beside those for training, validation and test.
_FLOW = 4


@dataclass(frozen=True)
class GalaxyData:
    """The ``data`` of a recipe.

    Attributes
    ----------
    bands : int
        One or three.
    pixels : int
        A side of the images.
    sources : mapping
        Kind of galaxies to its share; the kind ``real`` is that of ``--images``.
    priors : mapping
        Priors to replace, as ``{Uniform: [1.5, 4.0]}``; `lensdeblend.training.galaxy_draws.PRIORS` has all.
    cuts : mapping
        Which galaxies of catalogues to learn from, as ``{magnitude: [18, 23.5], redshift: [0.1, 1.2], resolved: 1.2}``
        (`lensdeblend.training.sources.Cuts`).
    flow : mapping, optional
        How long the flow learns further once the auto-encoder stands (`lensdeblend.training.flow_learning.FlowLength`);
        left out, not at all.
    """

    bands: int = 1
    pixels: int = 64
    sources: Mapping[str, float] = field(default_factory=lambda: {"procedural": 1.0})
    priors: Mapping[str, Any] = field(default_factory=dict)
    cuts: Mapping[str, Any] = field(default_factory=dict)
    flow: Mapping[str, Any] | None = None

    @property
    def all_priors(self) -> dict:
        """Those of images, with the recipe's own."""
        return replaced(PRIORS, self.priors)


class Galaxies(Task):
    """Learn the departures of galaxies from their profiles.

    Losses, each with its weight in the recipe, per pixel of the images: ``likelihood``, half of chi-square;
    ``divergence``, of the latent vectors from the white prior (both at 1: the evidence's lower bound); ``flow``, that
    of the flow from noise to latent vectors, given Sérsic index, ellipticity and colours, which trains the flow alone.
    """

    watched = ("bound", False)
    losses = ("likelihood", "divergence", "flow")

    def __init__(self, recipe: Recipe, *, images: Sequence[Path] = (), pairs: Path | None = None):
        unknown = [name for name in recipe.loss if name not in self.losses]
        if unknown:
            raise ValueError(f"the recipe: loss has the unknown key {unknown[0]!r}; known are {', '.join(self.losses)}")
        if pairs is not None:
            raise ValueError("the task 'galaxies' makes its own images; leave --pairs out")
        self.recipe, self.images = recipe, tuple(images)
        self.data = from_mapping(GalaxyData, recipe.data, "the recipe: data")
        self.cuts = from_mapping(Cuts, self.data.cuts, "the recipe: data: cuts")
        self.flow = None if self.data.flow is None else from_mapping(
            FlowLength, self.data.flow, "the recipe: data: flow"
        )
        if self.flow is not None:
            replaced(PRIORS, self.flow.priors)
        wanted = "real" in self.data.sources
        if wanted and not images:
            raise ValueError("the recipe learns from real galaxies: name their folder with --images FOLDER")
        if images and not wanted:
            raise ValueError("the recipe has no real galaxies among its data: sources; leave --images out")
        self._streams: dict[str, GalaxyDraws] = {}

    def network(self) -> tuple[nn.Module, dict[str, Any]]:
        kinds = self._stream("train").kinds().double()
        options = {
            **self.recipe.network.options, "bands": self.data.bands, "center": kinds.mean(0).tolist(),
            "spread": kinds.std(0).clamp_min(1e-3).tolist(),
        }
        return build(self.recipe.network.architecture, options), options

    def draw(self, count: int, seed: tuple[int, ...], device: torch.device, split: str) -> DrawnGalaxies:
        return self._stream(split).draw(count, seed, device)

    def loss(self, network: nn.Module, batch: DrawnGalaxies) -> tuple[Tensor, dict[str, Tensor]]:
        noise = torch.randn(len(batch.clean), network.noise, device=batch.clean.device)
        values = network.loss(batch.seen, noise)
        used = (batch.seen.weight > 0).sum((1, 2, 3))
        parts = {name: (value / used).mean() for name, value in zip(self.losses, values)}
        return sum(self.recipe.loss.get(name, 0.0) * value for name, value in parts.items()), parts

    def finish(self, network: nn.Module, *, progress: bool = True) -> None:
        if self.flow is None:
            return
        device = network.center.device
        priors = replaced(self.data.all_priors, self.flow.priors)
        stream = GalaxyDraws(self._stream("train").galaxies, priors, pixels=self.data.pixels)

        def drawn(count: int, number: int) -> GalaxyImages:
            return stream.draw(count, (self.recipe.seed, _FLOW, number), device).seen

        learn_flow(network, drawn, self.flow, self.recipe.seed, progress=progress)

    def measure(self, network: nn.Module, batch: DrawnGalaxies) -> dict[str, float]:
        seen = batch.seen
        noise = torch.randn(
            len(batch.clean), network.noise, generator=torch.Generator().manual_seed(0)
        ).to(batch.clean.device)
        half, divergence, off = network.loss(seen, noise)
        profile = seen.drawn()
        drawn = seen.drawn(network.decode(network.encode(seen)[0]))
        used = (seen.weight > 0).sum((1, 2, 3))
        freedom = (used - network.bands).clamp_min(1)
        figures = {
            "bound": float(((half + divergence) / used).mean()), "divergence": float(divergence.mean()),
            "flow": float(off.mean()), "chi2": float((seen.chi_square(drawn) / freedom).mean()),
            "chi2_of_profiles": float((seen.chi_square(profile) / freedom).mean()),
        }
        peak = batch.clean.flatten(2).amax(2)[:, :, None, None].clamp_min(1e-30)
        for name, image in (("psnr", drawn), ("psnr_of_profiles", profile)):
            error = (seen.amplitudes(image)[:, :, None, None] * image - batch.clean) / peak
            there = (seen.weight > 0).flatten(2).any(2)
            decibel = -10 * error.square().mean((2, 3)).clamp_min(1e-12).log10()
            figures[name] = float(decibel[there].mean())
        return figures

    def panels(self, network: nn.Module, batch: DrawnGalaxies, path: Path) -> None:
        from lensdeblend.training.pictures import draw_rows

        seen = batch.seen
        profile = seen.drawn()
        drawn = seen.drawn(network.decode(network.encode(seen)[0]))
        white = torch.randn(len(drawn), network.latent, device=drawn.device)
        another = seen.drawn(network.decode(network.latents(white, seen.kind)))
        shown = {"data": seen.data, "galaxy": batch.clean}
        for name, image in (("decoded", drawn), ("profile", profile), ("another galaxy", another)):
            shown[name] = seen.amplitudes(image)[:, :, None, None] * image
        shown["galaxy - decoded"] = batch.clean - shown["decoded"]
        there = (seen.weight > 0).flatten(2).any(2)
        # A band that is missing has no brightness.
        rows = [
            {name: value[i][there[i]].mean(0).cpu().numpy() for name, value in shown.items()}
            for i in range(min(_PANELS, len(drawn)))
        ]
        draw_rows(rows, path)

    def domain(self) -> dict[str, Any]:
        return {"pixels": self.data.pixels, "bands": self.data.bands, **ranges_of(self.data.all_priors)}

    def priors(self) -> dict[str, str]:
        return {name: str(prior) for name, prior in self.data.all_priors.items()}

    @property
    def learned_from(self) -> str:
        folders = f"real (folders: {', '.join(folder.name for folder in self.images)})"
        return ", ".join(folders if kind == "real" else kind for kind in self.data.sources)

    def _stream(self, split: str) -> GalaxyDraws:
        if split not in self._streams:
            galaxies = library(self.data.sources, split, self.images, bands=self.data.bands, cuts=self.cuts)
            self._streams[split] = GalaxyDraws(galaxies, self.data.all_priors, pixels=self.data.pixels)
        return self._streams[split]
