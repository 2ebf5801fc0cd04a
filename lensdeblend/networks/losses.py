"""What networks are trained to make small. All take batches and return the mean over it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["dissimilarity", "log_squared_error", "spread_loss", "squared_error"]

_WINDOW, _WINDOW_SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def squared_error(image: Tensor, truth: Tensor, peak: Tensor) -> Tensor:
    """Mean squared error of images (batch, n, n), in units of ``peak`` (batch,)."""
    return (((image - truth) / peak[:, None, None]) ** 2).mean()


def log_squared_error(image: Tensor, truth: Tensor, peak: Tensor, floor: float = 1e-6) -> Tensor:
    """Mean of the logarithm of each image's mean squared error, in units of ``peak``: the PSNR, but for sign and scale.

    ``floor`` is the error below which improving one image further gains nothing.
    """
    each = (((image - truth) / peak[:, None, None]) ** 2).flatten(1).mean(1)
    return torch.log(each + floor).mean()


def dissimilarity(image: Tensor, truth: Tensor, peak: Tensor) -> Tensor:
    """One minus the structural similarity of Wang et al. (2004), as `lensdeblend.evaluation.metrics.ssim`."""
    image, truth = (part[:, None] / peak[:, None, None, None] for part in (image, truth))
    steps = torch.arange(_WINDOW, dtype=image.dtype, device=image.device) - _WINDOW // 2
    window = torch.exp(-0.5 * (steps / _WINDOW_SIGMA) ** 2)
    window = window / window.sum()

    def blurred(x: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(
            torch.nn.functional.conv2d(x, window[None, None, None]), window[None, None, :, None]
        )

    moments = torch.cat([image, truth, image * image, truth * truth, image * truth])
    mean, mean_truth, square, square_truth, product = blurred(moments).chunk(5)
    variance, variance_truth = square - mean**2, square_truth - mean_truth**2
    covariance = product - mean * mean_truth
    similarity = (2 * mean * mean_truth + _K1**2) * (2 * covariance + _K2**2) / (
        (mean**2 + mean_truth**2 + _K1**2) * (variance + variance_truth + _K2**2)
    )
    return 1 - similarity.mean()


def spread_loss(error: Tensor, log_spread: Tensor) -> Tensor:
    """Negative log-likelihood of ``error`` under a Gaussian of that spread; the error itself is not trained by it."""
    return (0.5 * (error.detach() * torch.exp(-log_spread)) ** 2 + log_spread + 0.5 * math.log(2 * math.pi)).mean()
