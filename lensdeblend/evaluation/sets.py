"""Named, seeded sets of simulated lenses on which reconstructors are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from os import PathLike

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, VarianceUncertainty

from lensdeblend.images import like
from lensdeblend.plugins import resolve
from lensdeblend.results import Simulation
from lensdeblend.scenes import GaussianPSF, ImageSource, Scene
from lensdeblend.scenes.populations import Distribution, Fixed, LensPopulation, LogUniform, Normal, Uniform, population
from lensdeblend.simulators.sampling import sample
from lensdeblend.spelling import advice

__all__ = ["LensSet", "lens_set", "lens_sets"]


@dataclass(frozen=True)
class LensSet:
    """A population of lenses, how they are seen, and what simulates them.

    Parameters
    ----------
    name, summary : str
    population : `~lensdeblend.scenes.populations.LensPopulation`
        Its prior on ``peak_snr``, where it has one, sets the noise.
    simulator : str
        A name of ``methods("simulator")``.
    pixel_scale, psf_fwhm : `~lensdeblend.scenes.populations.Distribution`, optional
        Arcsec; left out, those of the population's observation.
    declared_noise : float, optional
        For images without noise: the standard deviation that is handed to the methods, as a fraction of the image's
        peak. No noise of that size is in the data.
    real_sources : bool
        Whether the sources are real galaxies, of a folder or catalogue that the user names, in place of the
        population's Sérsics. They take over centre and half-light radius, and are turned by any angle.

    Examples
    --------
    >>> from lensdeblend.evaluation import lens_set
    >>> varied = lens_set("varied")
    >>> varied.pixel_scale
    Uniform(low=0.06, high=0.11)
    >>> first, = varied.draw(1, seed=1)
    >>> again, second = varied.draw(2, seed=1)
    >>> bool((first.image.data == again.image.data).all())
    True
    """

    name: str
    summary: str
    population: LensPopulation
    simulator: str = "torch"
    pixel_scale: Distribution | None = None
    psf_fwhm: Distribution | None = None
    declared_noise: float | None = None
    real_sources: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know when reading numbers of this set."""
        notes = []
        if self.declared_noise is not None:
            notes.append(
                f"The images have no noise; the methods are told a standard deviation of {self.declared_noise:g} of "
                "the peak. A chi-square far below 1 is right here, intervals are wider than errors, and no "
                "Cramér-Rao bound is given."
            )
        if self.real_sources:
            notes.append(
                "The sources are real galaxies, smoothed and cut to their own footprint, so that their noise is no "
                "part of the truth; a Cramér-Rao bound is known for Sérsic sources only, so none is given."
            )
        return tuple(notes)

    def draw(
        self, n: int, seed: int, *, images: str | PathLike | None = None, split: str = "test", progress: bool = False
    ) -> list[Simulation]:
        """Simulate the first ``n`` lenses of the set.

        Parameters
        ----------
        n : int
        seed : int
            The same seed gives the same lenses, whatever ``n``.
        images : path, optional
            Galaxies for `~lensdeblend.training.sources.read_galaxies`; for sets of real sources, and only for them.
        split : {"test", "validation", "train", "all"}
            Which of the galaxies: networks are trained with the galaxies of ``"train"``. All are used before one is
            used twice.
        progress : bool
            Whether to show a progress bar.

        Raises
        ------
        ValueError
            Where ``n`` is not positive, ``seed`` negative, galaxies are missing or given in vain.
        """
        from tqdm import tqdm

        check_draw(self, n, seed, images)
        simulator = resolve("simulator", self.simulator).method
        galaxies = real_galaxies(images, split, seed, progress) if self.real_sources else repeat(None)
        drawn = zip(np.random.default_rng(seed).spawn(n), galaxies)
        return [
            self._one(rng, galaxy, simulator)
            for rng, galaxy in tqdm(drawn, desc="simulating", total=n, unit="lens", disable=None if progress else True)
        ]

    def _one(self, rng: np.random.Generator, galaxy: tuple[np.ndarray, float] | None, simulator) -> Simulation:
        seen, chosen = self._population(rng), rng.spawn(1)[0]
        if galaxy is not None:
            seen = _RealSource(seen.name, seen.summary, seen.observation, seen.priors, *galaxy)
        simulation, = sample(seen, 1, simulator, chosen)
        if self.declared_noise is None:
            return simulation
        image = simulation.image
        variance = np.full(image.data.shape, (self.declared_noise * image.data.max()) ** 2)
        return replace(simulation, image=like(image, image.data, uncertainty=VarianceUncertainty(variance)))

    def _population(self, rng: np.random.Generator) -> LensPopulation:
        seen = self.population.observation
        if self.pixel_scale is not None:
            seen = replace(seen, pixel_scale=float(self.pixel_scale.draw(rng)) * u.arcsec)
        if self.psf_fwhm is not None:
            seen = replace(seen, psf=GaussianPSF(float(self.psf_fwhm.draw(rng)) * u.arcsec))
        return replace(self.population, observation=seen)


def lens_sets() -> list[str]:
    """List the names that `lens_set` knows."""
    return list(_SETS)


def lens_set(name: str) -> LensSet:
    """Return the set called ``name``.

    ``published`` has the lenses of a published CNN and U-Net study, without noise; ``varied`` the same with noise, and
    with PSF and pixels that vary; ``benchmark`` the population ``lens-benchmark``; ``cosmos`` real galaxies behind the
    lenses of ``benchmark``.

    Raises
    ------
    ValueError
        For an unknown name; the message gives the nearest and all known ones.

    Examples
    --------
    >>> from lensdeblend.evaluation import lens_set
    >>> lens_set("published").population.priors["theta_E"]
    Uniform(low=0.8, high=1.2)
    """
    if name not in _SETS:
        raise ValueError(f"unknown set of lenses {name!r}; {advice(name, _SETS)}")
    return _SETS[name]()


@dataclass(frozen=True)
class _RealSource(LensPopulation):
    """Lenses whose source is one galaxy, an image with a half-light radius in pixels."""

    stamp: np.ndarray
    stamp_radius: float

    def draw(self, rng: np.random.Generator) -> Scene:
        scene = super().draw(rng)
        sersic, = scene.sources
        scale = sersic.radius.to_value(u.arcsec) / self.stamp_radius
        image = NDData(np.asarray(self.stamp, dtype=float), meta={"PIXSCALE": scale})
        angle = rng.uniform(0, 360) * u.deg
        return replace(scene, sources=[ImageSource(image, sersic.flux, angle, sersic.center_x, sersic.center_y)])


def check_draw(chosen, n: int, seed: int, images) -> None:
    """Raise ValueError for what `LensSet.draw` refuses; any set with a name and ``real_sources`` will do."""
    check_count(n, seed)
    if chosen.real_sources and images is None:
        raise ValueError(f"the set {chosen.name!r} needs galaxies: name their folder or catalogue (--images FOLDER)")
    if images is not None and not chosen.real_sources:
        raise ValueError(f"the set {chosen.name!r} has no real sources: leave the folder of images out")


def check_count(n: int, seed: int) -> None:
    """Raise ValueError for fewer than one, and for a negative seed."""
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n}")
    if seed < 0:
        raise ValueError(f"seed must not be negative; got {seed}")


def real_galaxies(images, split: str, seed: int, progress: bool) -> Iterator[tuple[np.ndarray, float]]:
    """Stamps with half-light radii, without end, in random order, each once before any comes again."""
    from lensdeblend.training.sources import read_galaxies

    galaxies = read_galaxies(images, progress=progress).split(split)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(len(galaxies),)))
    while True:
        for place in rng.permutation(len(galaxies)):
            yield galaxies.stamps[place], float(galaxies.radius[place])


def _published() -> LensSet:
    summary = "lenses of the published CNN and U-Net, Sérsic sources, noise-free"
    return LensSet("published", summary, population("lens-published"), declared_noise=1e-3)


def _varied() -> LensSet:
    published = population("lens-published")
    priors = {
        "theta_E": Uniform(0.7, 1.7), "e1": Normal(0.0, 0.1), "e2": Normal(0.0, 0.1),
        "peak_snr": LogUniform(10.0, 300.0),
    }
    return LensSet(
        "varied", "the published lenses with noise, PSF and pixels that vary",
        replace(published, priors={**published.priors, **priors}),
        pixel_scale=Uniform(0.06, 0.11), psf_fwhm=Uniform(0.08, 0.2),
    )


def _benchmark() -> LensSet:
    # By a code whose deflections and profiles are not those of the methods.
    return LensSet("benchmark", "the population lens-benchmark, noisy", population("lens-benchmark"), "lenstronomy")


def _cosmos() -> LensSet:
    lenses = population("lens-benchmark").with_priors(peak_snr=Fixed(30.0))
    return LensSet("cosmos", "real galaxies behind the lenses of lens-benchmark, noisy", lenses, real_sources=True)


_SETS: dict[str, Callable[[], LensSet]] = {
    "published": _published, "varied": _varied, "benchmark": _benchmark, "cosmos": _cosmos,
}
