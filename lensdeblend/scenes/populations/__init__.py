"""Scenes drawn at random: lenses, blends, the DeepLense models."""

from lensdeblend.scenes.populations.blends import BlendPopulation
from lensdeblend.scenes.populations.deeplense import DeepLense, axion_mass, einstein_radius
from lensdeblend.scenes.populations.distributions import (
    Distribution, Fixed, Integer, LogUniform, Normal, PowerLaw, Uniform,
)
from lensdeblend.scenes.populations.lenses import LensPopulation
from lensdeblend.scenes.populations.population import Population
from lensdeblend.scenes.populations.registry import population, populations
from lensdeblend.scenes.populations.yaml import read_population

__all__ = [
    "BlendPopulation", "DeepLense", "Distribution", "Fixed", "Integer", "LensPopulation", "LogUniform", "Normal",
    "Population", "PowerLaw", "Uniform", "axion_mass", "einstein_radius", "population", "populations",
    "read_population",
]
