"""Where an inversion begins: lens parameters and lens light of another method, or given ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData
from torch import Tensor

from lensdeblend.images import like
from lensdeblend.lensing.parametric import LENS_NAMES, SersicLens
from lensdeblend.reconstructors.frame import Frame, PhotonNoise, estimated_from_data
from lensdeblend.reconstructors.neighbours import lens_region
from lensdeblend.reconstructors.starts import find_lens_light, fit_lens_light
from lensdeblend.results import Reconstruction

__all__ = ["PixelStart", "start_from_parameters", "start_from_result"]

_LIGHT_COLUMNS = ("x", "y", "radius", "n", "e1", "e2")


@dataclass(frozen=True)
class PixelStart:
    """The image less its sky, the parameters (8 of the lens, then 6 a lens-light component) and what is known of the
    noise.

    ``light`` (ny, nx) is the lens light of the start on the whole image; ``chi2`` its reduced chi-square, NaN where
    nothing was fitted.
    """

    image: NDData
    parameters: Tensor
    light: np.ndarray
    noise: PhotonNoise | None
    sky: float
    radius: float | None
    chi2: float
    flags: tuple[str, ...]

    @property
    def model(self) -> SersicLens:
        """The lens light alone; the source is in pixels."""
        return SersicLens(0, (len(self.parameters) - len(LENS_NAMES)) // 6)


def start_from_result(image: NDData, result: Reconstruction) -> PixelStart:
    """From what another method found in ``image``."""
    seen = image if result.image is None else result.image
    sky = float(result.meta.get("sky", 0.0))
    noise = estimated_from_data(image)
    parameters = [_number(result.parameters[name][0]) for name in LENS_NAMES]
    for prefix in ("light", "light1", "light2"):
        if f"{prefix}_radius" not in result.parameters.colnames:
            continue
        x, y, radius, n, e1, e2 = (_number(result.parameters[f"{prefix}_{name}"][0]) for name in _LIGHT_COLUMNS)
        if _number(result.parameters[f"{prefix}_flux"][0]) > 0:
            parameters += [x, y, np.log(radius), np.log(n), e1, e2]
    light = np.zeros(image.data.shape) if result.lens_light is None else np.asarray(result.lens_light.data, float)
    return PixelStart(
        like(seen, seen.data - sky, uncertainty=seen.uncertainty, mask=seen.mask), torch.as_tensor(parameters).double(),
        light, None if noise is None else noise.above(sky), sky, result.meta.get("radius"), result.chi2,
        tuple(flag for flag in result.flags if flag == "no lens seen"),
    )


def start_from_parameters(image: NDData, given: Mapping, lights: int | str, radius: float | None) -> PixelStart:
    """From the eight lens parameters; the lens light is fitted to what falls off around the centre."""
    region = lens_region(image, radius)
    sky, mask = (0.0, image.mask) if region is None else (region.sky, region.mask)
    image = like(image, image.data - sky, uncertainty=image.uncertainty, mask=mask)
    noise = estimated_from_data(image)
    frame = Frame.of(image)
    if noise is not None:
        frame = frame.with_sigma(noise.sigma(torch.as_tensor(frame.smoothed(1.0))))
        variance = np.array(image.uncertainty.array)
        variance[_box(frame)] = frame.sigma.numpy() ** 2
        image = like(image, image.data, uncertainty=type(image.uncertainty)(variance), mask=mask)
    found = None
    if lights == "auto":
        found = next(iter(find_lens_light(frame.single())), None)
    elif lights:
        found = fit_lens_light(frame.single(), lights)
    parameters = [_number(given[name]) for name in LENS_NAMES]
    light = np.zeros(image.data.shape)
    if found is not None:
        parameters += list(found.parameters)
        # In single precision a frame is in units of its median noise.
        light[_box(frame)] = found.image.double().numpy() * float(frame.sigma[frame.used].median())
    return PixelStart(
        image, torch.as_tensor(np.array(parameters, float)), light, noise, sky,
        None if region is None else region.radius, np.nan, (),
    )


def _box(frame: Frame) -> tuple[slice, slice]:
    (row, column), (ny, nx) = frame.corner, frame.grid.shape
    return slice(row, row + ny), slice(column, column + nx)


def _number(value) -> float:
    value = u.Quantity(value)
    return float(value.to_value(u.arcsec) if value.unit.is_equivalent(u.arcsec) else value.value)
