"""What made a result."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from astropy.units import Quantity

from lensdeblend.plugins.lookup import Resolved

__all__ = ["provenance"]

_NOTED_WHEN_LOADED = ("torch", "lenstronomy", "galsim")


def provenance(verb: str, resolved: Resolved, seed: int | None) -> dict[str, Any]:
    """What made a result, the same on every machine but for the date."""
    return {
        "verb": verb,
        "method": resolved.name,
        "distribution": resolved.distribution,
        "options": {field.name: _plain(getattr(resolved.method, field.name)) for field in _options(resolved.method)},
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "versions": _versions(resolved.distribution),
    }


def _options(method):
    return [field for field in fields(method) if field.init] if is_dataclass(method) else []


def _versions(distribution: str) -> dict[str, str]:
    loaded = (name for name in _NOTED_WHEN_LOADED if name in sys.modules)
    names = ["lensdeblend", "numpy", "astropy", *loaded, distribution]
    return {name: found for name in dict.fromkeys(names) if (found := _version(name)) is not None}


@cache
def _version(name: str) -> str | None:
    # Reading the metadata of an installed package takes ten milliseconds.
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _plain(value):
    """``value`` as numbers, strings, lists and dicts, without paths or memory addresses."""
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Quantity):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        return f"array of shape {value.shape}"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return type(value).__name__
