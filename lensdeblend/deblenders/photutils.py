r"""The classical deblender: photutils' detection and segmentation, then symmetric templates.

A galaxy is taken to look the same from both sides: its template is the fainter of each two opposite pixels,

.. math::

    T_i(x) = \min\big[d(x),\; d(2 x_i - x)\big],

and, so that two neighbours on opposite sides are no part of it, to fall from its centre along every ray. The templates
are weighed so that their sum comes closest to the data, and every pixel is divided among the galaxies in the proportion
of their templates (Lupton et al. 2001, 2001ASPC..238..269L: the deblender of SDSS). The parts sum to the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates
from scipy.optimize import nnls

from lensdeblend.deblenders.blend import Band, Blend
from lensdeblend.deblenders.catalog import blendedness, catalogue, flags_of, shape, together
from lensdeblend.deblenders.detection import Detection, Detector, detected_above_sky, on_band
from lensdeblend.deblenders.dressing import divided, dressed, nothing_found
from lensdeblend.interfaces import Deblender, Image
from lensdeblend.options import check_choice, check_positive, check_whole
from lensdeblend.results import Deblending

__all__ = ["Photutils"]

_SMOOTHING = 0.8
_GROWN = 4
# Two pixels further out, where the data rise.
_FALL = 0.6


@dataclass(frozen=True)
class Photutils(Deblender):
    """Find galaxies by photutils, divide the data among symmetric templates.

    Parameters
    ----------
    threshold : float
        Significance of a star, behind the matched filter, from which a pixel belongs to a galaxy.
    n_pixels, n_levels : int
        Fewest pixels of a galaxy, and levels at which photutils looks for peaks.
    contrast : float
        Share of the flux that a peak must have to be a galaxy of its own.
    background : {"auto", "none"}
        Whether to take off the level of the empty sky, where it differs from zero by 3 sigma.

    Notes
    -----
    ``sources`` are the weighed templates, ``flux`` is the sum of a galaxy's share of the data around all that was
    detected, and its error that of the pixels' noise alone: what a neighbour's template takes away is in none. Shapes
    and radii are those of the templates, with the PSF in them. Flags of a galaxy: ``no flux`` (in its template),
    ``at the edge``, ``off the image``, ``masked``; of the whole, in ``meta["flags"]``: ``nothing found``.

    References
    ----------
    photutils: Bradley et al., 10.5281/zenodo.596036; Bertin & Arnouts 1996 (1996A&AS..117..393B) for deblending by
    levels.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend import deblend, simulate
    >>> from lensdeblend.scenes import GaussianPSF, Observation, Scene, Sersic
    >>> galaxies = [Sersic(90, 0.5 * u.arcsec, 1.0), Sersic(60, 0.4 * u.arcsec, 1.0, center_x=2 * u.arcsec)]
    >>> observation = Observation(0.2 * u.arcsec, (48, 48), GaussianPSF(0.7 * u.arcsec), background_rms=0.02)
    >>> image = simulate(Scene(sources=galaxies), observation, method="galsim", seed=1).image
    >>> len(deblend(image, method="photutils", seed=1).catalog)
    2
    """

    threshold: float = 4.0
    n_pixels: int = 5
    n_levels: int = 32
    contrast: float = 0.002
    background: str = "auto"

    def __post_init__(self):
        if self.threshold is None or self.contrast is None:
            raise ValueError("threshold and contrast must be positive numbers; got None")
        check_positive("threshold", self.threshold, "a positive number")
        check_positive("contrast", self.contrast, "a share between 0 and 1")
        if self.contrast > 1:
            raise ValueError(f"contrast must be a share between 0 and 1; got {self.contrast!r}")
        check_whole("n_pixels", self.n_pixels, 1)
        check_whole("n_levels", self.n_levels, 1)
        check_choice("background", self.background, ("auto", "none"))

    def deblend(self, image: Image, segmentation, positions, rng: np.random.Generator) -> Deblending:
        """Return one image and one catalogue row a galaxy; nothing is random."""
        blend = Blend.of(image)
        detector = Detector(self.threshold, self.n_pixels, self.n_levels, self.contrast)
        detection, levels = detected_above_sky(detector, blend, self.background, segmentation, positions)
        if not len(detection.positions):
            return nothing_found(blend, levels)
        templates = [
            _weighed(band, _templates(band, band.data - level, detection), level)
            for band, level in zip(blend.bands, levels)
        ]
        return _told(blend, detection, templates, levels)


def _templates(band: Band, data: np.ndarray, detection: Detection) -> np.ndarray:
    """(n, ny, nx): the fainter of opposite pixels, nowhere negative, falling outwards."""
    smooth = _smoothed(data, band.used)
    row, column = np.indices(data.shape)
    labels = on_band(band, detection.labels)
    found, centres = [], detection.positions @ band.matrix.T + band.offset
    for number, (x, y) in enumerate(centres, start=1):
        opposite = map_coordinates(smooth, [2 * y - row, 2 * x - column], order=1, cval=np.nan)
        # Where the other side lies off the image, the galaxy's own segment is all there is.
        alone = np.where(labels == number, smooth, 0.0)
        found.append(np.where(np.isnan(opposite), alone, np.minimum(smooth, opposite)).clip(0))
    return _falling(np.array(found), centres, band.noise)


def _falling(templates: np.ndarray, centres: np.ndarray, noise: float) -> np.ndarray:
    """With no pixel brighter than the place two pixels further in, ring by ring; fainter than that on a neighbour.

    What two neighbours on opposite sides have in common is no part of the galaxy between them.
    """
    row, column = np.indices(templates.shape[1:])
    dx, dy = (grid - centre[:, None, None] for grid, centre in zip((column, row), centres.T))
    distance = np.hypot(dx, dy)
    fallen = templates.copy()
    # So far in, and so thin, that all four pixels about the place further in are done.
    for outer in np.arange(2.0, distance.max() + 0.5, 0.5):
        ring = np.nonzero((distance > outer) & (distance <= outer + 0.5))
        share = 1 - 2 / distance[ring]
        place = ring[0], centres[ring[0], 1] + share * dy[ring], centres[ring[0], 0] + share * dx[ring]
        inner = map_coordinates(fallen, place, order=1, mode="nearest")
        raw = templates[ring]
        fallen[ring] = np.minimum(raw, np.where(raw > inner + noise, _FALL * inner, inner))
    return fallen


def _smoothed(data: np.ndarray, used: np.ndarray) -> np.ndarray:
    """A little, so that noise does not eat the fainter of two pixels; masked ones from their neighbours."""
    share = gaussian_filter(used.astype(float), _SMOOTHING)
    return gaussian_filter(np.where(used, data, 0.0), _SMOOTHING) / share.clip(1e-3)


def _weighed(band: Band, templates: np.ndarray, level: float) -> np.ndarray:
    weights, _ = nnls(
        (templates * band.weight).reshape(len(templates), -1).T, ((band.data - level) * band.weight).ravel()
    )
    return templates * weights[:, None, None]


def _told(
    blend: Blend, detection: Detection, templates: Sequence[np.ndarray], levels: Sequence[float]
) -> Deblending:
    near = binary_dilation(detection.labels > 0, iterations=_GROWN)
    shares, fluxes, errors = [], [], []
    for band, galaxies, level in zip(blend.bands, templates, levels):
        data = np.where(np.isfinite(band.image.data), band.image.data, 0.0)
        parts = divided(np.ones(data.shape), galaxies)
        shares.append(parts * data)
        counted = band.used & (on_band(band, near.astype(int)) > 0)
        fluxes.append((parts * (band.data - level) * counted).sum((1, 2)))
        errors.append(np.sqrt(((parts * band.sigma * counted) ** 2).sum((1, 2))))
    whole, light = together(blend, templates), np.stack([galaxies.sum((1, 2)) for galaxies in templates], 1)
    shapes = np.array([shape(galaxy) for galaxy in whole])
    catalog = catalogue(
        blend, detection.positions, np.array(fluxes).T, np.array(errors).T, shapes[:, :2], shapes[:, 2],
        blendedness(whole), [flags_of(place, own, blend) for place, own in zip(detection.positions, light)],
    )
    return dressed(blend, templates, levels, catalog, detection.labels, len(catalog) * len(blend.bands), shares=shares)
