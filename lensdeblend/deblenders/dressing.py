"""From galaxies as arrays to a `~lensdeblend.results.Deblending`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.catalog import catalogue
from lensdeblend.images import like
from lensdeblend.results import Deblending

__all__ = ["POOR_FIT", "dressed", "divided", "nothing_found", "segmented"]

POOR_FIT = "poor fit"
_TRACE = 1e-6


def divided(data: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The data divided among galaxies in the proportion of their light, (n, ny, nx); they sum to the data.

    Where none has any, each takes an equal share.
    """
    if not len(images):
        return np.zeros((0, *data.shape))
    light = images.clip(0)
    light = light + _TRACE * max(float(light.max()), 1e-300) / len(images)
    # Far from all of them, proportions of next to nothing mean nothing.
    return data * (light / light.sum(0))


def segmented(images: np.ndarray, shown: np.ndarray, threshold: float) -> np.ndarray:
    """Labels, ``i + 1`` where galaxy ``i`` is the brightest, 0 where ``shown`` is below ``threshold``."""
    if not len(images):
        return np.zeros(shown.shape, int)
    return np.where(shown > threshold, images.argmax(0) + 1, 0)


def dressed(
    blend: Blend, images: Sequence[np.ndarray], levels: Sequence[float], catalog: QTable, labels: np.ndarray,
    parameters: int, flags: Sequence[str] = (), shares: Sequence[np.ndarray] | None = None, *, judged: bool = False,
    **meta,
) -> Deblending:
    """Dress the galaxies.

    Parameters
    ----------
    blend : Blend
    images : sequence of ndarray
        One array (n, ny, nx) a band: the galaxies, noise-free.
    levels : sequence of float
        Of the sky in each band.
    catalog : QTable
    labels : ndarray
        Segmentation on the first band.
    parameters : int
        How many numbers were fitted.
    flags : sequence of str
        On the whole, kept as ``meta["flags"]``.
    shares : sequence of ndarray, optional
        One array (n, ny, nx) a band; left out, the data in the proportion of the images.
    judged : bool
        Whether a reduced chi-square more than three sigma above 1 is flagged as ``poor fit``.
    **meta
        What else the method notes.
    """
    from photutils.segmentation import SegmentationImage

    models, residuals, sources, parts, squares = [], [], [], [], 0.0
    for number, (band, galaxies, level) in enumerate(zip(blend.bands, images, levels)):
        model = galaxies.sum(0) + level
        residual = np.where(band.used, (band.data - model) / band.sigma, 0.0)
        squares += float((residual**2).sum())
        models.append(like(band.image, model))
        residuals.append(like(
            band.image, residual, unit=u.dimensionless_unscaled, mask=band.image.mask, psf=None
        ))
        data = np.where(np.isfinite(band.image.data), band.image.data, 0.0)
        own = divided(data, galaxies) if shares is None else shares[number]
        sources.append([like(band.image, galaxy) for galaxy in galaxies])
        parts.append([like(band.image, share, mask=band.image.mask) for share in own])
    count, freedom = len(catalog), max(blend.used - parameters, 1)
    if judged and POOR_FIT not in flags and squares / freedom > 1 + 3 * np.sqrt(2 / freedom):
        flags = (*flags, POOR_FIT)
    return Deblending(
        sources=[blend.as_given([band[i] for band in sources]) for i in range(count)],
        shares=[blend.as_given([band[i] for band in parts]) for i in range(count)],
        catalog=catalog, segmentation=SegmentationImage(labels.astype(int)), model=blend.as_given(models),
        residual=blend.as_given(residuals), chi2=squares / freedom,
        image=blend.as_given([band.image for band in blend.bands]),
        meta={
            "flags": tuple(flags), "background": blend.as_given([float(level) for level in levels]),
            "degrees_of_freedom": freedom, **meta,
        },
    )


def nothing_found(blend: Blend, levels: Sequence[float], columns: Sequence[str] = ()) -> Deblending:
    """An empty result, valid and flagged, with a warning; ``columns`` of the catalogue beside those of all."""
    warnings.warn("no galaxy was found: the result is empty", AstropyUserWarning, stacklevel=2)
    pairs, numbers = np.zeros((0, 2)), np.zeros((0, len(blend.bands)))
    catalog = catalogue(
        blend, pairs, numbers, numbers, pairs, np.zeros(0), np.zeros(0), [], **{name: np.zeros(0) for name in columns}
    )
    images = [np.zeros((0, *band.data.shape)) for band in blend.bands]
    return dressed(blend, images, levels, catalog, np.zeros(blend.shape, int), 0, ["nothing found"])
