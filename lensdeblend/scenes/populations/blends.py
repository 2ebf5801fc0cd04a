"""Groups of overlapping galaxies, each a bulge and a disc."""

from __future__ import annotations

from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np

from lensdeblend.scenes.catalog import galaxy_radius
from lensdeblend.scenes.components import Sersic
from lensdeblend.scenes.generated import GeneratedSource
from lensdeblend.scenes.observation import GaussianPSF, Observation
from lensdeblend.scenes.populations.distributions import Integer, LogUniform, Normal, Uniform
from lensdeblend.scenes.populations.population import Population
from lensdeblend.scenes.scene import Galaxy, Scene

__all__ = ["BlendPopulation", "blends"]


@dataclass(frozen=True)
class BlendPopulation(Population):
    """``count`` galaxies of bulge and disc.

    Each lies ``separation`` arcsec from its nearest neighbour among those placed before it. The group's mean position
    is the image's centre. ``snr`` is the matched-filter signal-to-noise against the background alone of a round
    Gaussian with the disc's half-light radius and the PSF's width; it sets the galaxy's flux. Bulge and disc share
    centre, ellipticity and orientation. A generator is told the half-light radius of both together and the ellipticity;
    the index is its own.
    """

    takes_generator = True

    def draw(self, rng: np.random.Generator) -> Scene:
        positions = self._positions(rng)
        galaxies = [self._galaxy(rng, x, y, f"galaxy {k}") for k, (x, y) in enumerate(positions, start=1)]
        if self.generator is None:
            return Scene(sources=galaxies)
        return Scene(sources=[Galaxy((self._generated(galaxy, rng),), name=galaxy.name) for galaxy in galaxies])

    def _generated(self, galaxy: Galaxy, rng: np.random.Generator) -> GeneratedSource:
        disc, bulge = galaxy.components
        flux = disc.flux + bulge.flux
        radius = galaxy_radius(galaxy, (disc.flux / flux, bulge.flux / flux)) * u.arcsec
        whole = replace(disc, flux=flux, radius=radius)
        return self._made(whole, rng, n=None)

    def _positions(self, rng: np.random.Generator) -> np.ndarray:
        positions = np.zeros((1, 2))
        count = self.priors["count"].draw(rng)
        while len(positions) < count:
            distance, angle = self.priors["separation"].draw(rng), rng.uniform(0, 2 * np.pi)
            candidate = positions[rng.integers(len(positions))] + distance * np.array([np.cos(angle), np.sin(angle)])
            if np.hypot(*(positions - candidate).T).min() >= distance - 1e-9:
                positions = np.vstack([positions, candidate])
        return positions - positions.mean(axis=0)

    def _galaxy(self, rng: np.random.Generator, x: float, y: float, name: str) -> Galaxy:
        drawn = self._draw(rng, "snr", "disc_radius", "bulge_radius_ratio", "bulge_fraction", "e1", "e2")
        modulus = np.hypot(drawn["e1"], drawn["e2"])
        e1, e2 = (drawn[key] * min(1.0, 0.7 / max(modulus, 1e-9)) for key in ("e1", "e2"))
        flux = drawn["snr"] * self._noise(drawn["disc_radius"])
        radius, place = drawn["disc_radius"] * u.arcsec, (e1, e2, x * u.arcsec, y * u.arcsec)
        fraction = drawn["bulge_fraction"]
        return Galaxy((
            Sersic((1 - fraction) * flux, radius, 1.0, *place),
            Sersic(fraction * flux, radius * drawn["bulge_radius_ratio"], 4.0, *place),
        ), name=name)

    def _noise(self, radius: float) -> float:
        """Noise of the flux that a matched filter finds."""
        pixel = self.observation.pixel_scale.to_value(u.arcsec)
        psf = self.observation.psf.fwhm.to_value(u.arcsec) / np.sqrt(8 * np.log(2))
        variance = psf**2 + radius**2 / (2 * np.log(2))
        return self.observation.background_rms * np.sqrt(4 * np.pi * variance) / pixel


_PRIORS = {
    "count": Integer(2, 6), "separation": Uniform(0.5, 3.0), "snr": LogUniform(10.0, 200.0),
    "disc_radius": LogUniform(0.2, 0.8), "bulge_radius_ratio": Uniform(0.2, 0.6), "bulge_fraction": Uniform(0.0, 0.6),
    "e1": Normal(0.0, 0.2), "e2": Normal(0.0, 0.2),
}


def blends() -> BlendPopulation:
    """Two to six galaxies on LSST-like pixels: 0.2 arcsec, seeing 0.7 arcsec, background noise 1."""
    observation = Observation(0.2 * u.arcsec, (60, 60), GaussianPSF(0.7 * u.arcsec), background_rms=1.0)
    return BlendPopulation("blends", "Two to six bulge and disc galaxies, noisy", observation, _PRIORS)
