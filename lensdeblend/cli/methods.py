"""``lensdeblend methods``: list the registered methods."""

from __future__ import annotations

import argparse

from lensdeblend.cli.common import DONE, print_json, print_table
from lensdeblend.plugins import methods
from lensdeblend.plugins.hookspecs import HOOKS

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", choices=list(HOOKS), help="only methods of this kind")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    table = methods(args.kind)
    if args.json:
        rows = [dict(zip(table.colnames, (value.item() for value in row))) for row in table.iterrows()]
        print_json([row | {"requires": [name for name in row["requires"].split(", ") if name]} for row in rows])
    else:
        print_table(table["name", "kind", "distribution", "available", "summary", "reference"])
    return DONE
