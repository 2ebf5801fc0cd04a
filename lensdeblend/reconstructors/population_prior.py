"""The priors of the population that a network learned from, as densities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from lensdeblend.lensing.parametric import LENS_NAMES, SersicLens
from lensdeblend.networks.weights import Card
from lensdeblend.scenes.populations import (
    Distribution, Fixed, LogUniform, Normal, PowerLaw, Uniform, population,
)

__all__ = ["PopulationPrior"]

# Of the source's shape: the widths of the Sérsic galaxies that recipes learn from.
_LOG_N, _LOG_N_SPREAD, _ELLIPTICITY = np.log(1.5), 0.6, 0.18


@dataclass(frozen=True)
class PopulationPrior:
    """Priors of the eight lens parameters, of ``source_radius`` and ``source_offset`` (arcsec); flat where there is
    none. The source's Sérsic index is log-normal, its ellipticity normal."""

    priors: Mapping[str, Distribution]

    @classmethod
    def of(cls, card: Card) -> PopulationPrior:
        """Those of the recipe on a card."""
        data = card.recipe.get("data", {})
        kinds = {kind.__name__: kind for kind in Distribution.__subclasses__()}
        priors = dict(population(data["population"]).priors) if "population" in data else {}
        for name, content in data.get("priors", {}).items():
            (kind, numbers), = content.items()
            priors[name] = kinds[kind](*(numbers if isinstance(numbers, list) else [numbers]))
        return cls(priors)

    def gaussian(self, model: SersicLens) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and one over the variance of every parameter of a fit with one source; 0 where no prior is normal."""
        mean, weight = torch.zeros(2, len(model.names), dtype=torch.float64)
        for index, name in enumerate(LENS_NAMES):
            prior = self.priors.get(name)
            if isinstance(prior, Normal):
                mean[index], weight[index] = prior.mean, prior.sd**-2
        mean[11], weight[11] = _LOG_N, _LOG_N_SPREAD**-2
        weight[12:14] = _ELLIPTICITY**-2
        return mean, weight

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Logarithm of the density (n,), up to a constant, at ``points`` (n, 14): lens, and source as fits have it, the
        radius and the Sérsic index as logarithms."""
        total = np.zeros(len(points))
        for index, name in enumerate(LENS_NAMES):
            total += _log_density(self.priors.get(name), points[:, index])
        total += _log_density(self.priors.get("source_radius"), np.exp(points[:, 10])) + points[:, 10]
        offset = self.priors.get("source_offset")
        if isinstance(offset, Fixed):
            # Uniform in a disc of that radius around where the lens's centre is seen from.
            x, y, gamma1, gamma2 = points[:, 4:8].T
            dx = points[:, 8] - (x - gamma1 * x - gamma2 * y)
            dy = points[:, 9] - (y - gamma2 * x + gamma1 * y)
            total += np.where(np.hypot(dx, dy) <= offset.value, 0.0, -np.inf)
        total -= 0.5 * ((points[:, 11] - _LOG_N) / _LOG_N_SPREAD) ** 2
        return total - 0.5 * (points[:, 12:14] ** 2).sum(1) / _ELLIPTICITY**2


def _log_density(prior: Distribution | None, x: np.ndarray) -> np.ndarray:
    if isinstance(prior, Normal):
        return -0.5 * ((x - prior.mean) / prior.sd) ** 2
    if not isinstance(prior, (Uniform, LogUniform, PowerLaw)):
        return np.zeros_like(x)
    inside = (x >= prior.low) & (x <= prior.high)
    slope = {LogUniform: -1.0, Uniform: 0.0}.get(type(prior), getattr(prior, "slope", 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(inside, slope * np.log(x) if slope else 0.0, -np.inf)
