"""How a scene is seen: pixels, point-spread function, noise, and what one count means."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.nddata import NDData
from astropy.units import Quantity

__all__ = ["GaussianPSF", "Observation"]

_SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))
_RATES = tuple(unit / u.s for unit in (u.electron, u.photon, u.count, u.adu, u.DN))


@dataclass(frozen=True)
class GaussianPSF:
    """A round Gaussian point-spread function, cut at ``truncation`` standard deviations."""

    fwhm: Quantity
    truncation: float = 5.0

    def __post_init__(self):
        _check_angle(self.fwhm, "GaussianPSF: fwhm")
        if not self.truncation > 0:
            raise ValueError(f"GaussianPSF: truncation must be positive; got {self.truncation}")

    def kernel(self, pixel_scale: Quantity, *, offset: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """The PSF on pixels of ``pixel_scale``: odd size, sum 1, each pixel the value at its centre.

        ``offset`` (x, y) in pixels moves it off the middle of the central pixel.
        """
        sigma = (self.fwhm * _SIGMA_PER_FWHM / pixel_scale).to_value(u.dimensionless_unscaled)
        half = max(1, int(np.ceil(self.truncation * sigma)))
        x, y = (np.exp(-0.5 * ((np.arange(-half, half + 1) - shift) / sigma) ** 2) for shift in offset)
        kernel = np.outer(y, x)
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
    unit : `~astropy.units.Unit` or str
        Unit of the image: a rate, such as electrons or counts per second, or a flux density, such as nJy.
    exposure_time : `~astropy.units.Quantity`, optional
        Total exposure; gives the photon noise of the objects: variance ``flux / (exposure_time * gain)``. Only for an
        image whose unit is a rate.
    gain : float
        Electrons per count; 1 where the unit is already electrons.
    background_rms : float or `~astropy.units.Quantity`
        Standard deviation a pixel of everything but the objects' own photons, in ``unit``; 0 for none.
    zero_point : float or `~astropy.units.Quantity`, optional
        AB magnitude of one ``unit``; a flux density has its own.
    band : str
    provenance : str
        Where the numbers come from: table, version.

    Raises
    ------
    TypeError, ValueError
        For a pixel scale or exposure time without unit or not positive, a shape that is not two positive whole numbers,
        a PSF of even size, with NaN or with a sum that is not positive, a negative noise, an exposure time where the
        unit is no rate, a zero point that is not that of the unit.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend.scenes import GaussianPSF, Observation
    >>> observation = Observation(0.1 * u.arcsec, (64, 64), GaussianPSF(0.16 * u.arcsec), zero_point=25.0)
    >>> observation.flux(20 * u.ABmag)
    100.0
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

    def __post_init__(self):
        _check_angle(self.pixel_scale, "Observation: pixel_scale")
        object.__setattr__(self, "shape", _checked_shape(self.shape))
        object.__setattr__(self, "unit", _checked_unit(self.unit))
        object.__setattr__(self, "background_rms", _plain(self.background_rms, self.unit, "background_rms"))
        if self.zero_point is not None:
            object.__setattr__(self, "zero_point", _plain(self.zero_point, u.ABmag, "zero_point"))
            self._check_zero_point()
        if self.psf is not None and not isinstance(self.psf, GaussianPSF):
            object.__setattr__(self, "psf", _checked_psf(self.psf))
        if self.exposure_time is not None:
            if not (isinstance(self.exposure_time, Quantity) and self.exposure_time.unit.is_equivalent(u.s)):
                raise TypeError(
                    f"Observation: exposure_time must be a time, such as 1000 * u.s; got {self.exposure_time!r}"
                )
            if not self.exposure_time > 0 * u.s:
                raise ValueError(f"Observation: exposure_time must be positive; got {self.exposure_time}")
            if self.unit not in _RATES:
                raise ValueError(
                    f"Observation: photon noise follows from exposure_time only in a rate, such as electron / s, not "
                    f"in {self.unit}; choose a rate, or leave exposure_time out and give background_rms"
                )
        if not self.gain > 0:
            raise ValueError(f"Observation: gain must be positive; got {self.gain}")
        if not 0 <= self.background_rms < np.inf:
            raise ValueError(f"Observation: background_rms must be 0 or more; got {self.background_rms}")

    def _check_zero_point(self):
        if not np.isfinite(self.zero_point):
            raise ValueError(f"Observation: zero_point must be finite; got {self.zero_point}")
        if self.unit.is_equivalent(u.Jy):
            own = (1 * self.unit).to_value(u.ABmag)
            if abs(self.zero_point - own) > 0.01:
                raise ValueError(f"Observation: the zero point of {self.unit} is {own:.3f}; got {self.zero_point}")

    @property
    def kernel(self) -> np.ndarray | None:
        """The PSF on the image's pixels, or None."""
        if isinstance(self.psf, GaussianPSF):
            return self.psf.kernel(self.pixel_scale)
        return self.psf

    def flux(self, flux: float | Quantity) -> float:
        """Turn a flux or an AB magnitude (a plain ``mag`` is taken as one) into a number in ``unit``.

        Raises
        ------
        ValueError
            For a magnitude or a flux density where there is no zero point, and for a unit that does not convert.
        """
        if not isinstance(flux, Quantity):
            return float(flux)
        if flux.unit == u.mag:
            flux = flux.value * u.ABmag
        if flux.unit.is_equivalent(u.Jy) and not self.unit.is_equivalent(u.Jy):
            flux = flux.to(u.ABmag)
            if self.zero_point is None:
                raise ValueError("a magnitude or a flux density needs an Observation with a zero_point")
            return float(10 ** (-0.4 * (flux.value - self.zero_point)))
        try:
            return float(flux.to_value(self.unit))
        except u.UnitConversionError:
            raise ValueError(
                f"a flux in {flux.unit} cannot be turned into {self.unit}, the observation's unit"
            ) from None

    def variance(self, noiseless: np.ndarray) -> np.ndarray:
        """Expected variance of each pixel of ``noiseless``, in ``unit`` squared."""
        variance = np.full(noiseless.shape, self.background_rms**2, dtype=float)
        if self.exposure_time is not None:
            variance += np.clip(noiseless, 0, None) / (self.exposure_time.to_value(u.s) * self.gain)
        return variance

    def refined(self, factor: int) -> Observation:
        """The same field on pixels ``factor`` times smaller, without noise: a truth for super-resolution.

        A `GaussianPSF` is kept; of an array it is not known how it looks on finer pixels.

        Raises
        ------
        ValueError
            For a factor that is no whole positive number, and for a PSF that is an array.
        """
        if factor != int(factor) or factor < 1:
            raise ValueError(f"factor must be a whole positive number; got {factor}")
        if isinstance(self.psf, np.ndarray):
            raise ValueError("a PSF given as an array cannot be put on finer pixels; replace it by one made for them")
        return replace(
            self, pixel_scale=self.pixel_scale / int(factor), shape=tuple(n * int(factor) for n in self.shape),
            background_rms=0.0, exposure_time=None,
        )

    @classmethod
    def preset(cls, name: str, *, shape: tuple[int, int], psf: GaussianPSF | np.ndarray | None = None) -> Observation:
        """The observation that an instrument's table describes; `lensdeblend.scenes.presets` says which there are.

        Parameters
        ----------
        name : str
            Such as ``"euclid-vis"``.
        shape : tuple of int
            ``(ny, nx)``.
        psf : `GaussianPSF` or 2-d array, optional
            Replaces the table's, or gives one where the table has none.

        Raises
        ------
        ValueError
            For an unknown name, and where neither the table nor ``psf`` gives a PSF.
        """
        from lensdeblend.scenes.presets import preset

        return preset(name, shape=shape, psf=psf)

    def write(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Write the observation as YAML."""
        from lensdeblend.scenes.yaml import write_yaml

        write_yaml(self, path, overwrite=overwrite)

    @classmethod
    def read(cls, path: str | os.PathLike) -> Observation:
        """Read an observation from YAML."""
        from lensdeblend.scenes.yaml import read_yaml

        return read_yaml(path, cls)


def _check_angle(angle, what: str) -> None:
    if not (isinstance(angle, Quantity) and angle.unit.is_equivalent(u.arcsec)):
        raise TypeError(f"{what} must be an angle, such as 0.1 * u.arcsec; got {angle!r}")
    if not (np.ndim(angle) == 0 and np.isfinite(angle) and angle > 0 * u.arcsec):
        raise ValueError(f"{what} must be one positive angle; got {angle}")


def _checked_shape(shape) -> tuple[int, int]:
    if np.shape(shape) != (2,) or not all(n == int(n) and n >= 1 for n in shape):
        raise ValueError(f"Observation: shape must be (ny, nx), both whole and positive; got {shape}")
    return tuple(int(n) for n in shape)


def _checked_unit(unit) -> u.UnitBase:
    try:
        return u.Unit(unit)
    except (TypeError, ValueError) as error:
        raise type(error)(f"Observation: unit must be a unit, such as electron / s; got {unit!r}") from None


def _plain(value, unit, name: str) -> float:
    try:
        return float(value.to_value(unit) if isinstance(value, Quantity) else value)
    except (TypeError, ValueError):
        raise ValueError(f"Observation: {name} must be a number, or a quantity in {unit}; got {value!r}") from None


def _checked_psf(psf) -> np.ndarray:
    try:
        psf = np.array(psf.data if isinstance(psf, NDData) else psf, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"Observation: psf must be a GaussianPSF, a 2-d array or None; got {psf!r}") from None
    if psf.ndim != 2 or not all(n % 2 for n in psf.shape):
        raise ValueError(f"Observation: psf must be a 2-d array of odd size; got shape {psf.shape}")
    if not np.isfinite(psf).all() or not psf.sum() > 0:
        raise ValueError("Observation: psf must be finite everywhere and have a positive sum")
    # Dividing again by a sum that is 1 but for rounding would change what a file gave back.
    return psf if abs(psf.sum() - 1) < 1e-12 else psf / psf.sum()
