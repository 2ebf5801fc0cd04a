"""``lensdeblend deblend``: take overlapping galaxies apart."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from lensdeblend.cli.common import add_common_options, chosen_method, print_table
from lensdeblend.cli.images import add_image_options, run_on_images
from lensdeblend.io import read_image
from lensdeblend.verbs import deblend

__all__ = ["add_options", "run"]

_SHOWN = ("id", "x", "y", "flux", "flux_err", "radius", "flags")


def add_options(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser)
    parser.add_argument(
        "--positions", type=Path, metavar="TABLE", help="table with columns x, y (pixels from 0) or ra, dec (degrees)"
    )
    parser.add_argument("--segmentation", type=Path, metavar="LABELS.fits", help="image of labels; 0 is background")
    add_common_options(
        parser, deblend, "deblender", output="file, or folder for several inputs (IMAGE_deblending.fits)"
    )


def run(args: argparse.Namespace) -> int:
    method = chosen_method("deblender", args)
    positions = None if args.positions is None else _positions(args.positions)
    segmentation = None if args.segmentation is None else _labels(args.segmentation)
    return run_on_images(
        args, "deblending",
        lambda number, image: deblend(
            image, segmentation=segmentation, positions=positions, method=method, seed=args.seed
        ),
        _report,
    )


def _positions(path: Path):
    table = QTable.read(path)
    names = {name.lower(): name for name in table.colnames}
    if {"x", "y"} <= set(names):
        return np.column_stack([table[names["x"]], table[names["y"]]]).astype(float)
    if {"ra", "dec"} <= set(names):
        return SkyCoord(table[names["ra"]], table[names["dec"]], unit="deg")
    raise ValueError(f"{path} must have the columns x, y or ra, dec; it has {', '.join(table.colnames)}")


def _labels(path: Path) -> np.ndarray:
    labels = read_image(path).data
    if not np.array_equal(labels, np.rint(labels)):
        raise ValueError(f"{path} must hold labels, whole numbers with 0 for the background")
    return labels.astype(int)


def _report(path: Path, result) -> None:
    print(f"{path}: {len(result.catalog)} galaxies, reduced chi-square {result.chi2:.3f}")
    print_table(result.catalog[[name for name in result.catalog.colnames if name in _SHOWN]])
