"""Metrics, named sets of lenses and of blends, and reports of how well methods do on them."""

from lensdeblend.evaluation.blends import BlendSet, TrueBlend
from lensdeblend.evaluation.deblenders import evaluate_deblenders
from lensdeblend.evaluation.named_blends import blend_set, blend_sets
from lensdeblend.evaluation.reconstructors import evaluate_reconstructors
from lensdeblend.evaluation.report import Case, DeblendingReport, ReconstructionReport, Report
from lensdeblend.evaluation.sets import LensSet, lens_set, lens_sets

__all__ = [
    "BlendSet", "Case", "DeblendingReport", "LensSet", "ReconstructionReport", "Report", "TrueBlend", "blend_set",
    "blend_sets", "evaluate_deblenders", "evaluate_reconstructors", "lens_set", "lens_sets",
]
