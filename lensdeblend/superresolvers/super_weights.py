"""Which weights of an architecture are for an image, and what the network is shown of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from astropy.nddata import NDData
from torch import nn

from lensdeblend.images import pixel_scale
from lensdeblend.networks.weights import Card, cards, load_weights
from lensdeblend.reconstructors.network_domain import outside
from lensdeblend.reconstructors.network_grid import NetworkGrid, Stamp, gaussian_width
from lensdeblend.superresolvers.filling import filled

__all__ = ["AUTO", "NetworkView", "candidates", "super_weights"]

AUTO = "auto"


@lru_cache(maxsize=4)
def super_weights(name: str, device: str, architecture: str) -> tuple[nn.Module, Card]:
    """The network of a weight file, and its card.

    Raises
    ------
    ValueError
        As `~lensdeblend.networks.weights.load_weights`, and for weights of something else.
    """
    network, card = load_weights(name, device=device)
    if card.architecture != architecture:
        kind = "of another method" if card.architecture.startswith("super-") else "not for super-resolution"
        raise ValueError(f"the weights {name!r} are {kind}: {card.architecture}, not {architecture}")
    return network, card


def candidates(weights: str, device: str, architecture: str) -> list[Card]:
    """Cards of the weights of a name, or for `AUTO` of all of an architecture."""
    if weights != AUTO:
        return [super_weights(weights, device, architecture)[1]]
    return [card for _, card in cards() if card.architecture == architecture]


@dataclass(frozen=True)
class NetworkView:
    """An image on the pixels of the network of some weights, and how it differs from what that was trained on."""

    card: Card
    grid: NetworkGrid
    stamp: Stamp
    flags: tuple[str, ...]

    @classmethod
    def of(
        cls, image: NDData, known: list[Card], *, named: bool, method: str, nearest: bool = False
    ) -> NetworkView:
        """For the weights of a method that were trained on such pixels and such a PSF; where they were ``named``, for
        them in any case; where there are none and the ``nearest`` will do, for those.

        Raises
        ------
        ValueError
            Where there are none, with those that there are.
        """
        scale = pixel_scale(image).to_value("arcsec")
        width = 0.0 if image.psf is None else scale * gaussian_width(image.psf)
        first = None
        for card in sorted(known, key=lambda card: _distance(card.domain, scale, width)):
            view = cls._seen(image, card)
            if named or view.is_familiar:
                return view
            first = first or view
        if nearest and first is not None:
            return first
        raise ValueError(_advice(image, known, method))

    @classmethod
    def _seen(cls, image: NDData, card: Card) -> NetworkView:
        grid = NetworkGrid.for_image(image, card.domain["pixels"], tuple(card.domain["pixel_scale"]))
        stamp = Stamp.of(image, grid)
        return cls(card, grid, _whole(image, grid, stamp), tuple(outside(grid, stamp, card.domain)))

    @property
    def is_familiar(self) -> bool:
        """Whether the weights were trained on such pixels and such a PSF; noise is nothing that others would be better
        at."""
        return not [flag for flag in self.flags if "times the noise" not in flag]

    @property
    def middle(self) -> tuple[float, float]:
        """Of the network's frame (x, y), arcsec from the middle of the image."""
        x, y = self.grid.offset
        return x * self.grid.image_scale, y * self.grid.image_scale


def _distance(domain: Mapping, scale: float, width: float) -> float:
    """How far pixels and PSF, arcsec, are from those trained on, in factors."""
    low, high = domain["pixel_scale"]
    known = domain["psf_fwhm"][0] * low
    return abs(np.log(scale / np.sqrt(low * high))) + abs(np.log(max(width, 1e-3 * low) / known))


def _whole(image: NDData, grid: NetworkGrid, stamp: Stamp) -> Stamp:
    """Without holes, which the network has never seen: dark sky beyond the image, within it what is around them."""
    if stamp.used.all() or not stamp.used.any():
        return stamp
    within = grid.from_image(np.ones(image.data.shape)) / grid.factor**2 > 0.5
    data = np.where(within, filled(stamp.data, ~stamp.used), 0.0)
    sigma = np.where(stamp.used, stamp.sigma, np.median(stamp.sigma[stamp.used]))
    return Stamp(data, sigma, np.ones_like(stamp.used), stamp.psf_fwhm)


def _advice(image: NDData, known: list[Card], method: str) -> str:
    way_out = "method='forward' fits a lens of any pixels and PSF without weights"
    if not known:
        return (
            f"there are no weights for {method}: train some, as with 'lensdeblend train {method}-2', or choose another "
            f"method: {way_out}"
        )
    described = "; ".join(
        f"{card.name} ({card.domain['pixels']} pixels a side of {card.domain['pixel_scale'][0]:.3g} arcsec, PSF FWHM "
        f"{card.domain['psf_fwhm'][0]:.3g} pixels)" for card in known
    )
    ny, nx = image.data.shape
    scale = pixel_scale(image).to_value("arcsec")
    psf = "without a PSF" if image.psf is None else f"PSF FWHM {gaussian_width(image.psf):.3g} pixels"
    option = "".join(part.capitalize() for part in method.split("-"))
    return (
        f"no weights for {method} are for an image of {nx} by {ny} pixels of {scale:.3g} arcsec, {psf}; there are "
        f"{described}. Name one, as in {option}(weights={known[0].name!r}), to use it none the less, train your own, "
        f"or choose another method: {way_out}"
    )
