r"""The three DeepLense models of dark-matter substructure in strong lenses.

Facts from the public DeepLenseSim code. A lens at z = 0.5 of :math:`10^{12}` solar masses, an isothermal ellipsoid with
shear, in front of a Sérsic source at z = 1 in flat LambdaCDM (H0 = 70, Om0 = 0.3, Ob0 = 0.05). Classes: no substructure
(``none``), 25 point masses (``cdm``), and the vortex of an axion-like particle (``axion``): 100 equal points on a line
through the centre whose half length is 0.03 arcsec times 1e-22 eV over the particle's mass.

The published code turns mass into an Einstein radius,

.. math::

    \theta_E^2 = \frac{4 G M}{c^2} \frac{D_{LS}}{D_L D_S},

with luminosity distances and :math:`D_{LS} = D_S - D_L`, so that :math:`\theta_E` is 1.2815 instead of 1.6645 arcsec;
it draws CDM masses from :math:`m^{-0.9}` where its comment says :math:`m^{-1.9}`. Populations named ``...-published``
do the same; the others take angular-diameter distances and -1.9. As committed, models 2 and 3 add the model to itself
in place of noise; here they have their instrument's noise, and ``...-noiseless`` has none. Instrument numbers are those
of lenstronomy 1.9.3 (2021), when Euclid VIS had the zero point 24.0, and do not move with the installed version. The
source of model 3 is given the magnitude of model 2, 20.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import astropy.constants as const
import astropy.units as u
import numpy as np
from astropy.cosmology import FlatLambdaCDM
from astropy.units import Quantity
from scipy.special import gamma as gamma_function

from lensdeblend.scenes.catalog import sersic_b
from lensdeblend.scenes.components import SIE, PointSubhalos, Sersic, Shear, Vortex
from lensdeblend.scenes.observation import GaussianPSF, Observation
from lensdeblend.scenes.populations.distributions import Distribution, Fixed, LogUniform, PowerLaw, Uniform
from lensdeblend.scenes.populations.population import Population
from lensdeblend.scenes.presets import from_configuration
from lensdeblend.scenes.scene import Redshifts, Scene

__all__ = ["CLASSES", "DeepLense", "axion_mass", "deeplense", "deeplense_names", "einstein_radius"]

CLASSES = ("none", "cdm", "axion")
COSMOLOGY = FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05)
REDSHIFTS = Redshifts(lens=0.5, source=1.0)
_TABLE = "lenstronomy 1.9.3 (2021), ObservationConfig"
_EUCLID_VIS = {
    "pixel_scale": 0.101, "read_noise": 4.2, "ccd_gain": 3.1, "exposure_time": 565.0, "num_exposures": 4,
    "sky_brightness": 22.35, "magnitude_zero_point": 24.0, "seeing": 0.16,
}
_WFC3_F160W = {
    "pixel_scale": 0.08, "read_noise": 4.0, "ccd_gain": 2.5, "exposure_time": 5400.0, "num_exposures": 1,
    "sky_brightness": 22.3, "magnitude_zero_point": 25.96, "seeing": 0.08,
}
_INSTRUMENTS = {2: (_EUCLID_VIS, "VIS", "Euclid VIS"), 3: (_WFC3_F160W, "F160W", "HST WFC3_F160W")}
_COMMON = {
    "mass": Fixed(1e12), "e1": Fixed(0.1), "e2": Fixed(0.0), "center_x": Fixed(0.0), "center_y": Fixed(0.0),
    "gamma1": Fixed(0.05), "gamma2": Fixed(0.0), "source_radius": Fixed(0.25), "source_n": Fixed(1.0),
    "source_e1": Fixed(-0.1), "source_e2": Fixed(0.1),
    "source_x": Uniform(-0.35, 0.35), "source_y": Uniform(-0.35, 0.35),
}
_AXION = {"vortex_mass": Fixed(3e10), "vortex_count": Fixed(100), "axion_mass": LogUniform(1e-24, 1e-22),
          "vortex_angle": Uniform(0.0, 360.0)}
_CDM = {"subhalo_count": Fixed(25), "subhalo_distance": Uniform(0.25, 2.0), "subhalo_angle": Uniform(0.0, 360.0)}


def einstein_radius(mass: Quantity, *, published: bool = False) -> Quantity:
    """Einstein radius of a mass at the models' redshifts.

    Parameters
    ----------
    mass : `~astropy.units.Quantity`
    published : bool
        With luminosity distances, as the published code has it.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend.scenes.populations.deeplense import einstein_radius
    >>> print(f"{einstein_radius(1e12 * u.Msun):.4f}, published {einstein_radius(1e12 * u.Msun, published=True):.4f}")
    1.6645 arcsec, published 1.2815 arcsec
    """
    if published:
        lens, source = (COSMOLOGY.luminosity_distance(z) for z in (REDSHIFTS.lens, REDSHIFTS.source))
        between = source - lens
    else:
        lens, source = (COSMOLOGY.angular_diameter_distance(z) for z in (REDSHIFTS.lens, REDSHIFTS.source))
        # Comoving distances add up in a flat universe.
        between = source - lens * (1 + REDSHIFTS.lens) / (1 + REDSHIFTS.source)
    squared = 4 * const.G * mass / const.c**2 * between / (lens * source)
    return (np.sqrt(squared.to_value(u.dimensionless_unscaled)) * u.rad).to(u.arcsec)


def axion_mass(scene: Scene) -> Quantity:
    """The axion's mass, the label of the class: from the half length of the scene's `Vortex`."""
    (vortex,) = (component for component in scene.mass if isinstance(component, Vortex))
    return 1e-22 * u.eV * (0.03 * u.arcsec / vortex.half_length).to_value(u.dimensionless_unscaled)


@dataclass(frozen=True)
class DeepLense(Population):
    """One class of one DeepLense model.

    Masses are in solar masses (``axion_mass`` in eV), angles of the priors in degrees. Model 1 gives the source's
    surface brightness at its radius (``source_amplitude``, per square arcsec), models 2 and 3 its AB magnitude. Model 1
    draws its exposure time as well. The code of model 1 takes the light at pixel centres:
    ``Lenstronomy(supersampling=1, precision=None)``.
    """

    published: bool = False

    takes_generator = True

    def draw(self, rng: np.random.Generator) -> Scene:
        lens = self._draw(rng, "mass", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
        center = lens["center_x"] * u.arcsec, lens["center_y"] * u.arcsec
        main = SIE(self._einstein_radius(lens["mass"]), lens["e1"], lens["e2"], *center)
        source = self._source(rng)
        substructure = [*self._cdm(rng), *self._vortex(rng, center)]
        made = self._made(source, rng, n=source.n)
        return Scene([main, Shear(lens["gamma1"], lens["gamma2"]), *substructure], (), [made], REDSHIFTS)

    def observe(self, rng: np.random.Generator, peak: float) -> Observation:
        if "exposure_time" not in self.priors:
            return self.observation
        return replace(self.observation, exposure_time=float(self.priors["exposure_time"].draw(rng)) * u.s)

    def _einstein_radius(self, mass) -> Quantity:
        return einstein_radius(mass * u.Msun, published=self.published)

    def _source(self, rng: np.random.Generator) -> Sersic:
        drawn = self._draw(rng, *(f"source_{name}" for name in ("radius", "n", "e1", "e2", "x", "y")))
        radius, n = drawn["source_radius"], drawn["source_n"]
        if "source_amplitude" in self.priors:
            flux = float(self.priors["source_amplitude"].draw(rng)) * _flux_of_amplitude(radius, n)
        else:
            flux = float(self.priors["source_magnitude"].draw(rng)) * u.ABmag
        return Sersic(
            flux, radius * u.arcsec, n, drawn["source_e1"], drawn["source_e2"],
            drawn["source_x"] * u.arcsec, drawn["source_y"] * u.arcsec,
        )

    def _cdm(self, rng: np.random.Generator) -> Iterator[PointSubhalos]:
        if "subhalo_mass" in self.priors:
            count = int(self.priors["subhalo_count"].draw(rng))
            masses, distance, angle = (
                self.priors[f"subhalo_{name}"].draw(rng, count) for name in ("mass", "distance", "angle")
            )
            x, y = distance * np.cos(np.deg2rad(angle)), distance * np.sin(np.deg2rad(angle))
            yield PointSubhalos(self._einstein_radius(masses), x * u.arcsec, y * u.arcsec)

    def _vortex(self, rng: np.random.Generator, center) -> Iterator[Vortex]:
        if "axion_mass" in self.priors:
            drawn = self._draw(rng, *_AXION)
            half_length = 0.03 * 1e-22 / drawn["axion_mass"] * u.arcsec
            yield Vortex(
                self._einstein_radius(drawn["vortex_mass"]), half_length, drawn["vortex_angle"] * u.deg,
                int(drawn["vortex_count"]), *center,
            )


def deeplense_names() -> list[str]:
    """All names that `deeplense` knows."""
    return [
        f"deeplense-model-{model}-{kind}{variant}{noise}"
        for model in (1, 2, 3) for kind in CLASSES for variant in ("", "-published")
        for noise in (("", "-noiseless") if model > 1 else ("",))
    ]


def deeplense(name: str) -> DeepLense:
    """Make the population called ``name``, such as ``"deeplense-model-1-cdm-published"``."""
    _, _, model, kind, *variants = name.split("-")
    published, noiseless = "published" in variants, "noiseless" in variants
    observation, priors = _model(int(model))
    if noiseless:
        observation = replace(observation, background_rms=0.0, exposure_time=None)
    summary = f"DeepLense model {model}, {_SUMMARY[kind]}, {'as published' if published else 'corrected'}"
    priors = {**_COMMON, **priors, **_substructure(kind, published)}
    return DeepLense(name, summary + (", noise-free" if noiseless else ""), observation, priors, published)


_SUMMARY = {"none": "no substructure", "cdm": "CDM subhalos", "axion": "axion vortex"}


def _substructure(kind: str, published: bool) -> dict[str, Distribution]:
    mass = {"subhalo_mass": PowerLaw(-0.9 if published else -1.9, 1e6, 1e10)}
    return {"none": {}, "cdm": {**_CDM, **mass}, "axion": _AXION}[kind]


def _model(model: int) -> tuple[Observation, dict[str, Distribution]]:
    if model == 1:
        observation = Observation(
            0.05 * u.arcsec, (150, 150), GaussianPSF(0.087 * u.arcsec, truncation=3.0), background_rms=0.01,
            exposure_time=10**3.25 * u.s, provenance="DeepLense model 1",
        )
        return observation, {"source_amplitude": Fixed(20.0), "exposure_time": LogUniform(10**3.0, 10**3.5)}
    configuration, band, label = _INSTRUMENTS[model]
    observation = from_configuration(configuration, shape=(64, 64), band=band, provenance=f"{_TABLE}: {label}")
    return observation, {"source_magnitude": Fixed(20.0)}


def _flux_of_amplitude(radius: float, n: float) -> float:
    """Total flux of a Sérsic profile whose surface brightness at its half-light radius is 1."""
    b = sersic_b(n)
    return 2 * np.pi * n * radius**2 * np.exp(b) * b ** (-2 * n) * gamma_function(2 * n)
