"""The contract of a deblender."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.nddata import NDData

from lensdeblend.images import prepare
from lensdeblend.interfaces import Deblender
from lensdeblend.results import Deblending
from lensdeblend.testing.common import (
    SEED, Untouched, blend_scene, checked_method, require, require_equal, require_finite, require_fit,
    require_kind, require_round_trip, require_same_grid, require_same_unit, specimen_image,
)

__all__ = ["check_deblender"]

COLUMNS = ("id", "x", "y", "flux", "flux_err", "e1", "e2", "radius", "blendedness", "flags")


def check_deblender(method: str | Deblender, *, image: NDData | None = None, positions=None) -> None:
    """Check that a deblender keeps the contract.

    It is a frozen dataclass, returns a `~lensdeblend.results.Deblending` with one image, one share and one catalogue
    row a galaxy, in the order of the positions, on the grid and in the unit of the input; the shares sum to the data;
    model, residual and chi-square tell one story; the same seed gives the same; an image in a batch fares as it does
    alone; the input stays as it was; the result can be written and read.

    Parameters
    ----------
    method : str or `~lensdeblend.interfaces.Deblender`
        A registered name or an instance.
    image : `~astropy.nddata.NDData`, optional
        Of overlapping galaxies; left out, one of two galaxies on 60 x 64 pixels is simulated.
    positions : (n, 2) array, optional
        Pixel (x, y) of the galaxies; needed where ``image`` is given.

    Raises
    ------
    AssertionError
        Where the method breaks the contract.
    """
    method = checked_method("deblender", method)
    require((image is None) == (positions is None), "check_deblender needs image and positions together")
    if image is None:
        image = specimen_image(blend_scene())
        positions = np.array([[26.63, 30.41], [37.45, 27.52]])
    image, positions = prepare(image), np.asarray(positions, dtype=float)
    with Untouched(image):
        result = method.deblend(image, None, positions, np.random.default_rng(SEED))
    require_kind(result, Deblending, "deblend")
    _check_sources(result, image, positions)
    require_fit(result, image)
    again = method.deblend(image, None, positions, np.random.default_rng(SEED))
    require_equal(again.model.data, result.model.data, "two models with the same seed", 1e-9)
    backwards = positions[::-1]
    batch = method.deblend_batch([image, image], [None, None], [positions, backwards], np.random.default_rng(SEED))
    require(len(batch) == 2, f"deblend_batch returned {len(batch)} results for 2 images")
    for one, other in zip(batch[1].sources[::-1], result.sources):
        require_equal(one.data, other.data, "a galaxy alone, and in a batch with positions in another order", 0.02)
    found = method.deblend(image, None, None, np.random.default_rng(SEED))
    require(len(found.catalog) > 0, "without positions, the method finds nothing in an image of bright galaxies")
    require_round_trip(result)


def _check_sources(result: Deblending, image: NDData, positions: np.ndarray) -> None:
    n = len(positions)
    for name in ("sources", "shares", "catalog"):
        require(len(getattr(result, name)) == n, f"{name} has {len(getattr(result, name))} entries for {n} positions")
    for name in COLUMNS:
        require(name in result.catalog.colnames, f"the catalogue lacks the column {name}")
    where = np.column_stack([u.Quantity(result.catalog[name]).value for name in ("x", "y")])
    apart = np.hypot(*(where - positions).T)
    require((apart < 3).all(), f"the rows are up to {apart.max():.1f} pixels from the positions in the same order")
    for name in ("sources", "shares"):
        for item in getattr(result, name):
            require_same_grid(item, image, name)
            require_same_unit(item, image, name)
            require_finite(item, name)
    good = ~image.mask
    total = sum(share.data for share in result.shares)
    require_equal(total[good], image.data[good], "the sum of the shares and the data", 1e-5)
