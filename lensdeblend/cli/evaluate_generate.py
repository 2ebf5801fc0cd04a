"""``lensdeblend evaluate generate``: hold generators against galaxies that they have not learned from."""

from __future__ import annotations

import argparse

from lensdeblend.cli.evaluations import add_evaluation_options, chosen_methods, report_on
from lensdeblend.evaluation import GenerationReport, evaluate_generators, galaxy_sets

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_evaluation_options(
        parser, kind="generator", default="vae-flow", sets=galaxy_sets(), test_set="made", what="galaxies", n=400,
        batches=False, several_folders=True,
    )
    parser.add_argument(
        "--peak-snr", type=float, default=30.0, help="brightest pixel over the noise, where there is any (30)"
    )
    parser.add_argument(
        "--morphology", type=int, default=150, metavar="N",
        help="of how many galaxies to measure concentration, asymmetry, Gini and M20 (150); 0 needs no statmorph",
    )


def run(args: argparse.Namespace) -> int:
    methods = chosen_methods("generator", args.methods, args.set)
    return report_on(
        args, methods, evaluate_generators, GenerationReport, peak_snr=args.peak_snr, morphology=args.morphology
    )
