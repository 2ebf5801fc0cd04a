"""Superresolvers on a set of lenses of which it is known what finer pixels would show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from lensdeblend.evaluation.named_pairs import pair_set
from lensdeblend.evaluation.pairs import PairSet, TruePair
from lensdeblend.evaluation.published import SOURCE, published_table
from lensdeblend.evaluation.report import SuperResolutionReport
from lensdeblend.evaluation.running import chosen_cases, labelled, method_table, outcomes, reason
from lensdeblend.evaluation.summaries import failure_table, flag_table
from lensdeblend.evaluation.super_judging import IMAGE_COLUMNS, MAP_COLUMNS, judge_finer, judge_finer_image
from lensdeblend.evaluation.super_summaries import error_table, finer_fit_table, finer_table, map_table
from lensdeblend.interfaces import SuperResolver
from lensdeblend.plugins import Resolved
from lensdeblend.results import SuperResolution
from lensdeblend.verbs import superresolve

__all__ = ["CEILING", "FLOOR", "LIMIT", "evaluate_superresolvers"]

#: Labels of what the methods stand beside: the truth without noise itself, the true scene drawn by our own physics, and
#: bicubic interpolation.
CEILING, LIMIT, FLOOR = "(truth)", "(true scene, drawn again)", "(bicubic)"
_REFERENCES = (CEILING, LIMIT, FLOOR)
_NUMBERS = ("seconds", *IMAGE_COLUMNS, *MAP_COLUMNS, "chi2", "degrees_of_freedom")


def evaluate_superresolvers(
    methods: str | SuperResolver | Sequence[str | SuperResolver] | Mapping[str, str | SuperResolver],
    test_set: str | PairSet,
    n: int = 90,
    seed: int = 1,
    *,
    factor: int = 2,
    noise: float = 1.0,
    batch: int = 8,
    progress: bool = True,
) -> SuperResolutionReport:
    """Run superresolvers on a set of simulated lenses and hold what they find against what finer pixels would show.

    Parameters
    ----------
    methods : str, `~lensdeblend.interfaces.SuperResolver`, sequence or mapping
        Names of ``methods("superresolver")`` or instances with their options. A mapping gives each its label in the
        report: ``{"all": Physics(), "sparse": Physics(weights="fifth.safetensors")}``.
    test_set : str or `PairSet`
        A name that `pair_sets` lists, or a set of one's own.
    n : int
        How many lenses in all; they are shared evenly among the models and classes of the set.
    seed : int
        Of the lenses and of the methods: the same seed and ``batch`` give the same report, but for the seconds.
    factor : int
        How many times smaller the pixels become, 1 to 5.
    noise : float
        What the noise of the images is multiplied with: 2 halves the signal-to-noise. The lenses stay the same.
    batch : int
        Images handed to a method at a time, all of one model. Where it raises on a batch, each image of it is tried
        alone.
    progress : bool
        Whether to show progress bars, where there is a terminal.

    Returns
    -------
    `SuperResolutionReport`
        A method that raises on an image, or returns what cannot be compared, is counted as failed there, and its other
        numbers are those of the images that it did answer for. What a method does not tell (deflection, convergence,
        errors) is NaN. Seconds are CPU time of this process.

    Raises
    ------
    ValueError
        For an unknown set or method, two methods of one label, ``n`` or ``batch`` below 1, a factor that is no whole
        number of 1 to 5, and a noise that is not positive.
    TypeError
        For a method that is no superresolver.

    Notes
    -----
    Beside the methods stand the truth without noise, which only the noisy truth is unlike: the ceiling; the scene's
    true parameters drawn by our own physics in torch, the best that a method that renders with it can do; and bicubic
    interpolation, the floor.

    Examples
    --------
    >>> from lensdeblend.evaluation import evaluate_superresolvers
    >>> report = evaluate_superresolvers("interpolation", "deeplense-3", n=1, progress=False)
    >>> report.summaries["fits"]["method", "model", "images", "failures"].pprint()
        method    model images failures
    ------------- ----- ------ --------
    interpolation     3      1        0
    """
    from tqdm import tqdm

    if isinstance(test_set, str):
        test_set = pair_set(test_set)
    if not isinstance(test_set, PairSet):
        raise TypeError(f"test_set must be a PairSet or the name of one; got {type(test_set).__name__}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1; got {batch}")
    resolved = labelled("superresolver", SuperResolver, methods)
    taken = [label for label in resolved if label in _REFERENCES]
    if taken:
        raise ValueError(f"the label {taken[0]!r} is one of the report's own: choose another")
    pairs = test_set.draw(n, seed, factor=factor, noise=noise, progress=progress)
    references = [_references(pair) for pair in pairs]
    rows = [
        {"method": label, **_where(pairs, index), **judge_finer_image(images[label], pairs[index]), "failure": ""}
        for label in _REFERENCES for index, images in enumerate(references)
    ]
    cases = []
    with tqdm(total=n * len(resolved), unit="image", disable=None if progress else True) as bar:
        for label, method in resolved.items():
            bar.set_description(label)
            candidates = []
            for index, seconds, outcome in _outcomes(method, pairs, seed, batch):
                row, pictures = _row(pairs[index], outcome, references[index][FLOOR])
                rows.append({"method": label, **_where(pairs, index), "seconds": seconds, **row})
                if pictures:
                    candidates.append((row["footprint_psnr"], index, pictures))
                bar.update()
            cases += chosen_cases(label, candidates)
    everything, labels = _table(rows), list(resolved)
    found = everything[np.isin(everything["method"], labels)]
    beside = test_set.published and factor == 2 and noise == 1
    return SuperResolutionReport(
        title=_title(test_set, n, seed, factor, noise), notes=_notes(test_set, beside),
        summaries={
            "comparison": finer_table(everything, [*_REFERENCES, *labels]),
            "published": published_table({pair.model for pair in pairs} if beside else ()),
            "maps": map_table(found, labels),
            "errors": error_table(found, labels),
            "fits": finer_fit_table(found, labels),
            "flags": flag_table(found, labels),
            "failures": failure_table(found, ("model", "lens")),
            "methods": method_table("superresolve", resolved, seed),
        },
        details={"images": everything, "lenses": _lens_table(pairs)},
        cases=tuple(cases),
    )


def _outcomes(
    method: Resolved, pairs: Sequence[TruePair], seed: int, batch: int
) -> Iterator[tuple[int, float, SuperResolution | Exception]]:
    """As `lensdeblend.evaluation.running.outcomes`, model by model."""
    members: dict[str, list[int]] = {}
    for index, pair in enumerate(pairs):
        members.setdefault(pair.model, []).append(index)
    for indices in members.values():
        seen = [pairs[index].image for index in indices]

        def run(places: slice, rng: np.random.Generator, seen=seen) -> list[SuperResolution]:
            return superresolve(seen[places], factor=pairs[0].factor, method=method.method, seed=rng)

        for place, seconds, outcome in outcomes(run, len(indices), seed, batch):
            yield indices[place], seconds, outcome


def _references(pair: TruePair) -> dict[str, np.ndarray]:
    from lensdeblend.simulators.torch import Torch
    from lensdeblend.superresolvers.interpolation import Interpolation

    drawn = Torch(device="cpu").simulate(pair.scene, pair.observation.refined(pair.factor), np.random.default_rng(0))
    floor = superresolve(pair.image, factor=pair.factor, method=Interpolation())
    return {CEILING: pair.fine.data, LIMIT: drawn.noiseless.data, FLOOR: floor.image.data}


def _row(
    pair: TruePair, outcome: SuperResolution | Exception, floor: np.ndarray
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    if isinstance(outcome, Exception):
        return {"failure": reason(outcome)}, None
    try:
        numbers = judge_finer(outcome, pair)
    except Exception as error:
        return {"failure": f"its result cannot be judged: {reason(error)}"}, None
    true, found = pair.fine.data, outcome.image.data
    # Pixels of the data as so many finer ones, so that all are on one scale.
    data = np.kron(pair.image.data, np.ones((pair.factor, pair.factor))) / pair.factor**2
    pictures = {
        "data": data, "bicubic": floor, "finer, found": found, "finer, true": true,
        "error": 100 * (found - true) / true.max(),
    }
    if outcome.deflection is not None:
        off = np.stack([axis.data for axis in outcome.deflection]) - pair.deflection
        pictures["deflection error"] = 100 * np.hypot(*off) / pair.theta_E
    pictures = {name: np.asarray(image, dtype=np.float32) for name, image in pictures.items()}
    return {**numbers, "failure": ""}, {"scale": pair.scale, **pictures}


def _where(pairs: Sequence[TruePair], index: int) -> dict[str, Any]:
    return {"lens": index, "model": pairs[index].model, "class": pairs[index].kind}


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = {name: [row[name] for row in rows] for name in ("method", "lens", "model", "class")}
    columns |= {name: np.array([row.get(name, np.nan) for row in rows], dtype=float) for name in _NUMBERS}
    return Table({**columns, **{name: [row.get(name, "") for row in rows] for name in ("flags", "failure")}})


def _lens_table(pairs: Sequence[TruePair]) -> Table:
    table = Table([
        {
            **_where(pairs, index), "theta_E": pair.theta_E, "peak_snr": pair.peak_snr,
            "mass": float(pair.convergence[pair.distance <= pair.theta_E].sum() * pair.scale**2),
        }
        for index, pair in enumerate(pairs)
    ])
    # The mass is in units of the critical surface density.
    table["theta_E"].unit, table["mass"].unit = u.arcsec, u.arcsec**2
    return table


def _title(test_set: PairSet, n: int, seed: int, factor: int, noise: float) -> str:
    louder = "" if noise == 1 else f", noise times {noise:g}"
    lenses = "lens" if n == 1 else "lenses"
    return f"{n} {lenses} of the set {test_set.name!r} ({test_set.summary}), factor {factor}{louder}, seed {seed}"


def _notes(test_set: PairSet, beside: bool) -> tuple[str, ...]:
    notes = [
        f"{CEILING} is the truth without noise: against the noisy truth it scores what no method surpasses but by "
        f"chance. {LIMIT} is the true scene as our own physics draws it: the limit for all that draw with that. "
        f"{FLOOR} is the floor.",
        "Both truths are divided by their maximum, and what is compared with them by the same. The noisy one has the "
        "noise of one exposure of the instrument itself: exposure time, background and read noise of each finer pixel "
        "are those of a pixel of the data.",
        "Deflection errors are root mean squares as shares of the Einstein radius; mass is that within it. Chi-square "
        "is the method's own.",
    ]
    if beside:
        notes.append(
            f"Published: {SOURCE}. Its lenses are singular isothermal spheres, its images are each scaled from their "
            "minimum to their maximum, and whether its truth had noise is not known here."
        )
    return tuple(notes)
