"""Galaxies to learn from: parametric, procedural, real, and mixtures of them."""

from lensdeblend.training.sources.base import Brightness, Sources
from lensdeblend.training.sources.mixture import Mixture
from lensdeblend.training.sources.parametric import Parametric
from lensdeblend.training.sources.registry import sources
from lensdeblend.training.sources.synthetic import Procedural

__all__ = ["Brightness", "Mixture", "Parametric", "Procedural", "Sources", "sources"]
