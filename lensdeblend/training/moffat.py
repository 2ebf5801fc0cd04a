"""PSFs to train with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["MOFFAT_BETA", "moffats"]

#: Of the PSFs of telescopes on the ground and in space, from wide to hardly any wings.
MOFFAT_BETA = 2.5, 8.0
_HALF_KERNEL = 15


def moffats(fwhm: np.ndarray, beta: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Moffat profiles of sum 1, (..., 31, 31), of FWHM (...) in pixels and exponents that broadcast with it."""
    core = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    core, beta = (torch.as_tensor(x, dtype=torch.float32, device=device)[..., None, None] for x in (core, beta))
    steps = torch.arange(-_HALF_KERNEL, _HALF_KERNEL + 1, device=device)
    kernel = (1 + (steps**2 + steps[:, None] ** 2) / core**2) ** -beta
    return kernel / kernel.sum((-2, -1), keepdim=True)
