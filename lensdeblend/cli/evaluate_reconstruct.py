"""``lensdeblend evaluate reconstruct``: judge reconstructors on a set of simulated lenses."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lensdeblend.cli.common import DONE, SOME_FAILED, add_output_options, refuse_existing
from lensdeblend.cli.options import parse_options
from lensdeblend.evaluation import Report, evaluate_reconstructors, lens_sets
from lensdeblend.plugins import create, method_class
from lensdeblend.results.panels import check_format

__all__ = ["add_options", "chosen_methods", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--methods", default="forward", metavar="NAME,...",
        help="reconstructors of `lensdeblend methods` (forward); LABEL=NAME for one under another label",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="METHOD.OPTION=VALUE",
        help="an option of one of the methods, by its label; may be repeated",
    )
    parser.add_argument("--test-set", default="benchmark", metavar="NAME", help=f"{', '.join(lens_sets())} (benchmark)")
    parser.add_argument("-n", "--n", type=int, default=100, help="how many lenses (100)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same lenses and results (1)")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="galaxies, for the set of real sources")
    parser.add_argument(
        "--split", choices=("test", "validation", "train", "all"), default="test",
        help="which of the galaxies (test: those that networks were not trained with)",
    )
    parser.add_argument("--batch", type=int, default=8, help="images that a method gets at a time (8)")
    add_output_options(parser, output="folder for report.html, report.txt and the tables as CSV and ECSV")
    parser.add_argument("--no-pictures", action="store_true", help="leave the pictures out of report.html")


def run(args: argparse.Namespace) -> int:
    methods = chosen_methods("reconstructor", args.methods, args.set)
    if args.output is not None:
        refuse_existing(Report.files(args.output), args.overwrite)
        if not args.no_pictures:
            check_format("report.png")
    report = evaluate_reconstructors(
        methods, args.test_set, args.n, args.seed, images=args.images, split=args.split, batch=args.batch
    )
    print(report.text)
    if args.output is not None:
        report.write(args.output, overwrite=args.overwrite, pictures=not args.no_pictures)
    return SOME_FAILED if report.failures else DONE


def chosen_methods(kind: str, listed: str, settings: Sequence[str]) -> dict[str, object]:
    """Methods by label, from ``"forward,quick=forward"`` and settings like ``"quick.starts=4"``."""
    names: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in listed.split(","))):
        label, _, name = item.rpartition("=")
        label = label or name
        if label in names:
            raise ValueError(f"--methods names {label!r} twice; give one a label, such as other={name}")
        names[label] = name
    if not names:
        raise ValueError("--methods names no method; see `lensdeblend methods`")
    own: dict[str, list[str]] = {label: [] for label in names}
    for setting in settings:
        option, separator, value = setting.partition("=")
        label, dot, option = option.rpartition(".")
        if not (dot and separator):
            raise ValueError(f"--set takes METHOD.OPTION=VALUE; got {setting!r}")
        if label not in own:
            raise ValueError(f"--set {setting}: {label!r} is none of the methods {', '.join(own)}")
        own[label].append(f"{option}={value}")
    return {
        label: create(kind, name, **parse_options(method_class(kind, name), own[label]))
        for label, name in names.items()
    }
