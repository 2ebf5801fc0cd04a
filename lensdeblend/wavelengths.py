"""The order of bands in wavelength, by the names of their filters."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["reddest_first", "wavelength"]

# Micrometres; of broad filters by their letters.
_LETTERS = {
    "u": 0.36, "b": 0.44, "g": 0.48, "v": 0.55, "r": 0.63, "i": 0.77, "vis": 0.72, "z": 0.9, "y": 1.0, "j": 1.25,
    "h": 1.65, "k": 2.2, "ks": 2.2,
}
_FILTER_WHEEL = re.compile(r"f(\d{3})(w2?|lp|m|n|x)")
# HST's optical filters are named in nanometres; its infrared ones, and JWST's, in tens of them.
_IN_NANOMETRES = {
    218, 225, 275, 336, 390, 435, 438, 450, 467, 475, 502, 547, 555, 569, 600, 606, 621, 625, 656, 658, 675, 689, 702,
    763, 775, 791, 814, 845, 850,
}


def wavelength(name: str) -> float | None:
    """Micrometres, roughly, of the middle of a filter's band; None where its name does not tell.

    Examples
    --------
    >>> from lensdeblend.wavelengths import wavelength
    >>> wavelength("F814W"), wavelength("LSST r"), wavelength("left")
    (0.814, 0.63, None)
    """
    name = name.strip().lower()
    found = _FILTER_WHEEL.fullmatch(name)
    if found:
        number = int(found.group(1))
        return number / (1000 if number in _IN_NANOMETRES else 100)
    return _LETTERS.get(re.sub(r"^(sdss|lsst|hsc|des|megacam|roman|euclid)[-_ ]?", "", name).rstrip("'"))


def reddest_first(names: Sequence[str]) -> tuple[int, ...] | None:
    """For each of several bands its place when the reddest comes first; None where a name tells no wavelength.

    Examples
    --------
    >>> from lensdeblend.wavelengths import reddest_first
    >>> reddest_first(["g", "r", "i"])
    (2, 1, 0)
    >>> reddest_first(["left", "right"]) is None
    True
    """
    lengths = [wavelength(name) for name in names]
    if None in lengths or len(set(lengths)) < len(lengths):
        return None
    order = sorted(range(len(lengths)), key=lambda k: -lengths[k])
    return tuple(order.index(k) for k in range(len(lengths)))
