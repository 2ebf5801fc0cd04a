r"""The most likely convergence beside a smooth lens, on square cells.

.. math::

    \min_{p, a, \kappa}\; \frac{1}{s} \sum_i w_i^2 \Big(d_i - \sum_k a_k m_{ik}(p, \kappa)\Big)^2
    + \sum_j \frac{(p_j - c_j)^2}{\sigma_j^2} + \sum_c \frac{\kappa_c^2}{\sigma_\kappa^2},

by Gauss-Newton steps on all at once, damped as Levenberg and Marquardt do: lens and Sérsic profiles :math:`p`, fluxes
:math:`a` and the cells, whose deflection follows from their convergence (`lensdeblend.lensing.clumps`); :math:`s` is
the reduced chi-square where that is above 1. This is the gravitational imaging of Koopmans 2005 (2005MNRAS.363.1136K)
and Vegetti & Koopmans 2009 (2009MNRAS.392..945V), for convergence in place of the potential and for profiles in place
of a pixelated source, which could take up what the cells are there for.

Whether cells are called for is asked of the evidence, to second order about the two most likely models, with cells and
without: cells that only follow the noise cost more than they gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lensdeblend.lensing.cells import Cells
from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.least_squares import nonnegative_amplitudes
from lensdeblend.lensing.parametric import SersicLens
from lensdeblend.lensing.subdivision import PixelGrid, Subdivision, refine

__all__ = ["LensPrior", "SeenLens", "SubstructureFit", "most_likely_substructure"]

_MOST_CELLS = 40_000
_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e-7, 1e4
# Of the objective: a step that gains less is the last.
_GAIN = 1.0
# In sigma: pixels that cells as the prior has them change by less tell nothing of cells.
_DARK = 0.1


@dataclass(frozen=True)
class SeenLens:
    """An image without its sky, one over its noise (0 where masked), the PSF on its pixels, their grid with as much
    border as the PSF carries light, and the flux of a pixel that is not worth dividing it for."""

    data: Tensor
    weight: Tensor
    kernel: Tensor | None
    grid: PixelGrid
    finest: float


@dataclass(frozen=True)
class LensPrior:
    """Of lens and profiles (P,), middle and standard deviation, and the standard deviation of the cells."""

    center: Tensor
    spread: Tensor
    cells: float


@dataclass(frozen=True)
class SubstructureFit:
    """The most likely model.

    Attributes
    ----------
    parameters : Tensor
        (P,), as of `SersicLens`.
    fluxes : Tensor
        (K,).
    cells : Tensor
        Convergences (rows, columns); 0 where the evidence is for none.
    chi2 : float
        Over all pixels that are used.
    freedom : float
        These, less what the data determine of the parameters.
    evidence : float
        Log of the evidence of cells over that of none.
    units : Tensor
        Of all parameters, (P + K + cells,).
    root : Tensor
        In these units, the Cholesky factor of the inverse covariance: where there are no cells, still that of what the
        data leave open about cells.
    """

    parameters: Tensor
    fluxes: Tensor
    cells: Tensor
    chi2: float
    freedom: float
    evidence: float
    units: Tensor
    root: Tensor

    @property
    def covariance(self) -> Tensor:
        """Of parameters, fluxes and cells, in this order."""
        return torch.cholesky_inverse(self.root) * self.units[:, None] * self.units

    def draws(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Departures from the fit, drawn from the covariance: (count, P), (count, K), (count, rows, columns)."""
        noise = torch.as_tensor(rng.standard_normal((len(self.units), count)))
        drawn = (torch.linalg.solve_triangular(self.root.T, noise, upper=True) * self.units[:, None]).T
        parameters, fluxes, cells = drawn.split([len(self.parameters), len(self.fluxes), self.cells.numel()], 1)
        return parameters, fluxes, cells.unflatten(1, self.cells.shape)


def most_likely_substructure(
    model: SersicLens, cells: Cells, seen: SeenLens, parameters: Tensor, fluxes: Tensor, prior: LensPrior,
    *, steps: int = 8,
) -> SubstructureFit:
    """Fit lens, profiles, fluxes and cells together.

    Parameters
    ----------
    model : SersicLens
    cells : Cells
    seen : SeenLens
        Double precision, as all else.
    parameters, fluxes : Tensor
        (P,) and (K,) to start from, without cells.
    prior : LensPrior
    steps : int
        At most, without cells and then with them; fewer where steps no longer gain.
    """
    view = _View(model, cells, seen, prior, parameters, fluxes)
    smooth = view.descended(view.at(parameters, torch.zeros(cells.count, cells.count, dtype=parameters.dtype)), steps)
    view.choose(smooth)
    clumpy = view.descended(smooth, steps)
    # The light has moved beside the rays that were chosen for it.
    view.divide(clumpy)
    clumpy = view.descended(view.at(clumpy.parameters, clumpy.cells), 2)
    smooth = view.at(smooth.parameters, smooth.cells)
    factor = max(clumpy.chi2 / view.count, 1.0)
    matrix, lean = view.normal(clumpy, factor), view.normal(smooth, factor, with_cells=False)
    evidence = _log_evidence(clumpy, matrix, factor) - _log_evidence(smooth, lean, factor)
    called_for = evidence > 0
    chosen = clumpy if called_for else smooth
    if not called_for:
        matrix = view.normal(smooth, max(smooth.chi2 / view.count, 1.0))
    inverse_diagonal = torch.cholesky_inverse(torch.linalg.cholesky(matrix)).diagonal()
    told = float((1 - view.prior_diagonal(matrix) * inverse_diagonal).sum()) if called_for else view.lean
    return SubstructureFit(
        chosen.parameters, chosen.fluxes, chosen.cells, chosen.chi2, view.count - told, float(evidence),
        view.units(chosen), torch.linalg.cholesky(matrix),
    )


@dataclass
class _State:
    parameters: Tensor
    cells: Tensor
    fluxes: Tensor
    basis: Tensor
    residual: Tensor
    chi2: float
    penalty: float

    def cost(self, factor: float) -> float:
        return self.chi2 / factor + self.penalty


class _View:
    """The model as seen on the pixels that are used, and its derivatives, by cells once they are chosen."""

    def __init__(self, model: SersicLens, cells: Cells, seen: SeenLens, prior: LensPrior, parameters, fluxes):
        self.model, self.cells, self.seen, self.prior = model, cells, seen, prior
        flat = seen.weight.reshape(-1)
        self._used = torch.nonzero(flat > 0).reshape(-1)
        self._weight = flat[self._used]
        self._data = seen.data.reshape(-1)[self._used] * self._weight
        self.count = len(self._used)
        self.lean = len(model.names) + model.components
        self._convolution = None
        if seen.kernel is not None:
            self._convolution = Convolution(seen.kernel, seen.grid.shape, seen.grid.border)
        self._area = seen.grid.scale**2
        self._slopes_of = self._slopes = self._lit = None
        self._divided(parameters, fluxes, None)

    def divide(self, state: _State) -> None:
        """Cut pixels anew, as the light asks for that is there now."""
        self._divided(state.parameters, state.fluxes, self._bend(state.cells))
        self._slopes_of = None

    def _divided(self, parameters: Tensor, fluxes: Tensor, bend) -> None:
        grid = self.seen.grid
        least = torch.full((grid.size,), self.seen.finest, dtype=torch.float64)

        def light(x: Tensor, y: Tensor) -> Tensor:
            return fluxes @ self.model.brightness(parameters[None], x, y, bend)[0] * self._area

        self._subdivision: Subdivision = refine(grid, light, least, most=_MOST_CELLS + 4 * grid.size)

    def _bend(self, cells: Tensor):
        return self.cells.bend(cells) if bool(cells.any()) else None

    def at(self, parameters: Tensor, cells: Tensor) -> _State:
        bend = self._bend(cells)
        unseen = self._subdivision.render(lambda x, y: self.model.brightness(parameters[None], x, y, bend)[0])
        basis = self._weigh(self._see(unseen * self._area))
        fluxes = nonnegative_amplitudes(basis, self._data)
        residual = self._data - fluxes @ basis
        off = (parameters - self.prior.center) / self.prior.spread
        penalty = float(off.square().sum() + (cells / self.prior.cells).square().sum())
        return _State(parameters, cells, fluxes, basis, residual, float(residual.square().sum()), penalty)

    def units(self, state: _State) -> Tensor:
        """What the normal matrix counts in: the prior's spreads, and the fluxes themselves."""
        fluxes = torch.where(state.fluxes > 0, state.fluxes, torch.ones_like(state.fluxes))
        return torch.cat([self.prior.spread, fluxes, torch.full_like(state.cells.flatten(), self.prior.cells)])

    def descended(self, now: _State, steps: int) -> _State:
        """As far as ``steps`` lower the objective; cells move once they are chosen."""
        damping = _DAMPING
        for _ in range(steps):
            factor = max(now.chi2 / self.count, 1.0)
            normal, downward = self.normal(now, factor), self._downward(now, factor)
            units = self.units(now)[:len(downward)]
            gain = 0.0
            while damping < _MOST_DAMPING:
                damped = normal + damping * torch.diag(normal.diagonal())
                step = torch.cholesky_solve(downward[:, None], torch.linalg.cholesky(damped))[:, 0] * units
                moved, _, bent = step.split([len(self.model.names), self.model.components, len(step) - self.lean])
                bent = bent.reshape(now.cells.shape) if len(bent) else torch.zeros_like(now.cells)
                trial = self.at(now.parameters + moved, now.cells + bent)
                gain = now.cost(factor) - trial.cost(factor)
                if gain > 0:
                    now, damping = trial, max(0.1 * damping, _LEAST_DAMPING)
                    break
                damping = 10 * max(damping, 1e-1 * _DAMPING)
            if gain < _GAIN:
                break
        return now

    def normal(self, state: _State, factor: float, with_cells: bool = True) -> Tensor:
        """Inverse covariance, the prior's included, in `units`."""
        lean, by_cells = self._linearised(state, with_cells)
        whole = lean @ lean.T
        if by_cells is not None:
            across = (lean[:, self._lit].float() @ by_cells.T).double()
            whole = torch.cat([
                torch.cat([whole, across], 1), torch.cat([across.T, (by_cells @ by_cells.T).double()], 1)
            ])
        whole = whole / factor
        return whole + torch.diag(self.prior_diagonal(whole))

    def prior_diagonal(self, normal: Tensor) -> Tensor:
        """Of the prior, in `units`: fluxes have hardly any."""
        diagonal = torch.ones(len(normal), dtype=normal.dtype)
        fluxes = slice(len(self.model.names), self.lean)
        told = normal.diagonal()[fluxes]
        diagonal[fluxes] = torch.where(told > 0, 1e-9 * told, torch.ones_like(told))
        return diagonal

    def _downward(self, state: _State, factor: float) -> Tensor:
        lean, by_cells = self._linearised(state)
        downward = lean @ state.residual / factor
        downward[:len(self.model.names)] -= (state.parameters - self.prior.center) / self.prior.spread
        if by_cells is None:
            return downward
        told = (by_cells @ state.residual[self._lit].float()).double() / factor
        return torch.cat([downward, told - state.cells.flatten() / self.prior.cells])

    def _linearised(self, state: _State, with_cells: bool = True) -> tuple[Tensor, Tensor | None]:
        """Derivatives, in `units`, by parameters and fluxes over the used pixels, and by cells over the lit ones."""
        with_cells = with_cells and self._lit is not None
        if self._slopes_of != (id(state), with_cells):
            unseen = self._unseen_slopes(state)
            by_parameters = self._weigh(self._see(unseen)) * self.prior.spread[:, None]
            lean = torch.cat([by_parameters, state.basis * state.fluxes[:, None]])
            self._slopes_of = id(state), with_cells
            self._slopes = lean, self._by_cells(unseen) if with_cells else None
        return self._slopes

    def _unseen_slopes(self, state: _State) -> Tensor:
        bend = self._bend(state.cells)

        def slopes(x: Tensor, y: Tensor) -> Tensor:
            _, told = self.model.brightness_and_slopes(state.parameters[None], x, y, bend)
            rows = torch.zeros(len(self.model.names), len(x), dtype=x.dtype)
            for flux, entries in zip(state.fluxes, told):
                for column, values in entries:
                    rows[column] += flux * values[0]
            return rows

        return self._subdivision.render(slopes) * self._area

    def choose(self, state: _State) -> None:
        """From here on cells move; what they do is followed where the sources shine."""
        grid, side = self.seen.grid, self.cells.side
        shifts = self._shifts(self._unseen_slopes(state))
        # The scatter of the deflection, by the sum over independent cells.
        scatter = self.prior.cells * side * np.sqrt(2 / np.pi * np.log(self.cells.count + 1))
        change = self._see(torch.hypot(*shifts)) * self.seen.weight * scatter
        lit = change > min(_DARK, 0.5 * float(change.max()))
        rows, columns = (torch.nonzero(lit.any(axis)).reshape(-1) for axis in (1, 0))
        if len(rows) == 0:
            rows, columns = (torch.arange(n) for n in grid.shape)
        self._box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        number = torch.full((grid.shape[0] * grid.shape[1],), -1)
        number[self._used] = torch.arange(self.count)
        boxed = lit[self._box]
        self._lit, self._lit_in_box = number.reshape(grid.shape)[self._box][boxed], boxed
        shape = tuple(boxed.shape)
        centre = tuple(
            middle + ((along.start + along.stop - n) / 2) * grid.scale
            for middle, along, n in zip(grid.centre, reversed(self._box), reversed(grid.shape))
        )
        part = PixelGrid(shape, grid.scale, grid.border, centre)
        rays, count = self.cells.rays(part, torch.float32), self.cells.count
        unit = torch.eye(count**2).reshape(-1, count, count)
        self._bends = [axis.unflatten(1, part.padded_shape) for axis in rays(unit)]
        self._box_convolution = None
        if self.seen.kernel is not None:
            self._box_convolution = Convolution(self.seen.kernel.float(), shape, grid.border)
        self._slopes_of = None

    def _shifts(self, unseen: Tensor) -> Tensor:
        """What moving the sources does to the image before the PSF, which is what deflection does: (2, ...)."""
        starts = [self.model.light_columns(k).start for k in range(self.model.sources)]
        return torch.stack([sum(unseen[start + axis] for start in starts) for axis in (0, 1)])

    def _by_cells(self, unseen: Tensor) -> Tensor:
        """Cells are wider than pixels, so that their deflection hardly changes within one."""
        rows, columns = (slice(along.start, along.stop + 2 * self.seen.grid.border) for along in self._box)
        along_x, along_y = self._shifts(unseen)[:, rows, columns].float()
        images = self._bends[0] * along_x + self._bends[1] * along_y
        if self._box_convolution is not None:
            images = self._box_convolution(images)
        return images[:, self._lit_in_box] * (self._weight[self._lit].float() * self.prior.cells)

    def _see(self, unseen: Tensor) -> Tensor:
        return unseen if self._convolution is None else self._convolution(unseen)

    def _weigh(self, images: Tensor) -> Tensor:
        return images.flatten(-2)[..., self._used] * self._weight


def _log_evidence(state: _State, normal: Tensor, factor: float) -> float:
    """Up to what two models of the same data share."""
    return -0.5 * state.cost(factor) - float(torch.linalg.cholesky(normal).diagonal().log().sum())
