"""One lens fitted to the images of several bands.

The start is the fit of the band with the highest signal-to-noise; from there all bands are fitted at once. Chi-square,
normal matrix and priors are those of the bands together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData
from torch import Tensor

from lensdeblend.images import pixel_scale
from lensdeblend.lensing.banded import BandedLens, JointLens, PlacedLens
from lensdeblend.lensing.parametric import ParametricLens, SersicLens
from lensdeblend.lensing.placement import Placement, carried
from lensdeblend.lensing.subdivision import PixelGrid
from lensdeblend.reconstructors.fitting import LensFit, divided, evenly_divided, settle, within_noise
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.starts import bounds_on
from lensdeblend.reconstructors.view import View

__all__ = [
    "Band", "BandsFit", "all_good", "bounds_of_bands", "fit_bands", "open_bands", "placed", "poor_bands",
    "sharpen_bands",
]

log = logging.getLogger(__name__)

# Where the fit from the band of highest signal-to-noise stays poor, so many bands are begun from.
_MOST_LEADERS = 2
_NOISE_PASSES = 2
_PREFERRED = 10.0


@dataclass(frozen=True)
class Band:
    """The image of one band; ``placement`` leads from its positions to those of the first band."""

    name: str
    view: View
    placement: Placement

    @property
    def frame(self) -> Frame:
        return self.view.frame

    @property
    def signal(self) -> float:
        """Chi-square of an empty sky above what noise alone would leave: the square of the signal-to-noise."""
        data = self.frame.weighted_data
        return float((data**2).sum()) - len(data)


@dataclass(frozen=True)
class BandsFit(LensFit):
    """`LensFit` of several bands: ``model`` is a `BandedLens`, ``lens`` a `JointLens`."""

    @property
    def degrees_of_freedom(self) -> int:
        return len(self.residual) - len(self.parameters) - len(self.amplitudes)

    def degrees_of_freedom_in(self, number: int) -> float:
        """The share of one band."""
        pixels = len(self.residual[self.lens.pixels(number)])
        return self.degrees_of_freedom * pixels / len(self.residual)

    def in_band(self, number: int, band: Band) -> LensFit:
        """The fit as one band alone would tell it, from its own centre."""
        one, pixels, columns = self.model.one, self.lens.pixels(number), self.model.columns(number)
        lens = self.lens.lenses[number]
        return LensFit(
            one, ParametricLens(one, lens.subdivision, lens.convolution, band.frame.weight),
            carried(self.parameters[columns], one, band.placement.inverse),
            self.amplitudes[self.model.amplitude_columns(number)], self.normal, self.residual[pixels],
            self.shown[pixels], self.converged, self.lower[columns], self.upper[columns],
        )


def open_bands(images: Mapping[str, NDData], radius: float | None = None) -> list[Band]:
    """Look at the prepared images; in wide ones, the radius of the lens is that of the highest signal-to-noise.

    Raises
    ------
    ValueError
        Where a band has too few pixels, is named after an error, or does not reach the centre of the first.
    """
    bands = [_opened(name, images[name], radius, placement) for name, placement in placed(images).items()]
    region = max(bands, key=lambda band: band.signal).view.region
    if radius is None and region is not None:
        bands = [_opened(band.name, band.view.given, region.radius, band.placement) for band in bands]
    return bands


def placed(images: Mapping[str | None, NDData]) -> dict[str | None, Placement]:
    """From the positions in each band to those in the first; a plain image is one band named None.

    Raises
    ------
    ValueError
        Where a band is named after an error, or does not reach the centre of the first.
    """
    first = next(iter(images))
    placements = {}
    for name, image in images.items():
        if name is not None and name.endswith("err"):
            raise ValueError(f"a band named {name!r} makes columns that look like errors; choose another name")
        placements[name] = _placement(image, images[first], name, first)
    return placements


def _opened(name: str, image: NDData, radius: float | None, placement: Placement) -> Band:
    try:
        return Band(name, View.of(image, radius, placement.inverse.offset), placement)
    except ValueError as error:
        raise ValueError(f"band {name!r}: {error}; leave the band out, or correct it") from None


def _placement(image: NDData, reference: NDData, name: str, first: str) -> Placement:
    """From the WCS of both; without, the centres are the same place."""
    if name == first or image.wcs is None or reference.wcs is None:
        return Placement()
    scale, other_scale = (pixel_scale(i).to_value(u.arcsec) for i in (image, reference))
    (ny, nx), (other_ny, other_nx) = image.data.shape, reference.data.shape
    reach = 0.25 * min(ny, nx)
    x, y = reach * np.array([[0, 1, -1, 0, 0], [0, 0, 0, 1, -1]])
    sky = image.wcs.pixel_to_world((nx - 1) / 2 + x, (ny - 1) / 2 + y)
    there = np.stack(reference.wcs.world_to_pixel(sky)) - [[(other_nx - 1) / 2], [(other_ny - 1) / 2]]
    there = there * other_scale
    apart = f"their WCS put them {float(sky[0].separation(_middle(reference)).arcsec):.3g} arcsec apart"
    if not np.isfinite(there).all():
        raise ValueError(f"bands {first!r} and {name!r} do not show the same sky: {apart}; correct the WCS of one")
    slopes = np.stack([there[:, 1] - there[:, 2], there[:, 3] - there[:, 4]], 1) / (2 * reach * scale)
    left, _, right = np.linalg.svd(slopes)
    placement = Placement(tuple(map(tuple, (left @ right).tolist())), tuple(there[:, 0].tolist()))
    center_x, center_y = placement.inverse.offset
    if abs(center_x) > nx * scale / 2 or abs(center_y) > ny * scale / 2:
        raise ValueError(
            f"band {name!r} does not reach the centre of band {first!r}: {apart}; cut all bands around the lens, or "
            "correct the WCS"
        )
    return placement


def _middle(image: NDData):
    ny, nx = image.data.shape
    return image.wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2)


def fit_bands(
    bands: Sequence[Band], find: Callable[[Frame], LensFit], larger: Callable, priors: Callable, *, separate: bool
) -> tuple[BandsFit, list[Band]]:
    """Fit all bands together; also returns the bands with the noise that the model makes.

    Parameters
    ----------
    bands : sequence of Band
    find : callable
        From the frame of one band to its fit.
    larger : callable
        From the parameters and the `SersicLens` of a fit to pairs of a larger model and starts for it.
    priors : callable
        From a model to means and weights.
    separate : bool
        Whether shapes differ by band in the end; those of all bands together are where they start.
    """
    best = None
    for leader in sorted(bands, key=lambda band: band.signal, reverse=True)[:_MOST_LEADERS]:
        found = find(leader.frame)
        begin = carried(found.parameters, found.model, leader.placement)
        fit = _grown(bands, found.model, begin, larger, priors, separate)
        log.debug("from band %s: reduced chi-square %.4f", leader.name, fit.reduced_chi2)
        if best is None or fit.bayesian_information < best.bayesian_information:
            best = fit
        if all_good(best):
            break
    if any(band.view.noise is not None for band in bands):
        for _ in range(_NOISE_PASSES):
            bands = [_lit(band, best, number) for number, band in enumerate(bands)]
            best = sharpen_bands(bands, best.model, best.parameters, priors)
    return best, list(bands)


def all_good(fit: BandsFit) -> bool:
    """Whether each band is as `~lensdeblend.reconstructors.fitting.is_good` asks."""
    return not poor_bands(fit)


def poor_bands(fit: BandsFit) -> list[int]:
    """Numbers of the bands that the model does not describe within the noise."""
    numbers = range(len(fit.model.bands))
    parts = [fit.lens.pixels(number) for number in numbers]
    return [
        number for number, pixels in zip(numbers, parts)
        if not within_noise(fit.residual[pixels], fit.shown[pixels], fit.degrees_of_freedom_in(number))
    ]


def _grown(bands, one: SersicLens, begin: Tensor, larger, priors, separate: bool) -> BandsFit:
    """Fit, and add components while the data ask for them."""
    names = tuple(band.name for band in bands)

    def fitted(model: SersicLens, begins: Sequence[Tensor]) -> tuple[BandsFit, BandsFit]:
        shared = min(
            (sharpen_bands(bands, BandedLens(model, names), start, priors) for start in begins), key=lambda f: f.chi2
        )
        if not separate:
            return shared, shared
        own = BandedLens(model, names, separate=True)
        return shared, sharpen_bands(bands, own, own.spread(shared.parameters), priors)

    shared, best = fitted(one, [begin])
    while not all_good(best):
        pairs = [fitted(model, begins) for model, begins in larger(shared.parameters, shared.model.one)]
        richer = min(pairs, key=lambda pair: pair[1].bayesian_information, default=None)
        if richer is None or richer[1].bayesian_information > best.bayesian_information - _PREFERRED:
            break
        shared, best = richer
    return best


def sharpen_bands(bands: Sequence[Band], model: BandedLens, begin: Tensor, priors, *, passes: int = 3) -> BandsFit:
    """Fit in double precision from a good start (P,), pixels divided as finely as the model needs."""
    placed = [PlacedLens(model.one, model.columns(i), band.placement) for i, band in enumerate(bands)]
    own = [model.amplitude_columns(i) for i in range(len(bands))]
    lower, upper = bounds_of_bands(bands, model, begin)
    mean, weight = priors(model)
    data = torch.cat([band.frame.weighted_data for band in bands])

    def finely(parameters: Tensor, amplitudes: Tensor) -> JointLens:
        parts = zip(bands, placed, own)
        return JointLens([divided(band.frame, lens, parameters, amplitudes[:, part]) for band, lens, part in parts])

    evenly = JointLens([evenly_divided(band.frame, lens) for band, lens in zip(bands, placed)])
    lens, fit = settle(
        evenly, finely, data, begin[None], lower, upper, passes=passes, prior_mean=mean, prior_weight=weight
    )
    amplitudes = fit.amplitudes[0]
    layers = amplitudes[:, None] * lens.linearise(fit.parameters, False).basis[0]
    is_source = torch.arange(model.components) % model.one.components < model.sources
    return BandsFit(
        model, lens, fit.parameters[0], amplitudes, fit.normal[0], data - layers.sum(0), layers[is_source].sum(0) > 2,
        bool(fit.converged[0]), lower, upper,
    )


def bounds_of_bands(bands: Sequence[Band], model: BandedLens, begin: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bound of every parameter, as `~lensdeblend.reconstructors.starts.bounds` gives them for one."""
    grid = _field(bands)
    lower, upper = torch.empty_like(begin), torch.empty_like(begin)
    for number in range(len(bands)):
        columns = model.columns(number)
        lower[columns], upper[columns] = bounds_on(model.one, grid, begin[columns])
    return lower, upper


def _field(bands: Sequence[Band]) -> PixelGrid:
    """The finest pixels, over all that the bands show."""
    if len(bands) == 1:
        return bands[0].frame.grid
    corners = []
    for band in bands:
        grid = band.frame.grid
        half_y, half_x = (n * grid.scale / 2 for n in grid.shape)
        x, y = grid.centre
        corners += [band.placement(x + i * half_x, y + j * half_y) for i in (-1, 1) for j in (-1, 1)]
    low, high = np.min(corners, 0), np.max(corners, 0)
    scale = min(band.frame.grid.scale for band in bands)
    nx, ny = np.ceil((high - low) / scale - 1e-6).astype(int).tolist()
    return PixelGrid((ny, nx), scale, 0, tuple(((low + high) / 2).tolist()))


def _lit(band: Band, fit: BandsFit, number: int) -> Band:
    amplitudes = fit.amplitudes[fit.model.amplitude_columns(number)]
    images = fit.lens.lenses[number].images(fit.parameters[None])[0]
    return replace(band, view=band.view.lit((amplitudes[:, None, None] * images).sum(0)))
