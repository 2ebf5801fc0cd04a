"""Where an inversion begins: lens parameters and lens light of another method, or given ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData
from torch import Tensor

from lensdeblend.images import like
from lensdeblend.interfaces import Image
from lensdeblend.lensing.banded import BandedLens
from lensdeblend.lensing.parametric import LENS_NAMES, SersicLens
from lensdeblend.lensing.placement import Placement, carried
from lensdeblend.reconstructors.bands import Band, open_bands, placed
from lensdeblend.reconstructors.frame import Frame, estimated_from_data
from lensdeblend.reconstructors.neighbours import LensRegion
from lensdeblend.reconstructors.starts import LensLight, clipped_light, find_lens_light, fit_lens_light
from lensdeblend.reconstructors.view import View
from lensdeblend.results import Reconstruction

__all__ = ["PixelStart", "start_from_parameters", "start_from_result"]

_LIGHT_COLUMNS = ("x", "y", "radius", "n", "e1", "e2")


@dataclass(frozen=True)
class PixelStart:
    """The bands, and the parameters of ``model``, which has lens light alone; the sources are in pixels.

    A plain image is one band without a name. ``lights`` (ny, nx) are the lens light of the start on the whole of each
    band's image; ``chi2`` its reduced chi-square, NaN where nothing was fitted.
    """

    bands: Sequence[Band]
    lights: Sequence[np.ndarray]
    model: BandedLens
    parameters: Tensor
    chi2: float
    flags: tuple[str, ...]


def start_from_result(image: Image, result: Reconstruction) -> PixelStart:
    """From what another method found in ``image``."""
    given = _by_band(image)
    seen = given if result.image is None else _by_band(result.image)
    sky, radius = (_noted(result, key, given) for key in ("sky", "radius"))
    bands = [
        Band(name, _seen(given[name], seen[name], sky.get(name, 0.0), radius.get(name)), placement)
        for name, placement in placed(given).items()
    ]
    lens = [_number(result.parameters[name][0]) for name in LENS_NAMES]
    lights = [[] for _ in bands]
    for prefix in ("light", "light1", "light2"):
        columns = [_columns(result, prefix, band.name) for band in bands]
        if not all(columns) or not any(own["flux"] > 0 for own in columns):
            continue
        for light, own in zip(lights, columns):
            x, y, size, n, e1, e2 = (own[name] for name in _LIGHT_COLUMNS)
            light += [x, y, np.log(size), np.log(n), e1, e2]
    if result.lens_light is None:
        images = [np.zeros(band.view.given.data.shape) for band in bands]
    else:
        images = [np.asarray(_by_band(result.lens_light)[band.name].data, float) for band in bands]
    return PixelStart(
        bands, images, *_joined(bands, lens, lights), result.chi2,
        tuple(flag for flag in result.flags if flag == "no lens seen"),
    )


def start_from_parameters(image: Image, given: Mapping, lights: int | str, radius: float | None) -> PixelStart:
    """From the eight lens parameters; the lens light is fitted to what falls off around the centre.

    Of several bands, the one of highest signal-to-noise that shows lens light says where it is.
    """
    plain = not isinstance(image, Mapping)
    bands = [Band(None, View.of(image, radius), Placement())] if plain else open_bands(image, radius)
    images = [np.zeros(band.view.given.data.shape) for band in bands]
    shapes = [[] for _ in bands]
    ordered = sorted(range(len(bands)), key=lambda number: -bands[number].signal)
    found = ((number, _first_light(bands[number].frame.single(), lights)) for number in ordered)
    leader, first = next(((number, light) for number, light in found if light is not None), (None, None))
    if first is not None:
        model = SersicLens(0, first.components)
        from_leader = _with_lens(first.parameters)
        for number in (*(n for n in ordered if n != leader), leader):
            band, light = bands[number], first
            if number != leader:
                begin = carried(carried(from_leader, model, bands[leader].placement), model, band.placement.inverse)
                light = clipped_light(band.frame.single(), begin[8:].numpy())
            (row, column), (ny, nx) = band.frame.corner, band.frame.grid.shape
            # In single precision a frame is in units of its median noise.
            unit = float(band.frame.sigma[band.frame.used].median())
            images[number][row:row + ny, column:column + nx] = light.image.double().numpy() * unit
            shapes[number] = carried(_with_lens(light.parameters), model, band.placement)[8:].tolist()
        for shape in shapes:
            for k in range(model.components):
                shape[6 * k:6 * k + 2] = shapes[leader][6 * k:6 * k + 2]
    return PixelStart(bands, images, *_joined(bands, [_number(given[name]) for name in LENS_NAMES], shapes), np.nan, ())


def _first_light(frame: Frame, lights: int | str) -> LensLight | None:
    if lights == "auto":
        return next(iter(find_lens_light(frame)), None)
    return fit_lens_light(frame, lights) if lights else None


def _with_lens(light: np.ndarray) -> Tensor:
    return torch.cat([torch.zeros(8), torch.as_tensor(light)]).double()


def _joined(bands: Sequence[Band], lens: list[float], lights: list[list[float]]) -> tuple[BandedLens, Tensor]:
    """The model, and the parameters of its lens and of each band's light, told from the first band."""
    names = tuple(band.name for band in bands)
    one = SersicLens(0, len(lights[0]) // 6)
    model = BandedLens(one, names, separate=names != (None,))
    parameters = torch.zeros(len(model.names), dtype=torch.float64)
    for number, light in enumerate(lights):
        parameters[model.columns(number)] = torch.as_tensor(np.array([*lens, *light], float))
    return model, parameters


def _by_band(value: Any) -> Mapping:
    return value if isinstance(value, Mapping) else {None: value}


def _noted(result: Reconstruction, key: str, given: Mapping) -> Mapping:
    """What ``meta`` says of each band; nothing where it says nothing."""
    return {name: float(value) for name, value in _by_band(result.meta.get(key, {})).items() if name in given}


def _columns(result: Reconstruction, prefix: str, band: str | None) -> dict[str, float] | None:
    """The numbers of a light component, those of the band where it has its own; None where there is no such light."""
    own = {}
    for name in (*_LIGHT_COLUMNS, "flux"):
        column = f"{prefix}_{name}"
        column = next((c for c in (f"{column}_{band}", column) if c in result.parameters.colnames), None)
        if column is None:
            return None
        own[name] = _number(result.parameters[column][0])
    return own


def _seen(given: NDData, seen: NDData, sky: float, radius: float | None) -> View:
    """As the other method looked at it."""
    noise = estimated_from_data(given)
    image = like(seen, seen.data - sky, uncertainty=seen.uncertainty, mask=seen.mask)
    region = None if radius is None else LensRegion(seen.mask, radius, sky)
    return View(given, image, Frame.of(image), noise and noise.above(sky), region)


def _number(value) -> float:
    value = u.Quantity(value)
    return float(value.to_value(u.arcsec) if value.unit.is_equivalent(u.arcsec) else value.value)
