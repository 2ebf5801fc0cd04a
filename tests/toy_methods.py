"""The smallest methods that keep the contract, one of each kind, for the tests of verbs, plug-ins and command line."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, VarianceUncertainty
from astropy.table import QTable
from scipy.signal import fftconvolve

from lensdeblend.images import like, on_grid, pixel_scale
from lensdeblend.interfaces import Deblender, Generator, Reconstructor, Simulator, SuperResolver
from lensdeblend.results import Deblending, Generation, Reconstruction, Simulation, SuperResolution


def gaussian(shape, x, y, sigma):
    rows, columns = np.indices(shape)
    profile = np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / sigma**2)
    return profile / profile.sum()


@dataclass(frozen=True)
class ToySimulator(Simulator):
    """Draws every light component of a blend as a round Gaussian."""

    stretch: float = 1.0

    def simulate(self, scene, observation, rng):
        if scene.is_lens:
            raise ValueError("toys bend no light: leave out the mass")
        pixel = observation.pixel_scale.to_value(u.arcsec)
        sources = [sum(self._draw(part, observation, pixel) for part in galaxy.components) for galaxy in scene.galaxies]
        noiseless = sum(sources, np.zeros(observation.shape))
        variance = observation.variance(noiseless)
        image = NDData(
            rng.normal(noiseless, np.sqrt(variance)), uncertainty=VarianceUncertainty(variance), unit=observation.unit,
            psf=observation.kernel, meta={"PIXSCALE": pixel},
        )
        return Simulation(
            image=image, noiseless=like(image, noiseless), scene=scene, observation=observation,
            sources=[like(image, source) for source in sources],
        )

    def _draw(self, part, observation, pixel):
        ny, nx = observation.shape
        x = (nx - 1) / 2 + part.center_x.to_value(u.arcsec) / pixel
        y = (ny - 1) / 2 + part.center_y.to_value(u.arcsec) / pixel
        sigma = self.stretch * part.radius.to_value(u.arcsec) / pixel
        drawn = observation.flux(part.flux) * gaussian(observation.shape, x, y, sigma)
        return drawn if observation.kernel is None else fftconvolve(drawn, observation.kernel, mode="same")


def fit(image):
    """The data themselves, smoothed: a model good enough to be held against them."""
    sigma = np.sqrt(image.uncertainty.array)
    data = np.where(image.mask, 0, image.data)
    residual = np.where(image.mask, 0, 0.9 * np.tanh(data / sigma))
    model = np.where(image.mask, 0, data - residual * np.where(image.mask, 0, sigma))
    chi2 = np.mean(residual[~image.mask] ** 2)
    return model, like(image, residual, unit=u.dimensionless_unscaled, mask=image.mask), chi2


@dataclass(frozen=True)
class ToyReconstructor(Reconstructor):
    """Says that every lens is a ring of one arcsec."""

    theta_E: float = 1.0
    label: str = "toy"
    fast: bool = False

    def reconstruct(self, image, rng):
        model, residual, chi2 = fit(image)
        names = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
        values = dict.fromkeys(names, 0.0) | {"theta_E": self.theta_E, "gamma": rng.normal(2, 0.1)}
        columns = {}
        for name in names:
            unit = u.arcsec if name in ("theta_E", "center_x", "center_y") else u.dimensionless_unscaled
            columns[name] = [values[name]] * unit
            columns[f"{name}_err"] = [0.1] * unit
        scale = pixel_scale(image)
        return Reconstruction(
            source=on_grid(image, gaussian((20, 20), 9.5, 9.5, 2), pixel_scale=scale / 2), unlensed=like(image, model),
            parameters=QTable(columns), covariance=0.01 * np.eye(len(names)), samples=None, model=like(image, model),
            residual=residual, lens_light=None, chi2=chi2, image=image,
        )


@dataclass(frozen=True)
class ToyDeblender(Deblender):
    """Gives each pixel to the nearest position."""

    def deblend(self, image, segmentation, positions, rng):
        model, residual, chi2 = fit(image)
        if positions is None:
            positions = np.array(np.unravel_index([np.argmax(model)], model.shape))[::-1].T.astype(float)
        rows, columns = np.indices(model.shape)
        nearest = np.argmin([(columns - x) ** 2 + (rows - y) ** 2 for x, y in positions], axis=0)
        own = [nearest == number for number in range(len(positions))]
        n = len(positions)
        catalog = QTable({"id": np.arange(1, n + 1), "x": positions[:, 0], "y": positions[:, 1]})
        catalog["flux"] = [model[mine].sum() for mine in own] * (image.unit or u.dimensionless_unscaled)
        for name in ("flux_err", "e1", "e2", "radius", "blendedness"):
            catalog[name] = np.zeros(n)
        catalog["flags"] = [""] * n
        return Deblending(
            sources=[like(image, model * mine) for mine in own],
            shares=[like(image, image.data * mine) for mine in own], catalog=catalog, segmentation=segmentation,
            model=like(image, model), residual=residual, chi2=chi2, image=image,
        )


@dataclass(frozen=True)
class ToyGenerator(Generator):
    """Round Gaussians of random size."""

    def generate(self, n, conditions, rng):
        flux = np.broadcast_to((conditions or {}).get("flux", 1.0), n)
        sigma = rng.uniform(1, 3, n)
        images = [
            NDData(total * gaussian((24, 24), 11.5, 11.5, width), meta={"PIXSCALE": 0.1})
            for total, width in zip(flux, sigma)
        ]
        return Generation(images=images, catalog=QTable({"flux": np.array(flux), "radius": 0.1 * sigma * u.arcsec}))


@dataclass(frozen=True)
class ToySuperResolver(SuperResolver):
    """Repeats each pixel."""

    def superresolve(self, image, factor, rng):
        if factor != int(factor):
            raise ValueError(f"toys divide pixels by whole numbers; got factor={factor}")
        model, _, chi2 = fit(image)
        fine = np.kron(model, np.ones((int(factor),) * 2)) / factor**2
        scale = pixel_scale(image) / factor
        return SuperResolution(
            image=on_grid(image, fine, pixel_scale=scale), intrinsic=on_grid(image, fine, pixel_scale=scale),
            source=None, deflection=None, convergence=None, parameters=None, chi2=chi2,
        )
