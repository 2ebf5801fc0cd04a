"""What the options of a method may be: each check raises a ValueError that names the option."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real

import astropy.units as u
import numpy as np

__all__ = [
    "check_choice", "check_device", "check_factor", "check_gaussian", "check_number", "check_positive",
    "check_switch", "check_whole", "chosen_device",
]

_LARGEST_FACTOR = 5


def check_choice(name: str, value, allowed: tuple) -> None:
    """One of a few words or numbers."""
    if isinstance(value, bool) or not isinstance(value, (str, Integral)) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")


def check_switch(name: str, value) -> None:
    """Raise ValueError for what is neither True nor False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False; got {value!r}")


def check_device(value) -> None:
    """``"auto"`` or a torch device that this machine has."""
    if value == "auto":
        return
    import torch

    try:
        kind = torch.device(value).type
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be 'auto' or a torch device such as 'cpu' or 'cuda'; got {value!r}") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch finds no CUDA GPU here: use 'auto' or 'cpu'")


def chosen_device(value: str) -> str:
    """The device of a checked option: for ``"auto"`` a GPU where there is one."""
    if value != "auto":
        return value
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_factor(value) -> None:
    """How many times smaller pixels may become: 1 to 5.

    Raises
    ------
    TypeError
        For what is no number.
    ValueError
        For a number out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"factor must be a number; got {value!r}")
    if not 1 <= value <= _LARGEST_FACTOR:
        raise ValueError(
            f"factor must be from 1 to {_LARGEST_FACTOR}, how many times smaller the pixels become; got {value}"
        )


def check_whole(name: str, value, least: int) -> None:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")


def check_number(name: str, value) -> None:
    """A finite number, or an angle."""
    try:
        number = u.Quantity(value)
        known = number.isscalar and np.isfinite(number.value)
        known = known and (number.unit == u.dimensionless_unscaled or number.unit.is_equivalent(u.arcsec))
    except (TypeError, ValueError):
        known = False
    if not known:
        raise ValueError(f"{name} must be a number or an angle; got {value!r}")


def check_positive(name: str, value, what: str) -> None:
    """A positive, finite number, or None."""
    if value is not None and not _is_positive(value):
        raise ValueError(f"{name} must be {what}, or None; got {value!r}")


def check_gaussian(name: str, value) -> None:
    """Mean and standard deviation, or None."""
    if value is None:
        return
    pair = isinstance(value, Sequence) and len(value) == 2 and isinstance(value[0], Real)
    if not (pair and np.isfinite(value[0]) and _is_positive(value[1])):
        raise ValueError(
            f"{name} must be (mean, standard deviation) with a positive second, or None; got {value!r}"
        )


def _is_positive(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < value < np.inf
