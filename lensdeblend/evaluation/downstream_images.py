"""Many images of lenses with and without substructure, for a network that is to tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, VarianceUncertainty

from lensdeblend.evaluation.named_pairs import pair_sets
from lensdeblend.scenes.populations.deeplense import CLASSES
from lensdeblend.spelling import advice

__all__ = ["DeepLenseImages", "Draw", "downstream_sets"]

_CORRECTED = "-corrected"
_AT_ONCE = 32
# The last number of every seed; it is the rank of a process where a recipe draws what networks learn from.
_APART = 2**31

#: How many, and a seed, in; images of one grid and the class of each out. Seeds are tuples of whole numbers.
Draw = Callable[[int, tuple[int, ...]], tuple[Sequence[NDData], Sequence[str]]]


@dataclass(frozen=True)
class DeepLenseImages:
    """Draws images of one DeepLense model, each of its classes as often as chance has it.

    Parameters
    ----------
    model : int
        1, 2 or 3.
    published : bool
        The published Einstein radii and subhalo masses, instead of the corrected ones.
    noise : float
        What the noise is multiplied with.

    Notes
    -----
    Images are those of `lensdeblend.training.deeplense_pairs.DeepLensePairs`: drawn in batches, two by two rays a
    pixel. They are not those of the `PairSet` of the same name, which another code draws a hundred times more slowly.

    Examples
    --------
    >>> from lensdeblend.evaluation.downstream_images import DeepLenseImages
    >>> images, kinds = DeepLenseImages(3)(2, (1, 0))
    >>> images[0].data.shape, kinds
    ((64, 64), ['axion', 'none'])
    """

    model: int
    published: bool = True
    noise: float = 1.0

    def __call__(self, count: int, seed: tuple[int, ...]) -> tuple[list[NDData], list[str]]:
        from lensdeblend.training.deeplense_pairs import DeepLensePairs

        pairs = DeepLensePairs(self.model, self.published)
        observation = pairs.observation
        images, kinds = [], []
        for part, start in enumerate(range(0, count, _AT_ONCE)):
            batch = pairs.draw(min(_AT_ONCE, count - start), (*seed, part, _APART), fine=False)
            kinds += [CLASSES[kind] for kind in batch.kind.tolist()]
            clean, image, sigma = (each.double().numpy() for each in (batch.clean, batch.image, batch.sigma))
            seen = clean + self.noise * (image - clean)
            images += [
                NDData(
                    data, unit=observation.unit, psf=np.array(observation.kernel),
                    uncertainty=VarianceUncertainty((self.noise * error) ** 2),
                    meta={"PIXSCALE": float(observation.pixel_scale.to_value(u.arcsec))},
                )
                for data, error in zip(seen, sigma)
            ]
        return images, kinds


def downstream_sets(name: str, noise: float) -> dict[str, Draw]:
    """By model, what draws the images of the set called ``name``, one that `pair_sets` lists.

    Raises
    ------
    ValueError
        For an unknown name; the message gives the nearest and all known ones.
    """
    if name not in pair_sets():
        raise ValueError(f"unknown set of lenses {name!r}; {advice(name, pair_sets())}")
    published, which = not name.endswith(_CORRECTED), name.removesuffix(_CORRECTED).rpartition("-")[2]
    models = (1, 2, 3) if which == "deeplense" else (int(which),)
    return {str(model): DeepLenseImages(model, published, noise) for model in models}
