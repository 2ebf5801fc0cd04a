"""``lensdeblend plugins``: list the plug-in packages, broken ones included."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import asdict

from astropy.table import Table

from lensdeblend.cli.common import DONE, print_json, print_table
from lensdeblend.plugins import PluginWarning, manager

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    with warnings.catch_warnings():
        # The table says the same.
        warnings.simplefilter("ignore", PluginWarning)
        rows = [asdict(plugin) for plugin in manager().plugins]
    if args.json:
        print_json(rows)
    else:
        print_table(Table(rows))
    return DONE
