r"""Lenses by lenstronomy's deflections and light profiles.

Surface brightness is conserved along a ray, so that the image at :math:`\theta` shows the source at
:math:`\beta = \theta - \alpha(\theta)`. It is averaged over each pixel, times the pixel's area, and convolved with the
PSF at the image's own pixel scale.

lenstronomy: Birrer & Amara 2018 (2018PDU....22..189B).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Profiles.point_mass import PointMass as PointMassProfile
from lenstronomy.LightModel.light_model import LightModel

from lensdeblend.images import pixel_scale
from lensdeblend.interfaces import Simulator
from lensdeblend.results import Simulation
from lensdeblend.scenes import (
    EPL, NFW, SIE, Gaussian, ImageSource, LightComponent, MassComponent, Observation, PointMass, PointSource,
    PointSubhalos, Scene, Sersic, Shear, TruncatedNFW, Vortex,
)
from lensdeblend.scenes.catalog import sersic_b, total_flux
from lensdeblend.simulators.assembly import assemble, convolve, padding, point_image, source_grid
from lensdeblend.simulators.checks import require_drawn, require_whole
from lensdeblend.simulators.subdivision import average_over_pixels

__all__ = ["Lenstronomy", "deflection", "point_masses"]


@dataclass(frozen=True)
class Lenstronomy(Simulator):
    """Simulate lenses, and blends of Sérsics, Gaussians, images and points, by lenstronomy.

    A `~lensdeblend.scenes.Sersic` has its ``radius`` hold exactly half of its light; lenstronomy's own constant is an
    approximation (``b = 1.9992 n - 0.3271``, radii off by up to 0.4% for n >= 1), so that the radius handed to it is
    scaled to undo it.

    Parameters
    ----------
    supersampling : int
        Parts into which each pixel is cut along each axis.
    precision : float or None
        Pixels whose average is not known to this fraction of the brightest pixel are cut more finely, at most into 640
        parts along each axis; None for no such refinement.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from lensdeblend.scenes import SIE, GaussianPSF, Observation, Scene, Sersic
    >>> from lensdeblend.simulators.lenstronomy import Lenstronomy
    >>> scene = Scene(mass=[SIE(1 * u.arcsec)], sources=[Sersic(100, 0.2 * u.arcsec, center_x=0.1 * u.arcsec)])
    >>> observation = Observation(0.1 * u.arcsec, (50, 50), GaussianPSF(0.15 * u.arcsec), background_rms=0.1)
    >>> simulation = Lenstronomy().simulate(scene, observation, np.random.default_rng(1))
    >>> simulation.image.data.shape
    (50, 50)
    >>> bool(simulation.unlensed.data.sum() < simulation.noiseless.data.sum() / 5)
    True
    """

    supersampling: int = 5
    precision: float | None = 1e-4

    def __post_init__(self):
        require_whole("supersampling", self.supersampling)
        if self.precision is not None and not self.precision > 0:
            raise ValueError(f"precision must be positive, or None; got {self.precision}")

    def simulate(self, scene: Scene, observation: Observation, rng: np.random.Generator) -> Simulation:
        """Return the image of ``scene``.

        Raises
        ------
        ValueError
            For components that lenstronomy cannot draw, and for a point source behind a lens.
        """
        require_drawn(scene, "lenstronomy", (*_LIGHT, PointSource), (*_MASS, *_POINTS))
        galaxies = [galaxy.components for galaxy in scene.galaxies]
        lensed = self._seen(scene.mass, galaxies, observation)
        lens_light, = self._seen((), [scene.lens_light], observation) if scene.lens_light else (None,)
        source = grid = unlensed = None
        if scene.is_lens and galaxies:
            behind = sum(galaxies, ())
            grid = source_grid(scene, observation)
            source = self._pixels((), [behind], observation, grid.shape, grid.pixel_scale, grid.center)[0]
            unlensed = self._seen((), [behind], observation)[0]
        return assemble(
            scene, observation, rng, galaxies=list(lensed), lens_light=lens_light, source=source, grid=grid,
            unlensed=unlensed,
        )

    def _seen(
        self, mass: Sequence[MassComponent], groups: Sequence[Sequence[LightComponent]], observation: Observation
    ) -> np.ndarray:
        """Each group of light alone, behind the mass, through the PSF: (groups, ny, nx)."""
        rows, columns = padding(observation)
        shape = observation.shape[0] + 2 * rows, observation.shape[1] + 2 * columns
        images = self._pixels(mass, groups, observation, shape, observation.pixel_scale.to_value(u.arcsec), (0.0, 0.0))
        images = convolve(images, observation)
        for image, group in zip(images, groups):
            for point in group:
                if isinstance(point, PointSource):
                    x, y = point.center_x.to_value(u.arcsec), point.center_y.to_value(u.arcsec)
                    image += point_image(observation.flux(point.flux), x, y, observation)
        return images

    def _pixels(self, mass, groups, observation: Observation, shape, scale: float, center) -> np.ndarray:
        """Each group of light alone as flux per pixel, before the PSF: (groups, ny, nx)."""
        if not groups:
            return np.zeros((0, *shape))
        lights = [_light(group, observation) for group in groups]

        def brightness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            if mass:
                alpha_x, alpha_y = deflection(mass, x, y)
                x, y = x - alpha_x, y - alpha_y
            return np.stack([model.surface_brightness(x, y, parameters) for model, parameters in lights])

        images = average_over_pixels(
            brightness, shape, scale, subdivision=self.supersampling, precision=self.precision, center=center
        )
        return images * scale**2


def deflection(mass: Sequence[MassComponent], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deflection by all of ``mass`` at flat arrays of positions, all in arcsec."""
    profiles = [_MASS[type(component)](component) for component in mass if not isinstance(component, _POINTS)]
    names, parameters = [name for name, _ in profiles], [values for _, values in profiles]
    alpha_x, alpha_y = np.zeros_like(x), np.zeros_like(y)
    if names:
        # In the very centre of an EPL lenstronomy divides 0 by 0 and takes the deflection to be 0.
        with np.errstate(invalid="ignore"):
            alpha_x, alpha_y = LensModel(names).alpha(x, y, parameters)
    profile = PointMassProfile()
    for theta_E, center_x, center_y in zip(*point_masses(mass)):
        by_x, by_y = profile.derivatives(x, y, theta_E, center_x, center_y)
        alpha_x, alpha_y = alpha_x + by_x, alpha_y + by_y
    return alpha_x, alpha_y


def point_masses(mass: Sequence[MassComponent]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Einstein radii, x and y, arcsec, of all that is made of points; a mass is pi times its Einstein radius squared,
    in units of the critical surface density times square arcsec."""
    points = (part.points if isinstance(part, Vortex) else part for part in mass if isinstance(part, _POINTS))
    columns = [
        [np.atleast_1d(getattr(part, name).to_value(u.arcsec)) for name in ("theta_E", "center_x", "center_y")]
        for part in points
    ]
    return tuple(np.concatenate(column) for column in zip(*columns)) if columns else (np.zeros(0),) * 3


def _values(component, **names) -> dict[str, float]:
    """A component's fields as plain numbers (angles in arcsec), under lenstronomy's names."""
    return {
        theirs: float(value.to_value(u.arcsec) if hasattr(value := getattr(component, ours), "unit") else value)
        for theirs, ours in names.items()
    }


_POINTS = (PointMass, PointSubhalos, Vortex)
_CENTER = {"center_x": "center_x", "center_y": "center_y"}
_ELLIPSE = {"e1": "e1", "e2": "e2", **_CENTER}
_MASS = {
    EPL: lambda c: ("EPL", _values(c, theta_E="theta_E", gamma="gamma", **_ELLIPSE)),
    SIE: lambda c: ("EPL", {"gamma": 2.0, **_values(c, theta_E="theta_E", **_ELLIPSE)}),
    Shear: lambda c: ("SHEAR", _values(c, gamma1="gamma1", gamma2="gamma2")),
    NFW: lambda c: ("NFW", _values(c, Rs="Rs", alpha_Rs="alpha_Rs", **_CENTER)),
    TruncatedNFW: lambda c: ("TNFW", _values(c, Rs="Rs", alpha_Rs="alpha_Rs", r_trunc="r_trunc", **_CENTER)),
}


def _sersic(component: Sersic, flux: float):
    values = _values(component, R_sersic="radius", n_sersic="n", **_ELLIPSE)
    n = values["n_sersic"]
    theirs = max(1.9992 * n - 0.3271, 1e-5)
    values["R_sersic"] *= (theirs / sersic_b(n)) ** n
    profile = LightModel(["SERSIC_ELLIPSE"])
    return "SERSIC_ELLIPSE", {"amp": flux / profile.total_flux([{"amp": 1.0, **values}])[0], **values}


def _gaussian(component: Gaussian, flux: float):
    return "GAUSSIAN_ELLIPSE", {"amp": flux, **_values(component, sigma="sigma", **_ELLIPSE)}


def _image(component: ImageSource, flux: float):
    pixels = np.asarray(component.image.data, dtype=float)
    scale = float(pixel_scale(component.image).to_value(u.arcsec))
    brightness = pixels / (pixels.sum() * scale**2)
    return "INTERPOL", {
        "image": brightness, "amp": flux, "phi_G": float(component.angle.to_value(u.rad)), "scale": scale,
        **_values(component, **_CENTER),
    }


_LIGHT = {Sersic: _sersic, Gaussian: _gaussian, ImageSource: _image}


def _light(group: Sequence[LightComponent], observation: Observation) -> tuple[LightModel, list[dict]]:
    parts = [
        _LIGHT[type(component)](component, total_flux(component, observation))
        for component in group if not isinstance(component, PointSource)
    ]
    return LightModel([name for name, _ in parts]), [parameters for _, parameters in parts]
