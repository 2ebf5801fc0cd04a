"""The wave numbers at which bands see galaxies, and the way from transforms there to pixels.

Wave numbers that no PSF lets through are left out. Where a band has no PSF, or one as sharp as its pixels, the frame is
drawn three times as finely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

__all__ = ["FourierFrame", "FourierGrid"]

_EDGE = 8
_FOLDED, _FINER = 0.02, 3
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
