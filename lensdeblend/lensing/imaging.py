"""Batches of lens images from plain parameter tensors: the fast, differentiable path."""

from __future__ import annotations

import torch
from torch import Tensor

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.epl import epl, series_terms
from lensdeblend.lensing.halos import shear
from lensdeblend.lensing.sersic import sersic
from lensdeblend.lensing.subdivision import PixelGrid

__all__ = ["LensImager"]

# Points a core works on at once: a few arrays of this length stay in its cache.
_POINTS_AT_ONCE = 65536


class LensImager:
    """Power law with shear in front of a Sérsic source, on evenly divided pixels, through the PSF.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx).
    scale : float
        Arcsec a pixel.
    kernel : Tensor or None
        PSF on the image's pixels, odd, summing to 1.
    supersampling : int
        Midpoints a side of each pixel.
    max_ellipticity : float
        Largest modulus of the lens's ellipticity: sets the length of the series.
    border : int or None
        Pixels rendered beyond the frame so that their light is scattered in; None for half the PSF.

    Notes
    -----
    Gradients flow to every parameter. Where none is recorded, a CPU takes the batch in pieces that stay in its cache.
    An ellipticity above ``max_ellipticity`` is not refused, but its deflections are less exact.

    Examples
    --------
    >>> import torch
    >>> from lensdeblend.lensing.imaging import LensImager
    >>> draw = LensImager((64, 64), 0.08)
    >>> lens = torch.tensor([[1.2, 2.0, 0.1, 0.0, 0.0, 0.0, 0.05, 0.0]])
    >>> source = torch.tensor([[10.0, 0.2, 1.0, 0.0, 0.0, 0.1, 0.0]])
    >>> draw(lens, source).shape
    torch.Size([1, 64, 64])
    """

    def __init__(
        self, shape: tuple[int, int], scale: float, kernel: Tensor | None = None, *, supersampling: int = 2,
        max_ellipticity: float = 0.5, border: int | None = None, dtype=torch.float32, device="cpu",
    ):
        half = 0 if kernel is None else max(kernel.shape) // 2
        self.grid = PixelGrid(shape, scale, half if border is None else border)
        self.supersampling = supersampling
        self.terms = series_terms(max_ellipticity, dtype)
        self.convolution = None
        if kernel is not None:
            self.convolution = Convolution(kernel.to(dtype=dtype, device=device), shape, self.grid.border)
        fine = PixelGrid(tuple(n * supersampling for n in self.grid.padded_shape), scale / supersampling)
        self._x, self._y = (axis[None] for axis in fine.centres(dtype, device))
        self._fine_shape = fine.shape

    @property
    def points(self) -> tuple[Tensor, Tensor]:
        """x and y (1, points) of the rays, row by row."""
        return self._x, self._y

    def __call__(self, lens: Tensor, source: Tensor, bend: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Images (batch, ny, nx), flux a pixel.

        Parameters
        ----------
        lens : Tensor
            (batch, 8): ``theta_E``, ``gamma``, ``e1``, ``e2``, ``center_x``, ``center_y``, ``gamma1``, ``gamma2``.
        source : Tensor
            (batch, 7): ``flux``, ``radius``, ``n``, ``e1``, ``e2``, ``center_x``, ``center_y``.
        bend : tuple of Tensor, optional
            x and y (batch, `points`) of what else deflects the rays.
        """
        return self._in_pieces(lambda *part: self.see(self._unseen(*part)), lens, source, bend)

    def unseen(self, lens: Tensor, source: Tensor, bend: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The images before the PSF, border included."""
        return self._in_pieces(self._unseen, lens, source, bend)

    def see(self, unseen: Tensor) -> Tensor:
        """What the PSF makes of `unseen` images; the border is cut off."""
        return self.framed(unseen) if self.convolution is None else self.convolution(unseen)

    def framed(self, unseen: Tensor) -> Tensor:
        """`unseen` images without their border."""
        (ny, nx), border = self.grid.shape, self.grid.border
        return unseen[..., border:border + ny, border:border + nx]

    def _in_pieces(self, render, lens: Tensor, source: Tensor, bend) -> Tensor:
        everything = (lens, source, *(bend or ()))
        recording = torch.is_grad_enabled() and any(each.requires_grad for each in everything)
        if recording or lens.device.type != "cpu":
            return render(*everything)
        piece = max(1, _POINTS_AT_ONCE // self._x.shape[-1])
        with torch.no_grad():
            return torch.cat([render(*part) for part in zip(*(each.split(piece) for each in everything))])

    def _unseen(self, lens: Tensor, source: Tensor, *bend: Tensor) -> Tensor:
        mass = lens.unsqueeze(-1).unbind(1)
        flux, radius, n, e1, e2, center_x, center_y = source.unsqueeze(-1).unbind(1)
        alpha_x, alpha_y = epl(self._x, self._y, *mass[:6], terms=self.terms)
        gamma1, gamma2 = mass[6:]
        along_x, along_y = shear(self._x, self._y, gamma1, gamma2)
        beta_x, beta_y = self._x - alpha_x - along_x, self._y - alpha_y - along_y
        if bend:
            beta_x, beta_y = beta_x - bend[0], beta_y - bend[1]
        light = sersic(beta_x, beta_y, radius, n, e1, e2, center_x, center_y)
        image = (light * (flux * self.grid.scale**2)).reshape(-1, 1, *self._fine_shape)
        if self.supersampling > 1:
            image = torch.nn.functional.avg_pool2d(image, self.supersampling)
        return image[:, 0]
