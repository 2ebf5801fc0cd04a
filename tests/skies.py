"""Images of one sky whose centres and axes differ."""

import numpy as np
from astropy.nddata import NDData
from astropy.wcs import WCS

from lensdeblend.lensing.placement import Placement

# From positions in one image to those in another: turned by 25 degrees and mirrored, and another centre.
TURNED = Placement(
    tuple(map(tuple, (np.array([[np.cos(0.44), -np.sin(0.44)], [np.sin(0.44), np.cos(0.44)]]) * [-1, 1]).tolist())),
    (0.23, -0.17),
)


def changed(image, **new):
    fields = {name: getattr(image, name) for name in ("data", "uncertainty", "mask", "psf", "unit")} | new
    meta = {} if "wcs" in new else dict(image.meta)
    return NDData(fields.pop("data"), meta=meta, **fields)


def on_sky(image, placement=Placement()):
    """With the WCS of an image whose positions ``placement`` leads to those about one point of the sky."""
    scale = image.meta["PIXSCALE"]
    ny, nx = image.data.shape
    origin = placement.inverse.offset
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 2.0]
    wcs.wcs.crpix = [(nx + 1) / 2 + origin[0] / scale, (ny + 1) / 2 + origin[1] / scale]
    wcs.wcs.cd = np.diag([-1, 1]) @ np.array(placement.matrix) * scale / 3600
    return changed(image, wcs=wcs)
