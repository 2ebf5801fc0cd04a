"""Galaxies to learn from: parametric, procedural, real, and mixtures of them."""

from lensdeblend.training.sources.base import Brightness, Sources
from lensdeblend.training.sources.cuts import Cuts
from lensdeblend.training.sources.galaxies import GalaxyStamps, SkippedGalaxiesWarning, read_galaxies, split_of
from lensdeblend.training.sources.mixture import Mixture
from lensdeblend.training.sources.parametric import Parametric
from lensdeblend.training.sources.real import RealImages
from lensdeblend.training.sources.registry import sources
from lensdeblend.training.sources.synthetic import Procedural

__all__ = [
    "Brightness", "Cuts", "GalaxyStamps", "Mixture", "Parametric", "Procedural", "RealImages",
    "SkippedGalaxiesWarning", "Sources", "read_galaxies", "sources", "split_of",
]
