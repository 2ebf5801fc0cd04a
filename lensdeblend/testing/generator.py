"""The contract of a generator."""

from __future__ import annotations

import numpy as np
from astropy.nddata import NDData

from lensdeblend.images import pixel_scale
from lensdeblend.interfaces import Generator
from lensdeblend.results import Generation
from lensdeblend.testing.common import (
    SEED, checked_method, require, require_equal, require_finite, require_kind, require_round_trip,
)

__all__ = ["check_generator"]


def check_generator(method: str | Generator, *, conditions=None) -> None:
    """Check that a generator keeps the contract.

    It is a frozen dataclass, returns a `~lensdeblend.results.Generation` with as many images and catalogue rows as
    asked for, galaxies with light and a pixel scale that differ among each other; a wish for twice the flux gives twice
    the flux; the same seed gives the same; the result can be written and read.

    Parameters
    ----------
    method : str or `~lensdeblend.interfaces.Generator`
        A registered name or an instance.
    conditions : mapping, optional
        Wishes that the method must accept.

    Raises
    ------
    AssertionError
        Where the method breaks the contract.
    """
    method = checked_method("generator", method)
    result = method.generate(3, conditions, np.random.default_rng(SEED))
    require_kind(result, Generation, "generate")
    images = [_first(image) for image in result.images]
    require(len(images) == 3, f"{len(images)} images came for n=3")
    require(len(result.catalog) == 3, f"the catalogue has {len(result.catalog)} rows for n=3")
    for image in images:
        require_finite(image, "an image")
        pixel_scale(image)
        require(image.data.sum() > 0, "an image has no light")
    require(not np.array_equal(images[0].data, images[1].data), "all galaxies are the same")
    again = method.generate(3, conditions, np.random.default_rng(SEED))
    for one, other in zip(again.images, images):
        require_equal(_first(one).data, other.data, "two galaxies with the same seed", 1e-9)
    other = _first(method.generate(1, conditions, np.random.default_rng(SEED + 1)).images[0])
    same = other.data.shape == images[0].data.shape and np.array_equal(other.data, images[0].data)
    require(not same, "another seed gives the same galaxy")
    batch = method.generate_batch([2, 1], [conditions, conditions], np.random.default_rng(SEED))
    require([len(item.images) for item in batch] == [2, 1], "generate_batch must return one Generation a request")
    _check_flux(method, conditions)
    require_round_trip(result)


def _check_flux(method: Generator, conditions) -> None:
    if conditions and "magnitude" in conditions:
        return
    wishes = [{**(conditions or {}), "flux": flux} for flux in (100.0, 200.0)]
    faint, bright = (method.generate(1, wish, np.random.default_rng(SEED)).images[0] for wish in wishes)
    ratio = _first(bright).data.sum() / _first(faint).data.sum()
    require(abs(ratio - 2) < 0.2, f"a wish for twice the flux gives {ratio:.2f} times the flux")


def _first(image) -> NDData:
    return image if isinstance(image, NDData) else next(iter(image.values()))
