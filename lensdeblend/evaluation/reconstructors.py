"""Reconstructors on a set of lenses whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from lensdeblend.evaluation.judging import LENS_UNITS, judge, lens_values
from lensdeblend.evaluation.report import ReconstructionReport
from lensdeblend.evaluation.running import chosen_cases, labelled, method_table, outcomes, reason
from lensdeblend.evaluation.sets import LensSet, lens_set
from lensdeblend.evaluation.summaries import failure_table, fit_table, flag_table, parameter_table, source_table
from lensdeblend.interfaces import Reconstructor
from lensdeblend.results import Simulation
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
) -> ReconstructionReport:
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
    `ReconstructionReport`
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
    resolved = labelled("reconstructor", Reconstructor, methods)
    simulations = test_set.draw(n, seed, images=images, split=split, progress=progress)
    seen, rows, cases = [simulation.image for simulation in simulations], [], []
    with tqdm(total=n * len(resolved), unit="image", disable=None if progress else True) as bar:
        for label, method in resolved.items():
            bar.set_description(label)
            candidates = []
            for index, seconds, outcome in outcomes(
                lambda places, rng: reconstruct(seen[places], method=method.method, seed=rng), n, seed, batch
            ):
                row, pictures = _row(simulations[index], outcome)
                rows.append({"method": label, "lens": index, "seconds": seconds, **row})
                if pictures:
                    candidates.append((row["footprint_psnr"], index, pictures))
                bar.update()
            cases += chosen_cases(label, candidates)
    lenses, found = _lens_table(simulations, bounded=test_set.declared_noise is None), _image_table(rows)
    labels = list(resolved)
    return ReconstructionReport(
        title=f"{n} {'lens' if n == 1 else 'lenses'} of the set {test_set.name!r} ({test_set.summary}), seed {seed}",
        notes=test_set.notes,
        summaries={
            "sources": source_table(found, labels),
            "parameters": parameter_table(found, lenses, labels),
            "fits": fit_table(found, labels),
            "flags": flag_table(found, labels),
            "failures": failure_table(found),
            "methods": method_table("reconstruct", resolved, seed),
        },
        details={"images": found, "lenses": lenses},
        cases=tuple(cases),
    )


def _row(simulation: Simulation, outcome) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
    nothing = dict.fromkeys(_IMAGE_NUMBERS[1:], np.nan)
    if isinstance(outcome, Exception):
        return {**nothing, "flags": "", "failure": reason(outcome)}, None
    try:
        numbers = judge(outcome, simulation)
    except Exception as error:
        return {**nothing, "flags": "", "failure": f"its result cannot be judged: {reason(error)}"}, None
    residual = (simulation.image.data - outcome.model.data) / np.sqrt(simulation.image.uncertainty.array)
    pictures = {
        "data": simulation.image.data, "model": outcome.model.data, "residual": residual,
        "unlensed, found": outcome.unlensed.data, "unlensed, true": simulation.unlensed.data,
    }
    pictures = {name: np.asarray(image, dtype=np.float32) for name, image in pictures.items()}
    return {**numbers, "failure": ""}, {"scale": simulation.image.meta["PIXSCALE"], **pictures}


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
