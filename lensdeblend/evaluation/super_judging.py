"""One finer image held against what finer pixels would show, and its maps against those of the scene: numbers in a row.

Images are compared twice: with the truth without noise, and, over the whole frame, with the noisy one, as published
numbers may have been; either way both are divided by the maximum of what they are held against.

Maps: root mean square of the deflection's error, as a share of the Einstein radius; relative error of the mass within
the Einstein radius of the main lens, what is projected into that circle included; root mean square of the convergence's
error between a half and one and a half Einstein radii, smoothed with a Gaussian whose standard deviation is a tenth of
that radius, since the convergence of a point mass is infinite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, VarianceUncertainty
from scipy.ndimage import gaussian_filter

from lensdeblend.evaluation.arguments import as_pair
from lensdeblend.evaluation.metrics import compare, mse, psnr, ssim
from lensdeblend.evaluation.pairs import TruePair
from lensdeblend.results import SuperResolution

__all__ = ["IMAGE_COLUMNS", "MAP_COLUMNS", "judge_finer", "judge_finer_image"]

_METRICS = ("mse", "ssim", "psnr")
#: Of the image alone.
IMAGE_COLUMNS = (*_METRICS, *(f"footprint_{name}" for name in _METRICS), *(f"noisy_{name}" for name in _METRICS))
#: Of what else a result has; NaN where it has not.
MAP_COLUMNS = (
    "deflection_rmse", "footprint_deflection_rmse", "mass_error", "convergence_rmse", "within_1_sigma", "rms_pull",
)
# Of the Einstein radius.
_SMOOTHED, _RING = 0.1, (0.5, 1.5)


def judge_finer(result: SuperResolution, pair: TruePair) -> dict[str, Any]:
    """Metrics of the finer image, its errors and its maps, with the method's own reduced chi-square and its flags.

    Raises
    ------
    ValueError
        Where image or maps are on other pixels than the truth, or not finite.
    """
    if isinstance(result.image, Mapping):
        raise ValueError(f"the result has the bands {', '.join(result.image)}, the image had none")
    return {
        **judge_finer_image(result.image, pair), **_judge_errors(result.image, pair),
        **_judge_deflection(result.deflection, pair), **_judge_convergence(result.convergence, pair),
        "chi2": float(result.chi2), "flags": "; ".join(result.flags),
        "degrees_of_freedom": int(result.meta.get("degrees_of_freedom", pair.image.data.size)),
    }


def judge_finer_image(image: NDData | np.ndarray, pair: TruePair) -> dict[str, float]:
    """MSE, SSIM and PSNR over frame and footprint, and over the frame against the noisy truth."""
    found, noisy = as_pair(image, pair.noisy)
    peak = noisy.max()
    found, noisy = found / peak, noisy / peak
    return {
        **compare(image, pair.fine).asdict(), "noisy_mse": mse(found, noisy),
        "noisy_ssim": ssim(found, noisy, data_range=1), "noisy_psnr": psnr(found, noisy, data_range=1),
    }


def _judge_errors(image: NDData, pair: TruePair) -> dict[str, float]:
    """How large the errors are in units of those claimed, over the footprint."""
    if image.uncertainty is None:
        return {"within_1_sigma": np.nan, "rms_pull": np.nan}
    sigma = np.sqrt(image.uncertainty.represent_as(VarianceUncertainty).array)
    judged = pair.footprint & np.isfinite(sigma) & (sigma > 0)
    if not judged.any():
        return {"within_1_sigma": np.nan, "rms_pull": np.nan}
    pull = (image.data - pair.fine.data)[judged] / sigma[judged]
    return {"within_1_sigma": float(np.mean(np.abs(pull) <= 1)), "rms_pull": _rms(pull)}


def _judge_deflection(maps: tuple[NDData, NDData] | None, pair: TruePair) -> dict[str, float]:
    if maps is None:
        return {"deflection_rmse": np.nan, "footprint_deflection_rmse": np.nan}
    found, true = as_pair(np.stack([_values(axis, u.arcsec) for axis in maps]), pair.deflection)
    off = np.hypot(*(found - true)) / pair.theta_E
    return {"deflection_rmse": _rms(off), "footprint_deflection_rmse": _rms(off[pair.footprint])}


def _judge_convergence(image: NDData | None, pair: TruePair) -> dict[str, float]:
    if image is None:
        return {"mass_error": np.nan, "convergence_rmse": np.nan}
    found, true = as_pair(_values(image, u.dimensionless_unscaled), pair.convergence)
    inside, (inner, outer) = pair.distance <= pair.theta_E, (pair.theta_E * edge for edge in _RING)
    ring = (pair.distance >= inner) & (pair.distance <= outer)
    off = gaussian_filter(found - true, _SMOOTHED * pair.theta_E / pair.scale, mode="nearest")
    return {
        "mass_error": float(found[inside].sum() / true[inside].sum() - 1), "convergence_rmse": _rms(off[ring]),
    }


def _values(image: NDData, unit) -> np.ndarray:
    return np.asarray(image.data if image.unit is None else (image.data * image.unit).to_value(unit), dtype=float)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
