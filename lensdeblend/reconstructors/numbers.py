"""The numbers of a lens fit under the names, and in the units, that users see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable
from torch import Tensor

from lensdeblend.lensing.banded import BandedLens
from lensdeblend.lensing.parametric import LENS_NAMES, LIGHT_NAMES, SersicLens
from lensdeblend.reconstructors.fitting import LensFit
from lensdeblend.reconstructors.posterior_samples import covariance

__all__ = ["Numbers"]

_ANGLES = {"theta_E", "center_x", "center_y", "x", "y", "log_radius"}
_FLUX = "flux"


@dataclass(frozen=True)
class _Number:
    """One number: its name, what it is, where it stands among parameters and then amplitudes, and of which band."""

    name: str
    kind: str
    place: int
    band: str | None = None


@dataclass(frozen=True)
class Numbers:
    """Parameters and amplitudes in the order of the tables: the lens, then one light component after the other."""

    each: Sequence[_Number]

    @classmethod
    def of(cls, model: SersicLens | BandedLens) -> Numbers:
        """Those of a model."""
        numbers = [_Number(name, name, place) for place, name in enumerate(LENS_NAMES)]
        if isinstance(model, SersicLens):
            one, bands = model, [None]
            shapes = [(k, name, None) for k in range(one.components) for name in LIGHT_NAMES]
        else:
            one, bands, shapes = model.one, model.bands, model.light_parameters
        amplitudes = len(LENS_NAMES) + len(shapes)
        for component in range(one.components):
            prefix = _prefix(one, component)
            for place, (owner, kind, band) in enumerate(shapes, start=len(LENS_NAMES)):
                if owner == component:
                    band = None if band is None else bands[band]
                    numbers.append(_Number(_named(prefix, kind.removeprefix("log_"), band), kind, place, band))
            for number, band in enumerate(bands):
                place = amplitudes + number * one.components + component
                numbers.append(_Number(_named(prefix, _FLUX, band), _FLUX, place, band))
        return cls(numbers)

    @property
    def names(self) -> list[str]:
        return [number.name for number in self.each]

    @property
    def places(self) -> list[int]:
        return [number.place for number in self.each]

    def values(self, points: Tensor) -> Tensor:
        """From (n, parameters and amplitudes) of a fit to these numbers."""
        columns = [points[:, number.place] for number in self.each]
        logarithmic = [number.kind.startswith("log_") for number in self.each]
        return torch.stack([c.exp() if is_log else c for c, is_log in zip(columns, logarithmic)], 1)

    def best(self, fit: LensFit) -> tuple[np.ndarray, np.ndarray]:
        """Values and covariance of a fit; NaN in the covariance for what the data do not constrain."""
        return self.told(torch.cat([fit.parameters, fit.amplitudes]), covariance(fit))

    def told(self, best: Tensor, covariance: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The same from parameters and amplitudes and their covariance, 0 for what is not constrained."""
        values = self.values(best[None])[0]
        slope = torch.func.jacrev(lambda p: self.values(p[None])[0])(best)
        spread = (slope @ covariance @ slope.T).numpy()
        spread = (spread + spread.T) / 2
        fixed = np.diag(spread) <= 0
        spread[fixed] = np.nan
        spread[:, fixed] = np.nan
        return values.numpy(), spread

    def table(self, values: np.ndarray, spread: np.ndarray, flux_unit) -> QTable:
        """One row of values, each with its error; ``flux_unit`` is a unit, None, or ``{band: unit}``."""
        table = QTable()
        for index, number in enumerate(self.each):
            unit = _unit(number, flux_unit)
            table[number.name] = _column(values[index:index + 1], unit)
            table[f"{number.name}_err"] = _column(np.sqrt(spread[index:index + 1, index]), unit)
        return table

    def samples(self, points: np.ndarray, flux_unit) -> QTable:
        """One row a point of (n, parameters and amplitudes)."""
        values = self.values(torch.as_tensor(points)).numpy()
        columns = zip(self.each, values.T)
        return QTable({number.name: _column(column, _unit(number, flux_unit)) for number, column in columns})


def _prefix(model: SersicLens, component: int) -> str:
    if component < model.sources:
        return "source" if model.sources == 1 else f"source{component + 1}"
    light = component - model.sources
    return "light" if model.lens_lights == 1 else f"light{light + 1}"


def _named(prefix: str, kind: str, band: str | None) -> str:
    return f"{prefix}_{kind}" if band is None else f"{prefix}_{kind}_{band}"


def _unit(number: _Number, flux_unit):
    if number.kind == _FLUX:
        unit = flux_unit[number.band] if isinstance(flux_unit, Mapping) else flux_unit
        return u.dimensionless_unscaled if unit is None else unit
    return u.arcsec if number.kind in _ANGLES else u.dimensionless_unscaled


def _column(values: np.ndarray, unit) -> np.ndarray | u.Quantity:
    return values if unit == u.dimensionless_unscaled else u.Quantity(values, unit)
