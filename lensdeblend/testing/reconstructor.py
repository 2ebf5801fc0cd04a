"""The contract of a reconstructor."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData, NDData

from lensdeblend.images import pixel_scale, prepare, recast
from lensdeblend.interfaces import Reconstructor
from lensdeblend.results import Reconstruction
from lensdeblend.testing.common import (
    SEED, Untouched, checked_method, lens_image, require, require_equal, require_finite, require_fit, require_kind,
    require_round_trip, require_same_grid, require_same_unit,
)

__all__ = ["check_reconstructor"]

PARAMETERS = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
ANGLES = ("theta_E", "center_x", "center_y")


def check_reconstructor(method: str | Reconstructor, *, image: NDData | None = None) -> None:
    """Check that a reconstructor keeps the contract.

    It is a frozen dataclass, returns a `~lensdeblend.results.Reconstruction` with all parameters and their errors, on
    the grid and in the unit of the input; model, residual and chi-square tell one story; masked pixels do not matter;
    the same seed gives the same; an image in a batch fares as it does alone; the input stays as it was; the result can
    be written and read.

    Parameters
    ----------
    method : str or `~lensdeblend.interfaces.Reconstructor`
        A registered name or an instance.
    image : `~astropy.nddata.NDData`, optional
        Of a lens; left out, one of 46 x 50 pixels is simulated.

    Raises
    ------
    AssertionError
        Where the method breaks the contract.
    """
    method = checked_method("reconstructor", method)
    image = prepare(image if image is not None else lens_image())
    with Untouched(image):
        result = method.reconstruct(image, np.random.default_rng(SEED))
    require_kind(result, Reconstruction, "reconstruct")
    require_fit(result, image)
    _check_source(result, image)
    _check_parameters(result)
    again = method.reconstruct(image, np.random.default_rng(SEED))
    require_equal(again.model.data, result.model.data, "two models with the same seed", 1e-9)
    _check_batch(method, image, result)
    require_round_trip(result)


def _check_source(result: Reconstruction, image: NDData) -> None:
    require_finite(result.source, "the source")
    scale, coarse = pixel_scale(result.source), pixel_scale(image)
    require(scale <= 1.001 * coarse, f"the source has pixels of {scale}, coarser than the image's {coarse}")
    require_same_grid(result.unlensed, image, "unlensed")
    require_same_unit(result.unlensed, image, "unlensed")
    if result.lens_light is not None:
        require_same_grid(result.lens_light, image, "lens_light")


def _check_parameters(result: Reconstruction) -> None:
    table = result.parameters
    require(len(table) == 1, f"parameters must have one row; it has {len(table)}")
    for name in PARAMETERS:
        require(name in table.colnames, f"parameters lack the column {name}")
        require(f"{name}_err" in table.colnames, f"parameters lack the column {name}_err (NaN where there is no error)")
        error = u.Quantity(table[f"{name}_err"][0]).value
        require(np.isnan(error) or error >= 0, f"{name}_err is {error}")
    for name in ANGLES:
        require(u.Quantity(table[name]).unit.is_equivalent(u.arcsec), f"{name} must be an angle")
    if result.covariance is None:
        return
    names = [name for name in table.colnames if not name.endswith("_err")]
    require(
        result.covariance.shape == (len(names),) * 2,
        f"the covariance has shape {result.covariance.shape} for {len(names)} parameters",
    )
    require_equal(result.covariance.T, result.covariance, "the covariance and its transpose", 1e-9)
    errors = [_error(table, name) for name in names]
    diagonal = np.sqrt(np.diag(result.covariance))
    for name, error, root in zip(names, errors, diagonal):
        same = (np.isnan(error) and np.isnan(root)) or np.isclose(error, root, rtol=1e-3, atol=0)
        require(same, f"{name}_err is {error}, the root of the covariance's diagonal {root}")


def _error(table, name: str) -> float:
    error = u.Quantity(table[f"{name}_err"][0])
    return error.to_value(u.arcsec) if error.unit.is_equivalent(u.arcsec) else error.value


def _check_batch(method: Reconstructor, image: NDData, alone: Reconstruction) -> None:
    """The image beside one with other values in its masked pixels, both as CCDData, by the verb."""
    from lensdeblend.verbs import reconstruct

    poisoned = prepare(image)
    poisoned.data[image.mask] = 1e6
    try:
        batch = reconstruct([recast(item, CCDData) for item in (image, poisoned)], method=method, seed=SEED)
    except RuntimeError as error:
        require("results for 2 inputs" not in str(error), f"reconstruct_batch: {error}")
        raise
    sigma = np.sqrt(image.uncertainty.array)
    for result, what in zip(batch, ("alone and in a batch", "with other values in masked pixels")):
        shift = ((result.model.data - alone.model.data) / sigma)[~image.mask]
        scatter = np.sqrt(np.mean(shift**2))
        require(scatter < 0.2, f"the model of an image {what} differs by {scatter:.2f} sigma")
        require(isinstance(result.model, CCDData), "a CCDData must come out where one went in")
        require(result.meta["verb"] == "reconstruct", "the verb must stamp the provenance")
