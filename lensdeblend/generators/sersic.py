"""Sérsic galaxies: profiles drawn by GalSim, their properties as wished or from the population.

What is not wished is drawn from a Gaussian copula fitted to COSMOS galaxies (`lensdeblend.generators.population`),
given what is. Each profile is averaged over its pixels, and convolved with the PSF where one is asked for.
GalSim: Rowe et al. 2015 (2015A&C....10..121R).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData
from astropy.units import Quantity

from lensdeblend import scenes
from lensdeblend.generators.measuring import measured, stamp_flags
from lensdeblend.generators.population import COSMOS, ZERO_POINT
from lensdeblend.generators.stamps import stamp_image, stamp_observation, stamp_wcs
from lensdeblend.generators.wishes import Galaxies, known_properties, tell_outside
from lensdeblend.interfaces import Generator
from lensdeblend.options import check_choice, check_number, check_whole
from lensdeblend.plugins import resolve
from lensdeblend.results import Generation
from lensdeblend.scenes import GaussianPSF, Observation, Scene

__all__ = ["Sersic"]


@dataclass(frozen=True, kw_only=True)
class Sersic(Generator):
    """Make galaxies of one Sérsic profile each.

    Conditions are ``flux`` (counts a second) or ``magnitude`` (AB), ``radius`` (half-light, circularised), ``e1`` and
    ``e2`` (reduced shear of the isophotes, (1-q)/(1+q)) and ``n``; any of them, the rest is drawn. Galaxy ``i`` of a
    seed does not depend on how many are made.

    The catalogue has the wished or drawn properties, what the stamp measures (``flux_measured``, the sum of its pixels,
    and ``radius_measured``, ``e1_measured``, ``e2_measured``, ``n_measured`` of a profile fitted to it), and ``flags``:
    ``stamp_too_small`` where more than a tenth of the flux is outside, ``outside_population`` where a wish is beyond
    what the population was fitted to, so that the rest is that of its edge.

    Parameters
    ----------
    pixel_scale : `~astropy.units.Quantity` or float
        Angle a pixel, a plain number in arcsec.
    pixels : int
        Along each side of the stamp, at least 8.
    psf : `~lensdeblend.scenes.GaussianPSF`, 2-d array or None
        An array is the PSF on the stamp's own pixels.
    position : `~astropy.coordinates.SkyCoord`, optional
        Where on the sky the stamps are centred, north up: their WCS. Left out, they have a pixel scale alone.
    zero_point : float
        AB magnitude of one count a second; 25.94 is that of HST/ACS F814W as GalSim's ``COSMOSCatalog`` states it. The
        population keeps its magnitudes.
    measure : bool
        Whether to fit profiles to the images, a tenth of a second each; otherwise only ``flux_measured`` is given.
    outside : {"warn", "flag", "error"}
        What to do with a wish beyond the population: it is granted and flagged, with or without a warning, or refused.

    Raises
    ------
    TypeError, ValueError
        For options that are out of range or, from ``generate``, wishes that cannot be granted: unknown, contradictory,
        of another length, or an index outside 0.3 to 6.2.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from lensdeblend.generators.sersic import Sersic
    >>> wishes = {"magnitude": 21, "radius": 0.3 * u.arcsec, "n": 1}
    >>> galaxies = Sersic(pixels=64).generate(2, wishes, np.random.default_rng(1))
    >>> len(galaxies.images), galaxies.images[0].data.shape, galaxies.images[0].unit
    (2, (64, 64), Unit("ct / s"))
    >>> np.round(galaxies.catalog["radius_measured"], 3)
    <Quantity [0.3, 0.3] arcsec>
    """

    pixel_scale: Quantity | float = 0.03
    pixels: int = 128
    psf: GaussianPSF | np.ndarray | None = None
    position: SkyCoord | None = None
    zero_point: float = ZERO_POINT
    measure: bool = True
    outside: str = "warn"

    def __post_init__(self):
        check_whole("pixels", self.pixels, 8)
        check_number("zero_point", self.zero_point)
        check_choice("outside", self.outside, ("warn", "flag", "error"))
        stamp_wcs(self._observation(), self.position)

    def generate(self, n: int, conditions: Mapping | None, rng: np.random.Generator) -> Generation:
        """Return ``n`` galaxies."""
        known = known_properties(n, conditions, zero_point=self.zero_point)
        outside = np.broadcast_to(COSMOS.outside(known), n)
        tell_outside(outside, self.outside)
        galaxies = Galaxies.of(COSMOS.draw(n, known, rng), self.zero_point)
        observation = self._observation()
        images = [self._image(galaxies, i, observation, rng) for i in range(n)]
        catalog = galaxies.table(self.zero_point)
        held = np.array([image.data.sum() for image in images])
        catalog["flux_measured"] = held * observation.unit
        if self.measure:
            catalog.update(measured(images, observation.pixel_scale))
        catalog["flags"] = stamp_flags(galaxies, held, outside)
        return Generation(images=images, catalog=catalog)

    def _observation(self) -> Observation:
        return stamp_observation(self.pixel_scale, self.pixels, self.psf, self.zero_point)

    def _image(self, galaxies: Galaxies, i: int, observation: Observation, rng: np.random.Generator) -> NDData:
        profile = scenes.Sersic(
            galaxies.flux[i], galaxies.radius[i] * u.arcsec, galaxies.n[i], e1=galaxies.e1[i], e2=galaxies.e2[i],
        )
        simulator = resolve("simulator", "lensdeblend::galsim").method
        simulation = simulator.simulate(Scene(sources=[profile]), observation, rng)
        return stamp_image(simulation.noiseless.data, observation, self.position)
