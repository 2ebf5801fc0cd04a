"""What was found of a lens on finer pixels, as a `~lensdeblend.results.SuperResolution`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData, VarianceUncertainty
from astropy.table import QTable
from torch import Tensor

from lensdeblend.images import on_grid
from lensdeblend.lensing.parametric import LENS_NAMES
from lensdeblend.lensing.sersic import sersic
from lensdeblend.lensing.subdivision import PixelGrid
from lensdeblend.results import SuperResolution
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.leftover import left_by
from lensdeblend.superresolvers.poor_fit import is_poor

__all__ = ["Drawn", "dressed", "source_images"]

_SOURCE_NAMES = ("source_radius", "source_n", "source_e1", "source_e2", "source_x", "source_y")
_ANGLES = {"theta_E", "center_x", "center_y", "source_radius", "source_x", "source_y"}
_LEAST_SEEN = 5.0
# The source's image: pixels a side, half-light radii across, rays a side of a pixel.
_SOURCE_PIXELS, _SOURCE_WIDTH, _SOURCE_RAYS = 64, 10.0, 2


@dataclass(frozen=True)
class Drawn:
    """Of one image: through the PSF and before it (2, ny, nx), deflection (2, ny, nx), convergence, and that of the
    clumps alone (ny, nx), the source of flux 1, lens and source (14,), flux, their errors (15,), chi-square per pixel,
    flux over noise; where they are known, the magnification (ny, nx), and what the data determine of the parameters.
    ``model``: on the pixels of the data, where what it leaves of them is to be added to the image."""

    images: np.ndarray
    deflection: np.ndarray
    convergence: np.ndarray
    substructure: np.ndarray
    source: np.ndarray
    parameters: np.ndarray
    flux: float
    errors: np.ndarray
    chi2: float
    significance: float
    magnification: np.ndarray | None = None
    told: float | None = None
    variances: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: Mapping[str, float] = field(default_factory=dict)
    model: np.ndarray | None = None


def source_images(sources: Tensor) -> Tensor:
    """Sérsic profiles (batch, 7) about the middle of frames `_SOURCE_WIDTH` radii wide, of flux 1: (batch, n, n)."""
    side = _SOURCE_PIXELS * _SOURCE_RAYS
    step = _SOURCE_WIDTH / side
    x, y = (at[None].to(sources) for at in PixelGrid((side, side), step).centres())
    radius, n, e1, e2 = sources[:, 1:5].unsqueeze(-1).unbind(1)
    zero = torch.zeros_like(n)
    light = sersic(x, y, torch.ones_like(radius), n, e1, e2, zero, zero).reshape(-1, 1, side, side)
    return torch.nn.functional.avg_pool2d(light, _SOURCE_RAYS)[:, 0] * (step * _SOURCE_RAYS) ** 2


def dressed(
    views: Sequence[tuple[FinePixels, Sequence[str]]], found: Sequence[Drawn], psf: np.ndarray | None, meta: Mapping
) -> list[SuperResolution]:
    """The results on the sky of images of one unit, each with the flags it has already; ``psf`` on the finer pixels."""
    tables = _tables(views[0][0].image, found)
    return [
        _dressed(pixels, drawn, tables[row:row + 1], flags, psf, meta)
        for row, ((pixels, flags), drawn) in enumerate(zip(views, found))
    ]


def _dressed(pixels: FinePixels, drawn: Drawn, table: QTable, flags, psf, meta) -> SuperResolution:
    image, count = pixels.image, pixels.image.data.size
    if image.mask is not None:
        count -= int(image.mask.sum())
    freedom = max(count - (len(drawn.errors) if drawn.told is None else drawn.told), 1)
    chi2 = float(drawn.chi2) * count / freedom
    poor = is_poor(chi2, freedom)
    flags = [*flags, *["poor fit"] * poor]
    seen = drawn.images[0]
    if poor and drawn.model is not None:
        seen = seen + left_by(drawn.model, pixels)
    if not drawn.significance > _LEAST_SEEN:
        flags.append("no lens seen")
    scale = drawn.parameters[8] * _SOURCE_WIDTH / _SOURCE_PIXELS
    magnification = drawn.magnification
    if magnification is None:
        magnification = _magnification(drawn.deflection, pixels.scale)

    def on_sky(name: str, data: np.ndarray, **fields) -> NDData:
        variance = drawn.variances.get(name)
        return pixels.dressed(data, uncertainty=None if variance is None else VarianceUncertainty(variance), **fields)

    one = u.dimensionless_unscaled
    return SuperResolution(
        image=on_sky("image", seen, psf=psf), intrinsic=on_sky("intrinsic", drawn.images[1]),
        source=on_grid(
            image, drawn.source * drawn.flux, pixel_scale=scale * u.arcsec, offset=drawn.parameters[12:] * u.arcsec
        ),
        deflection=tuple(
            on_sky(f"deflection_{name}", axis, unit=u.arcsec) for name, axis in zip("xy", drawn.deflection)
        ),
        convergence=on_sky("convergence", drawn.convergence, unit=one), parameters=table, chi2=chi2,
        flags=tuple(flags), magnification=on_sky("magnification", magnification, unit=one),
        substructure=on_sky("substructure", drawn.substructure, unit=one),
        meta={**meta, **drawn.notes, "degrees_of_freedom": freedom},
    )


def _magnification(deflection: np.ndarray, scale: float) -> np.ndarray:
    (xy, xx), (yy, yx) = (np.gradient(axis, scale) for axis in deflection)
    determinant = (1 - xx) * (1 - yy) - xy * yx
    return 1 / np.where(np.abs(determinant) < 1e-6, 1e-6, determinant)


def _tables(image: NDData, found: Sequence[Drawn]) -> QTable:
    """A row an image: to make one table is as much work as to make many rows."""
    values = np.array([[*drawn.parameters, drawn.flux] for drawn in found]).T
    errors = np.array([drawn.errors for drawn in found]).T
    columns = {}
    for name, value, error in zip((*LENS_NAMES, *_SOURCE_NAMES, "source_flux"), values, errors):
        unit = u.arcsec if name in _ANGLES else 1
        if name == "source_flux" and image.unit is not None:
            unit = image.unit
        columns[name], columns[f"{name}_err"] = value * unit, error * unit
    return QTable(columns)
