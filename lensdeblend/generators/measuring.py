"""What generated galaxies measure: the flux on the stamp, and a Sérsic profile fitted to it."""

from __future__ import annotations

from collections.abc import Sequence

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData
from astropy.table import QTable

from lensdeblend.generators.wishes import Galaxies
from lensdeblend.lensing.sersic_fit import fit_sersics

__all__ = ["MEASURED", "measured", "stamp_flags"]

#: Columns that `measured` gives.
MEASURED = ("flux_measured", "radius_measured", "e1_measured", "e2_measured", "n_measured")

# Of a galaxy's flux: with more outside, the stamp counts as too small.
_MOST_OUTSIDE = 0.1


def measured(images: Sequence[NDData], pixel_scale: u.Quantity, *, noise: np.ndarray | None = None) -> QTable:
    """Measure galaxies near the middle of stamps of one shape.

    Parameters
    ----------
    images : sequence of `~astropy.nddata.NDData`
        Each with its PSF, where it has one; all or none.
    pixel_scale : `~astropy.units.Quantity`
    noise : (n,) array, optional
        Standard deviation a pixel, where there is noise.

    Returns
    -------
    `~astropy.table.QTable`
        `MEASURED`: the sum of the pixels, and radius (half-light, circularised), ellipticity and index of a Sérsic
        profile fitted through the PSF by least squares; NaN where the fit did not converge.
    """
    data = torch.from_numpy(np.array([image.data for image in images], dtype=float))
    psf = None if images[0].psf is None else torch.from_numpy(np.array([image.psf for image in images], dtype=float))
    weight = None if noise is None else torch.from_numpy(1 / noise)[:, None, None].expand_as(data)
    fit = fit_sersics(data, weight, psf=psf)
    columns = (np.where(fit.converged, one, np.nan) for one in (fit.radius, fit.e1, fit.e2, fit.n))
    table = QTable(dict(zip(MEASURED, (data.sum((1, 2)).numpy() * images[0].unit, *columns))))
    table["radius_measured"] = table["radius_measured"] * pixel_scale.to(u.arcsec)
    return table


def stamp_flags(galaxies: Galaxies, held: np.ndarray, outside: np.ndarray, **more: np.ndarray) -> list[str]:
    """Flags of each galaxy, joined by commas: ``stamp_too_small``, ``outside_population``, and the names of ``more``.

    Parameters
    ----------
    galaxies : `~lensdeblend.generators.wishes.Galaxies`
    held : (n,) array
        Flux on the stamp.
    outside : bool or (n,) array of bool
        Whether a wish lies beyond the population.
    **more : (n,) arrays of bool
        Where flags of the method's own are raised.
    """
    small = held < (1 - _MOST_OUTSIDE) * galaxies.flux
    named = {"stamp_too_small": small, "outside_population": np.broadcast_to(outside, small.shape), **more}
    return [",".join(name for name, found in named.items() if found[i]) for i in range(len(held))]
