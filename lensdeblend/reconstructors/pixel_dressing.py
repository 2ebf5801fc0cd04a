"""From a pixelated fit in plain tensors to a `Reconstruction` on the sky."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData, VarianceUncertainty
from torch import Tensor

from lensdeblend.images import like, on_grid
from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.halos import shear
from lensdeblend.lensing.inversion import trace_back
from lensdeblend.lensing.subdivision import PixelGrid, Subdivision
from lensdeblend.reconstructors.band_dressing import notes_by_band
from lensdeblend.reconstructors.bands import Band
from lensdeblend.reconstructors.curves import curves_table
from lensdeblend.reconstructors.dressing import bound_flags, held_against
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.inverting import JointFit, PixelFit
from lensdeblend.reconstructors.numbers import Numbers
from lensdeblend.reconstructors.pixel_start import PixelStart
from lensdeblend.reconstructors.posterior_samples import inverse_where
from lensdeblend.results import Reconstruction

__all__ = ["dress_pixels", "model_in_frame", "parameter_covariance"]

_WORST_CONSTRAINED = 1e-9
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


def quality(frame: Frame, fit: PixelFit, parameters: float) -> Quality:
    """Degrees of freedom are pixels less what the data determine of the source (Suyu et al. 2006), and less the number
    of ``parameters``."""
    covariance = fit.solution.covariance
    determined = len(fit.source) - fit.solution.strength * float((covariance * fit.problem.precision.cpu()).sum())
    freedom = len(fit.residual) - determined - parameters - len(fit.amplitudes)
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


def dress_pixels(start: PixelStart, fit: JointFit, rng: np.random.Generator, samples: int) -> Reconstruction:
    """Put the fit into NDData, each band on its own grid, and its numbers, told from the first band, into tables."""
    names = [band.name for band in start.bands]
    plain = names == [None]
    covariance = parameter_covariance(fit)
    pixels = [len(own.residual) for own in fit.bands]
    # Bands that have more to say are charged more of the common parameters.
    charged = [int(fit.problem.free.sum()) * (count / sum(pixels)) for count in pixels]
    judged = [quality(band.frame, own, many) for band, own, many in zip(start.bands, fit.bands, charged)]
    images = [
        _images(band, own, part.whole @ covariance @ part.whole.T)
        for band, own, part in zip(start.bands, fit.bands, fit.problem.parts)
    ]

    def each(values: Sequence) -> Any:
        return values[0] if plain else dict(zip(names, values))

    fields = {field: each([part[field] for part in images]) for field in images[0]}
    if not start.model.lens_lights:
        fields["lens_light"] = None
    units = {band.name: band.view.given.unit for band in start.bands}
    numbers = Numbers.of(start.model)
    values, spread = numbers.told(torch.cat([fit.parameters, fit.amplitudes]), covariance)
    freedom = sum(own.degrees_of_freedom for own in judged)
    meta = {
        "source_pixels": each([len(own.source) for own in fit.bands]),
        "strength": each([float(strength) for strength in fit.strengths]),
        "log_evidence": float(-fit.objective / 2), "degrees_of_freedom": float(freedom),
        "autocorrelation": each([float(own.autocorrelation) for own in judged]),
        "colour": each([float(own.colour) for own in judged]),
        "lens_lights": start.model.lens_lights,
        **(start.bands[0].view.notes if plain else notes_by_band(start.bands)),
    }
    if not plain:
        meta |= {"told_from": names[0], "chi2_by_band": each([float(own.chi2) for own in judged])}
    return Reconstruction(
        **fields,
        parameters=numbers.table(values, spread, units),
        covariance=spread,
        samples=numbers.samples(_samples(fit, covariance, samples, rng), units) if samples else None,
        chi2=sum(own.chi2 for own in fit.bands) / freedom,
        flags=(*start.flags, *_flags(fit, judged, names)),
        curves=curves_table(fit.parameters[:8]),
        meta=meta,
    )


def _images(band: Band, fit: PixelFit, covariance: Tensor) -> dict[str, NDData | None]:
    """The images of a `Reconstruction` by field; ``covariance`` is that of the band's parameters and amplitudes."""
    image, scale = band.view.image, band.frame.grid.scale
    lights = _lights_on_image(image, band.frame, fit)
    lensed = _on_image(image, lambda x, y: _lensed(fit, x, y), scale)
    # On the sky the sources lie in one place, whatever image tells of them: what passes the centre of the first band
    # is not deflected by the shear.
    origin = band.placement.inverse.offset
    moved_x, moved_y = (float(v) for v in shear(*origin, *fit.parameters[6:8]))
    unlensed = _on_image(image, lambda x, y: _unlensed(fit, x - moved_x, y - moved_y), scale)
    return {
        "source": _source_plane(image, fit, scale, covariance, origin, (moved_x, moved_y)),
        "unlensed": like(image, unlensed),
        "lens_light": None if lights is None else like(image, lights),
        **held_against(band.view, lensed + (0 if lights is None else lights)),
    }


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


def _source_plane(
    image: NDData, fit: PixelFit, image_scale: float, covariance: Tensor, origin: tuple[float, float],
    moved: tuple[float, float],
) -> NDData:
    """The source on a regular grid on the sky that holds all of its own, with the variance of each pixel.

    Its own plane is shown ``moved``, so that a ray through ``origin`` is not deflected by the shear.
    """
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
    change = _movement(fit, x, y, points, origin) + torch.as_tensor(reading @ fit.follow.numpy()).T
    spread = spread + (change * (covariance @ change)).sum(0)
    values = points.values(fit.source)
    return on_grid(
        image, (values * fine**2).reshape(count, count).numpy(), pixel_scale=fine * u.arcsec,
        offset=tuple(place + by for place, by in zip(middle, moved)) * u.arcsec,
        uncertainty=VarianceUncertainty((spread * fine**4).clamp_min(0).reshape(count, count).numpy()),
    )


def _movement(fit: PixelFit, x: Tensor, y: Tensor, points, origin: tuple[float, float]) -> Tensor:
    """How the light at fixed points of the sky changes as frame and plane move with the lens: (parameters and
    amplitudes, points)."""
    frame = fit.problem.mapping.frame
    at_x, at_y = (torch.full_like(x, value) for value in origin)
    still = [(torch.zeros_like(x), torch.zeros_like(x))] * 6
    _, _, moves = frame(x, y, [*still, (-at_x, at_y), (-at_y, -at_x)], fit.parameters[:8])
    along_x, along_y = points.slopes(fit.source)
    change = x.new_zeros(len(fit.normal), len(x))
    change[:8] = torch.stack([along_x * a + along_y * b for a, b in moves])
    return change


def parameter_covariance(fit: JointFit) -> Tensor:
    """Of parameters and amplitudes, the sources marginalised; zero for what is held or lies at a bound."""
    free = torch.cat([fit.problem.free & ~fit.at_bound, fit.amplitudes > 0])
    return inverse_where(free, fit.normal, _WORST_CONSTRAINED)


def _samples(fit: JointFit, covariance: Tensor, count: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian (count, parameters and amplitudes) about the best, kept within the bounds."""
    best, size = torch.cat([fit.parameters, fit.amplitudes]), len(fit.parameters)
    scales, vectors = torch.linalg.eigh(covariance)
    root = (vectors * scales.clamp_min(0).sqrt()).T
    points = best + torch.as_tensor(rng.standard_normal((count, len(best)))) @ root
    points[:, :size] = torch.minimum(torch.maximum(points[:, :size], fit.problem.lower), fit.problem.upper)
    return points.numpy()


def _flags(fit: JointFit, judged: Sequence[Quality], names: Sequence[str | None]) -> list[str]:
    flags = [] if fit.converged else ["not converged"]
    for own, quality, name in zip(fit.bands, judged, names):
        found = {
            "poor fit": quality.chi > 3,
            "noise overstated": quality.chi < -3,
            "structure in the residual": quality.colour > _COLOURED,
            "over-fitted": quality.colour < -_COLOURED,
            "no source": not bool((own.source > 0).any()),
        }
        where = "" if name is None else f" (band {name})"
        flags += [f"{flag}{where}" for flag, raised in found.items() if raised]
    return flags + bound_flags(fit.problem.model, fit.problem.free & fit.at_bound)
