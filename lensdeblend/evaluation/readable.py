"""Tables of numbers as people read them."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

__all__ = ["aligned", "cells", "is_number"]

_FORMATS = {
    "mse": ".2e", "psnr": ".2f", "ssim": ".4f", "bias": "+.2g", "rmse": ".3g", "median_over": ".3f", "rms_over": ".3f",
    "holds": ".1%", "within": ".1%", "chi2": ".3f", "seconds": ".3g", "footprint_psnr": ".2f",
    "footprint_ssim": ".4f", "flux_bias": "+.4f", "flux_scatter": ".4f", "e_scatter": ".4f", "image_e": ".4f",
    "pull": ".2f", "recall": ".1%", "precision": ".1%", "noisy_mse": ".2e", "noisy_psnr": ".2f", "noisy_ssim": ".4f",
    "deflection": ".2%", "footprint_deflection": ".2%", "mass_bias": "+.2%", "mass_rmse": ".2%", "convergence": ".3g",
    "images_per": ".3g", "auc": ".4f", "gain_error": ".4f", "gain": "+.4f", "accuracy": ".1%",
}


def cells(table: Table) -> list[list[str]]:
    """The rows as text; a dash where there is no number."""
    return [[_cell(name, row[name]) for name in table.colnames] for row in table]


def is_number(table: Table, name: str) -> bool:
    """Whether a column is one of numbers."""
    return table[name].dtype.kind in "iuf"


def aligned(table: Table) -> list[str]:
    """Lines of equal columns, with the names on top; none for an empty table.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from lensdeblend.evaluation.readable import aligned
    >>> print("\\n".join(aligned(Table({"method": ["forward"], "psnr_mean": [41.2345], "failures": [0]}))))
    method   psnr mean  failures
    forward      41.23         0
    """
    rows = [[heading(name) for name in table.colnames], *cells(table)]
    if len(rows) == 1:
        return []
    widths = [max(map(len, column)) for column in zip(*rows)]
    right = [is_number(table, name) for name in table.colnames]
    columns = [
        [text.rjust(width) if far else text.ljust(width) for text in column]
        for column, width, far in zip(zip(*rows), widths, right)
    ]
    return ["  ".join(line).rstrip() for line in zip(*columns)]


def heading(name: str) -> str:
    """A column's name as words."""
    return name.replace("_", " ")


def _cell(name: str, value) -> str:
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            return "-"
        shape = next((shape for stem, shape in _FORMATS.items() if name.startswith(stem)), ".4g")
        return format(float(value), shape)
    return str(value)
