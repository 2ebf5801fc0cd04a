"""One lens in several bands: the mass once, light of its own colour, each band on its own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lensdeblend.lensing.least_squares import Linearisation
from lensdeblend.lensing.parametric import LENS_NAMES, LIGHT_NAMES, ParametricLens, SersicLens
from lensdeblend.lensing.placement import Placement

__all__ = ["BandedLens", "JointLens", "PlacedLens"]

_CENTER = LIGHT_NAMES[:2]


@dataclass(frozen=True)
class BandedLens:
    """Which parameters there are: eight of the lens, then those of each light component, once or once a band.

    Amplitudes are numbered band by band: the first band's components, then the second's.

    Parameters
    ----------
    one : SersicLens
        The components of a single band.
    bands : tuple of str
    separate : bool
        Whether sources have a shape and a place of their own in every band, and lens light a shape; its centre is
        shared.
    """

    one: SersicLens
    bands: tuple[str, ...]
    separate: bool = False

    @property
    def sources(self) -> int:
        return self.one.sources

    @property
    def lens_lights(self) -> int:
        return self.one.lens_lights

    @property
    def components(self) -> int:
        """Number of linear amplitudes."""
        return self.one.components * len(self.bands)

    @cached_property
    def light_parameters(self) -> list[tuple[int, str, int | None]]:
        """What follows the lens: component, name, and number of the band (None: of all)."""
        entries = []
        for component in range(self.one.components):
            for name in LIGHT_NAMES:
                shared = not self.separate or (component >= self.sources and name in _CENTER)
                entries += [(component, name, band) for band in ([None] if shared else range(len(self.bands)))]
        return entries

    @property
    def names(self) -> tuple[str, ...]:
        names = list(LENS_NAMES)
        for component, name, band in self.light_parameters:
            own = self.one.names[self.one.light_columns(component).start + LIGHT_NAMES.index(name)]
            names.append(own if band is None else f"{own}_{self.bands[band]}")
        return tuple(names)

    def columns(self, band: int) -> Tensor:
        """Where the parameters of the single-band model stand, for the band of that number."""
        places = {entry: len(LENS_NAMES) + i for i, entry in enumerate(self.light_parameters)}
        lights = [
            places[k, name, band if (k, name, band) in places else None]
            for k in range(self.one.components) for name in LIGHT_NAMES
        ]
        return torch.tensor([*range(len(LENS_NAMES)), *lights])

    def amplitude_columns(self, band: int) -> slice:
        """Where the amplitudes of the band of that number stand."""
        return slice(band * self.one.components, (band + 1) * self.one.components)

    def spread(self, parameters: Tensor) -> Tensor:
        """Parameters (P,) of a model with shared shapes, given to every band."""
        result = parameters.new_empty(len(LENS_NAMES) + len(self.light_parameters))
        shared = BandedLens(self.one, self.bands).columns(0)
        for band in range(len(self.bands)):
            result[self.columns(band)] = parameters[shared]
        return result


@dataclass(frozen=True)
class PlacedLens:
    """`SersicLens` as one band sees it: its parameters picked from those of all bands and told from another image.

    ``placement`` leads from positions in the band to those that the parameters are told in.
    """

    model: SersicLens
    columns: Tensor
    placement: Placement

    @property
    def components(self) -> int:
        """Number of linear amplitudes."""
        return self.model.components

    def brightness(self, parameters: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """As `SersicLens.brightness`."""
        return self.model.brightness(parameters[:, self.columns], *self.placement(x, y))

    def brightness_and_slopes(self, parameters: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, list[list]]:
        """As `SersicLens.brightness_and_slopes`, by the parameters of all bands."""
        light, slopes = self.model.brightness_and_slopes(parameters[:, self.columns], *self.placement(x, y))
        columns = self.columns.tolist()
        return light, [[(columns[i], values) for i, values in some] for some in slopes]


class JointLens:
    """The bands one after the other, as one model for `levenberg_marquardt`."""

    def __init__(self, lenses: Sequence[ParametricLens]):
        self.lenses = tuple(lenses)
        self.used = torch.arange(sum(len(lens.used) for lens in lenses))

    def linearise(self, parameters: Tensor, with_slopes: bool = True) -> JointLinearisation:
        """Basis and derivatives over the unmasked pixels of all bands, in units of the noise."""
        return JointLinearisation([lens.linearise(parameters, with_slopes) for lens in self.lenses])

    def pixels(self, band: int) -> slice:
        """Where the unmasked pixels of the band of that number stand."""
        start = sum(len(lens.used) for lens in self.lenses[:band])
        return slice(start, start + len(self.lenses[band].used))


class JointLinearisation:
    """`Linearisation` of several bands; a component has light in its own band only."""

    def __init__(self, parts: Sequence[Linearisation]):
        self.parts = parts
        first = parts[0].basis
        components, pixels = (sum(part.basis.shape[axis] for part in parts) for axis in (1, 2))
        self.basis = first.new_zeros(len(first), components, pixels)
        component = pixel = 0
        for part in parts:
            _, rows, columns = part.basis.shape
            self.basis[:, component:component + rows, pixel:pixel + columns] = part.basis
            component, pixel = component + rows, pixel + columns

    def combined_slopes(self, amplitudes: Tensor, size: int) -> Tensor:
        """As `Linearisation.combined_slopes`."""
        each = amplitudes.split([part.basis.shape[1] for part in self.parts], 1)
        return torch.cat([part.combined_slopes(own, size) for part, own in zip(self.parts, each)], -1)
