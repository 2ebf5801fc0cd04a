r"""Galaxies drawn in Fourier space: each a point, a Sérsic, or several Sérsics with one centre and one shape.

The transform of a galaxy through pixels and PSF is a product,

.. math::

    \sum_c a_c F_{n_c}\big(R_c \sqrt{k^T S\, k}\big) \; e^{-i k \cdot x} \; \mathrm{sinc}(k/2\pi) \; P(k),

with :math:`F_n` from `lensdeblend.lensing.hankel`, so that its derivatives are products too, and one inverse transform
of the small frame is all that a component or a derivative costs. A model is averaged over each pixel before it goes
through the PSF, and pixels fold what is finer than they are: to compact and steep components the images of their
transforms one wave a pixel away are added.
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
_STEEP, _COMPACT = float(np.log(1.5)), float(np.log(2.0))
_IMAGES = (1, 0), (-1, 0), (0, 1), (0, -1)
_OF_GALAXIES = ("x", "y", "e1", "e2")


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
class Rendered:
    """Components in one band at amplitude 1, (starts, components, ny, nx), and the transforms of their derivatives, by
    name of the parameter."""

    basis: Tensor
    layout: GalaxyLayout
    frame: FourierFrame
    slopes: dict[str, Tensor]

    def derivatives(self, amplitudes: Tensor) -> Tensor:
        """Of the whole by each parameter, (starts, P, ny, nx), with ``amplitudes`` (starts, components)."""
        layout, size = self.layout, len(self.layout.names)
        owner = layout.owner(amplitudes.device)
        first = self.slopes["x"]
        parts = first.new_empty(len(first), size, *first.shape[2:])
        for key, slope in self.slopes.items():
            weighted = slope * amplitudes[:, :, None, None]
            if key in _OF_GALAXIES:
                whole = weighted.new_zeros(len(weighted), len(layout), *weighted.shape[2:])
                weighted = whole.index_add_(1, owner, weighted)
            free = [k for k, column in enumerate(layout.places[key]) if column < size]
            if free:
                parts[:, [layout.places[key][k] for k in free]] = weighted[:, free]
        return self.frame.images(parts)


def render(
    parameters: Tensor, layout: GalaxyLayout, frames: Sequence[FourierFrame], table: SersicTransform | None = None,
    *, fold: bool = True,
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
    fold : bool
        Whether to fold in what is finer than the pixels, which takes most of the time.
    """
    table = table or sersic_transform(parameters.dtype, str(parameters.device))
    components = _Components.of(parameters, layout, table)
    grids: dict[FourierGrid, dict[str, Tensor]] = {}
    found = []
    for frame in frames:
        if frame.grid not in grids:
            grids[frame.grid] = _folded(components, frame, fold)
        transforms = dict(grids[frame.grid])
        basis = frame.images(transforms.pop("value"))
        found.append(Rendered(basis, layout, frame, transforms))
    return found


@dataclass
class _Components:
    """Numbers (starts, components, 1, 1), and profiles as `SersicTransform.rows` gives them."""

    x: Tensor
    y: Tensor
    e1: Tensor
    e2: Tensor
    log_radius: Tensor
    rows: tuple[Tensor, ...]
    table: SersicTransform
    loose: bool
    compact: list[int]

    @classmethod
    def of(cls, parameters: Tensor, layout: GalaxyLayout, table: SersicTransform) -> _Components:
        full = torch.cat([parameters, parameters.new_tensor(layout.constants).expand(len(parameters), -1)], 1)
        owned = {key: [layout.places[key][g] for g in layout.galaxy] for key in _OF_GALAXIES}
        log_radius, log_n = full[:, layout.places["log_radius"]], full[:, layout.places["log_n"]]
        compact = (log_n > _STEEP) | (log_radius < _COMPACT)
        return cls(
            *(full[:, owned[key], None, None] for key in _OF_GALAXIES), log_radius[:, :, None, None],
            table.rows(log_n), table, any(column < len(layout.names) for column in layout.places["log_n"]),
            torch.nonzero(compact.any(0)).flatten().tolist(),
        )

    def chosen(self, index: list[int]) -> _Components:
        numbers = (part[:, index] for part in (self.x, self.y, self.e1, self.e2, self.log_radius))
        return _Components(*numbers, tuple(row[:, index] for row in self.rows), self.table, self.loose, [])

    def transforms(self, kx: Tensor, ky: Tensor, wave: Tensor) -> dict[str, Tensor]:
        """Of the components and of their derivatives, times ``wave``."""
        modulus2 = self.e1 * self.e1 + self.e2 * self.e2
        both, difference, cross = kx * kx + ky * ky, kx * kx - ky * ky, 2 * kx * ky
        square = ((1 + modulus2) * both + 2 * self.e1 * difference + 2 * self.e2 * cross) / (1 - modulus2)
        square = square.clamp_min(1e-12)
        log_kappa = (0.5 * square.log() + self.log_radius).flatten(2)
        rows = self.rows if self.loose else self.rows[:2]
        value, slope, *by_index = (
            part.reshape(square.shape) * wave for part in self.table.at(rows, log_kappa)
        )
        moved, by_shape = -1j * value, slope / ((1 - modulus2) * square)
        found = {
            "value": value, "x": moved * kx, "y": moved * ky, "e1": by_shape * (self.e1 * (both + square) + difference),
            "e2": by_shape * (self.e2 * (both + square) + cross), "log_radius": slope,
        }
        return found | ({"log_n": by_index[0]} if self.loose else {})


def _folded(components: _Components, frame: FourierFrame, fold: bool) -> dict[str, Tensor]:
    """Transforms on the grid of ``frame``, with the images that the pixels fold onto them."""
    grid = frame.grid
    angle = frame.kx * components.x + frame.ky * components.y
    wave = torch.polar(torch.ones_like(angle), -angle)
    found = components.transforms(frame.kx, frame.ky, wave)
    index = components.compact
    if not fold or not index or grid.finer > 1:
        return found
    some, wave = components.chosen(index), wave[:, index]
    here = [torch.as_tensor(k / (2 * np.pi)).to(frame.kx) for k in grid.wave_numbers]
    (xx, xy), (yx, yy) = grid.matrix
    for right, up in _IMAGES:
        # The sinc there over the sinc here.
        ratio = torch.ones_like(frame.kx)
        for along, shift in zip(here, (right, up)):
            ratio = ratio * (-along / (along + shift) if shift else 1.0)
        angle = -2 * np.pi * (
            right * (xx * some.x + xy * some.y + grid.offset[0]) + up * (yx * some.x + yy * some.y + grid.offset[1])
        )
        there = some.transforms(
            frame.kx + 2 * np.pi * (xx * right + yx * up), frame.ky + 2 * np.pi * (xy * right + yy * up),
            wave * torch.polar(torch.ones_like(angle), angle) * ratio,
        )
        for key, part in there.items():
            found[key][:, index] += part
    return found
