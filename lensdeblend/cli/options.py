"""``--set option=value``: from text to what the fields of a method's dataclass hold."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from astropy.units import Quantity

from lensdeblend.scenes import GaussianPSF

__all__ = ["parse_options", "parse_wishes"]

_NAMES = {
    int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path", type(None): "none",
    GaussianPSF: "the FWHM of a Gaussian, such as 0.1arcsec", np.ndarray: "an array (from Python)",
}
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_options(method: type, settings: Sequence[str], *, flag: str = "--set") -> dict[str, Any]:
    """Turn ``["starts=8", "device=cpu"]`` into the arguments of ``method``.

    Raises
    ------
    ValueError
        Where a setting is not of the form ``option=value``, names no field of the dataclass, or the value is not of its
        type.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from lensdeblend.cli.options import parse_options
    >>> @dataclass
    ... class Mine:
    ...     starts: int = 4
    ...     device: str = "auto"
    >>> parse_options(Mine, ["starts=8"])
    {'starts': 8}
    """
    hints = get_type_hints(method)
    known = [field.name for field in fields(method) if field.init]
    options = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise ValueError(f"{flag} takes option=value; got {setting!r}")
        if name not in known:
            raise ValueError(f"{method.__name__} has no option {name!r}; its options are {', '.join(known) or 'none'}")
        if name in options:
            raise ValueError(f"{flag} gives the option {name!r} twice")
        try:
            options[name] = _parse(text, hints[name])
        except (ValueError, TypeError):
            raise ValueError(f"{flag} {setting}: {name} must be {_describe(hints[name])}") from None
    return options


def parse_wishes(wishes: Sequence[str]) -> dict[str, float | Quantity]:
    """Turn ``["flux=20", "radius=0.3arcsec"]`` into the conditions of a generator.

    Raises
    ------
    ValueError
        Where one is not of the form ``name=value``, or its value is neither a number nor a number with a unit.

    Examples
    --------
    >>> from lensdeblend.cli.options import parse_wishes
    >>> parse_wishes(["flux=20", "radius=0.3arcsec"])
    {'flux': 20.0, 'radius': <Quantity 0.3 arcsec>}
    """
    return dict(_wish(text) for text in wishes)


def _wish(text: str) -> tuple[str, float | Quantity]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError(f"--condition takes name=value; got {text!r}")
    try:
        return name, float(value)
    except ValueError:
        try:
            return name, Quantity(value)
        except TypeError:
            raise ValueError(f"--condition {text}: {value!r} is no number and no angle such as 0.3arcsec") from None


def _parse(text: str, hint: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _first_that_fits(text, inner)
    if origin is Literal:
        return next(_of(choice for choice in inner if str(choice) == text))
    if hint in (None, type(None)):
        return {"none": None}[text.lower()] if text.lower() == "none" else _refuse(text)
    if hint is bool:
        return _BOOLEANS[text.lower()] if text.lower() in _BOOLEANS else _refuse(text)
    if hint in (int, float, str, Path, Quantity):
        return hint(text)
    if hint is GaussianPSF:
        return GaussianPSF(Quantity(text))
    if origin in (tuple, list, Sequence):
        parts = [part.strip() for part in text.strip("()[]").split(",") if part.strip()]
        kinds = inner if origin is tuple and inner[-1] is not Ellipsis else [inner[0]] * len(parts)
        if len(kinds) != len(parts):
            _refuse(text)
        return (list if origin is list else tuple)(_parse(part, kind) for part, kind in zip(parts, kinds))
    if hint is Any:
        return text
    return _refuse(text)


def _first_that_fits(text: str, hints: Sequence) -> Any:
    # Text fits everything, so it is tried last.
    for hint in sorted(hints, key=lambda hint: hint in (str, Path)):
        try:
            return _parse(text, hint)
        except (ValueError, TypeError):
            continue
    return _refuse(text)


def _of(choices):
    found = list(choices)
    return iter(found) if found else _refuse("")


def _refuse(text: str):
    raise ValueError(text)


def _describe(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(part) for part in inner)
    if origin is Literal:
        return " or ".join(str(choice) for choice in inner)
    if origin in (tuple, list, Sequence):
        parts = ("..." if part is Ellipsis else _describe(part) for part in inner)
        return f"values with commas between them: {', '.join(parts)}"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))
