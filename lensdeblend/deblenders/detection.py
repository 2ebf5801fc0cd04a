"""Detection on all bands at once: matched filters, their chi-square combination, photutils' segmentation.

Each band is filtered with its own PSF, which gives the significance of a star at every pixel; the squares of the
significances are summed over the bands (Szalay, Connolly & Szokoly 1999AJ....117...68S) and told as the significance
of one band alone.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from astropy.stats import sigma_clipped_stats
from scipy.ndimage import binary_dilation, map_coordinates, maximum_filter
from scipy.signal import fftconvolve
from scipy.stats import chi2, norm

from lensdeblend.deblenders.blend import Band, Blend

__all__ = [
    "Detection", "Detector", "background_level", "detected", "detected_above_sky", "of_labels", "on_band", "peaks",
    "significance", "sky_levels", "without_sky",
]

_LARGEST_TABULATED = 35.0
_SKY_BOX = 32
# Of a pixel's noise.
_SKY_THAT_HIDES = 0.7
_FEWEST_SKY_PIXELS = 50
# Of the error of the empty pixels' median: below, Background2D would find no sky that counts, and takes long.
_SKY_TO_LOOK_AT = 2.0
_SKY_FROM_GALAXIES = 4


@dataclass(frozen=True)
class Detection:
    """``positions`` (n, 2), x and y of the first band; ``labels`` (ny, nx), the segment of galaxy ``i`` numbered
    ``i + 1``; ``significance`` (ny, nx)."""

    positions: np.ndarray
    labels: np.ndarray
    significance: np.ndarray


@dataclass(frozen=True)
class Detector:
    """How galaxies are found.

    Parameters
    ----------
    threshold : float
        Significance of a star from which a pixel belongs to a galaxy.
    n_pixels : int
        Fewest connected pixels.
    n_levels, contrast
        Of photutils' ``deblend_sources``: levels between a segment's faintest and brightest pixel, and the share of its
        flux that a peak must have to be a galaxy of its own.
    """

    threshold: float = 4.0
    n_pixels: int = 5
    n_levels: int = 32
    contrast: float = 0.002

    def find(self, blend: Blend) -> Detection:
        """Galaxies of the bands together, the most significant first."""
        from photutils.segmentation import deblend_sources, detect_sources
        from photutils.utils.exceptions import NoDetectionsWarning

        shown = significance(blend)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoDetectionsWarning)
            found = detect_sources(shown, self.threshold, n_pixels=self.n_pixels)
            if found is not None:
                found = deblend_sources(
                    shown, found, n_pixels=self.n_pixels, n_levels=self.n_levels, contrast=self.contrast,
                    progress_bar=False,
                )
        labels = np.zeros(blend.shape, int) if found is None else found.data
        return of_labels(labels, shown)

    def around(self, blend: Blend, positions: np.ndarray) -> Detection:
        """Segments of galaxies at given positions: each significant pixel belongs to the steepest way up."""
        from skimage.segmentation import watershed

        shown = significance(blend)
        ny, nx = blend.shape
        seeds = np.zeros((ny, nx), int)
        column, row = np.rint(positions).astype(int).T
        inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
        for number in np.nonzero(inside)[0]:
            seeds[row[number], column[number]] = number + 1
        significant = (shown > self.threshold) | (seeds > 0)
        return Detection(np.asarray(positions, float), watershed(-shown, seeds, mask=significant), shown)


def detected(detector: Detector, blend: Blend, segmentation=None, positions: np.ndarray | None = None) -> Detection:
    """At given positions, else of a given segmentation (photutils), else what is found."""
    if positions is not None:
        return detector.around(blend, positions)
    if segmentation is not None:
        return of_labels(segmentation.data, significance(blend), _hidden(blend))
    return detector.find(blend)


def detected_above_sky(
    detector: Detector, blend: Blend, background: str, segmentation=None, positions: np.ndarray | None = None
) -> tuple[Detection, list[float]]:
    """The same, and the level of the sky in each band: 0 where ``background`` is "none", else where there is some."""
    if background == "none":
        return detected(detector, blend, segmentation, positions), [0.0] * len(blend.bands)
    detection = detected(detector, without_sky(blend), segmentation, positions)
    return detection, sky_levels(blend, detection.labels)


def of_labels(labels: np.ndarray, shown: np.ndarray, hidden: np.ndarray | None = None) -> Detection:
    """Positions of the brightest pixel of each segment, refined by a parabola; the most significant first.

    Of a segment whose pixels are all ``hidden`` the middle: what shines in from its neighbours says nothing of it.
    """
    places = []
    for label in np.unique(labels[labels > 0]):
        own = labels == label
        row, column = np.unravel_index(np.argmax(np.where(own, shown, -np.inf)), shown.shape)
        place = column + _vertex(shown[row], column), row + _vertex(shown[:, column], row)
        if hidden is not None and hidden[own].all():
            place = tuple(pixels.mean() for pixels in np.nonzero(own)[::-1])
        places.append((shown[row, column], place, label))
    places.sort(key=lambda place: -place[0])
    positions = np.array([place for _, place, _ in places]).reshape(-1, 2)
    renumbered = np.zeros_like(labels)
    for number, (*_, label) in enumerate(places, start=1):
        renumbered[labels == label] = number
    return Detection(positions, renumbered, shown)


def _hidden(blend: Blend) -> np.ndarray:
    """Pixels of the first band that no band shows."""
    return ~np.any([_on_first(band, band.used.astype(float), blend.shape) > 0 for band in blend.bands], 0)


def _vertex(line: np.ndarray, at: int) -> float:
    if not 0 < at < len(line) - 1:
        return 0.0
    before, here, after = line[at - 1:at + 2]
    curvature = before - 2 * here + after
    return 0.0 if curvature >= 0 else float(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5))


def significance(blend: Blend, data: list[np.ndarray] | None = None) -> np.ndarray:
    """Of a star at every pixel of the first band, all bands together.

    ``data``, one array a band, takes the place of the images, such as residuals of them.
    """
    data = [band.data for band in blend.bands] if data is None else data
    squares = sum(
        _on_first(band, _matched(band, values), blend.shape).clip(0) ** 2 for band, values in zip(blend.bands, data)
    )
    if len(blend.bands) == 1:
        return np.sqrt(squares)
    # Half of the bands' significances are below zero and count as nothing.
    tail = norm.isf(chi2.sf(squares, len(blend.bands)).clip(1e-300))
    return np.where(squares > _LARGEST_TABULATED**2, np.sqrt(squares), tail.clip(0))


def _matched(band: Band, data: np.ndarray) -> np.ndarray:
    kernel = np.ones((1, 1)) if band.psf is None else band.psf
    inverse = band.weight**2
    signal = fftconvolve(data * inverse, kernel[::-1, ::-1], mode="same")
    noise = fftconvolve(inverse, kernel[::-1, ::-1] ** 2, mode="same")
    seen = noise > 1e-3 * noise.max()
    return np.where(seen, signal / np.sqrt(np.where(seen, noise, 1.0)), 0.0)


def _on_first(band: Band, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if band.aligned and values.shape == shape:
        return values
    row, column = np.indices(shape)
    x, y = np.tensordot(band.matrix, np.stack([column, row]), 1) + band.offset[:, None, None]
    return map_coordinates(values, [y, x], order=1, cval=0.0)


def peaks(shown: np.ndarray, threshold: float, radius: int) -> np.ndarray:
    """(n, 2) pixel x, y of local maxima above ``threshold``, the highest first."""
    highest = (shown == maximum_filter(shown, size=2 * radius + 1)) & (shown > threshold)
    row, column = np.nonzero(highest)
    order = np.argsort(-shown[row, column])
    return np.stack([column[order], row[order]], 1).astype(float)


def without_sky(blend: Blend) -> Blend:
    """With the clipped median of a band taken off where it is so large that all of the image would count as galaxy."""
    bands = []
    for band in blend.bands:
        values, hides = band.data[band.used], _SKY_THAT_HIDES * band.noise
        # Clipping takes galaxies off the median; one that is small with them needs none, which saves its time.
        if not len(values) or abs(np.median(values)) < hides or abs(level := sigma_clipped_stats(values)[1]) < hides:
            bands.append(band)
            continue
        bands.append(replace(band, data=np.where(band.used, band.data - level, 0.0)))
    return replace(blend, bands=tuple(bands))


def sky_levels(blend: Blend, labels: np.ndarray) -> list[float]:
    """Of each band, away from the segments ``labels`` of the first."""
    galaxies = binary_dilation(labels > 0, iterations=_SKY_FROM_GALAXIES).astype(int)
    return [background_level(band, on_band(band, galaxies) > 0) for band in blend.bands]


def on_band(band: Band, labels: np.ndarray) -> np.ndarray:
    """Labels of the first band's pixels on those of ``band``; 0 off the first."""
    if band.aligned and band.data.shape == labels.shape:
        return labels
    row, column = np.indices(band.data.shape)
    x, y = np.tensordot(np.linalg.inv(band.matrix), np.stack([column, row]) - band.offset[:, None, None], 1)
    return map_coordinates(labels, [y, x], order=0, cval=0)


def background_level(band: Band, galaxies: np.ndarray) -> float:
    """Level of the empty sky, by photutils' Background2D; 0 where it does not differ from that by 3 sigma.

    ``galaxies`` (ny, nx) of the band marks where there is light.
    """
    from photutils.background import Background2D, MedianBackground

    empty = band.used & ~galaxies
    count = int(empty.sum())
    if count < _FEWEST_SKY_PIXELS:
        return 0.0
    error = 1.25 * float(np.median(band.sigma[empty])) / np.sqrt(count)
    if abs(float(np.median(band.data[empty]))) < _SKY_TO_LOOK_AT * error:
        return 0.0
    box = min(_SKY_BOX, *band.data.shape)
    try:
        level = float(np.median(Background2D(
            band.data, box, mask=~empty, exclude_percentile=90.0, filter_size=1, bkg_estimator=MedianBackground(),
        ).background))
    except ValueError:
        # In a crowded field no box has a tenth of its pixels empty.
        level = float(np.median(band.data[empty]))
    return level if abs(level) > 3 * error else 0.0
