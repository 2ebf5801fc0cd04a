"""The command line: one thin file a subcommand, over the same functions that Python users call."""

from lensdeblend.cli.main import main

__all__ = ["main"]
