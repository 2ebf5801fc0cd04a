r"""Galaxies drawn in Fourier space: each a point, a Sérsic, or several Sérsics with one centre and one shape.

The transform of a galaxy through pixels and PSF is a product,

.. math::

    \sum_c a_c F_{n_c}\big(R_c \sqrt{k^T S\, k}\big) \; e^{-i k \cdot x} \; \mathrm{sinc}(k/2\pi) \; P(k),

with :math:`F_n` from `lensdeblend.lensing.hankel`, so that its derivatives are products too, and one inverse transform
of the small frame is all that a component or a derivative costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from lensdeblend.lensing.hankel import SersicTransform, sersic_transform

__all__ = ["FourierFrame", "FourierGrid", "GalaxyLayout", "Rendered", "render"]

_POINT = float(np.log(1e-2))
_EDGE = 8
_FOLDED, _FINER = 0.02, 3


@dataclass(frozen=True)
class FourierGrid:
    """The pixels of a band, padded so that light may leave the frame, and drawn ``finer`` times as finely, so that what
    no pixel can hold is folded back as pixels fold it.

    ``matrix`` (2, 2) and ``offset`` (2,), as tuples, take (x, y) from the centre of the first pixel of the reference
    band to the same of this one.
    """

    shape: tuple[int, int]
    size: tuple[int, int]
    matrix: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0))
    offset: tuple[float, float] = (0.0, 0.0)
    finer: int = 1

    @property
    def fine_size(self) -> tuple[int, int]:
        return self.size[0] * self.finer, self.size[1] * self.finer

    @property
    def wave_numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """kx, ky (py, px // 2 + 1), a pixel of this band."""
        rows, columns = self.fine_size
        kx, ky = np.fft.rfftfreq(columns, 1 / self.finer), np.fft.fftfreq(rows, 1 / self.finer)
        return tuple(2 * np.pi * k.copy() for k in np.broadcast_arrays(kx, ky[:, None]))


@dataclass(frozen=True)
class FourierFrame:
    """One band: its grid, the wave numbers ``kx``, ``ky`` (py, px // 2 + 1) a pixel of the reference band, and
    ``transfer``, what pixel, PSF and the offset of the grid do to a transform."""

    grid: FourierGrid
    kx: Tensor
    ky: Tensor
    transfer: Tensor

    @classmethod
    def of(
        cls, shape: tuple[int, int], psf: np.ndarray | None, *, matrix: np.ndarray | None = None,
        offset: np.ndarray | None = None, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu",
    ) -> FourierFrame:
        """Of a band whose pixel coordinates are ``matrix @ (x, y) + offset`` of the reference band's."""
        half = _EDGE if psf is None else max(max(psf.shape) // 2, _EDGE)
        size = tuple(next_fast_len(n + half, real=True) for n in shape)
        placed = {} if matrix is None else {"matrix": tuple(map(tuple, np.asarray(matrix, float).tolist()))}
        placed |= {} if offset is None else {"offset": tuple(np.asarray(offset, float).tolist())}
        blur = np.ones(size) if psf is None else _transform(np.asarray(psf, float), size)
        # What a PSF lets through at half a wave a pixel, it would let through folded.
        left = np.abs(blur[size[0] // 2, 0]), np.abs(blur[0, size[1] // 2])
        grid = FourierGrid(tuple(shape), size, **placed, finer=1 if max(left) < _FOLDED else _FINER)
        kx, ky = grid.wave_numbers
        transfer = np.sinc(kx / (2 * np.pi)) * np.sinc(ky / (2 * np.pi))
        transfer = transfer * np.exp(-1j * (kx * grid.offset[0] + ky * grid.offset[1]))
        rows, columns = (np.arange(n) % m for n, m in zip(kx.shape, size))
        transfer = transfer * blur[rows[:, None], columns] * grid.finer**2
        (xx, xy), (yx, yy) = grid.matrix
        complex_type = torch.complex64 if dtype == torch.float32 else torch.complex128
        return cls(
            grid, *(torch.as_tensor(k, dtype=dtype, device=device) for k in (xx * kx + yx * ky, xy * kx + yy * ky)),
            torch.as_tensor(transfer, dtype=complex_type, device=device),
        )

    def images(self, transforms: Tensor) -> Tensor:
        """(..., py, px // 2 + 1) to (..., ny, nx)."""
        (ny, nx), finer = self.grid.shape, self.grid.finer
        return torch.fft.irfft2(transforms * self.transfer, s=self.grid.fine_size)[..., ::finer, ::finer][..., :ny, :nx]


def _transform(psf: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Of the PSF about its middle, folded into the frame where it is larger."""
    folded = np.zeros(size)
    rows = (np.arange(psf.shape[0]) - psf.shape[0] // 2) % size[0]
    columns = (np.arange(psf.shape[1]) - psf.shape[1] // 2) % size[1]
    np.add.at(folded, (rows[:, None], columns[None, :]), psf)
    return np.fft.fft2(folded)


@dataclass(frozen=True)
class GalaxyLayout:
    """Which numbers describe which galaxy.

    Parameters
    ----------
    indices : sequence of tuples
        For each galaxy the Sérsic indices of its components; None for one that is free. An empty tuple is a point.

    The parameters are, galaxy by galaxy, ``x``, ``y`` (pixels of the reference band) and, unless it is a point,
    ``e1``, ``e2``, then for each component the logarithm of its half-light radius and, where it is free, of its index.
    """

    indices: tuple[tuple[float | None, ...], ...]
    names: tuple[str, ...] = field(init=False)
    galaxy: tuple[int, ...] = field(init=False)
    #: Of ``x``, ``y``, ``e1``, ``e2`` of each galaxy and ``log_radius``, ``log_n`` of each component, where they stand
    #: among the parameters with `constants` behind them.
    places: dict[str, list[int]] = field(init=False, compare=False)
    constants: tuple[float, ...] = field(init=False, compare=False)

    def __post_init__(self):
        names, galaxy, constants = [], [], [0.0, _POINT]
        places: dict[str, list] = {key: [] for key in ("x", "y", "e1", "e2", "log_radius", "log_n")}

        def free(key: str, name: str) -> None:
            places[key].append(len(names))
            names.append(name)

        for g, components in enumerate(self.indices):
            free("x", f"x{g}")
            free("y", f"y{g}")
            galaxy += [g] * max(1, len(components))
            if not components:
                for key, value in (("e1", 0.0), ("e2", 0.0), ("log_radius", _POINT), ("log_n", 0.0)):
                    places[key].append(-1 - constants.index(value))
                continue
            free("e1", f"e1_{g}")
            free("e2", f"e2_{g}")
            for c, n in enumerate(components):
                free("log_radius", f"log_radius{g}_{c}")
                if n is None:
                    free("log_n", f"log_n{g}_{c}")
                else:
                    if float(np.log(n)) not in constants:
                        constants.append(float(np.log(n)))
                    places["log_n"].append(-1 - constants.index(float(np.log(n))))
        places = {key: [p if p >= 0 else len(names) - 1 - p for p in found] for key, found in places.items()}
        for name, value in (
            ("names", tuple(names)), ("galaxy", tuple(galaxy)), ("places", places), ("constants", tuple(constants)),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """How many galaxies."""
        return len(self.indices)

    def owner(self, device: str | torch.device) -> Tensor:
        """The galaxy of each component."""
        return torch.as_tensor(self.galaxy, device=device)


@dataclass
class _Drawn:
    """Transforms on one grid before pixel and PSF: of each component its profile and the profile's slopes, of each
    galaxy its phase and how ``e1``, ``e2`` change the logarithm of its kappa."""

    values: Tensor
    slopes: Tensor
    by_index: Tensor
    phase: Tensor
    by_shape: tuple[Tensor, Tensor]


@dataclass
class Rendered:
    """Components in one band at amplitude 1, (starts, components, ny, nx), and what their derivatives are made of."""

    basis: Tensor
    layout: GalaxyLayout
    frame: FourierFrame
    drawn: _Drawn

    def derivatives(self, amplitudes: Tensor) -> Tensor:
        """Of the whole by each parameter, (starts, P, ny, nx), with ``amplitudes`` (starts, components)."""
        layout, drawn = self.layout, self.drawn
        owner, size = layout.owner(amplitudes.device), len(layout.names)
        places = layout.places
        weight = amplitudes[:, :, None, None]
        values, slopes = weight * drawn.values, weight * drawn.slopes
        total, slope = (
            part.new_zeros(len(part), len(layout), *part.shape[2:]).index_add_(1, owner, part)
            for part in (values, slopes)
        )
        parts = drawn.phase.new_empty(len(values), size, *values.shape[2:])
        moved = torch.complex(torch.zeros_like(total), -total) * drawn.phase
        parts[:, places["x"]] = moved * self.frame.kx
        parts[:, places["y"]] = moved * self.frame.ky
        extended = [g for g, column in enumerate(places["e1"]) if column < size]
        if extended:
            turned = (slope * drawn.phase)[:, extended]
            for key, by in zip(("e1", "e2"), drawn.by_shape):
                parts[:, [places[key][g] for g in extended]] = turned * by[:, extended]
        for key, part in (("log_radius", slopes), ("log_n", weight * drawn.by_index)):
            own = [c for c, column in enumerate(places[key]) if column < size]
            if own:
                galaxies = [layout.galaxy[c] for c in own]
                parts[:, [places[key][c] for c in own]] = part[:, own] * drawn.phase[:, galaxies]
        return self.frame.images(parts)


def render(
    parameters: Tensor, layout: GalaxyLayout, frames: Sequence[FourierFrame], table: SersicTransform | None = None
) -> list[Rendered]:
    """Draw the components in every band.

    Parameters
    ----------
    parameters : Tensor
        (starts, P) as `GalaxyLayout` orders them.
    layout : GalaxyLayout
    frames : sequence of FourierFrame
        One a band.
    table : SersicTransform, optional
        Left out, that of the parameters' dtype and device.
    """
    table = table or sersic_transform(parameters.dtype, str(parameters.device))
    grids: dict[FourierGrid, _Drawn] = {}
    found = []
    for frame in frames:
        if frame.grid not in grids:
            grids[frame.grid] = _draw(parameters, layout, frame, table)
        drawn = grids[frame.grid]
        basis = frame.images(drawn.values * drawn.phase[:, layout.owner(parameters.device)])
        found.append(Rendered(basis, layout, frame, drawn))
    return found


def _draw(parameters: Tensor, layout: GalaxyLayout, frame: FourierFrame, table: SersicTransform) -> _Drawn:
    full = torch.cat([parameters, parameters.new_tensor(layout.constants).expand(len(parameters), -1)], 1)
    x, y, e1, e2 = (full[:, layout.places[key], None, None] for key in ("x", "y", "e1", "e2"))
    kx, ky = frame.kx, frame.ky
    modulus2 = e1 * e1 + e2 * e2
    both, difference, cross = kx * kx + ky * ky, kx * kx - ky * ky, 2 * kx * ky
    square = ((1 + modulus2) * both + 2 * e1 * difference + 2 * e2 * cross) / (1 - modulus2)
    square = square.clamp_min(1e-12)
    by_shape = tuple(
        (e * (both + square) + across) / ((1 - modulus2) * square) for e, across in ((e1, difference), (e2, cross))
    )
    log_kappa = 0.5 * square.log()[:, layout.owner(parameters.device)]
    log_kappa = log_kappa + full[:, layout.places["log_radius"], None, None]
    rows = table.rows(full[:, layout.places["log_n"]])
    values, slopes, by_index = (part.reshape(log_kappa.shape) for part in table.at(rows, log_kappa.flatten(2)))
    angle = kx * x + ky * y
    return _Drawn(values, slopes, by_index, torch.polar(torch.ones_like(angle), -angle), by_shape)
