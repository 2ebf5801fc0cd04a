"""One reconstruction held against the simulation it was made from: numbers in a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import VarianceUncertainty
from astropy.table import Table

from lensdeblend.evaluation.metrics import compare, reduced_chi_square
from lensdeblend.results import Reconstruction, Simulation

__all__ = ["LENS_UNITS", "judge", "lens_values"]

#: Units of the lens parameters.
LENS_UNITS = {
    "theta_E": u.arcsec, "gamma": u.one, "e1": u.one, "e2": u.one, "center_x": u.arcsec, "center_y": u.arcsec,
    "gamma1": u.one, "gamma2": u.one,
}


def judge(result: Reconstruction, simulation: Simulation) -> dict[str, Any]:
    """Metrics of the unlensed source, reduced chi-square of the model, lens parameters with errors, flags.

    The chi-square is computed here, for all methods alike: over all pixels of the simulated image, with its variance,
    less the parameters that the method says it fitted (``meta["degrees_of_freedom"]``).

    Raises
    ------
    ValueError
        Where source or model are on other pixels than the image, or not finite.
    """
    if isinstance(result.unlensed, Mapping):
        raise ValueError(f"the result has the bands {', '.join(result.unlensed)}, the image had none")
    chi2, freedom = _chi_square(result, simulation)
    numbers = {**compare(result.unlensed, simulation.unlensed).asdict(), "chi2": chi2, "degrees_of_freedom": freedom}
    for name in LENS_UNITS:
        numbers[name], numbers[f"{name}_err"] = lens_values(result.parameters, name), lens_values(
            result.parameters, f"{name}_err"
        )
    return {**numbers, "flags": "; ".join(result.flags)}


def lens_values(table: Table, column: str) -> float:
    """The first row of a column, or NaN where there is no such column."""
    if column not in table.colnames:
        return np.nan
    return float(u.Quantity(table[column][0]).to_value(LENS_UNITS[column.removesuffix("_err")]))


def _chi_square(result: Reconstruction, simulation: Simulation) -> tuple[float, int]:
    image, pixels = simulation.image, simulation.image.data.size
    fitted = result.image
    used = pixels if fitted is None or fitted.mask is None else int(np.count_nonzero(~np.asarray(fitted.mask)))
    parameters = int(np.clip(used - result.meta.get("degrees_of_freedom", used), 0, pixels - 1))
    variance = image.uncertainty.represent_as(VarianceUncertainty).array
    return reduced_chi_square(image, result.model, variance, n_parameters=parameters), pixels - parameters
