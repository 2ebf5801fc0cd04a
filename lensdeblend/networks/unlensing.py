"""What networks that undo a lens take and give."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Seen", "Unlensed", "standard_deviations"]


@dataclass
class Seen:
    """A batch of lens images. All lengths in pixels.

    ``image``, ``sigma`` (batch, n, n): data and noise, in one unit; ``sigma`` 0 for noise-free ones. ``used`` (batch,
    n, n), bool: False where masked. ``psf_fwhm`` (batch,).
    """

    image: Tensor
    sigma: Tensor
    used: Tensor
    psf_fwhm: Tensor

    def __getitem__(self, index) -> Seen:
        return Seen(self.image[index], self.sigma[index], self.used[index], self.psf_fwhm[index])

    def __len__(self) -> int:
        return len(self.image)


@dataclass
class Unlensed:
    """What a network makes of it.

    ``parameters`` (batch, 8): the lens, lengths in pixels; ``standard`` the same in units of the population;
    ``log_spread`` (batch, 8) the logarithm of their errors in these units, or None. ``unlensed`` (batch, n, n): the
    source through the PSF, in the image's unit. ``source`` (batch, f n, f n): the source before the PSF on pixels ``f``
    times smaller, surface brightness in the unit of the image's pixels, or None.
    """

    parameters: Tensor
    standard: Tensor
    log_spread: Tensor | None
    unlensed: Tensor
    source: Tensor | None


def standard_deviations(spread) -> Tensor:
    """As a tensor, checked: the width of each parameter over the population."""
    spread = torch.tensor(spread, dtype=torch.float32)
    if spread.shape != (8,) or not bool((spread > 0).all()):
        raise ValueError(f"spread must be eight positive numbers; got {spread.tolist()}")
    return spread
