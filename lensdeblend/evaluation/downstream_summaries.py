"""How well classes are told apart, from the probabilities of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.table import Table

__all__ = ["accuracies", "areas", "curves", "roc", "table_of"]

_DRAWS = 400
_POINTS = 101


def areas(
    probabilities: Mapping[str, np.ndarray], truth: np.ndarray, classes: Sequence[str], first: str, seed: int
) -> list[dict[str, Any]]:
    """Area under the ROC curve of each class against the others, and how much more it is than that of ``first``.

    Errors are from a bootstrap of the images judged, those of the difference with the same images for both.
    """
    draws = _draws(truth, classes, seed)
    rows = []
    for place, kind in enumerate(classes):
        is_kind = truth == place
        spread = {
            label: np.array([_area(one[some, place], is_kind[some]) for some in draws])
            for label, one in probabilities.items()
        }
        base = _area(probabilities[first][:, place], is_kind)
        for label, one in probabilities.items():
            area = _area(one[:, place], is_kind)
            row = {
                "method": label, "class": kind, "images": len(truth), "of_class": int(is_kind.sum()), "auc": area,
                "auc_error": _spread(spread[label]), "gain": np.nan, "gain_error": np.nan,
            }
            if label != first:
                row |= {"gain": area - base, "gain_error": _spread(spread[label] - spread[first])}
            rows.append(row)
    return sorted(rows, key=lambda row: list(probabilities).index(row["method"]))


def accuracies(
    probabilities: Mapping[str, np.ndarray], truth: np.ndarray, classes: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """How often the most probable class is the right one, the mean area, and how often each class is taken for each."""
    draws, rows = _draws(truth, classes, seed), []
    for label, one in probabilities.items():
        chosen = one.argmax(1)
        right = chosen == truth
        row = {
            "method": label, "accuracy": float(right.mean()),
            "accuracy_error": _spread(np.array([right[some].mean() for some in draws])),
            "auc_mean": float(np.mean([_area(one[:, place], truth == place) for place in range(len(classes))])),
        }
        for place, kind in enumerate(classes):
            for other, taken in enumerate(classes):
                row[f"{kind}_as_{taken}"] = int(np.count_nonzero((truth == place) & (chosen == other)))
        rows.append(row)
    return rows


def curves(
    probabilities: Mapping[str, np.ndarray], truth: np.ndarray, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """The ROC curves, at even steps of the false positive rate."""
    at = np.linspace(0, 1, _POINTS)
    return [
        {"method": label, "class": kind, "false_positive_rate": float(x), "true_positive_rate": float(y)}
        for label, one in probabilities.items() for place, kind in enumerate(classes)
        for x, y in zip(at, np.interp(at, *roc(one[:, place], truth == place)))
    ]


def roc(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at all thresholds, the highest first; equal scores are one step.

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.evaluation.downstream_summaries import roc
    >>> roc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))[1]
    array([0. , 0.5, 0.5, 1. , 1. ])
    """
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], np.asarray(positive, bool)[order]
    last = np.append(np.diff(scores) != 0, True)
    found, false = np.cumsum(positive)[last], np.cumsum(~positive)[last]
    return np.append(0, false) / max(false[-1], 1), np.append(0, found) / max(found[-1], 1)


def table_of(rows: Sequence[Mapping[str, Any]], model: str) -> Table:
    """With the model as second column."""
    return Table([{"method": row["method"], "model": model, **row} for row in rows])


def _area(scores: np.ndarray, positive: np.ndarray) -> float:
    if positive.all() or not positive.any():
        return np.nan
    from lensdeblend.evaluation.two_sample import area_under_curve

    return area_under_curve(scores, positive)[0]


def _draws(truth: np.ndarray, classes: Sequence[str], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(len(truth), size=len(truth)) for _ in range(_DRAWS)]


def _spread(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.std()) if len(values) > 1 else np.nan
