"""How much room light takes."""

from __future__ import annotations

import numpy as np

__all__ = ["effective_area"]


def effective_area(images: np.ndarray) -> np.ndarray:
    """As how many pixels, all as bright, images (..., ny, nx) have the same flux and the same sum of squares: (...,).

    A Gaussian of standard deviation s takes 4 pi s^2; an image without light, one pixel.

    Examples
    --------
    >>> import numpy as np
    >>> effective_area(np.array([[0.0, 2.0, 2.0], [0.0, 2.0, 0.0]]))
    array(3.)
    """
    squares = (images**2).sum((-2, -1))
    return np.divide(images.sum((-2, -1)) ** 2, squares, out=np.ones(images.shape[:-2]), where=squares > 0)
