"""A part of an image, with all that belongs to it."""

from __future__ import annotations

from copy import deepcopy

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import Cutout2D, NDData
from astropy.units import Quantity
from astropy.wcs import WCS

from lensdeblend.images.door import broadcast, way_in
from lensdeblend.images.grids import of_class
from lensdeblend.images.scale import pixel_scale
from lensdeblend.io.wcs import as_fits_wcs

__all__ = ["cutout"]

_MOST_PIXELS = 10**9


def cutout(
    image: NDData,
    position: tuple[float, float] | SkyCoord,
    size: int | tuple[int, int] | Quantity,
    *,
    mode: str = "partial",
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
        What happens at the edge of ``image``: pixels outside come as NaN and masked; they are left away; it is an
        error. In mode "partial" a cut-out may hold no more than 1e9 pixels, or as many as the image.

    Returns
    -------
    `~astropy.nddata.NDData`
        A copy, of the class of ``image``, with its WCS moved along.

    Raises
    ------
    TypeError
        Where the image is no NDData.
    ValueError
        Where the cut-out does not overlap the image (in mode "strict": is not inside it) or is far too large, where a
        sky position is asked of an image without celestial WCS, or an angular size of one without pixel scale.

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
        raise TypeError(f"cutout needs an astropy NDData; got {type(image).__name__}. {way_in(image)}")
    if image.data.ndim != 2:
        raise ValueError(f"cutout needs a two-dimensional image; got shape {image.data.shape}")
    wcs = image.wcs if isinstance(image.wcs, WCS) else as_fits_wcs(image.wcs, image.data.shape)
    if isinstance(position, SkyCoord):
        if wcs is None or not wcs.has_celestial:
            raise ValueError("the image has no celestial WCS: give the position in pixels, (x, y)")
        if not position.isscalar:
            raise ValueError(f"cutout needs one position; got {position.size}")
        position = tuple(float(value) for value in wcs.celestial.world_to_pixel(position))
    position = _checked_position(position)
    size = _size_in_pixels(image, size)
    data = np.asarray(image.data)
    if mode == "partial" and size[0] * size[1] > max(_MOST_PIXELS, data.size):
        raise ValueError(
            f"a cut-out of {size[0]} by {size[1]} pixels is too large (the image has {data.shape[0]} by "
            f"{data.shape[1]}): choose a smaller size, or mode='trim' to leave away what lies outside the image"
        )
    frame = Cutout2D(np.zeros(data.shape), position, size, wcs=wcs, mode=mode, fill_value=np.nan)
    outside = np.isnan(frame.data)
    inside = (frame.slices_original, frame.slices_cutout, outside)
    mask = outside if outside.any() else None
    if image.mask is not None:
        mask = _cut(broadcast(np.asarray(image.mask), image, "mask", "the image"), *inside, fill=1)
    uncertainty = deepcopy(image.uncertainty)
    if uncertainty is not None and np.ndim(uncertainty.array) == 2:
        uncertainty = type(uncertainty)(_cut(np.asarray(uncertainty.array), *inside), unit=uncertainty.unit)
    return of_class(
        type(image),
        _cut(data, *inside),
        unit=image.unit,
        uncertainty=uncertainty,
        mask=mask,
        psf=deepcopy(image.psf),
        wcs=frame.wcs,
        meta=deepcopy(image.meta),
    )


def _checked_position(position) -> tuple[float, float]:
    try:
        x, y = (float(value) for value in position)
    except (TypeError, ValueError):
        raise ValueError(f"position must be (x, y) in pixels, or a SkyCoord; got {position!r}") from None
    if not np.isfinite([x, y]).all():
        raise ValueError(f"position must be finite, and a sky position within the reach of the WCS; got ({x}, {y})")
    return x, y


def _size_in_pixels(image: NDData, size):
    if isinstance(size, Quantity) and size.unit.is_equivalent(u.arcsec):
        size = np.rint((size / pixel_scale(image)).to_value(u.dimensionless_unscaled))
    elif isinstance(size, Quantity) and size.unit.is_equivalent(u.pixel):
        size = size.to_value(u.pixel)
    elif isinstance(size, Quantity):
        raise ValueError(f"size must be pixels, (ny, nx) or an angle; got {size}")
    size = np.asarray(size)
    if size.dtype.kind not in "iuf" or size.shape not in ((), (1,), (2,)):
        raise ValueError(f"size must be pixels, (ny, nx) or an angle; got {size!r}")
    size = np.broadcast_to(size, 2)
    if not np.isfinite(size).all():
        raise ValueError(f"size must be finite; got {size}")
    if not ((size >= 1) & (size == np.rint(size))).all():
        raise ValueError(f"a cut-out needs a size of at least one whole pixel; got {size}")
    return tuple(int(n) for n in size)


def _cut(array: np.ndarray, original, cut, outside: np.ndarray, fill=np.nan) -> np.ndarray:
    dtype = np.result_type(array.dtype, np.float32) if outside.any() and fill is np.nan else array.dtype
    piece = np.empty(outside.shape, dtype=dtype)
    if outside.any():
        piece[outside] = fill
    piece[cut] = array[original]
    return piece
