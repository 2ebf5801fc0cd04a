r"""Interpolation: the floor, for it knows neither lens nor point-spread function.

The pixels are taken as samples at their centres and read off between them by a kernel,

.. math::

    f(x) = F^{-2} \sum_k d_k\, h(x - k),

at the centres of pixels :math:`F` times smaller: Keys' cubic with :math:`a = -1/2` (Keys 1981, 1981ITASS..29.1153K),
Lanczos' windowed sinc with three lobes (Duchon 1979, 1979JApMe..18.1016D), or the cubic B-spline through the samples
(Unser, Aldroubi & Eden 1993, IEEE Trans. Signal Process. 41, 821). Weights sum to 1, so that an even sky stays even,
and the image is mirrored at its edges: for whole factors the flux is kept exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lensdeblend.interfaces import Image, SuperResolver
from lensdeblend.options import check_choice
from lensdeblend.results import SuperResolution
from lensdeblend.superresolvers.filling import filled, known
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.kernels import KERNELS, interpolated

__all__ = ["Interpolation"]


@dataclass(frozen=True)
class Interpolation(SuperResolver):
    """Interpolate between the pixels: what any other method has to surpass.

    Parameters
    ----------
    kernel : {"bicubic", "lanczos", "spline"}
        Keys' cubic (a = -1/2), Lanczos' kernel with three lobes, or the cubic B-spline through the pixels.

    Notes
    -----
    Masked pixels are filled first with the mean of the unmasked ones around, weighted by a Gaussian as narrow as the
    hole allows; ``meta["filled"]`` is their number. Noise is interpolated with the rest, and nothing is known of what
    lies between the pixels: the image has no errors, there is no ``intrinsic`` image before the PSF, no source and no
    lens, and nothing is random.

    For factors that are not whole, the flux of a lens is kept to some 1e-4. ``chi2`` is the mean square, in sigma, of
    what the fine image leaves of the unmasked data once it is gathered on their pixels again. An interpolation has as
    many numbers as the data: a value below 1 says that it follows their noise.

    References
    ----------
    Keys 1981 (1981ITASS..29.1153K).

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData, VarianceUncertainty
    >>> from lensdeblend import superresolve
    >>> from lensdeblend.superresolvers.interpolation import Interpolation
    >>> y, x = np.indices((24, 24)) - 11.5
    >>> galaxy = CCDData(np.exp(-(x**2 + y**2) / 20), unit="adu", meta={"PIXSCALE": 0.1})
    >>> galaxy.uncertainty = VarianceUncertainty(np.full((24, 24), 1e-4))
    >>> result = superresolve(galaxy, factor=2, method=Interpolation(kernel="spline"))
    >>> result.image.data.shape, result.image.meta["PIXSCALE"]
    ((48, 48), 0.05)
    >>> bool(np.isclose(result.image.data.sum(), galaxy.data.sum()))
    True
    """

    kernel: Literal["bicubic", "lanczos", "spline"] = "bicubic"

    def __post_init__(self):
        check_choice("kernel", self.kernel, KERNELS)

    def superresolve(self, image: Image, factor: float, rng: np.random.Generator) -> SuperResolution:
        """Return the finer image of one prepared image, or of each in ``{band: NDData}``.

        Raises
        ------
        TypeError, ValueError
            For a factor that is not from 1 to 5, and for an image without an unmasked pixel.
        """
        bands = image if isinstance(image, Mapping) else {None: image}
        fine, squares, counts = {}, [], {}
        for band, one in bands.items():
            pixels, mask = FinePixels(one, factor), ~known(one)
            data = interpolated(filled(np.asarray(one.data, dtype=float), mask), pixels, self.kernel)
            fine[band], counts[band] = pixels.dressed(data), int(mask.sum())
            left = (one.data - pixels.gathered(data)) / np.sqrt(one.uncertainty.array)
            squares.append(left[~mask] ** 2)
        banded = isinstance(image, Mapping)
        return SuperResolution(
            image=fine if banded else fine[None], intrinsic=None, source=None, deflection=None, convergence=None,
            parameters=None, chi2=float(np.mean(np.concatenate(squares))),
            meta={"filled": counts if banded else counts[None]},
        )
