r"""How galaxies depart from their profiles: a Gaussian process for each, its strength read off the data.

The departures :math:`g_i` of galaxy :math:`i`, fractions of its light, are even (:math:`s`) and odd (:math:`a`) under
half a turn about its centre,

.. math::

    \langle g_i(x) g_i(x') \rangle = \tfrac{s_i^2}{2} [k(x - x') + k(x + x' - 2 c_i)]
    + \tfrac{a_i^2}{2} [k(x - x') - k(x + x' - 2 c_i)],

with :math:`k` a Gaussian of the galaxy's size, common to the bands but for a tenth. :math:`s_i` and :math:`a_i` are
raised or lowered until the evidence is stationary (MacKay 1992, 10.1162/neco.1992.4.3.415), traces estimated with
random signs (Hutchinson 1990, 10.1080/03610919008812866).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.conjugate_gradients import conjugate_gradients
from lensdeblend.deblenders.effective_area import effective_area
from lensdeblend.deblenders.galaxy_windows import GalaxyWindows

__all__ = ["Departures"]

# Widths of departures in units of the galaxy's size: those modelled, and those tested for.
_WIDTH, _TESTED_WIDTH = 1.0, 0.5
_NARROWEST = 1.0
# Of the variance, what the bands have in common.
_COMMON = 0.9
# Standard deviations of the score.
_LEAST_SCORE = 3.0
_FIRST_EVEN, _FIRST_ODD, _LARGEST, _SMALLEST = 0.5, 0.25, 1.0, 1e-2
_ROUNDS = 4
# By how much a variance may change in a round.
_MOST_CHANGE = 0.1, 4.0
# How far a galaxy's variance is that of all galaxies of the blend: one alone often says little.
_SHARED = 0.3
# Squares that may be left, of the noise's or of all.
_SOLVED, _CHI2_SOLVED, _ERRORS_SOLVED = 1e-2, 1e-3, 1e-6
_NUMBERS_AT_ONCE = 2e7
# In units of the noise, and of the galaxy's size: what light may have structure.
_SHOWN, _REACH = 0.05, 5.0


@dataclass(frozen=True)
class _Kernel:
    """Gaussians of the galaxies' widths as products of matrices along the axes: as it is, and turned by half a turn."""

    plain: tuple[Tensor, Tensor]
    turned: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, shape: tuple[int, int], positions: Tensor, widths: Tensor) -> _Kernel:
        plain, turned = [], []
        for size, centre in zip(shape, positions.flip(1).unbind(1)):
            place = torch.arange(size, dtype=widths.dtype, device=widths.device)
            inverse = 0.5 / widths[:, None, None] ** 2
            plain.append(torch.exp(-((place[:, None] - place) ** 2) * inverse))
            turned.append(torch.exp(-((place[:, None] + place - 2 * centre[:, None, None]) ** 2) * inverse))
        return cls((plain[0], plain[1]), (turned[0], turned[1]))

    def __call__(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Of (..., n, ny, nx)."""
        (down, across), (down_turned, across_turned) = self.plain, self.turned
        return down @ maps @ across, down_turned @ maps @ across_turned

    @property
    def turned_diagonal(self) -> Tensor:
        down, across = (part.diagonal(dim1=-2, dim2=-1) for part in self.turned)
        return down[:, :, None] * across[:, None, :]

    def squared(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``maps`` through the squares of both and through their product, element by element."""
        (down, across), (down_turned, across_turned) = self.plain, self.turned
        return (
            down**2 @ maps @ across**2, down_turned**2 @ maps @ across_turned**2,
            (down * down_turned) @ maps @ (across * across_turned),
        )


@dataclass(frozen=True)
class Departures:
    """Of galaxies in their windows, in bands on the same pixels and in units of their noise.

    ``weight`` (bands, ny, nx) is one over the noise, 0 where masked; ``residual`` (bands, ny, nx); ``galaxies`` (bands,
    n, h, w), 0 where masked; ``shares`` (bands, n, h, w): each galaxy's light as a share of its own in all bands;
    ``positions`` (n, 2) in the windows.
    """

    windows: GalaxyWindows
    weight: Tensor
    residual: Tensor
    galaxies: Tensor
    shares: Tensor
    positions: Tensor
    sizes: Tensor

    @classmethod
    def of(
        cls, blend: Blend, numbers: Sequence[int], images, positions: np.ndarray, levels, device: str, *,
        unexplained: float = 0.0,
    ) -> Departures:
        """In the bands of these ``numbers``; ``unexplained`` of the model, pixel by pixel, counts as noise."""
        bands = [blend.bands[number] for number in numbers]
        light = np.array([images[number].clip(0) for number in numbers])
        weight = np.array([band.weight for band in bands])
        data = np.array([band.data - levels[number] for number, band in zip(numbers, bands)])
        models = np.array([images[number].sum(0) for number in numbers])
        weight = weight / np.sqrt(1 + (unexplained * models * weight) ** 2)
        total = light.sum((-1, -2), keepdims=True)
        shares = np.divide(light, total * len(bands), out=np.zeros_like(light), where=total > 0)
        places = positions @ bands[0].matrix.T + bands[0].offset
        galaxies, sizes = light * weight[:, None], _sizes(light.sum(0))
        row, column = np.indices(light.shape[-2:])
        far = np.maximum(np.abs(column - places[:, 0, None, None]), np.abs(row - places[:, 1, None, None]))
        windows = GalaxyWindows.around((galaxies > _SHOWN).any(0) & (far < _REACH * sizes[:, None, None]))
        weight, residual, galaxies, shares, places, sizes = (
            torch.as_tensor(part, dtype=torch.float64, device=device)
            for part in (weight, (data - models) * weight, galaxies, shares, places, sizes)
        )
        corners = torch.stack([windows.columns[:, 0], windows.rows[:, 0]], 1).to(places)
        return cls(windows, weight, residual, windows.own(galaxies), windows.own(shares), places - corners, sizes)

    @cached_property
    def kernel(self) -> _Kernel:
        return self._kernel(_WIDTH)

    def _kernel(self, width: float) -> _Kernel:
        widths = (width * self.sizes).clamp_min(_NARROWEST)
        return _Kernel.of(tuple(self.galaxies.shape[-2:]), self.positions, widths)

    def _mixed(self, maps: Tensor, common: float = _COMMON) -> Tensor:
        """``maps`` (..., bands, n, ny, nx) through the correlation of the bands."""
        if maps.shape[-4] == 1:
            return maps
        return common * maps.sum(-4, keepdim=True) + (1 - common) * maps

    @property
    def shines(self) -> Tensor:
        """Which galaxies have light that shows: (n,)."""
        return (self.galaxies > _SHOWN).any(3).any(2).any(0)

    def significant(self) -> bool:
        """Whether a galaxy departs from its profiles by more than noise: the score test of the two variances."""
        kernel = self._kernel(_TESTED_WIDTH)
        maps, information = self.galaxies * self.windows.cut(self.residual), self.galaxies**2
        plain, turned = ((self._mixed(maps) * part).sum((0, 2, 3)) for part in kernel(maps))
        expected = information.sum((0, 2, 3)), (information * kernel.turned_diagonal).sum((0, 2, 3))
        mixed = self._mixed(information, _COMMON**2)
        both, both_turned, crossed = ((mixed * part).sum((0, 2, 3)) for part in kernel.squared(information))
        for sign in (1, -1):
            score = (plain - expected[0] + sign * (turned - expected[1])) / 2
            variance = (both + both_turned + sign * 2 * crossed) / 2
            if bool((score > _LEAST_SCORE * variance.clamp_min(1e-300).sqrt()).any()):
                return True
        return False

    def likeliest(self) -> tuple[Tensor, Tensor, float]:
        """The variances (2, n), even and odd, at the evidence's maximum, the departures (bands, n, ny, nx), and how
        many numbers these are."""
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=tuple(self.residual.shape))
        right = torch.stack([self.residual, torch.as_tensor(signs).to(self.residual)])
        first = self.residual.new_tensor([[_FIRST_EVEN], [_FIRST_ODD]]) ** 2
        variances, solution = first.repeat(1, self.galaxies.shape[1]), torch.zeros_like(right)
        enough = right.new_full((len(right),), _SOLVED * self.residual.numel())
        for number in range(_ROUNDS):
            solution = self._solved(variances, right, solution, enough)
            parts = self._through(solution)
            products = [
                torch.stack([(self.galaxies * self.windows.cut(vector) * part[k]).sum((0, 2, 3)) for part in parts])
                for k, vector in enumerate((solution[0], right[1]))
            ]
            # Of the even and the odd part: what the data say of it, and what noise and prior alone would.
            said, expected = ((sums[0] + self._signs * sums[1]) / 2 for sums in products)
            if number < _ROUNDS - 1:
                ratio = (said + _SHARED * said.sum(1, keepdim=True)) / (
                    expected + _SHARED * expected.sum(1, keepdim=True)
                ).clamp_min(1e-9)
                variances = (variances * ratio.clamp(*_MOST_CHANGE)).clamp(_SMALLEST**2, _LARGEST**2)
        departure = self._combined(variances, *(part[0] for part in parts)).clamp_min(-1)
        return variances, departure, float((variances * expected).sum().clamp_min(0))

    @property
    def _signs(self) -> Tensor:
        return self.residual.new_tensor([[1.0], [-1.0]])

    def strength(self, variances: Tensor) -> Tensor:
        """Root mean square (n,) of the departures, a fraction; 0 where nothing shows."""
        return self.shines * variances.mean(0).sqrt()

    def at_bound(self, variances: Tensor) -> Tensor:
        """Which galaxies depart by as much as may be: (n,)."""
        return self.shines & (variances >= 0.99 * _LARGEST**2).any(0)

    def chi2(self, residuals: Tensor, variances: Tensor) -> Tensor:
        """Of ``residuals`` (k, bands, ny, nx), departures of these ``variances`` (2, n) counted as noise: (k,)."""
        enough = _CHI2_SOLVED * residuals.square().sum((1, 2, 3))
        return (residuals * self._solved(variances, residuals, torch.zeros_like(residuals), enough)).sum((1, 2, 3))

    def flux_errors(self, variances: Tensor) -> np.ndarray:
        """Standard deviations (n,) of the galaxies' fluxes, relative, that their departures leave: as the mean over the
        bands."""
        plain, turned = self.kernel(self._mixed(self.shares))
        told = self._combined(variances, plain, turned)
        prior = (self.shares * told).sum((0, 2, 3))
        right = self.windows.framed(self.galaxies * told).transpose(0, 1)
        # Galaxies far from each other do not need to know of each other.
        groups = self.windows.apart()
        together = torch.stack([right[group].sum(0) for group in groups])
        at_once = max(1, int(_NUMBERS_AT_ONCE / self.galaxies.numel()))
        known = torch.zeros_like(prior)
        solved = torch.cat([
            self._solved(variances, some, torch.zeros_like(some), _ERRORS_SOLVED * some.square().sum((1, 2, 3)))
            for some in together.split(at_once)
        ])
        for group, solution in zip(groups, solved):
            known[group] = (right[group] * solution).sum((1, 2, 3))
        return (prior - known).clamp_min(0).sqrt().cpu().numpy()

    def _through(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        return self.kernel(self._mixed(self.galaxies * self.windows.cut(vectors)))

    def _combined(self, variances: Tensor, plain: Tensor, turned: Tensor) -> Tensor:
        even, odd = variances[:, :, None, None]
        return (even + odd) / 2 * plain + (even - odd) / 2 * turned

    def _solved(self, variances: Tensor, right: Tensor, begin: Tensor, enough: Tensor) -> Tensor:
        """The data's covariance, noise and departures, inverted on ``right`` (k, bands, ny, nx)."""
        diagonal = 1 + self.windows.summed(self.galaxies**2 * variances.mean(0)[:, None, None])

        def covariance(vectors: Tensor) -> Tensor:
            return vectors + self.windows.summed(self.galaxies * self._combined(variances, *self._through(vectors)))

        return conjugate_gradients(covariance, diagonal, right, begin, enough)


def _sizes(images: np.ndarray) -> np.ndarray:
    """Standard deviations (n,) of the Gaussians that fill as many pixels."""
    return np.sqrt(effective_area(images) / (4 * np.pi))
