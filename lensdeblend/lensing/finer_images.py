"""Lens images on pixels finer or coarser than those of the data, of a power law, shear, clumps and a Sérsic source."""

from __future__ import annotations

import torch
from torch import Tensor

from lensdeblend.lensing.clumps import Clumps
from lensdeblend.lensing.epl import epl, epl_convergence
from lensdeblend.lensing.halos import shear
from lensdeblend.lensing.imaging import LensImager

__all__ = ["FinerLens", "amplitudes", "binned"]


class FinerLens(LensImager):
    """`LensImager` on pixels ``factor`` times smaller about the same centre, with cells of convergence beside the lens.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx) of the data; there are ``round(n * factor)`` pixels.
    scale : float
        Arcsec a pixel of the data.
    kernel : Tensor or None
        PSF on the finer pixels.
    factor : float
        From 0.5 on.
    clumps : tuple of int or None
        (rows, columns) of the cells; None for none.
    cell : float or None
        Arcsec a side of them; by default they cover the field of the data.
    middle : tuple of float
        (x, y) of their middle, arcsec.
    supersampling : int
        Midpoints a side of each finer pixel.
    border : int or None
        Finer pixels rendered beyond the frame; None for half the PSF.
    max_ellipticity : float
        As for `LensImager`.
    terms : int or None
        Length of the deflection's series, in place of what the ellipticity asks for: where it is below 0.2, six are
        good to 1e-5 of the deflection.

    Examples
    --------
    >>> import torch
    >>> from lensdeblend.lensing.finer_images import FinerLens
    >>> draw = FinerLens((64, 64), 0.08, factor=2.5, clumps=(32, 32))
    >>> lens = torch.tensor([[1.2, 2.0, 0.1, 0.0, 0.0, 0.0, 0.05, 0.0]])
    >>> source = torch.tensor([[10.0, 0.2, 1.0, 0.0, 0.0, 0.1, 0.0]])
    >>> draw(lens, source, draw.bend(torch.full((1, 32, 32), 0.01))).shape
    torch.Size([1, 160, 160])
    """

    def __init__(
        self, shape: tuple[int, int], scale: float, kernel: Tensor | None = None, *, factor: float = 1.0,
        clumps: tuple[int, int] | None = None, cell: float | None = None, middle: tuple[float, float] = (0.0, 0.0),
        supersampling: int = 2, border: int | None = None,
        max_ellipticity: float = 0.3, terms: int | None = None, dtype=torch.float32, device="cpu",
    ):
        if not factor >= 0.5:
            raise ValueError(f"factor must be at least 0.5; got {factor}")
        fine = tuple(round(n * factor) for n in shape)
        super().__init__(
            fine, scale / factor, kernel, supersampling=supersampling, border=border, max_ellipticity=max_ellipticity,
            dtype=dtype, device=device,
        )
        self.terms = terms or self.terms
        self.clumps = self._clumps_at_pixels = None
        if clumps is not None:
            cell = cell or max(n * scale / count for n, count in zip(shape, clumps))
            rays = (axis.reshape(self._fine_shape) for axis in (self._x, self._y))
            pixels = (axis.reshape(fine) for axis in self._centres())
            self.clumps, self._clumps_at_pixels = (
                Clumps(clumps, cell, x[0] - middle[0], y[:, 0] - middle[1]) for x, y in (rays, pixels)
            )

    def bend(self, clumps: Tensor) -> tuple[Tensor, Tensor]:
        """Deflection of the rays by convergences (batch, rows, columns)."""
        return self.clumps(clumps)

    def roughness(self, bend: tuple[Tensor, Tensor]) -> Tensor:
        """Total variation (batch,) of the rays' deflection by clumps: its mean slope, of either sign."""
        step = self.grid.scale / self.supersampling
        maps = torch.stack(bend, 1).unflatten(2, self._fine_shape)
        return sum(maps.diff(dim=axis).abs().flatten(1).mean(1) for axis in (2, 3)) * (2 / step)

    def deflection(self, lens: Tensor, clumps: Tensor | None = None) -> Tensor:
        """Of all there is, at the pixels' centres: (batch, 2, ny, nx), arcsec."""
        x, y = (axis[None] for axis in self._centres())
        mass = lens.unsqueeze(-1).unbind(1)
        parts = [epl(x, y, *mass[:6], terms=self.terms), shear(x, y, *mass[6:])]
        if clumps is not None:
            parts.append(self._clumps_at_pixels(clumps))
        return torch.stack([sum(axis) for axis in zip(*parts)], 1).unflatten(2, self.grid.shape)

    def convergence(self, lens: Tensor, clumps: Tensor | None = None) -> Tensor:
        """Of all there is (batch, ny, nx), the lens's the mean of two by two points a pixel."""
        step = self.grid.scale / 4
        x, y = (axis[None] for axis in self._centres())
        mass = lens.unsqueeze(-1).unbind(1)
        corners = [epl_convergence(x + i * step, y + j * step, *mass[:6]) for i in (-1, 1) for j in (-1, 1)]
        total = (sum(corners) / 4).unflatten(1, self.grid.shape)
        return total if clumps is None else total + self.substructure(clumps)

    def substructure(self, clumps: Tensor) -> Tensor:
        """Convergence of the clumps alone (batch, ny, nx), at the pixels' centres."""
        return self._clumps_at_pixels.convergence(clumps)

    def _centres(self) -> tuple[Tensor, Tensor]:
        (ny, nx), s = self.grid.shape, self.supersampling
        b = self.grid.border * s
        x, y = (axis.reshape(self._fine_shape)[b:b + ny * s, b:b + nx * s] for axis in (self._x, self._y))
        return tuple(torch.nn.functional.avg_pool2d(axis[None, None], s).flatten() for axis in (x, y))


def binned(images: Tensor, factor: int) -> Tensor:
    """Sums of `factor`` by ``factor`` pixels of images (batch, ny, nx); what is left at the upper edges is cut."""
    return torch.nn.functional.avg_pool2d(images[:, None], factor)[:, 0] * factor**2


def amplitudes(images: Tensor, models: Tensor, weight: Tensor) -> Tensor:
    """What models (batch, ny, nx) are to be multiplied with to come closest to the images (batch,); never negative.

    ``weight`` is one over the noise, 0 where a pixel is not used.
    """
    weighted = models * weight
    return ((images * weight * weighted).sum((1, 2)) / weighted.square().sum((1, 2)).clamp_min(1e-30)).clamp_min(0)
