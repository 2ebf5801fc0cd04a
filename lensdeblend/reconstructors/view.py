"""An image as a fit looks at it: neighbours masked, the sky off, the noise as the light would have it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from astropy.nddata import NDData
from torch import Tensor

from lensdeblend.images import like
from lensdeblend.reconstructors.frame import Frame, PhotonNoise, estimated_from_data
from lensdeblend.reconstructors.neighbours import LensRegion, lens_region

__all__ = ["View"]

log = logging.getLogger(__name__)

_FEWEST_PIXELS = 30


@dataclass(frozen=True)
class View:
    """A prepared image as ``given`` and as fitted (``image``, ``frame``); ``noise`` where its variance was computed
    from the noisy data, ``region`` where it is wider than the lens."""

    given: NDData
    image: NDData
    frame: Frame
    noise: PhotonNoise | None
    region: LensRegion | None

    @classmethod
    def of(cls, given: NDData, radius: float | None = None, center: tuple[float, float] = (0.0, 0.0)) -> View:
        """Look at a prepared image of a lens around ``center``; see `lens_region` for ``radius``.

        Raises
        ------
        ValueError
            Where too few pixels are left unmasked, or none above 0.
        """
        _check_pixels(given)
        noise, image = estimated_from_data(given), given
        region = lens_region(given, radius, center)
        if region is not None:
            image = like(
                given, given.data - region.sky, uncertainty=given.uncertainty, mask=region.mask, meta=given.meta
            )
            _check_pixels(image)
            noise = noise and noise.above(region.sky)
        frame = Frame.of(image)
        if noise is not None:
            log.info("the variance was computed from the noisy data: computing it from the model instead")
            frame = frame.with_sigma(noise.sigma(torch.as_tensor(frame.smoothed(1.0))))
        return cls(given, image, frame, noise, region)

    def lit(self, light: Tensor) -> View:
        """The same with the noise that ``light`` (ny, nx of the frame) makes, where the noise is known to follow it."""
        return self if self.noise is None else replace(self, frame=self.frame.with_sigma(self.noise.sigma(light)))

    @property
    def sky(self) -> float:
        """The level that was taken off."""
        return 0.0 if self.region is None else self.region.sky

    @property
    def used(self) -> np.ndarray:
        """Where the image is not masked."""
        return np.ones(self.image.data.shape, bool) if self.image.mask is None else ~self.image.mask

    @property
    def notes(self) -> dict[str, Any]:
        """For the ``meta`` of a result: ``variance``, and in a wide image ``radius`` and ``sky``."""
        law = "as given"
        if self.noise is not None:
            law = f"{self.noise.background:.6g} + {self.noise.per_count:.6g} * model"
        return {"variance": law} | ({} if self.region is None else {"radius": self.region.radius, "sky": self.sky})


def _check_pixels(image: NDData) -> None:
    good = image.data.size if image.mask is None else int(np.sum(~image.mask))
    if good < _FEWEST_PIXELS:
        raise ValueError(f"a lens fit needs at least {_FEWEST_PIXELS} unmasked pixels; the image has {good}")
    if not (image.data > 0 if image.mask is None else (image.data > 0) & ~image.mask).any():
        raise ValueError("a lens fit needs light, but no unmasked pixel is above 0: was too much sky taken off?")
