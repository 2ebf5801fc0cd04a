"""Images made here, dressed in the class, pixels and coordinates of those that came in."""

from __future__ import annotations

from copy import deepcopy

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData, NDData
from astropy.units import Quantity
from astropy.wcs import WCS

from lensdeblend.images.scale import in_arcsec
from lensdeblend.io.wcs import as_fits_wcs, square_pixel_scale, tangent_wcs

__all__ = ["like", "of_class", "on_grid", "position_angle", "recast"]

_INHERIT = object()


def like(
    image: NDData, data: np.ndarray, *, unit=_INHERIT, uncertainty=None, mask=None, psf=_INHERIT, meta=None
) -> NDData:
    """Dress an array as an image on the same pixels as ``image``.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`
        Gives class, WCS, pixel scale, and what is not given here of unit and PSF.
    data : ndarray
        Of the image's shape.
    unit, psf : optional
        None for none; left out, those of ``image``.
    uncertainty, mask : optional
        None for none.
    meta : mapping, optional
        Added to the pixel scale.

    Returns
    -------
    `~astropy.nddata.NDData`
        Of the class of ``image``.

    Raises
    ------
    ValueError
        Where the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lensdeblend.images import like
    >>> model = like(CCDData(np.zeros((16, 16)), unit="adu"), np.ones((16, 16)))
    >>> type(model).__name__, model.unit
    ('CCDData', Unit("adu"))
    """
    if np.shape(data) != image.data.shape:
        raise ValueError(f"an array of shape {np.shape(data)} is not on the pixels of an image of {image.data.shape}")
    scale = {"PIXSCALE": image.meta["PIXSCALE"]} if "PIXSCALE" in image.meta else {}
    return of_class(
        type(image),
        data,
        unit=image.unit if unit is _INHERIT else unit,
        uncertainty=uncertainty,
        mask=mask,
        psf=image.psf if psf is _INHERIT else psf,
        wcs=deepcopy(image.wcs),
        meta=scale | dict(meta or {}),
    )


def on_grid(
    image: NDData, data: np.ndarray, *, pixel_scale: Quantity, offset: Quantity = (0, 0) * u.arcsec, unit=_INHERIT,
    uncertainty=None, mask=None, psf=None, meta=None,
) -> NDData:
    """Dress an array as an image on its own, finer or coarser, grid in the same sky as ``image``.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`
        Gives class, WCS, and the unit if none is given here.
    data : ndarray
        Of any two-dimensional shape.
    pixel_scale : `~astropy.units.Quantity`
        Angle per pixel of the new grid; the axes stay parallel to those of ``image``.
    offset : `~astropy.units.Quantity`
        (x, y) of the new grid's centre from the centre of ``image``, towards +column and +row.
    unit, uncertainty, mask, psf, meta : optional
        As in `like`, but the PSF of ``image`` is not inherited, for it is on other pixels.

    Returns
    -------
    `~astropy.nddata.NDData`
        Of the class of ``image``; its ``meta["PIXSCALE"]`` is the new scale in arcsec. Without a celestial WCS,
        ``meta["CENTER_X"]`` and ``meta["CENTER_Y"]`` keep the offset in arcsec.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astropy.nddata import NDData
    >>> from lensdeblend.images import on_grid
    >>> image = NDData(np.zeros((16, 16)), meta={"PIXSCALE": 0.1})
    >>> on_grid(image, np.zeros((32, 32)), pixel_scale=0.05 * u.arcsec).meta
    {'PIXSCALE': 0.05, 'CENTER_X': 0.0, 'CENTER_Y': 0.0}
    """
    scale = in_arcsec(pixel_scale, "pixel_scale")
    offset = u.Quantity(offset).to_value(u.arcsec)
    wcs = _grid_wcs(image, np.shape(data), scale, offset)
    center = {"CENTER_X": float(offset[0]), "CENTER_Y": float(offset[1])} if wcs is None else {}
    return of_class(
        type(image),
        data,
        unit=image.unit if unit is _INHERIT else unit,
        uncertainty=uncertainty,
        mask=mask,
        psf=psf,
        wcs=wcs,
        meta=dict(meta or {}) | {"PIXSCALE": scale} | center,
    )


def _grid_wcs(image: NDData, shape: tuple[int, int], scale: float, offset: np.ndarray) -> WCS | None:
    wcs = as_fits_wcs(image.wcs, image.data.shape)
    if wcs is None:
        return None
    wcs = tangent_wcs(wcs, image.data.shape) if wcs.has_distortion else wcs.deepcopy()
    old = square_pixel_scale(wcs).value
    ratio = scale / old
    # Pixel q of the new grid lies on pixel p = centre + offset / old + ratio * (q - new centre) of the old one.
    where = _centre(image.data.shape) + offset / old
    wcs.wcs.crpix = _centre(shape) + (wcs.wcs.crpix - 1 - where) / ratio + 1
    if wcs.wcs.has_cd():
        wcs.wcs.cd = wcs.wcs.cd * ratio
    else:
        wcs.wcs.cdelt = wcs.wcs.cdelt * ratio
    wcs.array_shape = shape
    wcs.wcs.set()
    return wcs


def recast(image: NDData, kind: type[NDData]) -> NDData:
    """Return ``image`` as an instance of the NDData class ``kind``: how results get the class of the input.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData, NDData
    >>> from lensdeblend.images import recast
    >>> type(recast(NDData(np.zeros((16, 16))), CCDData)).__name__
    'CCDData'
    """
    if type(image) is kind:
        return image
    return of_class(
        kind, image.data, unit=image.unit, uncertainty=image.uncertainty, mask=image.mask, psf=image.psf, wcs=image.wcs,
        meta=image.meta,
    )


def of_class(kind: type[NDData], data, *, unit, **fields) -> NDData:
    if issubclass(kind, CCDData) and unit is None:
        unit = u.dimensionless_unscaled
    return kind(data, unit=unit, **fields)


def position_angle(image: NDData, angle: Quantity) -> Quantity:
    """Turn an angle on the pixel grid into a position angle on the sky.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`
        With a celestial WCS.
    angle : `~astropy.units.Quantity`
        Counted from +x towards +y, as ``phi`` of ``e1`` and ``e2``; scalar or array.

    Returns
    -------
    `~astropy.units.Quantity`
        Position angle at the image's centre, north through east, 0 to 360 degrees.

    Raises
    ------
    ValueError
        Where the image has no celestial WCS.

    Examples
    --------
    With north up and east left, +y is north and +x is west:

    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astropy.nddata import NDData
    >>> from astropy.wcs import WCS
    >>> from lensdeblend.images import position_angle
    >>> wcs = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-4, "CDELT2": 1e-4})
    >>> print(position_angle(NDData(np.zeros((16, 16)), wcs=wcs), [45, 180] * u.deg).round(3))
    [315.  90.] deg
    """
    wcs = as_fits_wcs(image.wcs, image.data.shape)
    if wcs is None:
        raise ValueError("a position angle needs an image with a celestial WCS")
    x, y = _centre(image.data.shape)
    start = wcs.pixel_to_world(x, y)
    angle = u.Quantity(angle)
    end = wcs.pixel_to_world(x + np.cos(angle).value, y + np.sin(angle).value)
    return Quantity(start.position_angle(end), u.deg) % (360 * u.deg)


def _centre(shape: tuple[int, int]) -> np.ndarray:
    return (np.array(shape[::-1]) - 1) / 2
