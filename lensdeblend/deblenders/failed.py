"""Many blends at once, of which some fail, and what stands for one that could not be taken apart."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, VarianceUncertainty
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend.deblenders.blend import Band, Blend
from lensdeblend.deblenders.catalog import catalogue
from lensdeblend.deblenders.dressing import dressed
from lensdeblend.images import pixel_scale
from lensdeblend.interfaces import Deblender, Image
from lensdeblend.io.wcs import as_fits_wcs
from lensdeblend.results import Deblending

__all__ = ["FAILED", "failed", "flagged"]

#: How the flag begins.
FAILED = "failed: "


def flagged(
    images: Sequence[Image], blends: Sequence[tuple | Exception], method: Deblender, rng: np.random.Generator
) -> list[Deblending]:
    """One result a blend, empty, flagged and warned of where it failed.

    Parameters
    ----------
    images : sequence
        As they were given.
    blends : sequence
        Image, segmentation and positions as `Deblender.deblend` takes them, or why there are none.
    method : Deblender
    rng : `numpy.random.Generator`
    """
    good = [blend for blend in blends if not isinstance(blend, Exception)]
    outcomes = iter(_in_halves(method, good, rng) if good else ())
    results = []
    for index, (image, blend) in enumerate(zip(images, blends)):
        outcome = blend if isinstance(blend, Exception) else next(outcomes)
        if isinstance(outcome, Exception):
            reason = " ".join(f"{type(outcome).__name__}: {outcome}".split())
            warnings.warn(
                f"image {index} of the list (counted from 0) failed, its result is empty: {reason}",
                AstropyUserWarning, stacklevel=3,
            )
            outcome = failed(image, reason)
        results.append(outcome)
    return results


def _in_halves(
    method: Deblender, blends: Sequence[tuple], rng: np.random.Generator
) -> list[Deblending | Exception]:
    """All at once; where that raises, each half for itself."""
    try:
        results = list(method.deblend_batch(*map(list, zip(*blends)), rng))
    except Exception as error:
        if len(blends) == 1:
            return [error]
        middle = len(blends) // 2
        first, second = rng.spawn(2)
        return [*_in_halves(method, blends[:middle], first), *_in_halves(method, blends[middle:], second)]
    if len(results) != len(blends):
        raise RuntimeError(f"deblend: {type(method).__name__} returned {len(results)} results for {len(blends)} inputs")
    return results


def failed(image: Image, reason: str) -> Deblending:
    """An empty, valid result on the pixels of ``image``, all of them masked, with the flag ``"failed: reason"``.

    The image may be one that `~lensdeblend.prepare` refuses, but it must have two dimensions.

    Raises
    ------
    ValueError
        Where the image has no pixels in two dimensions.
    """
    images = image if isinstance(image, Mapping) else {"": image}
    blend = Blend(tuple(_unused(name, one) for name, one in images.items()), isinstance(image, Mapping))
    pairs, numbers = np.zeros((0, 2)), np.zeros((0, len(blend.bands)))
    catalog = catalogue(blend, pairs, numbers, numbers, pairs, np.zeros(0), np.zeros(0), [])
    galaxies = [np.zeros((0, *band.data.shape)) for band in blend.bands]
    result = dressed(
        blend, galaxies, [0.0] * len(blend.bands), catalog, np.zeros(blend.shape, int), 0, [FAILED + reason]
    )
    return replace(result, chi2=float("nan"))


def _unused(name: str, image: NDData) -> Band:
    data = np.array(image.data, dtype=float)
    if data.ndim != 2 or not data.size:
        raise ValueError(f"image{f' of the band {name!r}' if name else ''} must be two-dimensional; got {data.shape}")
    blank = NDData(
        np.where(np.isfinite(data), data, 0.0), uncertainty=VarianceUncertainty(np.ones(data.shape)),
        mask=np.ones(data.shape, bool), unit=image.unit, **_placed(image),
    )
    return Band(
        name, blank, np.zeros(data.shape), np.ones(data.shape), np.zeros(data.shape, bool), None, np.eye(2), np.zeros(2)
    )


def _placed(image: NDData) -> dict:
    try:
        scale = pixel_scale(image).to_value(u.arcsec)
        return {"wcs": as_fits_wcs(image.wcs, image.data.shape), "meta": {"PIXSCALE": scale}}
    except (AttributeError, TypeError, ValueError):
        # Its lack may be why the blend failed; of no galaxy there is no radius to tell in arcsec.
        return {"wcs": None, "meta": {"PIXSCALE": 1.0}}
