r"""Galaxies drawn in Fourier space: each a point, a Sérsic, or several Sérsics with one centre and one shape.

The transform of a galaxy through pixels and PSF is a product,

.. math::

    \sum_c a_c F_{n_c}\big(R_c \sqrt{k^T S\, k}\big) \; e^{-i k \cdot x} \; \mathrm{sinc}(k/2\pi) \; P(k),

with :math:`F_n` from `lensdeblend.lensing.hankel`, so that its derivatives are products too, and one inverse transform
of the small frame is all that a component or a derivative costs; wave numbers that no PSF lets through are left out. A
model is averaged over each pixel before it goes through the PSF, and pixels fold what is finer than they are: to
compact and steep components the images of their transforms one wave a pixel away are added. Without a PSF, or with one
that is as sharp as the pixels, all is drawn three times as finely instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

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
# Of the light that a PSF lets through: what less passes is left out, or not folded.
_SEEN, _SEEN_FOLDED = 1e-4, 5e-3
# Complex numbers that fit into a CPU's cache.
_CACHED = 2**18


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
    """Bands on one grid.

    ``kx``, ``ky`` (M,), a pixel of the reference band: the wave numbers that one of the PSFs lets through, in
    ``places`` (M,) of the half-plane; ``folded`` (K,) of these are worth to be folded. ``transfer`` (batch or 1, bands,
    M): what pixel, PSF and the offset of the grid do to a transform.
    """

    grid: FourierGrid
    kx: Tensor
    ky: Tensor
    places: Tensor
    folded: Tensor
    transfer: Tensor

    @classmethod
    def of(
        cls, shape: tuple[int, int], *batch: Sequence[np.ndarray | None], matrix: np.ndarray | None = None,
        offset: np.ndarray | None = None, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu",
    ) -> FourierFrame:
        """Of bands whose pixel coordinates are ``matrix @ (x, y) + offset`` of the reference band's, with the PSFs of
        the bands for each of a ``batch``."""
        bands = len(batch[0])
        if all(_same(one, batch[0]) for one in batch):
            batch = batch[:1]
        psfs = [psf for one in batch for psf in one]
        half = max(_EDGE, *(max(psf.shape) // 2 for psf in psfs if psf is not None), 0)
        size = tuple(next_fast_len(n + half, real=True) for n in shape)
        placed = {} if matrix is None else {"matrix": tuple(map(tuple, np.asarray(matrix, float).tolist()))}
        placed |= {} if offset is None else {"offset": tuple(np.asarray(offset, float).tolist())}
        blurs = [np.ones(size) if psf is None else _transform(np.asarray(psf, float), size) for psf in psfs]
        # What a PSF lets through at half a wave a pixel, it would let through folded.
        left = max(float(np.abs(part)) for blur in blurs for part in (blur[size[0] // 2, 0], blur[0, size[1] // 2]))
        grid = FourierGrid(tuple(shape), size, **placed, finer=1 if left < _FOLDED else _FINER)
        kx, ky = grid.wave_numbers
        rows, columns = (np.arange(n) % m for n, m in zip(kx.shape, size))
        seen = np.stack([blur[rows[:, None], columns] for blur in blurs])
        places = np.flatnonzero(np.abs(seen).max(0) > _SEEN)
        kx, ky, seen = kx.flat[places], ky.flat[places], seen.reshape(-1, bands, seen[0].size)[..., places]
        folded = np.flatnonzero(np.abs(seen).max((0, 1)) > _SEEN_FOLDED)
        transfer = np.sinc(kx / (2 * np.pi)) * np.sinc(ky / (2 * np.pi)) * grid.finer**2
        transfer = transfer * np.exp(-1j * (kx * grid.offset[0] + ky * grid.offset[1])) * seen
        (xx, xy), (yx, yy) = grid.matrix
        complex_type = torch.complex64 if dtype == torch.float32 else torch.complex128
        return cls(
            grid, *(torch.as_tensor(k, dtype=dtype, device=device) for k in (xx * kx + yx * ky, xy * kx + yy * ky)),
            torch.as_tensor(places, device=device), torch.as_tensor(folded, device=device),
            torch.as_tensor(transfer, dtype=complex_type, device=device),
        )

    @cached_property
    def own_wave_numbers(self) -> tuple[Tensor, Tensor]:
        """kx, ky (M,) a pixel of these bands, in units of a wave a pixel."""
        return tuple(
            torch.as_tensor(k, device=self.kx.device, dtype=self.kx.dtype).flatten()[self.places] / (2 * np.pi)
            for k in self.grid.wave_numbers
        )

    def some(self, index: Tensor) -> FourierFrame:
        """Of some of the batch."""
        return self if len(self.transfer) == 1 else replace(self, transfer=self.transfer[index])

    def images(self, transforms: Tensor) -> Tensor:
        """(batch, bands or 1, components, M) to (batch, bands, components, ny, nx)."""
        (ny, nx), finer, (rows, columns) = self.grid.shape, self.grid.finer, self.grid.fine_size
        columns = columns // 2 + 1
        seen = transforms * self.transfer[:, :, None]
        found = seen.real.new_empty(*seen.shape[:-1], ny, nx)
        # On a CPU, transforms that are in its cache together take half of the time.
        count = seen.shape[2]
        most = max(1, _CACHED // (seen[:, :, 0, 0].numel() * rows * columns) if seen.device.type == "cpu" else count)
        for start in range(0, count, most):
            some = slice(start, start + most)
            part = seen[:, :, some]
            plane = part.new_zeros(*part.shape[:-1], rows * columns).index_copy_(-1, self.places, part)
            drawn = torch.fft.irfft2(plane.unflatten(-1, (rows, columns)), s=self.grid.fine_size)
            found[:, :, some] = drawn[..., ::finer, ::finer][..., :ny, :nx]
        return found


def _same(psfs: Sequence[np.ndarray | None], others: Sequence[np.ndarray | None]) -> bool:
    return all(
        one is other or (one is not None and other is not None and np.array_equal(one, other))
        for one, other in zip(psfs, others)
    )


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
    """Components in the bands of a frame at amplitude 1, ``basis`` (starts, bands, components, ny, nx), and what their
    derivatives are made of."""

    basis: Tensor
    layout: GalaxyLayout
    frame: FourierFrame
    plane: _Plane
    more: _Folded | None

    def band(self, place: int) -> Rendered:
        """One band alone, whose derivatives take the less memory."""
        frame = replace(self.frame, transfer=self.frame.transfer[:, [place]])
        return replace(self, basis=self.basis[:, [place]], frame=frame)

    def derivatives(self, amplitudes: Tensor) -> Tensor:
        """Of the whole by each parameter, (starts, bands, P, ny, nx), with ``amplitudes`` (starts, bands,
        components)."""
        layout, plane, size = self.layout, self.plane, len(self.layout.names)
        owned = torch.nn.functional.one_hot(layout.owner(amplitudes.device), len(layout)).T.to(amplitudes)
        weights = (amplitudes[:, :, None] * owned).to(plane.value.dtype)
        value, by_radius = weights @ plane.value[:, None], weights @ plane.by_radius[:, None]
        slopes = {
            "x": value * (-1j * self.frame.kx), "y": value * (-1j * self.frame.ky),
            "e1": by_radius * plane.shape1[:, None], "e2": by_radius * plane.shape2[:, None],
        }
        if self.more is not None:
            some = weights[..., self.more.components]
            for key, slope in slopes.items():
                slope[..., self.frame.folded] += some @ getattr(self.more, key)[:, None]
        slopes["log_radius"] = amplitudes[..., None] * plane.by_radius[:, None]
        if plane.by_index is not None:
            slopes["log_n"] = amplitudes[..., None] * plane.by_index[:, None]
        parts = value.new_empty(*amplitudes.shape[:2], size, value.shape[-1])
        for key, slope in slopes.items():
            free = [k for k, column in enumerate(layout.places[key]) if column < size]
            if free:
                parts[:, :, [layout.places[key][k] for k in free]] = slope[:, :, free]
        return self.frame.images(parts)


def render(
    parameters: Tensor, layout: GalaxyLayout, frames: Sequence[FourierFrame], table: SersicTransform | None = None,
    *, fold: bool = True,
) -> list[Rendered]:
    """Draw the components in the bands of every frame.

    Parameters
    ----------
    parameters : Tensor
        (starts, P) as `GalaxyLayout` orders them.
    layout : GalaxyLayout
    frames : sequence of FourierFrame
    table : SersicTransform, optional
        Left out, that of the parameters' dtype and device.
    fold : bool
        Whether to fold in what is finer than the pixels.
    """
    table = table or sersic_transform(parameters.dtype, str(parameters.device))
    components = _Components.of(parameters, layout, table)
    found = []
    for frame in frames:
        plane = components.plane(frame.kx, frame.ky)
        more = _Folded.onto(plane, components, frame) if fold and frame.grid.finer == 1 else None
        found.append(Rendered(frame.images(plane.value[:, None]), layout, frame, plane, more))
    return found


@dataclass
class _Plane:
    """Transforms of the components (starts, components, M) and of their derivatives by the logarithms of radius and
    index; ``shape1``, ``shape2`` (starts, galaxies, M): the logarithm of a wave number's modulus by ellipticity."""

    value: Tensor
    by_radius: Tensor
    by_index: Tensor | None
    shape1: Tensor
    shape2: Tensor


@dataclass
class _Components:
    """Numbers of galaxies (starts, galaxies, 1) and of components (starts, components, 1), and profiles as
    `SersicTransform.rows` gives them."""

    x: Tensor
    y: Tensor
    e1: Tensor
    e2: Tensor
    log_radius: Tensor
    owner: Tensor
    rows: tuple[Tensor, ...]
    table: SersicTransform
    compact: Tensor

    @classmethod
    def of(cls, parameters: Tensor, layout: GalaxyLayout, table: SersicTransform) -> _Components:
        full = torch.cat([parameters, parameters.new_tensor(layout.constants).expand(len(parameters), -1)], 1)
        log_radius, log_n = full[:, layout.places["log_radius"]], full[:, layout.places["log_n"]]
        compact = (log_n > _STEEP) | (log_radius < _COMPACT)
        rows = table.rows(log_n)
        loose = any(column < len(layout.names) for column in layout.places["log_n"])
        return cls(
            *(full[:, layout.places[key], None] for key in _OF_GALAXIES), log_radius[:, :, None],
            layout.owner(parameters.device), rows if loose else rows[:2], table,
            torch.nonzero(compact.any(0)).flatten(),
        )

    def chosen(self, index: Tensor) -> _Components:
        return replace(
            self, log_radius=self.log_radius[:, index], owner=self.owner[index],
            rows=tuple(row[:, index] for row in self.rows),
        )

    def plane(self, kx: Tensor, ky: Tensor, ratio: Tensor | None = None, shift: float = 0.0) -> _Plane:
        """At ``kx``, ``ky`` (M,), times the real ``ratio`` (M,), the phase less by ``shift``."""
        modulus2 = self.e1 * self.e1 + self.e2 * self.e2
        both, difference, cross = kx * kx + ky * ky, kx * kx - ky * ky, 2 * kx * ky
        square = ((1 + modulus2) * both + 2 * self.e1 * difference + 2 * self.e2 * cross) / (1 - modulus2)
        square = square.clamp_min(1e-12)
        angle = -(kx * self.x + ky * self.y) - shift
        wave = torch.polar(torch.ones_like(angle) if ratio is None else ratio.expand_as(angle).contiguous(), angle)
        wave = wave[:, self.owner]
        log_kappa = 0.5 * square.log()[:, self.owner] + self.log_radius
        value, slope, *by_index = (part * wave for part in self.table.at(self.rows, log_kappa))
        scale = 1 / ((1 - modulus2) * square)
        return _Plane(
            value, slope, by_index[0] if by_index else None, scale * (self.e1 * (both + square) + difference),
            scale * (self.e2 * (both + square) + cross),
        )


@dataclass
class _Folded:
    """What the images of the transforms one wave a pixel away add to derivatives beyond their share in ``value`` and
    ``by_radius``, of ``components``, (starts, some, K)."""

    components: Tensor
    x: Tensor
    y: Tensor
    e1: Tensor
    e2: Tensor

    @classmethod
    def onto(cls, plane: _Plane, components: _Components, frame: FourierFrame) -> _Folded | None:
        """Fold the images of compact components onto ``plane``."""
        index, where = components.compact, frame.folded
        if not len(index):
            return None
        some = components.chosen(index)
        owner, kx, ky = some.owner, frame.kx[where], frame.ky[where]
        here = [k[where] for k in frame.own_wave_numbers]
        (xx, xy), (yx, yy) = frame.grid.matrix
        total = {key: 0.0 for key in ("value", "by_radius", "by_index", *_OF_GALAXIES)}
        for right, up in _IMAGES:
            # The sinc there over the sinc here.
            ratio = torch.ones_like(kx)
            for along, waves in zip(here, (right, up)):
                ratio = ratio * (-along / (along + waves) if waves else 1.0)
            move = 2 * np.pi * (xx * right + yx * up), 2 * np.pi * (xy * right + yy * up)
            shift = 2 * np.pi * (right * frame.grid.offset[0] + up * frame.grid.offset[1])
            there = some.plane(kx + move[0], ky + move[1], ratio, shift)
            total["value"] = total["value"] + there.value
            total["by_radius"] = total["by_radius"] + there.by_radius
            if there.by_index is not None:
                total["by_index"] = total["by_index"] + there.by_index
            total["x"] = total["x"] - 1j * move[0] * there.value
            total["y"] = total["y"] - 1j * move[1] * there.value
            for key in ("1", "2"):
                turned = getattr(there, f"shape{key}") - getattr(plane, f"shape{key}")[..., where]
                total[f"e{key}"] = total[f"e{key}"] + turned[:, owner] * there.by_radius
        for key in ("value", "by_radius", "by_index"):
            if getattr(plane, key) is not None:
                getattr(plane, key)[:, index[:, None], where] += total[key]
        return cls(index, *(total[key] for key in _OF_GALAXIES))
