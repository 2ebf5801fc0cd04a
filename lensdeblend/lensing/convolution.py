"""Convolution with a point-spread function by FFT, without wrap-around."""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor

__all__ = ["Convolution"]


class Convolution:
    """Convolve images with one kernel, or with one kernel an image.

    Light from outside the frame is seen when the images carry a border: `__call__` takes images padded by ``border``
    pixels on each side and returns the frame itself.

    Parameters
    ----------
    kernel : Tensor
        (..., ky, kx), odd sizes.
    shape : tuple of int
        Of the frame, without border.
    border : int
        Pixels of border on the images that come in.
    """

    def __init__(self, kernel: Tensor, shape: tuple[int, int], border: int = 0):
        self.shape, self.border = shape, border
        self._half = kernel.shape[-2] // 2, kernel.shape[-1] // 2
        # Wrapped-around light may fall on the border, which is cut away anyway.
        self._size = tuple(
            next_fast_len(n + 2 * border + max(half - border, 0), real=True) for n, half in zip(shape, self._half)
        )
        placed = kernel.new_zeros((*kernel.shape[:-2], *(max(s, k) for s, k in zip(self._size, kernel.shape[-2:]))))
        self._size = tuple(placed.shape[-2:])
        placed[..., : kernel.shape[-2], : kernel.shape[-1]] = kernel
        placed = torch.roll(placed, (-self._half[0], -self._half[1]), (-2, -1))
        self._transform = torch.fft.rfft2(placed)

    def __call__(self, images: Tensor) -> Tensor:
        """(..., ny + 2 border, nx + 2 border) to (..., ny, nx)."""
        transform = torch.fft.rfft2(images, s=self._size)
        blurred = torch.fft.irfft2(transform * self._transform, s=self._size)
        (ny, nx), b = self.shape, self.border
        return blurred[..., b:b + ny, b:b + nx]
