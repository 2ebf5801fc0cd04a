"""Blends and single galaxies drawn by GalSim.

Each profile is averaged over the pixels: around its centre by GalSim's integration in real space, which stays exact for
cusps of any Sérsic index, farther out over a division of each pixel. The frame is then convolved with the PSF at the
image's own pixel scale, as the other simulators do. A real galaxy is known only through the telescope's PSF: it is
deconvolved and convolved with the observation's PSF in one step, which must not be narrower.

GalSim: Rowe et al. 2015 (2015A&C....10..121R). Real galaxies: Mandelbaum et al. 2012 (2012MNRAS.420.1518M).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

import astropy.units as u
import galsim
import numpy as np

from lensdeblend.images import pixel_scale
from lensdeblend.interfaces import Simulator
from lensdeblend.results import Simulation
from lensdeblend.scenes import (
    Galaxy, Gaussian, GaussianPSF, ImageSource, Knots, LightComponent, Observation, PointSource, RealGalaxy, Scene,
    Sersic,
)
from lensdeblend.scenes.catalog import total_flux
from lensdeblend.simulators.assembly import add_stamp, assemble, convolve, padding, point_image
from lensdeblend.simulators.checks import require_made, require_whole

__all__ = ["GalSim"]

_CORE = 9


@dataclass(frozen=True)
class GalSim(Simulator):
    """Simulate blends and single galaxies by GalSim: every light component, no lenses.

    A `~lensdeblend.scenes.RealGalaxy` brings its own noise into what is called noiseless, correlated by the
    deconvolution.

    Parameters
    ----------
    relative_error : float
        Of the integral over each pixel near a profile's centre.
    supersampling : int
        Parts into which each pixel farther out is cut along each axis.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from lensdeblend.scenes import Galaxy, GaussianPSF, Observation, Scene, Sersic
    >>> from lensdeblend.simulators.galsim import GalSim
    >>> bulge, disc = Sersic(30, 0.2 * u.arcsec, n=4), Sersic(70, 0.5 * u.arcsec, n=1, e1=0.3)
    >>> observation = Observation(0.2 * u.arcsec, (48, 48), GaussianPSF(0.7 * u.arcsec))
    >>> simulation = GalSim().simulate(Scene(sources=[Galaxy((bulge, disc))]), observation, np.random.default_rng(1))
    >>> simulation.catalog["flux"][0]
    <Quantity 100. electron / s>
    """

    relative_error: float = 1e-6
    supersampling: int = 5

    def __post_init__(self):
        require_whole("supersampling", self.supersampling)
        if not 0 < self.relative_error < 1:
            raise ValueError(f"relative_error must be between 0 and 1; got {self.relative_error}")

    def simulate(self, scene: Scene, observation: Observation, rng: np.random.Generator) -> Simulation:
        """Return the image of ``scene``.

        Raises
        ------
        ValueError
            For a scene with mass, a Sérsic index outside 0.3 to 6.2, a real galaxy that its catalogue lacks, or one to
            be seen through a PSF narrower than its own.
        FileNotFoundError
            Where the catalogue of a real galaxy is not there.
        """
        if scene.is_lens:
            raise ValueError("the galsim simulator draws no lenses; use the method lenstronomy or torch")
        galaxies = [self._seen(galaxy, observation) for galaxy in scene.galaxies]
        lens_light = self._seen(Galaxy(scene.lens_light), observation) if scene.lens_light else None
        return assemble(scene, observation, rng, galaxies=galaxies, lens_light=lens_light)

    def _seen(self, galaxy: Galaxy, observation: Observation) -> np.ndarray:
        rows, columns = padding(observation)
        before = np.zeros((observation.shape[0] + 2 * rows, observation.shape[1] + 2 * columns))
        after = np.zeros(observation.shape)
        for component in galaxy.components:
            require_made(component)
            if isinstance(component, (Knots, PointSource)):
                for x, y in _points(component):
                    after += point_image(1.0, x, y, observation) * observation.flux(component.flux) / _count(component)
            elif isinstance(component, RealGalaxy):
                after += _draw(_real(component, observation), observation, after.shape, "auto")
            elif total_flux(component, observation):
                before += self._pixels(component, observation, before.shape)
        return convolve(before, observation) + after

    def _pixels(self, component: LightComponent, observation: Observation, shape: tuple[int, int]) -> np.ndarray:
        profile = self._profile(component, observation)
        if isinstance(component, ImageSource):
            return _draw(profile, observation, shape, "real_space")
        scale, parts = observation.pixel_scale.to_value(u.arcsec), self.supersampling
        ny, nx = shape
        fine = galsim.ImageD(nx * parts, ny * parts, scale=scale / parts)
        profile.drawImage(fine, method="no_pixel")
        image = fine.array.reshape(ny, parts, nx, parts).sum(axis=(1, 3))
        middle = (nx - 1) / 2, (ny - 1) / 2
        column, row = (
            int(round(place.to_value(u.arcsec) / scale + half))
            for place, half in zip((component.center_x, component.center_y), middle)
        )
        around = profile.shift(-(column - middle[0]) * scale, -(row - middle[1]) * scale)
        core = _draw(around, observation, (_CORE, _CORE), "real_space")
        add_stamp(image, core, column - _CORE // 2, row - _CORE // 2, replace=True)
        return image

    def _profile(self, component: LightComponent, observation: Observation) -> galsim.GSObject:
        accuracy = galsim.GSParams(realspace_relerr=self.relative_error, realspace_abserr=self.relative_error)
        flux = total_flux(component, observation)
        if isinstance(component, Sersic):
            try:
                radius = component.radius.to_value(u.arcsec)
                profile = galsim.Sersic(component.n, half_light_radius=radius, gsparams=accuracy)
            except galsim.GalSimRangeError as error:
                raise ValueError(f"GalSim draws no Sérsic profile of index {component.n}: {error}") from error
        elif isinstance(component, Gaussian):
            profile = galsim.Gaussian(sigma=component.sigma.to_value(u.arcsec), gsparams=accuracy)
        elif isinstance(component, ImageSource):
            pixels = galsim.Image(np.ascontiguousarray(component.image.data, dtype=float))
            scale = pixel_scale(component.image).to_value(u.arcsec)
            profile = galsim.InterpolatedImage(pixels, x_interpolant="linear", scale=scale, flux=1.0)
        else:
            raise ValueError(f"the galsim simulator does not draw {type(component).__name__}")
        # Made with flux 1, the absolute accuracy of the integral is one relative to the flux.
        return _placed(profile * flux, component)


def _draw(profile: galsim.GSObject, observation: Observation, shape, method: str) -> np.ndarray:
    scale = observation.pixel_scale.to_value(u.arcsec)
    return profile.drawImage(nx=shape[1], ny=shape[0], scale=scale, method=method, dtype=float).array


def _placed(profile: galsim.GSObject, component) -> galsim.GSObject:
    if hasattr(component, "e1"):
        profile = profile.shear(g1=component.e1, g2=component.e2)
    if hasattr(component, "angle"):
        profile = profile.rotate(component.angle.to_value(u.deg) * galsim.degrees)
    return profile.shift(component.center_x.to_value(u.arcsec), component.center_y.to_value(u.arcsec))


def _count(component) -> int:
    return component.n if isinstance(component, Knots) else 1


def _points(component) -> np.ndarray:
    """Positions (n, 2) of the points, arcsec."""
    center = np.array([component.center_x.to_value(u.arcsec), component.center_y.to_value(u.arcsec)])
    if isinstance(component, PointSource):
        return center[None]
    # GalSim takes a seed of 0 for "any".
    deviate = galsim.BaseDeviate(component.seed + 1)
    knots = galsim.RandomKnots(component.n, half_light_radius=component.radius.to_value(u.arcsec), rng=deviate)
    return knots.points @ galsim.Shear(g1=component.e1, g2=component.e2).getMatrix().T + center


def _real(component: RealGalaxy, observation: Observation) -> galsim.GSObject:
    path = component.catalog
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no galaxy catalogue at {path}; give the FITS file of a GalSim RealGalaxyCatalog")
    catalog = _opened(path, os.path.getmtime(path))
    index = component.index
    if index is None:
        idents = np.asarray(catalog.ident).astype(str)
        found = np.flatnonzero(idents == str(component.id))
        if not found.size:
            raise ValueError(f"{component.catalog} has no galaxy with IDENT {component.id}")
        index = int(found[0])
    if not 0 <= index < catalog.nobjects:
        raise ValueError(f"{component.catalog} has {catalog.nobjects} galaxies; index {index} is not among them")
    try:
        galaxy = galsim.RealGalaxy(catalog, index=index)
    except OSError as error:
        raise FileNotFoundError(
            f"an image or PSF file of {component.catalog} cannot be read ({error}); it must lie in the same folder"
        ) from error
    if observation.psf is None:
        raise ValueError("a RealGalaxy needs an observation with a PSF, at least as wide as the galaxy's own")
    scale = observation.pixel_scale.to_value(u.arcsec)
    if isinstance(observation.psf, GaussianPSF):
        psf = galsim.Gaussian(fwhm=observation.psf.fwhm.to_value(u.arcsec))
    else:
        psf = galsim.InterpolatedImage(galsim.Image(np.ascontiguousarray(observation.kernel)), scale=scale, flux=1.0)
    seen = galsim.Convolve([psf, galsim.Pixel(scale)]).calculateFWHM()
    own = galaxy.original_psf.calculateFWHM()
    if seen < own:
        raise ValueError(
            f"the observation's PSF and pixel ({seen:.3f} arcsec FWHM) are narrower than the PSF ({own:.3f} arcsec) "
            f"through which galaxy {index} of {component.catalog} was seen: deconvolving would only amplify its noise"
        )
    if component.flux is not None:
        galaxy = galaxy.withFlux(observation.flux(component.flux))
    return galsim.Convolve([_placed(galaxy, component), psf])


@lru_cache(maxsize=8)
def _opened(path: str, changed: float) -> galsim.RealGalaxyCatalog:
    """The catalogue at ``path`` as it was when it was last ``changed``."""
    folder, name = os.path.split(path)
    return galsim.RealGalaxyCatalog(name, dir=folder or ".")
