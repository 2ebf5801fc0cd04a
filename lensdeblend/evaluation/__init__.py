"""Metrics, named sets of lenses, of blends and of galaxies, and reports of how well methods do on them."""

from lensdeblend.evaluation.blends import BlendSet, TrueBlend
from lensdeblend.evaluation.deblenders import evaluate_deblenders
from lensdeblend.evaluation.downstream import evaluate_downstream
from lensdeblend.evaluation.galaxy_samples import GalaxySample, GalaxySet, galaxy_set, galaxy_sets
from lensdeblend.evaluation.generators import evaluate_generators
from lensdeblend.evaluation.named_blends import blend_set, blend_sets
from lensdeblend.evaluation.named_pairs import pair_set, pair_sets
from lensdeblend.evaluation.pairs import PairSet, TruePair
from lensdeblend.evaluation.reconstructors import evaluate_reconstructors
from lensdeblend.evaluation.report import (
    Case, DeblendingReport, DownstreamReport, GenerationReport, ReconstructionReport, Report, SuperResolutionReport,
)
from lensdeblend.evaluation.sets import LensSet, lens_set, lens_sets
from lensdeblend.evaluation.superresolvers import evaluate_superresolvers

__all__ = [
    "BlendSet", "Case", "DeblendingReport", "DownstreamReport", "GalaxySample", "GalaxySet", "GenerationReport",
    "LensSet", "PairSet", "ReconstructionReport", "Report", "SuperResolutionReport", "TrueBlend", "TruePair",
    "blend_set", "blend_sets", "evaluate_deblenders", "evaluate_downstream", "evaluate_generators",
    "evaluate_reconstructors", "evaluate_superresolvers", "galaxy_set", "galaxy_sets", "lens_set", "lens_sets",
    "pair_set", "pair_sets",
]
