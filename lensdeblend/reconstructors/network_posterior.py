"""What a trained posterior says of one image, in arcsec from the image's centre."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from astropy.nddata import NDData

from lensdeblend.networks.orientations import ORIENTATIONS
from lensdeblend.networks.posterior import LensPosterior, Oriented
from lensdeblend.networks.weights import Card, find_weights, load_weights
from lensdeblend.reconstructors.network_domain import as_seen, outside
from lensdeblend.reconstructors.network_grid import NetworkGrid, Stamp

__all__ = ["NetworkPosterior", "as_starts", "moved"]

_LENGTHS = [0, 4, 5, 8, 9, 10]
_START_INDEX, _START_INDEX_SPREAD, _START_ELLIPTICITY = 1.5, 0.35, 0.12


@dataclass(frozen=True)
class NetworkPosterior:
    """Samples and density of the columns `lensdeblend.networks.posterior.NAMES` given one image.

    Attributes
    ----------
    card : Card
    flags : tuple of str
        In what the image differs from those that were learned from.
    """

    card: Card
    flags: tuple[str, ...]
    grid: NetworkGrid
    oriented: Oriented

    @classmethod
    def of(cls, image: NDData, weights: str, *, device: str = "cpu", symmetrise: bool = True) -> NetworkPosterior:
        """Show the image to the network.

        Raises
        ------
        ValueError
            For weights that are not known, or not those of a posterior.
        """
        path = find_weights(weights)
        network, card = _loaded(path, path.stat().st_mtime_ns if path.is_file() else 0, device)
        grid = NetworkGrid.for_image(image, card.domain["pixels"], tuple(card.domain["pixel_scale"]))
        stamp = Stamp.of(image, grid)
        orientations = ORIENTATIONS if symmetrise else ORIENTATIONS[:1]
        with torch.no_grad():
            oriented = Oriented(network, as_seen([stamp], device), orientations)
        return cls(card, tuple(outside(grid, stamp, card.domain)), grid, oriented)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Samples (count, 11)."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        with torch.no_grad():
            theta = self.oriented.sample(count, generator).cpu().double().numpy()
        theta[:, _LENGTHS] *= self.grid.scale
        return moved(theta, self._offset)

    def log_prob(self, values: np.ndarray) -> np.ndarray:
        """Logarithm of the density (n,) at ``values`` (n, 11)."""
        theta = moved(values, -self._offset)
        theta[:, _LENGTHS] /= self.grid.scale
        device = self.oriented.read[0].device
        with torch.no_grad():
            there = self.oriented.log_prob(torch.as_tensor(theta, dtype=torch.float32, device=device))
        return there.cpu().double().numpy() - len(_LENGTHS) * np.log(self.grid.scale)

    @property
    def _offset(self) -> np.ndarray:
        return np.array(self.grid.offset) * self.grid.image_scale


def moved(values: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Lens and source (n, >= 10) told from a frame whose centre lies at ``offset`` of the one they are wanted in.

    Shear is zero at the centre of the frame it is told from, so that another frame has another source plane.
    """
    x, y = offset
    result = np.array(values, dtype=float)
    gamma1, gamma2 = result[:, 6], result[:, 7]
    result[:, 4:6] += offset
    result[:, 8] += x - gamma1 * x - gamma2 * y
    result[:, 9] += y - gamma2 * x + gamma1 * y
    return result


def as_starts(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Starts (n, 14) of a fit from samples (n, 11): the shape of the source, of which they say nothing, is drawn."""
    count = len(values)
    log_n = rng.normal(np.log(_START_INDEX), _START_INDEX_SPREAD, count)
    e1, e2 = rng.normal(0, _START_ELLIPTICITY, (2, count))
    return np.column_stack([values[:, :10], np.log(values[:, 10]), log_n, e1, e2])


@lru_cache(maxsize=2)
def _loaded(path: Path, changed: int, device: str) -> tuple[LensPosterior, Card]:
    network, card = load_weights(path, device=device)
    if not isinstance(network, LensPosterior):
        raise ValueError(f"the weights {card.name!r} are of the architecture {card.architecture!r}, not of a posterior")
    return network, card
