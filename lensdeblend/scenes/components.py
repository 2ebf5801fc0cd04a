"""The parts a scene is made of: mass, light and the source, as small frozen records.

Names and conventions are lenstronomy's: angles in arcsec from the image centre, ``x`` towards +column and ``y`` towards
+row; ``e1 = (1-q)/(1+q) cos(2 phi)`` and ``e2 = (1-q)/(1+q) sin(2 phi)`` with axis ratio ``q`` and ``phi`` counted from
+x towards +y; radii of elliptical components are geometric means of the two axes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

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


class _Component:
    def __post_init__(self):
        for entry in fields(self):
            unit = entry.metadata.get("unit")
            if unit is None:
                continue
            value = getattr(self, entry.name)
            if not isinstance(value, Quantity):
                raise TypeError(
                    f"{type(self).__name__}: {entry.name} must be an angle with a unit, "
                    f"such as {value} * u.arcsec; got {value!r}"
                )
            if not value.unit.is_equivalent(unit):
                raise ValueError(f"{type(self).__name__}: {entry.name} must be an angle; got {value}")
            if not np.all(np.isfinite(value)):
                raise ValueError(f"{type(self).__name__}: {entry.name} must be finite; got {value}")
            object.__setattr__(self, entry.name, value.to(unit))
        if hasattr(self, "e1"):
            modulus = np.hypot(self.e1, self.e2)
            if np.any(modulus >= 1):
                raise ValueError(f"{type(self).__name__}: the ellipticity modulus must be below 1; got {modulus}")


class MassComponent(_Component):
    """A part of the deflector."""


class LightComponent(_Component):
    """A part of the light: of the lens galaxy, of the source or of a galaxy in a blend."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("radius", "sigma", "n"):
            if not np.all(getattr(self, name, 1) > 0):
                raise ValueError(f"{type(self).__name__}: {name} must be positive; got {getattr(self, name)}")

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
    """Elliptical power law of three-dimensional slope ``gamma``, lenstronomy's ``EPL``."""

    theta_E: Quantity = _angle()
    gamma: float = 2.0
    e1: float = 0.0
    e2: float = 0.0
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)


@dataclass(frozen=True)
class SIE(MassComponent):
    """Singular isothermal ellipsoid: an `EPL` with ``gamma = 2``."""

    theta_E: Quantity = _angle()
    e1: float = 0.0
    e2: float = 0.0
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)


@dataclass(frozen=True)
class Shear(MassComponent):
    """External shear, zero at the image centre."""

    gamma1: float = 0.0
    gamma2: float = 0.0


@dataclass(frozen=True)
class NFW(MassComponent):
    """Navarro-Frenk-White halo: scale radius ``Rs`` and deflection ``alpha_Rs`` there."""

    Rs: Quantity = _angle()
    alpha_Rs: Quantity = _angle()
    center_x: Quantity = _angle(0.0)
    center_y: Quantity = _angle(0.0)


@dataclass(frozen=True)
class TruncatedNFW(MassComponent):
    """NFW halo truncated at ``r_trunc``, lenstronomy's ``TNFW``."""

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

    def __post_init__(self):
        super().__post_init__()
        shapes = {np.shape(self.theta_E), np.shape(self.center_x), np.shape(self.center_y)}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError(
                f"PointSubhalos: theta_E, center_x and center_y must be 1-d and of one length; got {shapes}"
            )


@dataclass(frozen=True)
class Vortex(MassComponent):
    """An axion vortex: ``n`` equal point masses evenly spaced on a line through the centre.

    ``theta_E`` is the Einstein radius of all of them together; the line makes the angle ``angle`` with +x.
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
            raise ValueError(f"Vortex: n must be a whole positive number; got {self.n}")

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
            raise TypeError(f"ImageSource: image must be an NDData; got {type(self.image).__name__}")
        if self.image.data.ndim != 2 or not np.all(np.isfinite(self.image.data)):
            raise ValueError("ImageSource: image must be two-dimensional and finite everywhere")
        if not np.sum(self.image.data, dtype=float) > 0:
            raise ValueError("ImageSource: the pixels of the image must have a positive sum")
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
            raise ValueError("RealGalaxy: give one of index and id")
