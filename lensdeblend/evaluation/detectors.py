"""What detects galaxies today, with its default settings, on the sum of the bands."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec

import numpy as np
from astropy.nddata import NDData

__all__ = ["default_detectors", "photutils_defaults", "sep_defaults", "summed"]

_THRESHOLD = 1.5
_N_PIXELS = 10


def default_detectors() -> dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    """Those that are installed, by label; each gives positions (n, 2) and fluxes (n,) of an image and its noise."""
    found = {"photutils, default settings": photutils_defaults}
    if find_spec("sep") is not None:
        found["SEP, default settings"] = sep_defaults
    return found


def summed(image: Mapping[str, NDData]) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the bands and the standard deviation of its pixels."""
    bands = list(image.values())
    return sum(band.data for band in bands), np.sqrt(sum(band.uncertainty.array for band in bands))


def photutils_defaults(data: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As photutils' own guide has it: 1.5 sigma behind a Gaussian of 3 pixels, 10 pixels, ``deblend_sources``."""
    from astropy.convolution import convolve
    from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources, make_2dgaussian_kernel
    from photutils.utils.exceptions import NoDetectionsWarning

    smooth = convolve(data, make_2dgaussian_kernel(3.0, size=5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        segments = detect_sources(smooth, _THRESHOLD * sigma, n_pixels=_N_PIXELS)
    if segments is None:
        return np.zeros((0, 2)), np.zeros(0)
    segments = deblend_sources(smooth, segments, n_pixels=_N_PIXELS, progress_bar=False)
    catalog = SourceCatalog(data, segments, convolved_data=smooth)
    return np.column_stack([catalog.x_centroid, catalog.y_centroid]), np.asarray(catalog.segment_flux, dtype=float)


def sep_defaults(data: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``sep.extract(data, 1.5, err=sigma)``."""
    import sep

    found = sep.extract(np.ascontiguousarray(data, dtype=float), _THRESHOLD, err=np.ascontiguousarray(sigma))
    return np.column_stack([found["x"], found["y"]]), np.asarray(found["flux"], dtype=float)
