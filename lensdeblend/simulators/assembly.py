"""From noise-free light to a `~lensdeblend.results.Simulation`: what all simulators share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, VarianceUncertainty
from scipy.ndimage import shift
from scipy.signal import fftconvolve

from lensdeblend.results import Simulation
from lensdeblend.scenes import GaussianPSF, Observation, Scene
from lensdeblend.scenes.catalog import true_catalog

__all__ = ["SourceGrid", "add_stamp", "assemble", "convolve", "padding", "point_image", "source_grid", "with_noise"]


@dataclass(frozen=True)
class SourceGrid:
    """Square pixels of ``pixel_scale`` arcsec, ``shape`` (ny, nx) of them, around ``center`` (x, y) in arcsec."""

    pixel_scale: float
    shape: tuple[int, int]
    center: tuple[float, float]


def source_grid(scene: Scene, observation: Observation, *, largest: int = 256) -> SourceGrid:
    """Choose the grid on which the source plane of a lens is shown.

    It holds every source out to the radius that `~lensdeblend.scenes.LightComponent` calls its extent, but is not
    larger than the image; its pixels are a quarter of the image's, finer where the sources are small, coarser where
    more than ``largest`` a side would be needed.
    """
    image = observation.pixel_scale.to_value(u.arcsec)
    boxes = np.array([component.box for galaxy in scene.galaxies for component in galaxy.components])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    center = (low + high) / 2
    side = min((high - low).max(), max(observation.shape) * image)
    scale = max(min(image / 4, side / 64), side / largest)
    pixels = int(np.ceil(side / scale - 1e-9)) | 1
    return SourceGrid(float(scale), (pixels, pixels), (float(center[0]), float(center[1])))


def padding(observation: Observation) -> tuple[int, int]:
    """Rows and columns to add on each side so that light from outside the frame is scattered into it."""
    kernel = observation.kernel
    return (0, 0) if kernel is None else (kernel.shape[0] // 2, kernel.shape[1] // 2)


def convolve(image: np.ndarray, observation: Observation) -> np.ndarray:
    """Convolve a padded image, or a stack of them, with the PSF; what comes back has the observation's shape."""
    kernel = observation.kernel
    if kernel is None:
        return image
    return fftconvolve(image, kernel.reshape((1,) * (image.ndim - 2) + kernel.shape), mode="valid", axes=(-2, -1))


def point_image(flux: float, x: float, y: float, observation: Observation) -> np.ndarray:
    """Draw a point at ``x``, ``y`` arcsec: the PSF, shifted by the fraction of a pixel.

    A Gaussian is evaluated anew; an array is shifted by cubic splines. Without PSF all light falls into one pixel.
    """
    scale = observation.pixel_scale.to_value(u.arcsec)
    ny, nx = observation.shape
    column, row = x / scale + (nx - 1) / 2, y / scale + (ny - 1) / 2
    left, low = int(np.floor(column + 0.5)), int(np.floor(row + 0.5))
    if observation.psf is None:
        stamp = np.ones((1, 1))
    elif isinstance(observation.psf, GaussianPSF):
        stamp = observation.psf.kernel(observation.pixel_scale, offset=(column - left, row - low))
    else:
        stamp = shift(np.pad(observation.kernel, 1), (row - low, column - left), order=3)
        stamp /= stamp.sum()
    image = np.zeros(observation.shape)
    add_stamp(image, flux * stamp, left - stamp.shape[1] // 2, low - stamp.shape[0] // 2)
    return image


def assemble(
    scene: Scene, observation: Observation, rng: np.random.Generator, *, galaxies: Sequence[np.ndarray],
    lens_light: np.ndarray | None = None, source: np.ndarray | None = None, grid: SourceGrid | None = None,
    unlensed: np.ndarray | None = None, meta: Mapping[str, Any] | None = None,
) -> Simulation:
    """Add noise and put truth and image together.

    The noise is Gaussian, of variance ``observation.variance(noiseless)``: the normal approximation to the photons'
    Poisson statistics, as in lenstronomy.

    Parameters
    ----------
    scene, observation
        What was simulated.
    rng : `numpy.random.Generator`
        Draws the noise; its state is the only thing on which the result depends beside the scene.
    galaxies : sequence of (ny, nx) arrays
        Each of ``scene.galaxies`` alone, as seen through the PSF, flux per pixel in ``observation.unit``, without
        noise.
    lens_light : (ny, nx) array, optional
        The same for all of ``scene.lens_light``.
    source : 2-d array, optional
        The source plane before the PSF, flux per pixel of ``grid``.
    grid : `SourceGrid`, optional
        Goes with ``source``.
    unlensed : (ny, nx) array, optional
        The source as it would be seen without the lens, through the PSF.
    meta : mapping, optional
        Provenance to add.

    Returns
    -------
    `~lensdeblend.results.Simulation`
        Images are float64. ``meta["PIXSCALE"]`` of each is in arcsec; ``CENTER_X`` and ``CENTER_Y`` of the source plane
        say where its middle lies, in arcsec from the image's. The image has no uncertainty where the observation has no
        noise.
    """
    noiseless = np.sum(galaxies, axis=0) if len(galaxies) else np.zeros(observation.shape)
    if lens_light is not None:
        noiseless = noiseless + lens_light
    plane = None
    if source is not None:
        where = {"PIXSCALE": grid.pixel_scale, "CENTER_X": grid.center[0], "CENTER_Y": grid.center[1]}
        plane = NDData(source, unit=observation.unit, meta=where)
    image, variance = _observed(noiseless, observation, rng)
    return Simulation(
        image=image,
        noiseless=_seen(noiseless, observation),
        scene=scene,
        observation=observation,
        sources=[_seen(np.asarray(galaxy), observation) for galaxy in galaxies],
        source=plane,
        unlensed=None if unlensed is None else _seen(unlensed, observation),
        catalog=true_catalog(scene, observation, galaxies, variance),
        meta=dict(meta or {}),
    )


def with_noise(simulation: Simulation, observation: Observation, rng: np.random.Generator) -> Simulation:
    """The same noise-free light with the noise of ``observation``, which differs in nothing but its noise."""
    image, variance = _observed(simulation.noiseless.data, observation, rng)
    galaxies = [source.data for source in simulation.sources]
    catalog = true_catalog(simulation.scene, observation, galaxies, variance)
    return replace(simulation, image=image, observation=observation, catalog=catalog)


def _observed(noiseless: np.ndarray, observation: Observation, rng: np.random.Generator) -> tuple[NDData, np.ndarray]:
    variance = observation.variance(noiseless)
    noisy = noiseless + rng.standard_normal(noiseless.shape) * np.sqrt(variance)
    return _seen(noisy, observation, VarianceUncertainty(variance) if variance.any() else None), variance


def _seen(array: np.ndarray, observation: Observation, uncertainty=None) -> NDData:
    meta = {"PIXSCALE": float(observation.pixel_scale.to_value(u.arcsec))}
    return NDData(array, unit=observation.unit, psf=observation.kernel, meta=meta, uncertainty=uncertainty)


def add_stamp(image: np.ndarray, stamp: np.ndarray, left: int, low: int, *, replace: bool = False) -> None:
    """Add ``stamp`` to ``image`` with its first pixel at (``left``, ``low``), or put it in place of what is there."""
    rows = slice(max(low, 0), min(low + stamp.shape[0], image.shape[0]))
    columns = slice(max(left, 0), min(left + stamp.shape[1], image.shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        part = stamp[rows.start - low:rows.stop - low, columns.start - left:columns.stop - left]
        image[rows, columns] = part if replace else image[rows, columns] + part
