r"""The decoder of the published super-resolution study: what follows from a deflection that is all but radial.

A deflection :math:`\alpha`, radial but for a trace, is the same everywhere along a ray from the middle where the lens
is an isothermal sphere, :math:`\alpha = \theta_E\, \hat\theta`. The deflection found at an image position is then that
of a source position in the same direction, and the source is the image read off there,

.. math::

    S(\beta) = I\big(\beta + \alpha(\beta)\big),

which is exact for that lens alone. About its brightest pixel :math:`\beta_0` an exponential disc is drawn, and lensed,

.. math::

    P(\beta) = e^{-b_1 |\beta - \beta_0| / R}, \qquad \hat I(\theta) = P\big(\theta - \alpha(\theta)\big),

and :math:`S` held against :math:`P`, :math:`\hat I` against the data. No PSF is known here, and :math:`\beta_0` passes
no gradient on. Images are scaled by their own minimum and maximum, so that flux is lost (`brought_to` finds it again).

Left open by the description, and chosen here: rays are read off between pixels bilinearly, beyond the frame at its edge
(in noisy images sky is far above the minimum, and 0 there would reward deflections that leave the frame); images become
finer and coarser by Keys' cubic; on coarser pixels the radial and the tangential number are averaged, as the mean of
vectors would vanish in the middle; the variation is that of these two numbers, a mean over pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from lensdeblend.lensing.sersic import sersic_b

__all__ = ["Decoded", "RadialDecoder", "brought_to", "resized", "unit_range", "variation"]

#: How many times smaller than those of the data the pixels are on which source and image are held against each other.
LEVELS = (2.0, 1.0, 0.5)


def unit_range(images: Tensor) -> Tensor:
    """Images (batch, ny, nx), each from 0 to 1 by its own minimum and maximum; an even one is 0."""
    low, high = images.flatten(1).amin(1), images.flatten(1).amax(1)
    return (images - low[:, None, None]) / (high - low).clamp_min(1e-12)[:, None, None]


def resized(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Images (batch, ny, nx) on other pixels over the same field, by Keys' cubic; surface brightness is kept."""
    if images.shape[1:] == shape:
        return images
    return interpolate(images[:, None], shape, mode="bicubic", antialias=True, align_corners=False)[:, 0]


def variation(deflection: Tensor) -> Tensor:
    """Total variation (batch,) of maps (batch, 2, ny, nx): mean difference of neighbours, over both axes and maps."""
    return sum(deflection.diff(dim=axis).abs().mean((2, 3)).sum(1) for axis in (2, 3))


def brought_to(data: Tensor, models: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset (batch,) that bring models (batch, ny, nx) closest to the data; no slope is negative.

    ``weight`` is one over the noise, 0 where a pixel is not used.
    """
    squares = weight.square()
    total = squares.sum((1, 2)).clamp_min(1e-30)

    def mean(values: Tensor) -> Tensor:
        return (values * squares).sum((1, 2)) / total

    middle, level = mean(models), mean(data)
    apart = models - middle[:, None, None]
    slope = (mean(apart * (data - level[:, None, None])) / mean(apart.square()).clamp_min(1e-30)).clamp_min(0)
    return slope, level - slope * middle


@dataclass
class Decoded:
    """Of each of `LEVELS`, the finest first, images (batch, ny, nx) from 0 to 1.

    ``sources``: the image traced back; ``profiles``: the disc about its brightest pixel; ``images``: that disc lensed.
    ``deflection`` (batch, 2, ny, nx): in x and y on the finest pixels, arcsec; ``polar`` the same, radial and
    tangential.
    """

    sources: list[Tensor]
    profiles: list[Tensor]
    images: list[Tensor]
    deflection: Tensor
    polar: Tensor


class RadialDecoder:
    """Source and image of a deflection.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx) of the data.
    scale : float
        Arcsec a pixel of the data.
    radial : tuple of float
        The least and the largest radial deflection, arcsec.
    tangential : float
        The largest tangential deflection, arcsec, of either sign.
    radius : float
        Half-light radius of the disc, arcsec.
    device : str or torch.device

    Examples
    --------
    >>> import torch
    >>> from lensdeblend.lensing.radial_decoder import RadialDecoder
    >>> decode = RadialDecoder((64, 64), 0.08)
    >>> found = decode(torch.rand(1, 64, 64), torch.full((1, 2, 128, 128), 0.5))
    >>> round(float(found.polar[0, 0, 0, 0]), 6), float(found.polar[0, 1, 0, 0])
    (1.05, 0.0)
    >>> [tuple(image.shape[1:]) for image in found.images]
    [(128, 128), (64, 64), (32, 32)]
    """

    def __init__(
        self, shape: tuple[int, int], scale: float, *, radial: tuple[float, float] = (0.5, 1.6),
        tangential: float = 0.001375, radius: float = 0.25, device: str | torch.device = "cpu",
    ):
        self.radial, self.tangential, self.radius = radial, tangential, radius
        self.fall = float(sersic_b(torch.ones(1))[0]) / radius
        self.field = tuple(n * scale for n in shape)
        self.frames = [_Frame(tuple(round(n * level) for n in shape), self.field, device) for level in LEVELS]

    def polar(self, shares: Tensor) -> Tensor:
        """Radial and tangential deflection, arcsec, of numbers (batch, 2, ny, nx) from 0 to 1."""
        low, high = self.radial
        return torch.stack([low + (high - low) * shares[:, 0], self.tangential * (2 * shares[:, 1] - 1)], 1)

    def __call__(self, images: Tensor, shares: Tensor) -> Decoded:
        """Decode what a network tells (batch, 2, ny, nx) of images (batch, ny, nx) that go from 0 to 1."""
        polar = self.polar(shares)
        sources, profiles, drawn, finest = [], [], [], None
        for frame in self.frames:
            deflection = frame.deflection(_averaged(polar, frame.shape))
            finest = deflection if finest is None else finest
            source = unit_range(self._traced(resized(images, frame.shape), frame.points + deflection))
            brightest = frame.points.flatten(1)[:, source.detach().flatten(1).argmax(1)].T[:, :, None, None]
            sources.append(source)
            profiles.append(unit_range(self._disc(frame.points - brightest)))
            drawn.append(unit_range(self._disc(frame.points - deflection - brightest)))
        return Decoded(sources, profiles, drawn, finest, polar)

    def _traced(self, images: Tensor, rays: Tensor) -> Tensor:
        """Images where rays (batch, 2, ny, nx) meet them."""
        ny, nx = self.field
        at = torch.stack([rays[:, 0] / (nx / 2), rays[:, 1] / (ny / 2)], -1)
        return grid_sample(images[:, None], at, mode="bilinear", padding_mode="border", align_corners=False)[:, 0]

    def _disc(self, apart: Tensor) -> Tensor:
        # The slope of a root at 0 is infinite.
        return torch.exp(-self.fall * (apart.square().sum(1) + 1e-12).sqrt())


class _Frame:
    """Centres of pixels (2, ny, nx) over a field, arcsec, and the directions in which they lie."""

    def __init__(self, shape: tuple[int, int], field: tuple[float, float], device):
        y, x = (
            (torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2) * (side / n)
            for n, side in zip(shape, field)
        )
        self.shape = shape
        self.points = torch.stack([x.expand(shape), y[:, None].expand(shape)])
        self.outwards = self.points / torch.hypot(*self.points).clamp_min(1e-12)

    def deflection(self, polar: Tensor) -> Tensor:
        """In x and y, of radial and tangential deflections."""
        radial, tangential = polar[:, :1], polar[:, 1:]
        across = torch.stack([-self.outwards[1], self.outwards[0]])
        return radial * self.outwards + tangential * across


def _averaged(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == shape else interpolate(maps, shape, mode="area")
