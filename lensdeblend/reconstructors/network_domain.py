"""What a network is shown of images, and whether it was trained on such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lensdeblend.networks.unlensing import Seen
from lensdeblend.reconstructors.network_grid import NetworkGrid, Stamp

__all__ = ["as_seen", "brightest", "outside"]

_MARGIN = 1e-3


def brightest(stamp: Stamp) -> float:
    """The brightest pixel: in units of it, single precision holds any image."""
    return float(np.abs(stamp.data).max()) or 1.0


def as_seen(stamps: Sequence[Stamp], device: str) -> Seen:
    """The stamps as a batch, each in units of its brightest pixel."""
    def stacked(arrays, dtype=torch.float32) -> Tensor:
        return torch.as_tensor(np.stack(list(arrays)), dtype=dtype, device=device)

    return Seen(
        stacked(s.data / brightest(s) for s in stamps), stacked(s.sigma / brightest(s) for s in stamps),
        stacked((s.used for s in stamps), torch.bool), stacked(s.psf_fwhm for s in stamps),
    )


def outside(grid: NetworkGrid, stamp: Stamp, domain: Mapping) -> list[str]:
    """Flags that say in what the image differs from those of a card's ``domain``."""
    flags = []
    n = domain["pixels"]
    low, high = domain["pixel_scale"]
    if not low * (1 - _MARGIN) <= grid.image_scale <= high * (1 + _MARGIN):
        flags.append(f"out_of_domain: pixel scale {grid.image_scale:.3g} arcsec, trained on {low:.3g} to {high:.3g}")
    low, high = domain["psf_fwhm"]
    width = stamp.psf_fwhm
    if not low * 0.95 <= width <= high * 1.05:
        flags.append(f"out_of_domain: PSF FWHM of {width:.2g} pixels, trained on {low:.2g} to {high:.2g}")
    smallest = min(grid.shape) / grid.factor
    if smallest < 0.9 * n:
        flags.append(f"out_of_domain: {smallest:.0f} pixels a side, trained on {n}")
    used = stamp.used
    peak = float(stamp.data[used].max()) if used.any() else 0.0
    noise = float(np.median(stamp.sigma[used])) if used.any() else np.inf
    ratio = peak / noise if noise > 0 else np.inf
    span = domain.get("peak_snr")
    least = span[0] if span else np.inf
    if ratio < 0.9 * least and (span or ratio < 300):
        trained = f"{span[0]:.3g} to {span[1]:.3g}" if span else "images without noise"
        flags.append(f"out_of_domain: peak {ratio:.3g} times the noise, trained on {trained}")
    return flags
