"""The lens, and the Sérsic profiles, that the table of a `Reconstruction` tells of, with their covariance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from astropy.table import QTable
from torch import Tensor

from lensdeblend.lensing.parametric import LENS_NAMES, LIGHT_NAMES, SersicLens
from lensdeblend.lensing.placement import Placement, carried
from lensdeblend.results import Reconstruction

__all__ = ["FittedLens"]

_MOST_COMPONENTS = 2


@dataclass(frozen=True)
class FittedLens:
    """Parameters of ``model``, one flux a component, and the covariance of both (None where there is none).

    ``columns`` are the names of both in the table, with whether it is their logarithm that is a parameter.
    """

    model: SersicLens
    parameters: Tensor
    fluxes: Tensor
    covariance: Tensor | None
    columns: tuple[tuple[str, bool], ...]

    @classmethod
    def of(cls, found: Reconstruction, flux_unit, band: str | None = None) -> FittedLens:
        """Read it off a reconstruction, for one of several bands its own.

        Raises
        ------
        ValueError
            Where the parameters of the lens are not there, or there is lens light without parameters.
        """
        names = [name for name in found.parameters.colnames if f"{name}_err" in found.parameters.colnames]
        missing = [name for name in LENS_NAMES if name not in names]
        if missing:
            raise ValueError(f"the reconstruction tells nothing of {', '.join(missing)}: choose another reconstructor")
        sources, lights = (_prefixes(prefix, names, band) for prefix in ("source", "light"))
        if found.lens_light is not None and not lights:
            raise ValueError(
                "the reconstruction has lens light, but no parameters of it, so it is not known on finer pixels: "
                "choose the reconstructor 'forward', or take the lens light off first"
            )
        columns = [(name, False) for name in LENS_NAMES]
        for prefix in (*sources, *lights):
            kinds = (kind.removeprefix("log_") for kind in LIGHT_NAMES)
            columns += [
                (_column(prefix, short, names, band), kind.startswith("log_"))
                for short, kind in zip(kinds, LIGHT_NAMES)
            ]
        columns += [(_column(prefix, "flux", names, band), False) for prefix in (*sources, *lights)]
        values = np.array([_plain(found.parameters, name, flux_unit) for name, _ in columns])
        logarithmic = np.array([is_log for _, is_log in columns])
        covariance = _covariance(found, names)
        if covariance is not None:
            slope = np.where(logarithmic, 1 / values, 1.0)
            places = [names.index(name) for name, _ in columns]
            covariance = torch.as_tensor(slope[:, None] * covariance[np.ix_(places, places)] * slope)
        values[logarithmic] = np.log(values[logarithmic])
        model = SersicLens(len(sources), len(lights))
        count = len(model.names)
        return cls(model, torch.as_tensor(values[:count]), torch.as_tensor(values[count:]), covariance, tuple(columns))

    @property
    def lens(self) -> Tensor:
        """The eight parameters of the mass."""
        return self.parameters[:len(LENS_NAMES)]

    @property
    def lens_covariance(self) -> Tensor | None:
        """Of these."""
        return None if self.covariance is None else self.covariance[:len(LENS_NAMES), :len(LENS_NAMES)]

    def placed(self, placement: Placement) -> FittedLens:
        """The same as told from another image."""
        count = len(self.parameters)
        parameters = carried(self.parameters, self.model, placement)
        if self.covariance is None:
            return replace(self, parameters=parameters)
        # Exact, since positions in one image are a linear function of those in the other.
        moved = carried(self.parameters + torch.eye(count, dtype=parameters.dtype), self.model, placement)
        slope = torch.eye(len(self.covariance), dtype=parameters.dtype)
        slope[:count, :count] = (moved - parameters).T
        return replace(self, parameters=parameters, covariance=slope @ self.covariance @ slope.T)


def _prefixes(prefix: str, names: list[str], band: str | None) -> list[str]:
    """Of the components that the table tells all of."""
    numbered = [prefix, *(f"{prefix}{k}" for k in range(1, _MOST_COMPONENTS + 1))]
    needed = [kind.removeprefix("log_") for kind in LIGHT_NAMES] + ["flux"]
    return [one for one in numbered if all(_column(one, kind, names, band) for kind in needed)]


def _column(prefix: str, kind: str, names: list[str], band: str | None) -> str | None:
    shared = f"{prefix}_{kind}"
    return next((name for name in (f"{shared}_{band}", shared) if name in names), None)


def _plain(parameters: QTable, name: str, flux_unit) -> float:
    value = parameters[name][0]
    if not hasattr(value, "to_value"):
        return float(value)
    return float(value.to_value(flux_unit if "_flux" in name else "arcsec"))


def _covariance(found: Reconstruction, names: list[str]) -> np.ndarray | None:
    """In the order of ``names``, 0 for what the data do not constrain."""
    if found.covariance is not None:
        return np.nan_to_num(np.asarray(found.covariance, dtype=float), nan=0.0)
    if found.samples is None or any(name not in found.samples.colnames for name in names):
        return None
    rows = [getattr(found.samples[name], "value", found.samples[name]) for name in names]
    return np.atleast_2d(np.cov(np.array(rows, dtype=float)))
