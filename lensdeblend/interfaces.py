"""The five abstract classes that method authors subclass.

A method is a frozen dataclass: its fields are its options. Images arrive through `lensdeblend.prepare`, so a method
sees a plain `~astropy.nddata.NDData` with native floats, a `~astropy.nddata.VarianceUncertainty`, a boolean mask, an
odd, centred PSF (or None) and a known pixel scale. Where the user handed in ``{band: NDData}`` the method receives
that mapping.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from astropy.nddata import NDData

from lensdeblend.results import Deblending, Generation, Reconstruction, Simulation, SuperResolution
from lensdeblend.scenes import Observation, Scene

__all__ = ["Deblender", "Generator", "Image", "Reconstructor", "Simulator", "SuperResolver"]

Image = NDData | Mapping[str, NDData]


class Simulator(ABC):
    """Makes an image of a scene."""

    @abstractmethod
    def simulate(self, scene: Scene, observation: Observation, rng: np.random.Generator) -> Simulation:
        """Return the image of ``scene`` as ``observation`` would see it, with the truth."""

    def simulate_batch(
        self, scenes: Sequence[Scene], observation: Observation, rng: np.random.Generator
    ) -> list[Simulation]:
        """Return one `Simulation` a scene."""
        return [self.simulate(scene, observation, child) for scene, child in zip(scenes, rng.spawn(len(scenes)))]


class Reconstructor(ABC):
    """Finds the unlensed source and the lens parameters."""

    @abstractmethod
    def reconstruct(self, image: Image, rng: np.random.Generator) -> Reconstruction:
        """Return the reconstruction of one prepared image."""

    def reconstruct_batch(self, images: Sequence[Image], rng: np.random.Generator) -> list[Reconstruction]:
        """Return one `Reconstruction` an image."""
        return [self.reconstruct(image, child) for image, child in zip(images, rng.spawn(len(images)))]


class Deblender(ABC):
    """Takes overlapping galaxies apart."""

    @abstractmethod
    def deblend(self, image: Image, segmentation, positions, rng: np.random.Generator) -> Deblending:
        """Return one image and one catalogue row a galaxy.

        ``segmentation`` is a photutils ``SegmentationImage`` or None; ``positions`` an (n, 2) array of pixel (x, y)
        or None.
        """

    def deblend_batch(
        self, images: Sequence[Image], segmentations, positions, rng: np.random.Generator
    ) -> list[Deblending]:
        """Return one `Deblending` an image."""
        segmentations = segmentations or [None] * len(images)
        positions = positions or [None] * len(images)
        return [
            self.deblend(image, segmentation, where, child)
            for image, segmentation, where, child in zip(images, segmentations, positions, rng.spawn(len(images)))
        ]


class Generator(ABC):
    """Makes galaxies with wished properties."""

    @abstractmethod
    def generate(self, n: int, conditions: Mapping | None, rng: np.random.Generator) -> Generation:
        """Return ``n`` galaxies; ``conditions`` maps property names to scalars or length-``n`` columns."""

    def generate_batch(self, ns: Sequence[int], conditions: Sequence, rng: np.random.Generator) -> list[Generation]:
        """Return one `Generation` a request."""
        return [self.generate(n, wish, child) for n, wish, child in zip(ns, conditions, rng.spawn(len(ns)))]


class SuperResolver(ABC):
    """Makes a finer image of a strong lens."""

    @abstractmethod
    def superresolve(self, image: Image, factor: float, rng: np.random.Generator) -> SuperResolution:
        """Return the image with pixels ``factor`` times smaller, and the maps that made it."""

    def superresolve_batch(
        self, images: Sequence[Image], factor: float, rng: np.random.Generator
    ) -> list[SuperResolution]:
        """Return one `SuperResolution` an image."""
        return [self.superresolve(image, factor, child) for image, child in zip(images, rng.spawn(len(images)))]
