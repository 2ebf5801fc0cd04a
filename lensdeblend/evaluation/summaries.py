"""What a method did on a whole set of lenses, from one row an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from astropy.table import Table

from lensdeblend.evaluation.judging import LENS_UNITS
from lensdeblend.evaluation.metrics import coverage, reduced_chi_square_limits

__all__ = [
    "done_by", "failure_table", "finite", "fit_table", "flag_table", "parameter_table", "source_table", "statistic_of",
]

_LEVELS = (0.68, 0.95)


def source_table(images: Table, methods: Sequence[str]) -> Table:
    """Mean and median of MSE, PSNR and SSIM of the unlensed sources, a row a method and region."""
    rows = []
    for method in methods:
        done = done_by(images, method)
        for region, prefix in (("frame", ""), ("footprint", "footprint_")):
            row = {"method": method, "region": region, "images": len(done)}
            for name in ("mse", "psnr", "ssim"):
                values = finite(done[prefix + name], infinite=True)
                row[f"{name}_mean"] = statistic_of(np.mean, values)
                row[f"{name}_median"] = statistic_of(np.median, values)
            rows.append(row)
    return Table(rows)


def parameter_table(images: Table, lenses: Table, methods: Sequence[str]) -> Table:
    """Errors of the lens parameters, also in units of their Cramér-Rao bound, and coverage; a row each.

    ``images`` counts those that a value was found for. ``median_over_bound`` is the median of |error| over the bound of
    its image (0.674 for ideal errors), ``rms_over_bound`` the root mean square of the same (1). ``holds_68`` and
    ``holds_95`` are how often the intervals of the method's own errors hold the truth.
    """
    rows = []
    for method in methods:
        done = done_by(images, method)
        truths = lenses[done["lens"]]
        for name, unit in LENS_UNITS.items():
            found, claimed = np.asarray(done[name], float), np.asarray(done[f"{name}_err"], float)
            true, bound = np.asarray(truths[name], float), np.asarray(truths[f"{name}_bound"], float)
            error = finite(found - true)
            ratio = finite((found - true) / bound)
            known = np.isfinite(found) & np.isfinite(claimed) & (claimed > 0)
            held = coverage(true[known], found[known], claimed[known], _LEVELS) if known.any() else [np.nan, np.nan]
            rows.append({
                "method": method, "parameter": name, "unit": str(unit), "images": len(error),
                "bias": statistic_of(np.mean, error), "rmse": statistic_of(_rms, error),
                "median_over_bound": statistic_of(np.median, np.abs(ratio)),
                "rms_over_bound": statistic_of(_rms, ratio),
                "holds_68": float(held[0]), "holds_95": float(held[1]),
            })
    return Table(rows)


def fit_table(images: Table, methods: Sequence[str]) -> Table:
    """Reduced chi-square, how often it is within 3 sigma of 1, CPU seconds an image, failures; a row a method."""
    rows = []
    for method in methods:
        done = done_by(images, method)
        good = [
            low <= row["chi2"] <= high for row in done
            for low, high in [reduced_chi_square_limits(int(row["degrees_of_freedom"]))]
        ]
        total = np.count_nonzero(images["method"] == method)
        rows.append({
            "method": method, "images": total, "failures": total - len(done),
            "flagged": np.count_nonzero(done["flags"] != ""),
            "chi2_median": statistic_of(np.median, finite(done["chi2"])),
            "within_3_sigma": statistic_of(np.mean, np.array(good, float)),
            "seconds_median": statistic_of(np.median, finite(done["seconds"])),
            "seconds_mean": statistic_of(np.mean, finite(done["seconds"])),
        })
    return Table(rows)


def flag_table(images: Table, methods: Sequence[str]) -> Table:
    """How many images each flag was raised for."""
    rows = []
    for method in methods:
        flags = Counter(flag for row in done_by(images, method) for flag in str(row["flags"]).split("; ") if flag)
        rows += [(method, flag, count) for flag, count in flags.most_common()]
    return Table(rows=rows or None, names=("method", "flag", "images"), dtype=(str, str, int))


def failure_table(images: Table, what: Sequence[str] = ("lens",)) -> Table:
    """The images that a method gave no answer for, with its reason; ``what`` names the columns that say which."""
    failed = images[images["failure"] != ""]
    columns = ("method", *what)
    return Table([*(failed[name] for name in columns), failed["failure"]], names=(*columns, "reason"))


def done_by(images: Table, method: str) -> Table:
    """The rows of a method that did not fail."""
    return images[(images["method"] == method) & (images["failure"] == "")]


def finite(values, *, infinite: bool = False) -> np.ndarray:
    """The numbers among the values, infinite ones only if asked for."""
    values = np.asarray(values, dtype=float)
    return values[~np.isnan(values)] if infinite else values[np.isfinite(values)]


def _rms(values: np.ndarray) -> float:
    return np.sqrt(np.mean(values**2))


def statistic_of(statistic, values: np.ndarray) -> float:
    """The statistic, NaN of no values."""
    return float(statistic(values)) if len(values) else np.nan
