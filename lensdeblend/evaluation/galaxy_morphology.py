"""What galaxies look like, as numbers that no profile gives: concentration, asymmetry, Gini, M20, power spectrum."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.ndimage import gaussian_filter, label

__all__ = ["MORPHOLOGY", "morphologies", "radial_power"]

#: Columns that `morphologies` gives.
MORPHOLOGY = ("concentration", "asymmetry", "gini", "m20")

_SMOOTHED, _ABOVE = 1.5, 3.0
_FEWEST_PIXELS = 20


def morphologies(images: np.ndarray, noise: np.ndarray, psf: np.ndarray | None) -> dict[str, np.ndarray]:
    """Measure galaxies in the middle of noisy stamps, by statmorph.

    Parameters
    ----------
    images : (n, ny, nx) array
    noise : (n,) array
        Standard deviation of the noise a pixel.
    psf : array or None

    Returns
    -------
    dict
        `MORPHOLOGY`, (n,) each; NaN where statmorph flags its numbers as bad, or nothing is significant.

    Raises
    ------
    ImportError
        Without statmorph.

    References
    ----------
    Rodriguez-Gomez et al. 2019 (2019MNRAS.483.4140R); Conselice 2003 (2003ApJS..147....1C) for concentration and
    asymmetry; Lotz et al. 2004 (2004AJ....128..163L) for Gini and M20.
    """
    try:
        from statmorph import SourceMorphology
    except ImportError as error:
        raise ImportError(
            'concentration, asymmetry, Gini and M20 need statmorph: pip install "lensdeblend[evaluate]"'
        ) from error
    found = np.full((len(images), len(MORPHOLOGY)), np.nan)
    for place, (image, sigma) in enumerate(zip(images, noise)):
        segment = _segment(image, sigma)
        if segment is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = SourceMorphology(
                image, segment, 1, weightmap=np.full(image.shape, sigma), psf=psf, sersic_maxiter=1,
                cutout_extent=10.0,
            )
        # 0 good, 1 suspect, 2 and more bad.
        if one.flag < 2:
            found[place] = [getattr(one, name) for name in MORPHOLOGY]
    return dict(zip(MORPHOLOGY, found.T))


def radial_power(images: np.ndarray, wave_numbers: np.ndarray) -> np.ndarray:
    """Power spectra of galaxies of flux 1, averaged over rings.

    Parameters
    ----------
    images : (n, ny, ny) array
        Without noise.
    wave_numbers : (m + 1,) array
        Edges of the rings, cycles a pixel.

    Returns
    -------
    (n, m) array

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.evaluation.galaxy_morphology import radial_power
    >>> point = np.zeros((1, 8, 8))
    >>> point[0, 4, 4] = 3
    >>> radial_power(point, np.array([0.1, 0.3, 0.5]))
    array([[1., 1.]])
    """
    side = images.shape[-1]
    wave = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    power = np.abs(np.fft.rfft2(images / images.sum((1, 2), keepdims=True))) ** 2
    rings = [(wave >= low) & (wave < high) for low, high in zip(wave_numbers, wave_numbers[1:])]
    return np.stack([power[:, ring].mean(1) for ring in rings], 1)


def _segment(image: np.ndarray, sigma: float) -> np.ndarray | None:
    """1 where the galaxy in the middle is significant, None where it is not."""
    smooth = gaussian_filter(image, _SMOOTHED)
    # White noise that is smoothed by a Gaussian of this width.
    left = sigma / (2 * _SMOOTHED * np.sqrt(np.pi))
    parts, _ = label(smooth > _ABOVE * left)
    middle = parts[tuple(n // 2 for n in image.shape)]
    segment = (parts == middle).astype(int)
    return segment if middle and segment.sum() >= _FEWEST_PIXELS else None
