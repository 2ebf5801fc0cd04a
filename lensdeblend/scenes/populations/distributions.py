"""Priors of one parameter, as records that can be printed and drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Distribution", "Fixed", "Integer", "LogUniform", "Normal", "PowerLaw", "Uniform", "distribution"]


class Distribution:
    """One parameter's prior."""

    def draw(self, rng: np.random.Generator, size: int | None = None):
        """A float, or an array of ``size``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Fixed(Distribution):
    """Always ``value``."""

    value: float

    def draw(self, rng, size=None):
        return self.value if size is None else np.full(size, self.value)


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform from ``low`` to ``high``."""

    low: float
    high: float

    def draw(self, rng, size=None):
        return rng.uniform(self.low, self.high, size)


@dataclass(frozen=True)
class LogUniform(Distribution):
    """Uniform in the logarithm from ``low`` to ``high``."""

    low: float
    high: float

    def draw(self, rng, size=None):
        return np.exp(rng.uniform(np.log(self.low), np.log(self.high), size))


@dataclass(frozen=True)
class Normal(Distribution):
    """Normal of ``mean`` and standard deviation ``sd``."""

    mean: float
    sd: float

    def draw(self, rng, size=None):
        return rng.normal(self.mean, self.sd, size)


@dataclass(frozen=True)
class PowerLaw(Distribution):
    """Density proportional to ``x**slope`` from ``low`` to ``high``; ``slope`` is not -1."""

    slope: float
    low: float
    high: float

    def draw(self, rng, size=None):
        power = self.slope + 1
        low, high = self.low**power, self.high**power
        return (low + rng.random(size) * (high - low)) ** (1 / power)


@dataclass(frozen=True)
class Integer(Distribution):
    """Whole numbers from ``low`` to ``high``, both taken, all equally likely."""

    low: int
    high: int

    def draw(self, rng, size=None):
        drawn = rng.integers(self.low, self.high, size, endpoint=True)
        return int(drawn) if size is None else drawn


def distribution(content: Any, where: str) -> Distribution:
    """Read ``{Uniform: [0, 1]}``.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> from lensdeblend.scenes.populations.distributions import distribution
    >>> distribution({"Uniform": [0.8, 1.6]}, "theta_E")
    Uniform(low=0.8, high=1.6)
    """
    kinds = {c.__name__: c for c in Distribution.__subclasses__()}
    if not isinstance(content, Mapping) or len(content) != 1 or next(iter(content)) not in kinds:
        raise ValueError(f"{where} must be one of {', '.join(kinds)}, such as {{Uniform: [0, 1]}}; got {content!r}")
    (kind, numbers), = content.items()
    numbers = numbers if isinstance(numbers, list) else [numbers]
    try:
        return kinds[kind](*(float(number) if kind != "Integer" else int(number) for number in numbers))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {kind} does not take {numbers!r}") from error
