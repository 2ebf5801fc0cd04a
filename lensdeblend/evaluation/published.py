"""What was published of super-resolution on the DeepLense models, to stand beside what is measured here.

From the public pages of DeepLense's physics-informed unsupervised super-resolution (Google Summer of Code 2024): test
images of its own simulations, low resolution to twice as many pixels a side, each scaled to [0, 1]. Whether the images
that they were held against had noise is not known here.
"""

from __future__ import annotations

from collections.abc import Collection

from astropy.table import Table

from lensdeblend.scenes.populations.deeplense import CLASSES

__all__ = ["PUBLISHED", "SOURCE", "published_table"]

SOURCE = "DeepLense, physics-informed unsupervised super-resolution (Google Summer of Code 2024)"
_CLASSES = ("none", "axion", "cdm")
#: Mean MSE, SSIM and PSNR in dB, by method and model, of the classes none, axion and cdm.
PUBLISHED = {
    ("residual CNN", "1"): ((0.003310, 0.718, 25.255), (0.004801, 0.660, 23.506), (0.004923, 0.659, 23.491)),
    ("residual CNN", "2"): ((0.004661, 0.214, 23.785), (0.004555, 0.215, 24.064), (0.004741, 0.212, 23.768)),
    ("residual CNN", "3"): ((0.001487, 0.819, 29.167), (0.001715, 0.808, 28.578), (0.001684, 0.809, 28.636)),
    ("RCAN", "1"): ((0.003756, 0.759, 25.607), (0.003854, 0.749, 25.466), (0.004006, 0.740, 25.215)),
    ("RCAN", "2"): ((0.003104, 0.219, 25.353), (0.003159, 0.216, 25.299), (0.003231, 0.216, 25.191)),
    ("RCAN", "3"): ((0.003976, 0.717, 24.792), (0.003932, 0.708, 24.832), (0.004084, 0.706, 24.608)),
    ("GAN", "1"): ((0.004767, 0.743, 24.284), (0.004097, 0.750, 24.854), (0.004385, 0.740, 24.556)),
    ("GAN", "3"): ((0.001479, 0.821, 29.163), (0.001609, 0.812, 28.818), (0.001631, 0.811, 28.742)),
    ("feature-GAN", "1"): ((0.004442, 0.745, 24.305), (0.002908, 0.770, 25.902), (0.003376, 0.756, 25.310)),
    ("feature-GAN", "2"): ((0.003510, 0.213, 25.108), (0.003573, 0.212, 24.882), (0.003649, 0.210, 24.942)),
    ("feature-GAN", "3"): ((0.001425, 0.819, 29.343), (0.002304, 0.796, 27.311), (0.001682, 0.807, 28.550)),
    ("20% of the training set", "1"): ((0.003353, 0.762, 25.390), (0.002968, 0.763, 25.763), (0.003188, 0.755, 25.519)),
    ("20% of the training set", "2"): ((0.005071, 0.211, 23.459), (0.004829, 0.214, 23.814), (0.005044, 0.211, 23.519)),
    ("20% of the training set", "3"): ((0.004156, 0.786, 25.519), (0.003884, 0.790, 26.537), (0.003883, 0.786, 25.986)),
}


def published_table(models: Collection[str]) -> Table:
    """``method``, ``model``, ``class``, ``mse``, ``ssim`` and ``psnr`` of some of the models ``"1"``, ``"2"``, ``"3"``,
    one model and class below the other.

    Examples
    --------
    >>> from lensdeblend.evaluation.published import published_table
    >>> print(published_table(["2"])[:3])
       method    model class   mse     ssim  psnr
    ------------ ----- ----- -------- ----- ------
    residual CNN     2  none 0.004661 0.214 23.785
            RCAN     2  none 0.003104 0.219 25.353
     feature-GAN     2  none  0.00351 0.213 25.108
    """
    rows = [
        (method, model, kind, *cells[_CLASSES.index(kind)])
        for wanted in sorted(models) for kind in CLASSES
        for (method, model), cells in PUBLISHED.items() if model == wanted
    ]
    names = ("method", "model", "class", "mse", "ssim", "psnr")
    return Table(rows=rows or None, names=names, dtype=[str] * 3 + [float] * 3)
