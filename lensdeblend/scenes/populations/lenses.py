"""Galaxies lensed by an elliptical power law with external shear."""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import numpy as np

from lensdeblend.scenes.components import EPL, Sersic, Shear
from lensdeblend.scenes.observation import GaussianPSF, Observation
from lensdeblend.scenes.populations.distributions import Fixed, LogUniform, Normal, Uniform
from lensdeblend.scenes.populations.population import Population
from lensdeblend.scenes.scene import Scene

__all__ = ["LensPopulation", "benchmark", "benchmark_light", "published"]

_LENS = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y")
_SOURCE = ("radius", "n", "e1", "e2")


@dataclass(frozen=True)
class LensPopulation(Population):
    """EPL and shear, one Sérsic source, and a Sérsic of lens light where its priors are given.

    The source's centre is uniform in a disc of radius ``source_offset`` around the centre of the caustic, which is
    where the lens centre is seen from: there the EPL does not deflect, and the shear, zero at the image's centre, does.
    Lens light (``light_*``) shares the lens's centre and, but for a scatter, its ellipticity; its flux is
    ``light_ratio`` times the source's.
    """

    takes_generator = True

    def draw(self, rng: np.random.Generator) -> Scene:
        lens = self._draw(rng, *_LENS)
        shear = self._draw(rng, "gamma1", "gamma2")
        source = self._draw(rng, "source_flux", *(f"source_{name}" for name in _SOURCE))
        center = np.array([lens["center_x"], lens["center_y"]])
        distortion = np.array([[shear["gamma1"], shear["gamma2"]], [shear["gamma2"], -shear["gamma1"]]])
        distance = float(self.priors["source_offset"].draw(rng)) * np.sqrt(rng.random())
        angle = rng.uniform(0, 2 * np.pi)
        x, y = center - distortion @ center + distance * np.array([np.cos(angle), np.sin(angle)])
        profile = Sersic(
            source["source_flux"], source["source_radius"] * u.arcsec, source["source_n"], source["source_e1"],
            source["source_e2"], x * u.arcsec, y * u.arcsec,
        )
        return Scene(
            mass=[
                EPL(lens["theta_E"] * u.arcsec, lens["gamma"], lens["e1"], lens["e2"], *(center * u.arcsec)),
                Shear(shear["gamma1"], shear["gamma2"]),
            ],
            lens_light=[self._light(rng, lens, source["source_flux"])] if "light_ratio" in self.priors else (),
            sources=[self._made(profile, rng, n=profile.n)],
        )

    def _light(self, rng: np.random.Generator, lens: dict[str, float], source_flux: float) -> Sersic:
        light = self._draw(rng, "light_ratio", "light_radius", "light_n", "light_scatter_e1", "light_scatter_e2")
        return Sersic(
            light["light_ratio"] * source_flux, light["light_radius"] * u.arcsec, light["light_n"],
            lens["e1"] + light["light_scatter_e1"], lens["e2"] + light["light_scatter_e2"],
            lens["center_x"] * u.arcsec, lens["center_y"] * u.arcsec,
        )


def _observation() -> Observation:
    return Observation(0.08 * u.arcsec, (64, 64), GaussianPSF(0.1 * u.arcsec))


_BENCHMARK = {
    "theta_E": Uniform(0.8, 1.6), "gamma": Normal(2.0, 0.1), "e1": Uniform(-0.2, 0.2), "e2": Uniform(-0.2, 0.2),
    "center_x": Normal(0.0, 0.05), "center_y": Normal(0.0, 0.05),
    "gamma1": Normal(0.0, 0.05), "gamma2": Normal(0.0, 0.05),
    "source_flux": Fixed(1.0), "source_radius": Uniform(0.1, 0.4), "source_n": Uniform(0.7, 4.0),
    "source_e1": Uniform(-0.2, 0.2), "source_e2": Uniform(-0.2, 0.2), "source_offset": Fixed(0.3),
    "peak_snr": LogUniform(10.0, 100.0),
}
_LIGHT = {
    "light_ratio": LogUniform(3.0, 30.0), "light_radius": Uniform(0.5, 1.2), "light_n": Uniform(2.0, 5.0),
    "light_scatter_e1": Normal(0.0, 0.03), "light_scatter_e2": Normal(0.0, 0.03),
}
_PUBLISHED = {
    "theta_E": Uniform(0.8, 1.2), "gamma": Normal(2.0, 0.1), "e1": Uniform(-0.05, 0.05), "e2": Uniform(-0.05, 0.05),
    "center_x": Normal(0.0, 0.2), "center_y": Normal(0.0, 0.2),
    "gamma1": Normal(0.0, 0.16), "gamma2": Normal(0.0, 0.16),
    "source_flux": Fixed(1.0), "source_radius": Uniform(0.1, 0.4), "source_n": Uniform(0.7, 4.0),
    "source_e1": Uniform(-0.2, 0.2), "source_e2": Uniform(-0.2, 0.2), "source_offset": Fixed(0.3),
}


def benchmark() -> LensPopulation:
    """The lenses on which reconstructors are judged: Gaussian noise, the arcs' peak 10 to 100 times the noise."""
    return LensPopulation("lens-benchmark", "EPL, shear and a Sérsic source, noisy", _observation(), _BENCHMARK)


def benchmark_light() -> LensPopulation:
    """The same with the light of the lens galaxy."""
    summary = "EPL, shear, a Sérsic source and a Sérsic lens galaxy, noisy"
    return LensPopulation("lens-benchmark-light", summary, _observation(), {**_BENCHMARK, **_LIGHT})


def published() -> LensPopulation:
    """Lens priors of a published U-Net and CNN study, without noise; Sérsics of our choice for its COSMOS galaxies."""
    summary = "The published CNN and U-Net lenses, noise-free"
    return LensPopulation("lens-published", summary, _observation(), _PUBLISHED)
