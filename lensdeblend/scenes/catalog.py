"""The true values of a scene as a table."""

from __future__ import annotations

from collections.abc import Sequence

import astropy.units as u
import numpy as np
from astropy.table import QTable
from scipy.optimize import brentq
from scipy.special import gammainc, gammaincinv

from lensdeblend.scenes.components import Gaussian, ImageSource, PointSource, RealGalaxy, Sersic, half_light_radius
from lensdeblend.scenes.observation import Observation
from lensdeblend.scenes.scene import Galaxy, Scene

__all__ = ["galaxy_radius", "sersic_b", "total_flux", "true_catalog"]


def sersic_b(n: float) -> float:
    """The constant ``b`` of a Sérsic profile whose radius holds exactly half of the light."""
    return gammaincinv(2 * n, 0.5)


def total_flux(component, observation: Observation) -> float:
    """Total flux of a light component in the observation's unit; NaN where only its simulator can tell."""
    if component.flux is not None:
        return observation.flux(component.flux)
    if isinstance(component, ImageSource):
        total = float(np.sum(component.image.data, dtype=float))
        return total if component.image.unit is None else observation.flux(total * component.image.unit)
    return np.nan


def true_catalog(
    scene: Scene, observation: Observation, galaxies: Sequence[np.ndarray], variance: np.ndarray
) -> QTable:
    """Tabulate the true values of a scene's sources, one row a `Galaxy`.

    Columns
    -------
    ``id`` counts from 1; ``name``; ``x``, ``y`` (pixel, flux-weighted centre, before lensing); ``flux`` (total,
    unlensed); ``magnitude`` where there is a zero point; ``radius`` (half-light, of all components together); ``e1``,
    ``e2``, ``n`` (flux-weighted means; NaN for images); ``flux_seen`` (in the frame, lensed where there is a lens);
    ``snr`` (matched-filter signal-to-noise) and ``peak_snr``, infinite without noise; ``blendedness`` (1 - sum(s s) /
    sum(s total) with the galaxy's image s: the fraction of the light under it that is others').
    """
    scale = observation.pixel_scale.to_value(u.arcsec)
    ny, nx = observation.shape
    total = np.sum(galaxies, axis=0) if len(galaxies) else np.zeros(observation.shape)
    rows = []
    for number, (galaxy, seen) in enumerate(zip(scene.galaxies, galaxies, strict=True), start=1):
        flux = np.array([total_flux(component, observation) for component in galaxy.components])
        flux = np.where(np.isnan(flux), seen.sum(), flux)
        share = flux / flux.sum() if flux.sum() else np.full(flux.size, 1 / flux.size)

        def mean(values) -> float:
            return float(np.dot(share, list(values)))

        x = mean(component.center_x.to_value(u.arcsec) for component in galaxy.components) / scale + (nx - 1) / 2
        y = mean(component.center_y.to_value(u.arcsec) for component in galaxy.components) / scale + (ny - 1) / 2
        e1, e2, n = (mean(_shape(component, name) for component in galaxy.components) for name in ("e1", "e2", "n"))
        with np.errstate(divide="ignore", invalid="ignore"):
            pulls = np.where(seen != 0, seen / np.sqrt(variance), 0)
        overlap = np.sum(seen * total)
        rows.append((
            number, galaxy.name, x, y, flux.sum(), galaxy_radius(galaxy, share), e1, e2, n, seen.sum(),
            np.sqrt(np.sum(pulls**2)), pulls.max(), 1 - np.sum(seen * seen) / overlap if overlap > 0 else 0.0,
        ))
    names = ("id", "name", "x", "y", "flux", "radius", "e1", "e2", "n", "flux_seen", "snr", "peak_snr", "blendedness")
    table = QTable(rows=rows or None, names=names, dtype=[int, str] + [float] * 11)
    table["flux"].unit = table["flux_seen"].unit = observation.unit
    table["radius"].unit = u.arcsec
    table["x"].unit = table["y"].unit = u.pix
    if observation.zero_point is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            magnitude = observation.zero_point - 2.5 * np.log10(np.asarray(table["flux"]))
        table.add_column(magnitude * u.ABmag, index=5, name="magnitude")
    return QTable(table)


def _shape(component, name: str) -> float:
    if isinstance(component, (ImageSource, RealGalaxy)):
        return np.nan
    if name == "n":
        return {Sersic: getattr(component, "n", np.nan), Gaussian: 0.5}.get(type(component), np.nan)
    return float(getattr(component, name, 0.0))


def galaxy_radius(galaxy: Galaxy, share: Sequence[float]) -> float:
    """Half-light radius in arcsec of all components together, ``share`` of the flux in each; NaN for images."""
    if any(isinstance(component, (ImageSource, RealGalaxy)) for component in galaxy.components):
        return np.nan
    radii = np.array([half_light_radius(component).to_value(u.arcsec) for component in galaxy.components])
    if len(radii) == 1 or radii.max() == radii.min():
        return float(radii[0])

    def excess(radius: float) -> float:
        return sum(part * _within(component, radius) for part, component in zip(share, galaxy.components)) - 0.5

    return float(brentq(excess, 0.5 * radii[radii > 0].min(), 2 * radii.max()))


def _within(component, radius: float) -> float:
    """Fraction of a component's light within a radius, its ellipse made round."""
    if isinstance(component, PointSource):
        return 1.0
    n = component.n if isinstance(component, Sersic) else 0.5
    return gammainc(2 * n, sersic_b(n) * (radius / half_light_radius(component).to_value(u.arcsec)) ** (1 / n))
