"""How large a pixel is on the sky."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.nddata import NDData
from astropy.units import Quantity

from lensdeblend.io.wcs import as_fits_wcs, square_pixel_scale

__all__ = ["in_arcsec", "pixel_scale"]


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
        return in_arcsec(image.meta["PIXSCALE"], 'meta["PIXSCALE"]') * u.arcsec
    raise ValueError(
        'a pixel scale is needed: attach a celestial WCS, or set meta["PIXSCALE"] to the angle per pixel in arcsec'
    )


def in_arcsec(scale, name: str) -> float:
    try:
        value = scale.to_value(u.arcsec) if isinstance(scale, Quantity) else float(scale)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number of arcsec or an angle; got {scale!r}") from None
    if not (np.ndim(value) == 0 and np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be one positive angle; got {scale!r}")
    return float(value)
