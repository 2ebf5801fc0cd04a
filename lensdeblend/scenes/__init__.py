"""Scenes, the observations of them, and populations to draw them from."""

from lensdeblend.scenes.components import (
    EPL, NFW, SIE, Gaussian, ImageSource, Knots, LightComponent, MassComponent, PointMass, PointSource, PointSubhalos,
    RealGalaxy, Sersic, Shear, TruncatedNFW, Vortex,
)
from lensdeblend.scenes.generated import GeneratedSource, SourceGenerator
from lensdeblend.scenes.observation import GaussianPSF, Observation
from lensdeblend.scenes.scene import Galaxy, Redshifts, Scene

__all__ = [
    "EPL", "NFW", "SIE", "Galaxy", "Gaussian", "GaussianPSF", "GeneratedSource", "ImageSource", "Knots",
    "LightComponent", "MassComponent", "Observation", "PointMass", "PointSource", "PointSubhalos", "RealGalaxy",
    "Redshifts", "Scene", "Sersic", "Shear", "SourceGenerator", "TruncatedNFW", "Vortex",
]
