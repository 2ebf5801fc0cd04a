r"""Deflection of a convergence that is given on square cells.

.. math::

    \alpha(\theta) = \frac{1}{\pi} \int \kappa(\theta')\, \frac{\theta - \theta'}{|\theta - \theta'|^2}\, d^2\theta',

:math:`\kappa` even within each cell, so that the integral over a cell is known in closed form and the sum over cells
is a convolution. It is had at the cells' centres, by FFT without wrap-around, and read off between them bilinearly.
Being that of a surface density, it is the gradient of a potential whatever the cells hold, and the mass is positive
where they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lensdeblend.lensing.convolution import Convolution

__all__ = ["Clumps"]


class Clumps:
    """Square cells of convergence about the origin, and what they do to rays on a rectangular grid.

    Parameters
    ----------
    shape : tuple of int
        (rows, columns) of cells.
    cell : float
        Arcsec a side.
    x, y : Tensor
        Of the rays, arcsec: the columns and the rows of their grid.

    Examples
    --------
    >>> import torch
    >>> from lensdeblend.lensing.clumps import Clumps
    >>> one = torch.zeros(1, 9, 9)
    >>> one[0, 4, 4] = torch.pi
    >>> far, _ = Clumps((9, 9), 0.1, torch.tensor([0.4]), torch.tensor([0.0]))(one)
    >>> print(f"{far.item():.4f}, of a point mass {0.1**2 / 0.4:.4f}")
    0.0250, of a point mass 0.0250
    """

    def __init__(self, shape: tuple[int, int], cell: float, x: Tensor, y: Tensor):
        self.shape, self.cell = shape, cell
        # Rays outside the cells' centres need cells to be read off between, too.
        beyond = [
            max(0, math.ceil(float(at.abs().max()) / cell - (n - 1) / 2)) for at, n in zip((y, x), shape)
        ]
        self._beyond = max(beyond)
        wide = tuple(n + 2 * self._beyond for n in shape)
        self._convolution = Convolution(_kernel(wide).to(x) * cell, wide)
        self._rows, self._columns = (_between(at / cell + (n - 1) / 2, n) for at, n in zip((y, x), wide))

    def __call__(self, convergence: Tensor) -> tuple[Tensor, Tensor]:
        """x and y of the deflection (batch, rays), row by row, of convergences (batch, rows, columns); arcsec."""
        wide = torch.nn.functional.pad(convergence, (self._beyond,) * 4)
        at_centres = self._convolution(wide[:, None])
        return (self._rows @ at_centres @ self._columns.T).flatten(2).unbind(1)

    def convergence(self, convergence: Tensor) -> Tensor:
        """The cells read off at the rays (batch, rows, columns), bilinearly as the deflection is."""
        wide = torch.nn.functional.pad(convergence, (self._beyond,) * 4)
        return self._rows @ wide @ self._columns.T


def _kernel(shape: tuple[int, int]) -> Tensor:
    """Deflection (2, rows, columns), at all offsets within the shape, of a cell of side and convergence 1."""
    y, x = (torch.arange(-n + 0.5, n, dtype=torch.float64) for n in shape)
    along_x, along_y = _antiderivative(x[None], y[:, None]), _antiderivative(y[:, None], x[None])

    def within(corner: Tensor) -> Tensor:
        return corner.diff(dim=0).diff(dim=1)

    return torch.stack([within(along_x), within(along_y)]) / math.pi


def _antiderivative(x: Tensor, y: Tensor) -> Tensor:
    """Of x / (x^2 + y^2), over both, but for what depends on one of them alone."""
    return 0.5 * y * torch.log(x * x + y * y) + x * torch.atan(y / x)


def _between(place: Tensor, n: int) -> Tensor:
    """Weights (places, n) that read off linearly between whole numbers."""
    first = place.floor().clamp(0, n - 2)
    share = place - first
    weights = place.new_zeros(len(place), n)
    rows, first = torch.arange(len(place)), first.long()
    weights[rows, first] = 1 - share
    weights[rows, first + 1] = share
    return weights
