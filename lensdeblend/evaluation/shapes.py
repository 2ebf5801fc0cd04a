"""Ellipticities measured on images, alike for all methods."""

from __future__ import annotations

import numpy as np

__all__ = ["adaptive_ellipticity", "adaptive_moments"]

_ROUNDS = 100
_CONVERGED = 1e-5


def adaptive_ellipticity(image) -> tuple[float, float]:
    """``e1`` and ``e2`` of `adaptive_moments`.

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.evaluation.shapes import adaptive_ellipticity
    >>> y, x = np.indices((61, 61)) - 30
    >>> e1, e2 = adaptive_ellipticity(np.exp(-np.hypot(x / 6, y / 3)))
    >>> print(f"{e1:.2f}")
    0.33
    """
    return adaptive_moments(image)[2:]


def adaptive_moments(image) -> tuple[float, float, float, float]:
    """``x``, ``y``, ``e1`` and ``e2`` by adaptive moments, NaN where these do not settle.

    Centroid and second moments are weighed by the elliptical Gaussian that matches them; the modulus is
    (1 - q) / (1 + q). For a galaxy whose isophotes have one shape it is that shape, whatever the profile.

    Parameters
    ----------
    image : array-like
        Noise-free, two-dimensional; what is negative counts as nothing.

    References
    ----------
    Bernstein & Jarvis 2002 (2002AJ....123..583B); Hirata & Seljak 2003 (2003MNRAS.343..459H).

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.evaluation.shapes import adaptive_moments
    >>> y, x = np.indices((61, 61))
    >>> print("{:.2f} {:.2f} {:.2f}".format(*adaptive_moments(np.exp(-np.hypot((x - 31.5) / 6, (y - 29) / 3)))[:3]))
    31.50 29.00 0.33
    """
    unsettled = (np.nan,) * 4
    light = np.asarray(image, dtype=float).clip(0)
    if not (np.isfinite(light).all() and light.any()):
        return unsettled
    row, column = np.indices(light.shape)
    centre = np.array(np.unravel_index(light.argmax(), light.shape), dtype=float)[::-1]
    matrix = np.eye(2) * 4.0
    for _ in range(_ROUNDS):
        dx, dy = column - centre[0], row - centre[1]
        inverse = np.linalg.inv(matrix)
        weight = light * np.exp(-0.5 * (inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2))
        total = weight.sum()
        if not total > 0:
            return unsettled
        step = np.array([(weight * dx).sum(), (weight * dy).sum()]) / total
        xx, yy, xy = ((weight * product).sum() / total for product in (dx**2, dy**2, dx * dy))
        # A Gaussian under a weight of its own shape has half of its moments.
        matched = 2 * np.array([[xx, xy], [xy, yy]])
        moved = np.abs(matched - matrix).max() / np.trace(matched) + np.hypot(*step) / np.sqrt(np.trace(matched))
        centre, matrix = centre + step, matched
        if np.linalg.det(matrix) < 1e-4 or np.trace(matrix) > light.size:
            return unsettled
        if moved < _CONVERGED:
            size = np.trace(matrix) + 2 * np.sqrt(np.linalg.det(matrix))
            shape = (matrix[0, 0] - matrix[1, 1]) / size, 2 * matrix[0, 1] / size
            return float(centre[0]), float(centre[1]), float(shape[0]), float(shape[1])
    return unsettled
