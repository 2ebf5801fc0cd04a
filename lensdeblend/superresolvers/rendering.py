"""A fitted lens drawn on fine pixels, with what its parameters' errors do to every pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from astropy.nddata import NDData
from scipy.ndimage import map_coordinates
from torch import Tensor

from lensdeblend.images import pixel_scale
from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.epl import epl
from lensdeblend.lensing.halos import shear
from lensdeblend.lensing.parametric import Bend, SersicLens
from lensdeblend.lensing.subdivision import PixelGrid, refine
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.results import panels
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.fitted import FittedLens

__all__ = ["FineLayers", "drawn", "fine_layers", "finest_flux", "pixel_source", "spread"]

Light = Callable[[Tensor, Tensor], Tensor]

# Of the brightest pixel of the data: a saturated one would be divided without end.
_FINEST = 1e-5
_OF_NOISE = 0.01
_MOST_CELLS = 40_000


def drawn(
    fitted: FittedLens, pixels: FinePixels, source: Light | None = None
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray] | None]:
    """The fine image before and through the PSF, and the variances of both (None where the fit has none).

    ``source`` is the surface brightness of lensed light that comes beside the fit's profiles; its errors are not known.
    """
    certain = fitted.covariance is None or source is not None
    layers = fine_layers(fitted.model, fitted.parameters, fitted.fluxes, pixels, source=source, slopes=not certain)
    unseen, seen = layers.framed(layers.unseen), layers.seen(layers.unseen, pixels.psf())
    images = unseen[0].numpy(), seen[0].numpy()
    return images, None if certain else tuple(spread(each[1:], fitted.covariance) for each in (unseen, seen))


@dataclass(frozen=True)
class FineLayers:
    """Before the PSF (layers, ny, nx), on a ``grid`` with as much border as the PSF carries light: the whole image;
    where they were asked for, its derivatives by all parameters, and each component at flux 1."""

    unseen: Tensor
    grid: PixelGrid

    def framed(self, images: Tensor) -> Tensor:
        """Without the border."""
        border, (ny, nx) = self.grid.border, self.grid.shape
        return images[..., border:border + ny, border:border + nx]

    def seen(self, images: Tensor, kernel: np.ndarray | None) -> Tensor:
        """Through the PSF."""
        if kernel is None:
            return self.framed(images)
        return Convolution(torch.as_tensor(kernel).to(images), self.grid.shape, self.grid.border)(images)


def fine_layers(
    model: SersicLens, parameters: Tensor, fluxes: Tensor, pixels: FinePixels, *, source: Light | None = None,
    bend: Bend | None = None, slopes: bool = True,
) -> FineLayers:
    """A model averaged over each fine pixel; ``source`` and ``bend`` are light and deflection beside it."""
    image = pixels.image
    border = int(np.ceil(Frame.of(image).grid.border * pixels.factor))
    grid = PixelGrid(pixels.shape, pixels.scale, border)
    size, area = len(parameters), pixels.scale**2

    def total(x: Tensor, y: Tensor) -> Tensor:
        light = torch.zeros_like(x) if source is None else source(x, y)
        if model.components:
            light = light + fluxes @ model.brightness(parameters[None], x, y, bend)[0]
        return light * area

    def with_slopes(x: Tensor, y: Tensor) -> Tensor:
        layers, derivatives = model.brightness_and_slopes(parameters[None], x, y, bend)
        rows = torch.zeros(size, len(x), dtype=x.dtype)
        for flux, entries in zip(fluxes, derivatives):
            for column, values in entries:
                rows[column] += flux * values[0]
        return torch.cat([(fluxes @ layers[0])[None], rows, layers[0]]) * area

    least = torch.full((grid.size,), finest_flux(image) / pixels.factor, dtype=torch.float64)
    cells = refine(grid, total, least, most=_MOST_CELLS + 4 * grid.size)
    return FineLayers(cells.render(with_slopes if slopes else lambda x, y: total(x, y)[None]), grid)


def spread(slopes: Tensor, covariance: Tensor) -> np.ndarray:
    """Variance (...) that a covariance makes of something with ``slopes`` (parameters, ...), to first order."""
    flat = slopes.reshape(len(covariance), -1)
    return (flat * (covariance @ flat)).sum(0).clamp_min(0).reshape(slopes.shape[1:]).numpy()


def pixel_source(source: NDData, image: NDData, lens: Tensor) -> Light:
    """Surface brightness in the image plane of a source given as pixels, by the cubic spline through them."""
    scale = pixel_scale(source).to_value("arcsec")
    center_x, center_y = panels.Frame.of(source, image).center
    ny, nx = source.data.shape
    values = np.asarray(source.data, dtype=float) / scale**2

    def brightness(x: Tensor, y: Tensor) -> Tensor:
        (ax, ay), (sx, sy) = epl(x, y, *lens[:6]), shear(x, y, *lens[6:8])
        column = ((x - ax - sx - center_x) / scale + (nx - 1) / 2).numpy()
        row = ((y - ay - sy - center_y) / scale + (ny - 1) / 2).numpy()
        return torch.as_tensor(map_coordinates(values, [row, column], order=3, mode="grid-constant"))

    return brightness


def finest_flux(image: NDData) -> float:
    """Flux of a pixel of the image that is not worth dividing it for."""
    good = np.isfinite(image.data) if image.mask is None else np.isfinite(image.data) & ~image.mask
    noise = np.sqrt(np.median(image.uncertainty.array[good]))
    return max(_OF_NOISE * float(noise), _FINEST * float(np.abs(image.data[good]).max()))
