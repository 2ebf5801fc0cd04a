"""What a deblender did on a whole set of blends, from one row a galaxy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Table

from lensdeblend.evaluation.summaries import finite, statistic_of

__all__ = ["BINS", "band_table", "detection_table", "galaxy_table"]

#: Column of the truth, lower and upper limit, by label.
BINS = {
    "all": ("snr", -np.inf, np.inf),
    "blendedness < 0.1": ("blendedness", -np.inf, 0.1), "blendedness 0.1 to 0.4": ("blendedness", 0.1, 0.4),
    "blendedness > 0.4": ("blendedness", 0.4, np.inf),
    "S/N < 20": ("snr", -np.inf, 20.0), "S/N 20 to 60": ("snr", 20.0, 60.0), "S/N > 60": ("snr", 60.0, np.inf),
}
_BRIGHT = 20.0


def galaxy_table(sources: Table, truths: Table, methods: Sequence[str], bands: Sequence[str]) -> Table:
    """A row a method and bin, true positions given.

    ``flux_bias`` is the median, ``flux_scatter`` half of 16 to 84% of the relative error of the flux of all bands
    together; ``e_scatter`` that half width of the errors of ``e1`` and ``e2`` of the catalogue, ``image_e_scatter`` of
    those measured on the images. Pulls are half widths of error over the method's own error, of the fluxes of all
    bands, of ``x`` and ``y``, and of ``e1`` and ``e2``: 1 where errors are calibrated.
    """
    rows = []
    for method in methods:
        own, truth = _paired(sources, truths, method)
        for label, (column, low, high) in BINS.items():
            inside = (truth[column] >= low) & (truth[column] < high)
            found, true = own[inside], truth[inside]
            flux, flux_true = (sum((_array(table, f"flux_{band}") for band in bands), 0.0) for table in (found, true))
            relative = finite(flux / flux_true - 1)
            rows.append({
                "method": method, "galaxies": label, "n": len(found),
                "flux_bias": statistic_of(np.median, relative), "flux_scatter": half_width(relative),
                "e_scatter": half_width(_errors(found, true, ("e1", "e2"))),
                "image_e_scatter": half_width(_errors(found, true, ("image_e1", "image_e2"))),
                **{
                    f"{name}_mean": statistic_of(np.mean, finite(found[name], infinite=True))
                    for name in ("psnr", "ssim", "footprint_psnr", "footprint_ssim")
                },
                "pull_flux": half_width(_pulls(found, true, [f"flux_{band}" for band in bands])),
                "pull_position": half_width(_pulls(found, true, ("x", "y"))),
                "pull_e": half_width(_pulls(found, true, ("e1", "e2"))),
            })
    return Table(rows)


def band_table(sources: Table, truths: Table, methods: Sequence[str], bands: Sequence[str]) -> Table:
    """Relative flux errors and pulls, a row a method and band."""
    rows = []
    for method in methods:
        found, true = _paired(sources, truths, method)
        for band in bands:
            relative = finite(_array(found, f"flux_{band}") / _array(true, f"flux_{band}") - 1)
            pulls = _pulls(found, true, [f"flux_{band}"])
            rows.append({
                "method": method, "band": band, "n": len(relative), "flux_bias": statistic_of(np.median, relative),
                "flux_scatter": half_width(relative), "pull_median": statistic_of(np.median, pulls),
                "pull_width": half_width(pulls),
            })
    return Table(rows)


def detection_table(matches: Table, images: Table, methods: Sequence[str], *, precise: bool = True) -> Table:
    """A row a method, no positions given: recall, precision, fluxes of the galaxies found with S/N above 20.

    ``flux_bias`` is the mean, ``flux_scatter`` half of 16 to 84% of the relative error of the sum of all bands. Where
    the images hold galaxies that are not in ``matches``, they are not ``precise`` and precision is NaN.
    """
    rows = []
    for method in methods:
        own, done = matches[matches["method"] == method], images[images["method"] == method]
        bright = own[own["found"] & (own["snr"] > _BRIGHT)]
        relative = finite(np.asarray(bright["flux"]) / np.asarray(bright["flux_true"]) - 1)
        held, detections = np.count_nonzero(own["found"]), int(np.sum(done["detections"]))
        rows.append({
            "method": method, "blends": len(done), "galaxies": len(own), "detections": detections,
            "recall": held / len(own) if len(own) else np.nan,
            "precision": held / detections if detections and precise else np.nan,
            "bright": len(relative), "flux_bias": statistic_of(np.mean, relative),
            "flux_scatter": half_width(relative),
            "seconds_median": statistic_of(np.median, finite(done["seconds"])),
        })
    return Table(rows)


def half_width(values) -> float:
    """Half of 16 to 84%: one standard deviation, were they normal; NaN of fewer than two."""
    values = finite(values)
    return float(np.diff(np.percentile(values, [16, 84]))[0] / 2) if len(values) > 1 else np.nan


def _paired(sources: Table, truths: Table, method: str) -> tuple[Table, Table]:
    """The galaxies of a method, and the truth in the same rows."""
    own = sources[sources["method"] == method]
    places = {(blend, galaxy): k for k, (blend, galaxy) in enumerate(truths["blend", "galaxy"].iterrows())}
    return own, truths[[places[pair] for pair in own["blend", "galaxy"].iterrows()]]


def _array(table: Table, name: str) -> np.ndarray:
    return np.asarray(table[name], dtype=float)


def _errors(found: Table, true: Table, names: Sequence[str]) -> np.ndarray:
    return np.concatenate([_array(found, name) - _array(true, name) for name in names])


def _pulls(found: Table, true: Table, names: Sequence[str]) -> np.ndarray:
    pulls = []
    for name in names:
        claimed = _array(found, f"{name}_err")
        known = np.isfinite(claimed) & (claimed > 0)
        pulls.append((_array(found, name) - _array(true, name))[known] / claimed[known])
    return finite(np.concatenate(pulls))
