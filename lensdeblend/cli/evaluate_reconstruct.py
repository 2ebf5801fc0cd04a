"""``lensdeblend evaluate reconstruct``: judge reconstructors on a set of simulated lenses."""

from __future__ import annotations

import argparse

from lensdeblend.cli.evaluations import add_evaluation_options, chosen_methods, report_on
from lensdeblend.evaluation import ReconstructionReport, evaluate_reconstructors, lens_sets

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_evaluation_options(
        parser, kind="reconstructor", default="forward", sets=lens_sets(), test_set="benchmark", what="lenses"
    )


def run(args: argparse.Namespace) -> int:
    methods = chosen_methods("reconstructor", args.methods, args.set)
    return report_on(args, methods, evaluate_reconstructors, ReconstructionReport, batch=args.batch)
