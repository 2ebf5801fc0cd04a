"""``lensdeblend SUBCOMMAND``: choose the subcommand, turn exceptions into one line and an exit status."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from lensdeblend import __version__
from lensdeblend.cli import (
    deblend, demo, evaluate, generate, methods, plugins, reconstruct, simulate, superresolve, train, weights,
)
from lensdeblend.cli.common import BAD_USAGE, complain, one_line

__all__ = ["main"]

SUBCOMMANDS = (
    simulate, reconstruct, deblend, generate, superresolve, train, evaluate, methods, plugins, weights, demo,
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    args : sequence of str, optional
        Left out, those of the process.

    Returns
    -------
    int
        0 done, 1 some inputs failed, 2 bad usage.
    """
    options = _parser().parse_args(_with_two_words_joined(sys.argv[1:] if args is None else args))
    if options.debug:
        logging.basicConfig(level=logging.DEBUG)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return options.run(options)
        except Exception as error:
            if options.debug:
                raise
            complain(error)
            return BAD_USAGE


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message):
        self.exit(BAD_USAGE, f"lensdeblend: error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="lensdeblend", description="Galaxies that overlap or lens each other.")
    parser.add_argument("--version", action="version", version=f"lensdeblend {__version__}")
    subparsers = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    for name, module in _subcommands().items():
        summary = module.__doc__.partition("\n")[0].partition(": ")[2]
        subparser = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
        subparser.set_defaults(run=module.run)
        module.add_options(subparser)
        subparser.add_argument("--debug", action="store_true", help="show tracebacks and debug messages")
    return parser


def _subcommands() -> dict[str, ModuleType]:
    """The modules by name; ``evaluate_reconstruct`` is ``evaluate reconstruct``."""
    modules = (part for module in SUBCOMMANDS for part in (module, *getattr(module, "PARTS", ())))
    return {module.__name__.rpartition(".")[2].replace("_", " "): module for module in modules}


def _with_two_words_joined(args: Sequence[str]) -> list[str]:
    """For argparse a subcommand of two words is one argument."""
    both = " ".join(args[:2])
    return [both, *args[2:]] if both in _subcommands() else list(args)


def _show_warning(message, category, filename, lineno, file=None, line=None):
    print(f"lensdeblend: warning: {one_line(message)}", file=sys.stderr)
