"""What methods share whose networks make pixels half the size, and no others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from astropy.nddata import NDData
from torch import Tensor, nn

from lensdeblend.interfaces import Image, SuperResolver
from lensdeblend.networks.unlensing import Seen
from lensdeblend.options import check_device, check_factor, check_whole, chosen_device
from lensdeblend.reconstructors.network_grid import gaussian_width
from lensdeblend.results import SuperResolution
from lensdeblend.superresolvers.batches import batches
from lensdeblend.superresolvers.filling import filled, known
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.poor_fit import is_poor
from lensdeblend.superresolvers.super_weights import AUTO, NetworkView, candidates, super_weights

__all__ = ["FACTOR", "Shown", "Trained"]

#: What the networks were made for.
FACTOR = 2


@dataclass(frozen=True)
class Shown:
    """Images of one grid: on finer pixels, as a network sees them, in units of their brightest pixel, and these."""

    pixels: Sequence[FinePixels]
    seen: Seen
    weight: Tensor
    units: np.ndarray

    @classmethod
    def of(cls, pixels: Sequence[FinePixels], device: str) -> Shown:
        """Without holes, which the networks have never seen; ``weight`` is one over the noise, 0 in the holes."""
        rows = [_plain(one.image) for one in pixels]
        data, sigma, weight, width, units = (
            torch.as_tensor(np.stack(column), dtype=torch.float32, device=device) for column in zip(*rows)
        )
        used = torch.ones_like(data, dtype=torch.bool)
        return cls(pixels, Seen(data, sigma, used, width), weight, np.array([row[-1] for row in rows]))


@dataclass(frozen=True)
class Trained(SuperResolver):
    """A method that is a trained network and what follows from its answer.

    Parameters
    ----------
    weights : str
        A name of ``lensdeblend weights``, or the path of a safetensors file; ``"auto"`` for those that were trained on
        the image's pixels and PSF.
    batch : int
        Images that are worked on at once.
    device : str
        ``"auto"`` (a GPU where there is one) or a torch device.
    """

    weights: str = "auto"
    batch: int = 32
    device: str = "auto"

    #: The name of the method, and of the architecture of its weights.
    name: ClassVar[str]
    architecture: ClassVar[str]

    def __post_init__(self):
        check_whole("batch", self.batch, 1)
        check_device(self.device)

    @abstractmethod
    def told(self, network: nn.Module, shown: Shown) -> list[dict]:
        """Of each image the fields of a `~lensdeblend.results.SuperResolution`.

        ``image`` is an array in the data's unit; ``fitted`` beside it tells how many numbers were fitted to the data.
        """

    def superresolve(self, image: Image, factor: float, rng: np.random.Generator) -> SuperResolution:
        """Return the finer image of one prepared image; nothing is random.

        Raises
        ------
        TypeError
            For bands, and for a factor that is no number.
        ValueError
            For a factor that is not 2, and for an image that no weights are for.
        """
        result, = self.superresolve_batch([image], factor, rng)
        return result

    def superresolve_batch(
        self, images: Sequence[Image], factor: float, rng: np.random.Generator
    ) -> list[SuperResolution]:
        """Return one `~lensdeblend.results.SuperResolution` an image, those of one shape computed together."""
        device = chosen_device(self.device)
        check_factor(factor)
        if factor != FACTOR:
            raise ValueError(
                f"{self.name} makes pixels {FACTOR} times smaller and nothing else; got factor={factor}: "
                "method='forward' and method='physics' take any factor from 1 to 5"
            )
        keys, views, cards = [], [], candidates(str(self.weights), device, self.architecture)
        for image in images:
            if isinstance(image, Mapping):
                raise TypeError(
                    f"{self.name} takes one image, not bands: give it one band, or choose method='forward'"
                )
            view = NetworkView.of(image, cards, named=self.weights != AUTO, method=self.name)
            pixels = FinePixels(image, factor)
            keys.append((view.card.name, image.data.shape, pixels.scale))
            views.append((pixels, view))
        results: list[SuperResolution | None] = [None] * len(images)
        with torch.no_grad():
            for part in batches(keys, self.batch):
                for index, result in zip(part, self._together([views[i] for i in part], device)):
                    results[index] = result
        return results

    def _together(self, views: Sequence[tuple[FinePixels, NetworkView]], device: str) -> list[SuperResolution]:
        name = views[0][1].card.name if self.weights == AUTO else str(self.weights)
        network, card = super_weights(name, device, self.architecture)
        found = self.told(network, Shown.of([pixels for pixels, _ in views], device))
        meta = {"weights": card.name, "weights_sha256": card.sha256}
        return [_dressed(pixels, view.flags, fields, meta) for (pixels, view), fields in zip(views, found)]


def _dressed(pixels: FinePixels, flags: Sequence[str], fields: dict, meta: Mapping) -> SuperResolution:
    image, fine = pixels.image, fields.pop("image")
    good = known(image)
    left = (np.where(good, image.data, 0) - pixels.gathered(fine))[good] / np.sqrt(image.uncertainty.array[good])
    freedom = max(int(good.sum()) - fields.pop("fitted"), 1)
    chi2 = float(np.sum(left**2)) / freedom
    poor = ["poor fit"] * is_poor(chi2, freedom)
    absent = {"intrinsic": None, "source": None, "deflection": None, "convergence": None, "parameters": None}
    return SuperResolution(
        image=pixels.dressed(fine), chi2=chi2, flags=(*flags, *poor), meta={**meta, "degrees_of_freedom": freedom},
        **{**absent, **fields},
    )


def _plain(image: NDData) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float]:
    """Data and noise without holes, one over the noise, width of the PSF in pixels, the unit of all."""
    good = known(image)
    data = filled(np.where(good, image.data, 0.0).astype(float), ~good)
    unit = float(np.abs(data).max()) or 1.0
    sigma = np.sqrt(np.where(good, image.uncertainty.array, np.median(image.uncertainty.array[good])))
    width = 0.0 if image.psf is None else gaussian_width(image.psf)
    return data / unit, sigma / unit, np.where(good, unit / sigma, 0.0), width, unit
