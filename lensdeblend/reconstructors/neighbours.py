"""Which part of a wide image is the lens, and which galaxies beside it are not."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.nddata import NDData
from astropy.stats import sigma_clipped_stats
from scipy.ndimage import binary_dilation

from lensdeblend.images import pixel_scale

__all__ = ["LensRegion", "lens_region"]

# Images that reach no further than this from their centre (arcsec) are taken to be cut to the lens already.
_CUT_TO_THE_LENS = 5.5
_LARGEST_LENS = 6.0
_FEWEST_PIXELS = 5
_SIGMA = 2.0
_FEWEST_SKY_PIXELS = 200


@dataclass(frozen=True)
class LensRegion:
    """Pixels to leave out of a fit (True), the radius in arcsec within which the lens lies, and the level of the
    empty sky."""

    mask: np.ndarray
    radius: float
    sky: float


def lens_region(
    image: NDData, radius: float | None = None, center: tuple[float, float] = (0.0, 0.0)
) -> LensRegion | None:
    """Find the lens around ``center`` (arcsec from the centre of the image) and mask what does not belong to it.

    Sources are detected by photutils 2 sigma above the noise. With ``radius`` (arcsec) given, those whose nearest
    pixel lies further from there are masked, and so is everything beyond 1.5 times ``radius``. Left out, a small
    image is taken whole (None); in a wide one the radius reaches just past the brightest tangentially elongated
    source, the arc, or where there is none past the central source.
    """
    scale = pixel_scale(image).to_value(u.arcsec)
    reach = 0.5 * max(image.data.shape) * scale
    if radius is None and reach <= _CUT_TO_THE_LENS:
        return None
    segments = _detect(image)
    ny, nx = image.data.shape
    y, x = np.indices((ny, nx), dtype=float)
    x, y = (x - (nx - 1) / 2) * scale - center[0], (y - (ny - 1) / 2) * scale - center[1]
    distance = np.hypot(x, y)
    if radius is None:
        radius = _radius_from_arc(image, segments, x, y, distance, scale)
    away = np.zeros((ny, nx), bool)
    for label in np.unique(segments[segments > 0]):
        pixels = segments == label
        if distance[pixels].min() > radius:
            away |= pixels
    empty = ~binary_dilation(segments > 0, iterations=5) & (distance > 1.5 * radius)
    if image.mask is not None:
        empty &= ~image.mask
    sky = float(sigma_clipped_stats(image.data[empty])[1]) if empty.sum() > _FEWEST_SKY_PIXELS else 0.0
    # Half of the light of a faint galaxy lies outside of its 2-sigma contour.
    away = binary_dilation(away, iterations=3)
    mask = away | (distance > 1.5 * radius)
    if image.mask is not None:
        mask |= image.mask
    return LensRegion(mask, float(radius), sky)


def _detect(image: NDData) -> np.ndarray:
    from astropy.convolution import convolve
    from photutils.segmentation import detect_sources, make_2dgaussian_kernel
    from photutils.utils.exceptions import NoDetectionsWarning

    sigma = np.sqrt(np.where(np.isfinite(image.uncertainty.array), image.uncertainty.array, np.inf))
    data = np.where(np.isfinite(sigma), image.data, 0.0)
    sky = float(np.median(data[np.isfinite(sigma)]))
    # A kernel of FWHM 2 pixels averages down the noise of a pixel by about this much.
    smooth = convolve(data - sky, make_2dgaussian_kernel(2.0, size=5), normalize_kernel=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        found = detect_sources(smooth, _SIGMA * sigma, n_pixels=_FEWEST_PIXELS, mask=image.mask)
    return np.zeros(data.shape, int) if found is None else found.data


def _radius_from_arc(image: NDData, segments, x, y, distance, scale: float) -> float:
    best, radius = 0.0, None
    central = None
    for label in np.unique(segments[segments > 0]):
        pixels = segments == label
        flux = np.clip(image.data[pixels], 0, None)
        if flux.sum() <= 0 or distance[pixels].min() > _LARGEST_LENS:
            continue
        cx, cy = np.average(x[pixels], weights=flux), np.average(y[pixels], weights=flux)
        if central is None or distance[pixels].min() < central[0]:
            central = (distance[pixels].min(), distance[pixels].max())
        away = np.hypot(cx, cy)
        if away < 3 * scale or pixels.sum() < 8:
            continue
        along = ((x[pixels] - cx) * -cy + (y[pixels] - cy) * cx) / away
        across = ((x[pixels] - cx) * cx + (y[pixels] - cy) * cy) / away
        elongation = np.sqrt(np.average(along**2, weights=flux) / max(np.average(across**2, weights=flux), 1e-12))
        if elongation > 1.6 and flux.sum() > best:
            best, radius = flux.sum(), 1.15 * np.average(distance[pixels], weights=flux)
    if radius is None:
        radius = 1.5 * central[1] if central is not None else _LARGEST_LENS / 2
    return max(radius, 10 * scale)
