"""Blends of one kind as tensors: the same bands on the same grids, and as many galaxies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.effective_area import effective_area
from lensdeblend.lensing.blend import BandData
from lensdeblend.lensing.fourier_frames import FourierFrame

__all__ = ["Stack", "alike"]

_FIRST_RADIUS_OF_PSF = 0.6


def alike(blends: Sequence[Blend], counts: Sequence[int], most: int) -> list[list[int]]:
    """Which of ``blends`` with ``counts`` galaxies go together, at most so many."""
    kinds: dict[tuple, list[int]] = {}
    for index, (blend, count) in enumerate(zip(blends, counts)):
        bands = tuple(
            (band.data.shape, band.placed, None if band.psf is None else band.psf.shape) for band in blend.bands
        )
        kinds.setdefault((count, bands), []).append(index)
    return [kind[start:start + most] for kind in kinds.values() for start in range(0, len(kind), most)]


@dataclass(frozen=True)
class Stack:
    """Bands on one grid together, each in units of its noise: ``units`` (batch, bands)."""

    blends: tuple[Blend, ...]
    grids: tuple[BandData, ...]
    units: np.ndarray

    @classmethod
    def of(cls, blends: Sequence[Blend], levels: Sequence[Sequence[float]], device: str) -> Stack:
        """Of blends that are `alike`, and the sky of their bands."""
        units = np.array([[band.noise for band in blend.bands] for blend in blends])
        grids = []
        for numbers in blends[0].grids:
            first = blends[0].bands[numbers[0]]
            frame = FourierFrame.of(
                first.data.shape, *([blend.bands[number].psf for number in numbers] for blend in blends),
                matrix=None if first.aligned else first.matrix, offset=None if first.aligned else first.offset,
                dtype=torch.float32, device=device,
            )
            data, weight = np.zeros((2, len(blends), len(numbers), *first.data.shape))
            for index, blend in enumerate(blends):
                for place, number in enumerate(numbers):
                    band, unit = blend.bands[number], units[index, number]
                    data[index, place] = np.where(band.used, (band.data - levels[index][number]) / unit, 0.0)
                    weight[index, place] = band.weight * unit
            tensors = (torch.as_tensor(part, dtype=torch.float32, device=device) for part in (data, weight))
            grids.append(BandData(frame, tuple(numbers), *tensors))
        return cls(tuple(blends), tuple(grids), units)

    def __len__(self) -> int:
        return len(self.blends)

    def some(self, index: Sequence[int]) -> Stack:
        """The blends with these indices alone."""
        chosen = torch.as_tensor(index, device=self.device)
        return Stack(
            tuple(self.blends[i] for i in index), tuple(grid.some(chosen) for grid in self.grids),
            self.units[list(index)],
        )

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.grids[0].data.device

    def band(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Data and weight of one band, (batch, ny, nx)."""
        grid = next(grid for grid in self.grids if number in grid.numbers)
        place = grid.numbers.index(number)
        return grid.data[:, place], grid.weight[:, place]

    @property
    def first_radii(self) -> np.ndarray:
        """Pixels, (batch,): with what galaxies begin."""
        return np.array([_first_radius(blend.first.psf) for blend in self.blends])


def _first_radius(psf: np.ndarray | None) -> float:
    if psf is None:
        return 1.0
    # The side of a square with the PSF's effective area.
    return max(1.0, _FIRST_RADIUS_OF_PSF * float(np.sqrt(effective_area(psf))))
