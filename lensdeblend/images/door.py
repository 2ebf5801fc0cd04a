"""What comes in is checked and brought into one form."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import (
    InverseVariance, NDData, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty, extract_array,
)
from astropy.units import Quantity
from astropy.wcs import WCS

from lensdeblend.images.scale import in_arcsec, pixel_scale
from lensdeblend.io.planes import ImageWarning, background_sigma
from lensdeblend.io.read import plain_meta
from lensdeblend.io.wcs import as_fits_wcs, square_pixel_scale

__all__ = ["broadcast", "prepare", "way_in"]

SMALLEST_SIDE = 8
# Times the median noise. Beyond, the noise is less than the rounding of the data in double precision.
_BRIGHTEST = 1e15
_NOISE_RANGE = (1e-15, 1e30)


def prepare(image: NDData | Mapping[str, NDData], *, pixel_scale: Quantity | float | None = None):
    """Check an image and bring it into the form that every method sees.

    Parameters
    ----------
    image : `~astropy.nddata.NDData` or mapping
        A two-dimensional image of any NDData class, or ``{band: NDData}``. The PSF, if any, is ``image.psf``: an image
        of it at the image's own pixel scale, of odd size. Where neither its peak nor its centroid is on the central
        pixel, it is shifted there by whole pixels, with a warning: were it left, every position found with it would be
        off by as much.
    pixel_scale : `~astropy.units.Quantity` or float, optional
        Angle per pixel (a plain number is arcsec) for an image with neither a celestial WCS nor ``meta["PIXSCALE"]``.

    Returns
    -------
    `~astropy.nddata.NDData` or dict
        A copy, of class NDData, with

        - native float data: float32 stays (unless its square under- or overflows), everything else becomes float64; 0
          where it was not finite,
        - a `~astropy.nddata.VarianceUncertainty` in the unit of the data squared, infinite where it was not a positive
          number,
        - a boolean mask, True also where the data or the variance is NaN or infinite or the variance is not positive,
        - the PSF as float64, centred, summing to 1, or None; small negative wings are kept,
        - a celestial FITS WCS, or None and ``meta["PIXSCALE"]`` in arcsec.

        A mapping gives a dict of these.

    Raises
    ------
    TypeError
        Where the image is no NDData, or its data no real numbers.
    ValueError
        Where the image is not two-dimensional, has a side below 8 pixels, no usable pixel, a logarithmic unit, a bad
        PSF, no or unequal pixel scales, an uncertainty of unknown kind, a mask that holds bit planes; where an unmasked
        value is so large, or its noise so small, that double precision does not hold its square, a value exceeds 1e15
        times the median noise, or a noise lies outside 1e-15 to 1e30 times that median; where bands have units that do
        not convert into each other, or there is no band.

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
    unit = image.unit
    if isinstance(unit, u.function.FunctionUnitBase) or (unit is not None and unit.is_equivalent(u.dex)):
        raise ValueError(
            f"{what} is in {unit}, a logarithmic unit, in which light does not add up: convert it to a flux, such "
            "as nJy, first"
        )
    mask = _mask(image, what) | ~np.isfinite(data)
    if mask.all():
        raise ValueError(f"{what} has no usable pixel: every one is masked, NaN or infinite")
    variance = _variance(image, data, mask, what)
    bad = ~(np.isfinite(variance) & (variance > 0))
    if bad.all():
        raise ValueError(
            f"{what} has no pixel with a positive, finite variance: correct the uncertainty (above 1e154 or below "
            "1e-154 double precision does not hold its square: divide data and noise by one number), or set it to "
            "None to have the noise estimated from the background"
        )
    if (bad | mask).all():
        raise ValueError(f"{what} has no usable pixel: each is masked, not finite, or without a positive variance")
    _check_range(data, variance, bad | mask, what)
    wcs, meta = _pixels(image, scale, what)
    limits, peak = np.finfo(data.dtype), _peak(data, mask | bad)
    if variance[~bad].min() < limits.tiny or max(variance[~bad].max(), peak**2) > float(limits.max):
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


def _peak(data: np.ndarray, mask: np.ndarray) -> float:
    return float(np.abs(data[~mask]).max())


def _check_range(data: np.ndarray, variance: np.ndarray, unused: np.ndarray, what: str) -> None:
    """Refuse what no method can square, and what no detector can have measured."""
    peak, noise = _peak(data, unused), np.sqrt(variance[~unused])
    limits = np.finfo(np.float64)
    if max(peak, noise.max()) > np.sqrt(limits.max) or noise.min() < np.sqrt(limits.tiny):
        raise ValueError(
            f"{what} has values up to {peak:.3g} and noise from {noise.min():.3g} to {noise.max():.3g}, whose squares "
            "double precision does not hold: mask such pixels, or divide data and noise by one number (a larger or "
            "smaller unit)"
        )
    median = float(np.median(noise))
    lowest, highest = _NOISE_RANGE
    if peak > _BRIGHTEST * median:
        raise ValueError(
            f"{what} has values up to {peak:.3g} where the noise is {median:.3g}: more than {_BRIGHTEST:.0e} times it, "
            "which double precision does not hold; mask such pixels, or correct the uncertainty"
        )
    if noise.min() < lowest * median or noise.max() > highest * median:
        raise ValueError(
            f"{what} has noise from {noise.min():.3g} to {noise.max():.3g}, its median {median:.3g}: double precision "
            f"does not hold less than {lowest:.0e} or more than {highest:.0e} times that; mask such pixels, or correct "
            "the uncertainty"
        )


def _data(image, what: str) -> np.ndarray:
    if not isinstance(image, NDData):
        raise TypeError(f"{what} must be an astropy NDData; got {type(image).__name__}. {way_in(image)}")
    data = np.asarray(image.data)
    if data.dtype.kind not in "fiub":
        raise TypeError(f"{what} must hold real numbers; got {data.dtype}")
    if data.ndim != 2:
        raise ValueError(
            f"{what} must be two-dimensional; got shape {data.shape}. Give several bands as {{band: NDData}}, several "
            "images as a list"
        )
    if min(data.shape) < SMALLEST_SIDE:
        raise ValueError(f"{what} is too small: {data.shape} pixels; at least {SMALLEST_SIDE} a side are needed")
    return data.astype(np.float32 if data.dtype.newbyteorder("=") == np.float32 else np.float64)


def way_in(image) -> str:
    if isinstance(image, (str, bytes)) or hasattr(image, "__fspath__"):
        return "Read the file first: lensdeblend.io.read_image(path)"
    if isinstance(image, (list, tuple)):
        return "Give one image at a time; the verbs take lists"
    if isinstance(image, Mapping):
        return "Give one band at a time"
    return (
        "Wrap an array: NDData(array, uncertainty=StdDevUncertainty(noise), psf=psf, meta={'PIXSCALE': 0.1}), "
        "with the pixel scale in arcsec"
    )


def _mask(image: NDData, what: str) -> np.ndarray:
    if image.mask is None:
        return np.zeros(image.data.shape, dtype=bool)
    mask = np.asarray(image.mask)
    if mask.dtype.kind not in "biuf":
        raise TypeError(f"the mask of {what} must hold booleans, True where a pixel is bad; got {mask.dtype}")
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"{what} has a mask of bit planes (largest value {mask.max()}): choose the bad ones with "
            "astropy.nddata.bitfield_to_boolean_mask, or lensdeblend.io.read_image(..., mask_bits=...)"
        )
    return broadcast(mask.astype(bool), image, "mask", what)


def broadcast(array: np.ndarray, image: NDData, name: str, what: str) -> np.ndarray:
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
    array = np.asarray(uncertainty.array)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"the uncertainty of {what} must hold real numbers; got {array.dtype}")
    array = array.astype(np.float64)
    array = broadcast(array, image, "uncertainty", what)
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
    message = f"{what} has no uncertainty: a background noise of {sigma:.4g} a pixel is assumed everywhere"
    warnings.warn(message, ImageWarning, stacklevel=5)
    return np.full(data.shape, sigma**2)


def _psf(psf, what: str) -> np.ndarray | None:
    if psf is None:
        return None
    masked = np.ma.getmask(psf) if isinstance(psf, np.ma.MaskedArray) else getattr(psf, "mask", None)
    if masked is not None and np.any(masked):
        raise ValueError(f"the PSF of {what} has masked pixels: fill them in, or cut it out where it has none")
    try:
        psf = np.asarray(psf.data if isinstance(psf, NDData) else psf)
    except ValueError:
        raise ValueError(f"the PSF of {what} must be a two-dimensional array; its rows differ in length") from None
    if psf.dtype.kind not in "fiu":
        raise TypeError(f"the PSF of {what} must be an array of real numbers; got {psf.dtype}")
    psf = psf.astype(np.float64)
    if psf.ndim != 2:
        raise ValueError(f"the PSF of {what} must be two-dimensional; got shape {psf.shape}")
    if not np.isfinite(psf).all():
        raise ValueError(f"the PSF of {what} holds NaN or infinite values")
    if not all(n % 2 for n in psf.shape):
        raise ValueError(
            f"the PSF of {what} has an even size, {psf.shape}, so no pixel is its centre; resample it onto an odd size "
            "with its peak on the central pixel"
        )
    psf = psf / (np.abs(psf).max() or 1)
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
    meta = plain_meta(image.meta)
    wcs = as_fits_wcs(image.wcs, image.data.shape)
    if scale is not None:
        scale = in_arcsec(scale, "pixel_scale")
        if wcs is not None and abs(scale / square_pixel_scale(wcs).value - 1) > 0.01:
            own = square_pixel_scale(wcs)
            raise ValueError(f"{what} has a WCS of {own:.4g} a pixel, but pixel_scale says {scale:.4g} arcsec")
        meta["PIXSCALE"] = scale
    try:
        scale = pixel_scale(NDData(image.data, wcs=wcs, meta=meta))
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    if wcs is None:
        meta["PIXSCALE"] = float(scale.value)
    return wcs, meta


def _name(unit) -> str:
    return "no unit" if unit is None else repr(str(unit))
