"""What a generator did on a whole sample, from one row a galaxy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Table

from lensdeblend.evaluation.summaries import statistic_of

__all__ = ["distribution_table", "neighbour_table", "spectrum_table", "wish_table"]

_FEWEST = 3
_HALVES = 20


def wish_table(galaxies: Table, methods: Sequence[str], properties: Sequence[str]) -> Table:
    """Wished against measured properties; a row a method and property.

    ``slope`` is that of the straight line through measured over wished, ``bias`` their mean difference, ``scatter`` the
    standard deviation about the line.
    """
    rows = []
    for method in methods:
        own = galaxies[galaxies["method"] == method]
        for name in properties:
            wished, found = (np.asarray(own[f"{name}{after}"], float) for after in ("_wished", ""))
            known = np.isfinite(wished) & np.isfinite(found)
            wished, found = wished[known], found[known]
            row = {"method": method, "property": name, "galaxies": len(found)}
            row |= dict.fromkeys(("slope", "bias", "scatter", "correlation"), np.nan)
            if len(found) >= _FEWEST and _differ(wished):
                slope = np.mean((wished - wished.mean()) * found) / wished.var()
                row |= {
                    "slope": float(slope), "bias": float(np.mean(found - wished)),
                    "scatter": float(np.std(found - slope * wished)),
                    "correlation": float(np.corrcoef(wished, found)[0, 1]) if _differ(found) else 0.0,
                }
            rows.append(row)
    return Table(rows)


def distribution_table(
    reference: Table, galaxies: Table, methods: Sequence[str], properties: Sequence[str], seed: int
) -> Table:
    """Distributions of measured properties, generated and of the reference; a row a method and property.

    ``distance`` is the Wasserstein distance, ``by_chance`` that of two random halves of the reference, in the mean over
    many divisions and scaled to the size of the whole: what equal distributions would give.
    """
    rng, rows = np.random.default_rng((seed, 1)), []
    chance = {name: _chance(_finite(reference[name]), rng) for name in properties}
    for method in methods:
        own = galaxies[galaxies["method"] == method]
        for name in properties:
            true, found = _finite(reference[name]), _finite(own[name])
            rows.append({
                "method": method, "property": name, "galaxies": len(found),
                "mean_reference": statistic_of(np.mean, true), "mean": statistic_of(np.mean, found),
                "sd_reference": statistic_of(np.std, true), "sd": statistic_of(np.std, found),
                "distance": _distance(true, found), "by_chance": chance[name],
            })
    return Table(rows)


def spectrum_table(
    reference: np.ndarray, spectra: dict[str, np.ndarray], wave_numbers: np.ndarray, transfer: np.ndarray
) -> Table:
    """Mean power of generated galaxies over that of the reference; a row a method and ring of wave numbers.

    Parameters
    ----------
    reference : (n, m) array
        Power spectra of galaxies of flux 1.
    spectra : dict of str to (n, m) array
        By method.
    wave_numbers : (m + 1,) array
        Edges of the rings, cycles a pixel.
    transfer : (m,) array
        What the PSF lets through of the amplitude.
    """
    rows = []
    for method, found in spectra.items():
        for k, (low, high) in enumerate(zip(wave_numbers, wave_numbers[1:])):
            ratio = found[:, k].mean() / reference[:, k].mean()
            errors = [part[:, k].std() / part[:, k].mean() / np.sqrt(len(part)) for part in (found, reference)]
            rows.append({
                "method": method, "cycles_from": float(low), "cycles_to": float(high),
                "through_psf": float(transfer[k]), "power_ratio": float(ratio),
                "power_error": float(ratio * np.hypot(*errors)),
            })
    return Table(rows)


def neighbour_table(held_out: np.ndarray, distances: dict[str, np.ndarray]) -> Table:
    """Distances to the nearest galaxy of the training, generated and held-out ones; a row a method.

    ``nearest_share`` is how many are nearer than all but one of a hundred held-out ones: 1% unless training galaxies
    come back.
    """
    near = np.quantile(held_out, 0.01)
    return Table([
        {
            "method": method, "galaxies": len(found), "median_held_out": float(np.median(held_out)),
            "median": float(np.median(found)), "nearest_share": float(np.mean(found < near)),
        } for method, found in distances.items()
    ] or None, names=("method", "galaxies", "median_held_out", "median", "nearest_share"))


def _differ(values: np.ndarray) -> bool:
    """By more than rounding."""
    return bool(np.ptp(values) > 1e-6 * np.abs(values).max())


def _finite(values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return values[np.isfinite(values)]


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(one, other)) if len(one) and len(other) else np.nan


def _chance(values: np.ndarray, rng: np.random.Generator) -> float:
    if len(values) < 2 * _FEWEST:
        return np.nan
    half = len(values) // 2
    found = []
    for _ in range(_HALVES):
        mixed = rng.permutation(values)
        found.append(_distance(mixed[:half], mixed[half:]))
    # Distances of samples go with one over the root of their size.
    return float(np.mean(found) / np.sqrt(2))
