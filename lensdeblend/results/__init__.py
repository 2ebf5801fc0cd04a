"""The five frozen results."""

from lensdeblend.results.base import Result
from lensdeblend.results.records import Deblending, Generation, Reconstruction, Simulation, SuperResolution

__all__ = ["Deblending", "Generation", "Reconstruction", "Result", "Simulation", "SuperResolution"]
