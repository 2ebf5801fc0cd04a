"""A point-spread function between the pixels on which it is given.

Through pixels as wide as half the PSF a spline swings. An elliptical Moffat profile fitted to them (Moffat
1969A&A.....3..455M) has most of the PSF, Gaussians among them; the spline is left what remains.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.optimize import least_squares

__all__ = ["finer_psf"]

_FEWEST_PIXELS = 9
# Of the inverse of Moffat's exponent: from as good as Gaussian to wings that hold no more than all of the light.
_INVERSE_EXPONENT = 1e-3, 1.0
_FLATTEST, _WIDEST = 0.9, 5.0


def finer_psf(psf: np.ndarray, factor: float) -> np.ndarray:
    """The PSF (odd sizes) on pixels ``factor`` times smaller, centred, of odd sizes, its sum 1; zero beyond its frame.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from lensdeblend.scenes import GaussianPSF
    >>> from lensdeblend.superresolvers.finer_psf import finer_psf
    >>> fine = finer_psf(GaussianPSF(0.1 * u.arcsec).kernel(0.1 * u.arcsec), 2)
    >>> true = GaussianPSF(0.1 * u.arcsec).kernel(0.05 * u.arcsec)
    >>> middle = slice(len(fine) // 2 - 3, len(fine) // 2 + 4), slice(len(true) // 2 - 3, len(true) // 2 + 4)
    >>> bool(np.allclose(fine[middle[0], middle[0]], true[middle[1], middle[1]], atol=1e-3))
    True
    """
    psf = np.asarray(psf, dtype=float)
    places = np.meshgrid(*(_places(n, factor) for n in psf.shape), indexing="ij")
    core = _core(psf)
    if core is None:
        fine = _spline(psf, places)
    else:
        (row, column), middle = np.indices(psf.shape), [n // 2 for n in psf.shape]
        rest = psf - _moffat(core, column - middle[1], row - middle[0])
        fine = _moffat(core, places[1] - middle[1], places[0] - middle[0]) + _spline(rest, places)
    return fine / fine.sum()


def _places(n: int, factor: float) -> np.ndarray:
    """Centres of the finer pixels along a side of ``n``, in pixels of that."""
    half = int(np.floor(n / 2 * factor))
    return np.arange(-half, half + 1) / factor + n // 2


def _spline(values: np.ndarray, places) -> np.ndarray:
    return map_coordinates(values, places, order=5, mode="grid-constant")


def _moffat(numbers: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    peak, log_half_width, stretch, slant, inverse = numbers
    exponent = 1 / inverse
    radius2 = ((1 + stretch) * x * x + (1 - stretch) * y * y + 2 * slant * x * y) * np.exp(-2 * log_half_width)
    # Where it opens up instead of falling, it is no profile at all; the fit stays away from there.
    return peak * np.exp(-exponent * np.log1p(radius2.clip(0) * np.expm1(np.log(2) * inverse)))


def _core(psf: np.ndarray) -> np.ndarray | None:
    if psf.size < _FEWEST_PIXELS or not psf.max() > 0:
        return None
    (row, column), middle = np.indices(psf.shape), [n // 2 for n in psf.shape]
    x, y, peak = column - middle[1], row - middle[0], float(psf.max())
    half_width = np.sqrt((psf > peak / 2).sum() / np.pi)
    bounds = (
        [0, -3, -_FLATTEST, -_FLATTEST, _INVERSE_EXPONENT[0]],
        [np.inf, _WIDEST, _FLATTEST, _FLATTEST, _INVERSE_EXPONENT[1]],
    )
    start = [peak, np.clip(np.log(half_width), -2.9, _WIDEST - 0.1), 0, 0, 0.2]
    found = least_squares(
        lambda numbers: ((_moffat(numbers, x, y) - psf) / peak).ravel(), start, bounds=bounds,
        x_scale=[peak, 1, 1, 1, 1],
    )
    return found.x
