"""``lensdeblend reconstruct``: find the source and the lens behind images of strong lenses."""

from __future__ import annotations

import argparse
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import Table

from lensdeblend.cli.common import add_common_options, chosen_method, print_table
from lensdeblend.cli.images import add_image_options, run_on_images
from lensdeblend.verbs import reconstruct

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser)
    add_common_options(
        parser, reconstruct, "reconstructor", output="file, or folder for several inputs (IMAGE_reconstruction.fits)"
    )


def run(args: argparse.Namespace) -> int:
    method = chosen_method("reconstructor", args)
    return run_on_images(
        args, "reconstruction", lambda number, image: reconstruct(image, method=method, seed=args.seed), _report
    )


def _report(path: Path, result) -> None:
    names = [name for name in result.parameters.colnames if f"{name}_err" in result.parameters.colnames]
    rows = [(name, *_text(result.parameters[name][0], result.parameters[f"{name}_err"][0])) for name in names]
    flags = f", flags: {', '.join(result.flags)}" if result.flags else ""
    print(f"{path}: reduced chi-square {result.chi2:.3f}{flags}")
    print_table(Table(rows=rows, names=("parameter", "value", "error", "unit")))


def _text(value, error) -> tuple[str, str, str]:
    value, error = u.Quantity(value), u.Quantity(error)
    error = error.to_value(value.unit)
    known = np.isfinite(error) and error > 0
    digits = max(0, 1 - int(np.floor(np.log10(error)))) if known else 4
    return f"{value.value:.{digits}f}", f"{error:.{digits}f}" if known else "-", str(value.unit)
