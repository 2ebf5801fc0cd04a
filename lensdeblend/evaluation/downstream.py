"""Whether finer images help: a network that tells the classes of substructure apart, with and without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from astropy.nddata import NDData
from astropy.table import Table, vstack

from lensdeblend.evaluation.downstream_features import Shown, check_finer, of_finer, of_image
from lensdeblend.evaluation.downstream_images import Draw, downstream_sets
from lensdeblend.evaluation.downstream_summaries import accuracies, areas, curves, table_of
from lensdeblend.evaluation.report import Case, DownstreamReport
from lensdeblend.evaluation.running import labelled, method_table, outcomes, reason
from lensdeblend.evaluation.sets import check_count
from lensdeblend.interfaces import SuperResolver
from lensdeblend.plugins import Resolved
from lensdeblend.results import SuperResolution
from lensdeblend.scenes.populations.deeplense import CLASSES
from lensdeblend.verbs import superresolve

__all__ = ["LOW", "evaluate_downstream"]

#: Label of the images themselves.
LOW = "(low resolution)"
_MOST = 5


def evaluate_downstream(
    methods: str | SuperResolver | Sequence[str | SuperResolver] | Mapping[str, str | SuperResolver],
    test_set: str | Draw,
    n: int = 600,
    seed: int = 1,
    *,
    learned: int = 2000,
    factor: int = 2,
    noise: float = 1.0,
    batch: int = 32,
    networks: int = 2,
    progress: bool = True,
) -> DownstreamReport:
    """Train small networks to tell classes of substructure apart, on images and on what superresolvers make of them.

    Parameters
    ----------
    methods : str, `~lensdeblend.interfaces.SuperResolver`, sequence or mapping
        As in `evaluate_superresolvers`.
    test_set : str or callable
        A name that `pair_sets` lists, or what draws images (`lensdeblend.evaluation.downstream_images.Draw`).
    n : int
        How many images are judged, a model.
    seed : int
        Of images, methods and networks: the same seed and ``batch`` give the same report on one machine.
    learned : int
        How many images the networks learn from, a model; none of them is judged.
    factor : int
        How many times smaller the pixels become, 1 to 5.
    noise : float
        What the noise of the images is multiplied with, of those of a named set.
    batch : int
        Images handed to a method at a time.
    networks : int
        How many are trained a method; their probabilities are averaged.
    progress : bool
        Whether to show progress bars, where there is a terminal.

    Returns
    -------
    `DownstreamReport`
        Where a method raises on an image, the network is shown that alone, and a failure is counted.

    Raises
    ------
    ValueError
        For an unknown set or method, two methods of one label, a factor that is no whole number of 1 to 5, and counts
        that are not positive.
    TypeError
        For a method that is no superresolver, and a set that is neither named nor drawn.

    Notes
    -----
    The network sees the image in units of its brightest pixel, linear and compressed, and what a Gaussian of one pixel
    leaves of it, in sigma; and of a method besides: the finer image; what that leaves of the data, in sigma; and by how
    much its convergence exceeds that of its lens (`lensdeblend.evaluation.downstream_features`). But for these
    channels, architecture, budget and random numbers are the same for all. What a method makes follows from the image:
    it can hold no more than that, and what it is worth is what a network would else have to learn from more images.

    Examples
    --------
    >>> from lensdeblend.evaluation import evaluate_downstream
    >>> report = evaluate_downstream("interpolation", "deeplense-3", 12, learned=12, networks=1, progress=False)
    >>> report.summaries["areas"]["method", "class", "images"][:2].pprint()
         method      class images
    ---------------- ----- ------
    (low resolution)  none     12
    (low resolution)   cdm     12
    """
    from tqdm import tqdm

    from lensdeblend.evaluation.classifier import class_probabilities

    check_count(n, seed)
    for name, value in (("learned", learned), ("batch", batch), ("networks", networks)):
        if isinstance(value, bool) or value != int(value) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
    if isinstance(factor, bool) or factor != int(factor) or not 1 <= factor <= _MOST:
        raise ValueError(f"factor must be a whole number of 1 to {_MOST}; got {factor!r}")
    if not 0 < noise < np.inf:
        raise ValueError(f"noise must be positive: 1 for the instrument's own, 2 for twice that; got {noise}")
    if not (callable(test_set) or isinstance(test_set, str)):
        raise TypeError(f"test_set must be the name of a set, or what draws images; got {type(test_set).__name__}")
    models = {"": test_set} if callable(test_set) else downstream_sets(test_set, noise)
    resolved = labelled("superresolver", SuperResolver, methods)
    if LOW in resolved:
        raise ValueError(f"the label {LOW!r} is the report's own: choose another")
    tables: dict[str, list[Table]] = {name: [] for name in ("areas", "accuracy", "curves")}
    cases, failures = [], []
    total = len(models) * len(resolved) * (n + learned)
    with tqdm(total=total, unit="image", disable=None if progress else True) as bar:
        for model, draw in models.items():
            samples = [_sample(draw, count, (seed, part)) for part, count in enumerate((learned, n))]
            kinds = _kinds(samples)
            (_, lesson), (_, truth) = ((images, np.array([kinds.index(one) for one in own])) for images, own in samples)
            probabilities = {}
            for label, method in {LOW: None, **resolved}.items():
                bar.set_description(f"{model} {label}".strip())
                shown = []
                for part, (images, _) in enumerate(samples):
                    seen, failed = _shown(method, images, factor, seed, batch, bar)
                    shown.append(_stacked(seen))
                    failures += [(label, model, ("learned", "judged")[part], index, why) for index, why in failed]
                probabilities[label] = class_probabilities(
                    shown[0], lesson, shown[1], len(kinds), seed, networks=networks
                )
            found = {
                "areas": areas(probabilities, truth, kinds, LOW, seed),
                "accuracy": accuracies(probabilities, truth, kinds, seed),
                "curves": curves(probabilities, truth, kinds),
            }
            for name, rows in found.items():
                tables[name].append(table_of(rows, model))
            cases.append(_case(model, tables["curves"][-1]))
    columns = ("method", "model", "sample", "image", "reason")
    failed = Table(rows=failures or None, names=columns, dtype=(str, str, str, int, str))
    return DownstreamReport(
        title=_title(test_set, n, learned, seed, factor, noise), notes=_notes(networks),
        summaries={
            "areas": vstack(tables["areas"]), "accuracy": vstack(tables["accuracy"]), "failures": failed,
            "methods": method_table("superresolve", resolved, seed),
        },
        details={"curves": vstack(tables["curves"])}, cases=tuple(cases),
    )


def _sample(draw: Draw, count: int, seed: tuple[int, ...]) -> tuple[list[NDData], list[str]]:
    images, kinds = draw(count, seed)
    return list(images), [str(kind) for kind in kinds]


def _kinds(samples) -> list[str]:
    """DeepLense's in their order, then others."""
    found = dict.fromkeys(kind for _, kinds in samples for kind in sorted(kinds))
    return [*(kind for kind in CLASSES if kind in found), *(kind for kind in found if kind not in CLASSES)]


def _shown(
    method: Resolved | None, images: list[NDData], factor: int, seed: int, batch: int, bar
) -> tuple[list[Shown], list[tuple[int, str]]]:
    """What the network is shown of each image, and where the method gave nothing."""
    if method is None:
        return [of_image(image) for image in images], []
    shown, failed = [], []

    def run(places: slice, rng: np.random.Generator) -> list[SuperResolution]:
        return superresolve(images[places], factor=factor, method=method.method, seed=rng)

    for some in _together(_usable(outcomes(run, len(images), seed, batch), images, factor), batch):
        failed += [(index, reason(outcome)) for index, outcome in some if isinstance(outcome, Exception)]
        results = [None if isinstance(outcome, Exception) else outcome for _, outcome in some]
        shown += of_finer([images[index] for index, _ in some], results, factor)
        bar.update(len(some))
    return shown, failed


def _usable(
    found: Iterator, images: Sequence[NDData], factor: int
) -> Iterator[tuple[int, SuperResolution | Exception]]:
    for index, _, outcome in found:
        if not isinstance(outcome, Exception):
            try:
                check_finer(images[index], outcome, factor)
            except ValueError as error:
                outcome = error
        yield index, outcome


def _together(items: Iterator, most: int) -> Iterator[list]:
    held = []
    for item in items:
        held.append(item)
        if len(held) == most:
            yield held
            held = []
    if held:
        yield held


def _stacked(shown: Sequence[Shown]) -> list[np.ndarray]:
    parts = [np.stack([one.coarse for one in shown])]
    return parts if shown[0].fine is None else [*parts, np.stack([one.fine for one in shown])]


def _case(model: str, table: Table) -> Case:
    """ROC curves by class and method; what stands for the rank is the model."""
    pictures = {}
    for row in table:
        pictures.setdefault(f"{row['class']}, {row['method']}", []).append(
            (row["false_positive_rate"], row["true_positive_rate"])
        )
    return Case("ROC curves", model, 0, np.nan, {name: np.array(points) for name, points in pictures.items()})


def _title(test_set, n: int, learned: int, seed: int, factor: int, noise: float) -> str:
    name = f"the set {test_set!r}" if isinstance(test_set, str) else "a set of one's own"
    louder = "" if noise == 1 else f", noise times {noise:g}"
    return (
        f"Classes told apart on {n} images of {name}, after learning from {learned} others, factor {factor}{louder}, "
        f"seed {seed}"
    )


def _notes(networks: int) -> tuple[str, ...]:
    each = "one network" if networks == 1 else f"the mean of {networks} networks"
    return (
        f"By {each} of the same architecture, budget and random numbers for all. Shown is the image in units of its "
        "brightest pixel, linear and compressed, and what a Gaussian of one pixel leaves of it, in sigma: nothing else "
        f"({LOW}), or besides what a method makes of it: the finer image, what that leaves of the data in sigma, and "
        "by how much its convergence exceeds that of its lens.",
        "AUC: area under the ROC curve of one class against the others; gain: how much more than that of the images "
        "alone. Errors are from a bootstrap of the images judged, and do not hold the chance of training.",
    )
