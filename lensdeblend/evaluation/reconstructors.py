"""Reconstructors on a set of lenses whose truth is known."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from os import PathLike
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from lensdeblend.evaluation.judging import LENS_UNITS, judge, lens_values
from lensdeblend.evaluation.report import Case, Report
from lensdeblend.evaluation.sets import LensSet, lens_set
from lensdeblend.evaluation.summaries import failure_table, fit_table, flag_table, parameter_table, source_table
from lensdeblend.interfaces import Reconstructor
from lensdeblend.plugins import Resolved, resolve
from lensdeblend.plugins.provenance import provenance
from lensdeblend.results import Reconstruction, Simulation
from lensdeblend.scenes import GaussianPSF
from lensdeblend.verbs import reconstruct

__all__ = ["evaluate_reconstructors"]

_IMAGE_NUMBERS = (
    "seconds", "mse", "psnr", "ssim", "footprint_mse", "footprint_psnr", "footprint_ssim", "chi2",
    "degrees_of_freedom", *(column for name in LENS_UNITS for column in (name, f"{name}_err")),
)


def evaluate_reconstructors(
    methods: str | Reconstructor | Sequence[str | Reconstructor] | Mapping[str, str | Reconstructor],
    test_set: str | LensSet,
    n: int = 100,
    seed: int = 1,
    *,
    images: str | PathLike | None = None,
    split: str = "test",
    batch: int = 8,
    progress: bool = True,
) -> Report:
    """Run reconstructors on a set of simulated lenses and hold what they find against the truth.

    Parameters
    ----------
    methods : str, `~lensdeblend.interfaces.Reconstructor`, sequence or mapping
        Names of ``methods("reconstructor")`` or instances with their options. A mapping gives each its label in the
        report: ``{"quick": Forward(starts=4), "thorough": Forward(starts=32)}``.
    test_set : str or `LensSet`
        A name that `lens_sets` lists, or a set of one's own.
    n : int
        How many lenses.
    seed : int
        Of the lenses and of the methods: the same seed and ``batch`` give the same report, but for the seconds.
    images, split
        Real galaxies for the sets that need them, as in `LensSet.draw`.
    batch : int
        Images handed to a method at a time. Where it raises on a batch, each image of it is tried alone.
    progress : bool
        Whether to show progress bars, where there is a terminal.

    Returns
    -------
    `Report`
        A method that raises on an image, or returns what cannot be compared, is counted as failed there, and its other
        numbers are those of the images that it did answer for. Seconds are CPU time of this process.

    Raises
    ------
    ValueError
        For an unknown set or method, two methods of one label, ``n`` or ``batch`` below 1.
    TypeError
        For a method that is no reconstructor.

    Examples
    --------
    >>> from lensdeblend.evaluation import evaluate_reconstructors
    >>> from lensdeblend.reconstructors.forward import Forward
    >>> report = evaluate_reconstructors({"fit": Forward(lens_light=0, samples=0)}, "varied", n=1, progress=False)
    >>> report.summaries["fits"]["method", "images", "failures"].pprint()
    method images failures
    ------ ------ --------
       fit      1        0
    """
    from tqdm import tqdm

    if isinstance(test_set, str):
        test_set = lens_set(test_set)
    if not isinstance(test_set, LensSet):
        raise TypeError(f"test_set must be a LensSet or the name of one; got {type(test_set).__name__}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1; got {batch}")
    resolved = _resolved(methods)
    simulations = test_set.draw(n, seed, images=images, split=split, progress=progress)
    rows, cases = [], []
    with tqdm(total=n * len(resolved), unit="image", disable=None if progress else True) as bar:
        for label, method in resolved.items():
            bar.set_description(label)
            candidates = []
            for index, seconds, outcome in _outcomes(method.method, simulations, seed, batch):
                row, pictures = _row(simulations[index], outcome)
                rows.append({"method": label, "lens": index, "seconds": seconds, **row})
                if pictures:
                    candidates.append((row["footprint_psnr"], index, pictures))
                bar.update()
            cases += _chosen(label, candidates)
    lenses, found = _lens_table(simulations, bounded=test_set.declared_noise is None), _image_table(rows)
    labels = list(resolved)
    return Report(
        title=f"{n} {'lens' if n == 1 else 'lenses'} of the set {test_set.name!r} ({test_set.summary}), seed {seed}",
        notes=test_set.notes,
        summaries={
            "sources": source_table(found, labels),
            "parameters": parameter_table(found, lenses, labels),
            "fits": fit_table(found, labels),
            "flags": flag_table(found, labels),
            "failures": failure_table(found),
            "methods": _method_table(resolved, seed),
        },
        details={"images": found, "lenses": lenses},
        cases=tuple(cases),
    )


def _resolved(methods) -> dict[str, Resolved]:
    if isinstance(methods, Mapping):
        return {str(label): resolve("reconstructor", method) for label, method in methods.items()}
    if isinstance(methods, (str, Reconstructor)):
        methods = [methods]
    pairs = [(method if isinstance(method, str) else None, resolve("reconstructor", method)) for method in methods]
    labels = [name or method.name for name, method in pairs]
    if not labels:
        raise ValueError("there is no method to evaluate: give at least one")
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise ValueError(f"two methods are called {twice.pop()!r}: give a mapping of labels to methods")
    return {label: method for label, (_, method) in zip(labels, pairs)}


def _outcomes(
    method: Reconstructor, simulations: Sequence[Simulation], seed: int, batch: int
) -> Iterator[tuple[int, float, Reconstruction | Exception]]:
    """Index, CPU seconds, and the result or what was raised."""
    for start in range(0, len(simulations), batch):
        together = [simulation.image for simulation in simulations[start:start + batch]]
        seconds, outcome = _timed(method, together, seed, start)
        if isinstance(outcome, Exception) and len(together) > 1:
            for index, image in enumerate(together, start):
                seconds, alone = _timed(method, [image], seed, index)
                yield index, seconds, alone if isinstance(alone, Exception) else alone[0]
        elif isinstance(outcome, Exception):
            yield start, seconds, outcome
        else:
            yield from ((index, seconds / len(together), result) for index, result in enumerate(outcome, start))


def _timed(method: Reconstructor, images: list, seed: int, place: int):
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(place,)))
    start = time.process_time()
    try:
        outcome = reconstruct(images, method=method, seed=rng)
    except Exception as error:
        outcome = error
    return time.process_time() - start, outcome


def _row(simulation: Simulation, outcome) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
    nothing = dict.fromkeys(_IMAGE_NUMBERS[1:], np.nan)
    if isinstance(outcome, Exception):
        return {**nothing, "flags": "", "failure": _reason(outcome)}, None
    try:
        numbers = judge(outcome, simulation)
    except Exception as error:
        return {**nothing, "flags": "", "failure": f"its result cannot be judged: {_reason(error)}"}, None
    residual = (simulation.image.data - outcome.model.data) / np.sqrt(simulation.image.uncertainty.array)
    pictures = {
        "data": simulation.image.data, "model": outcome.model.data, "residual": residual,
        "unlensed, found": outcome.unlensed.data, "unlensed, true": simulation.unlensed.data,
    }
    pictures = {name: np.asarray(image, dtype=np.float32) for name, image in pictures.items()}
    return {**numbers, "failure": ""}, {"scale": simulation.image.meta["PIXSCALE"], **pictures}


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _chosen(label: str, candidates: list) -> Iterator[Case]:
    """The best, median and worst footprint of the unlensed source; fewer where there are fewer images."""
    ordered = sorted(candidates, key=lambda candidate: (-candidate[0], candidate[1]))
    last = len(ordered) - 1
    places = {0: "best"} if ordered else {}
    for rank, place in (("median", len(ordered) // 2), ("worst", last)):
        if 0 < place < last or rank == "worst" and last > 0:
            places[place] = rank
    for place, rank in places.items():
        psnr, index, pictures = ordered[place]
        yield Case(label, rank, index, psnr, pictures)


def _image_table(rows: list[dict]) -> Table:
    names = ("method", "lens", *_IMAGE_NUMBERS, "flags", "failure")
    table = Table({name: [row[name] for row in rows] for name in names})
    return _with_units(table, ("", "_err"))


def _lens_table(simulations: Sequence[Simulation], *, bounded: bool) -> Table:
    rows = []
    for index, simulation in enumerate(simulations):
        seen, true = simulation.observation, simulation.scene.lens_parameters
        bound = _bound(simulation) if bounded else Table()
        row = {
            "lens": index, "pixel_scale": seen.pixel_scale.to_value(u.arcsec),
            "psf_fwhm": seen.psf.fwhm.to_value(u.arcsec) if isinstance(seen.psf, GaussianPSF) else np.nan,
            "peak_snr": float(np.max(simulation.catalog["peak_snr"])),
        }
        for name in LENS_UNITS:
            row |= {name: lens_values(true, name), f"{name}_bound": lens_values(bound, name)}
        rows.append(row)
    table = Table(rows)
    table["pixel_scale"].unit = table["psf_fwhm"].unit = u.arcsec
    return _with_units(table, ("", "_bound"))


def _bound(simulation: Simulation) -> Table:
    from lensdeblend.evaluation.cramer_rao import cramer_rao_bound

    try:
        return cramer_rao_bound(simulation)
    except ValueError:
        # Of scenes that the forward model does not describe, and of lenses that the image does not constrain.
        return Table()


def _with_units(table: Table, suffixes: Sequence[str]) -> Table:
    for name, unit in LENS_UNITS.items():
        for suffix in suffixes:
            table[name + suffix].unit = unit if unit != u.one else None
    return table


def _method_table(resolved: Mapping[str, Resolved], seed: int) -> Table:
    rows = []
    for label, method in resolved.items():
        made = provenance("reconstruct", method, seed)
        version = made["versions"].get(made["distribution"], "")
        defaults = {field.name: field.default for field in _fields(method.method)}
        options = [
            f"{name}={value}" for name, value in made["options"].items()
            if getattr(method.method, name) != defaults.get(name, MISSING)
        ]
        rows.append((label, made["method"], made["distribution"], version, ", ".join(options) or "defaults"))
    return Table(rows=rows, names=("label", "method", "distribution", "version", "options"))


def _fields(method: Reconstructor) -> tuple:
    return fields(method) if is_dataclass(method) else ()
