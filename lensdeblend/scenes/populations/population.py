"""What all populations share: priors that are data, draws, and the observation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from astropy.table import Table

from lensdeblend.scenes.observation import Observation
from lensdeblend.scenes.populations.distributions import Distribution
from lensdeblend.scenes.scene import Scene
from lensdeblend.spelling import advice

__all__ = ["Population"]


@dataclass(frozen=True)
class Population(ABC):
    """Scenes drawn at random, and how they are seen.

    Parameters
    ----------
    name, summary : str
    observation : `~lensdeblend.scenes.Observation`
        How the scenes are seen; what varies from one to the next is drawn by `observe`.
    priors : mapping of str to `Distribution`
        Angles in arcsec. ``print(population)`` shows them.
    """

    name: str
    summary: str
    observation: Observation
    priors: Mapping[str, Distribution]

    def __post_init__(self):
        for name, prior in self.priors.items():
            if not isinstance(prior, Distribution):
                raise TypeError(
                    f"{self.name}: the prior of {name} must be a Distribution, such as Uniform(0, 1); got {prior!r}"
                )
        object.__setattr__(self, "priors", MappingProxyType(dict(self.priors)))

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Scene:
        """Draw one scene."""

    def observe(self, rng: np.random.Generator, peak: float) -> Observation:
        """Draw the observation of one scene, whose noise-free sources have the brightest pixel ``peak``.

        Where there is a prior on ``peak_snr``, the background is such that ``peak`` is that many times the noise.
        """
        if "peak_snr" not in self.priors:
            return self.observation
        return replace(self.observation, background_rms=float(peak / self.priors["peak_snr"].draw(rng)))

    def with_priors(self, **priors: Distribution) -> Population:
        """The same population with some priors replaced.

        Raises
        ------
        ValueError
            For a parameter the population does not have.

        Examples
        --------
        >>> from lensdeblend.scenes.populations import Uniform, population
        >>> narrow = population("lens-benchmark").with_priors(theta_E=Uniform(1.0, 1.1))
        >>> narrow.priors["theta_E"]
        Uniform(low=1.0, high=1.1)
        """
        for name in priors:
            if name not in self.priors:
                raise ValueError(f"{self.name} has no prior on {name!r}; {advice(name, self.priors, 'It has')}")
        return replace(self, priors={**self.priors, **priors})

    @property
    def table(self) -> Table:
        """The priors, one row a parameter."""
        return Table(rows=[(name, str(prior)) for name, prior in self.priors.items()], names=("parameter", "prior"))

    def __str__(self) -> str:
        lines = self.table.pformat(max_lines=-1, max_width=-1, align="<")
        return "\n".join([f"{self.name}: {self.summary}", *(line.rstrip() for line in lines)])

    def _draw(self, rng: np.random.Generator, *names: str) -> dict[str, float]:
        return {name: float(self.priors[name].draw(rng)) for name in names}
