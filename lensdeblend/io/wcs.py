"""World coordinates in the one form that FITS headers hold."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io.fits import Header
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, FITSFixedWarning, WcsError
from astropy.wcs.utils import fit_wcs_from_points, proj_plane_pixel_scales

__all__ = ["as_fits_wcs", "header_of_wcs", "read_wcs", "square_pixel_scale", "tangent_wcs", "wcs_of_header"]

_SQUARE = 0.01
_FIT_PIXELS = 0.01


def wcs_of_header(header: Header, hdus=None) -> WCS | None:
    """Return the celestial WCS of a header, or None where there is none."""
    wcs = read_wcs(header, hdus)
    return wcs.celestial if wcs.has_celestial else None


def read_wcs(header: Header, hdus=None) -> WCS:
    """Return the WCS of a header, celestial or not, without astropy's notes on what it mended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        warnings.filterwarnings("ignore", "The following header keyword is invalid", AstropyUserWarning)
        try:
            return WCS(header, fobj=hdus)
        except WcsError as error:
            raise ValueError(f"the WCS in the header is broken: {_reason(error)}") from error


def header_of_wcs(wcs: WCS) -> Header:
    """Return the cards of a WCS, its numbers to the last digit (`~astropy.wcs.WCS.to_header` rounds them to twelve)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        header = wcs.to_header(relax=True)
    matrix = wcs.wcs.cd if wcs.wcs.has_cd() else wcs.wcs.get_pc()
    scale = np.ones(wcs.naxis) if wcs.wcs.has_cd() else wcs.wcs.get_cdelt()
    for i in range(wcs.naxis):
        header[f"CRPIX{i + 1}"] = wcs.wcs.crpix[i]
        header[f"CRVAL{i + 1}"] = wcs.wcs.crval[i]
        header[f"CDELT{i + 1}"] = scale[i]
        for j in range(wcs.naxis):
            header[f"PC{i + 1}_{j + 1}"] = matrix[i, j]
    return header


def as_fits_wcs(wcs, shape: tuple[int, int]) -> WCS | None:
    """Return a celestial FITS WCS for an image of ``shape``, or None where ``wcs`` knows no sky.

    Slices and other WCS objects that no header can hold are fitted by a tangent projection, which must follow them to
    a hundredth of a pixel.
    """
    if wcs is None:
        return None
    if isinstance(wcs, WCS):
        try:
            celestial = wcs.celestial if wcs.has_celestial else None
        except WcsError as error:
            raise ValueError(f"the WCS is broken: {_reason(error)}") from error
        if celestial is None:
            return None
        return celestial if celestial.cpdis1 is celestial.det2im1 is None else tangent_wcs(wcs, shape)
    types = [kind or "" for kind in wcs.low_level_wcs.world_axis_physical_types]
    return tangent_wcs(wcs, shape) if any(kind.startswith("pos.") for kind in types) else None


def tangent_wcs(wcs, shape: tuple[int, int]) -> WCS:
    """Return the undistorted tangent projection nearest to ``wcs`` over an image of ``shape``."""
    y, x = (axis.ravel() for axis in np.meshgrid(*(np.linspace(0, n - 1, 7) for n in shape), indexing="ij"))
    sky = wcs.pixel_to_world(x, y)
    if not isinstance(sky, SkyCoord):
        raise ValueError(f"the WCS gives {type(sky).__name__} instead of sky positions; attach a celestial WCS")
    fitted = fit_wcs_from_points((x, y), sky, proj_point="center", projection="TAN")
    worst = np.max(np.hypot(*(np.array(fitted.world_to_pixel(sky)) - (x, y))))
    if not worst < _FIT_PIXELS:
        raise ValueError(
            f"no tangent projection follows this WCS: it is off by {worst:.2g} pixels; resample the image onto an "
            "undistorted grid, or cut out a smaller one"
        )
    return fitted


def square_pixel_scale(wcs: WCS) -> u.Quantity:
    """Return the pixel scale of a celestial WCS in arcsec; ValueError unless pixels are square to one per cent."""
    matrix = wcs.celestial.pixel_scale_matrix
    if np.array_equal(np.abs(matrix), np.eye(2)):
        raise ValueError(
            "the WCS has no pixel scale: without CDELT or CD keys a pixel is one degree wide; set them, or remove the "
            "WCS and give the pixel scale itself"
        )
    x, y = (proj_plane_pixel_scales(wcs.celestial) * u.deg).to_value(u.arcsec)
    if not (np.isfinite([x, y]).all() and min(x, y) > 0):
        raise ValueError(f"the WCS has pixel scales of {x:.4g} and {y:.4g} arcsec: they must be positive numbers")
    skew = abs(matrix[:, 0] @ matrix[:, 1]) / np.prod(np.hypot(*matrix))
    if abs(x / y - 1) > _SQUARE or skew > _SQUARE:
        raise ValueError(
            f"the WCS has unequal pixel scales: {x:.4g} and {y:.4g} arcsec, axes {np.degrees(np.arccos(skew)):.1f} "
            "degrees apart; resample the image onto square pixels"
        )
    return np.sqrt(x * y) * u.arcsec


def _reason(error: WcsError) -> str:
    """The last line of wcslib's message, without its traceback."""
    return f"{str(error).strip().splitlines()[-1]} Correct its keys, or remove it and give a pixel scale"
