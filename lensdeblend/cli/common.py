"""What the subcommands share: common options, the inputs one after the other, tables."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from astropy.table import Table

from lensdeblend.cli.options import parse_options
from lensdeblend.plugins import create, method_class
from lensdeblend.results.panels import check_format

__all__ = [
    "BAD_USAGE", "DONE", "SOME_FAILED", "add_common_options", "add_output_options", "chosen_method", "complain",
    "each_input", "one_line", "output_paths", "picture_paths", "print_json", "print_table", "refuse_existing",
]

DONE, SOME_FAILED, BAD_USAGE = 0, 1, 2


def add_output_options(parser: argparse.ArgumentParser, *, output: str) -> None:
    """``-o``, ``--overwrite``."""
    parser.add_argument("-o", "--output", type=Path, metavar="PATH", help=output)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def add_common_options(parser: argparse.ArgumentParser, verb: Callable, kind: str, *, output: str) -> None:
    """``-o``, ``--overwrite``, ``--method``, ``--set``, ``--seed`` and ``--plot``."""
    default = inspect.signature(verb).parameters["method"].default
    add_output_options(parser, output=output)
    listed = f"a {kind} of `lensdeblend methods` ({default})"
    parser.add_argument("--method", metavar="NAME", default=default, help=listed)
    parser.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", help="an option of the method; may be repeated"
    )
    parser.add_argument("--seed", type=int, help="the same seed gives the same result")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the result; a folder for several inputs")


def chosen_method(kind: str, args: argparse.Namespace):
    """The method named by ``--method``, with the options of ``--set``."""
    return create(kind, args.method, **parse_options(method_class(kind, args.method), args.set))


def output_paths(inputs: Sequence[Path], output: Path | None, suffix: str) -> list[Path]:
    """Where the result of each input goes: one file, or a name for each in a folder (the current one)."""
    if output is not None and len(inputs) == 1 and output.suffix and not output.is_dir():
        return [output]
    if output is not None and output.is_file():
        raise ValueError(f"-o {output} is a file, but there are {len(inputs)} inputs: name a folder")
    folder = output or Path()
    paths = [folder / f"{_stem(path)}{suffix}" for path in inputs]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"two inputs would both be written to {twice}: run them apart, or rename one")
    return paths


def picture_paths(inputs: Sequence[Path], plot: Path | None, suffix: str) -> list[Path]:
    """Where the picture of each input goes; none without ``--plot``."""
    if plot is None:
        return []
    if len(inputs) > 1 and plot.suffix:
        raise ValueError(f"--plot {plot} is one file, but there are {len(inputs)} inputs: name a folder")
    return output_paths(inputs, plot, suffix)


def refuse_existing(
    paths: Iterable[Path], overwrite: bool, *, pictures: Iterable[Path] = (), inputs: Iterable[Path] = ()
) -> None:
    """Raise before any work is done where something would be overwritten, an input above all, or cannot be written.

    The folders are made.
    """
    pictures = list(pictures)
    paths = [*paths, *pictures]
    read = {path.resolve() for path in inputs}
    for path in paths:
        if path.resolve() in read:
            raise ValueError(f"{path} is an input and would be replaced; choose another name with -o or --plot")
    for path, count in Counter(path.resolve() for path in paths).items():
        if count > 1:
            raise ValueError(f"result and picture would both be written to {path}; choose another name for one")
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; add --overwrite to replace it, or choose another name with -o")
    for path in pictures:
        check_format(path)
    for folder in {path.parent for path in paths}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()
        except OSError as error:
            raise OSError(f"cannot write into {folder} ({error.strerror}); choose another place with -o") from error


def each_input(args: argparse.Namespace, inputs: Sequence[Path], work: Callable[[int, Path], None]) -> int:
    """Do ``work`` on one input after the other; what goes wrong with one does not stop the others."""
    from tqdm import tqdm

    failed = 0
    for number, path in enumerate(tqdm(inputs, unit="image", disable=None if len(inputs) > 1 else True)):
        try:
            work(number, path)
        except Exception as error:
            if args.debug:
                raise
            complain(error, path)
            failed += 1
    if failed and len(inputs) > 1:
        print(f"lensdeblend: {failed} of {len(inputs)} inputs failed", file=sys.stderr)
    return SOME_FAILED if failed else DONE


def complain(error: Exception, path: Path | None = None) -> None:
    """Say in one line on stderr what went wrong."""
    message = one_line(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    where = f"{path}: " if path is not None and str(path) not in message else ""
    print(f"lensdeblend: error: {where}{message or type(error).__name__}", file=sys.stderr)


def one_line(message) -> str:
    """The text of an error or a warning without line breaks."""
    return " ".join(str(message).split())


def print_table(table: Table) -> None:
    """Print every row and column."""
    print("\n".join(table.pformat(max_lines=-1, max_width=-1, align="<")))


def print_json(rows: Sequence[dict]) -> None:
    """Print a list of objects."""
    print(json.dumps(rows, indent=2))


def _stem(path: Path) -> str:
    """The name without ``.fits``, ``.fits.gz``, ``.fits.fz`` and the like."""
    name = path.name
    while Path(name).suffix.lower() in (".gz", ".fz", ".bz2", ".fits", ".fit", ".fts", ".yaml", ".yml"):
        name = Path(name).stem
    return name
