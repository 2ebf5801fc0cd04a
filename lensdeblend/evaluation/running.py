"""Methods of any kind run on the images of a set: their labels, seconds, failures, and the cases to be shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import numpy as np
from astropy.table import Table

from lensdeblend.evaluation.report import Case
from lensdeblend.plugins import Resolved, resolve
from lensdeblend.plugins.provenance import provenance
from lensdeblend.results import Result

__all__ = ["chosen_cases", "labelled", "method_table", "outcomes", "reason"]


def labelled(kind: str, interface: type, methods) -> dict[str, Resolved]:
    """Methods by label: of a name, an instance, a sequence of these, or a mapping of labels to them.

    Raises
    ------
    ValueError
        Where there is none, one is unknown, or two have one label.
    TypeError
        For a method of another kind.
    """
    if isinstance(methods, Mapping):
        return {str(label): resolve(kind, method) for label, method in methods.items()}
    if isinstance(methods, (str, interface)):
        methods = [methods]
    pairs = [(method if isinstance(method, str) else None, resolve(kind, method)) for method in methods]
    labels = [name or method.name for name, method in pairs]
    if not labels:
        raise ValueError("there is no method to evaluate: give at least one")
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise ValueError(f"two methods are called {twice.pop()!r}: give a mapping of labels to methods")
    return {label: method for label, (_, method) in zip(labels, pairs)}


def outcomes(
    run: Callable[[slice, np.random.Generator], list[Result]], n: int, seed: int, batch: int
) -> Iterator[tuple[int, float, Result | Exception]]:
    """Index, CPU seconds, and the result or what was raised, of each of ``n`` images.

    ``run`` gets which images to take, ``batch`` at a time. Where it raises on several, each is tried alone.
    """
    for start in range(0, n, batch):
        stop = min(start + batch, n)
        seconds, outcome = _timed(run, slice(start, stop), seed)
        if isinstance(outcome, Exception) and stop - start > 1:
            for index in range(start, stop):
                seconds, alone = _timed(run, slice(index, index + 1), seed)
                yield index, seconds, alone if isinstance(alone, Exception) else alone[0]
        elif isinstance(outcome, Exception):
            yield start, seconds, outcome
        else:
            yield from ((index, seconds / (stop - start), result) for index, result in enumerate(outcome, start))


def _timed(run: Callable, places: slice, seed: int):
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(places.start,)))
    start = time.process_time()
    try:
        outcome = run(places, rng)
    except Exception as error:
        outcome = error
    return time.process_time() - start, outcome


def reason(error: Exception) -> str:
    """What was raised, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def chosen_cases(label: str, candidates: Sequence[tuple[float, int, Mapping[str, Any]]]) -> Iterator[Case]:
    """The best, median and worst of (footprint PSNR, index, pictures); fewer where there are fewer images."""
    ordered = sorted(candidates, key=lambda candidate: (-candidate[0], candidate[1]))
    last = len(ordered) - 1
    places = {0: "best"} if ordered else {}
    for rank, place in (("median", len(ordered) // 2), ("worst", last)):
        if 0 < place < last or rank == "worst" and last > 0:
            places[place] = rank
    for place, rank in places.items():
        psnr, index, pictures = ordered[place]
        yield Case(label, rank, index, psnr, pictures)


def method_table(verb: str, resolved: Mapping[str, Resolved], seed: int) -> Table:
    """What each label stands for."""
    rows = []
    for label, method in resolved.items():
        made = provenance(verb, method, seed)
        version = made["versions"].get(made["distribution"], "")
        defaults = {field.name: field.default for field in _fields(method.method)}
        options = [
            f"{name}={value}" for name, value in made["options"].items()
            if getattr(method.method, name) != defaults.get(name, MISSING)
        ]
        rows.append((label, made["method"], made["distribution"], version, ", ".join(options) or "defaults"))
    return Table(rows=rows, names=("label", "method", "distribution", "version", "options"))


def _fields(method) -> tuple:
    return fields(method) if is_dataclass(method) else ()
