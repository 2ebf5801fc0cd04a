"""Weights of galaxies, kept while they are in use."""

from __future__ import annotations

from functools import lru_cache

from lensdeblend.networks.galaxies import GalaxyAutoencoder
from lensdeblend.networks.weights import Card, load_weights

__all__ = ["ONE_BAND", "THREE_BANDS", "galaxy_weights"]

ONE_BAND, THREE_BANDS = "galaxies", "galaxies-colour"


@lru_cache(maxsize=4)
def galaxy_weights(weights: str, device: str) -> tuple[GalaxyAutoencoder, Card]:
    """The auto-encoder of a weight file, and its card.

    Raises
    ------
    ValueError
        As `~lensdeblend.networks.weights.load_weights`, and for weights of something else.
    """
    network, card = load_weights(weights, device=device)
    if not isinstance(network, GalaxyAutoencoder):
        raise ValueError(f"the weights {weights!r} are not of galaxies: {card.architecture}")
    return network, card
