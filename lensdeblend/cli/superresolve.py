"""``lensdeblend superresolve``: make finer images of strong lenses."""

from __future__ import annotations

import argparse

from lensdeblend.cli.common import add_common_options, chosen_method
from lensdeblend.cli.images import add_image_options, run_on_images
from lensdeblend.results import SuperResolution
from lensdeblend.verbs import superresolve

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser)
    parser.add_argument("--factor", type=float, default=2, help="how many times smaller the pixels become, 1 to 5 (2)")
    add_common_options(
        parser, superresolve, "superresolver", output="file, or folder for several inputs (IMAGE_superresolution.fits)"
    )


def run(args: argparse.Namespace) -> int:
    method = chosen_method("superresolver", args)
    return run_on_images(
        args, "superresolution",
        lambda number, image: superresolve(image, factor=args.factor, method=method, seed=args.seed),
        lambda path, result: print(_line(path, result)),
    )


def _line(path, result: SuperResolution) -> str:
    flags = f", flags: {', '.join(result.flags)}" if result.flags else ""
    return f"{path}: reduced chi-square {result.chi2:.3f}{flags}"
