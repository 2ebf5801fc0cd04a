"""One galaxy taken out of its image: neighbours removed, noise smoothed away, cut to its footprint."""

from __future__ import annotations

import warnings

import numpy as np
from astropy.nddata import block_reduce
from astropy.stats import mad_std, sigma_clipped_stats
from scipy import ndimage

__all__ = ["STAMP", "Unusable", "half_light_ellipse", "isolate"]

#: Side of a stamp in pixels.
STAMP = 96
_LARGEST_SIDE = 240
_DETECTION_SIGMA = 1.5
_THRESHOLD, _SMALLEST_AREA, _SMALLEST_PART = 2.0, 30, 12
_EDGE, _SURE, _CONTRAST = 3.0, 15.0, 0.002
# A part that stands out of its saddle towards the galaxy by this factor is another galaxy, or a star.
_PROMINENCE = 2.2
_SMALLEST_RADIUS = 2.5
# Surface brightness at the image's border, over the mean within the half-light ellipse, that means a cut galaxy.
_CUT = 0.05
# The stamps of a catalogue of known noise are cut close around their galaxies.
_CUT_STAMP = 0.15
# Share of the border that a galaxy in a wide image may touch.
_TOUCHING = 0.02
# A saddle this high, over the galaxy's peak, to neighbours that cover this share of its area, leaves too little alone.
_BLENDED, _REMOVED = 0.12, 0.8
# Noise of the smoothed image over that of the pixels, where these are somewhat correlated.
_CORRELATION = 2 / (2 * np.sqrt(np.pi) * _DETECTION_SIGMA)
_RELATIVE_NOISE = 0.03
_SPLINE = np.array([1, 4, 6, 4, 1]) / 16


class Unusable(Exception):
    """Why an image gives no galaxy; the message is the reason under which it is counted."""


def isolate(
    planes: np.ndarray, weights: np.ndarray, *, noise: float | None = None, signal_to_noise: float = 15.0
) -> tuple[np.ndarray, float]:
    """The galaxy in the middle of an image.

    Neighbours are replaced by what lies opposite them in the galaxy (turned by 180 degrees), by the mean of the ellipse
    where that is no galaxy either. Noise goes by shrinking the coefficients of a starlet transform (Starck, Fadili &
    Murtagh 2007ITIP...16..297S), per scale measured on the empty sky.

    Parameters
    ----------
    planes : ndarray
        (bands, ny, nx), linear in flux.
    weights : ndarray
        (bands,): the bands' weights in the image that is looked at for galaxies.
    noise : float, optional
        Standard deviation of that image, whose background is then 0; both are measured where this is not given.
    signal_to_noise : float
        The least, of the galaxy's peak in the image smoothed by 1.5 pixels.

    Returns
    -------
    stamp : ndarray
        (bands, 96, 96), non-negative, the centroid at the centre, the weighted sum 1.
    radius : float
        Half-light radius in pixels of the stamp, the geometric mean of the ellipse's axes.

    Raises
    ------
    Unusable
        Where there is no galaxy that could be used.
    """
    planes, broken = _binned(planes)
    planes, image = _sky_subtracted(planes, weights, noise, broken)
    smooth = ndimage.gaussian_filter(image, _DETECTION_SIGMA)
    sigma = _clipped(smooth, broken)[1] if noise is None else _CORRELATION * noise
    own, others, sky = _segments(smooth, sigma, broken)
    wide = noise is None
    if _cut_by_border(smooth, own, _CUT if wide else _CUT_STAMP, _TOUCHING if wide else 1.0):
        raise Unusable("cut by the border of the image")
    peak = np.unravel_index(np.argmax(np.where(own, smooth, -np.inf)), own.shape)
    if not smooth[peak] > signal_to_noise * sigma:
        raise Unusable("signal-to-noise too low")
    footprint = _footprint(own & (smooth > _EDGE * sigma), others, peak)
    near = ndimage.binary_dilation(others, iterations=3) & ~ndimage.binary_erosion(own, iterations=1)
    near |= broken
    edge = _soft_edge(footprint)
    sure = _smoothstep(smooth / (_SURE * sigma))
    clean = np.stack([
        _denoised(_filled(plane, near, peak, smooth, own), sky, smooth, sure) * edge for plane in planes
    ])
    return _stamp(clean, weights, smooth, own)


def _binned(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    planes = np.array(planes, float)
    broken = ~np.isfinite(planes).all(axis=0)
    if broken.mean() > 0.2:
        raise Unusable("too many pixels without a value")
    planes[:, broken] = 0
    size = -(-max(planes.shape[1:]) // _LARGEST_SIDE)
    if size > 1:
        planes = block_reduce(planes, (1, size, size), np.mean)
        broken = block_reduce(broken, size, np.max).astype(bool)
    if min(planes.shape[1:]) < 12:
        raise Unusable("image too small")
    return planes, broken


def _clipped(image, broken) -> tuple[float, float]:
    """Level and standard deviation of the sky, from every fourth pixel."""
    corner = (slice(None, None, 2), slice(None, None, 2))
    _, level, sigma = sigma_clipped_stats(
        image[corner], mask=broken[corner], sigma=2.5, maxiters=10, stdfunc="mad_std"
    )
    return level, sigma


def _sky_subtracted(planes, weights, noise, broken):
    if noise is None:
        planes = planes - np.array([_clipped(plane, broken)[0] for plane in planes])[:, None, None]
    return planes, np.tensordot(weights, planes, 1)


def _segments(smooth, sigma, broken):
    """Masks of the galaxy in the middle, of all others, and of the empty sky."""
    from photutils.segmentation import deblend_sources, detect_sources
    from photutils.utils import NoDetectionsWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        found = detect_sources(smooth, _THRESHOLD * sigma, _SMALLEST_AREA, mask=broken) if sigma > 0 else None
    if found is None:
        raise Unusable("no galaxy in the middle")
    whole = found.copy()
    whole.keep_labels([_central(found.data)])
    parts = deblend_sources(
        smooth, whole, _SMALLEST_PART, n_levels=24, contrast=_CONTRAST, progress_bar=False
    ).data
    own = _joined(parts, smooth)
    sky = ~ndimage.binary_dilation(found.data > 0, iterations=4) & ~broken
    return own, (found.data > 0) & ~own, sky


def _joined(parts, smooth) -> np.ndarray:
    """The central part, with those that do not stand out by themselves: arms, knots, the ends of a bar."""
    own = parts == _central(parts)
    peaks = {label: smooth[parts == label].max() for label in np.unique(parts[parts > 0])}
    while True:
        rim = ndimage.binary_dilation(own) & ~own & (parts > 0)
        saddles = ndimage.maximum(np.where(rim, smooth, 0), parts, index=(touching := np.unique(parts[rim])))
        joining = [
            label for label, saddle in zip(touching, np.atleast_1d(saddles)) if peaks[label] < _PROMINENCE * saddle
        ]
        if not joining:
            removed = (parts > 0) & ~own
            if rim.any() and smooth[rim].max() > _BLENDED * smooth[own].max() and removed.sum() > _REMOVED * own.sum():
                raise Unusable("blended with a neighbour")
            return own
        own |= np.isin(parts, joining)


def _central(labels: np.ndarray) -> int:
    ny, nx = labels.shape
    cy, cx = (ny - 1) / 2, (nx - 1) / 2
    rows, columns = np.nonzero(labels)
    distance = np.hypot(rows - cy, columns - cx)
    nearest = int(np.argmin(distance))
    if distance[nearest] > max(2.0, 0.04 * min(ny, nx)):
        raise Unusable("no galaxy in the middle")
    return int(labels[rows[nearest], columns[nearest]])


def _cut_by_border(smooth, own, faintest: float, touching: float) -> bool:
    border = np.ones_like(own)
    border[1:-1, 1:-1] = False
    met = border & own
    if not met.any() or met.sum() > touching * border.sum():
        return bool(met.any())
    ordered = np.sort(smooth[own])[::-1]
    half = np.searchsorted(np.cumsum(ordered), 0.5 * ordered.sum())
    return bool(smooth[met].mean() > faintest * ordered[:half + 1].mean())


def _mirrored(image: np.ndarray, peak, fill) -> np.ndarray:
    """Turned by 180 degrees about the peak; ``fill`` beyond the image."""
    ny, nx = image.shape
    rows, columns = 2 * peak[0] - np.arange(ny), 2 * peak[1] - np.arange(nx)
    turned = image[np.clip(rows, 0, ny - 1)[:, None], np.clip(columns, 0, nx - 1)]
    inside = ((rows >= 0) & (rows < ny))[:, None] & ((columns >= 0) & (columns < nx))
    return np.where(inside, turned, fill)


def _footprint(own, others, peak) -> np.ndarray:
    whole = ndimage.binary_fill_holes(own | (others & _mirrored(own, peak, False)))
    # Half within a Gaussian's reach: without the fringes that noise makes.
    return ndimage.gaussian_filter(whole.astype(float), 2.0) > 0.5


def _filled(plane, near, peak, smooth, own) -> np.ndarray:
    opposite, usable = _mirrored(plane, peak, 0.0), ~_mirrored(near, peak, True)
    _, ellipse = half_light_ellipse(np.where(own, smooth, 0))
    ring = np.minimum(np.sqrt(ellipse).astype(int), 10**4)
    free = ~near
    counts = np.bincount(ring[free], minlength=ring.max() + 1)
    means = np.bincount(ring[free], weights=plane[free], minlength=ring.max() + 1) / np.maximum(counts, 1)
    return np.where(near, np.where(usable, opposite, means[ring]), plane)


def half_light_ellipse(image: np.ndarray) -> tuple[float, np.ndarray]:
    """Radius that holds half of the light, and each pixel's squared elliptical radius.

    The ellipse is that of the second moments; radii are geometric means of its axes.
    """
    light = np.maximum(image, 0)
    total = light.sum()
    rows, columns = np.indices(image.shape)
    cy, cx = (rows * light).sum() / total, (columns * light).sum() / total
    dy, dx = rows - cy, columns - cx
    # A twelfth of a square pixel each way: pixels have an extent.
    yy, xx = (dy * dy * light).sum() / total + 1 / 12, (dx * dx * light).sum() / total + 1 / 12
    xy = (dx * dy * light).sum() / total
    determinant = max(xx * yy - xy * xy, 1e-3 * xx * yy)
    radius2 = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / np.sqrt(determinant)
    order = np.argsort(radius2, axis=None)
    within = np.cumsum(light.ravel()[order])
    return float(np.sqrt(np.interp(0.5 * total, within, radius2.ravel()[order]))), radius2


def _soft_edge(footprint: np.ndarray) -> np.ndarray:
    """1 inside, falling to 0 within some pixels beyond the footprint and towards the image's border."""
    reach = np.clip(0.15 * np.sqrt(footprint.sum()), 3, 10)
    beyond = ndimage.distance_transform_edt(~footprint)
    framed = np.pad(np.ones_like(footprint), 1)
    border = ndimage.distance_transform_edt(framed)[1:-1, 1:-1]
    return _smoothstep(1 - beyond / reach) * _smoothstep((border - 0.5) / 4)


def _smoothstep(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _denoised(plane: np.ndarray, sky: np.ndarray, smooth: np.ndarray, sure: np.ndarray, scales: int = 4) -> np.ndarray:
    sky = sky if sky.sum() > 100 else np.ones_like(sky)
    # Bright pixels are noisier: photons, and the eight bits and compression of pictures.
    louder = np.hypot(1, _RELATIVE_NOISE * smooth / mad_std(plane[sky]))
    kept, coarse = np.zeros_like(plane), plane
    for scale in range(scales):
        kernel = np.zeros(4 * 2**scale + 1)
        kernel[::2**scale] = _SPLINE
        smoother = ndimage.convolve1d(ndimage.convolve1d(coarse, kernel, axis=0), kernel, axis=1)
        detail, coarse = coarse - smoother, smoother
        sigma = mad_std(detail[sky]) * louder
        with np.errstate(divide="ignore"):
            kept += detail * np.clip(1 - (3 * sigma) ** 2 / np.square(detail), 0, 1)
    light = np.maximum(kept + coarse, 0)
    return sure * light + (1 - sure) * ndimage.gaussian_filter(light, 2 * _DETECTION_SIGMA)


def _stamp(clean, weights, smooth, own) -> tuple[np.ndarray, float]:
    image = np.tensordot(weights, clean, 1)
    total = image.sum()
    rows, columns = np.indices(image.shape)
    center = np.array([(rows * image).sum(), (columns * image).sum()]) / total
    bright = image > 0.001 * image.max()
    reach = np.hypot(*(np.argwhere(bright) - center).T).max() + 2
    step = max(1.0, reach / (STAMP / 2 - 2))
    if step > 1:
        clean = ndimage.gaussian_filter(clean, (0, 0.4 * step, 0.4 * step))
    origin = center - step * (STAMP - 1) / 2
    stamp = np.stack([
        ndimage.affine_transform(plane, [step, step], origin, (STAMP, STAMP), order=1) for plane in clean
    ])
    stamp = stamp * _frame()
    stamp /= np.tensordot(weights, stamp, 1).sum()
    radius, _ = half_light_ellipse(np.tensordot(weights, stamp, 1))
    if radius < _SMALLEST_RADIUS:
        raise Unusable("too few pixels across")
    return stamp.astype(np.float32), radius


def _frame() -> np.ndarray:
    """1, falling to 0 at the circle that fits in: a stamp may be turned."""
    offset = np.arange(STAMP) - (STAMP - 1) / 2
    return _smoothstep((STAMP / 2 - np.hypot(offset[:, None], offset)) / 4)
