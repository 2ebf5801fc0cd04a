"""The contract of a simulator."""

from __future__ import annotations

from dataclasses import replace

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, VarianceUncertainty

from lensdeblend.images import pixel_scale
from lensdeblend.interfaces import Simulator
from lensdeblend.results import Simulation
from lensdeblend.scenes import Galaxy, Observation, Scene
from lensdeblend.testing.common import (
    SEED, blend_scene, checked_method, lens_scene, require, require_equal, require_finite, require_round_trip,
    require_same_grid, require_same_unit, specimen_observation,
)

__all__ = ["check_simulator"]


def check_simulator(
    method: str | Simulator, *, scene: Scene | None = None, observation: Observation | None = None
) -> None:
    """Check that a simulator keeps the contract.

    It is a frozen dataclass, returns a `~lensdeblend.results.Simulation` on the pixels and in the unit of the
    observation, draws noise of the variance it states, gives the same for the same seed, is linear in flux, adds up its
    sources, keeps the flux under the PSF, computes the same in a batch as alone, leaves scene and observation as they
    were, and what it returns can be written and read.

    Parameters
    ----------
    method : str or `~lensdeblend.interfaces.Simulator`
        A registered name or an instance.
    scene : `~lensdeblend.scenes.Scene`, optional
        Left out, a lens and a blend: the method must draw one of them, and may refuse the other with a `ValueError`.
    observation : `~lensdeblend.scenes.Observation`, optional
        With some ``background_rms``; the scene must fit into its frame.

    Raises
    ------
    AssertionError
        Where the method breaks the contract.
    """
    method = checked_method("simulator", method)
    observation = observation or specimen_observation()
    require(observation.background_rms > 0, "check_simulator needs an observation with background_rms > 0")
    scenes = [scene] if scene else [lens_scene(), blend_scene()]
    drawn = [_check_scene(method, item, observation) for item in scenes]
    require(any(drawn), f"{type(method).__name__} draws neither a lens nor a blend")


def _simulate(method: Simulator, scene: Scene, observation: Observation, seed: int = SEED) -> Simulation:
    return method.simulate(scene, observation, np.random.default_rng(seed))


def _check_scene(method: Simulator, scene: Scene, observation: Observation) -> bool:
    """Whether the method draws the scene at all."""
    before = repr((scene, observation))
    try:
        result = _simulate(method, scene, observation)
    except ValueError as error:
        require(str(error), f"{type(method).__name__} refuses a scene without saying why")
        return False
    require(repr((scene, observation)) == before, "the method changed the scene or the observation it was given")
    _check_images(result, scene, observation)
    _check_noise(method, result, scene, observation)
    doubled = _simulate(method, _brighter(scene), observation)
    _check_flux(method, result, doubled, scene, observation)
    _check_batch(method, result, doubled, scene, observation)
    require_round_trip(result)
    return True


def _check_images(result: Simulation, scene: Scene, observation: Observation) -> None:
    require(isinstance(result, Simulation), f"simulate must return a Simulation; got {type(result).__name__}")
    require(isinstance(result.image, NDData), f"Simulation.image must be an NDData; got {type(result.image).__name__}")
    image, noiseless = result.image, result.noiseless
    shape, expected_shape = image.data.shape, tuple(observation.shape)
    require(shape == expected_shape, f"the image has shape {shape}, not {expected_shape}")
    scale, expected = pixel_scale(image), observation.pixel_scale
    require(abs(scale / expected - 1) < 1e-6, f"the image has a pixel scale of {scale}, not {expected}")
    require(image.unit == observation.unit, f"the image is in {image.unit}, not in {observation.unit}")
    require(isinstance(image.uncertainty, VarianceUncertainty), "the image needs a VarianceUncertainty")
    require(repr(result.scene) == repr(scene), "Simulation.scene must be the scene that was drawn")
    require(len(result.sources) == len(scene.sources), f"{len(result.sources)} images for {len(scene.sources)} sources")
    if observation.kernel is not None:
        require(image.psf is not None, "the image must carry the PSF it was made with")
        require_equal(image.psf, observation.kernel, "Simulation.image.psf and the observation's kernel", 1e-6)
    images = {"noiseless": noiseless} | {f"sources[{i}]": source for i, source in enumerate(result.sources)}
    if scene.is_lens:
        require(result.source is not None and result.unlensed is not None, "a lens scene needs source and unlensed")
        images["unlensed"] = result.unlensed
        require_finite(result.source, "the source")
    for name, item in images.items():
        require_same_grid(item, image, name)
        require_same_unit(item, image, name)
        require_finite(item, name)


def _check_noise(method: Simulator, result: Simulation, scene: Scene, observation: Observation) -> None:
    again = _simulate(method, scene, observation)
    require_equal(again.image.data, result.image.data, "two images with the same seed")
    other = _simulate(method, scene, observation, SEED + 1)
    same = np.array_equal(other.image.data, result.image.data)
    require(not same, "two images with different seeds have the same noise")
    require_equal(other.noiseless.data, result.noiseless.data, "noiseless images with different seeds", 1e-9)
    expected = observation.variance(result.noiseless.data)
    require_equal(result.image.uncertainty.array, expected, "the stated variance and that of the observation", 1e-3)
    pulls = (result.image.data - result.noiseless.data) / np.sqrt(expected)
    scatter = 5 / np.sqrt(2 * pulls.size)
    require(abs(pulls.std() - 1) < scatter, f"the noise is {pulls.std():.3f} times the stated one")
    require(abs(pulls.mean()) < 5 / np.sqrt(pulls.size), f"the noise has a mean of {pulls.mean():.3f} sigma")


def _check_flux(
    method: Simulator, result: Simulation, doubled: Simulation, scene: Scene, observation: Observation
) -> None:
    noiseless = result.noiseless.data
    require_equal(doubled.noiseless.data, 2 * noiseless, "a scene of twice the flux and twice the image", 1e-5)
    if not scene.lens_light:
        total = sum(source.data for source in result.sources)
        require_equal(total, noiseless, "the sum of the sources and the noiseless image", 1e-5)
    if not scene.is_lens:
        for galaxy, image in zip(scene.galaxies, result.sources):
            flux = sum(observation.flux(part.flux) for part in galaxy.components if part.flux is not None)
            total = image.data.sum()
            kept = not flux or abs(total / flux - 1) < 0.02
            require(kept, f"a galaxy of flux {flux:.5g} has {total:.5g} in the frame")
    if observation.kernel is not None:
        sharp = _simulate(method, scene, replace(observation, psf=None)).noiseless.data
        change = noiseless.sum() / sharp.sum() - 1
        require(abs(change) < 2e-3, f"the PSF changes the flux by {change:.2%}")


def _check_batch(
    method: Simulator, result: Simulation, doubled: Simulation, scene: Scene, observation: Observation
) -> None:
    scenes = [scene, _brighter(scene), _shifted(scene)]
    singles = [result, doubled, _simulate(method, scenes[2], observation)]
    batch = method.simulate_batch(scenes, observation, np.random.default_rng(SEED))
    require(len(batch) == len(scenes), f"simulate_batch returned {len(batch)} simulations for {len(scenes)} scenes")
    for alone, together in zip(singles, batch):
        require_equal(together.noiseless.data, alone.noiseless.data, "an image from a batch and the same alone", 1e-5)
    again = method.simulate_batch(scenes, observation, np.random.default_rng(SEED))
    for one, other in zip(batch, again):
        require_equal(one.image.data, other.image.data, "two batches with the same seed")
    noise = [(item.image.data - item.noiseless.data).ravel() for item in batch]
    correlation = np.corrcoef(noise)[np.triu_indices(len(noise), 1)]
    require((abs(correlation) < 5 / np.sqrt(noise[0].size)).all(), "the images of a batch share one noise")


def _brighter(scene: Scene, factor: float = 2) -> Scene:
    return replace(
        scene,
        lens_light=[_scaled(item, factor) for item in scene.lens_light],
        sources=[_scaled(item, factor) for item in scene.sources],
    )


def _scaled(item, factor: float):
    if isinstance(item, Galaxy):
        return replace(item, components=[_scaled(part, factor) for part in item.components])
    if item.flux is None:
        return replace(item, flux=factor * float(np.nansum(item.image.data)))
    if isinstance(item.flux, u.Magnitude):
        return replace(item, flux=item.flux - 2.5 * np.log10(factor) * u.mag)
    return replace(item, flux=factor * item.flux)


def _shifted(scene: Scene) -> Scene:
    def move(item):
        if isinstance(item, Galaxy):
            return replace(item, components=[move(part) for part in item.components])
        return replace(item, center_x=item.center_x + 0.05 * u.arcsec)

    return replace(scene, sources=[move(item) for item in scene.sources])
