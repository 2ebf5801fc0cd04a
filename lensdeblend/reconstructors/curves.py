"""Critical curves and caustics as a table."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable

from lensdeblend.lensing.critical import critical_curves

__all__ = ["curves_table"]


def curves_table(lens) -> QTable:
    """``curve``, ``x``, ``y``, ``source_x``, ``source_y`` of the eight lens parameters, in arcsec."""
    curves = critical_curves(torch.as_tensor(lens, dtype=torch.float64))
    number = np.concatenate([np.full(len(c), i) for i, c in enumerate(curves)]) if curves else np.zeros(0, int)
    points = np.concatenate(curves) if curves else np.zeros((0, 4))
    table = QTable({"curve": number.astype(int)})
    for name, column in zip(("x", "y", "source_x", "source_y"), points.T):
        table[name] = column * u.arcsec
    return table
