"""What all populations share: priors that are data, draws, and the observation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from astropy.table import Table

from lensdeblend.scenes.components import Sersic
from lensdeblend.scenes.generated import GeneratedSource, SourceGenerator
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
    generator : `~lensdeblend.scenes.SourceGenerator`, str or mapping, optional
        What makes the sources in place of the population's own profiles. Their flux and place are those that the
        population draws; radius, ellipticity and index are wishes to the generator, but for those that it is given as
        conditions. Scenes then have `~lensdeblend.scenes.GeneratedSource`, which `~lensdeblend.simulate` makes.

    Raises
    ------
    TypeError
        For a prior that is no `Distribution`.
    ValueError
        For a generator where the population can take none.
    """

    name: str
    summary: str
    observation: Observation
    priors: Mapping[str, Distribution]
    generator: SourceGenerator | None = field(default=None, kw_only=True)

    #: Whether ``draw`` heeds the generator.
    takes_generator: ClassVar[bool] = False

    def __post_init__(self):
        if self.generator is not None:
            if not self.takes_generator:
                raise ValueError(f"{self.name}: a {type(self).__name__} takes no generator: its sources are its own")
            object.__setattr__(self, "generator", SourceGenerator.of(self.generator))
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

    def with_generator(
        self, method: str | SourceGenerator | None, *, options: Mapping[str, Any] | None = None,
        conditions: Mapping[str, Any] | None = None,
    ) -> Population:
        """The same population with sources that a generator makes; None gives back its own.

        Parameters
        ----------
        method : str, `~lensdeblend.scenes.SourceGenerator` or None
            A name of ``methods("generator")``.
        options, conditions : mapping, optional
            As for `~lensdeblend.scenes.SourceGenerator`, where ``method`` is a name.

        Raises
        ------
        TypeError, ValueError
            For options of no name, and for a population that takes no generator.

        Examples
        --------
        >>> import numpy as np
        >>> from lensdeblend.scenes.populations import population
        >>> lenses = population("lens-benchmark").with_generator("vae-flow")
        >>> source, = lenses.draw(np.random.default_rng(1)).sources
        >>> print(type(source).__name__, source.generator.method, *source.generator.conditions)
        GeneratedSource vae-flow radius n e1 e2
        """
        if isinstance(method, str):
            method = SourceGenerator(method, options or {}, conditions or {})
        elif options or conditions:
            raise TypeError("options and conditions go with the name of a generator")
        return replace(self, generator=method)

    def write(self, path: str | PathLike, *, overwrite: bool = False) -> None:
        """Write the population as YAML."""
        from lensdeblend.scenes.populations.yaml import write_population

        write_population(self, path, overwrite=overwrite)

    @property
    def table(self) -> Table:
        """The priors, one row a parameter."""
        return Table(rows=[(name, str(prior)) for name, prior in self.priors.items()], names=("parameter", "prior"))

    def __str__(self) -> str:
        lines = self.table.pformat(max_lines=-1, max_width=-1, align="<")
        made = [] if self.generator is None else [f"sources by {self.generator}"]
        return "\n".join([f"{self.name}: {self.summary}", *made, *(line.rstrip() for line in lines)])

    def _draw(self, rng: np.random.Generator, *names: str) -> dict[str, float]:
        return {name: float(self.priors[name].draw(rng)) for name in names}

    def _made(self, profile: Sersic, rng: np.random.Generator, *, n: float | None) -> Sersic | GeneratedSource:
        """The profile itself, or a galaxy with its properties and the index ``n`` that the generator is to make.

        Called when all else is drawn, so that scenes with and without a generator differ in nothing else.
        """
        if self.generator is None:
            return profile
        generator = self.generator.wishing(radius=profile.radius, n=n, e1=profile.e1, e2=profile.e2)
        seed = int(rng.integers(2**53))
        return GeneratedSource(generator, profile.flux, seed, center_x=profile.center_x, center_y=profile.center_y)
