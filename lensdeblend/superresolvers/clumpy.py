"""A lens with substructure: cells of convergence fitted beside it, and all of it drawn on finer pixels with errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from astropy.nddata import NDData
from torch import Tensor

from lensdeblend.lensing.cells import Cells
from lensdeblend.lensing.critical import lensing_jacobian
from lensdeblend.lensing.lens_maps import convergence_map, deflection_map
from lensdeblend.lensing.parametric import SersicLens
from lensdeblend.lensing.subdivision import PixelGrid
from lensdeblend.lensing.substructure import LensPrior, SeenLens, SubstructureFit, most_likely_substructure
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.poor_fit import is_poor
from lensdeblend.superresolvers.rendering import fine_layers, finest_flux

__all__ = ["CELLS", "SPREAD", "ClumpyLens", "ClumpyMaps"]

# Cells a side, and the standard deviation of their convergence where nothing is known.
CELLS, SPREAD = 24, 0.05
# In Einstein radii, half the width of the square of cells: what is farther out shows only as shear.
_REACH = 2.0
_DRAWS, _AT_ONCE = 128, 16
# Of what is drawn, in what is fitted: a few hundredths of the noise are enough.
_COARSER = 3.0


@dataclass(frozen=True)
class ClumpyMaps:
    """Of finer pixels (ny, nx): ``image``, ``intrinsic``, ``deflection_x``, ``deflection_y``, ``convergence``,
    ``magnification``, ``substructure``, and their variances."""

    values: Mapping[str, np.ndarray]
    variances: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ClumpyLens:
    """A lens and Sérsic profiles with cells of convergence, as fitted."""

    model: SersicLens
    cells: Cells
    fit: SubstructureFit

    @classmethod
    def fitted(
        cls, image: NDData, model: SersicLens, parameters: Tensor, fluxes: Tensor, prior: LensPrior, sky: float = 0.0
    ) -> ClumpyLens:
        """Fit a prepared image from parameters (P,) and fluxes (K,) on, by
        `lensdeblend.lensing.substructure.most_likely_substructure`."""
        frame = Frame.of(image)
        theta_E, (x, y) = float(parameters[0]), (float(at) for at in parameters[4:6])
        half = min(_REACH * theta_E, max(frame.grid.shape) * frame.grid.scale / 2)
        cells = Cells.over(frame.grid, (x, y), half, CELLS)
        seen = SeenLens(frame.data - sky, frame.weight, frame.kernel, frame.grid, _COARSER * finest_flux(image))
        return cls(model, cells, most_likely_substructure(model, cells, seen, parameters, fluxes, prior))

    @property
    def reduced_chi2(self) -> float:
        """Over what the data determine of the parameters."""
        return self.fit.chi2 / max(self.fit.freedom, 1.0)

    @property
    def is_poor(self) -> bool:
        """Whether `reduced_chi2` is more than three standard deviations above 1."""
        return is_poor(self.reduced_chi2, max(self.fit.freedom, 1.0))

    def seen(self, image: NDData) -> np.ndarray:
        """On the pixels of an image, through its PSF and without sky."""
        layers = fine_layers(
            self.model, self.fit.parameters, self.fit.fluxes, FinePixels(image, 1), slopes=False,
            bend=self.cells.bend(self.fit.cells),
        )
        return layers.seen(layers.unseen, None if image.psf is None else np.asarray(image.psf, dtype=float))[0].numpy()

    @property
    def errors(self) -> np.ndarray:
        """Of parameters and fluxes."""
        lean = len(self.fit.parameters) + len(self.fit.fluxes)
        return self.fit.covariance.diagonal()[:lean].sqrt().numpy()

    @property
    def notes(self) -> dict[str, float]:
        """For the provenance."""
        return {
            "substructure_evidence": self.fit.evidence, "cells": self.cells.count, "cell": float(self.cells.side),
            "degrees_of_freedom": self.fit.freedom,
        }

    def maps(self, pixels: FinePixels, kernel: np.ndarray | None, rng: np.random.Generator) -> ClumpyMaps:
        """Images and maps on finer pixels, ``kernel`` the PSF there; the variances are those of some draws from the
        covariance, everything to first order in it."""
        fit, lens = self.fit, self.fit.parameters[:8]
        layers = fine_layers(self.model, fit.parameters, fit.fluxes, pixels, bend=self.cells.bend(fit.cells))
        grid = PixelGrid(pixels.shape, pixels.scale)
        rays, points = self.cells.rays(layers.grid), self.cells.rays(grid)
        shape = (-1, *grid.shape)

        def bent(cells: Tensor) -> Tensor:
            """(draws, 2, ny, nx), border included."""
            return torch.stack(rays(cells), 1).unflatten(2, layers.grid.padded_shape)

        smooth, by_lens = deflection_map(grid, lens)
        kappa, kappa_by_lens = convergence_map(grid, lens)
        clumps = points.convergence(fit.cells[None])[0]
        beside = layers.framed(bent(fit.cells[None]))
        xx, xy, yx, yy = (
            one.reshape(grid.shape) - more
            for one, more in zip(lensing_jacobian(*grid.centres(), lens), _gradients(beside, grid.scale)[0])
        )
        determinant = xx * yy - xy * yx
        determinant = torch.where(determinant.abs() < 1e-9, torch.full_like(determinant, 1e-9), determinant)
        seen = layers.seen(layers.unseen[:1], kernel)[0]
        deflection = smooth + beside[0]
        values = {
            "image": seen, "intrinsic": layers.framed(layers.unseen[0]), "deflection_x": deflection[0],
            "deflection_y": deflection[1], "convergence": kappa + clumps, "magnification": 1 / determinant,
            "substructure": clumps,
        }

        starts = [1 + self.model.light_columns(k).start for k in range(self.model.sources)]
        shifts = [sum(layers.unseen[start + axis] for start in starts) for axis in (0, 1)]
        squares = {name: torch.zeros(grid.shape, dtype=torch.float64) for name in values}
        for parameters, fluxes, cells in zip(*(drawn.split(_AT_ONCE) for drawn in fit.draws(_DRAWS, rng))):
            lenses, bends = parameters[:, :8], bent(cells)
            lean = torch.cat([parameters, fluxes], 1)
            light = torch.tensordot(lean, layers.unseen[1:], 1) + bends[:, 0] * shifts[0] + bends[:, 1] * shifts[1]
            bends = torch.tensordot(lenses, by_lens, 1) + layers.framed(bends)
            by_xx, by_xy, by_yx, by_yy = _gradients(bends, grid.scale).unbind(1)
            substructure = points.convergence(cells)
            changes = {
                "image": layers.seen(light, kernel), "intrinsic": layers.framed(light), "deflection_x": bends[:, 0],
                "deflection_y": bends[:, 1], "convergence": torch.tensordot(lenses, kappa_by_lens, 1) + substructure,
                "magnification": (by_xx * yy + xx * by_yy - by_xy * yx - xy * by_yx) / determinant**2,
                "substructure": substructure,
            }
            for name, change in changes.items():
                squares[name] += change.reshape(shape).square().sum(0)
        return ClumpyMaps(
            {name: value.numpy() for name, value in values.items()},
            {name: (total / _DRAWS).numpy() for name, total in squares.items()},
        )


def _gradients(deflection: Tensor, scale: float) -> Tensor:
    """Of maps (batch, 2, ny, nx): (batch, 4, ny, nx), of the x by x and by y, of the y by x and by y."""
    by_y, by_x = torch.gradient(deflection, spacing=scale, dim=(2, 3))
    return torch.stack([by_x[:, 0], by_y[:, 0], by_x[:, 1], by_y[:, 1]], 1)
