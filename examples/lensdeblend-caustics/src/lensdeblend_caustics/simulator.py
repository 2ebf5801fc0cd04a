"""Lenses by caustics (Stone et al. 2024, 2024JOSS....9.7081S).

Surface brightness at the source is seen at the image: I(x) = S(x - alpha(x)). It is averaged over the points into
which each pixel is divided, then convolved with the PSF at the image's own pixel scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData, VarianceUncertainty
from caustics.lenses.func import reduced_deflection_angle_epl, reduced_deflection_angle_external_shear
from caustics.light.func import brightness_sersic, k_sersic
from scipy.signal import fftconvolve

from lensdeblend.images import like, on_grid
from lensdeblend.interfaces import Simulator
from lensdeblend.results import Simulation
from lensdeblend.scenes import EPL, SIE, LightComponent, MassComponent, Observation, Scene, Sersic, Shear
from lensdeblend.scenes.catalog import true_catalog

__all__ = ["Caustics", "deflection", "surface_brightness"]

SOURCE_REFINEMENT = 4
SMALLEST_TERM = 1e-12


@dataclass(frozen=True)
class Caustics(Simulator):
    """Simulate lenses of EPL, SIE and shear with Sérsic sources and lens light; blends of Sérsics as well.

    Parameters
    ----------
    supersampling : int
        Parts into which each pixel is cut along each axis.
    """

    supersampling: int = 8

    def __post_init__(self):
        if self.supersampling != int(self.supersampling) or self.supersampling < 1:
            raise ValueError(f"supersampling must be a whole positive number; got {self.supersampling}")

    def simulate(self, scene: Scene, observation: Observation, rng: np.random.Generator) -> Simulation:
        """Return the image of ``scene``.

        Raises
        ------
        ValueError
            For components other than EPL, SIE, Shear and Sersic.
        """
        groups = [galaxy.components for galaxy in scene.galaxies]
        _check(scene, groups)
        galaxies = [self._seen(group, scene.mass, observation) for group in groups]
        noiseless = sum([*galaxies, self._seen(scene.lens_light, (), observation)])
        variance = observation.variance(noiseless)
        image = NDData(
            rng.normal(noiseless, np.sqrt(variance)),
            uncertainty=VarianceUncertainty(variance) if variance.any() else None,
            unit=observation.unit,
            psf=observation.kernel,
            meta={"PIXSCALE": observation.pixel_scale.to_value(u.arcsec)},
        )
        source = unlensed = None
        if scene.is_lens and groups:
            behind = [part for group in groups for part in group]
            fine = observation.pixel_scale / SOURCE_REFINEMENT
            shape = tuple(SOURCE_REFINEMENT * side for side in observation.shape)
            source = on_grid(image, self._pixels(behind, (), observation, shape, fine), pixel_scale=fine)
            unlensed = like(image, self._seen(behind, (), observation))
        return Simulation(
            image=image,
            noiseless=like(image, noiseless),
            scene=scene,
            observation=observation,
            sources=[like(image, galaxy) for galaxy in galaxies],
            source=source,
            unlensed=unlensed,
            catalog=true_catalog(scene, observation, galaxies, variance),
        )

    def _seen(
        self, lights: Sequence[LightComponent], mass: Sequence[MassComponent], observation: Observation
    ) -> np.ndarray:
        """Flux per pixel through the PSF; light from outside the frame is scattered into it."""
        kernel = observation.kernel
        if kernel is None:
            return self._pixels(lights, mass, observation, observation.shape, observation.pixel_scale)
        padded = tuple(side + 2 * (length // 2) for side, length in zip(observation.shape, kernel.shape))
        sharp = self._pixels(lights, mass, observation, padded, observation.pixel_scale)
        return fftconvolve(sharp, kernel, mode="valid")

    def _pixels(self, lights, mass, observation: Observation, shape: tuple[int, int], scale) -> np.ndarray:
        """Flux per pixel before the PSF, on ``shape`` pixels around the image centre."""
        step = scale.to_value(u.arcsec) / self.supersampling
        y, x = torch.meshgrid(*(_points(side * self.supersampling, step) for side in shape), indexing="ij")
        alpha_x, alpha_y = deflection(mass, x, y)
        brightness = sum(
            (surface_brightness(light, observation.flux(light.flux), x - alpha_x, y - alpha_y) for light in lights),
            torch.zeros_like(x),
        )
        blocks = brightness.reshape(shape[0], self.supersampling, shape[1], self.supersampling)
        return blocks.sum(dim=(1, 3)).numpy() * step**2


def deflection(mass: Sequence[MassComponent], x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Deflection by all of ``mass`` at ``x``, ``y``, in arcsec."""
    alpha_x, alpha_y = torch.zeros_like(x), torch.zeros_like(y)
    for part in mass:
        if isinstance(part, Shear):
            gamma1, gamma2, zero = _tensors(part.gamma1, part.gamma2, 0.0)
            by_x, by_y = reduced_deflection_angle_external_shear(zero, zero, gamma1, gamma2, x, y)
        else:
            q, phi = _axis_ratio_and_angle(part)
            slope = part.gamma - 1 if isinstance(part, EPL) else 1.0
            center_x, center_y, theta_E = _arcsec(part.center_x, part.center_y, part.theta_E)
            terms = _series_length((1 - q) / (1 + q))
            by_x, by_y = reduced_deflection_angle_epl(
                *_tensors(center_x, center_y, q, phi, theta_E, slope), x, y, terms, chunk_size=1
            )
        alpha_x, alpha_y = alpha_x + by_x, alpha_y + by_y
    return alpha_x, alpha_y


def surface_brightness(light: Sersic, flux: float, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Brightness per square arcsec of a Sérsic of total ``flux``."""
    q, phi = _axis_ratio_and_angle(light)
    center_x, center_y, radius = _arcsec(light.center_x, light.center_y, light.radius)
    n = torch.tensor(float(light.n), dtype=torch.float64)
    k = k_sersic(n)
    # Integral of exp(-k ((r / radius)^(1/n) - 1)) over the plane.
    area = 2 * torch.pi * n * radius**2 * torch.exp(k - 2 * n * torch.log(k) + torch.lgamma(2 * n))
    center_x, center_y, q, phi, along = _tensors(center_x, center_y, q, phi, radius / np.sqrt(q))
    return brightness_sersic(center_x, center_y, q, phi, n, along, flux / area, x, y, k)


def _points(number: int, step: float) -> torch.Tensor:
    return (torch.arange(number, dtype=torch.float64) - (number - 1) / 2) * step


def _tensors(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(float(value), dtype=torch.float64) for value in values]


def _arcsec(*angles) -> list[float]:
    return [float(angle.to_value(u.arcsec)) for angle in angles]


def _axis_ratio_and_angle(part) -> tuple[float, float]:
    modulus = np.hypot(part.e1, part.e2)
    return (1 - modulus) / (1 + modulus), np.arctan2(part.e2, part.e1) / 2


def _series_length(ratio: float) -> int:
    """Terms until those of a geometric series of ``ratio`` are negligible; the EPL's fall at least as fast."""
    return 2 if ratio == 0 else 2 + int(np.ceil(np.log(SMALLEST_TERM) / np.log(ratio)))


def _check(scene: Scene, groups: Sequence[Sequence[LightComponent]]) -> None:
    for part in (*scene.lens_light, *(part for group in groups for part in group)):
        if not isinstance(part, Sersic):
            raise ValueError(f"the caustics simulator draws Sersic; got {type(part).__name__}")
    for part in scene.mass:
        if not isinstance(part, (EPL, SIE, Shear)):
            raise ValueError(f"the caustics simulator bends light by EPL, SIE and Shear; got {type(part).__name__}")
