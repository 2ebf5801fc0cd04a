"""``lensdeblend evaluate deblend``: judge deblenders on a set of simulated blends."""

from __future__ import annotations

import argparse
from pathlib import Path

from lensdeblend.cli.evaluations import add_evaluation_options, chosen_methods, report_on
from lensdeblend.evaluation import DeblendingReport, blend_sets, evaluate_deblenders

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_evaluation_options(
        parser, kind="deblender", default="joint", sets=blend_sets(), test_set="hsc", what="blends"
    )
    parser.add_argument(
        "--sky", type=Path, metavar="FOLDER", help="BAND.fits of real sky, for the set des-sky"
    )


def run(args: argparse.Namespace) -> int:
    methods = chosen_methods("deblender", args.methods, args.set)
    return report_on(args, methods, evaluate_deblenders, DeblendingReport, batch=args.batch, sky=args.sky)
