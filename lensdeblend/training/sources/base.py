"""What every kind of source is: light at points, drawn in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["Brightness", "Sources", "checked_radius", "numpy_rng"]

#: Points (batch, points) in arcsec from each galaxy's centre -> flux per square arcsec, (batch, points).
Brightness = Callable[[Tensor, Tensor], Tensor]


class Sources(ABC):
    """Galaxies of flux 1 to be drawn in batches, on the device and in the dtype of the wished radii."""

    @abstractmethod
    def draw(self, radius: Tensor, generator: torch.Generator) -> Brightness:
        """Draw one galaxy a radius.

        Parameters
        ----------
        radius : Tensor
            (batch,): half-light radius in arcsec, the geometric mean of the axes of the ellipse that holds half of the
            light.
        generator : torch.Generator
            Where all randomness comes from: the same state gives the same galaxies.

        Returns
        -------
        callable
            ``brightness(x, y)``: points (batch, points) in arcsec from the galaxy's centre to flux per square arcsec
            (batch, points), each galaxy's total flux 1.

        Raises
        ------
        ValueError
            For radii that are not one-dimensional, finite and positive.
        """


def checked_radius(radius: Tensor) -> Tensor:
    """(batch, 1), or a clear error."""
    if radius.dim() != 1 or not radius.is_floating_point():
        raise ValueError(f"radii are a float tensor (batch,), not {radius.dtype} of shape {tuple(radius.shape)}")
    if not bool((torch.isfinite(radius) & (radius > 0)).all()):
        raise ValueError("half-light radii are finite and positive, in arcsec")
    return radius[:, None]


def numpy_rng(generator: torch.Generator) -> np.random.Generator:
    """A numpy generator seeded by torch's next number."""
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    return np.random.default_rng(int(seed))
