"""``lensdeblend evaluate superresolve``: judge superresolvers on a set of lenses also simulated on finer pixels."""

from __future__ import annotations

import argparse

from lensdeblend.cli.evaluations import add_evaluation_options, chosen_methods, report_on
from lensdeblend.evaluation import (
    DownstreamReport, SuperResolutionReport, evaluate_downstream, evaluate_superresolvers, pair_sets,
)

__all__ = ["add_options", "run"]


_IMAGES, _JUDGED, _LEARNED = 90, 600, 2000


def add_options(parser: argparse.ArgumentParser) -> None:
    add_evaluation_options(
        parser, kind="superresolver", default="forward", sets=pair_sets(), test_set="deeplense-3",
        what="lenses, in even shares of the classes", n=_IMAGES, real=False,
    )
    parser.set_defaults(n=None)
    parser.add_argument("--factor", type=int, default=2, help="how many times smaller the pixels become, 1 to 5 (2)")
    parser.add_argument(
        "--noise", type=float, default=1.0, metavar="TIMES",
        help="what the noise of the images is multiplied with (1): 2 for half of the signal-to-noise",
    )
    parser.add_argument(
        "--downstream", type=int, nargs="?", const=_LEARNED, metavar="LEARNED",
        help=f"train a network on so many images ({_LEARNED}) to tell the classes apart, with and without what the "
        f"methods make of them, and judge it on -n others ({_JUDGED})",
    )


def run(args: argparse.Namespace) -> int:
    methods = chosen_methods("superresolver", args.methods, args.set)
    options = {"batch": args.batch, "factor": args.factor, "noise": args.noise}
    if args.downstream is None:
        args.n = _IMAGES if args.n is None else args.n
        return report_on(args, methods, evaluate_superresolvers, SuperResolutionReport, **options)
    args.n = _JUDGED if args.n is None else args.n
    return report_on(
        args, methods, evaluate_downstream, DownstreamReport, learned=args.downstream, **options
    )
