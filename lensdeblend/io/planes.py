"""What the planes of an image file mean: noise of four kinds, mask bits, units."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping

import astropy.units as u
import numpy as np
from astropy.io.fits import Header
from astropy.nddata import (
    InverseVariance, NDUncertainty, StdDevUncertainty, VarianceUncertainty, bitfield_to_boolean_mask,
)
from astropy.stats import mad_std, sigma_clipped_stats
from astropy.utils.exceptions import AstropyUserWarning

__all__ = [
    "BAD_BITS", "EXTNAMES", "NOISE", "ImageWarning", "background_sigma", "mask_of", "noise_kind", "parse_unit",
    "uncertainty_of",
]

EXTNAMES = {
    "image": ("SCI", "SCIENCE", "IMAGE", "DATA"),
    "variance": ("VAR", "VARIANCE"),
    "std": ("ERR", "ERROR", "RMS", "STD", "STDDEV", "SIGMA", "NOISE", "NOISE_MAP", "UNCERT"),
    "inverse_variance": ("IVAR", "INVVAR", "INVERSE_VARIANCE"),
    "weight": ("WHT", "WEIGHT", "WEIGHT_MAP"),
    "mask": ("MASK", "DQ", "BPM", "FLAGS"),
    "psf": ("PSF", "PSFIMAGE", "KERNEL"),
}
NOISE = ("variance", "std", "inverse_variance", "weight")
BAD_BITS = ("BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN", "SUSPECT", "EDGE")

_CLASSES = {"variance": VarianceUncertainty, "std": StdDevUncertainty, "inverse_variance": InverseVariance}
_POWERS = {"variance": 2, "std": 1, "inverse_variance": -2}
_ALIASES = {
    "electrons": u.electron, "counts": u.count, "cps": u.count / u.s, "sec": u.s, "seconds": u.s, "second": u.s,
    "nanomaggies": u.nmgy,
}


class ImageWarning(AstropyUserWarning):
    """Something about an image had to be assumed."""


def background_sigma(data: np.ndarray) -> float:
    """Return 1.4826 times the median absolute deviation of what 3-sigma clipping leaves of ``data``."""
    return float(sigma_clipped_stats(data, sigma=3, maxiters=None, stdfunc=mad_std)[2])


def parse_unit(text: str | None) -> u.UnitBase | None:
    """Turn a BUNIT into a unit; None where there is none, or (with a warning) none that astropy knows."""
    if text is None:
        return None
    cleaned = re.sub(r"\be-", "electron", text.strip())
    # ELECTRONS/S is no electron per siemens.
    spellings = (cleaned.lower(), cleaned) if cleaned.isupper() else (cleaned,)
    with warnings.catch_warnings(), u.set_enabled_aliases(_ALIASES):
        warnings.simplefilter("ignore", u.UnitsWarning)
        for spelling in spellings:
            for style in ("fits", None):
                try:
                    return u.Unit(spelling, format=style)
                except ValueError:
                    continue
    message = f"BUNIT {text!r} is no unit that astropy knows, so the image has none; say which with unit="
    warnings.warn(message, ImageWarning, stacklevel=3)
    return None


def noise_kind(header: Header) -> str | None:
    """Say which of `NOISE` a plane is; None where its EXTNAME is that of no noise. A UTYPE decides over the name."""
    name = str(header.get("EXTNAME", "")).upper()
    named = next((kind for kind in NOISE if name in EXTNAMES[kind]), None)
    utype = str(header.get("UTYPE", "")).lower()
    stated = next((kind for kind, cls in _CLASSES.items() if cls.__name__.lower() == utype), None)
    if named and stated:
        return stated
    if name == "UNCERT":
        raise ValueError(
            "the UNCERT plane has no UTYPE, so it may be a standard deviation or a variance: say which with "
            "std='UNCERT' or variance='UNCERT'"
        )
    return named


def uncertainty_of(
    kind: str, plane: np.ndarray, header: Header, data: np.ndarray, unit: u.UnitBase | None
) -> NDUncertainty:
    """Turn a plane of one of the four kinds of `NOISE` into an uncertainty."""
    if kind == "weight":
        return _variance_of_weight(plane, data)
    return _CLASSES[kind](plane, unit=_noise_unit(header, unit, _POWERS[kind]))


def _variance_of_weight(weight: np.ndarray, data: np.ndarray) -> VarianceUncertainty:
    good = np.isfinite(weight) & (weight > 0) & np.isfinite(data)
    if not good.any():
        raise ValueError("the weight plane has no positive value")
    scale = background_sigma(data[good] * np.sqrt(weight[good], dtype=np.float64))
    if not scale > 0:
        raise ValueError("the background has no scatter to scale the weights by; give another kind of noise plane")
    message = f"weights are taken as {scale**-2:.4g} times the inverse variance, from the scatter of the background"
    warnings.warn(message, ImageWarning, stacklevel=3)
    variance = np.full(data.shape, np.inf)
    variance[good] = scale**2 / weight[good]
    return VarianceUncertainty(variance)


def _noise_unit(header: Header, unit: u.UnitBase | None, power: int) -> u.UnitBase | None:
    if unit is None or "BUNIT" not in header:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        own = parse_unit(header["BUNIT"])
    # Many files copy the BUNIT of the data to every plane.
    return own if own is not None and own.is_equivalent(unit**power) and own != unit**power else None


def mask_of(
    plane: np.ndarray, header: Header, bits: str | Iterable[str | int] | Mapping[str, int] | None
) -> np.ndarray:
    """Turn a plane of bits into a boolean mask, by the bits that are bad.

    ``bits`` holds bit numbers, or names that the header numbers as ``MP_name``; a mapping numbers them itself; "all"
    means every bit. None takes a plane of 0 and 1 as it is, and `BAD_BITS` of a plane whose header names its bits.
    """
    named = {key[3:]: int(value) for key, value in header.items() if key.startswith("MP_")}
    if bits is None:
        if plane.dtype.kind in "fb" or np.isin(plane, (0, 1)).all() and not named:
            return np.nan_to_num(plane, nan=1) != 0
        if not named:
            raise ValueError(
                f"the mask has bit planes (largest value {plane.max()}) without names: say which bits are bad with "
                "mask_bits=, as numbers [0, 3], as {'SAT': 3}, or 'all'"
            )
        bits = [name for name in BAD_BITS if name in named]
    if isinstance(bits, str):
        bits = [bits]
    if list(bits) == ["all"]:
        return plane != 0
    if plane.dtype.kind not in "iu":
        raise ValueError(f"mask_bits needs a mask of integers; this one holds {plane.dtype}")
    numbers = list(bits.values()) if isinstance(bits, Mapping) else [_bit(bit, named) for bit in bits]
    bad = sum(1 << int(number) for number in set(numbers))
    return bitfield_to_boolean_mask(plane.astype(np.int64), ignore_flags=~bad, good_mask_value=False)


def _bit(bit: str | int, named: Mapping[str, int]) -> int:
    if not isinstance(bit, str):
        return bit
    try:
        return named[bit.upper().removeprefix("MP_")]
    except KeyError:
        known = ", ".join(sorted(named)) or "none (no MP_ keys in its header)"
        raise ValueError(f"the mask has no bit named {bit!r}; it has {known}") from None
