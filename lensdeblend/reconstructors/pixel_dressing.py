"""From a pixelated fit in plain tensors to a `Reconstruction` on the sky."""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData, VarianceUncertainty
from astropy.table import QTable
from torch import Tensor

from lensdeblend.images import like, on_grid
from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.inversion import trace_back
from lensdeblend.lensing.parametric import LENS_NAMES
from lensdeblend.lensing.subdivision import PixelGrid, Subdivision
from lensdeblend.reconstructors.curves import curves_table
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.inverting import PixelFit
from lensdeblend.reconstructors.pixel_start import PixelStart
from lensdeblend.results import Reconstruction

__all__ = ["dress_pixels", "model_in_frame"]

_ANGLES = {"theta_E", "center_x", "center_y", "x", "y", "radius"}
_MOST_SOURCE_PIXELS = 161
# Residuals are called coloured where the sum over neighbours is this many of its standard deviations off.
_COLOURED = 4.0


@dataclass(frozen=True)
class Quality:
    """How well a fit does, in numbers that would scatter about 0 with standard deviation 1.

    ``chi`` is the chi-square's excess over its degrees of freedom; ``colour`` the sum of products of neighbouring
    residuals beyond what the fitted source leaves of white noise.
    """

    degrees_of_freedom: float
    chi2: float
    chi: float
    colour: float
    autocorrelation: float


def quality(frame: Frame, fit: PixelFit) -> Quality:
    """Degrees of freedom are pixels less what the data determine of source and lens (Suyu et al. 2006)."""
    covariance = fit.solution.covariance
    determined = len(fit.source) - fit.solution.strength * float((covariance * fit.problem.precision.cpu()).sum())
    freedom = len(fit.residual) - determined - int(fit.problem.free.sum()) - len(fit.amplitudes)
    freedom = max(freedom, 1.0)
    whole = torch.full(frame.grid.shape, torch.nan, dtype=torch.float64).reshape(-1)
    used = torch.nonzero(frame.used.reshape(-1)).reshape(-1)
    whole[used] = fit.residual
    index = torch.full((len(whole),), -1)
    index[used[fit.mapped.rows]] = torch.arange(len(fit.mapped.rows))
    times_inverse = fit.mapped.matrix @ covariance
    ny, nx = frame.grid.shape
    whole, index = whole.reshape(ny, nx), index.reshape(ny, nx)
    total, count, expected = 0.0, 0, 0.0
    for here, there in (
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
    ):
        products = (whole[here] * whole[there]).reshape(-1)
        good = torch.isfinite(products)
        total, count = total + float(products[good].sum()), count + int(good.sum())
        one, other = index[here].reshape(-1), index[there].reshape(-1)
        both = (one >= 0) & (other >= 0)
        expected -= float((times_inverse[one[both]] * fit.mapped.matrix[other[both]]).sum())
    chi2 = fit.chi2 / freedom
    return Quality(
        freedom, chi2, (chi2 - 1) / np.sqrt(2 / freedom), (total - expected) / np.sqrt(max(count, 1)),
        total / max(fit.chi2, 1e-300) * len(fit.residual) / max(count, 1),
    )


def model_in_frame(frame: Frame, fit: PixelFit) -> Tensor:
    """Source and lens light (ny, nx) in the frame that was fitted, in its unit."""
    model = torch.zeros(frame.grid.shape, dtype=torch.float64).reshape(-1)
    used = frame.used.reshape(-1)
    model[used] = (frame.weighted_data - fit.residual) * frame.sigma.reshape(-1)[used]
    return model.reshape(frame.grid.shape)


def dress_pixels(
    image: NDData, frame: Frame, start: PixelStart, fit: PixelFit, rng: np.random.Generator, samples: int
) -> Reconstruction:
    """Put the fit into NDData on the grid of ``image``, and its numbers into tables."""
    scale = frame.grid.scale
    good = np.ones(image.data.shape, bool) if image.mask is None else ~image.mask
    lights = _lights_on_image(image, frame, fit)
    lensed = _on_image(image, lambda x, y: _lensed(fit, x, y), scale)
    model = lensed + (0 if lights is None else lights)
    variance = np.array(image.uncertainty.array)
    if start.noise is not None:
        variance = start.noise.sigma(model) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = np.where(good, (image.data - model) / np.sqrt(variance), 0.0)
    judged = quality(frame, fit)
    names, values, spread, draws = _numbers(fit, samples, rng)
    parameters = QTable()
    for index, name in enumerate(names):
        unit = _unit(name, image)
        parameters[name] = _column(values[index:index + 1], unit)
        parameters[f"{name}_err"] = _column(np.sqrt(spread[index:index + 1, index]), unit)
    meta = {
        "source_pixels": len(fit.source), "strength": float(fit.solution.strength),
        "log_evidence": float(-fit.objective / 2), "degrees_of_freedom": float(judged.degrees_of_freedom),
        "autocorrelation": float(judged.autocorrelation), "colour": float(judged.colour),
        "lens_lights": fit.problem.lights.model.lens_lights,
        "variance": "as given" if start.noise is None else
        f"{start.noise.background:.6g} + {start.noise.per_count:.6g} * model",
    }
    if start.radius is not None:
        meta |= {"radius": start.radius, "sky": start.sky}
    image = like(
        image, image.data + start.sky, uncertainty=VarianceUncertainty(variance), mask=image.mask, meta=image.meta
    )
    return Reconstruction(
        source=_source_plane(image, fit, scale),
        unlensed=like(image, _on_image(image, lambda x, y: _unlensed(fit, x, y), scale)),
        parameters=parameters,
        covariance=spread,
        samples=QTable({n: _column(c, _unit(n, image)) for n, c in zip(names, draws.T)}) if samples else None,
        model=like(image, model + start.sky),
        residual=like(image, residual, unit=u.dimensionless_unscaled, mask=image.mask, psf=None),
        lens_light=None if lights is None else like(image, lights),
        chi2=judged.chi2,
        flags=(*start.flags, *_flags(fit, judged)),
        curves=curves_table(fit.parameters[:8]),
        image=image,
        meta=meta,
    )


def _in_frame(fit: PixelFit, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    centre, matrix = fit.problem.mapping.frame.at(fit.parameters[:8])
    in_x, in_y = matrix @ (torch.stack([x, y]) - centre[:, None])
    return in_x, in_y


def _unlensed(fit: PixelFit, x: Tensor, y: Tensor) -> Tensor:
    """Surface brightness of the source at points of the source plane."""
    return fit.problem.mapping.grid.interpolate(*_in_frame(fit, x, y)).values(fit.source)


def _lensed(fit: PixelFit, x: Tensor, y: Tensor) -> Tensor:
    beta_x, beta_y, _ = trace_back(x, y, fit.parameters[:8])
    return _unlensed(fit, beta_x, beta_y)


def _on_image(image: NDData, brightness, scale: float, points: int = 3) -> np.ndarray:
    """Flux a pixel on the whole image, through the PSF."""
    border = 0 if image.psf is None else max(image.psf.shape) // 2
    grid = PixelGrid(image.data.shape, scale, border)
    pixels = Subdivision.uniform(grid, points).render(brightness) * scale**2
    if image.psf is None:
        return pixels.numpy()
    return Convolution(torch.as_tensor(np.asarray(image.psf, dtype=float)), grid.shape, border)(pixels).numpy()


def _lights_on_image(image: NDData, frame: Frame, fit: PixelFit) -> np.ndarray | None:
    model = fit.problem.lights.model
    if not model.lens_lights:
        return None

    def brightness(x: Tensor, y: Tensor) -> Tensor:
        return fit.amplitudes @ model.brightness(fit.parameters[None], x, y)[0]

    return _on_image(image, brightness, frame.grid.scale, 4)


def _source_plane(image: NDData, fit: PixelFit, image_scale: float) -> NDData:
    """The source on a regular grid on the sky that holds all of its own, with the variance of each pixel."""
    own = fit.problem.mapping.grid
    centre, matrix = fit.problem.mapping.frame.at(fit.parameters[:8])
    back = torch.linalg.inv(matrix)
    half = float((back @ torch.stack([own.x, own.y])).abs().max())
    middle = tuple(centre.tolist())
    spacing = float((own.area.median() * torch.linalg.det(back).abs()).sqrt())
    fine = min(max(min(spacing, image_scale / 2), 2 * half / _MOST_SOURCE_PIXELS), image_scale)
    count = int(np.ceil(2 * half / fine)) + 2 | 1
    grid = PixelGrid((count, count), fine, 0, middle)
    x, y = grid.centres()
    points = own.interpolate(*_in_frame(fit, x, y))
    reading = points.matrix(len(own)).multiply(fit.problem.mapping.scaling.numpy()).tocsr()
    read = torch.as_tensor(reading @ fit.solution.covariance.numpy())
    spread = torch.as_tensor(np.asarray(reading.multiply(read.numpy()).sum(1)).ravel())
    moved = _movement(fit, x, y, points) + torch.as_tensor(reading @ fit.follow.numpy()).T
    both = parameter_covariance(fit)
    spread = spread + (moved * (both @ moved)).sum(0)
    values = points.values(fit.source)
    return on_grid(
        image, (values * fine**2).reshape(count, count).numpy(), pixel_scale=fine * u.arcsec,
        offset=middle * u.arcsec,
        uncertainty=VarianceUncertainty((spread * fine**4).clamp_min(0).reshape(count, count).numpy()),
    )


def _movement(fit: PixelFit, x: Tensor, y: Tensor, points) -> Tensor:
    """How the light at fixed points of the source plane changes as the frame moves with the lens: (parameters and
    amplitudes, points)."""
    frame = fit.problem.mapping.frame
    still = [(torch.zeros_like(x), torch.zeros_like(x))] * 8
    _, _, moves = frame(x, y, still, fit.parameters[:8])
    along_x, along_y = points.slopes(fit.source)
    change = x.new_zeros(len(fit.normal), len(x))
    change[:8] = torch.stack([along_x * a + along_y * b for a, b in moves])
    return change


def parameter_covariance(fit: PixelFit) -> Tensor:
    """Of parameters and amplitudes, the source marginalised; zero for what is held or lies at a bound."""
    inside = (fit.parameters > fit.problem.lower) & (fit.parameters < fit.problem.upper)
    free = torch.cat([fit.problem.free & inside, fit.amplitudes > 0])
    index = torch.nonzero(free).reshape(-1)
    result = torch.zeros_like(fit.normal)
    if not len(index):
        return result
    scale = fit.normal.diagonal()[index].clamp_min(1e-300).rsqrt()
    values, vectors = torch.linalg.eigh(fit.normal[index][:, index] * scale[:, None] * scale)
    inverse = vectors @ torch.diag(1 / values.clamp_min(1e-9)) @ vectors.T
    result[index[:, None], index] = inverse * scale[:, None] * scale
    return result


def _numbers(fit: PixelFit, samples: int, rng) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Names, values, covariance (NaN for what was held) and samples of the natural parameters."""
    model = fit.problem.lights.model
    size = len(fit.parameters)
    names = list(LENS_NAMES)
    for k in range(model.lens_lights):
        prefix = "light" if model.lens_lights == 1 else f"light{k + 1}"
        names += [f"{prefix}_{n}" for n in ("x", "y", "radius", "n", "e1", "e2", "flux")]

    def natural(points: Tensor) -> tuple[Tensor, Tensor]:
        """Natural parameters and their derivatives by their own column."""
        columns, slopes = [points[:, :8]], [torch.ones(8)]
        for k in range(model.lens_lights):
            own = points[:, model.light_columns(k)]
            columns += [own[:, :2], own[:, 2:4].exp(), own[:, 4:], points[:, size + k:size + k + 1]]
            slopes += [torch.ones(2), own[0, 2:4].exp(), torch.ones(3)]
        return torch.cat(columns, 1), torch.cat(slopes).double()

    order = list(range(8))
    for k in range(model.lens_lights):
        columns = model.light_columns(k)
        order += [*range(columns.start, columns.stop), size + k]
    best = torch.cat([fit.parameters, fit.amplitudes])
    inner = parameter_covariance(fit)
    values, slope = natural(best[None])
    spread = (inner[order][:, order] * slope[:, None] * slope).numpy()
    held = np.diag(spread) <= 0
    draws = np.zeros((0, len(names)))
    if samples:
        scales, vectors = torch.linalg.eigh(inner)
        root = (vectors * scales.clamp_min(0).sqrt()).T
        points = best + torch.as_tensor(rng.standard_normal((samples, len(best)))) @ root
        points[:, :size] = torch.minimum(torch.maximum(points[:, :size], fit.problem.lower), fit.problem.upper)
        draws = natural(points)[0].numpy()
    spread = (spread + spread.T) / 2
    spread[held] = np.nan
    spread[:, held] = np.nan
    return names, values[0].numpy(), spread, draws


def _unit(name: str, image: NDData):
    short = name if name in LENS_NAMES else name.rsplit("_", 1)[1]
    if short == "flux":
        return image.unit if image.unit is not None else u.dimensionless_unscaled
    return u.arcsec if short in _ANGLES else u.dimensionless_unscaled


def _column(values: np.ndarray, unit) -> np.ndarray | u.Quantity:
    return values if unit == u.dimensionless_unscaled else u.Quantity(values, unit)


def _flags(fit: PixelFit, judged: Quality) -> tuple[str, ...]:
    flags = []
    if not fit.converged:
        flags.append("not converged")
    if judged.chi > 3:
        flags.append("poor fit")
    if judged.chi < -3:
        flags.append("noise overstated")
    if judged.colour > _COLOURED:
        flags.append("structure in the residual")
    if judged.colour < -_COLOURED:
        flags.append("over-fitted")
    if not bool((fit.source > 0).any()):
        flags.append("no source")
    problem = fit.problem
    for name, value, low, high, free in zip(
        problem.lights.model.names, fit.parameters, problem.lower, problem.upper, problem.free
    ):
        if free and (value <= low or value >= high):
            flags.append(f"at a bound: {name.replace('log_', '')}")
    return tuple(flags)
