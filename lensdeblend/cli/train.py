"""``lensdeblend train``: train the network of a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from lensdeblend.cli.common import DONE

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a recipe of the package")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where everything goes (the recipe's name)")
    parser.add_argument("--budget", metavar="NAME", help="one of the recipe's budgets, such as cpu")
    parser.add_argument(
        "--images", type=Path, action="append", default=[], metavar="FOLDER",
        help="real galaxies to learn from; may be repeated",
    )
    parser.add_argument("--pairs", type=Path, metavar="FOLDER", help="simulations to learn from, instead of simulating")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="how many GPUs (1)")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the output folder")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="change the recipe, as in length.steps=500; null takes an entry out; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    from lensdeblend.training.loop import train
    from lensdeblend.training.recipe import read_recipe

    recipe = read_recipe(args.recipe).within(args.budget)
    for assignment in args.set:
        recipe = recipe.changed(_nested(assignment))
    if args.seed is not None:
        recipe = recipe.changed({"seed": args.seed})
    path = train(
        recipe, args.output or Path(recipe.name), images=args.images, pairs=args.pairs, device=args.device,
        devices=args.devices, resume=args.resume,
    )
    print(path)
    return DONE


def _nested(assignment: str) -> dict[str, Any]:
    """``a.b=1`` as ``{"a": {"b": 1}}``."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise ValueError(f"--set takes KEY=VALUE, such as length.steps=500; got {assignment!r}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {key}: {text!r} is not YAML") from error
    for part in reversed(key.split(".")):
        value = {part: value}
    return value
