"""From lenstronomy's best fit and chain to a `~lensdeblend.results.Reconstruction`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.nddata import NDData
from astropy.table import QTable
from scipy.signal import fftconvolve

from lensdeblend.images import like, on_grid, pixel_scale
from lensdeblend.lensing.parametric import LENS_NAMES
from lensdeblend.lensing.subdivision import PixelGrid
from lensdeblend.reconstructors.curves import curves_table
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.lenstronomy_model import LENS, LIGHT, SOURCE, LenstronomyModel, Values, borders, padded
from lensdeblend.reconstructors.neighbours import LensRegion
from lensdeblend.results import Reconstruction
from lensdeblend.simulators.subdivision import average_over_pixels

__all__ = ["Chain", "PeerFit", "dressed"]

_ANGLES = {"theta_E", "center_x", "center_y", "x", "y", "radius", "beta"}
_SOURCE_PIXELS_A_SIDE = (41, 201)
_PRECISION = 1e-3
_FEWEST_SHOWN = 20
# Of the way between its bounds: a swarm comes close to a bound, not onto it.
_AT_A_BOUND = 1e-3
# emcee's own rule for a chain whose autocorrelation time can be told.
_LONG_ENOUGH = 50


@dataclass(frozen=True)
class Chain:
    """Positions (steps, walkers, parameters) of emcee's walkers, and how lenstronomy reads one of them."""

    points: np.ndarray
    to_values: Callable[[np.ndarray], Values]

    @property
    def autocorrelation(self) -> float:
        """Steps between independent ones, for the slowest parameter; NaN where a parameter never moved."""
        from emcee.autocorr import integrated_time

        return float(np.max(integrated_time(self.points, tol=0)))

    def thinned(self, most: int) -> list[Values]:
        """At most so many positions, evenly spaced along the chain."""
        flat = self.points.reshape(-1, self.points.shape[-1])
        chosen = np.unique(np.linspace(0, len(flat) - 1, min(most, len(flat))).round().astype(int))
        return [self.to_values(point) for point in flat[chosen]]


@dataclass(frozen=True)
class PeerFit:
    """Best values in a frame whose data are in units of ``unit``, the median noise; ``settled`` where the search had
    ended."""

    model: LenstronomyModel
    frame: Frame
    unit: float
    values: Values
    lower: Values
    upper: Values
    settled: bool
    chain: Chain | None

    def at_bounds(self) -> list[str]:
        """Names of the parameters that ended at a bound."""
        values, lower, upper = (self.model.fitted(part) for part in (self.values, self.lower, self.upper))
        margin = {name: _AT_A_BOUND * (upper[name] - lower[name]) for name in values}
        return [
            name for name, value in values.items()
            if not lower[name] + margin[name] < value < upper[name] - margin[name]
        ]


def dressed(
    image: NDData, lens: NDData, region: LensRegion | None, fit: PeerFit, supersampling: int, most: int,
    rng: np.random.Generator,
) -> Reconstruction:
    """Put the fit on the grid of ``image``; ``lens`` is the same without its sky and its neighbours."""
    model, frame = fit.model, fit.frame
    solver = model.simulator(*padded(frame), supersampling)
    amplitudes, _ = _solved(solver, fit.values)
    values = model.with_amplitudes(fit.values, amplitudes * fit.unit)
    components = _on_image(lens, frame, model, values, supersampling)
    sky = 0.0 if region is None else region.sky
    good = ~_masked(lens)
    seen = components.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = np.sqrt(lens.uncertainty.array)
        residual = np.where(good, (lens.data - seen) / sigma, 0.0)
    freedom = int(good.sum()) - model.count
    chi2 = float(np.sum(residual[good] ** 2) / max(freedom, 1))
    names = model.names
    numbers = model.numbers(values)
    draws = covariance = None
    meta = {
        "source": model.source, "lens_lights": model.lens_lights, "degrees_of_freedom": freedom,
        "variance": "as given",
    }
    flags = [] if fit.settled else ["not converged"]
    if fit.chain is not None:
        rows = np.array([_drawn(solver, model, point, fit.unit, rng) for point in fit.chain.thinned(most)])
        draws = QTable({name: _column(column, _unit(name, image)) for name, column in zip(names, rows.T)})
        covariance = np.cov(rows, rowvar=False)
        steps = fit.chain.autocorrelation
        if np.isfinite(steps):
            meta["autocorrelation_steps"] = steps
        if not len(fit.chain.points) >= _LONG_ENOUGH * steps:
            flags.append("short chain")
    errors = np.full(len(names), np.nan) if covariance is None else np.sqrt(np.diag(covariance))
    parameters = QTable()
    for index, name in enumerate(names):
        parameters[name] = _column(numbers[index:index + 1], _unit(name, image))
        parameters[f"{name}_err"] = _column(errors[index:index + 1], _unit(name, image))
    if not _is_good(residual[good], (components[0] > 2 * sigma)[good], chi2, freedom):
        flags.append("poor fit")
    if chi2 < 1 - 3 * np.sqrt(2 / max(freedom, 1)):
        flags.append("noise overstated")
    if not numbers[names.index("source_flux")] > 0:
        flags.append("no source")
    flags += [f"at a bound: {name}" for name in fit.at_bounds()]
    fitted = lens
    if region is not None:
        fitted = like(image, image.data, uncertainty=image.uncertainty, mask=region.mask, meta=image.meta)
        meta |= {"radius": region.radius, "sky": region.sky}
    return Reconstruction(
        source=_source_plane(image, model, values),
        unlensed=like(image, _unlensed(image, model, values)),
        parameters=parameters,
        covariance=covariance,
        samples=draws,
        model=like(image, seen + sky),
        residual=like(image, residual, unit=u.dimensionless_unscaled, mask=lens.mask, psf=None),
        lens_light=like(image, components[1]) if model.lens_lights else None,
        chi2=chi2,
        flags=tuple(flags),
        curves=curves_table(numbers[:len(LENS_NAMES)]),
        image=fitted,
        meta=meta,
    )


def _masked(image: NDData) -> np.ndarray:
    return np.zeros(image.data.shape, bool) if image.mask is None else image.mask


def _solved(solver, values: Values) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes that fit best at ``values``, and their covariance."""
    _, _, covariance, amplitudes = solver.image_linear_solve(**_copied(values), inv_bool=True)
    return amplitudes, covariance


def _drawn(solver, model: LenstronomyModel, values: Values, unit: float, rng: np.random.Generator) -> np.ndarray:
    """The numbers of one point of the chain, with amplitudes drawn from their normal distribution there."""
    values = {group: values[group] for group in (LENS, SOURCE, LIGHT)}
    amplitudes, covariance = _solved(solver, values)
    drawn = rng.multivariate_normal(amplitudes, covariance, method="eigh")
    return model.numbers(model.with_amplitudes(values, drawn * unit))


def _copied(values: Values) -> Values:
    """lenstronomy writes amplitudes into what it is given."""
    return {group: [dict(own) for own in values[group]] for group in values}


def _on_image(
    image: NDData, frame: Frame, model: LenstronomyModel, values: Values, supersampling: int
) -> np.ndarray:
    """The lensed source and the lens light on the whole image, through the PSF: (2, ny, nx)."""
    grid = PixelGrid(image.data.shape, frame.grid.scale, frame.grid.border)
    pads, centre = borders(grid)
    blank = np.ones([before + length + after for length, (before, after) in zip(grid.shape, pads)])
    kernel = None if image.psf is None else np.asarray(image.psf, dtype=float)
    simulator = model.simulator(blank, blank, blank > 0, kernel, grid.scale, centre, supersampling)
    both = [
        simulator.image(**_copied(values), source_add=source, lens_light_add=not source, point_source_add=False)
        for source in (True, False)
    ]
    (top, _), (left, _) = pads
    return np.stack(both)[:, top:top + grid.shape[0], left:left + grid.shape[1]]


def _source_plane(image: NDData, model: LenstronomyModel, values: Values) -> NDData:
    """The source on its own grid: pixels a quarter of the image's, finer for a small source, coarser for a large."""
    scale = pixel_scale(image).to_value(u.arcsec)
    side = 2 * min(model.extent(values), 0.5 * max(image.data.shape) * scale)
    count = int(np.clip(np.ceil(side / (scale / 4)), *_SOURCE_PIXELS_A_SIDE)) | 1
    fine = min(side / count, scale)
    centre = tuple(values[SOURCE][0][name] for name in ("center_x", "center_y"))
    plane = _pixels(model, values, (count, count), fine, centre)
    return on_grid(image, plane, pixel_scale=fine * u.arcsec, offset=centre * u.arcsec)


def _unlensed(image: NDData, model: LenstronomyModel, values: Values) -> np.ndarray:
    scale = pixel_scale(image).to_value(u.arcsec)
    if image.psf is None:
        return _pixels(model, values, image.data.shape, scale)
    psf = np.asarray(image.psf, dtype=float)
    rows, columns = (2 * (length // 2) for length in psf.shape)
    shape = image.data.shape[0] + rows, image.data.shape[1] + columns
    return fftconvolve(_pixels(model, values, shape, scale), psf, mode="valid")


def _pixels(model: LenstronomyModel, values: Values, shape, scale: float, centre=(0.0, 0.0)) -> np.ndarray:
    """The unlensed source before the PSF, flux a pixel."""
    average = average_over_pixels(
        model.source_brightness(values), shape, scale, subdivision=2, precision=_PRECISION, center=centre
    )
    return average[0] * scale**2


def _is_good(residual: np.ndarray, shown: np.ndarray, chi2: float, freedom: int) -> bool:
    """Whether chi-square lies within three sigma of 1 or below, over all pixels and where the source shows."""
    if chi2 > 1 + 3 * np.sqrt(2 / max(freedom, 1)):
        return False
    count = int(shown.sum())
    return count < _FEWEST_SHOWN or float((residual[shown] ** 2).mean()) < 1 + 3 * np.sqrt(2 / count)


def _unit(name: str, image: NDData):
    short = name if name in LENS_NAMES else name.rsplit("_", 1)[1]
    if short == "flux":
        return image.unit if image.unit is not None else u.dimensionless_unscaled
    return u.arcsec if short in _ANGLES else u.dimensionless_unscaled


def _column(values: np.ndarray, unit) -> np.ndarray | u.Quantity:
    return values if unit == u.dimensionless_unscaled else u.Quantity(values, unit)
