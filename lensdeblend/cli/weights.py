"""``lensdeblend weights``: list the weight files that are found, with their cards."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from astropy.table import Table

from lensdeblend.cli.common import DONE, print_json, print_table

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print the whole card of one")
    parser.add_argument("--json", action="store_true", help="print the cards as JSON")


def run(args: argparse.Namespace) -> int:
    from lensdeblend.networks.weights import cards

    found = cards()
    if args.name is not None:
        found = [(path, card) for path, card in found if card.name == args.name]
        if not found:
            known = ", ".join(card.name for _, card in cards()) or "none"
            raise ValueError(f"there are no weights called {args.name!r}; known are {known}")
    if args.json or args.name is not None:
        print_json([{"file": str(path), **asdict(card)} for path, card in found])
        return DONE
    rows = [
        (card.name, card.architecture, f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "missing",
         card.length.get("images", 0), card.device, str(path))
        for path, card in found
    ]
    names = ("name", "architecture", "size", "images", "device", "file")
    print_table(Table(rows=rows, names=names) if rows else Table(names=names))
    return DONE
