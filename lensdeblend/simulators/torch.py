"""Lenses and blends by our own physics in torch: batched, on CPU or GPU.

The deflections and profiles are those of `lensdeblend.lensing`; scenes made of the same kinds of components are
rendered together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import astropy.units as u
import numpy as np
import torch
from torch import Tensor

from lensdeblend.images import pixel_scale
from lensdeblend.interfaces import Simulator
from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.epl import epl, sie
from lensdeblend.lensing.halos import nfw, point_mass, point_masses, shear, truncated_nfw, vortex
from lensdeblend.lensing.pixels import interpolate
from lensdeblend.lensing.sersic import gaussian, sersic
from lensdeblend.lensing.subdivision import PixelGrid, Subdivision, refine
from lensdeblend.results import Simulation
from lensdeblend.scenes import (
    EPL, NFW, SIE, Gaussian, ImageSource, Observation, PointMass, PointSource, PointSubhalos, Scene, Sersic, Shear,
    TruncatedNFW, Vortex,
)
from lensdeblend.scenes.catalog import total_flux
from lensdeblend.simulators.assembly import assemble, point_image, source_grid
from lensdeblend.simulators.checks import require_drawn, require_whole

__all__ = ["Torch"]

_CENTER = ("center_x", "center_y")
_ELLIPSE = ("e1", "e2", *_CENTER)
_DEFLECTIONS = {
    EPL: (epl, ("theta_E", "gamma", *_ELLIPSE)),
    SIE: (sie, ("theta_E", *_ELLIPSE)),
    Shear: (shear, ("gamma1", "gamma2")),
    NFW: (nfw, ("Rs", "alpha_Rs", *_CENTER)),
    TruncatedNFW: (truncated_nfw, ("Rs", "alpha_Rs", "r_trunc", *_CENTER)),
    PointMass: (point_mass, ("theta_E", *_CENTER)),
    PointSubhalos: (point_masses, ("theta_E", *_CENTER)),
    Vortex: (vortex, ("theta_E", "half_length", "angle", *_CENTER)),
}
_PROFILES = {
    Sersic: (sersic, ("radius", "n", *_ELLIPSE)),
    Gaussian: (gaussian, ("sigma", *_ELLIPSE)),
}
# Scenes rendered together share the division of their pixels: on a CPU many of them cost more than they save.
_TOGETHER = {"cpu": 4, "cuda": 16}

Points = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Torch(Simulator):
    """Simulate lenses and blends in torch.

    Parameters
    ----------
    precision : float
        Pixels whose average is not known to this fraction of the brightest pixel are cut more finely.
    points : int
        Gauss-Legendre points a side of each pixel or part of one.
    dtype : {"float64", "float32"}
    device : str
        ``"auto"`` takes a GPU where there is one.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic, Shear
    >>> from lensdeblend.simulators.torch import Torch
    >>> scene = Scene([EPL(1 * u.arcsec, e1=0.1), Shear(0.05)], sources=[Sersic(9, 0.2 * u.arcsec)])
    >>> observation = Observation(0.1 * u.arcsec, (50, 50), GaussianPSF(0.15 * u.arcsec))
    >>> Torch().simulate(scene, observation, np.random.default_rng(1)).image.data.shape
    (50, 50)
    """

    precision: float = 1e-5
    points: int = 2
    dtype: Literal["float64", "float32"] = "float64"
    device: str = "auto"

    def __post_init__(self):
        if not self.precision > 0:
            raise ValueError(f"precision must be positive; got {self.precision}")
        require_whole("points", self.points)
        if self.dtype not in ("float64", "float32"):
            raise ValueError(f"dtype must be 'float64' or 'float32'; got {self.dtype!r}")
        try:
            torch.device("cpu" if self.device == "auto" else self.device)
        except (RuntimeError, TypeError):
            raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N'; got {self.device!r}") from None

    def simulate(self, scene: Scene, observation: Observation, rng: np.random.Generator) -> Simulation:
        """Return the image of ``scene``.

        Raises
        ------
        ValueError
            For components that this simulator cannot draw, for a point source behind a lens, and for a device that
            is not there.
        """
        return self._together([scene], observation, [rng])[0]

    def simulate_batch(
        self, scenes: Sequence[Scene], observation: Observation, rng: np.random.Generator
    ) -> list[Simulation]:
        """Return one `~lensdeblend.results.Simulation` a scene; scenes of one structure are rendered together."""
        children = rng.spawn(len(scenes))
        groups: dict[tuple, list[int]] = {}
        for index, scene in enumerate(scenes):
            groups.setdefault(_structure(scene), []).append(index)
        results: list[Simulation | None] = [None] * len(scenes)
        for members in groups.values():
            together = _TOGETHER.get(torch.device(self._kind["device"]).type, 16)
            for start in range(0, len(members), together):
                part = members[start:start + together]
                done = self._together([scenes[i] for i in part], observation, [children[i] for i in part])
                for index, result in zip(part, done):
                    results[index] = result
        return results

    def _together(self, scenes: Sequence[Scene], observation: Observation, rngs) -> list[Simulation]:
        for scene in scenes:
            require_drawn(scene, "torch", (*_PROFILES, ImageSource, PointSource), _DEFLECTIONS)
        first = scenes[0]
        scale = observation.pixel_scale.to_value(u.arcsec)
        with torch.no_grad():
            deflect = self._deflection([scene.mass for scene in scenes])
            galaxies = [
                self._light([scene.galaxies[i].components for scene in scenes], observation)
                for i in range(len(first.galaxies))
            ]
            lens_light = [self._light([scene.lens_light for scene in scenes], observation)] if first.lens_light else []
            kernel = observation.kernel
            border = 0 if kernel is None else max(kernel.shape) // 2
            grid = PixelGrid(observation.shape, scale, border)
            seen = [self._convolved(self._pixels(_behind(layer, deflect), grid), grid, kernel) for layer in galaxies]
            light = [self._convolved(self._pixels(layer, grid), grid, kernel) for layer in lens_light]
            unlensed = [None] * len(scenes)
            if first.is_lens and galaxies:
                whole = _sum(galaxies)
                unlensed = self._convolved(self._pixels(whole, grid), grid, kernel).cpu().double().numpy()
        seen = [layer.cpu().double().numpy() for layer in seen]
        results = []
        for index, (scene, rng) in enumerate(zip(scenes, rngs)):
            images = [
                layer[index] + _points(galaxy.components, observation) for layer, galaxy in zip(seen, scene.galaxies)
            ]
            lights = light[0][index].cpu().double().numpy() + _points(scene.lens_light, observation) if light else None
            source = where = None
            if scene.is_lens and images:
                where = source_grid(scene, observation)
                source = self._source_plane(scene, observation, where)
            results.append(
                assemble(
                    scene, observation, rng, galaxies=images, lens_light=lights, source=source, grid=where,
                    unlensed=unlensed[index], meta={"torch": str(torch.__version__)},
                )
            )
        return results

    def _source_plane(self, scene: Scene, observation: Observation, where) -> np.ndarray:
        with torch.no_grad():
            layers = [self._light([galaxy.components], observation) for galaxy in scene.galaxies]
            grid = PixelGrid(where.shape, where.pixel_scale, 0, where.center)
            return self._pixels(_sum(layers), grid)[0].cpu().double().numpy()

    @property
    def _kind(self) -> dict:
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif str(device).startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"torch sees no GPU here, so device {device!r} cannot be used; take 'auto' or 'cpu'")
        return {"dtype": getattr(torch, self.dtype), "device": device}

    def _pixels(self, brightness: Points, grid: PixelGrid) -> Tensor:
        """Flux a pixel, border included: (scenes, ny, nx)."""
        rough = Subdivision.uniform(grid, self.points, **self._kind).render(brightness)
        peak = rough.abs().amax((-2, -1)).clamp_min(1e-300 if self.dtype == "float64" else 1e-30)

        def relative(x: Tensor, y: Tensor) -> Tensor:
            return brightness(x, y) / peak[:, None]

        limit = torch.full((grid.size,), self.precision, **self._kind)
        cells = refine(grid, relative, limit, points=self.points, shared=True, **self._kind)
        return cells.render(brightness) * grid.scale**2

    def _convolved(self, images: Tensor, grid: PixelGrid, kernel: np.ndarray | None) -> Tensor:
        if kernel is None:
            return images
        return Convolution(torch.as_tensor(np.array(kernel), **self._kind), grid.shape, grid.border)(images)

    def _stack(self, components: Sequence, names: Sequence[str]) -> list[Tensor]:
        """Each field of like components, one row a scene: (scenes, 1), or (scenes, n) for subhaloes."""
        return [
            torch.as_tensor(np.stack([np.atleast_1d(_number(c, name)) for c in components]), **self._kind)
            for name in names
        ]

    def _deflection(self, masses: Sequence[Sequence]) -> Points | None:
        if not masses[0]:
            return None
        parts = []
        for like_components in zip(*masses):
            function, names = _DEFLECTIONS[type(like_components[0])]
            options = {"n": like_components[0].n} if isinstance(like_components[0], Vortex) else {}
            parts.append((function, self._stack(like_components, names), options))

        def source_position(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            beta_x, beta_y = x[None], y[None]
            for function, parameters, options in parts:
                by_x, by_y = function(x[None], y[None], *parameters, **options)
                beta_x, beta_y = beta_x - by_x, beta_y - by_y
            return beta_x, beta_y

        return source_position

    def _light(self, groups: Sequence[Sequence], observation: Observation) -> Points:
        """Brightness, flux per square arcsec, of like groups of components: (scenes, points)."""
        parts = []
        for alike in zip(*groups):
            if isinstance(alike[0], PointSource):
                continue
            flux = torch.as_tensor([[total_flux(c, observation)] for c in alike], **self._kind)
            if isinstance(alike[0], ImageSource):
                parts.append((self._image_function(alike), [], flux))
            else:
                function, names = _PROFILES[type(alike[0])]
                parts.append((function, self._stack(alike, names), flux))
        count = len(groups)

        def brightness(x: Tensor, y: Tensor) -> Tensor:
            total = torch.zeros(count, x.shape[-1], **self._kind)
            for function, parameters, flux in parts:
                total = total + flux * function(x, y, *parameters)
            return total

        return brightness

    def _image_function(self, alike: Sequence[ImageSource]) -> Callable:
        scales = [pixel_scale(c.image).to_value(u.arcsec) for c in alike]
        pixels = [np.array(c.image.data, dtype=float) for c in alike]
        images = torch.as_tensor(
            np.stack([p / (p.sum() * scale**2) for p, scale in zip(pixels, scales)]), **self._kind
        )
        scale = torch.as_tensor(scales, **self._kind)[:, None]
        center_x, center_y, angle = self._stack(alike, (*_CENTER, "angle"))
        cosine, sine = torch.cos(angle), torch.sin(angle)

        def brightness(x: Tensor, y: Tensor) -> Tensor:
            dx, dy = x - center_x, y - center_y
            return interpolate(images, dx * cosine + dy * sine, dy * cosine - dx * sine, scale)

        return brightness


def _number(component, name: str) -> np.ndarray:
    value = getattr(component, name)
    if isinstance(value, u.Quantity):
        return value.to_value(u.rad if name == "angle" else u.arcsec)
    return np.asarray(value, dtype=float)


def _behind(layer: Points, source_position) -> Points:
    return layer if source_position is None else lambda x, y: layer(*source_position(x, y))


def _sum(layers: Sequence[Points]) -> Points:
    return lambda x, y: sum(layer(x, y) for layer in layers)


def _points(components: Sequence, observation: Observation) -> np.ndarray | float:
    return sum(
        point_image(
            observation.flux(c.flux), c.center_x.to_value(u.arcsec), c.center_y.to_value(u.arcsec), observation
        )
        for c in components if isinstance(c, PointSource)
    )


def _structure(scene: Scene) -> tuple:
    """What scenes must share to be rendered together."""

    def kind(component) -> tuple:
        shape = ()
        if isinstance(component, PointSubhalos):
            shape = component.theta_E.shape
        elif isinstance(component, Vortex):
            shape = (component.n,)
        elif isinstance(component, ImageSource):
            shape = component.image.data.shape
        return type(component), shape

    return (
        tuple(map(kind, scene.mass)),
        tuple(map(kind, scene.lens_light)),
        tuple(tuple(map(kind, galaxy.components)) for galaxy in scene.galaxies),
    )
