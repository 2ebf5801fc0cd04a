"""Priors of one parameter, as records that can be printed and drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Distribution", "Fixed", "Integer", "LogUniform", "Normal", "PowerLaw", "Uniform"]


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
