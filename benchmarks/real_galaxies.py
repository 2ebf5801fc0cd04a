"""Real galaxies as noise-free sources: COSMOS (HST) and Galaxy Zoo spirals (SDSS), read from a folder that the user
names.

Each is smoothed and cut to its own footprint, so that its noise is no part of the truth.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, label

_ZOO_BINNING = 4
# Of the asinh stretch of the SDSS colour pictures (Lupton et al. 2004PASP..116..133L), about.
_STRETCH = 8.0


def cosmos(folder: Path, name: str = "cosmos_galaxies/cosmos_images.fits") -> list[np.ndarray]:
    """Every image of a GalSim catalogue's image file, smoothed by 1.5 of its pixels of 0.03 arcsec."""
    from astropy.io import fits

    with fits.open(folder / name) as file:
        images = [np.asarray(hdu.data, float) for hdu in file if hdu.data is not None and hdu.data.ndim == 2]
    return [galaxy for galaxy in (_cut_out(image, 1.5) for image in images) if galaxy is not None]


def spirals(folder: Path, count: int) -> list[np.ndarray]:
    """The first ``count`` spirals by file name: the asinh stretch undone, summed over colours, binned by four."""
    from PIL import Image

    galaxies = []
    for path in sorted((folder / "galaxy_zoo" / "spirals").glob("*.jpg")):
        if len(galaxies) == count:
            break
        with Image.open(path) as picture:
            stretched = np.asarray(picture.convert("RGB"), float).mean(-1) / 255
        flux = np.sinh(stretched * np.arcsinh(_STRETCH)) / _STRETCH
        ny, nx = (n // _ZOO_BINNING for n in flux.shape)
        binned = flux[:ny * _ZOO_BINNING, :nx * _ZOO_BINNING].reshape(ny, _ZOO_BINNING, nx, _ZOO_BINNING).mean((1, 3))
        galaxy = _cut_out(binned, 0.8)
        if galaxy is not None:
            galaxies.append(galaxy)
    return galaxies


def half_light_radius(galaxy: np.ndarray) -> float:
    """Of the circle about the centroid that holds half of the light, in pixels."""
    y, x = np.indices(galaxy.shape)
    total = galaxy.sum()
    distance = np.hypot(x - (x * galaxy).sum() / total, y - (y * galaxy).sum() / total).reshape(-1)
    order = np.argsort(distance)
    share = np.cumsum(galaxy.reshape(-1)[order]) / total
    return float(distance[order][np.searchsorted(share, 0.5)])


def _cut_out(image: np.ndarray, smoothing: float) -> np.ndarray | None:
    """The galaxy in the middle alone, smoothed, its light falling softly to zero at the edge of its footprint; None
    where there is nothing in the middle."""
    border = np.concatenate([image[:3].ravel(), image[-3:].ravel(), image[:, :3].ravel(), image[:, -3:].ravel()])
    sky = np.median(border)
    noise = 1.4826 * np.median(np.abs(border - sky))
    smooth = gaussian_filter(image - sky, smoothing)
    level = max(2 * noise / (2 * np.sqrt(np.pi) * smoothing) * 1.5, 0.005 * smooth.max())
    labels, _ = label(smooth > level)
    ny, nx = image.shape
    middle = labels[ny // 2 - ny // 8:ny // 2 + ny // 8 + 1, nx // 2 - nx // 8:nx // 2 + nx // 8 + 1]
    if not (middle > 0).any():
        return None
    own = labels == np.bincount(middle[middle > 0]).argmax()
    grown = binary_dilation(own, iterations=2) & ~((labels > 0) & ~own)
    edge = np.clip(distance_transform_edt(np.pad(grown, 1))[1:-1, 1:-1] / 3, 0, 1)
    light = np.clip(smooth, 0, None) * edge
    rows, columns = np.nonzero(light.any(1))[0], np.nonzero(light.any(0))[0]
    light = light[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    return np.pad(light, 2)
