"""``lensdeblend evaluate``: hold results against the simulations they were made from."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import singledispatch
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.nddata import NDData
from astropy.table import QTable, Table

from lensdeblend.cli import evaluate_deblend, evaluate_generate, evaluate_reconstruct, evaluate_superresolve
from lensdeblend.cli.common import DONE, print_json, print_table
from lensdeblend.evaluation.metrics import compare
from lensdeblend.results import Deblending, Reconstruction, Result, Simulation

__all__ = ["PARTS", "add_options", "compare_parameters", "run"]

#: Subcommands of two words.
PARTS = (evaluate_reconstruct, evaluate_deblend, evaluate_generate, evaluate_superresolve)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("result", type=Path, metavar="RESULT.fits", help="what reconstruct or deblend wrote")
    parser.add_argument("truth", type=Path, metavar="SIMULATION.fits", help="what simulate wrote")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    result, truth = Result.read(args.result), Simulation.read(args.truth)
    tables = _tables(result, truth)
    if args.json:
        print_json([_plain(table, row) for table in tables for row in table])
    else:
        print(f"{args.result}: reduced chi-square {result.chi2:.3f}")
        for table in tables:
            print_table(table)
    return DONE


def compare_parameters(result: Reconstruction, truth: Simulation) -> Table:
    """True and found lens parameters, their errors, and the deviations in units of these."""
    true, found = truth.scene.lens_parameters, result.parameters
    rows = []
    for name in true.colnames:
        value, error = u.Quantity(found[name][0]), u.Quantity(found[f"{name}_err"][0])
        expected = u.Quantity(true[name][0]).to_value(value.unit)
        error = error.to_value(value.unit)
        deviation = (value.value - expected) / error if error > 0 else np.nan
        rows.append((name, expected, value.value, error, deviation, str(value.unit)))
    table = Table(rows=rows, names=("parameter", "truth", "result", "error", "sigma", "unit"))
    for name in ("truth", "result", "error"):
        table[name].format = ".4f"
    table["sigma"].format = "+.1f"
    return table


@singledispatch
def _tables(result, truth: Simulation) -> list[Table]:
    raise ValueError(f"a {type(result).__name__} cannot be evaluated; give what reconstruct or deblend wrote")


@_tables.register
def _(result: Reconstruction, truth: Simulation) -> list[Table]:
    if not truth.scene.is_lens:
        raise ValueError("the truth has no lens: evaluate a reconstruction against the simulation of a lens")
    images = {"model": (result.model, truth.noiseless), "unlensed": (result.unlensed, truth.unlensed)}
    return [compare_parameters(result, truth), _image_table(images)]


@_tables.register
def _(result: Deblending, truth: Simulation) -> list[Table]:
    true, found = _positions(truth.catalog), _positions(result.catalog)
    images = {"model": (result.model, truth.noiseless)}
    for number, where, source in zip(result.catalog["id"], found, result.sources):
        nearest = int(np.argmin(np.hypot(*(true - where).T)))
        images[f"source {number}"] = (source, truth.sources[nearest])
    return [_image_table(images)]


def _positions(catalog: QTable) -> np.ndarray:
    return np.column_stack([u.Quantity(catalog[name]).value for name in ("x", "y")])


def _image_table(images: dict[str, tuple[NDData, NDData]]) -> Table:
    rows = []
    for name, (image, truth) in images.items():
        shape, expected = image.data.shape, truth.data.shape
        if shape != expected:
            raise ValueError(f"the {name} has shape {shape}, the truth {expected}: another image's truth?")
        rows.append({"image": name, **asdict(compare(image, truth))})
    table = Table(rows)
    for name in table.colnames[1:]:
        table[name].format = ".3g" if name.endswith("mse") else ".4g"
    return table


def _plain(table: Table, row) -> dict:
    values = {name: row[name].item() for name in table.colnames}
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in values.items()}
