"""``lensdeblend generate``: make galaxies with wished properties."""

from __future__ import annotations

import argparse
from pathlib import Path

from astropy.table import QTable

from lensdeblend.cli.common import DONE, add_common_options, chosen_method, picture_paths, print_table, refuse_existing
from lensdeblend.cli.options import parse_wishes
from lensdeblend.results.layouts import LAYOUTS
from lensdeblend.verbs import generate

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--n", type=int, default=1, help="how many galaxies (1)")
    parser.add_argument(
        "--condition", action="append", default=[], metavar="NAME=VALUE",
        help="a wish, such as flux=20, radius=0.3arcsec or n=1; may be repeated",
    )
    parser.add_argument(
        "--layout", choices=LAYOUTS, default="mef", help="one file, with extensions for each galaxy (mef) or a "
        "cube; a folder with one file a galaxy (files), or that GalSim reads as real galaxies (galsim)",
    )
    parser.add_argument("--band", help="of several bands, the one that a GalSim catalogue has; of one, its name")
    add_common_options(parser, generate, "generator", output="file (galaxies.fits), or folder (galaxies)")


def run(args: argparse.Namespace) -> int:
    conditions = parse_wishes(args.condition)
    method = chosen_method("generator", args)
    output = args.output or Path("galaxies" if args.layout in ("files", "galsim") else "galaxies.fits")
    pictures = picture_paths([output], args.plot, "_galaxies.png")
    refuse_existing([output], args.overwrite, pictures=pictures)
    result = generate(args.n, conditions=conditions or None, method=method, seed=args.seed)
    result.write(output, overwrite=args.overwrite, layout=args.layout, band=args.band)
    for path in pictures:
        result.plot(path, overwrite=args.overwrite)
    print_table(_readable(result.catalog))
    return DONE


def _readable(catalog: QTable) -> QTable:
    """The columns up to the flags; what a method has besides, such as the parameters of parts, is in the file."""
    names = catalog.colnames
    return catalog[names[:names.index("flags") + 1]] if "flags" in names else catalog
