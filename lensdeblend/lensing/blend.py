"""Damped least squares for a blend: galaxies in several bands at once, one shape and a flux a band each.

Batched: the problems of a batch share their layout and the shapes of their bands, not their data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lensdeblend.lensing.fourier import FourierFrame, GalaxyLayout, Rendered, render
from lensdeblend.lensing.least_squares import State, nonnegative_amplitudes

__all__ = ["BandData", "BlendProblem"]


@dataclass(frozen=True)
class BandData:
    """One band of a batch of blends.

    ``data`` (batch or 1, ny, nx); ``weight`` likewise, one over the noise, 0 where masked.
    """

    frame: FourierFrame
    data: Tensor
    weight: Tensor


@dataclass(frozen=True)
class BlendProblem:
    """What stays the same while galaxies move and grow.

    ``prior_mean``, ``prior_weight`` (P,) or (batch, P): Gaussian priors on the parameters of `GalaxyLayout`.
    ``fold``: as for `~lensdeblend.lensing.fourier.render`. Amplitudes are the fluxes of the components, band by band:
    (batch, bands x components).
    """

    layout: GalaxyLayout
    bands: Sequence[BandData]
    prior_mean: Tensor
    prior_weight: Tensor
    fold: bool = True

    def __call__(self, parameters: Tensor) -> State:
        """The state that `lensdeblend.lensing.least_squares.descend` goes down from."""
        size, components = len(self.layout.names), len(self.layout.galaxy)
        whole = size + components * len(self.bands)
        offset = parameters - self.prior_mean
        objective = (self.prior_weight * offset * offset).sum(-1)
        normal = parameters.new_zeros(len(parameters), whole, whole)
        gradient = parameters.new_zeros(len(parameters), whole)
        fluxes = []
        for number, (band, drawn) in enumerate(zip(self.bands, self._render(parameters))):
            basis = (drawn.basis * band.weight[:, None]).flatten(2)
            data = (band.data * band.weight).flatten(1).expand(len(parameters), -1)
            amplitudes = nonnegative_amplitudes(basis, data)
            fluxes.append(amplitudes)
            residual = data - (amplitudes[:, None] @ basis)[:, 0]
            slopes = (drawn.derivatives(amplitudes) * band.weight[:, None]).flatten(2)
            joint = torch.cat([slopes, basis], 1)
            products = joint @ torch.cat([joint, residual[:, None]], 1).transpose(-1, -2)
            own = slice(size + number * components, size + (number + 1) * components)
            normal[:, :size, :size] += products[:, :size, :size]
            normal[:, :size, own] = products[:, :size, size:-1]
            normal[:, own, :size] = products[:, size:, :size]
            normal[:, own, own] = products[:, size:, size:-1]
            gradient[:, :size] += products[:, :size, -1]
            gradient[:, own] = products[:, size:, -1]
            objective = objective + (residual * residual).sum(-1)
        normal[:, range(size), range(size)] += self.prior_weight
        gradient[:, :size] -= self.prior_weight * offset
        return State(torch.cat(fluxes, 1), objective, normal, gradient)

    def components(self, parameters: Tensor, amplitudes: Tensor) -> list[Tensor]:
        """Images of the components in each band, (batch, components, ny, nx)."""
        drawn = self._render(parameters)
        count = len(self.layout.galaxy)
        return [
            band.basis * amplitudes[:, k * count:(k + 1) * count, None, None] for k, band in enumerate(drawn)
        ]

    def _render(self, parameters: Tensor) -> list[Rendered]:
        return render(parameters, self.layout, [band.frame for band in self.bands], fold=self.fold)
