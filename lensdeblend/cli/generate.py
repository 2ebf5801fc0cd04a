"""``lensdeblend generate``: make galaxies with wished properties."""

from __future__ import annotations

import argparse
from pathlib import Path

from lensdeblend.cli.common import DONE, add_common_options, chosen_method, picture_paths, print_table, refuse_existing
from lensdeblend.cli.options import parse_wishes
from lensdeblend.verbs import generate

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--n", type=int, default=1, help="how many galaxies (1)")
    parser.add_argument(
        "--condition", action="append", default=[], metavar="NAME=VALUE",
        help="a wish, such as flux=20, radius=0.3arcsec or n=1; may be repeated",
    )
    add_common_options(parser, generate, "generator", output="file (galaxies.fits)")


def run(args: argparse.Namespace) -> int:
    conditions = parse_wishes(args.condition)
    method = chosen_method("generator", args)
    output = args.output or Path("galaxies.fits")
    pictures = picture_paths([output], args.plot, "_galaxies.png")
    refuse_existing([output], args.overwrite, pictures=pictures)
    result = generate(args.n, conditions=conditions or None, method=method, seed=args.seed)
    result.write(output, overwrite=args.overwrite)
    for path in pictures:
        result.plot(path, overwrite=args.overwrite)
    print_table(result.catalog)
    return DONE
