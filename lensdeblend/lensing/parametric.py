"""A strong lens made of parameters: power law and shear in front, Sérsic sources behind, Sérsic lens light.

Images and all their derivatives at once, for many parameter sets: the chain rule by hand, since every factor is known
in closed form (`epl_jacobian`, `sersic_jacobian`), at a tenth of the cost of forward-mode differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.epl import epl, epl_jacobian
from lensdeblend.lensing.halos import shear
from lensdeblend.lensing.least_squares import Linearisation
from lensdeblend.lensing.sersic import sersic, sersic_jacobian
from lensdeblend.lensing.subdivision import Subdivision

__all__ = ["Bend", "LENS_NAMES", "LIGHT_NAMES", "ParametricLens", "SersicLens"]

Bend = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

LENS_NAMES = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
LIGHT_NAMES = ("x", "y", "log_radius", "log_n", "e1", "e2")


@dataclass(frozen=True)
class SersicLens:
    """Which parameters there are: eight of the lens, then six a source, then six a lens-light component."""

    sources: int = 1
    lens_lights: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        lights = [f"source{k}_{n}" for k in range(self.sources) for n in LIGHT_NAMES]
        lights += [f"light{k}_{n}" for k in range(self.lens_lights) for n in LIGHT_NAMES]
        return (*LENS_NAMES, *lights)

    @property
    def components(self) -> int:
        """Number of linear amplitudes."""
        return self.sources + self.lens_lights

    def light_columns(self, component: int) -> slice:
        """Where a light component's parameters stand."""
        start = len(LENS_NAMES) + len(LIGHT_NAMES) * component
        return slice(start, start + len(LIGHT_NAMES))

    def brightness(self, parameters: Tensor, x: Tensor, y: Tensor, bend: Bend | None = None) -> Tensor:
        """Surface brightness at points, each component at flux 1: (starts, K, points).

        ``bend`` is what else deflects the rays: from x and y to the deflection.
        """
        if self.sources:
            lens = [p[:, None] for p in parameters[:, :8].unbind(1)]
            ax, ay = epl(x, y, *lens[:6])
            sx, sy = shear(x, y, *lens[6:])
            beta_x, beta_y = x - ax - sx, y - ay - sy
            if bend is not None:
                also_x, also_y = bend(x, y)
                beta_x, beta_y = beta_x - also_x, beta_y - also_y
        layers = []
        for k in range(self.components):
            cx, cy, log_radius, log_n, e1, e2 = (p[:, None] for p in parameters[:, self.light_columns(k)].unbind(1))
            at = (beta_x, beta_y) if k < self.sources else (x, y)
            layers.append(sersic(*at, log_radius.exp(), log_n.exp(), e1, e2, cx, cy).expand(len(parameters), len(x)))
        return torch.stack(layers, 1)

    def brightness_and_slopes(
        self, parameters: Tensor, x: Tensor, y: Tensor, bend: Bend | None = None
    ) -> tuple[Tensor, list[list]]:
        """`brightness`, and for each component a list of (column, derivative (starts, points))."""
        if self.sources:
            theta_E, gamma, e1, e2, cx, cy, g1, g2 = (p[:, None] for p in parameters[:, :8].unbind(1))
            z = torch.complex(x, y)
            alpha, by_lens = epl_jacobian(z, theta_E, gamma, e1, e2, torch.complex(cx, cy))
            beta = z - alpha - torch.complex(g1, g2) * z.conj().resolve_conj()
            beta_x, beta_y = beta.real.contiguous(), beta.imag.contiguous()
            if bend is not None:
                also_x, also_y = bend(x, y)
                beta_x, beta_y = beta_x - also_x, beta_y - also_y
            bends = [(d.real.contiguous(), d.imag.contiguous()) for d in by_lens] + [(x, -y), (y, x)]
        layers, slopes = [], []
        for k in range(self.components):
            columns = self.light_columns(k)
            px, py, log_radius, log_n, f1, f2 = (p[:, None] for p in parameters[:, columns].unbind(1))
            radius, n = log_radius.exp(), log_n.exp()
            at_x, at_y = (beta_x - px, beta_y - py) if k < self.sources else (x - px, y - py)
            light, (by_x, by_y, by_radius, by_n, by_e1, by_e2) = sersic_jacobian(at_x, at_y, radius, n, f1, f2)
            own = [-by_x, -by_y, by_radius * radius, by_n * n, by_e1, by_e2]
            entries = list(zip(range(columns.start, columns.stop), own))
            if k < self.sources:
                entries += [(i, -torch.addcmul(by_x * bx, by_y, by)) for i, (bx, by) in enumerate(bends)]
            layers.append(light)
            slopes.append(entries)
        return torch.stack(layers, 1), slopes


class ParametricLens:
    """`SersicLens` as seen: pixels, point-spread function, noise and mask.

    Parameters
    ----------
    model : SersicLens
    subdivision : Subdivision
    convolution : Convolution or None
    weight : Tensor
        One over the noise for every pixel of the frame; 0 where masked.
    """

    def __init__(self, model: SersicLens, subdivision: Subdivision, convolution: Convolution | None, weight: Tensor):
        self.model, self.subdivision, self.convolution = model, subdivision, convolution
        flat = weight.reshape(-1)
        self.used = torch.nonzero(flat > 0).reshape(-1)
        self.weight = flat[self.used]
        self._area = subdivision.grid.scale**2

    def images(self, parameters: Tensor) -> Tensor:
        """Each component at flux 1, flux a pixel, through the PSF: (starts, K, ny, nx)."""
        unseen = self.subdivision.render(lambda x, y: self.model.brightness(parameters, x, y)) * self._area
        return self._see(unseen)

    def linearise(self, parameters: Tensor, with_slopes: bool = True) -> Linearisation:
        """Basis and derivatives over the unmasked pixels, in units of the noise."""
        if not with_slopes:
            return Linearisation(self._weigh(self.images(parameters)))
        components = self.model.components
        grid = self.subdivision.grid
        pixels = None
        for block in self.subdivision:
            light, slopes = self.model.brightness_and_slopes(parameters, block.x, block.y)
            entries = [(k, column, values) for k, some in enumerate(slopes) for column, values in some]
            if pixels is None:
                owners = torch.tensor([k for k, _, _ in entries])
                columns = torch.tensor([column for _, column, _ in entries])
                pixels = parameters.new_zeros(len(parameters), components + len(entries), grid.size)
            pixels[:, :components].index_add_(-1, block.pixel, block.average(light))
            for row, (_, _, values) in enumerate(entries, start=components):
                pixels[:, row].index_add_(-1, block.pixel, block.average(values))
        unseen = pixels.reshape(*pixels.shape[:2], *grid.padded_shape) * self._area
        seen = self._weigh(self._see(unseen))
        return Linearisation(seen[:, :components], seen[:, components:], owners, columns)

    def _see(self, images: Tensor) -> Tensor:
        if self.convolution is not None:
            return self.convolution(images)
        border = self.subdivision.grid.border
        ny, nx = self.subdivision.grid.shape
        return images[..., border:border + ny, border:border + nx]

    def _weigh(self, images: Tensor) -> Tensor:
        return images.reshape(*images.shape[:-2], -1)[..., self.used] * self.weight
