"""The contract of a super-resolver."""

from __future__ import annotations

import numpy as np
from astropy.nddata import NDData

from lensdeblend.images import pixel_scale, prepare
from lensdeblend.interfaces import SuperResolver
from lensdeblend.results import SuperResolution
from lensdeblend.testing.common import (
    SEED, Untouched, checked_method, lens_image, require, require_equal, require_finite, require_kind,
    require_round_trip, require_same_unit,
)

__all__ = ["check_superresolver"]


def check_superresolver(method: str | SuperResolver, *, image: NDData | None = None, factor: float = 2) -> None:
    """Check that a super-resolver keeps the contract.

    It is a frozen dataclass, returns a `~lensdeblend.results.SuperResolution` whose images have pixels ``factor`` times
    smaller over the same piece of sky and hold the flux of the input within its noise; the same seed gives the same; an
    image in a batch fares as it does alone; the input stays as it was; the result can be written and read.

    Parameters
    ----------
    method : str or `~lensdeblend.interfaces.SuperResolver`
        A registered name or an instance.
    image : `~astropy.nddata.NDData`, optional
        Of a lens; left out, one of 46 x 50 pixels is simulated.
    factor : float
        One that the method offers.

    Raises
    ------
    AssertionError
        Where the method breaks the contract.
    """
    method = checked_method("superresolver", method)
    image = prepare(image if image is not None else lens_image())
    with Untouched(image):
        result = method.superresolve(image, factor, np.random.default_rng(SEED))
    require_kind(result, SuperResolution, "superresolve")
    _check_images(result, image, factor)
    again = method.superresolve(image, factor, np.random.default_rng(SEED))
    require_equal(again.image.data, result.image.data, "two images with the same seed", 1e-9)
    batch = method.superresolve_batch([image, image], factor, np.random.default_rng(SEED))
    require(len(batch) == 2, f"superresolve_batch returned {len(batch)} results for 2 images")
    for item in batch:
        require_equal(item.image.data, result.image.data, "an image alone and in a batch", 0.02)
    require_round_trip(result)


def _check_images(result: SuperResolution, image: NDData, factor: float) -> None:
    shape = tuple(round(side * factor) for side in image.data.shape)
    fine = pixel_scale(image) / factor
    for name in ("image", "intrinsic"):
        item = getattr(result, name)
        if name == "intrinsic" and item is None:
            continue
        require(isinstance(item, NDData), f"{name} must be an NDData; got {type(item).__name__}")
        require(item.data.shape == shape, f"{name} has shape {item.data.shape}, not {shape}")
        scale = pixel_scale(item)
        require(abs(scale / fine - 1) < 1e-3, f"{name} has a pixel scale of {scale}, not {fine}")
        require((item.wcs is None) == (image.wcs is None), f"{name} must have a WCS where the input has one")
        require_same_unit(item, image, name)
        require_finite(item, name)
    good = ~image.mask
    noise = np.sqrt(image.uncertainty.array[good].sum())
    total, expected = result.image.data.sum(), image.data[good].sum()
    require(
        abs(total - expected) < 5 * noise + 0.02 * abs(expected),
        f"the fine image holds a flux of {total:.5g}, the input {expected:.5g}: pixel values are flux a pixel",
    )
    for name, item in _maps(result):
        require(isinstance(item, NDData), f"{name} must be an NDData; got {type(item).__name__}")
        require(item.data.shape == shape, f"{name} has shape {item.data.shape}, not that of image, {shape}")
        require_finite(item, name)
    require(all(isinstance(flag, str) for flag in result.flags), f"flags must be strings; got {result.flags!r}")
    require(np.isfinite(result.chi2), "chi2 must be a number: the fine image is a model of the data")


def _maps(result: SuperResolution) -> list[tuple[str, NDData]]:
    maps = [(name, getattr(result, name)) for name in ("convergence", "magnification", "substructure")]
    if result.deflection is not None:
        require(len(result.deflection) == 2, f"deflection must be (x, y); got {len(result.deflection)} maps")
        maps += zip(("deflection in x", "deflection in y"), result.deflection)
    return [(name, item) for name, item in maps if item is not None]
