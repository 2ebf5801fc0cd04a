"""Parts of the frame around galaxies: from the frame to these and back, all galaxies at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["GalaxyWindows"]


@dataclass(frozen=True)
class GalaxyWindows:
    """A part of the frame around each galaxy: rows (n, h), columns (n, w)."""

    shape: tuple[int, int]
    rows: Tensor
    columns: Tensor

    @classmethod
    def around(cls, shown: np.ndarray) -> GalaxyWindows:
        """Equally large ones with all pixels that are ``shown``, (n, ny, nx)."""
        axes = []
        for size, along in zip(shown.shape[1:], (shown.any(2), shown.any(1))):
            first = np.where(along.any(1), along.argmax(1), 0)
            last = np.where(along.any(1), size - 1 - along[:, ::-1].argmax(1), 0)
            length = int((last - first).max(initial=0)) + 1
            axes.append(torch.as_tensor(np.minimum(first, size - length)[:, None] + np.arange(length)))
        return cls(shown.shape[1:], *axes)

    def apart(self) -> list[list[int]]:
        """Which galaxies' windows do not overlap, in as few groups as come by themselves."""
        corners = np.stack([self.rows[:, 0].numpy(), self.columns[:, 0].numpy()], 1)
        size = np.array([self.rows.shape[1], self.columns.shape[1]])
        groups: list[list[int]] = []
        for galaxy, corner in enumerate(corners):
            free = (group for group in groups if (np.abs(corners[group] - corner) >= size).any(1).all())
            group = next(free, None)
            if group is None:
                groups.append([galaxy])
            else:
                group.append(galaxy)
        return groups

    def cut(self, frames: Tensor) -> Tensor:
        """(..., ny, nx), the same for all, to (..., n, h, w)."""
        return frames[..., self.rows[:, :, None], self.columns[:, None, :]]

    def own(self, frames: Tensor) -> Tensor:
        """(..., n, ny, nx), one a galaxy, to (..., n, h, w)."""
        galaxy = torch.arange(len(self.rows))[:, None, None]
        return frames[..., galaxy, self.rows[:, :, None], self.columns[:, None, :]]

    def framed(self, windows: Tensor) -> Tensor:
        """(..., n, h, w) to (..., n, ny, nx), 0 outside."""
        frames = windows.new_zeros((*windows.shape[:-2], *self.shape))
        galaxy = torch.arange(len(self.rows))[:, None, None]
        frames[..., galaxy, self.rows[:, :, None], self.columns[:, None, :]] = windows
        return frames

    def summed(self, windows: Tensor) -> Tensor:
        """(..., n, h, w) to (..., ny, nx)."""
        frames = windows.new_zeros((*windows.shape[:-3], self.shape[0] * self.shape[1]))
        place = (self.rows[:, :, None] * self.shape[1] + self.columns[:, None, :]).reshape(-1)
        frames.index_add_(-1, place.to(windows.device), windows.flatten(-3))
        return frames.unflatten(-1, self.shape)
