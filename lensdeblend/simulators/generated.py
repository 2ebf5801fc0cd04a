"""Galaxies of scenes that a generator is to make: made, as images that every simulator draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import NDData

from lensdeblend.interfaces import Generator
from lensdeblend.plugins import create, method_class
from lensdeblend.results import Generation
from lensdeblend.scenes import Galaxy, GeneratedSource, ImageSource, LightComponent, Scene, SourceGenerator
from lensdeblend.scenes.yaml import plain

__all__ = ["chosen_generator", "generated"]

# Half-light radii from side to side of a stamp.
_RADII_ACROSS = 16
# Nobody reads what a stamp measures; and who wishes, in a population, for galaxies beyond the generator's own means it.
_QUIET = {"measure": False, "outside": "flag"}


def chosen_generator(generator: SourceGenerator) -> Generator:
    """The method that ``generator`` names, with its options.

    Where the method has them and nothing is said of them, ``measure`` is off, ``outside`` is ``"flag"``, and
    ``pixel_scale`` is such that the ``pixels`` of the stamp reach out to eight of the half-light radii that are wished.

    Raises
    ------
    TypeError, ValueError
        For an unknown generator, and for options that it does not have or cannot take.
    """
    known = {entry.name: entry.default for entry in fields(method_class("generator", generator.method)) if entry.init}
    options = {name: value for name, value in _QUIET.items() if name in known}
    radius, pixels = generator.conditions.get("radius"), generator.options.get("pixels", known.get("pixels"))
    if radius is not None and "pixel_scale" in known and isinstance(pixels, int):
        options["pixel_scale"] = _RADII_ACROSS * u.Quantity(radius) / pixels
    return create("generator", generator.method, **{**options, **generator.options})


def generated(scene: Scene) -> Scene:
    """The same scene with an `~lensdeblend.scenes.ImageSource` for every `~lensdeblend.scenes.GeneratedSource`.

    The ``meta`` of each image says which generator made it, with what wishes and seed.

    Raises
    ------
    TypeError, ValueError
        For an unknown generator, options and wishes that it refuses, and for galaxies in several bands.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend.scenes import GeneratedSource, Scene, SourceGenerator
    >>> from lensdeblend.simulators.generated import generated
    >>> wishes = SourceGenerator("sersic", conditions={"radius": 0.3 * u.arcsec, "n": 1.0})
    >>> source, = generated(Scene(sources=[GeneratedSource(wishes, flux=20.0, seed=1)])).sources
    >>> type(source).__name__, source.image.data.shape, round(source.image.meta["PIXSCALE"], 6)
    ('ImageSource', (128, 128), 0.0375)
    """
    parts = (*scene.lens_light, *(part for galaxy in scene.galaxies for part in galaxy.components))
    if not any(isinstance(part, GeneratedSource) for part in parts):
        return scene
    return replace(
        scene, lens_light=_images(scene.lens_light), sources=[
            replace(source, components=_images(source.components)) if isinstance(source, Galaxy) else _image(source)
            for source in scene.sources
        ],
    )


def _images(components: Sequence[LightComponent]) -> list[LightComponent]:
    return [_image(component) for component in components]


def _image(source: LightComponent) -> LightComponent:
    if not isinstance(source, GeneratedSource):
        return source
    made = _generation(source)
    image, = made.images
    if not isinstance(image, NDData):
        raise ValueError(
            f"the generator {source.generator.method!r} makes galaxies in the bands {', '.join(image)}, and a scene is "
            "seen in one: leave its option bands out"
        )
    flux = source.flux
    if flux is None and "magnitude" in made.catalog.colnames:
        flux = float(made.catalog["magnitude"][0].value) * u.ABmag
    told = {
        "GENERATOR": source.generator.method, "SEED": source.seed, **{
            f"wished {name}": plain(value) for name, value in source.generator.wishing().conditions.items()
        },
    }
    bare = NDData(np.asarray(image.data, dtype=float), wcs=image.wcs, unit=image.unit, meta={**image.meta, **told})
    return ImageSource(bare, flux, source.angle, source.center_x, source.center_y)


def _generation(source: GeneratedSource) -> Generation:
    generator = source.generator.wishing()
    wishes: dict[str, Any] | None = dict(generator.conditions) or None
    made = chosen_generator(generator).generate(1, wishes, np.random.default_rng(source.seed))
    if not isinstance(made, Generation) or len(made.images) != 1:
        raise TypeError(f"the generator {generator.method!r} must return a Generation of one galaxy; got {made!r}")
    return made
