"""Damped least squares for a blend: galaxies in several bands at once, one shape and a flux a band each.

Batched: the problems of a batch share their layout and the shapes of their bands, not their data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from lensdeblend.lensing.fourier import Rendered, render
from lensdeblend.lensing.fourier_frames import FourierFrame
from lensdeblend.lensing.galaxy_layout import GalaxyLayout
from lensdeblend.lensing.least_squares import DeferredState, State, nonnegative_amplitudes

__all__ = ["BandData", "BlendProblem"]

# Of a matrix of products: up to how many rows it is computed whole, and else as blocks of how many.
_FEW, _BLOCK = 256, 128


@dataclass(frozen=True)
class BandData:
    """Bands on one grid, of a batch of blends.

    ``numbers``: which of all bands these are. ``data`` (batch, bands, ny, nx); ``weight`` likewise, one over the
    noise, 0 where masked.
    """

    frame: FourierFrame
    numbers: tuple[int, ...]
    data: Tensor
    weight: Tensor

    def some(self, index: Tensor) -> BandData:
        """Of some of the batch."""
        return BandData(self.frame.some(index), self.numbers, self.data[index], self.weight[index])


@dataclass(frozen=True)
class BlendProblem:
    """What stays the same while galaxies move and grow.

    ``grids`` hold each band once. ``prior_mean`` (batch, P), ``prior_weight`` (P,): Gaussian priors on the parameters
    of `GalaxyLayout`. ``fold``: as for `~lensdeblend.lensing.fourier.render`. Amplitudes are the fluxes of the
    components, band by band: (batch, bands x components).
    """

    layout: GalaxyLayout
    grids: Sequence[BandData]
    prior_mean: Tensor
    prior_weight: Tensor
    fold: bool = True

    @property
    def bands(self) -> int:
        """How many."""
        return sum(len(grid.numbers) for grid in self.grids)

    def some(self, index: Tensor) -> BlendProblem:
        """The same for some of the batch."""
        return replace(
            self, grids=tuple(grid.some(index) for grid in self.grids), prior_mean=self.prior_mean[index]
        )

    def __call__(self, parameters: Tensor) -> State:
        """The state that `lensdeblend.lensing.least_squares.descend` goes down from."""
        offset = parameters - self.prior_mean
        objective = (self.prior_weight * offset * offset).sum(-1)
        fluxes = parameters.new_zeros(len(parameters), self.bands, len(self.layout.galaxy))
        seen = []
        for grid, drawn in zip(self.grids, self.rendered(parameters)):
            basis = (drawn.basis * grid.weight[:, :, None]).flatten(3)
            data = (grid.data * grid.weight).flatten(2)
            amplitudes = nonnegative_amplitudes(basis, data)
            residual = data - (amplitudes[:, :, None] @ basis)[:, :, 0]
            fluxes[:, list(grid.numbers)] = amplitudes
            objective = objective + (residual * residual).sum((1, 2))
            seen.append((grid, drawn, amplitudes, basis, residual))
        return DeferredState(fluxes.flatten(1), objective, partial(self._normal, offset, seen))

    def _normal(self, offset: Tensor, seen: Sequence[tuple]) -> tuple[Tensor, Tensor]:
        """Matrix and downward gradient, of ``offset`` from the priors and of what is seen on the grids."""
        batch, size, count = len(offset), len(self.layout.names), len(self.layout.galaxy)
        whole = size + count * self.bands
        normal, gradient = offset.new_zeros(batch, whole, whole), offset.new_zeros(batch, whole)
        for grid, drawn, amplitudes, basis, residual in seen:
            slopes = (drawn.derivatives(amplitudes) * grid.weight[:, :, None]).flatten(3)
            products = _products(torch.cat([slopes, basis, residual[:, :, None]], 2))
            normal[:, :size, :size] += products[:, :, :size, :size].sum(1)
            gradient[:, :size] += products[:, :, :size, -1].sum(1)
            for place, number in enumerate(grid.numbers):
                own = slice(size + number * count, size + (number + 1) * count)
                normal[:, :size, own] = products[:, place, :size, size:-1]
                normal[:, own, :size] = products[:, place, size:, :size]
                normal[:, own, own] = products[:, place, size:, size:-1]
                gradient[:, own] = products[:, place, size:, -1]
        normal[:, range(size), range(size)] += self.prior_weight
        gradient[:, :size] -= self.prior_weight * offset
        return normal, gradient

    def components(self, parameters: Tensor, amplitudes: Tensor) -> list[Tensor]:
        """Images of the components in each band, (batch, components, ny, nx)."""
        found: dict[int, Tensor] = {}
        by_band = amplitudes.unflatten(1, (self.bands, -1))
        for grid, drawn in zip(self.grids, self.rendered(parameters)):
            for place, number in enumerate(grid.numbers):
                found[number] = drawn.basis[:, place] * by_band[:, number, :, None, None]
        return [found[number] for number in range(self.bands)]

    def rendered(self, parameters: Tensor) -> list[Rendered]:
        """The components on each of the grids."""
        return render(parameters, self.layout, [grid.frame for grid in self.grids], fold=self.fold)


def _products(parts: Tensor) -> Tensor:
    """Of all but the last of ``parts`` (batch, bands, n + 1, M) with all, (batch, bands, n, n + 1): of many, those on
    one side of the diagonal alone are computed."""
    n = parts.shape[2] - 1
    if n <= _FEW:
        return parts[:, :, :-1] @ parts.transpose(-1, -2)
    found = parts.new_empty(*parts.shape[:2], n, n + 1)
    for start in range(0, n, _BLOCK):
        end = min(start + _BLOCK, n)
        found[:, :, start:end, start:] = parts[:, :, start:end] @ parts[:, :, start:].transpose(-1, -2)
        found[:, :, end:, start:end] = found[:, :, start:end, end:n].transpose(-1, -2)
    return found
