"""The parts a scene is made of: mass, light and the source, as small frozen records.

Names and conventions are lenstronomy's: angles in arcsec from the image centre, ``x`` towards +column and ``y`` towards
+row; ``e1 = (1-q)/(1+q) cos(2 phi)`` and ``e2 = (1-q)/(1+q) sin(2 phi)`` with axis ratio ``q`` and ``phi`` counted from
+x towards +y; radii of elliptical components are geometric means of the two axes.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from numbers import Real

import astropy.units as u
import numpy as np
from astropy.nddata import NDData
from astropy.units import Quantity

from lensdeblend.images import pixel_scale

__all__ = [
    "EPL", "SIE", "Shear", "NFW", "TruncatedNFW", "PointMass", "PointSubhalos", "Vortex",
    "Sersic", "Gaussian", "PointSource", "ImageSource", "Knots", "RealGalaxy",
    "MassComponent", "LightComponent",
]


def _angle(default: float | None = None):
    """A dataclass field that is an angle in arcsec."""
    metadata = {"unit": u.arcsec}
    if default is None:
        return field(metadata=metadata)
    return field(default=default * u.arcsec, metadata=metadata)


_NUMBERS = ("gamma", "e1", "e2", "gamma1", "gamma2", "n")
_POSITIVE = ("radius", "sigma", "n", "Rs", "r_trunc")


class _Component:
    _dimensions = 0

    def __post_init__(self):
        for entry in fields(self):
            value = getattr(self, entry.name)
            if "unit" in entry.metadata:
                object.__setattr__(self, entry.name, self._angle(entry.name, value, entry.metadata["unit"]))
            elif entry.name in _NUMBERS:
                self._check_number(entry.name, value)
        for name in _POSITIVE:
            if not np.all(getattr(self, name, 1) > 0):
                self._refuse(f"{name} must be positive; got {getattr(self, name)}")
        if hasattr(self, "theta_E") and np.any(self.theta_E < 0):
            self._refuse(f"theta_E must not be negative; got {self.theta_E}")
        if hasattr(self, "e1") and np.hypot(self.e1, self.e2) >= 1:
            self._refuse(f"the ellipticity modulus must be below 1; got {np.hypot(self.e1, self.e2)}")

    def _angle(self, name: str, value, unit: u.UnitBase) -> Quantity:
        if not isinstance(value, Quantity):
            message = f"{name} must be an angle with a unit, such as {value} * u.arcsec; got {value!r}"
            self._refuse(message, TypeError)
        if not value.unit.is_equivalent(unit):
            self._refuse(f"{name} must be an angle; got {value}")
        if not np.all(np.isfinite(value)):
            self._refuse(f"{name} must be finite; got {value}")
        if value.ndim != self._dimensions:
            self._refuse(f"{name} must be {'1-d' if self._dimensions else 'one angle'}; got the shape {value.shape}")
        return value.to(unit)

    def _check_number(self, name: str, value) -> None:
        if isinstance(value, bool) or not isinstance(value, Real):
            self._refuse(f"{name} must be a number; got {value!r}", TypeError)
        if not np.isfinite(value):
            self._refuse(f"{name} must be finite; got {value}")

    def _refuse(self, message: str, error: type[Exception] = ValueError):
        raise error(f"{type(self).__name__}: {message}")


class MassComponent(_Component):
    """A part of the deflector."""


class LightComponent(_Component):
    """A part of the light: of the lens galaxy, of the source or of a galaxy in a blend."""

    def __post_init__(self):
        super().__post_init__()
        (flux,) = (entry for entry in fields(self) if entry.name == "flux")
        if self.flux is None and flux.default is not MISSING:
            return
        if isinstance(self.flux, (bool, str)) or not isinstance(self.flux, (Real, Quantity)):
            self._refuse(f"flux must be a number, a flux or a magnitude with a unit; got {self.flux!r}", TypeError)
        if np.ndim(self.flux) or not np.isfinite(getattr(self.flux, "value", self.flux)):
            self._refuse(f"flux must be one finite number; got {self.flux}")

    @property
    def extent(self) -> Quantity:
        """Radius within which the light is worth showing: five half-light radii, or an image's half diagonal."""
        return 5 * half_light_radius(self)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Smallest x, smallest y, largest x and largest y of the `extent`, in arcsec."""
        x, y, reach = (value.to_value(u.arcsec) for value in (self.center_x, self.center_y, self.extent))
        return x - reach, y - reach, x + reach, y + reach


def half_light_radius(component: LightComponent) -> Quantity:
    """Half-light radius, the geometric mean of the two axes; of an image 0, since its pixels have not been measured."""
    if hasattr(component, "sigma"):
        return component.sigma * np.sqrt(2 * np.log(2))
    return getattr(component, "radius", 0 * u.arcsec)


@dataclass(frozen=True)
class EPL(MassComponent):
    """Elliptical power law of three-dimensional slope ``gamma``, between 1 and 3: lenstronomy's ``EPL``.

    Its convergence is ``(3 - gamma) / 2 * (theta_E / r)**(gamma - 1)`` with ``r**2 = q x**2 + y**2 / q`` along the
    axes of the ellipse.

    References
    ----------
    Tessore & Metcalf 2015, 2015A&A...580A..79T
    """

    theta_E: Quantity = _angle()
    gamma: float = 2.0
    e1: float = 0.0
    e2: float = 0.0
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)

    def __post_init__(self):
        super().__post_init__()
        if not 1 < self.gamma < 3:
            self._refuse(f"gamma must lie between 1 and 3, isothermal at 2; got {self.gamma}")


@dataclass(frozen=True)
class SIE(MassComponent):
    """Singular isothermal ellipsoid: an `EPL` with ``gamma = 2``.

    References
    ----------
    Kormann, Schneider & Bartelmann 1994, 1994A&A...284..285K
    """

    theta_E: Quantity = _angle()
    e1: float = 0.0
    e2: float = 0.0
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)


@dataclass(frozen=True)
class Shear(MassComponent):
    """External shear, whose deflection is zero at the image centre."""

    gamma1: float = 0.0
    gamma2: float = 0.0


@dataclass(frozen=True)
class NFW(MassComponent):
    """Navarro-Frenk-White halo: scale radius ``Rs`` and deflection ``alpha_Rs`` there.

    References
    ----------
    Navarro, Frenk & White 1997, 1997ApJ...490..493N
    """

    Rs: Quantity = _angle()
    alpha_Rs: Quantity = _angle()
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)


@dataclass(frozen=True)
class TruncatedNFW(MassComponent):
    """NFW halo truncated at ``r_trunc``, lenstronomy's ``TNFW``; ``alpha_Rs`` is the deflection without truncation.

    References
    ----------
    Baltz, Marshall & Oguri 2009, 2009JCAP...01..015B
    """

    Rs: Quantity = _angle()
    alpha_Rs: Quantity = _angle()
    r_trunc: Quantity = _angle()
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)


@dataclass(frozen=True)
class PointMass(MassComponent):
    """A point mass of Einstein radius ``theta_E``."""

    theta_E: Quantity = _angle()
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)


@dataclass(frozen=True)
class PointSubhalos(MassComponent):
    """Many point masses at once; every field is an array of one length."""

    theta_E: Quantity = _angle()
    center_x: Quantity = _angle()
    center_y: Quantity = _angle()

    _dimensions = 1

    def __post_init__(self):
        super().__post_init__()
        lengths = [len(values) for values in (self.theta_E, self.center_x, self.center_y)]
        if len(set(lengths)) > 1:
            self._refuse(f"theta_E, center_x and center_y must be of one length; got {lengths}")


@dataclass(frozen=True)
class Vortex(MassComponent):
    """An axion vortex: ``n`` equal point masses evenly spaced on a line through the centre.

    ``theta_E`` is the Einstein radius of all of them together; the line makes the angle ``angle`` with +x.

    References
    ----------
    Alexander et al. 2020, 2020ApJ...893...15A
    """

    theta_E: Quantity = _angle()
    half_length: Quantity = _angle()
    angle: Quantity = field(default=0.0 * u.deg, metadata={"unit": u.deg})
    n: int = 100
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)

    def __post_init__(self):
        super().__post_init__()
        if self.n != int(self.n) or self.n < 1:
            self._refuse(f"n must be a whole positive number; got {self.n}")

    @property
    def points(self) -> PointSubhalos:
        """The point masses, from one end of the line to the other, both ends taken."""
        along = np.linspace(-1, 1, self.n) * self.half_length if self.n > 1 else np.zeros(1) * self.half_length
        return PointSubhalos(
            theta_E=np.full(self.n, 1 / np.sqrt(self.n)) * self.theta_E,
            center_x=self.center_x + along * np.cos(self.angle),
            center_y=self.center_y + along * np.sin(self.angle),
        )


@dataclass(frozen=True)
class Sersic(LightComponent):
    """Elliptical Sérsic profile of half-light ``radius`` and index ``n``.

    ``flux`` is the total, unlensed flux: a number in the image's unit, a `~astropy.units.Quantity`, or an AB magnitude
    (``20 * u.ABmag``), which an `~lensdeblend.scenes.Observation` with a zero point turns into flux.

    References
    ----------
    Graham & Driver 2005, 2005PASA...22..118G
    """

    flux: float | Quantity
    radius: Quantity = _angle()
    n: float = 1.0
    e1: float = 0.0
    e2: float = 0.0
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)


@dataclass(frozen=True)
class Gaussian(LightComponent):
    """Elliptical Gaussian; ``sigma`` is the geometric mean of the two axes."""

    flux: float | Quantity
    sigma: Quantity = _angle()
    e1: float = 0.0
    e2: float = 0.0
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)


@dataclass(frozen=True)
class PointSource(LightComponent):
    """A point: a star in a blend."""

    flux: float | Quantity
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)


@dataclass(frozen=True)
class ImageSource(LightComponent):
    """A galaxy given as pixels: an `~astropy.nddata.NDData` whose pixel scale is known, interpolated linearly.

    ``flux`` rescales the image to that total; left out, the image's own sum is kept. ``angle`` turns the image
    counter-clockwise.
    """

    image: NDData
    flux: float | Quantity | None = None
    angle: Quantity = field(default=0.0 * u.deg, metadata={"unit": u.deg})
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.image, NDData):
            self._refuse(f"image must be an NDData; got {type(self.image).__name__}", TypeError)
        if self.image.data.ndim != 2 or not np.all(np.isfinite(self.image.data)):
            self._refuse("image must be two-dimensional and finite everywhere")
        if not np.sum(self.image.data, dtype=float) > 0:
            self._refuse("the pixels of the image must have a positive sum")
        pixel_scale(self.image)

    @property
    def extent(self) -> Quantity:
        return pixel_scale(self.image) * np.hypot(*self.image.data.shape) / 2


@dataclass(frozen=True)
class Knots(LightComponent):
    """Star-forming knots: ``n`` points of equal flux.

    ``seed`` scatters them at random as a Gaussian of half-light ``radius``. Only the ``galsim`` simulator draws them,
    as its ``RandomKnots``.
    """

    flux: float | Quantity
    radius: Quantity = _angle()
    n: int = 20
    e1: float = 0.0
    e2: float = 0.0
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)
    seed: int = 0


@dataclass(frozen=True)
class RealGalaxy(LightComponent):
    """A galaxy of a GalSim ``RealGalaxyCatalog``, its own PSF deconvolved, from a catalogue on disk.

    ``catalog`` is the catalogue's FITS file, with its images in the same folder; ``index`` counts its rows from 0,
    ``id`` is its ``IDENT``: one of the two is given. ``flux`` rescales it; left out, the catalogue's image keeps its
    own sum. ``angle`` turns it counter-clockwise. Only the ``galsim`` simulator draws it.

    References
    ----------
    Mandelbaum et al. 2012, 2012MNRAS.420.1518M; Rowe et al. 2015, 2015A&C....10..121R
    """

    catalog: str
    index: int | None = None
    id: int | None = None
    flux: float | Quantity | None = None
    angle: Quantity = field(default=0.0 * u.deg, metadata={"unit": u.deg})
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)

    def __post_init__(self):
        super().__post_init__()
        if (self.index is None) == (self.id is None):
            self._refuse("give one of index and id")
