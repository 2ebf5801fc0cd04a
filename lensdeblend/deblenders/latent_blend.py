"""Galaxies of a blend as a trained network draws them: their images through the PSF and all derivatives.

The numbers of a galaxy are ``x``, ``y``, the logarithm of its half-light radius, ``e1``, ``e2``, the logarithm of its
Sérsic index, and its latent vector in the flow's white space, in which the prior is the unit Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from lensdeblend.deblenders.blend import Blend
from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.least_squares import DeferredState, State, nonnegative_amplitudes
from lensdeblend.lensing.standard_light import placed, standard_light
from lensdeblend.networks.galaxies import GalaxyAutoencoder

__all__ = ["PROFILE", "LatentBlend", "Seen"]

#: The numbers of a galaxy before its latent ones.
PROFILE = ("x", "y", "log_radius", "e1", "e2", "log_n")
_WIDEST_BORDER = 12
_STEPS = (0.05, 0.05, 0.01, 0.005, 0.005, 0.02)
# Of a latent number, whose prior has a width of 1.
_LATENT_STEP = 0.05


@dataclass(frozen=True)
class Seen:
    """Bands on one grid: ``numbers`` in the blend; ``data``, ``weight`` (bands, ny, nx), the noise being about 1 and
    the sky 0; ``psf`` (bands, ky, kx) or None; ``matrix``, ``offset`` from the first band's pixels to these."""

    numbers: tuple[int, ...]
    data: Tensor
    weight: Tensor
    psf: Tensor | None
    matrix: Tensor | None
    offset: Tensor | None

    @classmethod
    def all_of(cls, blend: Blend, levels: Sequence[float], device: str) -> list[Seen]:
        """One a grid and size of the PSF, in units of each band's noise."""
        groups: dict[tuple, list[int]] = {}
        for numbers in blend.grids:
            for number in numbers:
                psf = blend.bands[number].psf
                groups.setdefault((numbers[0], None if psf is None else psf.shape), []).append(number)

        def tensor(values) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        seen = []
        for numbers in groups.values():
            bands = [blend.bands[number] for number in numbers]
            first = bands[0]
            seen.append(cls(
                tuple(numbers),
                torch.stack([
                    tensor((band.data - levels[number]) * band.used / band.noise)
                    for number, band in zip(numbers, bands)
                ]),
                torch.stack([tensor(band.weight * band.noise) for band in bands]),
                None if first.psf is None else torch.stack([tensor(band.psf) for band in bands]),
                None if first.aligned else tensor(first.matrix), None if first.aligned else tensor(first.offset),
            ))
        return seen

    def images(self, profiles: Tensor, departure: Tensor, slopes: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Galaxies (n, 6) of flux 1 through the PSF, (n, bands, ny, nx), and their derivatives by latent numbers, (n,
        bands, numbers, ny, nx)."""
        ny, nx = self.data.shape[-2:]
        border = 0 if self.psf is None else min(max(self.psf.shape[-2:]) // 2, _WIDEST_BORDER)
        place = placed(
            profiles[:, :2], profiles[:, 2].exp(), profiles[:, 3], profiles[:, 4], matrix=self.matrix,
            offset=self.offset,
        )
        wide, derivatives = standard_light(
            replace(place, center=place.center + border), profiles[:, 5].exp(), departure,
            (ny + 2 * border, nx + 2 * border), slopes=slopes,
        )
        if self.psf is None:
            return wide, derivatives
        blur = Convolution(self.psf[:, None], (ny, nx), border)
        return blur(wide[:, :, None])[:, :, 0], None if derivatives is None else blur(derivatives)


@dataclass(frozen=True)
class LatentBlend:
    """What `lensdeblend.lensing.least_squares.descend` goes down in: parameters (1, n x (6 + latent)), galaxy by
    galaxy; amplitudes are fluxes in units of the noise, (1, bands x n), band by band.

    ``kinds`` (n, ...): what the flow is told of each galaxy. ``shown``: for each band of the blend, which of the
    network's it is. ``prior_mean``, ``prior_weight`` (n, 6 + latent).
    """

    network: GalaxyAutoencoder
    kinds: Tensor
    shown: tuple[int, ...]
    seen: Sequence[Seen]
    prior_mean: Tensor
    prior_weight: Tensor

    def __len__(self) -> int:
        return len(self.kinds)

    def __call__(self, parameters: Tensor) -> State:
        numbers = parameters[0].unflatten(0, (len(self), -1))
        offset = numbers - self.prior_mean
        objective = (self.prior_weight * offset * offset).sum()
        amplitudes = parameters.new_zeros(len(self.shown), len(self))
        for group, images in zip(self.seen, self.images(numbers)):
            basis = (images * group.weight).flatten(2).transpose(0, 1)
            data = (group.data * group.weight).flatten(1)
            own = nonnegative_amplitudes(basis, data)
            amplitudes[list(group.numbers)] = own
            objective = objective + (data - (own[:, None] @ basis)[:, 0]).square().sum()
        return DeferredState(
            amplitudes.flatten()[None], objective[None], partial(self._normal, numbers, offset, amplitudes)
        )

    def departures(self, white: Tensor) -> Tensor:
        """Latent vectors in the white space (n, latent) to (n, bands of the network, m, m)."""
        return self.network.decode(self.network.latents(white, self.kinds))

    def images(self, numbers: Tensor) -> list[Tensor]:
        """Galaxies (n, 6 + latent) of flux 1, (n, bands, ny, nx) on each grid."""
        departure = self.departures(numbers[:, len(PROFILE):])
        return [group.images(numbers[:, :len(PROFILE)], self._own(group, departure))[0] for group in self.seen]

    def linearised(self, numbers: Tensor, amplitudes: Tensor) -> Tensor:
        """Derivatives of the whole model in units of the noise by all parameters and amplitudes, (n x (6 + latent) +
        bands x n, pixels of all bands)."""
        profiles, white = numbers.split((len(PROFILE), numbers.shape[1] - len(PROFILE)), 1)
        departure, slopes = self._with_slopes(white)
        size, count = numbers.numel(), len(self)
        parts = []
        for group in self.seen:
            own, own_slopes = self._own(group, departure), self._own(group, slopes)
            here, by_latent = group.images(profiles, own, own_slopes)
            steps = torch.diag(profiles.new_tensor(_STEPS))
            by_profile = torch.stack([
                (group.images(profiles + step, own)[0] - group.images(profiles - step, own)[0]) / (2 * step.max())
                for step in steps
            ], 2)
            slopes_here = torch.cat([by_profile, by_latent], 2) * group.weight[:, None]
            for place, number in enumerate(group.numbers):
                flux = amplitudes[number]
                rows = here.new_zeros(size + amplitudes.numel(), group.data[0].numel())
                rows[:size] = (slopes_here[:, place] * flux[:, None, None, None]).flatten(0, 1).flatten(1)
                begin = size + number * count
                rows[begin:begin + count] = (here[:, place] * group.weight[place]).flatten(1)
                parts.append(rows)
        return torch.cat(parts, 1)

    def residual(self, numbers: Tensor, amplitudes: Tensor) -> Tensor:
        """Data less model in units of the noise, (pixels of all bands,), in the order of `linearised`."""
        parts = []
        for group, images in zip(self.seen, self.images(numbers)):
            model = torch.einsum("bn,nbyx->byx", amplitudes[list(group.numbers)], images)
            parts.append(((group.data - model) * group.weight).flatten())
        return torch.cat(parts)

    def _own(self, group: Seen, maps: Tensor) -> Tensor:
        return maps[:, [self.shown[number] for number in group.numbers]]

    def _with_slopes(self, white: Tensor) -> tuple[Tensor, Tensor]:
        """Departures, and their derivatives (n, bands, latent, m, m)."""
        here, slopes = self.departures(white), []
        for step in torch.eye(white.shape[1], dtype=white.dtype, device=white.device) * _LATENT_STEP:
            slopes.append((self.departures(white + step) - here) / _LATENT_STEP)
        return here, torch.stack(slopes, 2)

    def _normal(self, numbers: Tensor, offset: Tensor, amplitudes: Tensor) -> tuple[Tensor, Tensor]:
        slopes, size = self.linearised(numbers, amplitudes), numbers.numel()
        normal, gradient = slopes @ slopes.T, slopes @ self.residual(numbers, amplitudes)
        normal[range(size), range(size)] += self.prior_weight.flatten()
        gradient[:size] -= (self.prior_weight * offset).flatten()
        return normal[None], gradient[None]
