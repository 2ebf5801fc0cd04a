"""The part of an image that a fit looks at, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from astropy.nddata import NDData
from scipy.ndimage import binary_dilation, gaussian_filter
from torch import Tensor

from lensdeblend.images import pixel_scale
from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.subdivision import PixelGrid

__all__ = ["Frame", "PhotonNoise", "estimated_from_data"]

_PSF_SHARE_IN_BORDER = 0.995


@dataclass(frozen=True)
class Frame:
    """Data, noise and PSF of the bounding box of the unmasked pixels.

    ``corner`` is (row, column) of the box in the image; positions stay in arcsec from the centre of the whole image.
    """

    data: Tensor
    sigma: Tensor
    used: Tensor
    kernel: Tensor | None
    grid: PixelGrid
    corner: tuple[int, int]

    @classmethod
    def of(cls, image: NDData, dtype=torch.float64) -> Frame:
        """Take it from a prepared image."""
        scale = pixel_scale(image).to_value("arcsec")
        good = np.ones(image.data.shape, bool) if image.mask is None else ~image.mask
        rows, columns = np.nonzero(good.any(1))[0], np.nonzero(good.any(0))[0]
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        ny, nx = image.data.shape
        centre = (
            ((columns[0] + columns[-1]) / 2 - (nx - 1) / 2) * scale,
            ((rows[0] + rows[-1]) / 2 - (ny - 1) / 2) * scale,
        )
        used = good[box]
        data = np.where(used, image.data[box], 0.0)
        sigma = np.where(used, np.sqrt(image.uncertainty.array[box]), 1.0)
        kernel = None if image.psf is None else torch.as_tensor(np.asarray(image.psf), dtype=dtype)
        grid = PixelGrid(data.shape, scale, 0 if kernel is None else _border(image.psf), centre)
        return cls(
            torch.as_tensor(data, dtype=dtype), torch.as_tensor(sigma, dtype=dtype), torch.as_tensor(used), kernel,
            grid, (int(rows[0]), int(columns[0])),
        )

    def single(self) -> Frame:
        """The same in single precision, and in units of the median noise: the square of 1e-20 W is 0 there."""
        unit = self.sigma[self.used].median()
        data, sigma = ((values / unit).float() for values in (self.data, self.sigma))
        kernel = None if self.kernel is None else self.kernel.float()
        return Frame(data, sigma, self.used, kernel, self.grid, self.corner)

    def with_sigma(self, sigma: Tensor) -> Frame:
        return Frame(self.data, sigma, self.used, self.kernel, self.grid, self.corner)

    def with_data(self, data: Tensor) -> Frame:
        return Frame(data, self.sigma, self.used, self.kernel, self.grid, self.corner)

    @property
    def weight(self) -> Tensor:
        """One over the noise, 0 where masked."""
        return self.used / self.sigma

    @property
    def convolution(self) -> Convolution | None:
        if self.kernel is None:
            return None
        return Convolution(self.kernel, self.grid.shape, self.grid.border)

    @property
    def weighted_data(self) -> Tensor:
        """Unmasked data in units of the noise, flat."""
        return (self.data * self.weight).reshape(-1)[self.used.reshape(-1)]

    @property
    def reachable(self) -> Tensor:
        """Pixels of the padded grid whose light the PSF carries to an unmasked pixel, flat."""
        border = self.grid.border
        padded = np.pad(self.used.numpy(), border)
        if border:
            padded = binary_dilation(padded, np.ones((3, 3), bool), iterations=border)
        return torch.as_tensor(padded).reshape(-1)

    def smoothed(self, pixels: float = 1.0) -> np.ndarray:
        """Data smoothed with a Gaussian, masked pixels left out of the average."""
        used = self.used.numpy().astype(float)
        share = gaussian_filter(used, pixels)
        return gaussian_filter(self.data.double().numpy() * used, pixels) / np.clip(share, 1e-3, None)

    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y of the pixels in arcsec, each (ny, nx)."""
        x, y = PixelGrid(self.grid.shape, self.grid.scale, 0, self.grid.centre).centres()
        return x.reshape(self.grid.shape).numpy(), y.reshape(self.grid.shape).numpy()


@dataclass(frozen=True)
class PhotonNoise:
    """A variance that grows with the light: ``background + per_count * light``."""

    background: float
    per_count: float

    def above(self, sky: float) -> PhotonNoise:
        """The same for light counted from ``sky``."""
        return PhotonNoise(self.background + self.per_count * sky, self.per_count)

    def sigma(self, light: np.ndarray | Tensor):
        """Standard deviation where the expected light is ``light``."""
        return (self.background + self.per_count * light.clip(-0.9 * self.background / self.per_count)) ** 0.5


def estimated_from_data(image: NDData) -> PhotonNoise | None:
    """The law by which the variance was computed from the noisy data themselves, or None where it was not.

    Such a variance is too small where the noise is negative and too large where it is positive: chi-square comes out
    above 1 for the true model, and fits come out low (Neyman's chi-square). It shows as a variance that is an exact
    linear function of the data, or of their positive part, which an expected variance never is.
    """
    good = np.ones(image.data.shape, bool) if image.mask is None else ~image.mask
    data, variance = image.data[good].astype(float), image.uncertainty.array[good].astype(float)
    spread = variance.std()
    if spread < 1e-6 * variance.mean():
        return None
    for light in (data, data.clip(0)):
        if light.std() == 0:
            continue
        per_count, background = np.polyfit(light, variance, 1)
        left = variance - background - per_count * light
        if per_count > 0 and background > 0 and left.std() <= 1e-3 * spread:
            return PhotonNoise(float(background), float(per_count))
    return None


def _border(psf: np.ndarray) -> int:
    """How far the PSF carries light that matters, in pixels."""
    half = max(psf.shape) // 2
    centre_y, centre_x = psf.shape[0] // 2, psf.shape[1] // 2
    for reach in range(1, half):
        inner = psf[
            max(centre_y - reach, 0):centre_y + reach + 1, max(centre_x - reach, 0):centre_x + reach + 1
        ]
        if inner.sum() >= _PSF_SHARE_IN_BORDER * psf.sum():
            return reach
    return half
