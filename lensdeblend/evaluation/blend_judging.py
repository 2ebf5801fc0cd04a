"""One deblending held against the simulation it was made from: numbers in rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, VarianceUncertainty

from lensdeblend.evaluation.blends import TrueBlend
from lensdeblend.evaluation.metrics import compare, reduced_chi_square
from lensdeblend.evaluation.shapes import adaptive_ellipticity
from lensdeblend.results import Deblending

__all__ = ["Answer", "COLUMNS", "judge_fit", "judge_galaxies", "matched"]

#: Of the catalogue, without those of the bands.
COLUMNS = ("x", "y", "e1", "e2")


@dataclass(frozen=True, eq=False)
class Answer:
    """A deblending by band, in plain arrays.

    Attributes
    ----------
    sources : list of dict of str to ndarray
    model : dict of str to ndarray
    fluxes, flux_errors : ndarray
        (galaxies, bands); errors are NaN where there are none.
    values : dict of str to ndarray
        ``x``, ``y``, ``e1``, ``e2``, each with its ``_err``; NaN where there is none.
    """

    sources: list[dict[str, np.ndarray]]
    model: dict[str, np.ndarray]
    fluxes: np.ndarray
    flux_errors: np.ndarray
    values: dict[str, np.ndarray]

    @classmethod
    def of(cls, result: Deblending, truth: TrueBlend) -> Answer:
        """Take a result apart.

        Raises
        ------
        ValueError
            Where its bands or pixels are not those of the image, or it has not one image a row of its catalogue.
        """
        if len(result.sources) != len(result.catalog):
            raise ValueError(f"{len(result.sources)} images of galaxies, {len(result.catalog)} rows in the catalogue")
        sources = [_by_band(source, truth, f"source {k}") for k, source in enumerate(result.sources, start=1)]
        columns = {band: f"_{band}" if isinstance(result.model, Mapping) else "" for band in truth.image}
        fluxes, errors = (
            np.column_stack([_column(result, f"{name}{after}", truth.image[band]) for band, after in columns.items()])
            for name in ("flux", "flux_err")
        )
        values = {name + after: _column(result, name + after) for name in COLUMNS for after in ("", "_err")}
        return cls(sources, _by_band(result.model, truth, "model"), fluxes, errors, values)

    @property
    def positions(self) -> np.ndarray:
        return np.column_stack([self.values["x"], self.values["y"]])


def _by_band(images, truth: TrueBlend, name: str) -> dict[str, np.ndarray]:
    if not isinstance(images, Mapping):
        images = dict.fromkeys(truth.image, images) if len(truth.image) == 1 else {"": images}
    if set(images) != set(truth.image):
        raise ValueError(f"{name} has the bands {', '.join(images)}, the image {', '.join(truth.image)}")
    found = {band: np.asarray(images[band].data, dtype=float) for band in truth.image}
    for band, pixels in found.items():
        if pixels.shape != truth.image[band].data.shape:
            raise ValueError(f"{name} has the shape {pixels.shape}, the image {truth.image[band].data.shape}")
        if not np.isfinite(pixels).all():
            raise ValueError(f"{name} has values that are not finite")
    return found


def _column(result: Deblending, name: str, image: NDData | None = None) -> np.ndarray:
    if name not in result.catalog.colnames:
        if not name.partition("_")[2].startswith("err"):
            raise ValueError(f"the catalogue has no column {name!r}")
        return np.full(len(result.catalog), np.nan)
    values = u.Quantity(result.catalog[name])
    # What has no unit is a number in the image's.
    unit = image.unit if image is not None and values.unit != u.dimensionless_unscaled else None
    return np.asarray(values.to_value(unit or values.unit), dtype=float)


def judge_fit(result: Deblending, answer: Answer, truth: TrueBlend) -> dict[str, Any]:
    """Reduced chi-square over all pixels of all bands, degrees of freedom, flags.

    Computed here, for all methods alike, less the parameters that the method says it fitted
    (``meta["degrees_of_freedom"]``).
    """
    data, model, variance = (
        np.concatenate([array(band).ravel() for band in truth.image]) for array in (
            lambda band: truth.image[band].data, lambda band: answer.model[band],
            lambda band: truth.image[band].uncertainty.represent_as(VarianceUncertainty).array,
        )
    )
    fitted = int(np.clip(data.size - result.meta.get("degrees_of_freedom", data.size), 0, data.size - 1))
    return {
        "chi2": reduced_chi_square(data, model, variance, n_parameters=fitted),
        "degrees_of_freedom": data.size - fitted, "flags": "; ".join(result.meta.get("flags", ())),
    }


def judge_galaxies(answer: Answer, truth: TrueBlend) -> list[dict[str, float]]:
    """A row a galaxy, in the order of the true positions, which the method was given, those of neighbours after them.

    PSNR and SSIM are means over the bands, each on the maximum of the true galaxy in that band. ``image_e1`` and
    ``image_e2`` are measured on the galaxy's images, through the PSF, all bands together.

    Raises
    ------
    ValueError
        Where there is not one galaxy a position.
    """
    given = len(truth.all_positions)
    if len(answer.sources) != given:
        raise ValueError(f"{given} positions were given, {len(answer.sources)} galaxies came back")
    rows = []
    for number, (found, true) in enumerate(zip(answer.sources, truth.sources)):
        compared = [compare(found[band], true[band]).asdict() for band in true]
        row = {name: float(np.mean([numbers[name] for numbers in compared])) for name in compared[0]}
        row["image_e1"], row["image_e2"] = adaptive_ellipticity(sum(found.values()))
        row |= {name: float(values[number]) for name, values in answer.values.items()}
        for place, band in enumerate(true):
            row[f"flux_{band}"] = float(answer.fluxes[number, place])
            row[f"flux_{band}_err"] = float(answer.flux_errors[number, place])
        rows.append(row)
    return rows


def matched(found: np.ndarray, true: np.ndarray, radius: float) -> np.ndarray:
    """Which of the positions ``found`` is each of ``true``, -1 for none: the closest pairs first, each once.

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.evaluation.blend_judging import matched
    >>> matched(np.array([[0.0, 0.4], [5.0, 5.0]]), np.array([[0.0, 1.0], [0.0, 0.0]]), 2.0)
    array([-1,  0])
    """
    partner = np.full(len(true), -1)
    if not len(found):
        return partner
    distance = np.hypot(*(found[None] - true[:, None]).transpose(2, 0, 1))
    taken = set()
    for place in np.argsort(distance, axis=None, kind="stable"):
        galaxy, detection = divmod(int(place), len(found))
        if not distance[galaxy, detection] <= radius:
            break
        if partner[galaxy] < 0 and detection not in taken:
            partner[galaxy] = detection
            taken.add(detection)
    return partner
