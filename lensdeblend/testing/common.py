"""What the five checks share: requirements, specimens, comparisons."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, VarianceUncertainty

from lensdeblend.images import pixel_scale
from lensdeblend.plugins import resolve
from lensdeblend.results import Result
from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic, Shear

SEED = 20


def require(condition, message: str) -> None:
    """Raise AssertionError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise AssertionError(message)


def checked_method(kind: str, method) -> Any:
    """Return the method itself, after a look at how it is made."""
    method = resolve(kind, method).method
    name = type(method).__name__
    require(is_dataclass(method), f"{name} must be a dataclass whose fields are its options")
    require(type(method).__dataclass_params__.frozen, f"{name} must be a frozen dataclass: @dataclass(frozen=True)")
    return method


def require_kind(result, kind: type, what: str) -> None:
    require(isinstance(result, kind), f"{what} must return a {kind.__name__}; got {type(result).__name__}")


def lens_scene() -> Scene:
    """A lens that every simulator of lenses can draw."""
    return Scene(
        mass=[EPL(1.1 * u.arcsec, 2.0, e1=0.1, e2=-0.05, center_x=0.02 * u.arcsec), Shear(0.03, -0.02)],
        sources=[Sersic(30.0, 0.25 * u.arcsec, e1=0.1, e2=0.1, center_x=0.12 * u.arcsec, center_y=-0.08 * u.arcsec)],
    )


def blend_scene() -> Scene:
    """Two overlapping galaxies, compact enough to lie in the frame."""
    return Scene(
        sources=[
            Sersic(60.0, 0.3 * u.arcsec, 1.0, e1=0.2, e2=0.1, center_x=-0.5 * u.arcsec, center_y=0.1 * u.arcsec),
            Sersic(30.0, 0.25 * u.arcsec, 1.0, e1=-0.1, center_x=0.6 * u.arcsec, center_y=-0.2 * u.arcsec),
        ]
    )


def specimen_observation(**changes) -> Observation:
    """A small, well-sampled exposure."""
    settings = dict(
        pixel_scale=0.1 * u.arcsec, shape=(60, 64), psf=GaussianPSF(0.25 * u.arcsec), background_rms=0.005,
    )
    return Observation(**(settings | changes))


def lens_image() -> NDData:
    """A lens in a frame that holds little more than its arcs: some methods take long to fit it."""
    return specimen_image(lens_scene(), shape=(46, 50))


def specimen_image(scene: Scene, **changes) -> NDData:
    """An image of ``scene`` with noise, two of its pixels masked."""
    from lensdeblend.verbs import simulate

    image = simulate(scene, specimen_observation(**changes), seed=SEED).image
    mask = np.zeros(image.data.shape, dtype=bool)
    mask[3, 4] = mask[20, 10] = True
    return NDData(
        image.data, uncertainty=VarianceUncertainty(image.uncertainty.array), mask=mask, unit=image.unit, psf=image.psf,
        wcs=image.wcs, meta=image.meta,
    )


def require_same_grid(image: NDData, like: NDData, what: str) -> None:
    """Shape, pixel scale and WCS of ``image`` are those of ``like``."""
    require(isinstance(image, NDData), f"{what} must be an NDData; got {type(image).__name__}")
    shape = image.data.shape
    require(shape == like.data.shape, f"{what} has shape {shape}, not the input's {like.data.shape}")
    scale, expected = pixel_scale(image), pixel_scale(like)
    require(abs(scale / expected - 1) < 1e-6, f"{what} has a pixel scale of {scale}, not the input's {expected}")
    require((image.wcs is None) == (like.wcs is None), f"{what} must have a WCS where the input has one")
    if like.wcs is not None:
        corners = np.array([[0, 0], np.array(like.data.shape[::-1]) - 1]).T
        apart = image.wcs.pixel_to_world(*corners).separation(like.wcs.pixel_to_world(*corners)).max()
        require(apart < 1e-3 * expected, f"the WCS of {what} is off by {apart.to(u.arcsec)}")


def require_same_unit(image: NDData, like: NDData, what: str) -> None:
    require(image.unit == like.unit, f"{what} is in {image.unit}, not in the input's unit {like.unit}")


def require_finite(image: NDData, what: str) -> None:
    require(np.isfinite(image.data).all(), f"{what} holds NaN or infinite values")


def require_equal(one, other, what: str, tolerance: float = 0.0) -> None:
    """``tolerance`` is a fraction of the largest value."""
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    require(one.shape == other.shape, f"{what}: the shapes {one.shape} and {other.shape} differ")
    if not one.size:
        return
    worst = np.max(np.abs(np.nan_to_num(one - other)))
    bound = tolerance * np.max(np.abs(other[np.isfinite(other)]), initial=0)
    same_holes = np.array_equal(np.isnan(one), np.isnan(other))
    require(same_holes and worst <= bound, f"{what}: they differ by up to {worst:.3g}; at most {bound:.3g} is allowed")


def require_fit(result, image: NDData) -> None:
    """Model, residual and chi-square tell one story about ``image``, which went through `~lensdeblend.prepare`."""
    require_same_grid(result.model, image, "the model")
    require_same_unit(result.model, image, "the model")
    require_finite(result.model, "the model")
    require_same_grid(result.residual, image, "the residual")
    good = ~image.mask
    residual = (image.data - result.model.data) / np.sqrt(image.uncertainty.array)
    worst = np.abs(result.residual.data[good] - residual[good]).max()
    bound = 1e-3 * max(1, np.abs(residual[good]).max())
    require(worst < bound, f"the residual must be (data - model) / sigma; off by {worst:.3g}")
    mean_square = np.mean(residual[good] ** 2)
    require(
        0.999 * mean_square <= result.chi2 <= 2 * mean_square,
        f"chi2 must be reduced, over unmasked pixels; got {result.chi2:.4g}, the mean square is {mean_square:.4g}",
    )


class Untouched:
    """Context in which nothing may change ``image``."""

    def __init__(self, image: NDData):
        self.image = image

    def __enter__(self):
        self.before = self._state()
        return self.image

    def __exit__(self, kind, error, trace):
        if kind is None:
            same = all(np.array_equal(old, new, equal_nan=True) for old, new in zip(self.before, self._state()))
            require(same, "the method changed the image it was given")

    def _state(self):
        image = self.image
        parts = (image.data, image.mask, image.psf, getattr(image.uncertainty, "array", None))
        return [np.zeros(0) if part is None else np.array(deepcopy(part), dtype=float) for part in parts]


def require_round_trip(result: Result) -> None:
    """What `write` writes, `read` reads back equal."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.fits"
        result.write(path)
        require_same_result(type(result).read(path), result, "after write and read")


def require_same_result(one: Result, other: Result, what: str) -> None:
    """All pixels, numbers and columns of two results are equal."""
    for name in other.__dataclass_fields__:
        _require_same(getattr(one, name), getattr(other, name), f"{name} {what}")


def _require_same(one, other, what: str) -> None:
    if isinstance(other, NDData):
        require(isinstance(one, NDData), f"{what}: the image is missing")
        require_equal(one.data, other.data, what, 1e-6)
    elif isinstance(other, Mapping) and any(isinstance(item, NDData) for item in other.values()):
        for key, item in other.items():
            _require_same(one[key], item, f"{what}, {key}")
    elif isinstance(other, (list, tuple)) and any(isinstance(item, (NDData, Mapping)) for item in other):
        require(len(one) == len(other), f"{what}: {len(one)} images, not {len(other)}")
        for index, item in enumerate(other):
            _require_same(one[index], item, f"{what}, number {index}")
    elif hasattr(other, "colnames"):
        require(one is not None and one.colnames == other.colnames, f"{what}: the columns differ")
        for name in other.colnames:
            _require_same_column(one[name], other[name], f"{what}, column {name}")
    elif isinstance(other, (np.ndarray, float)):
        require(one is not None, f"{what} is missing")
        require_equal(one, other, what, 1e-6)


def _require_same_column(one, other, what: str) -> None:
    units = getattr(one, "unit", None), getattr(other, "unit", None)
    require(units[0] == units[1], f"{what}: the units {units[0]} and {units[1]} differ")
    if getattr(other, "dtype", np.dtype(object)).kind in "biuf":
        require_equal(getattr(one, "value", one), getattr(other, "value", other), what, 1e-6)
