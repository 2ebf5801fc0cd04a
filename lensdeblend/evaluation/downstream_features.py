"""What a network is shown of an image, and of what a superresolver makes of it.

Of the image alone: brightness in units of the brightest pixel; the same compressed; and what a Gaussian of one pixel
leaves of it, in sigma, compressed: faint detail beside bright light, which is all that some residuals below are. A
finer image follows from the image, and can hold nothing that is not in it; what may be easier to see there is shown
besides: the finer image, compressed like the other; what it leaves of the data, in sigma, compressed; and by how much
the convergence exceeds that of the lens that ``parameters`` tell of, which is the substructure found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, VarianceUncertainty
from scipy.ndimage import gaussian_filter

from lensdeblend.evaluation.judging import LENS_UNITS
from lensdeblend.images import pixel_scale
from lensdeblend.results import SuperResolution

__all__ = ["Shown", "check_finer", "of_finer", "of_image"]

_FAINT = 0.1
_SMOOTHED = 1.0
_CONVERGENCE = 0.1


@dataclass(frozen=True)
class Shown:
    """Channels of one image on its own pixels (channels, ny, nx), and on finer ones or None; float32."""

    coarse: np.ndarray
    fine: np.ndarray | None = None


def of_image(image: NDData) -> Shown:
    """The image alone."""
    data = _data(image)
    light, detail = data / _peak(image), data - gaussian_filter(data, _SMOOTHED, mode="nearest")
    return Shown(np.stack([light, _compressed(light), np.arcsinh(detail / _sigma(image))]).astype(np.float32))


def check_finer(image: NDData, result: SuperResolution, factor: int) -> None:
    """Refuse a result of which nothing can be shown.

    Raises
    ------
    ValueError
        Where image or convergence are on other pixels, or not finite, or are those of bands.
    """
    if isinstance(result.image, Mapping):
        raise ValueError(f"the result has the bands {', '.join(result.image)}, the image had none")
    shape = tuple(n * factor for n in image.data.shape)
    for name, found in (("image", result.image), ("convergence", result.convergence)):
        if found is not None and found.data.shape != shape:
            raise ValueError(f"the {name} of the result has shape {found.data.shape}, not {shape}")
        if found is not None and not np.isfinite(found.data).all():
            raise ValueError(f"the {name} of the result has values that are not finite")


def of_finer(images: Sequence[NDData], results: Sequence[SuperResolution | None], factor: int) -> list[Shown]:
    """Images of one grid with what a method made of each, or zeros where that is None."""
    smooth = _smooth_convergence(results)
    return [_of_one(image, result, factor, mass) for image, result, mass in zip(images, results, smooth)]


def _of_one(image: NDData, result: SuperResolution | None, factor: int, smooth: np.ndarray | None) -> Shown:
    own, (ny, nx) = of_image(image).coarse, image.data.shape
    shape = ny * factor, nx * factor
    if result is None:
        return Shown(np.concatenate([own, np.zeros((2, ny, nx), np.float32)]), np.zeros((1, *shape), np.float32))
    finer = _data(result.image)
    left = np.arcsinh((_data(image) - _gathered(finer, factor)) / _sigma(image))
    more = np.zeros((ny, nx))
    if smooth is not None:
        more = np.arcsinh(_gathered(_data(result.convergence) - smooth, factor) / factor**2 / _CONVERGENCE)
    maps = np.stack([left, more]).astype(np.float32)
    light = finer * factor**2 / _peak(image)
    return Shown(np.concatenate([own, maps]), _compressed(light)[None].astype(np.float32))


def _smooth_convergence(results: Sequence[SuperResolution | None]) -> list[np.ndarray | None]:
    """On the finer pixels, of those that tell a convergence and a lens."""
    import torch

    from lensdeblend.lensing.finer_images import FinerLens

    told = [
        index for index, result in enumerate(results)
        if result is not None and result.convergence is not None and result.parameters is not None
        and all(name in result.parameters.colnames for name in LENS_UNITS)
    ]
    maps: list[np.ndarray | None] = [None] * len(results)
    if told:
        first = results[told[0]].convergence
        lenses = torch.tensor([
            [
                u.Quantity(results[index].parameters[name][0]).to_value(unit) for name, unit in LENS_UNITS.items()
            ] for index in told
        ], dtype=torch.float64)
        with torch.no_grad():
            lens = FinerLens(first.data.shape, pixel_scale(first).to_value(u.arcsec), supersampling=1)
            for index, one in zip(told, lens.convergence(lenses.float())):
                maps[index] = one.double().numpy()
    return maps


def _data(image: NDData) -> np.ndarray:
    return np.asarray(image.data, dtype=float)


def _peak(image: NDData) -> float:
    return max(float(_data(image).max()), 1e-300)


def _sigma(image: NDData) -> np.ndarray:
    return np.sqrt(image.uncertainty.represent_as(VarianceUncertainty).array)


def _compressed(light: np.ndarray) -> np.ndarray:
    return np.arcsinh(light / _FAINT) / 3


def _gathered(data: np.ndarray, factor: int) -> np.ndarray:
    ny, nx = (n // factor for n in data.shape)
    return data.reshape(ny, factor, nx, factor).sum((1, 3))
