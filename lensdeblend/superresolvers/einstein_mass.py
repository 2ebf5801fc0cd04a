r"""The mass within the Einstein radius,

.. math::

    M_E = \pi \theta_E^2 D_L^2 \Sigma_{cr} = \frac{c^2}{4 G} \frac{D_L D_S}{D_{LS}}\, \theta_E^2,

with angular-diameter distances: of an elliptical lens, within the ellipse of area :math:`\pi \theta_E^2` on which its
convergence is even. What is known of the redshifts and the cosmology is not in its error.
"""

from __future__ import annotations

from numbers import Real

import astropy.constants as const
import astropy.units as u
import numpy as np
from astropy import cosmology
from astropy.table import QTable

from lensdeblend.spelling import advice

__all__ = ["check_distances", "with_mass"]


def check_distances(lens_redshift, source_redshift, name) -> None:
    """Two redshifts, the source behind the lens, or none; a cosmology that astropy knows.

    Raises
    ------
    ValueError
        For anything else.
    """
    known = cosmology.available
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"unknown cosmology {name!r}; {advice(str(name), list(known))}")
    if lens_redshift is None and source_redshift is None:
        return
    if lens_redshift is None or source_redshift is None:
        raise ValueError("a mass needs both redshifts: give lens_redshift and source_redshift, or neither")
    for label, value in (("lens_redshift", lens_redshift), ("source_redshift", source_redshift)):
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < np.inf:
            raise ValueError(f"{label} must be a positive number, or None; got {value!r}")
    if source_redshift <= lens_redshift:
        raise ValueError(
            f"the source must lie behind the lens: source_redshift={source_redshift} is not above "
            f"lens_redshift={lens_redshift}"
        )


def with_mass(parameters: QTable, lens_redshift: float, source_redshift: float, name: str) -> QTable:
    """The table with the columns ``mass_E`` and ``mass_E_err`` (solar masses)."""
    chosen = getattr(cosmology, name)
    lens, source = (chosen.angular_diameter_distance(z) for z in (lens_redshift, source_redshift))
    # Comoving distances add up in a flat universe, and all that astropy has names for are flat.
    between = source - lens * ((1 + lens_redshift) / (1 + source_redshift))
    per_area = const.c**2 / (4 * const.G) * lens * source / between
    theta_E, error = (parameters[column].to(u.arcsec) for column in ("theta_E", "theta_E_err"))
    table = QTable(parameters, copy=True)
    table["mass_E"] = (per_area * (theta_E / u.rad) ** 2).to(u.Msun, equivalencies=u.dimensionless_angles())
    table["mass_E_err"] = table["mass_E"] * (2 * error / theta_E).to_value(u.dimensionless_unscaled)
    return table
