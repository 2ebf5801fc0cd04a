"""What the ``evaluate`` subcommands of two words share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lensdeblend.cli.common import DONE, SOME_FAILED, add_output_options, refuse_existing
from lensdeblend.cli.options import parse_options
from lensdeblend.evaluation import Report
from lensdeblend.plugins import create, method_class
from lensdeblend.results.panels import check_format

__all__ = ["add_evaluation_options", "chosen_methods", "report_on"]


def add_evaluation_options(
    parser: argparse.ArgumentParser, *, kind: str, default: str, sets: Sequence[str], test_set: str, what: str,
    n: int = 100, batches: bool = True, several_folders: bool = False, real: bool = True,
) -> None:
    """Add the options of one kind of method, whose test sets consist of ``what``, such as lenses.

    ``n`` is how many by default; ``batches``: whether a method gets several at a time; ``real``: whether there are sets
    of real galaxies; ``several_folders``: whether ``--images`` may be repeated.
    """
    parser.add_argument(
        "--methods", default=default, metavar="NAME,...",
        help=f"{kind}s of `lensdeblend methods` ({default}); LABEL=NAME for one under another label",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="METHOD.OPTION=VALUE",
        help="an option of one of the methods, by its label; may be repeated",
    )
    parser.add_argument("--test-set", default=test_set, metavar="NAME", help=f"{', '.join(sets)} ({test_set})")
    parser.add_argument("-n", "--n", type=int, default=n, help=f"how many {what} ({n})")
    parser.add_argument("--seed", type=int, default=1, help=f"the same seed gives the same {what} and results (1)")
    if real:
        folders = {"action": "append", "default": []} if several_folders else {}
        parser.add_argument(
            "--images", type=Path, metavar="FOLDER", **folders,
            help="galaxies, for the sets of real ones" + ("; may be repeated" if several_folders else ""),
        )
        parser.add_argument(
            "--split", choices=("test", "validation", "train", "all"), default="test",
            help="which of the galaxies (test: those that networks were not trained with)",
        )
    if batches:
        parser.add_argument("--batch", type=int, default=8, help="images that a method gets at a time (8)")
    add_output_options(parser, output="folder for report.html, report.txt and the tables as CSV and ECSV")
    parser.add_argument("--no-pictures", action="store_true", help="leave the pictures out of report.html")


def report_on(
    args: argparse.Namespace, methods: Mapping[str, object], evaluate: Callable[..., Report], kind: type[Report], **more
) -> int:
    """Evaluate, with ``more`` options; print the report, write it where that was asked for, and say how it went."""
    if args.output is not None:
        refuse_existing(kind.files(args.output), args.overwrite)
        if not args.no_pictures:
            check_format("report.png")
    real = {name: getattr(args, name) for name in ("images", "split") if hasattr(args, name)}
    report = evaluate(methods, args.test_set, args.n, args.seed, **real, **more)
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
