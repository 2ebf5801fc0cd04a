"""How close an image is to the truth, how well a model fits the data, and how honest its errors are.

Images are compared on the truth's own scale: nothing is subtracted, both are divided by the truth's maximum, and the
data range is 1. Empty sky flatters such numbers, so each comes twice: over the whole frame, and over the `footprint` of
the truth.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.ndimage import binary_dilation, correlate1d
from scipy.special import ndtri

from lensdeblend.evaluation.arguments import as_array, as_mask, as_pair, require_same_shape, selection

__all__ = [
    "Comparison", "compare", "coverage", "footprint", "mse", "psnr", "reduced_chi_square", "reduced_chi_square_limits",
    "ssim",
]

_WINDOW = 11
_WINDOW_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03


@dataclass(frozen=True)
class Comparison:
    """An image against the truth, both divided by the truth's maximum.

    Attributes
    ----------
    mse, psnr, ssim : float
        Over the whole frame.
    footprint_mse, footprint_psnr, footprint_ssim : float
        Over the `footprint` of the truth. ``footprint_ssim`` is NaN where all of the footprint lies within five pixels
        of the border, where the window of `ssim` does not fit.
    """

    mse: float
    psnr: float
    ssim: float
    footprint_mse: float
    footprint_psnr: float
    footprint_ssim: float

    def asdict(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)


def mse(image, truth, *, where=None) -> float:
    """Mean squared error.

    Parameters
    ----------
    image, truth : array-like or `~astropy.nddata.NDData`
        Of one shape, finite, in one unit.
    where : array of bool, optional
        The pixels that count; all where left out.

    Returns
    -------
    float
        In the square of the images' unit.

    Raises
    ------
    ValueError
        If the shapes differ, a value is not finite or ``where`` selects nothing.

    Examples
    --------
    >>> from lensdeblend.evaluation.metrics import mse
    >>> mse([[1.0, 2.0]], [[1.0, 4.0]])
    2.0
    """
    image, truth = as_pair(image, truth)
    return float(np.mean((image - truth)[selection(where, truth.shape)] ** 2))


def psnr(image, truth, *, data_range: float, where=None) -> float:
    """Peak signal-to-noise ratio in dB: ``10 log10(data_range**2 / mse)``; infinite for equal images.

    Parameters
    ----------
    image, truth : array-like or `~astropy.nddata.NDData`
        Of one shape, finite, in one unit.
    data_range : float
        The peak, in the images' unit.
    where : array of bool, optional
        The pixels that count; all where left out.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `mse`, or if ``data_range`` is not positive.

    Examples
    --------
    >>> from lensdeblend.evaluation.metrics import psnr
    >>> psnr([[0.0, 0.9]], [[0.1, 1.0]], data_range=1)
    20.0
    """
    _check_data_range(data_range)
    error = mse(image, truth, where=where)
    return float(10 * np.log10(data_range**2 / error)) if error > 0 else np.inf


def ssim(image, truth, *, data_range: float, where=None) -> float:
    """Mean structural similarity, with a Gaussian window of 11 by 11 pixels and standard deviation 1.5.

    The five pixels along each border, where the window does not fit, are left out of the mean. Equal to scikit-image's
    ``structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)``.

    Parameters
    ----------
    image, truth : array-like or `~astropy.nddata.NDData`
        Two-dimensional, of one shape, finite, in one unit, at least 11 by 11 pixels.
    data_range : float
        The difference of the largest and the smallest possible value, in the images' unit.
    where : array of bool, optional
        The pixels whose similarity is averaged; all where left out.

    Returns
    -------
    float
        1 for equal images.

    Raises
    ------
    ValueError
        If the shapes differ or are too small, a value is not finite, ``data_range`` is not positive, or no pixel is
        left.

    References
    ----------
    Wang, Bovik, Sheikh & Simoncelli 2004, IEEE Transactions on Image Processing 13, 600.

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.evaluation.metrics import ssim
    >>> galaxy = np.outer(np.hanning(32), np.hanning(32))
    >>> ssim(galaxy, galaxy, data_range=1)
    1.0
    """
    _check_data_range(data_range)
    image, truth = as_pair(image, truth)
    if truth.ndim != 2 or min(truth.shape) < _WINDOW:
        raise ValueError(
            f"ssim needs two-dimensional images of at least {_WINDOW}x{_WINDOW} pixels; got shape {truth.shape}"
        )
    inner = _inner(truth.shape) & selection(where, truth.shape)
    if not inner.any():
        raise ValueError(
            f"where selects only pixels within {_WINDOW // 2} of the border, where the window of ssim does not fit"
        )
    return float(_similarity(image, truth, data_range)[inner].mean())


def footprint(truth, *, threshold: float = 0.01, dilation: int = 2) -> np.ndarray:
    """Pixels where the truth exceeds ``threshold`` of its maximum, dilated ``dilation`` times by the four neighbours.

    Parameters
    ----------
    truth : array-like or `~astropy.nddata.NDData`
        Noise-free image, finite, with a positive maximum.
    threshold : float
        Fraction of the maximum.
    dilation : int
        How often the region grows by its neighbours.

    Returns
    -------
    array of bool

    Raises
    ------
    ValueError
        If the truth is nowhere positive or has a value that is not finite, ``threshold`` is not from 0 to below 1, or
        ``dilation`` is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.evaluation.metrics import footprint
    >>> truth = np.zeros((5, 5))
    >>> truth[2, 2] = 1
    >>> footprint(truth).astype(int)
    array([[0, 0, 1, 0, 0],
           [0, 1, 1, 1, 0],
           [1, 1, 1, 1, 1],
           [0, 1, 1, 1, 0],
           [0, 0, 1, 0, 0]])
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be from 0 to below 1; got {threshold}")
    if dilation < 0:
        raise ValueError(f"dilation must be 0 or more; got {dilation}")
    truth = as_array(truth, "truth")
    bright = truth > threshold * _peak(truth)
    return binary_dilation(bright, iterations=dilation) if dilation else bright


def compare(image, truth) -> Comparison:
    """Hold an image against the truth, both divided by the truth's maximum, with data range 1.

    Parameters
    ----------
    image, truth : array-like or `~astropy.nddata.NDData`
        Two-dimensional, of one shape, finite, in one unit, at least 11 by 11 pixels; the truth without noise.

    Returns
    -------
    `Comparison`

    Raises
    ------
    ValueError
        If the shapes differ or are too small, a value is not finite, or the truth is nowhere positive.

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.evaluation.metrics import compare
    >>> truth = np.outer(np.hanning(32), np.hanning(32))
    >>> compare(0.99 * truth, truth).footprint_psnr > 40
    True
    """
    image, truth = as_pair(image, truth)
    peak = _peak(truth)
    image, truth = image / peak, truth / peak
    judged = footprint(truth)
    fits_window = (judged & _inner(truth.shape)).any()
    return Comparison(
        mse=mse(image, truth),
        psnr=psnr(image, truth, data_range=1),
        ssim=ssim(image, truth, data_range=1),
        footprint_mse=mse(image, truth, where=judged),
        footprint_psnr=psnr(image, truth, data_range=1, where=judged),
        footprint_ssim=ssim(image, truth, data_range=1, where=judged) if fits_window else np.nan,
    )


def reduced_chi_square(data, model, variance, *, mask=None, n_parameters: int = 0) -> float:
    """Sum of ``(data - model)**2 / variance`` over the unmasked pixels, divided by their number less ``n_parameters``.

    Parameters
    ----------
    data, model, variance : array-like or `~astropy.nddata.NDData`
        Of one shape; finite, and the variance positive, where unmasked.
    mask : array of bool, optional
        True where a pixel is left out.
    n_parameters : int
        How many parameters the model was fitted with.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes differ, an unmasked variance is not positive, an unmasked value is not finite, ``n_parameters`` is
        negative, or no degree of freedom is left.

    Examples
    --------
    >>> from lensdeblend.evaluation.metrics import reduced_chi_square
    >>> reduced_chi_square([1.0, 3.0, 5.0], [0.0, 3.0, 3.0], [1.0, 1.0, 4.0], n_parameters=1)
    1.0
    """
    used = None if mask is None else ~as_mask(mask, "mask")
    if used is not None and not used.any():
        raise ValueError("every pixel is masked")
    data, model, variance = (
        as_array(values, name, finite=used)
        for values, name in ((data, "data"), (model, "model"), (variance, "variance"))
    )
    require_same_shape(data=data, model=model, variance=variance, mask=data if used is None else used)
    used = selection(used, data.shape)
    if (variance[used] <= 0).any():
        raise ValueError("variance must be positive in every unmasked pixel; mask the others")
    if n_parameters < 0:
        raise ValueError(f"n_parameters must be 0 or more; got {n_parameters}")
    freedom = int(used.sum()) - n_parameters
    if freedom < 1:
        raise ValueError(f"{used.sum()} unmasked pixels leave no degree of freedom for {n_parameters} parameters")
    return float(np.sum((data[used] - model[used]) ** 2 / variance[used]) / freedom)


def reduced_chi_square_limits(degrees_of_freedom: int, *, n_sigma: float = 3.0) -> tuple[float, float]:
    """Limits ``n_sigma`` standard deviations on either side of the expected reduced chi-square of a right model.

    The standard deviation is ``sqrt(2 / degrees_of_freedom)``; the lower limit is not below zero.

    Parameters
    ----------
    degrees_of_freedom : int
        Unmasked pixels less fitted parameters.
    n_sigma : float

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError
        If there is no degree of freedom, or ``n_sigma`` is not positive.

    Examples
    --------
    >>> from lensdeblend.evaluation.metrics import reduced_chi_square_limits
    >>> reduced_chi_square_limits(5000)
    (0.94, 1.06)
    """
    if degrees_of_freedom < 1:
        raise ValueError(f"degrees_of_freedom must be at least 1; got {degrees_of_freedom}")
    if not n_sigma > 0:
        raise ValueError(f"n_sigma must be positive; got {n_sigma}")
    half_width = n_sigma * np.sqrt(2 / degrees_of_freedom)
    return float(max(0.0, 1 - half_width)), float(1 + half_width)


def coverage(truth, estimate, error, levels=(0.68, 0.95)) -> np.ndarray:
    """How often intervals ``estimate ± z(level) error`` hold the truth; calibrated errors give back the levels.

    Parameters
    ----------
    truth, estimate, error : array-like
        Of one shape; the first axis counts the objects, further axes the parameters. Errors are one standard deviation.
    levels : sequence of float
        Probabilities of the central intervals of a normal distribution, each between 0 and 1.

    Returns
    -------
    array
        Fractions, of shape ``(len(levels), *truth.shape[1:])``.

    Raises
    ------
    ValueError
        If the shapes differ, there is no object, an error is not positive, a value is not finite or a level is out of
        range.

    Examples
    --------
    >>> from lensdeblend.evaluation.metrics import coverage
    >>> coverage(truth=[0, 0, 0, 0], estimate=[0.5, -0.9, 1.5, 2.5], error=[1, 1, 1, 1])
    array([0.5 , 0.75])
    """
    truth, estimate, error = as_array(truth, "truth"), as_array(estimate, "estimate"), as_array(error, "error")
    require_same_shape(truth=truth, estimate=estimate, error=error)
    if truth.ndim == 0:
        raise ValueError("coverage needs at least one object along the first axis")
    if (error <= 0).any():
        raise ValueError("error must be positive")
    levels = np.atleast_1d(np.asarray(levels, dtype=float))
    if not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"levels must lie between 0 and 1; got {levels.tolist()}")
    deviation = np.abs(truth - estimate) / error
    return np.array([(deviation <= ndtri((1 + level) / 2)).mean(axis=0) for level in levels])


def _similarity(image: np.ndarray, truth: np.ndarray, data_range: float) -> np.ndarray:
    offset = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-0.5 * (offset / _WINDOW_SIGMA) ** 2)
    window /= window.sum()

    def smooth(values):
        return correlate1d(correlate1d(values, window, axis=0), window, axis=1)

    mean_image, mean_truth = smooth(image), smooth(truth)
    variance_image = smooth(image**2) - mean_image**2
    variance_truth = smooth(truth**2) - mean_truth**2
    covariance = smooth(image * truth) - mean_image * mean_truth
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    luminance = (2 * mean_image * mean_truth + c1) / (mean_image**2 + mean_truth**2 + c1)
    structure = (2 * covariance + c2) / (variance_image + variance_truth + c2)
    return luminance * structure


def _inner(shape: tuple[int, int]) -> np.ndarray:
    inner = np.zeros(shape, dtype=bool)
    border = _WINDOW // 2
    inner[border:-border, border:-border] = True
    return inner


def _peak(truth: np.ndarray) -> float:
    peak = truth.max()
    if peak <= 0:
        raise ValueError("the truth is nowhere positive, so there is no scale to compare on")
    return peak


def _check_data_range(data_range: float) -> None:
    if not (np.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be positive and finite; got {data_range}")
