"""Metrics, named sets of lenses, and reports of how well methods do on them."""

from lensdeblend.evaluation.reconstructors import evaluate_reconstructors
from lensdeblend.evaluation.report import Case, Report
from lensdeblend.evaluation.sets import LensSet, lens_set, lens_sets

__all__ = ["Case", "LensSet", "Report", "evaluate_reconstructors", "lens_set", "lens_sets"]
