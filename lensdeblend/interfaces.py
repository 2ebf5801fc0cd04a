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
        """Return the image of ``scene`` as ``observation`` would see it, with the truth.

        Parameters
        ----------
        scene : `~lensdeblend.scenes.Scene`
        observation : `~lensdeblend.scenes.Observation`
        rng : `numpy.random.Generator`
            The only source of random numbers: the same state gives the same result.

        Returns
        -------
        `~lensdeblend.results.Simulation`
            Its ``image`` has ``observation.shape`` pixels in ``observation.unit``, noise of ``observation.variance``,
            and ``observation.kernel`` as PSF.

        Raises
        ------
        ValueError
            For a scene that the method cannot draw, with what it can.
        """

    def simulate_batch(
        self, scenes: Sequence[Scene], observation: Observation, rng: np.random.Generator
    ) -> list[Simulation]:
        """Return one `Simulation` a scene."""
        return [self.simulate(scene, observation, child) for scene, child in zip(scenes, rng.spawn(len(scenes)))]


class Reconstructor(ABC):
    """Finds the unlensed source and the lens parameters."""

    @abstractmethod
    def reconstruct(self, image: Image, rng: np.random.Generator) -> Reconstruction:
        """Return the reconstruction of one image.

        Parameters
        ----------
        image : `~astropy.nddata.NDData` or ``{band: NDData}``
            As `~lensdeblend.prepare` leaves it.
        rng : `numpy.random.Generator`
            The only source of random numbers.

        Returns
        -------
        `~lensdeblend.results.Reconstruction`
            Angles in arcsec from the image centre, x towards +column and y towards +row.

        Raises
        ------
        TypeError
            For bands, where the method takes one image.
        ValueError
            For an image in which it finds nothing to fit.
        """

    def reconstruct_batch(self, images: Sequence[Image], rng: np.random.Generator) -> list[Reconstruction]:
        """Return one `Reconstruction` an image."""
        return [self.reconstruct(image, child) for image, child in zip(images, rng.spawn(len(images)))]


class Deblender(ABC):
    """Takes overlapping galaxies apart."""

    @abstractmethod
    def deblend(self, image: Image, segmentation, positions, rng: np.random.Generator) -> Deblending:
        """Return one image and one catalogue row a galaxy.

        Parameters
        ----------
        image : `~astropy.nddata.NDData` or ``{band: NDData}``
            As `~lensdeblend.prepare` leaves it.
        segmentation : `~photutils.segmentation.SegmentationImage` or None
            Of the image's shape (that of the first band).
        positions : (n, 2) array or None
            Pixel (x, y), (0, 0) the centre of the first pixel. Where they are given, one galaxy each in their order;
            where not, the method finds the galaxies.
        rng : `numpy.random.Generator`
            The only source of random numbers.

        Returns
        -------
        `~lensdeblend.results.Deblending`

        Raises
        ------
        TypeError
            For bands, where the method takes one image.
        ValueError
            Where it finds no galaxy.
        """

    def deblend_batch(
        self, images: Sequence[Image], segmentations, positions, rng: np.random.Generator
    ) -> list[Deblending]:
        """Return one `Deblending` an image.

        It may raise where one of the images fails: `~lensdeblend.deblend` then finds out which, and flags that one.
        """
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
        """Return ``n`` galaxies.

        Parameters
        ----------
        n : int
        conditions : mapping or None
            Names as in `~lensdeblend.generate` to scalars or columns of length ``n``; what is left out is drawn.
        rng : `numpy.random.Generator`
            The only source of random numbers.

        Returns
        -------
        `~lensdeblend.results.Generation`

        Raises
        ------
        ValueError
            For a condition that the method cannot grant: none is passed over in silence.
        """

    def generate_batch(self, ns: Sequence[int], conditions: Sequence, rng: np.random.Generator) -> list[Generation]:
        """Return one `Generation` a request."""
        return [self.generate(n, wish, child) for n, wish, child in zip(ns, conditions, rng.spawn(len(ns)))]


class SuperResolver(ABC):
    """Makes a finer image of a strong lens."""

    @abstractmethod
    def superresolve(self, image: Image, factor: float, rng: np.random.Generator) -> SuperResolution:
        """Return the image with pixels ``factor`` times smaller, and the maps that made it.

        Parameters
        ----------
        image : `~astropy.nddata.NDData` or ``{band: NDData}``
            As `~lensdeblend.prepare` leaves it.
        factor : float
            From 1 to 5, not always whole.
        rng : `numpy.random.Generator`
            The only source of random numbers.

        Returns
        -------
        `~lensdeblend.results.SuperResolution`
            Images of ``round(n * factor)`` pixels a side, exactly ``factor`` times smaller, about the same centre: over
            the same piece of sky, but for at most a quarter of a finer pixel at each edge where ``n * factor`` is not
            whole. Their values are flux per finer pixel.

        Raises
        ------
        TypeError
            For bands, where the method takes one image.
        ValueError
            For a factor that the method does not offer.
        """

    def superresolve_batch(
        self, images: Sequence[Image], factor: float, rng: np.random.Generator
    ) -> list[SuperResolution]:
        """Return one `SuperResolution` an image."""
        return [self.superresolve(image, factor, child) for image, child in zip(images, rng.spawn(len(images)))]
