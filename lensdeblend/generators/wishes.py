"""What is wished of galaxies, checked, as the numbers of a population."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend.options import check_whole
from lensdeblend.spelling import advice

__all__ = ["CONDITIONS", "Galaxies", "known_properties", "tell_outside"]

#: What may be wished of galaxies in one band.
CONDITIONS = ("flux", "magnitude", "radius", "e1", "e2", "n")

_RATE = u.ct / u.s


@dataclass(frozen=True)
class Galaxies:
    """Columns (n,): ``flux`` (counts a second), ``radius`` (circularised, arcsec), ``e1``, ``e2``, ``n``."""

    flux: np.ndarray
    radius: np.ndarray
    e1: np.ndarray
    e2: np.ndarray
    n: np.ndarray

    @classmethod
    def of(cls, drawn: Mapping[str, np.ndarray], zero_point: float) -> Galaxies:
        """From the numbers of a population."""
        flux = 10 ** (-0.4 * (drawn["magnitude"] - zero_point))
        return cls(flux, np.exp(drawn["log_radius"]), drawn["e1"], drawn["e2"], np.exp(drawn["log_n"]))

    def table(self, zero_point: float) -> QTable:
        """As columns of a catalogue."""
        return QTable({
            "id": np.arange(1, len(self.flux) + 1), "flux": self.flux * _RATE,
            "magnitude": (zero_point - 2.5 * np.log10(self.flux)) * u.ABmag, "radius": self.radius * u.arcsec,
            "e1": self.e1, "e2": self.e2, "n": self.n,
        })


def known_properties(
    n: int, conditions: Mapping | None, *, zero_point: float, colours: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Check wishes and turn them into what `~lensdeblend.generators.population.Population.draw` takes.

    Parameters
    ----------
    n : int
    conditions : mapping or None
        `CONDITIONS` to scalars or columns of length ``n``.
    zero_point : float
        AB magnitude of one count a second.
    colours : sequence of str
        What may be wished besides, such as ``"g-r"``, in magnitudes.

    Returns
    -------
    dict
        Any of ``magnitude``, ``log_radius``, ``log_n``, ``e1``, ``e2`` and ``colours``, (n,) each.

    Raises
    ------
    TypeError
        For a radius without a unit, and for what is no number.
    ValueError
        For an unknown condition, with the nearest known one; for columns of another length; for NaN; for a flux, a
        radius or an index that is not positive, an ellipticity of 1 or more, flux and magnitude together.

    Examples
    --------
    >>> from lensdeblend.generators.wishes import known_properties
    >>> known_properties(2, {"flux": [1, 10]}, zero_point=25)
    {'magnitude': array([25. , 22.5])}
    """
    check_whole("n", n, 1)
    wishes = {name: _column(name, conditions[name], n, zero_point) for name in _checked_names(conditions, colours)}
    known = {name: wishes[name] for name in ("magnitude", "e1", "e2", *colours) if name in wishes}
    for name in ("flux", "radius", "n"):
        if name in wishes and not np.all(wishes[name] > 0):
            raise ValueError(f"the condition {name!r} must be positive; got {_first(wishes[name], wishes[name] <= 0)}")
    if "flux" in wishes:
        known["magnitude"] = zero_point - 2.5 * np.log10(wishes["flux"])
    for name, own in (("radius", "log_radius"), ("n", "log_n")):
        if name in wishes:
            known[own] = np.log(wishes[name])
    modulus = np.hypot(known.get("e1", 0.0), known.get("e2", 0.0))
    if np.any(modulus >= 1):
        raise ValueError(
            f"the conditions 'e1' and 'e2' must have a modulus (1-q)/(1+q) below 1; got {_first(modulus, modulus >= 1)}"
        )
    return known


def tell_outside(outside: np.ndarray, how: str) -> None:
    """Warn of wishes beyond the population, refuse them, or leave them to their flags: ``"warn"``, ``"error"``,
    ``"flag"``.

    Parameters
    ----------
    outside : (n,) array of bool
    how : str
    """
    if how == "flag" or not outside.any():
        return
    message = (
        f"the wishes for {outside.sum()} of {len(outside)} galaxies are beyond the population, whose other "
        "properties are drawn as at its edge"
    )
    if how == "error":
        raise ValueError(message)
    warnings.warn(message, AstropyUserWarning, stacklevel=4)


def _checked_names(conditions: Mapping | None, colours: Sequence[str]) -> list[str]:
    names, granted = list(getattr(conditions, "colnames", conditions or ())), (*CONDITIONS, *colours)
    for name in names:
        if name not in granted:
            colour = " (colours need a generator of several bands)" if "-" in str(name) and not colours else ""
            raise ValueError(f"unknown condition {name!r}{colour}; {advice(name, granted)}")
    if {"flux", "magnitude"} <= set(names):
        raise ValueError("the conditions have both flux and magnitude: give one of the two")
    return names


def _column(name: str, values, n: int, zero_point: float) -> np.ndarray:
    try:
        column = np.ma.filled(np.ma.asarray(_plain(name, values, zero_point), dtype=float), np.nan)
    except (TypeError, ValueError) as error:
        raise TypeError(f"the condition {name!r} is not what it must be: {error}") from error
    if column.shape not in ((), (n,)):
        raise ValueError(f"the condition {name!r} has shape {column.shape}; one value or {n} are needed")
    if not np.all(np.isfinite(column)):
        raise ValueError(f"the condition {name!r} must be finite; leave it out to have it drawn")
    return np.broadcast_to(column, (n,))


def _plain(name: str, values, zero_point: float):
    unit = getattr(values, "unit", None)
    if name == "radius":
        if unit is None:
            raise TypeError("an angle with a unit is needed, such as 0.3 * u.arcsec")
        return u.Quantity(values).to_value(u.arcsec)
    if unit is None:
        return values
    if "-" in name:
        return u.Quantity(values).to_value(u.mag)
    if name == "magnitude":
        return u.Quantity(values).to_value(u.mag) if unit == u.mag else u.Magnitude(values).to_value(u.ABmag)
    if name == "flux" and u.Unit(unit).is_equivalent(u.Jy):
        return 10 ** (-0.4 * (u.Quantity(values).to_value(u.ABmag) - zero_point))
    return u.Quantity(values).to_value(_RATE if name == "flux" else u.dimensionless_unscaled)


def _first(values: np.ndarray, which: np.ndarray) -> float:
    return np.atleast_1d(values)[np.atleast_1d(which)][0]
