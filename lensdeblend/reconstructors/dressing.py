"""From a fit in plain tensors to a `Reconstruction` on the sky."""

from __future__ import annotations

from dataclasses import replace

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData, VarianceUncertainty
from torch import Tensor

from lensdeblend.images import like, on_grid, pixel_scale
from lensdeblend.lensing.banded import BandedLens
from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.parametric import SersicLens
from lensdeblend.lensing.sersic import sersic
from lensdeblend.lensing.subdivision import PixelGrid, Subdivision, refine
from lensdeblend.reconstructors.curves import curves_table
from lensdeblend.reconstructors.fitting import LensFit, finest_division, is_good
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.numbers import Numbers
from lensdeblend.reconstructors.unlensed import sees_lens
from lensdeblend.reconstructors.view import View
from lensdeblend.results import Reconstruction

__all__ = ["at_bounds", "bound_flags", "dress", "held_against", "seen_images"]

_SOURCE_PIXELS_A_SIDE = (41, 201)


def dress(view: View, fit: LensFit, samples: np.ndarray | None) -> Reconstruction:
    """Put the fit into NDData on the input's grid, and its numbers into tables."""
    numbers = Numbers.of(fit.model)
    values, spread = numbers.best(fit)
    images = seen_images(view, fit)
    good = view.used
    return Reconstruction(
        **images,
        parameters=numbers.table(values, spread, view.given.unit),
        covariance=spread,
        samples=None if samples is None else numbers.samples(samples, view.given.unit),
        chi2=float(np.sum(images["residual"].data[good] ** 2) / max(fit.degrees_of_freedom, 1)),
        flags=_flags(view.frame, fit),
        curves=curves_table(fit.parameters[:8].numpy()),
        meta={
            "sources": fit.model.sources,
            "lens_lights": fit.model.lens_lights,
            "degrees_of_freedom": fit.degrees_of_freedom,
            **view.notes,
        },
    )


def seen_images(view: View, fit: LensFit, unlensed_parameters: Tensor | None = None) -> dict[str, NDData | None]:
    """The images of a `Reconstruction` by field, on the view's grid.

    ``unlensed_parameters`` are those of ``fit`` but for the places of the sources, where another image says what an
    undeflected ray is.
    """
    image = view.image
    components = _components_on_image(image, view.frame, fit)
    lights = components[fit.model.sources:]
    bare = fit if unlensed_parameters is None else replace(fit, parameters=unlensed_parameters)
    return {
        "source": _source_plane(image, bare),
        "unlensed": like(image, _unlensed(image, bare)),
        "lens_light": like(image, lights.sum(0)) if len(lights) else None,
        **held_against(view, components.sum(0)),
    }


def held_against(view: View, model: np.ndarray) -> dict[str, NDData]:
    """The ``model`` of the image less its sky, the residual, and the image with the noise that the model makes."""
    given, image = view.given, view.image
    variance = image.uncertainty if view.noise is None else VarianceUncertainty(view.noise.sigma(model) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = np.where(view.used, (image.data - model) / np.sqrt(variance.array), 0.0)
    return {
        "model": like(given, model + view.sky),
        "residual": like(image, residual, unit=u.dimensionless_unscaled, mask=image.mask, psf=None),
        "image": like(given, given.data, uncertainty=variance, mask=image.mask, meta=given.meta),
    }


def _components_on_image(image: NDData, frame: Frame, fit: LensFit) -> np.ndarray:
    """Each component with its flux on the whole image, through the PSF: (K, ny, nx)."""
    grid = PixelGrid(image.data.shape, frame.grid.scale, frame.grid.border)
    parameters = fit.parameters[None]
    if frame.grid.shape == grid.shape and bool(frame.used.all()):
        return (fit.amplitudes[:, None, None] * fit.lens.images(parameters)[0]).numpy()

    def brightness(x: Tensor, y: Tensor) -> Tensor:
        return fit.amplitudes[:, None] * fit.model.brightness(parameters, x, y)[0] * grid.scale**2

    least = max(0.01 * float(frame.sigma[frame.used].median()), finest_division(frame))
    tolerance = torch.full((grid.size,), least, dtype=torch.float64)
    seen = refine(grid, brightness, tolerance).render(brightness)
    if frame.kernel is None:
        return seen.numpy()
    return Convolution(frame.kernel, grid.shape, grid.border)(seen).numpy()


def _sources_light(fit: LensFit, x: Tensor, y: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for k in range(fit.model.sources):
        cx, cy, log_radius, log_n, e1, e2 = fit.parameters[fit.model.light_columns(k)]
        total = total + fit.amplitudes[k] * sersic(x, y, log_radius.exp(), log_n.exp(), e1, e2, cx, cy)
    return total


def _pixelated(fit: LensFit, grid: PixelGrid, share: float = 1e-3) -> np.ndarray:
    """The unlensed sources, flux a pixel, on ``grid``, border included."""

    def brightness(x: Tensor, y: Tensor) -> Tensor:
        return _sources_light(fit, x, y) * grid.scale**2

    rough = Subdivision.uniform(grid, 2).render(brightness)
    tolerance = torch.full((grid.size,), max(float(rough.max()) * share, 1e-300), dtype=torch.float64)
    return refine(grid, brightness, tolerance).render(brightness).numpy()


def _unlensed(image: NDData, fit: LensFit) -> np.ndarray:
    scale = pixel_scale(image).to_value(u.arcsec)
    if image.psf is None:
        return _pixelated(fit, PixelGrid(image.data.shape, scale))
    border = max(image.psf.shape) // 2
    seen = torch.as_tensor(_pixelated(fit, PixelGrid(image.data.shape, scale, border)))
    return Convolution(torch.as_tensor(np.asarray(image.psf, dtype=float)), image.data.shape, border)(seen).numpy()


def _source_plane(image: NDData, fit: LensFit) -> NDData:
    """The sources on their own grid: four half-light radii to each side; pixels a quarter of the image's, finer for
    sources below 41 of these, coarser for those beyond 201."""
    scale = pixel_scale(image).to_value(u.arcsec)
    sources = [fit.parameters[fit.model.light_columns(k)] for k in range(fit.model.sources)]
    brightest = int(fit.amplitudes[:fit.model.sources].argmax())
    centre = tuple(float(v) for v in sources[brightest][:2])
    reach = 4 * max(float(s[2].exp()) for s in sources)
    side = 2 * min(reach, 0.5 * max(image.data.shape) * scale)
    fewest, most = _SOURCE_PIXELS_A_SIDE
    count = int(np.clip(np.ceil(side / (scale / 4)), fewest, most)) | 1
    fine = min(side / count, scale)
    plane = _pixelated(fit, PixelGrid((count, count), fine, 0, centre))
    return on_grid(image, plane, pixel_scale=fine * u.arcsec, offset=centre * u.arcsec)


def _flags(frame: Frame, fit: LensFit) -> tuple[str, ...]:
    flags = []
    if not sees_lens(frame, fit):
        flags.append("no lens seen")
    if not fit.converged:
        flags.append("not converged")
    if not is_good(fit):
        flags.append("poor fit")
    if fit.reduced_chi2 < 1 - 3 * np.sqrt(2 / fit.degrees_of_freedom):
        flags.append("noise overstated")
    if not bool((fit.amplitudes[:fit.model.sources] > 0).any()):
        flags.append("no source")
    return (*flags, *at_bounds(fit))


def at_bounds(fit: LensFit) -> list[str]:
    """A flag for each parameter that ended on the edge of its range."""
    return bound_flags(fit.model, (fit.parameters <= fit.lower) | (fit.parameters >= fit.upper))


def bound_flags(model: SersicLens | BandedLens, outside: Tensor) -> list[str]:
    """The same for those parameters of ``model`` that ``outside`` marks."""
    numbers = Numbers.of(model)
    return [
        f"at a bound: {name}" for name, place in zip(numbers.names, numbers.places)
        if place < len(outside) and outside[place]
    ]
