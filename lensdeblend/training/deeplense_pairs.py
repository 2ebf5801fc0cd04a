"""The data sets of the DeepLense super-resolution study: images of low resolution and what finer pixels would show.

Scenes are those of the populations ``deeplense-model-M-CLASS``; images are drawn here in batches, in single precision.
Pixels are those of the study: 75 a side of 0.05 arcsec in model 1, 64 of 0.101 in model 2 and 64 of 0.08 in model 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import astropy.units as u
import numpy as np
import torch
from torch import Tensor

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.finer_images import FinerLens, binned
from lensdeblend.lensing.halos import point_masses, vortex
from lensdeblend.scenes import Observation, PointSubhalos, Scene, Vortex
from lensdeblend.scenes.populations import population
from lensdeblend.scenes.populations.deeplense import CLASSES

__all__ = ["DeepLenseBatch", "DeepLensePairs"]

_MODELS = (1, 2, 3)
_SHAPES = {1: (75, 75), 2: (64, 64), 3: (64, 64)}
# Points a side of each pixel of the data where nothing finer is asked for, and of each finer pixel.
_POINTS = 2
_EVEN = MappingProxyType({name: 1.0 for name in CLASSES})


@dataclass
class DeepLenseBatch:
    """Images and truth, float32; lengths in arcsec, images in the unit of the population's observation.

    ``image``, ``sigma``, ``clean`` (batch, ny, nx): data, their noise, and the same without noise. ``fine`` (batch,
    F ny, F nx): without noise on pixels F times smaller, through the same PSF, or None. ``kind`` (batch,): the place in
    `CLASSES`. ``lens`` (batch, 8): ``theta_E``, ``gamma``, ``e1``, ``e2``, ``center_x``, ``center_y``, ``gamma1``,
    ``gamma2`` of the main lens and the shear, without substructure. ``source`` (batch, 7): ``flux``, ``radius``, ``n``,
    ``e1``, ``e2``, ``center_x``, ``center_y``. ``deflection`` (batch, 2, ny, nx): of everything, at the centres of the
    data's pixels, or None.
    """

    image: Tensor
    sigma: Tensor
    clean: Tensor
    fine: Tensor | None
    kind: Tensor
    lens: Tensor
    source: Tensor
    deflection: Tensor | None


class DeepLensePairs:
    """Draws scenes of one model and images them at two resolutions.

    Parameters
    ----------
    model : int
        1, 2 or 3.
    published : bool
        The published Einstein radii and subhalo masses, instead of the corrected ones.
    shares : mapping of str to float
        How often each of the classes ``none``, ``cdm`` and ``axion`` comes.
    factor : int
        How many times smaller the finer pixels are.

    Examples
    --------
    >>> from lensdeblend.training.deeplense_pairs import DeepLensePairs
    >>> batch = DeepLensePairs(3, shares={"axion": 1.0}).draw(2, seed=1)
    >>> batch.image.shape, batch.fine.shape
    (torch.Size([2, 64, 64]), torch.Size([2, 128, 128]))
    """

    def __init__(
        self, model: int, published: bool = True, shares: Mapping[str, float] = _EVEN, factor: int = 2
    ):
        if model not in _MODELS:
            raise ValueError(f"model must be 1, 2 or 3; got {model!r}")
        unknown = [name for name in shares if name not in CLASSES]
        if unknown:
            raise ValueError(f"shares has the unknown class {unknown[0]!r}; known are {', '.join(CLASSES)}")
        given = np.array([float(shares.get(name, 0.0)) for name in CLASSES])
        if not ((given >= 0).all() and given.sum() > 0):
            raise ValueError(f"shares must be positive, or 0 but not all; got {dict(shares)}")
        if isinstance(factor, bool) or factor != int(factor) or factor < 1:
            raise ValueError(f"factor must be a whole number of at least 1; got {factor!r}")
        self.model, self.factor, self.shares = model, int(factor), given / given.sum()
        variant = "-published" if published else ""
        named = {name: population(f"deeplense-model-{model}-{name}{variant}") for name in CLASSES}
        self.populations = {
            name: replace(one, observation=replace(one.observation, shape=_SHAPES[model]))
            for name, one in named.items()
        }

    @property
    def observation(self) -> Observation:
        """Pixels, PSF and noise of the data; the exposure time of model 1 is that in the middle of its range."""
        return self.populations["none"].observation

    def draw(
        self, count: int, seed: int | tuple[int, ...], device: str | torch.device = "cpu", fine: bool = True
    ) -> DeepLenseBatch:
        """A batch; the same seed gives the same.

        Parameters
        ----------
        count : int
        seed : int or tuple of int
        device : str or torch.device
        fine : bool
            Whether to give the truth on finer pixels, and the deflection, at four times the cost. The pixels of the
            data are then divided more finely, too.
        """
        rng = np.random.default_rng(seed)
        kind = rng.choice(len(CLASSES), count, p=self.shares)
        drawn = [self._scene(CLASSES[one], rng) for one in kind]
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        observation, factor = self.observation, self.factor if fine else 1
        lens, source = (
            torch.tensor([part(scene, observation) for scene, _ in drawn], dtype=torch.float32, device=device)
            for part in (_lens, _source)
        )
        scale = observation.pixel_scale.to_value(u.arcsec)
        kernel = _kernel(observation, device)
        border = max(kernel.shape) // 2
        with torch.no_grad():
            imager = FinerLens(
                observation.shape, scale, _kernel(observation.refined(factor), device), factor=factor,
                supersampling=_POINTS, border=border * factor, device=device,
            )
            at_pixels = FinerLens(observation.shape, scale, supersampling=1, device=device)
            unseen, deflection = [], []
            for one, (scene, _) in enumerate(drawn):
                part = slice(one, one + 1)
                more = _substructure(scene, device)
                unseen.append(imager.unseen(lens[part], source[part], more(*imager.points)))
                if fine:
                    pixels = torch.stack(more(*at_pixels.points), 1).unflatten(2, observation.shape)
                    deflection.append(at_pixels.deflection(lens[part]) + pixels)
            unseen = torch.cat(unseen)
            clean = Convolution(kernel, observation.shape, border)(binned(unseen, factor))
            sigma = torch.stack([
                torch.as_tensor(np.sqrt(seen.variance(one.cpu().numpy())), dtype=torch.float32, device=device)
                for one, (_, seen) in zip(clean, drawn)
            ])
            noise = torch.randn(clean.shape, generator=generator, device=device)
            return DeepLenseBatch(
                clean + noise * sigma, sigma, clean, imager.see(unseen) if fine else None,
                torch.as_tensor(kind, device=device), lens, source, torch.cat(deflection) if fine else None,
            )

    def _scene(self, kind: str, rng: np.random.Generator) -> tuple[Scene, Observation]:
        one = self.populations[kind]
        # No noise of these populations depends on how bright the source is.
        return one.draw(rng), one.observe(rng, 1.0)


def _kernel(observation: Observation, device) -> Tensor:
    return torch.as_tensor(observation.kernel, dtype=torch.float32, device=device)


def _lens(scene: Scene, observation: Observation) -> list[float]:
    main, shear = scene.mass[:2]
    theta_E, x, y = _arcsec(main, "theta_E", "center_x", "center_y")
    return [theta_E, 2.0, main.e1, main.e2, x, y, shear.gamma1, shear.gamma2]


def _source(scene: Scene, observation: Observation) -> list[float]:
    (source,) = scene.sources
    radius, x, y = _arcsec(source, "radius", "center_x", "center_y")
    return [observation.flux(source.flux), radius, source.n, source.e1, source.e2, x, y]


def _arcsec(component, *names: str) -> Sequence:
    return [getattr(component, name).to_value(u.arcsec) for name in names]


def _substructure(scene: Scene, device) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Deflection (1, points) of all but the main lens and the shear."""
    def tensors(component, *names: str) -> list[Tensor]:
        return [
            torch.as_tensor(np.atleast_1d(value), dtype=torch.float32, device=device)[None]
            for value in _arcsec(component, *names)
        ]

    def bend(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        total_x, total_y = torch.zeros_like(x), torch.zeros_like(y)
        for component in scene.mass[2:]:
            if isinstance(component, PointSubhalos):
                more = point_masses(x, y, *tensors(component, "theta_E", "center_x", "center_y"))
            elif isinstance(component, Vortex):
                theta_E, half_length, center_x, center_y = tensors(
                    component, "theta_E", "half_length", "center_x", "center_y"
                )
                angle = theta_E.new_tensor([[component.angle.to_value(u.rad)]])
                more = vortex(x, y, theta_E, half_length, angle, center_x, center_y, component.n)
            else:
                raise TypeError(f"{type(component).__name__} is no substructure of these models")
            total_x, total_y = total_x + more[0], total_y + more[1]
        return total_x, total_y

    return bend
