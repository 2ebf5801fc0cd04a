"""Deblenders on a set of blends whose truth is known, with the true positions given and with none."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
from astropy.table import Table, vstack
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend.deblenders.failed import FAILED
from lensdeblend.evaluation.blend_judging import COLUMNS, Answer, judge_fit, judge_galaxies, matched
from lensdeblend.evaluation.blends import BlendSet, TrueBlend
from lensdeblend.evaluation.blend_summaries import band_table, detection_table, galaxy_table
from lensdeblend.evaluation.detectors import default_detectors, summed
from lensdeblend.evaluation.named_blends import blend_set
from lensdeblend.evaluation.report import DeblendingReport
from lensdeblend.evaluation.running import chosen_cases, labelled, method_table, outcomes, reason
from lensdeblend.evaluation.shapes import adaptive_ellipticity
from lensdeblend.evaluation.summaries import failure_table, fit_table, flag_table
from lensdeblend.interfaces import Deblender
from lensdeblend.results import Deblending
from lensdeblend.verbs import deblend

__all__ = ["evaluate_deblenders"]

_GIVEN, _FOUND = "given", "found"
_IMAGES = {
    "method": str, "positions": str, "blend": int, "seconds": float, "galaxies": int, "detections": int, "chi2": float,
    "degrees_of_freedom": float, "flags": str, "failure": str,
}
_METRICS = ("mse", "psnr", "ssim", "footprint_mse", "footprint_psnr", "footprint_ssim", "image_e1", "image_e2")
_MATCHES = {
    "method": str, "blend": int, "galaxy": int, "found": bool, "snr": float, "flux": float, "flux_true": float,
}


def evaluate_deblenders(
    methods: str | Deblender | Sequence[str | Deblender] | Mapping[str, str | Deblender],
    test_set: str | BlendSet,
    n: int = 100,
    seed: int = 1,
    *,
    images: str | PathLike | None = None,
    split: str = "test",
    sky: str | PathLike | None = None,
    batch: int = 8,
    progress: bool = True,
) -> DeblendingReport:
    """Run deblenders on a set of simulated blends and hold what they find against the truth.

    Each method is run twice on every blend: with the true positions given, and without, when it has to find the
    galaxies. Beside the detections stand those of photutils and SEP with their default settings on the sum of the
    bands.

    Parameters
    ----------
    methods : str, `~lensdeblend.interfaces.Deblender`, sequence or mapping
        Names of ``methods("deblender")`` or instances with their options. A mapping gives each its label in the report.
    test_set : str or `BlendSet`
        A name that `blend_sets` lists, or a set of one's own.
    n : int
        How many blends.
    seed : int
        Of the blends and of the methods: the same seed and ``batch`` give the same report, but for the seconds.
    images, split
        Real galaxies for the sets that need them, as in `BlendSet.draw`.
    sky
        Folder of real sky for the sets that need it, as there.
    batch : int
        Blends handed to a method at a time. Where it raises on a batch, each blend of it is tried alone.
    progress : bool
        Whether to show progress bars, where there is a terminal.

    Returns
    -------
    `DeblendingReport`
        A method that raises on a blend, or returns what cannot be compared, is counted as failed there, and its other
        numbers are those of the blends that it did answer for. Seconds are CPU time of this process.

    Raises
    ------
    ValueError
        For an unknown set or method, two methods of one label, ``n`` or ``batch`` below 1.
    TypeError
        For a method that is no deblender.

    Notes
    -----
    Of a set with one band, methods are given the image alone, of one with more the bands by name.

    Examples
    --------
    >>> from lensdeblend.evaluation import evaluate_deblenders
    >>> report = evaluate_deblenders("photutils", "euclid", n=1, progress=False)
    >>> report.summaries["fits"]["method", "positions", "images", "failures"].pprint()
      method  positions images failures
    --------- --------- ------ --------
    photutils     given      1        0
    photutils     found      1        0
    """
    from tqdm import tqdm

    if isinstance(test_set, str):
        test_set = blend_set(test_set)
    if not isinstance(test_set, BlendSet):
        raise TypeError(f"test_set must be a BlendSet or the name of one; got {type(test_set).__name__}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1; got {batch}")
    resolved = labelled("deblender", Deblender, methods)
    blends = test_set.draw(n, seed, images=images, split=split, sky=sky, progress=progress)
    taken, detectors = _Taken(), default_detectors()
    with tqdm(total=2 * n * len(resolved), unit="blend", disable=None if progress else True) as bar:
        for label, method in resolved.items():
            for mode in (_GIVEN, _FOUND):
                bar.set_description(f"{label}, positions {mode}")
                for index, seconds, outcome in outcomes(_runner(method.method, blends, mode), n, seed, batch):
                    taken.add(label, mode, index, seconds, _judged(outcome, blends[index], mode))
                    bar.update()
    for label, detect in detectors.items():
        for index, blend in enumerate(blends):
            taken.add(label, _FOUND, index, *_detected(detect, blend))
    labels, bands = list(resolved), list(test_set.bands)
    found, sources, matches = taken.tables(bands)
    truths = _truth_table(blends)
    answered = found[(found["positions"] == _FOUND) & (found["failure"] == "")]
    return DeblendingReport(
        title=f"{n} {'blend' if n == 1 else 'blends'} of the set {test_set.name!r} ({test_set.summary}), seed {seed}",
        notes=(*test_set.notes, *_notes(blends, detectors)),
        summaries={
            "galaxies": galaxy_table(sources, truths, labels, bands),
            "bands": band_table(sources, truths, labels, bands),
            "detections": detection_table(
                matches, answered, [*labels, *detectors], precise=not test_set.real_sky
            ),
            "fits": _by_mode(found, lambda rows: fit_table(rows, labels)),
            "flags": _by_mode(found, lambda rows: flag_table(rows, labels)),
            "failures": failure_table(found, ("positions", "blend")),
            "methods": method_table("deblend", resolved, seed),
        },
        details={"images": found, "sources": sources, "matches": matches, "truths": truths},
        cases=tuple(case for label in labels for case in chosen_cases(label, taken.candidates(label))),
    )


@dataclass(frozen=True)
class _Judged:
    """One outcome: a row of the image, rows of galaxies at given positions, rows of galaxies found or not, pictures."""

    row: dict[str, Any]
    galaxies: list[dict[str, float]] = field(default_factory=list)
    matches: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, Any] | None = None


@dataclass
class _Taken:
    """All rows so far."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    galaxies: list[dict[str, Any]] = field(default_factory=list)
    matches: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[tuple[str, float, int, dict]] = field(default_factory=list)

    def add(self, label: str, mode: str, index: int, seconds: float, judged: _Judged) -> None:
        where = {"method": label, "blend": index}
        self.rows.append({**where, "positions": mode, "seconds": seconds, **judged.row})
        self.galaxies += [{**where, "galaxy": k, **row} for k, row in enumerate(judged.galaxies)]
        self.matches += [{**where, "galaxy": k, **row} for k, row in enumerate(judged.matches)]
        if judged.pictures:
            psnr = float(np.mean([row["footprint_psnr"] for row in judged.galaxies]))
            self.pictures.append((label, psnr, index, judged.pictures))

    def candidates(self, label: str) -> list[tuple[float, int, dict]]:
        return [candidate for own, *candidate in self.pictures if own == label]

    def tables(self, bands: Sequence[str]) -> tuple[Table, Table, Table]:
        """Images, galaxies at given positions, galaxies that were to be found."""
        catalogued = (*COLUMNS, *(f"flux_{band}" for band in bands))
        numbers = (*_METRICS, *(name + after for name in catalogued for after in ("", "_err")))
        kinds = {"method": str, "blend": int, "galaxy": int, **dict.fromkeys(numbers, float)}
        return _table(self.rows, _IMAGES), _table(self.galaxies, kinds), _table(self.matches, _MATCHES)


def _runner(method: Deblender, blends: Sequence[TrueBlend], mode: str):
    """What `outcomes` calls: the blends at some places, all at once."""
    images = [next(iter(blend.image.values())) if len(blend.image) == 1 else blend.image for blend in blends]
    positions = [blend.all_positions for blend in blends]

    def run(places: slice, rng: np.random.Generator) -> list[Deblending]:
        with warnings.catch_warnings():
            # The report tells of them.
            warnings.filterwarnings("ignore", r"image \d+ of the list .* failed", AstropyUserWarning)
            return deblend(
                images[places], positions=positions[places] if mode == _GIVEN else None, method=method, seed=rng
            )

    return run


def _judged(outcome: Deblending | Exception, blend: TrueBlend, mode: str) -> _Judged:
    count = len(blend.sources)
    if isinstance(outcome, Exception):
        return _Judged({"galaxies": count, "failure": reason(outcome)})
    why = [flag.removeprefix(FAILED) for flag in outcome.meta.get("flags", ()) if flag.startswith(FAILED)]
    if why:
        return _Judged({"galaxies": count, "failure": why[0]})
    try:
        answer = Answer.of(outcome, blend)
        row = {"galaxies": count, "detections": len(answer.sources), **judge_fit(outcome, answer, blend)}
        if mode == _FOUND:
            return _Judged(row, matches=_matches(blend, answer.positions, answer.fluxes.sum(1)))
        galaxies = judge_galaxies(answer, blend)
    except Exception as error:
        return _Judged({"galaxies": count, "failure": f"its result cannot be judged: {reason(error)}"})
    return _Judged(row, galaxies, pictures=_pictures(answer, galaxies, blend))


def _detected(detect, blend: TrueBlend) -> tuple[float, _Judged]:
    data, sigma = summed(blend.image)
    start = time.process_time()
    try:
        positions, fluxes = detect(data, sigma)
    except Exception as error:
        return time.process_time() - start, _Judged({"galaxies": len(blend.sources), "failure": reason(error)})
    seconds = time.process_time() - start
    row = {"galaxies": len(blend.sources), "detections": len(positions)}
    return seconds, _Judged(row, matches=_matches(blend, positions, fluxes))


def _matches(blend: TrueBlend, positions: np.ndarray, fluxes: np.ndarray) -> list[dict[str, Any]]:
    partners = matched(positions, blend.positions, blend.match_radius)
    total = sum(blend.catalog[f"flux_{band}"] for band in blend.image)
    return [
        {
            "found": partner >= 0, "snr": blend.catalog["snr"][k], "flux_true": total[k],
            "flux": fluxes[partner] if partner >= 0 else np.nan,
        }
        for k, partner in enumerate(partners)
    ]


def _pictures(answer: Answer, galaxies: Sequence[Mapping[str, float]], blend: TrueBlend) -> dict[str, Any]:
    """Sums of the bands; of the galaxies that which came out worst."""
    data, sigma = summed(blend.image)
    model = sum(answer.model.values())
    worst = int(np.argmin([row["footprint_psnr"] for row in galaxies]))
    pictures = {
        "data": data, "model": model, "residual": (data - model) / sigma,
        "galaxy, found": sum(answer.sources[worst].values()), "galaxy, true": sum(blend.sources[worst].values()),
    }
    first = next(iter(blend.image.values()))
    pictures = {name: np.asarray(image, dtype=np.float32) for name, image in pictures.items()}
    return {"scale": first.meta["PIXSCALE"], **pictures}


def _truth_table(blends: Sequence[TrueBlend]) -> Table:
    tables = []
    for index, blend in enumerate(blends):
        table = blend.catalog.copy()
        table.add_column(np.full(len(table), index), name="blend", index=0)
        table.add_column(np.arange(len(table)), name="galaxy", index=1)
        shapes = np.array([adaptive_ellipticity(sum(source.values())) for source in blend.sources])
        table["image_e1"], table["image_e2"] = shapes.T
        tables.append(table)
    return vstack(tables, metadata_conflicts="silent")


def _by_mode(images: Table, summary) -> Table:
    """One summary a mode, one below the other."""
    tables = []
    for mode in (_GIVEN, _FOUND):
        table = summary(images[images["positions"] == mode])
        table.add_column(np.full(len(table), mode), name="positions", index=1)
        tables.append(table)
    return vstack(tables, metadata_conflicts="silent")


def _table(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, type]) -> Table:
    """Of the columns named, what a row lacks left empty."""
    nothing = {str: "", int: 0, float: np.nan, bool: False}
    return Table({
        name: np.array([row.get(name, nothing[kind]) for row in rows], dtype=kind) for name, kind in kinds.items()
    })


def _notes(blends: Sequence[TrueBlend], detectors: Mapping) -> list[str]:
    notes = [
        f"A detection is a galaxy's within {blends[0].match_radius:.2f} pixels, half of the PSF's width but no less "
        "than 1.5 pixels."
    ]
    if not any(label.startswith("SEP") for label in detectors):
        notes.append("SEP is not installed, so its default settings are not beside the detections: pip install sep.")
    return notes
