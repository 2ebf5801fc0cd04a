"""The one door: how outside images turn into what methods see.

Pixel convention: integer coordinates at pixel centres, ``(0, 0)`` the centre of the first pixel, x towards +column and y
towards +row. Lens-model angles are in arcsec from the image centre, ``((nx - 1) / 2, (ny - 1) / 2)``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import (
    CCDData, Cutout2D, InverseVariance, NDData, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty,
    extract_array,
)
from astropy.units import Quantity
from astropy.wcs import WCS

from lensdeblend.io.planes import ImageWarning, background_sigma
from lensdeblend.io.wcs import as_fits_wcs, square_pixel_scale, tangent_wcs

__all__ = ["ImageWarning", "cutout", "like", "on_grid", "pixel_scale", "position_angle", "prepare", "recast"]

SMALLEST_SIDE = 8
_INHERIT = object()


def prepare(image: NDData | Mapping[str, NDData], *, pixel_scale: Quantity | float | None = None):
    """Check an image and bring it into the form that every method sees.

    Parameters
    ----------
    image : `~astropy.nddata.NDData` or mapping
        A two-dimensional image of any NDData class, or ``{band: NDData}``. The PSF, if any, is ``image.psf``: an image of it
        at the image's own pixel scale, of odd size. Where neither its peak nor its centroid is on the central pixel, it is
        shifted there by whole pixels, with a warning: were it left, every position found with it would be off by as much.
    pixel_scale : `~astropy.units.Quantity` or float, optional
        Angle per pixel (a plain number is arcsec) for an image with neither a celestial WCS nor ``meta["PIXSCALE"]``.

    Returns
    -------
    `~astropy.nddata.NDData` or dict
        A copy, of class NDData, with

        - native float data: float32 stays (unless its square under- or overflows), everything else becomes float64; 0 where
          it was not finite,
        - a `~astropy.nddata.VarianceUncertainty` in the unit of the data squared, infinite where it was not a positive number,
        - a boolean mask, True also where the data or the variance is NaN or infinite or the variance is not positive,
        - the PSF as float64, centred, summing to 1, or None; small negative wings are kept,
        - a celestial FITS WCS, or None and ``meta["PIXSCALE"]`` in arcsec.

        A mapping gives a dict of these.

    Raises
    ------
    TypeError
        Where the image is no NDData, or its data no real numbers.
    ValueError
        Where the image is not two-dimensional, has a side below 8 pixels, no usable pixel, a bad PSF, no or unequal pixel
        scales, an uncertainty of unknown kind, a mask that holds bit planes; where bands have units that do not convert
        into each other, or there is no band.

    Warns
    -----
    ImageWarning
        Where there is no uncertainty: the noise is then one number, 1.4826 times the median absolute deviation of the
        pixels left by 3-sigma clipping. Where the PSF is shifted.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import NDData, StdDevUncertainty
    >>> from lensdeblend import prepare
    >>> image = NDData(np.ones((32, 32), dtype=">f4"), uncertainty=StdDevUncertainty(np.full((32, 32), 0.5)),
    ...                meta={"PIXSCALE": 0.1})
    >>> image.data[3, 4] = np.nan
    >>> ready = prepare(image)
    >>> ready.data.dtype.isnative, int(ready.mask.sum()), float(ready.uncertainty.array[0, 0])
    (True, 1, 0.25)
    """
    if isinstance(image, Mapping):
        return _prepare_bands(image, pixel_scale)
    return _prepare_one(image, pixel_scale, "the image")


def _prepare_bands(bands: Mapping[str, NDData], scale) -> dict[str, NDData]:
    if not bands:
        raise ValueError("the mapping of bands is empty: give at least one {band: NDData}")
    for band in bands:
        if not isinstance(band, str):
            raise TypeError(f"bands are named by strings, such as {{'g': image}}; got {band!r}")
    prepared = {band: _prepare_one(image, scale, f"band {band!r}") for band, image in bands.items()}
    first, *others = prepared
    for band in others:
        one, other = prepared[first].unit, prepared[band].unit
        if (one is None) != (other is None) or (one is not None and not one.is_equivalent(other)):
            raise ValueError(
                f"bands must have units that convert into each other: {first!r} is in {_name(one)}, {band!r} in "
                f"{_name(other)}; calibrate them to one kind of unit, such as nJy"
            )
    return prepared


def _prepare_one(image: NDData, scale, what: str) -> NDData:
    data = _data(image, what)
    mask = _mask(image, what) | ~np.isfinite(data)
    if mask.all():
        raise ValueError(f"{what} has no usable pixel: every one is masked, NaN or infinite")
    variance = _variance(image, data, mask, what)
    bad = ~(np.isfinite(variance) & (variance > 0))
    if bad.all():
        raise ValueError(
            f"{what} has no pixel with a positive, finite variance: correct the uncertainty, or set it to None to have the "
            "noise estimated from the background"
        )
    if (bad | mask).all():
        raise ValueError(f"{what} has no usable pixel: each is masked, not finite, or without a positive variance")
    wcs, meta = _pixels(image, scale, what)
    limits = np.finfo(data.dtype)
    if (variance[~bad] < limits.tiny).any() or (variance[~bad] > limits.max).any():
        data = data.astype(np.float64)
    return NDData(
        np.where(np.isfinite(data), data, 0),
        uncertainty=VarianceUncertainty(np.where(bad, np.inf, variance).astype(data.dtype)),
        mask=mask | bad,
        wcs=wcs,
        unit=image.unit,
        meta=meta,
        psf=_psf(image.psf, what),
    )


def _data(image, what: str) -> np.ndarray:
    if not isinstance(image, NDData):
        raise TypeError(f"{what} must be an astropy NDData; got {type(image).__name__}. {_way_in(image)}")
    data = np.asarray(image.data)
    if data.dtype.kind not in "fiub":
        raise TypeError(f"{what} must hold real numbers; got {data.dtype}")
    if data.ndim != 2:
        raise ValueError(
            f"{what} must be two-dimensional; got shape {data.shape}. Give several bands as {{band: NDData}}, several images "
            "as a list"
        )
    if min(data.shape) < SMALLEST_SIDE:
        raise ValueError(f"{what} is too small: {data.shape} pixels; at least {SMALLEST_SIDE} a side are needed")
    return data.astype(np.float32 if data.dtype.newbyteorder("=") == np.float32 else np.float64)


def _way_in(image) -> str:
    if isinstance(image, (str, bytes)) or hasattr(image, "__fspath__"):
        return "Read the file first: lensdeblend.io.read_image(path)"
    if isinstance(image, (list, tuple)):
        return "Prepare one image at a time; the verbs take lists"
    return (
        "Wrap an array: NDData(array, uncertainty=StdDevUncertainty(noise), psf=psf, meta={'PIXSCALE': 0.1}), "
        "with the pixel scale in arcsec"
    )


def _mask(image: NDData, what: str) -> np.ndarray:
    if image.mask is None:
        return np.zeros(image.data.shape, dtype=bool)
    mask = np.asarray(image.mask)
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"{what} has a mask of bit planes (largest value {mask.max()}): choose the bad ones with "
            "astropy.nddata.bitfield_to_boolean_mask, or lensdeblend.io.read_image(..., mask_bits=...)"
        )
    return _broadcast(mask.astype(bool), image, "mask", what)


def _broadcast(array: np.ndarray, image: NDData, name: str, what: str) -> np.ndarray:
    if array.shape not in ((), image.data.shape):
        raise ValueError(f"{what}: the {name} has shape {array.shape}, the data {image.data.shape}; they must be equal")
    return np.broadcast_to(array, image.data.shape).copy()


def _variance(image: NDData, data: np.ndarray, mask: np.ndarray, what: str) -> np.ndarray:
    uncertainty = image.uncertainty
    if uncertainty is None:
        return _background_variance(data, mask, what)
    if isinstance(uncertainty, UnknownUncertainty) or not isinstance(
        uncertainty, (StdDevUncertainty, VarianceUncertainty, InverseVariance)
    ):
        raise ValueError(
            f"{what} has an uncertainty of unknown kind ({type(uncertainty).__name__}): say which it is with "
            "StdDevUncertainty, VarianceUncertainty or InverseVariance"
        )
    array = np.asarray(uncertainty.array, dtype=np.float64)
    array = _broadcast(array, image, "uncertainty", what)
    with np.errstate(all="ignore"):
        # A negative standard deviation would pass for a good one once squared.
        sign = np.where(array > 0, 1, np.nan)
        variance = sign * type(uncertainty)(array, unit=uncertainty.unit).represent_as(VarianceUncertainty).array
        variance = variance * _factor(uncertainty, image.unit, what)
        return variance


def _factor(uncertainty, unit, what: str) -> float:
    if uncertainty.unit is None or unit is None:
        return 1.0
    power = {StdDevUncertainty: 2, VarianceUncertainty: 1, InverseVariance: -1}
    exponent = next(power[kind] for kind in power if isinstance(uncertainty, kind))
    try:
        return float((uncertainty.unit**exponent).to(unit**2))
    except u.UnitConversionError:
        raise ValueError(
            f"{what} is in {unit} but its {type(uncertainty).__name__} in {uncertainty.unit}; the two must fit"
        ) from None


def _background_variance(data: np.ndarray, mask: np.ndarray, what: str) -> np.ndarray:
    sigma = background_sigma(data[~mask])
    if not sigma > 0:
        raise ValueError(
            f"{what} has no uncertainty, and its background no scatter to estimate one from; attach one, such as "
            "StdDevUncertainty(noise)"
        )
    warnings.warn(
        f"{what} has no uncertainty: a background noise of {sigma:.4g} a pixel is assumed everywhere", ImageWarning, stacklevel=5
    )
    return np.full(data.shape, sigma**2)


def _psf(psf, what: str) -> np.ndarray | None:
    if psf is None:
        return None
    psf = np.asarray(psf.data if isinstance(psf, NDData) else psf)
    if psf.dtype.kind not in "fiu":
        raise TypeError(f"the PSF of {what} must be an array of real numbers; got {psf.dtype}")
    psf = psf.astype(np.float64)
    if psf.ndim != 2:
        raise ValueError(f"the PSF of {what} must be two-dimensional; got shape {psf.shape}")
    if not np.isfinite(psf).all():
        raise ValueError(f"the PSF of {what} holds NaN or infinite values")
    if not all(n % 2 for n in psf.shape):
        raise ValueError(
            f"the PSF of {what} has an even size, {psf.shape}, so no pixel is its centre; resample it onto an odd size with "
            "its peak on the central pixel"
        )
    total = psf.sum()
    if total <= 1e-10 * np.abs(psf).sum():
        raise ValueError(f"the PSF of {what} sums to {total:.4g}: the sum must be positive")
    psf = _centred(psf, what)
    return psf / psf.sum()


def _centred(psf: np.ndarray, what: str) -> np.ndarray:
    centre = (np.array(psf.shape) - 1) // 2
    peak = np.array(np.unravel_index(np.argmax(psf), psf.shape))
    if np.array_equal(peak, centre):
        return psf
    # Noise or a flat top can move the brightest pixel of a PSF that is centred as a whole.
    core = np.clip(psf, 0, None)
    centroid = np.tensordot(np.indices(psf.shape), core, axes=2) / core.sum()
    if np.abs(centroid - centre).max() <= 0.5:
        return psf
    where = f"its peak is at x, y = {tuple(map(int, peak[::-1]))}, its central pixel at {tuple(map(int, centre[::-1]))}"
    if (np.abs(peak - centre) > centre / 2).any():
        raise ValueError(f"the PSF of {what} is not centred: {where}; cut it out around its peak")
    warnings.warn(f"the PSF of {what} is shifted onto its central pixel: {where}", ImageWarning, stacklevel=5)
    return extract_array(psf, psf.shape, peak, mode="partial", fill_value=0.0)


def _pixels(image: NDData, scale, what: str) -> tuple[WCS | None, dict[str, Any]]:
    meta = dict(deepcopy(image.meta))
    wcs = as_fits_wcs(image.wcs, image.data.shape)
    if scale is not None:
        scale = _arcsec(scale, "pixel_scale")
        if wcs is not None and abs(scale / square_pixel_scale(wcs).value - 1) > 0.01:
            raise ValueError(f"{what} has a WCS of {square_pixel_scale(wcs):.4g} a pixel, but pixel_scale says {scale:.4g} arcsec")
        meta["PIXSCALE"] = scale
    try:
        scale = pixel_scale(NDData(image.data, wcs=wcs, meta=meta))
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    if wcs is None:
        meta["PIXSCALE"] = float(scale.value)
    return wcs, meta


def pixel_scale(image: NDData) -> Quantity:
    """Return the angle per pixel of an image.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`
        Its celestial WCS decides; where there is none, ``meta["PIXSCALE"]`` (arcsec, or a Quantity).

    Returns
    -------
    `~astropy.units.Quantity`
        In arcsec.

    Raises
    ------
    ValueError
        Where there is neither, or the pixels are not square to one per cent.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import NDData
    >>> from lensdeblend.images import pixel_scale
    >>> pixel_scale(NDData(np.zeros((16, 16)), meta={"PIXSCALE": 0.1}))
    <Quantity 0.1 arcsec>
    """
    wcs = as_fits_wcs(image.wcs, image.data.shape)
    if wcs is not None:
        return square_pixel_scale(wcs)
    if "PIXSCALE" in image.meta:
        return _arcsec(image.meta["PIXSCALE"], 'meta["PIXSCALE"]') * u.arcsec
    raise ValueError(
        'a pixel scale is needed: attach a celestial WCS, or set meta["PIXSCALE"] to the angle per pixel in arcsec'
    )


def _arcsec(scale, name: str) -> float:
    try:
        value = scale.to_value(u.arcsec) if isinstance(scale, Quantity) else float(scale)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number of arcsec or an angle; got {scale!r}") from None
    if not (np.ndim(value) == 0 and np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be one positive angle; got {scale!r}")
    return float(value)


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
    >>> wcs = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-4, "CDELT2": 1e-4, "CRPIX1": 8.5, "CRPIX2": 8.5})
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


def like(image: NDData, data: np.ndarray, *, unit=_INHERIT, uncertainty=None, mask=None, psf=_INHERIT, meta=None) -> NDData:
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
        raise ValueError(f"an array of shape {np.shape(data)} is not on the pixels of an image of shape {image.data.shape}")
    scale = {"PIXSCALE": image.meta["PIXSCALE"]} if "PIXSCALE" in image.meta else {}
    return _of_class(
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
    scale = _arcsec(pixel_scale, "pixel_scale")
    offset = u.Quantity(offset).to_value(u.arcsec)
    wcs = _grid_wcs(image, np.shape(data), scale, offset)
    center = {"CENTER_X": float(offset[0]), "CENTER_Y": float(offset[1])} if wcs is None else {}
    return _of_class(
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
    return _of_class(
        kind, image.data, unit=image.unit, uncertainty=image.uncertainty, mask=image.mask, psf=image.psf, wcs=image.wcs,
        meta=image.meta,
    )


def _of_class(kind: type[NDData], data, *, unit, **fields) -> NDData:
    if issubclass(kind, CCDData) and unit is None:
        unit = u.dimensionless_unscaled
    return kind(data, unit=unit, **fields)


def cutout(
    image: NDData, position: tuple[float, float] | SkyCoord, size: int | tuple[int, int] | Quantity, *, mode: str = "partial"
) -> NDData:
    """Cut a smaller image out of one, with all that belongs to it.

    Unlike slicing, or `~astropy.nddata.Cutout2D` by itself, it keeps the uncertainty, the mask, the PSF and ``meta``.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`
        Two-dimensional, of any NDData class.
    position : (x, y) or `~astropy.coordinates.SkyCoord`
        Of the centre; pixels count from 0 at the centre of the first.
    size : int, (ny, nx) or `~astropy.units.Quantity`
        In pixels, or as an angle.
    mode : {"partial", "trim", "strict"}
        What happens at the edge of ``image``: pixels outside come as NaN and masked; they are left away; it is an error.

    Returns
    -------
    `~astropy.nddata.NDData`
        A copy, of the class of ``image``, with its WCS moved along.

    Raises
    ------
    TypeError
        Where the image is no NDData.
    ValueError
        Where the cut-out does not overlap the image (in mode "strict": is not inside it), where a sky position is asked of an
        image without celestial WCS, or an angular size of one without pixel scale.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import NDData
    >>> from lensdeblend import cutout
    >>> image = NDData(np.arange(400.0).reshape(20, 20), psf=np.ones((1, 1)))
    >>> small = cutout(image, (10, 5), (3, 5))
    >>> small.data.shape, float(small.data[1, 2]), small.psf is None
    ((3, 5), 110.0, False)
    """
    if not isinstance(image, NDData):
        raise TypeError(f"cutout needs an astropy NDData; got {type(image).__name__}. {_way_in(image)}")
    if image.data.ndim != 2:
        raise ValueError(f"cutout needs a two-dimensional image; got shape {image.data.shape}")
    wcs = image.wcs if isinstance(image.wcs, WCS) else as_fits_wcs(image.wcs, image.data.shape)
    if isinstance(position, SkyCoord):
        if wcs is None or not wcs.has_celestial:
            raise ValueError("the image has no celestial WCS: give the position in pixels, (x, y)")
        position = tuple(float(value) for value in wcs.celestial.world_to_pixel(position))
    size = _size_in_pixels(image, size)
    data = np.asarray(image.data)
    frame = Cutout2D(np.zeros(data.shape), position, size, wcs=wcs, mode=mode, fill_value=np.nan)
    outside = np.isnan(frame.data)
    inside = (frame.slices_original, frame.slices_cutout, outside)
    mask = None if image.mask is None else _cut(_broadcast(np.asarray(image.mask), image, "mask", "the image"), *inside, fill=1)
    if outside.any() and mask is None:
        mask = outside
    uncertainty = deepcopy(image.uncertainty)
    if uncertainty is not None and np.ndim(uncertainty.array) == 2:
        uncertainty = type(uncertainty)(_cut(np.asarray(uncertainty.array), *inside), unit=uncertainty.unit)
    return _of_class(
        type(image),
        _cut(data, *inside),
        unit=image.unit,
        uncertainty=uncertainty,
        mask=mask,
        psf=deepcopy(image.psf),
        wcs=frame.wcs,
        meta=deepcopy(image.meta),
    )


def _size_in_pixels(image: NDData, size):
    if isinstance(size, Quantity) and size.unit.is_equivalent(u.arcsec):
        size = np.rint((size / pixel_scale(image)).to_value(u.dimensionless_unscaled)).astype(int)
    elif isinstance(size, Quantity):
        size = size.to_value(u.pixel)
    size = np.broadcast_to(size, 2)
    if not ((size >= 1) & (size == np.rint(size))).all():
        raise ValueError(f"a cut-out needs a size of at least one whole pixel; got {size}")
    return tuple(int(n) for n in size)


def _cut(array: np.ndarray, original, cut, outside: np.ndarray, fill=np.nan) -> np.ndarray:
    dtype = np.result_type(array.dtype, np.float32) if outside.any() and fill is np.nan else array.dtype
    piece = np.full(outside.shape, fill, dtype=dtype)
    piece[cut] = array[original]
    return piece


def _centre(shape: tuple[int, int]) -> np.ndarray:
    return (np.array(shape[::-1]) - 1) / 2


def _name(unit) -> str:
    return "no unit" if unit is None else repr(str(unit))
