"""Words above figures: what a fit of a lens found, and flags."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import astropy.units as u
import numpy as np
from astropy.table import QTable

from lensdeblend.results import panels
from lensdeblend.results.records import Reconstruction

__all__ = ["flag_lines", "reconstruction_title"]

_LETTERS_A_PANEL = 42

_SYMBOLS = {
    "theta_E": (r"\theta_{\rm E}", '"'),
    "gamma": (r"\gamma", ""),
    "e1": ("e_1", ""),
    "e2": ("e_2", ""),
    "center_x": (r"x_{\rm lens}", '"'),
    "center_y": (r"y_{\rm lens}", '"'),
    "gamma1": (r"\gamma_1", ""),
    "gamma2": (r"\gamma_2", ""),
}
_FIRST_LINE = ("theta_E", "gamma", "e1", "e2")
_SECOND_LINE = ("center_x", "center_y", "gamma1", "gamma2")


def reconstruction_title(result: Reconstruction, columns: int) -> str:
    """The lens with its errors, in two lines, and lines of flags, as wide as so many panels."""
    lines = [
        ",   ".join(_parameter(result.parameters, name) for name in names if name in result.parameters.colnames)
        for names in (_FIRST_LINE, _SECOND_LINE)
    ]
    return "\n".join([*(line for line in lines if line), *flag_lines(result.flags, columns)])


def flag_lines(flags: Sequence[str], columns: int) -> list[str]:
    """As wide as so many panels."""
    return wrap("flags: " + ", ".join(flags), _LETTERS_A_PANEL * columns) if flags else []


def _parameter(parameters: QTable, name: str) -> str:
    symbol, unit = _SYMBOLS[name]
    value = _number(parameters[name][0])
    error = _number(parameters[f"{name}_err"][0]) if f"{name}_err" in parameters.colnames else np.nan
    if not (np.isfinite(error) and error > 0):
        return f"${symbol} = {value:.4g}${unit}"
    decimals = max(0, 1 - int(np.floor(np.log10(error))))
    return rf"${symbol} = {value:.{decimals}f} \pm {error:.{decimals}f}${unit}"


def _number(value) -> float:
    is_angle = isinstance(value, u.Quantity) and value.unit.is_equivalent(u.arcsec)
    return float(panels.arcsec(value)) if is_angle else float(value)
