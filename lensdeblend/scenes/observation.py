"""How a scene is seen: pixels, point-spread function, noise, and what one count means."""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.units import Quantity

__all__ = ["GaussianPSF", "Observation"]

_SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))


@dataclass(frozen=True)
class GaussianPSF:
    """A round Gaussian point-spread function, cut at ``truncation`` standard deviations."""

    fwhm: Quantity
    truncation: float = 5.0

    def kernel(self, pixel_scale: Quantity) -> np.ndarray:
        """The PSF on pixels of ``pixel_scale``: odd size, sum 1, each pixel the value at its centre."""
        sigma = (self.fwhm * _SIGMA_PER_FWHM / pixel_scale).to_value(u.dimensionless_unscaled)
        half = max(1, int(np.ceil(self.truncation * sigma)))
        offset = np.arange(-half, half + 1)
        profile = np.exp(-0.5 * (offset / sigma) ** 2)
        kernel = np.outer(profile, profile)
        return kernel / kernel.sum()


@dataclass(frozen=True)
class Observation:
    """The telescope's side of a simulation.

    Parameters
    ----------
    pixel_scale : `~astropy.units.Quantity`
        Angle per pixel.
    shape : tuple of int
        ``(ny, nx)`` of the image.
    psf : `GaussianPSF`, 2-d array or None
        An array is the PSF on the image's own pixels.
    unit : `~astropy.units.Unit`
        Unit of the image.
    exposure_time : `~astropy.units.Quantity`, optional
        Total exposure; gives the photon noise of the objects: variance ``flux / (exposure_time * gain)``.
    gain : float
        Electrons per count; 1 where the unit is already electrons.
    background_rms : float
        Standard deviation a pixel of everything but the objects' own photons, in ``unit``; 0 for none.
    zero_point : float, optional
        AB magnitude of one ``unit``.
    band : str
    provenance : str
        Where the numbers come from: table, version.
    """

    pixel_scale: Quantity
    shape: tuple[int, int]
    psf: GaussianPSF | np.ndarray | None = None
    unit: u.UnitBase = u.electron / u.s
    exposure_time: Quantity | None = None
    gain: float = 1.0
    background_rms: float = 0.0
    zero_point: float | None = None
    band: str = ""
    provenance: str = ""

    @property
    def kernel(self) -> np.ndarray | None:
        """The PSF on the image's pixels, or None."""
        if isinstance(self.psf, GaussianPSF):
            return self.psf.kernel(self.pixel_scale)
        return self.psf

    def flux(self, flux: float | Quantity) -> float:
        """Turn a flux or an AB magnitude into a number in ``unit``."""
        if not isinstance(flux, Quantity):
            return float(flux)
        if flux.unit in (u.ABmag, u.mag):
            if self.zero_point is None:
                raise ValueError("a magnitude needs an Observation with a zero_point")
            return float(10 ** (-0.4 * (flux.value - self.zero_point)))
        return float(flux.to_value(self.unit))

    def variance(self, noiseless: np.ndarray) -> np.ndarray:
        """Expected variance of each pixel of ``noiseless``, in ``unit`` squared."""
        variance = np.full(noiseless.shape, self.background_rms**2, dtype=float)
        if self.exposure_time is not None:
            variance += np.clip(noiseless, 0, None) / (self.exposure_time.to_value(u.s) * self.gain)
        return variance
