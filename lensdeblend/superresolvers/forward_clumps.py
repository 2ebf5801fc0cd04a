"""Substructure beside a lens that a reconstructor has fitted."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData, VarianceUncertainty
from astropy.table import QTable

from lensdeblend.images import like, pixel_scale
from lensdeblend.lensing.parametric import SersicLens
from lensdeblend.lensing.substructure import LensPrior
from lensdeblend.lensing.subdivision import PixelGrid, Subdivision
from lensdeblend.results import Reconstruction, SuperResolution, panels
from lensdeblend.superresolvers.clumpy import SPREAD, ClumpyLens
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.fitted import FittedLens
from lensdeblend.superresolvers.leftover import left_by

__all__ = ["APART", "rebinned", "with_substructure"]

# In sigma of a pixel of the data: from here on the fine image tells something else than the fit.
APART = 1.0
# In errors of the smooth fit, at least: so loose that the data hardly count twice. Where it is poor, as many as the
# residuals are sigmas: looser still, slope and source would give way together, as a sheet of mass lets them.
_HELD = 3.0
_LEAST_SPREAD = 1e-6
_SOURCE_POINTS = 4


def with_substructure(
    pixels: FinePixels, found: Reconstruction, rng: np.random.Generator, leftover: bool
) -> SuperResolution:
    """Fit cells of convergence to the image as it was fitted, lens and profiles from there on; draw all of it.

    Raises
    ------
    ValueError
        Where the source is not told by Sérsic profiles, or nothing by errors.
    """
    told = FittedLens.of(found, pixels.image.unit)
    if not told.model.sources:
        raise ValueError(
            "substructure is looked for behind which Sérsic sources shine, and the reconstruction has none: choose the "
            "reconstructor 'forward', or leave substructure out"
        )
    if told.covariance is None:
        raise ValueError(
            "substructure is looked for within the errors of the lens, and the reconstruction has none: choose the "
            "reconstructor 'forward', or leave substructure out"
        )
    count = len(told.parameters)
    spread = told.covariance.diagonal()[:count].sqrt() * max(_HELD, found.chi2**0.5)
    prior = LensPrior(told.parameters, spread.clamp_min(_LEAST_SPREAD), SPREAD)
    sky = float(found.meta.get("sky", 0.0))
    clumpy = ClumpyLens.fitted(found.image, told.model, told.parameters, told.fluxes, prior, sky)
    kernel = pixels.psf()
    maps = clumpy.maps(pixels, kernel, rng)
    level = sky / pixels.factor**2
    model = clumpy.seen(found.image) + sky
    apart = rebinned(pixels, maps.values["image"] + level, model, found.image)
    left = left_by(model, FinePixels(found.image, pixels.factor)) if leftover else 0.0

    def on_sky(name: str, more: float | np.ndarray = 0.0, **fields) -> NDData:
        return pixels.dressed(maps.values[name] + more, uncertainty=VarianceUncertainty(maps.variances[name]), **fields)

    one = u.dimensionless_unscaled
    flags = [flag for flag in found.flags if flag not in ("poor fit", "not converged")]
    flags += ["poor fit"] * clumpy.is_poor + ["finer pixels depart from the fit"] * (apart > APART)
    return SuperResolution(
        image=on_sky("image", level + left, psf=kernel), intrinsic=on_sky("intrinsic", level),
        source=_source(found.source, pixels.image, clumpy),
        deflection=tuple(on_sky(f"deflection_{axis}", unit=u.arcsec) for axis in "xy"),
        convergence=on_sky("convergence", unit=one), magnification=on_sky("magnification", unit=one),
        substructure=on_sky("substructure", unit=one), parameters=_table(found.parameters, told, clumpy),
        chi2=clumpy.reduced_chi2, flags=tuple(flags), meta={**found.meta, **clumpy.notes, "rebinned": apart},
    )


def rebinned(pixels: FinePixels, fine: np.ndarray, model: np.ndarray, image: NDData) -> float:
    """How far, in sigma of the worst pixel, a fine image is from the ``model`` on the pixels of the data."""
    noise = np.sqrt(image.uncertainty.array)
    good = np.isfinite(noise) if image.mask is None else np.isfinite(noise) & ~image.mask
    return float((np.abs(pixels.gathered(fine) - model)[good] / noise[good]).max())


def _table(table: QTable, told: FittedLens, clumpy: ClumpyLens) -> QTable:
    """The same parameters with their new values and errors."""
    result = table.copy()
    values = torch.cat([clumpy.fit.parameters, clumpy.fit.fluxes]).numpy()
    for (name, logarithmic), value, error in zip(told.columns, values, clumpy.errors):
        if logarithmic:
            value = np.exp(value)
            error = error * value
        unit = getattr(result[name], "unit", None) or 1
        result[name], result[f"{name}_err"] = [value] * unit, [error] * unit
    return result


def _source(source: NDData, image: NDData, clumpy: ClumpyLens) -> NDData:
    """The sources as they are now, on the pixels of the smooth fit's ``source``."""
    # Without a lens, that is as lens light.
    light = SersicLens(0, clumpy.model.sources)
    scale = pixel_scale(source).to_value(u.arcsec)
    grid = PixelGrid(source.data.shape, scale, 0, panels.Frame.of(source, image).center)
    parameters, fluxes = clumpy.fit.parameters[None, :len(light.names)], clumpy.fit.fluxes[:light.components]
    points = Subdivision.uniform(grid, _SOURCE_POINTS)
    drawn = points.render(lambda x, y: fluxes @ light.brightness(parameters, x, y)[0]) * scale**2
    return like(source, drawn.numpy(), meta=source.meta)
