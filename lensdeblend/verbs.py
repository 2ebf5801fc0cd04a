"""The five verbs: find the method, open the door, run, stamp the provenance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from numbers import Integral
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData
from astropy.units import Quantity

from lensdeblend.images import prepare, recast
from lensdeblend.interfaces import Image
from lensdeblend.options import check_factor
from lensdeblend.plugins import Resolved, resolve
from lensdeblend.plugins.provenance import provenance
from lensdeblend.results import Deblending, Generation, Reconstruction, Result, Simulation, SuperResolution
from lensdeblend.scenes import Observation, Scene
from lensdeblend.simulators.generated import generated

__all__ = ["deblend", "generate", "reconstruct", "simulate", "superresolve"]

Seed = int | np.random.Generator | None


def simulate(
    scene: Scene | Sequence[Scene], observation: Observation, *, method="lenstronomy", seed: Seed = None
) -> Simulation | list[Simulation]:
    """Make an image of a scene.

    Parameters
    ----------
    scene : `~lensdeblend.scenes.Scene` or list of them
        A list gives the list of simulations, computed as one batch. Every `~lensdeblend.scenes.GeneratedSource` is made
        by its generator first, and the result's scene has it as an `~lensdeblend.scenes.ImageSource`.
    observation : `~lensdeblend.scenes.Observation`
        Pixels, PSF and noise.
    method : str or `~lensdeblend.interfaces.Simulator`
        A name of ``methods("simulator")``, ``"distribution::name"``, or an instance that carries its options. The
        default draws lenses and blends; a method that cannot draw a scene says so, and none is chosen in its place.
    seed : int or `~numpy.random.Generator`, optional
        Of the noise. The same seed gives the same result; without one, the seed that was drawn is in ``meta["seed"]``.

    Returns
    -------
    `~lensdeblend.results.Simulation` or list of them

    Raises
    ------
    TypeError
        Where the scene, the observation or the method is of another kind.
    ValueError
        For an empty list, an unknown method, a scene that the method cannot draw.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend import simulate
    >>> from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic
    >>> scene = Scene(mass=[EPL(1.2 * u.arcsec, e1=0.1)], sources=[Sersic(50, 0.3 * u.arcsec)])
    >>> observation = Observation(0.1 * u.arcsec, (40, 40), GaussianPSF(0.15 * u.arcsec), background_rms=0.01)
    >>> simulation = simulate(scene, observation, seed=1)
    >>> simulation.image.data.shape, simulation.meta["method"], simulation.meta["seed"]
    ((40, 40), 'lenstronomy', 1)
    """
    scenes, single = _batch(scene, "scenes")
    for item in scenes:
        if not isinstance(item, Scene):
            raise TypeError(f"a scene must be a lensdeblend.scenes.Scene; got {type(item).__name__}")
    if not isinstance(observation, Observation):
        raise TypeError(f"observation must be a lensdeblend.scenes.Observation; got {type(observation).__name__}")
    resolved = resolve("simulator", method)
    scenes = [generated(item) for item in scenes]
    rng, seed = _generator(seed)
    results = resolved.method.simulate_batch(scenes, observation, rng)
    return _finish("simulate", Simulation, results, resolved, seed, single, len(scenes))


def reconstruct(
    image: Image | Sequence[Image], *, method="forward", seed: Seed = None
) -> Reconstruction | list[Reconstruction]:
    """Find the unlensed source and the lens parameters behind the image of a strong lens.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`, ``{band: NDData}`` or list of them
        What `~lensdeblend.prepare` accepts. A list gives the list of results, computed as one batch.
    method : str or `~lensdeblend.interfaces.Reconstructor`
        A name of ``methods("reconstructor")``, ``"distribution::name"``, or an instance that carries its options.
    seed : int or `~numpy.random.Generator`, optional
        The same seed gives the same result.

    Returns
    -------
    `~lensdeblend.results.Reconstruction` or list of them
        Its images are of the class of the input.

    Raises
    ------
    TypeError, ValueError
        For an image that `~lensdeblend.prepare` refuses, an empty list, an unknown method.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend import reconstruct, simulate
    >>> from lensdeblend.reconstructors.forward import Forward
    >>> from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic
    >>> scene = Scene(mass=[EPL(1.1 * u.arcsec, e1=0.1)], sources=[Sersic(40, 0.2 * u.arcsec, center_x=0.1 * u.arcsec)])
    >>> observation = Observation(0.1 * u.arcsec, (40, 40), GaussianPSF(0.15 * u.arcsec), background_rms=0.05)
    >>> image = simulate(scene, observation, seed=1).image
    >>> result = reconstruct(image, method=Forward(sources=1, lens_light=0), seed=1)
    >>> print(f"theta_E = {result.parameters['theta_E'][0]:.2f}")
    theta_E = 1.10 arcsec
    """
    return _on_images(
        "reconstruct", "reconstructor", Reconstruction, image, method, seed,
        lambda method, images, rng: method.reconstruct_batch(images, rng),
    )


def deblend(
    image: Image | Sequence[Image], *, segmentation=None, positions=None, method="joint", seed: Seed = None
) -> Deblending | list[Deblending]:
    """Take overlapping galaxies apart.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`, ``{band: NDData}`` or list of them
        What `~lensdeblend.prepare` accepts. A list gives the list of results, computed as one batch. A blend of a list
        that fails is an empty result with the flag ``"failed: REASON"`` and a warning; the others come out.
    segmentation : `~photutils.segmentation.SegmentationImage` or 2-d array of int, optional
        On the pixels of the image (of the first band). For a list of images, a list.
    positions : (n, 2) array of pixel (x, y), or `~astropy.coordinates.SkyCoord`, optional
        Where the galaxies are; 0-based, (0, 0) the centre of the first pixel (of the first band). For a list of images,
        a list.
    method : str or `~lensdeblend.interfaces.Deblender`
        A name of ``methods("deblender")``, ``"distribution::name"``, or an instance that carries its options.
    seed : int or `~numpy.random.Generator`, optional
        The same seed gives the same result.

    Returns
    -------
    `~lensdeblend.results.Deblending` or list of them
        Its images are of the class of the input.

    Raises
    ------
    TypeError, ValueError
        For an image that `~lensdeblend.prepare` refuses, positions or a segmentation that do not fit it (alone: in a
        list they make a failed blend), an empty list, an unknown method, what is no image at all.
    """
    images, single = _batch(image, "images")
    where = _one_each(positions, "positions", single, len(images))
    segments = _one_each(segmentation, "segmentation", single, len(images))
    resolved = resolve("deblender", method)
    blends = [_blend(*given, None if single else k) for k, given in enumerate(zip(images, segments, where))]
    rng, seed = _generator(seed)
    if single:
        results = resolved.method.deblend_batch(*map(list, zip(*blends)), rng)
    else:
        from lensdeblend.deblenders.failed import flagged

        results = flagged(images, blends, resolved.method, rng)
    return _finish("deblend", Deblending, results, resolved, seed, single, len(images), images)


def generate(n: int = 1, *, conditions=None, method="vae-flow", seed: Seed = None) -> Generation:
    """Make galaxies with wished properties.

    Parameters
    ----------
    n : int
        How many.
    conditions : mapping or `~astropy.table.Table`, optional
        Scalars or columns of length ``n`` named ``flux`` or ``magnitude``, ``radius`` (half-light, an angle), ``e1``,
        ``e2`` (of modulus (1-q)/(1+q)), ``n`` (Sérsic index), and colours as ``"g-r"``; what is left out is drawn from
        the population.
    method : str or `~lensdeblend.interfaces.Generator`
        A name of ``methods("generator")``, ``"distribution::name"``, or an instance that carries its options.
    seed : int or `~numpy.random.Generator`, optional
        The same seed gives the same galaxies.

    Returns
    -------
    `~lensdeblend.results.Generation`

    Raises
    ------
    TypeError, ValueError
        For an ``n`` that is no positive integer, columns of another length, an unknown method.
    """
    if isinstance(n, bool) or not isinstance(n, Integral):
        raise TypeError(f"n must be an integer; got {n!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n}")
    wishes = _conditions(conditions, int(n))
    resolved = resolve("generator", method)
    rng, seed = _generator(seed)
    results = resolved.method.generate_batch([int(n)], [wishes], rng)
    return _finish("generate", Generation, results, resolved, seed, True, 1)


def superresolve(
    image: Image | Sequence[Image], *, factor: float = 2, method="physics", seed: Seed = None
) -> SuperResolution | list[SuperResolution]:
    """Make a finer image of a strong lens, with deflection and mass maps.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`, ``{band: NDData}`` or list of them
        What `~lensdeblend.prepare` accepts. A list gives the list of results, computed as one batch.
    factor : float
        How many times smaller the pixels become, from 1 to 5; it need not be whole.
    method : str or `~lensdeblend.interfaces.SuperResolver`
        A name of ``methods("superresolver")``, ``"distribution::name"``, or an instance that carries its options.
    seed : int or `~numpy.random.Generator`, optional
        The same seed gives the same result.

    Returns
    -------
    `~lensdeblend.results.SuperResolution` or list of them
        Its images are of the class of the input.

    Raises
    ------
    TypeError, ValueError
        For a factor that is not from 1 to 5, an image that `~lensdeblend.prepare` refuses, an empty list, an unknown
        method.
    """
    check_factor(factor)
    return _on_images(
        "superresolve", "superresolver", SuperResolution, image, method, seed,
        lambda method, images, rng: method.superresolve_batch(images, factor, rng),
    )


def _on_images(verb: str, kind: str, expected: type[Result], image, method, seed: Seed, run: Callable):
    images, single = _batch(image, "images")
    resolved = resolve(kind, method)
    prepared = [_prepare(item, None if single else index) for index, item in enumerate(images)]
    rng, seed = _generator(seed)
    results = run(resolved.method, prepared, rng)
    return _finish(verb, expected, results, resolved, seed, single, len(images), images)


def _blend(image: Image, segmentation, positions, index: int | None):
    """What a deblender takes; of a list, the error instead where the data are to blame."""
    try:
        image = prepare(image)
        return image, _segmentation(segmentation, image), _pixel_positions(positions, image)
    except ValueError as error:
        if index is None:
            raise
        return error
    except TypeError as error:
        if index is None:
            raise
        raise TypeError(f"image {index} of the list (counted from 0): {error}") from error


def _batch(items, what: str) -> tuple[list, bool]:
    if not isinstance(items, (list, tuple)):
        return [items], True
    if not items:
        raise ValueError(f"the list of {what} is empty")
    return list(items), False


def _prepare(image: Image, index: int | None) -> Image:
    try:
        return prepare(image)
    except (TypeError, ValueError) as error:
        if index is None:
            raise
        raise type(error)(f"image {index} of the list (counted from 0): {error}") from error


def _generator(seed: Seed) -> tuple[np.random.Generator, int | None]:
    if isinstance(seed, np.random.Generator):
        return seed, None
    if seed is None:
        seed = np.random.SeedSequence().generate_state(1)[0]
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed must be an integer, a numpy.random.Generator or None; got {seed!r}")
    if seed < 0:
        raise ValueError(f"seed must not be negative; got {seed}")
    return np.random.default_rng(int(seed)), int(seed)


def _one_each(items, what: str, single: bool, n: int) -> list:
    if items is None:
        return [None] * n
    if single:
        return [items]
    if not isinstance(items, (list, tuple)) or len(items) != n:
        raise ValueError(f"for a list of {n} images, {what} must be a list of that length; None where there is none")
    return list(items)


def _pixel_positions(positions, image: Image) -> np.ndarray | None:
    if positions is None:
        return None
    if isinstance(positions, SkyCoord):
        wcs = _first(image).wcs
        if wcs is None:
            raise ValueError("positions on the sky need an image with a celestial WCS; give pixel (x, y) instead")
        positions = np.column_stack([np.atleast_1d(axis) for axis in wcs.world_to_pixel(positions)])
    if isinstance(positions, Quantity) and positions.unit not in (u.pix, u.dimensionless_unscaled):
        raise ValueError(f"positions in {positions.unit} are not pixels; give those, counted from 0, or a SkyCoord")
    try:
        positions = np.asarray(positions, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"positions must be a SkyCoord or an (n, 2) array of pixels; got {positions!r}") from None
    if positions.ndim != 2 or positions.shape[1] != 2 or not len(positions):
        raise ValueError(f"positions must be a SkyCoord or an (n, 2) array of pixels; got shape {positions.shape}")
    if not np.isfinite(positions).all():
        raise ValueError("positions must be finite, and sky positions within the reach of the WCS")
    return positions


def _segmentation(segmentation, image: Image):
    if segmentation is None:
        return None
    from photutils.segmentation import SegmentationImage

    if not isinstance(segmentation, SegmentationImage):
        labels = np.asarray(segmentation)
        if labels.dtype.kind not in "iu" or labels.ndim != 2:
            raise TypeError(
                "segmentation must be a photutils SegmentationImage or a two-dimensional array of whole numbers; got "
                f"{type(segmentation).__name__} of {labels.dtype}"
            )
        segmentation = SegmentationImage(labels)
    if segmentation.shape != _first(image).data.shape:
        raise ValueError(f"the segmentation has shape {segmentation.shape}, the image {_first(image).data.shape}")
    return segmentation


def _conditions(conditions, n: int) -> dict[str, Any] | None:
    if conditions is None:
        return None
    names = getattr(conditions, "colnames", None)
    if names is None:
        if not isinstance(conditions, Mapping):
            raise TypeError(f"conditions must be a mapping or a Table; got {type(conditions).__name__}")
        names = list(conditions)
    wishes = {name: conditions[name] for name in names}
    for name, values in wishes.items():
        if np.shape(values) not in ((), (n,)):
            raise ValueError(f"the condition {name!r} has shape {np.shape(values)}; one value or {n} are needed")
    radius = u.Quantity(wishes.get("radius", 1 * u.arcsec))
    if not radius.unit.is_equivalent(u.arcsec):
        raise TypeError(f"the condition 'radius' must be an angle with a unit, such as 0.3 * u.arcsec; got {radius}")
    if {"flux", "magnitude"} <= set(wishes):
        raise ValueError("the conditions have both flux and magnitude: give one of the two")
    return wishes


def _first(image: Image) -> NDData:
    return next(iter(image.values())) if isinstance(image, Mapping) else image


def _finish(verb, expected, results, resolved: Resolved, seed, single: bool, n: int, originals=None):
    results = list(results)
    label = f"{verb}: the method {resolved.name!r} of {resolved.distribution}"
    if len(results) != n:
        raise RuntimeError(f"{label} returned {len(results)} results for {n} inputs")
    for result in results:
        if not isinstance(result, expected):
            raise TypeError(f"{label} must return a {expected.__name__}; got {type(result).__name__}")
    if originals is not None:
        results = [_recast_images(result, original) for result, original in zip(results, originals)]
    stamp = provenance(verb, resolved, seed)
    results = [replace(result, meta={**result.meta, **stamp}) for result in results]
    return results[0] if single else results


def _recast_images(result: Result, original: Image) -> Result:
    return replace(result, **{field.name: _recast(getattr(result, field.name), original) for field in fields(result)})


def _recast(value, original: Image):
    """Give every image in ``value`` the class of the user's."""
    if isinstance(value, NDData):
        return recast(value, type(_first(original)))
    if isinstance(value, Mapping) and any(isinstance(item, NDData) for item in value.values()):
        bands = original if isinstance(original, Mapping) else {}
        return {band: recast(item, type(bands.get(band, _first(original)))) for band, item in value.items()}
    if isinstance(value, (list, tuple)) and any(isinstance(item, (NDData, Mapping)) for item in value):
        return type(value)(_recast(item, original) for item in value)
    return value
