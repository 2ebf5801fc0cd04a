"""What a superresolver did on a whole set of lenses, by model and class, from one row an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from astropy.table import Table, vstack

from lensdeblend.evaluation.summaries import done_by, finite, fit_table, statistic_of

__all__ = ["error_table", "finer_fit_table", "finer_table", "map_table"]

_MEANS = (
    "mse", "ssim", "psnr", "footprint_psnr", "footprint_ssim", "noisy_mse", "noisy_ssim", "noisy_psnr",
)


def finer_table(images: Table, methods: Sequence[str]) -> Table:
    """Means of MSE, SSIM and PSNR of the finer images; a row a method, model and class."""
    return _by_class(images, methods, lambda done: {
        f"{name}_mean": statistic_of(np.mean, finite(done[name], infinite=True)) for name in _MEANS
    })


def map_table(images: Table, methods: Sequence[str]) -> Table:
    """Medians over the images of the errors of deflection, mass and convergence, and the mass's scatter.

    ``maps`` counts the images with a deflection.
    """
    def numbers(done: Table) -> dict[str, float]:
        mass = finite(done["mass_error"])
        return {
            "maps": len(finite(done["deflection_rmse"])),
            **{
                f"{name}_median": statistic_of(np.median, finite(done[name]))
                for name in ("deflection_rmse", "footprint_deflection_rmse")
            },
            "mass_bias": statistic_of(np.median, mass), "mass_rmse": statistic_of(_rms, mass),
            "convergence_rmse_median": statistic_of(np.median, finite(done["convergence_rmse"])),
        }

    return _by_class(images, methods, numbers)


def error_table(images: Table, methods: Sequence[str]) -> Table:
    """How often the error map holds the truth, and the error over the claimed one; over footprints."""
    return _by_class(images, methods, lambda done: {
        "error_maps": len(finite(done["rms_pull"])),
        "within_1_sigma": statistic_of(np.mean, finite(done["within_1_sigma"])),
        "pull_rms": statistic_of(_rms, finite(done["rms_pull"])),
    })


def finer_fit_table(images: Table, methods: Sequence[str]) -> Table:
    """`~lensdeblend.evaluation.summaries.fit_table` by model, with images a second of CPU time."""
    tables = []
    for model in _in_order(images["model"]):
        table = fit_table(images[images["model"] == model], methods)
        table.add_column(np.full(len(table), model), name="model", index=1)
        table["images_per_second"] = 1 / table["seconds_mean"]
        tables.append(table)
    return vstack(tables, metadata_conflicts="silent")


def _by_class(images: Table, methods: Sequence[str], numbers: Callable[[Table], dict[str, float]]) -> Table:
    rows = []
    for model, kind, members in _classes(images):
        for method in methods:
            done = done_by(members, method)
            rows.append({"method": method, "model": model, "class": kind, "images": len(done), **numbers(done)})
    return Table(rows)


def _classes(images: Table) -> Iterator[tuple[str, str, Table]]:
    """The images of each class of each model, and all of a model that has several."""
    for model in _in_order(images["model"]):
        members = images[images["model"] == model]
        kinds = _in_order(members["class"])
        for kind in kinds:
            yield model, kind, members[members["class"] == kind]
        if len(kinds) > 1:
            yield model, "all", members


def _in_order(values) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values))


def _rms(values: np.ndarray) -> float:
    return np.sqrt(np.mean(values**2))
