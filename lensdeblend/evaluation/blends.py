"""Seeded sets of simulated blends on which deblenders are judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import repeat
from os import PathLike

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, VarianceUncertainty
from astropy.table import Table

from lensdeblend.evaluation.real_sky import Sky, SkyPatch
from lensdeblend.evaluation.sets import check_draw, real_galaxies
from lensdeblend.evaluation.shapes import adaptive_moments
from lensdeblend.images import like
from lensdeblend.plugins import resolve
from lensdeblend.results import Simulation
from lensdeblend.scenes import Galaxy, GaussianPSF, ImageSource, Observation, Scene
from lensdeblend.scenes.populations import BlendPopulation, Distribution, Fixed

__all__ = ["BlendSet", "TrueBlend"]

_MARGIN = 5.0
_TRIES = 2000
_REAL_SKY = (
    "The galaxies are put into real sky, whose noise and neighbours stay as they are. Where positions are given, those "
    "of the neighbours are too: what photutils' default settings find on the empty patch. Only the galaxies put there "
    "are judged. A detection of anything else may be right, so precision is not told. The variance is that of the "
    "patch's pixels; their noise is correlated, which no method is told, and neighbours differ from any model: "
    "chi-squares and pulls are larger than on simulated sky."
)


@dataclass(frozen=True, eq=False)
class TrueBlend:
    """A blend and what is known of it.

    Attributes
    ----------
    image : dict of str to NDData
        By band, with noise.
    sources : list of dict of str to ndarray
        Each galaxy alone as it is seen in each band, without noise.
    catalog : `~astropy.table.Table`
        A row a galaxy: ``x``, ``y`` (pixels), ``flux_BAND`` (all of its light, also what falls outside of the image),
        ``e1``, ``e2`` (of the whole galaxy before the PSF, of modulus (1 - q) / (1 + q)), ``blendedness`` (1 - sum
        t_i^2 / sum t_i t_all) and ``snr`` (of a matched filter), these two of all bands together, by their noise.
    match_radius : float
        Pixels within which a detection is one of this galaxy.
    neighbours : ndarray
        (n, 2), x and y of what else is in the image, of which nothing is known; none but on real sky.
    """

    image: dict[str, NDData]
    sources: list[dict[str, np.ndarray]]
    catalog: Table
    match_radius: float
    neighbours: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))

    @property
    def positions(self) -> np.ndarray:
        """True (x, y), (galaxies, 2)."""
        return np.column_stack([self.catalog["x"], self.catalog["y"]])

    @property
    def all_positions(self) -> np.ndarray:
        """The true positions, then those of the neighbours."""
        return np.concatenate([self.positions, self.neighbours])


@dataclass(frozen=True)
class BlendSet:
    """A population of blends, the bands in which they are seen, and what simulates them.

    Parameters
    ----------
    name, summary : str
    population : `~lensdeblend.scenes.populations.BlendPopulation`
        Its signal-to-noise is that in the last band. Its own observation is not used.
    bands : mapping of str to `~lensdeblend.scenes.Observation`
        All of one pixel scale and shape.
    colours : sequence of `~lensdeblend.scenes.populations.Distribution`
        Magnitudes between each band and the next, one fewer than bands; drawn a galaxy.
    simulator : str
        A name of ``methods("simulator")``.
    real_sources : bool
        Whether the galaxies are real, of a folder or catalogue that the user names. They take over centre and
        half-light radius (the disc's) of the population's galaxies, and are turned by any angle.
    real_sky : bool
        Whether the galaxies are put into real sky, of a folder that the user names: its noise and neighbours stay as
        they are, the noise of each patch takes the place of that of ``bands``, and the galaxies have no photon noise.

    Notes
    -----
    Blends with a centre closer than 5 pixels to the border are drawn again, with as many galaxies.

    Examples
    --------
    >>> from lensdeblend.evaluation import blend_set
    >>> euclid = blend_set("euclid")
    >>> first, = euclid.draw(1, seed=1)
    >>> list(first.image), 2 <= len(first.catalog) <= 6
    (['VIS'], True)
    >>> again, second = euclid.draw(2, seed=1)
    >>> bool((first.image["VIS"].data == again.image["VIS"].data).all())
    True
    """

    name: str
    summary: str
    population: BlendPopulation
    bands: Mapping[str, Observation]
    colours: tuple[Distribution, ...] = ()
    simulator: str = "galsim"
    real_sources: bool = False
    real_sky: bool = False
    noted: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self):
        if len(self.colours) != len(self.bands) - 1:
            raise ValueError(
                f"{self.name}: one colour fewer than bands is needed; got {len(self.bands)} bands, {len(self.colours)} "
                "colours"
            )
        if len({(seen.shape, seen.pixel_scale.to_value(u.arcsec)) for seen in self.bands.values()}) != 1:
            raise ValueError(f"{self.name}: the bands must have one shape and one pixel scale")

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know when reading numbers of this set."""
        return (*self.noted, *([_REAL_SKY] * self.real_sky), *([
            "The sources are real galaxies, smoothed and cut to their own footprint, so that their noise is no part of "
            "the truth; their true ellipticity is that of adaptive moments before the PSF. They are drawn by the "
            f"simulator {self.simulator}."
        ] * self.real_sources))

    def draw(
        self, n: int, seed: int, *, images: str | PathLike | None = None, split: str = "test",
        sky: str | PathLike | None = None, progress: bool = False,
    ) -> list[TrueBlend]:
        """Simulate the first ``n`` blends of the set.

        Parameters
        ----------
        n : int
        seed : int
            The same seed gives the same blends, whatever ``n``.
        images : path, optional
            Galaxies for `~lensdeblend.training.sources.read_galaxies`; for sets of real sources, and only for them.
        split : {"test", "validation", "train", "all"}
            Which of the galaxies: networks are trained with the galaxies of ``"train"``. All are used before one is
            used twice.
        sky : path, optional
            Folder of real sky, for sets with ``real_sky``, and only for them: ``BAND.fits`` for each band, one patch or
            a cube of patches (patches, ny, nx), with the set's pixel scale and the sky taken off.
        progress : bool
            Whether to show a progress bar.

        Raises
        ------
        FileNotFoundError
            Where the sky of a band is missing.
        ValueError
            Where ``n`` is not positive, ``seed`` negative, galaxies or sky are missing or given in vain, the patches
            are smaller than the images, or the population's groups do not fit into the image.
        """
        from tqdm import tqdm

        check_draw(self, n, seed, images)
        if self.real_sky and sky is None:
            raise ValueError(f"the set {self.name!r} needs real sky: name its folder (--sky FOLDER)")
        if sky is not None and not self.real_sky:
            raise ValueError(f"the set {self.name!r} has no real sky: leave the folder of sky out")
        patches = Sky.read(sky, list(self.bands)) if self.real_sky else None
        simulator = resolve("simulator", self.simulator).method
        galaxies = real_galaxies(images, split, seed, progress) if self.real_sources else repeat(None)
        drawn = np.random.default_rng(seed).spawn(n)
        return [
            self._one(rng, galaxies, simulator) if patches is None else self._on_sky(rng, patches, galaxies, simulator)
            for rng in tqdm(drawn, desc="simulating", unit="blend", disable=None if progress else True)
        ]

    def _one(self, rng: np.random.Generator, galaxies: Iterator, simulator) -> TrueBlend:
        for_scene, for_colours, for_sources, for_noise = rng.spawn(4)
        scene = self._scene(for_scene)
        moments = None
        if self.real_sources:
            scene, moments = _with_real_galaxies(scene, galaxies, for_sources)
        brightness = self._brightness(len(scene.sources), for_colours)
        simulations = {
            band: simulator.simulate(_scaled(scene, brightness[band]), seen, child)
            for (band, seen), child in zip(self.bands.items(), for_noise.spawn(len(self.bands)))
        }
        return _told(simulations, moments, match_radius(self.bands.values()))

    def _on_sky(self, rng: np.random.Generator, sky: Sky, galaxies: Iterator, simulator) -> TrueBlend:
        for_sky, for_galaxies = rng.spawn(2)
        patch = sky.patch(next(iter(self.bands.values())).shape, for_sky)
        bands = {band: replace(seen, background_rms=patch.sigma[band]) for band, seen in self.bands.items()}
        return _put_into(patch, replace(self, bands=bands)._one(for_galaxies, galaxies, simulator))

    def _scene(self, rng: np.random.Generator) -> Scene:
        last = list(self.bands.values())[-1]
        count = self.population.priors["count"].draw(rng)
        seen = replace(self.population, observation=last).with_priors(count=Fixed(count))
        # Drawn with its count first, so that the border does not favour pairs.
        reach = (min(last.shape) - 1) / 2 - _MARGIN
        scale = last.pixel_scale.to_value(u.arcsec)
        for _ in range(_TRIES):
            scene = seen.draw(rng)
            centres = [_centre(galaxy) for galaxy in scene.galaxies]
            if np.abs(centres).max() / scale <= reach:
                return scene
        raise ValueError(
            f"{self.name}: no group of {count} galaxies of the population fits into {min(last.shape)} pixels of "
            f"{scale:g} arcsec; make the image larger or the separations smaller"
        )

    def _brightness(self, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Flux over that in the last band, by band, of each galaxy."""
        names, last = list(self.bands), list(self.bands.values())[-1]
        magnitudes = np.zeros(count)
        found = {names[-1]: np.ones(count)}
        for place in reversed(range(len(self.colours))):
            magnitudes = magnitudes + np.array([float(self.colours[place].draw(rng)) for _ in range(count)])
            seen = self.bands[names[place]]
            zero = 0.0 if None in (seen.zero_point, last.zero_point) else seen.zero_point - last.zero_point
            found[names[place]] = 10 ** (-0.4 * (magnitudes - zero))
        return found


def match_radius(bands) -> float:
    """Half of the widest PSF's width at half of its maximum, at least one and a half pixels."""
    return max(1.5, *(0.5 * _width(seen) for seen in bands))


def _width(seen: Observation) -> float:
    if seen.psf is None:
        return 0.0
    if isinstance(seen.psf, GaussianPSF):
        return float(seen.psf.fwhm / seen.pixel_scale)
    return float(2 * np.sqrt(np.count_nonzero(seen.kernel >= 0.5 * seen.kernel.max()) / np.pi))


def _centre(galaxy: Galaxy) -> tuple[float, float]:
    first = galaxy.components[0]
    return first.center_x.to_value(u.arcsec), first.center_y.to_value(u.arcsec)


def _scaled(scene: Scene, factors: np.ndarray) -> Scene:
    return replace(scene, sources=[
        replace(galaxy, components=tuple(replace(part, flux=part.flux * factor) for part in galaxy.components))
        for galaxy, factor in zip(scene.galaxies, factors)
    ])


def _with_real_galaxies(scene: Scene, galaxies: Iterator, rng: np.random.Generator) -> tuple[Scene, np.ndarray]:
    """The scene with each galaxy replaced by the next real one, and the moments of these.

    Adaptive ones, (galaxies, 4): where their light lies from where they were put (arcsec), and the ellipticity. The
    barycentre, which is where they were put, follows faint light far out.
    """
    sources, moments = [], []
    for galaxy in scene.galaxies:
        stamp, radius = next(galaxies)
        disc, flux = galaxy.components[0], sum(part.flux for part in galaxy.components)
        stamp = np.asarray(stamp, dtype=float)
        scale = disc.radius.to_value(u.arcsec) / radius
        image = NDData(stamp, meta={"PIXSCALE": scale})
        angle = rng.uniform(0, 2 * np.pi)
        sources.append(Galaxy((ImageSource(image, flux, angle * u.rad, disc.center_x, disc.center_y),), galaxy.name))
        x, y, e1, e2 = adaptive_moments(stamp)
        middle = (np.array(stamp.shape[::-1]) - 1) / 2
        place = scale * complex(x - middle[0], y - middle[1]) * np.exp(1j * angle)
        shape = complex(e1, e2) * np.exp(2j * angle)
        moments.append((*(np.nan_to_num([place.real, place.imag])), shape.real, shape.imag))
    return replace(scene, sources=sources), np.array(moments)


def _told(simulations: Mapping[str, Simulation], moments: np.ndarray | None, radius: float) -> TrueBlend:
    simulation = next(iter(simulations.values()))
    first, scale = simulation.catalog, simulation.observation.pixel_scale.to_value(u.arcsec)
    if moments is None:
        moments = np.column_stack([np.zeros((len(first), 2)), first["e1"], first["e2"]])
    dx, dy, e1, e2 = moments.T
    sources = [
        {band: simulation.sources[number].data for band, simulation in simulations.items()}
        for number in range(len(first))
    ]
    sigma = {band: np.sqrt(simulation.image.uncertainty.array) for band, simulation in simulations.items()}
    seen = np.array([np.concatenate([(one[band] / sigma[band]).ravel() for band in sigma]) for one in sources])
    squares = (seen**2).sum(1)
    catalog = Table({"x": u.Quantity(first["x"]).value + dx / scale, "y": u.Quantity(first["y"]).value + dy / scale})
    for band, simulation in simulations.items():
        catalog[f"flux_{band}"] = u.Quantity(simulation.catalog["flux"]).value
    catalog["e1"], catalog["e2"] = e1, e2
    catalog["blendedness"], catalog["snr"] = 1 - squares / (seen @ seen.sum(0)), np.sqrt(squares)
    return TrueBlend({band: one.image for band, one in simulations.items()}, sources, catalog, radius)


def _put_into(patch: SkyPatch, blend: TrueBlend) -> TrueBlend:
    """The blend without its simulated noise, on the sky of the patch."""
    image = {
        band: like(
            given, sum((one[band] for one in blend.sources), patch.data[band]),
            uncertainty=VarianceUncertainty(np.full(given.data.shape, patch.sigma[band]**2)), psf=given.psf,
        ) for band, given in blend.image.items()
    }
    return replace(blend, image=image, neighbours=patch.neighbours)
