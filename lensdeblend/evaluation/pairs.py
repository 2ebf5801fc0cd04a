"""Sets of lenses seen on the pixels of an instrument and on finer ones, on which superresolvers are judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import astropy.units as u
import numpy as np
from astropy.nddata import NDData

from lensdeblend.evaluation.metrics import footprint
from lensdeblend.evaluation.sets import check_count
from lensdeblend.interfaces import Simulator
from lensdeblend.plugins import resolve
from lensdeblend.scenes import Observation, PointMass, PointSubhalos, Scene, Vortex
from lensdeblend.scenes.populations import Population
from lensdeblend.simulators.assembly import with_noise

__all__ = ["PairSet", "TruePair"]

_MOST = 5
_POINTS = (PointMass, PointSubhalos, Vortex)
_POINTS_AN_EDGE = 4


@dataclass(frozen=True, eq=False)
class TruePair:
    """An image of a lens, and what pixels ``factor`` times smaller would show.

    Attributes
    ----------
    model, kind : str
        Of the scene: its place in the set.
    scene : `~lensdeblend.scenes.Scene`
    observation : `~lensdeblend.scenes.Observation`
        Of ``image``.
    factor : int
    image : NDData
        What methods see: with noise, variance, PSF and pixel scale.
    clean : NDData
        The same without noise.
    fine : NDData
        The truth on finer pixels, through the PSF, without noise.
    noisy : NDData
        The same with the noise of one exposure of the instrument. Exposure time, background and read noise of each
        finer pixel are those of a pixel of the instrument, so that a finer pixel has less light and no less noise of
        the background. That is how a simulator that is given finer pixels and nothing else makes them.
    """

    model: str
    kind: str
    scene: Scene
    observation: Observation
    factor: int
    image: NDData
    clean: NDData
    fine: NDData
    noisy: NDData

    @property
    def scale(self) -> float:
        """Arcsec a finer pixel."""
        return self.observation.pixel_scale.to_value(u.arcsec) / self.factor

    @property
    def theta_E(self) -> float:
        """Of the main lens, arcsec."""
        return self._of_lens("theta_E")

    @property
    def peak_snr(self) -> float:
        """Of the pixel of the image in which it is largest."""
        variance = self.observation.variance(self.clean.data)
        return float(np.max(self.clean.data / np.sqrt(variance))) if variance.any() else np.inf

    @cached_property
    def footprint(self) -> np.ndarray:
        """Finer pixels with light: see `lensdeblend.evaluation.metrics.footprint`."""
        return footprint(self.fine)

    @cached_property
    def distance(self) -> np.ndarray:
        """Of the finer pixels from the main lens, arcsec."""
        x, y = self._centres
        return np.hypot(x - self._of_lens("center_x"), y - self._of_lens("center_y"))

    @cached_property
    def deflection(self) -> np.ndarray:
        """True deflection of everything at the finer pixels' centres: (2, ny, nx), arcsec."""
        from lensdeblend.simulators.lenstronomy import deflection

        x, y = self._centres
        return np.stack(deflection(self.scene.mass, x.ravel(), y.ravel())).reshape(2, *x.shape)

    @cached_property
    def convergence(self) -> np.ndarray:
        """True convergence averaged over the finer pixels; a point mass is in the pixel that it falls into.

        The mass in a pixel is half of what the deflection carries out through its edges (Gauss's theorem), which is
        finite where the convergence is not.
        """
        from lensdeblend.simulators.lenstronomy import deflection, point_masses

        (ny, nx), scale = self.fine.data.shape, self.scale
        smooth = [part for part in self.scene.mass if not isinstance(part, _POINTS)]
        rows, columns = ((np.arange(count + 1) - count / 2) * scale for count in (ny, nx))
        places, weights = np.polynomial.legendre.leggauss(_POINTS_AN_EDGE)

        def carried(axis: int, lines: np.ndarray, edges: np.ndarray) -> np.ndarray:
            """Through each edge that lies on ``lines`` across ``axis``."""
            along = (edges[:-1, None] + (places + 1) / 2 * scale)[None]
            across, along = np.broadcast_arrays(lines[:, None, None], along)
            x, y = (across, along) if axis == 0 else (along, across)
            by = deflection(smooth, x.ravel(), y.ravel())[axis].reshape(along.shape)
            return by @ weights / 2 * scale

        flow = np.diff(carried(0, columns, rows), axis=0).T + np.diff(carried(1, rows, columns), axis=0)
        theta_E, x, y = point_masses(self.scene.mass)
        points, _, _ = np.histogram2d(y, x, bins=(rows, columns), weights=np.pi * theta_E**2)
        return (flow / 2 + points) / scale**2

    @property
    def _centres(self) -> tuple[np.ndarray, np.ndarray]:
        (ny, nx), scale = self.fine.data.shape, self.scale
        y, x = np.indices((ny, nx), dtype=float)
        return (x - (nx - 1) / 2) * scale, (y - (ny - 1) / 2) * scale

    def _of_lens(self, name: str) -> float:
        return float(self.scene.lens_parameters[name][0].to_value(u.arcsec))


@dataclass(frozen=True)
class PairSet:
    """Populations of lenses, each a class of a model, and what simulates them.

    Parameters
    ----------
    name, summary : str
    populations : mapping of (str, str) to `~lensdeblend.scenes.populations.Population`
        By model and class. Lens ``k`` of the set is of the population in place ``k`` modulo their number, so that they
        share the lenses evenly. All need a PSF that is known on finer pixels.
    simulator : str or `~lensdeblend.interfaces.Simulator`
        A name of ``methods("simulator")``, or an instance with its options.
    published : bool
        Whether the published numbers (`lensdeblend.evaluation.published`) are of these models and classes.

    Examples
    --------
    >>> from lensdeblend.evaluation import pair_set
    >>> hubble = pair_set("deeplense-3")
    >>> list(hubble.populations)
    [('3', 'none'), ('3', 'cdm'), ('3', 'axion')]
    >>> pair, = hubble.draw(1, seed=1, factor=3)
    >>> pair.image.data.shape, pair.fine.data.shape
    ((64, 64), (192, 192))
    """

    name: str
    summary: str
    populations: Mapping[tuple[str, str], Population]
    simulator: str | Simulator = "lenstronomy"
    published: bool = False

    def draw(
        self, n: int, seed: int, *, factor: int = 2, noise: float = 1.0, progress: bool = False
    ) -> list[TruePair]:
        """Simulate the first ``n`` lenses of the set.

        Parameters
        ----------
        n : int
        seed : int
            The same seed gives the same lenses, whatever ``n``, ``factor`` and ``noise``, of which the first changes
            the truth, and the second how large the noise is.
        factor : int
            How many times smaller the pixels of the truth are, 1 to 5.
        noise : float
            What the noise of the images, photons and background, is multiplied with: 2 for half of the
            signal-to-noise. That of `TruePair.noisy` stays the instrument's own.
        progress : bool
            Whether to show a progress bar.

        Raises
        ------
        ValueError
            Where ``n`` is not positive, ``seed`` negative, ``factor`` no whole number of 1 to 5 or ``noise`` not
            positive.
        """
        from tqdm import tqdm

        check_count(n, seed)
        if isinstance(factor, bool) or factor != int(factor) or not 1 <= factor <= _MOST:
            raise ValueError(f"factor must be a whole number of 1 to {_MOST}, for a truth to be drawn; got {factor}")
        if not 0 < noise < np.inf:
            raise ValueError(f"noise must be positive: 1 for the instrument's own, 2 for twice that; got {noise}")
        simulator = resolve("simulator", self.simulator).method
        labels = list(self.populations)
        children = tqdm(
            np.random.default_rng(seed).spawn(n), desc="simulating", unit="lens", disable=None if progress else True
        )
        return [
            self._one(labels[index % len(labels)], rng, simulator, int(factor), float(noise))
            for index, rng in enumerate(children)
        ]

    def _one(
        self, label: tuple[str, str], rng: np.random.Generator, simulator: Simulator, factor: int, noise: float
    ) -> TruePair:
        population = self.populations[label]
        for_scene, for_exposure, for_image, for_truth = rng.spawn(4)
        scene = population.draw(for_scene)
        seen = simulator.simulate(scene, population.observation, for_image)
        exposed = population.observe(for_exposure, max(float(seen.noiseless.data.max()), 0.0))
        finer = exposed.refined(factor)
        fine = simulator.simulate(scene, finer, for_truth)
        as_noisy = replace(finer, background_rms=exposed.background_rms, exposure_time=exposed.exposure_time)
        observed = with_noise(seen, _noisier(exposed, noise), for_image)
        return TruePair(
            *label, scene, observed.observation, factor, image=observed.image, clean=observed.noiseless,
            fine=fine.noiseless, noisy=with_noise(fine, as_noisy, for_truth).image,
        )


def _noisier(observation: Observation, noise: float) -> Observation:
    """Of a variance ``noise`` squared times as large, whatever the light."""
    exposure = observation.exposure_time
    return replace(
        observation, background_rms=observation.background_rms * noise,
        exposure_time=None if exposure is None else exposure / noise**2,
    )
