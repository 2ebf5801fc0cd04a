"""Scenes and observations as YAML text.

Every record is a mapping of one key, the name of its class, to its fields; fields at their default are left out. An
angle is ``1.2 arcsec``, a magnitude ``20.0 mag(AB)``; an array of quantities is ``{value: [...], unit: arcsec}``; an
image is ``{dtype, shape, base64}``, so that it comes back bit by bit (a nested list is read, too); a WCS is the text of
its FITS header. A generator is its name, or ``{method, options, conditions}``. Only plain YAML is read: no Python
objects.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import astropy.nddata
import astropy.units as u
import numpy as np
import yaml
from astropy.nddata import NDData
from astropy.units import Quantity
from astropy.wcs import WCS

from lensdeblend.io.atomic import replacing
from lensdeblend.scenes import components, generated, observation, scene
from lensdeblend.spelling import advice

__all__ = ["from_yaml", "plain", "read_generator", "read_yaml", "to_yaml", "write_yaml"]

_RECORDS = {
    name: getattr(module, name)
    for module in (components, generated, observation, scene)
    for name in module.__all__
    if is_dataclass(getattr(module, name)) and name != "SourceGenerator"
}
_UNCERTAINTIES = ("StdDevUncertainty", "VarianceUncertainty", "InverseVariance")
_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf|nan))\s+(\S.*)")


def to_yaml(record: Any) -> str:
    """Write a scene, an observation or a part of one as YAML.

    Parameters
    ----------
    record : `Scene`, `Observation`, `Galaxy`, `GaussianPSF`, `Redshifts` or a component

    Returns
    -------
    str

    Raises
    ------
    TypeError
        For anything else, and for values that YAML cannot hold, such as an object in the ``meta`` of an image.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend.scenes import Scene, SIE
    >>> from lensdeblend.scenes.yaml import to_yaml
    >>> print(to_yaml(Scene(mass=[SIE(theta_E=1.2 * u.arcsec, e1=0.1)])))
    Scene:
      mass:
      - SIE:
          theta_E: 1.2 arcsec
          e1: 0.1
    """
    if type(record).__name__ not in _RECORDS:
        raise TypeError(f"cannot write {type(record).__name__} as YAML; known are {', '.join(sorted(_RECORDS))}")
    return yaml.safe_dump(plain(record), sort_keys=False, allow_unicode=True)


def from_yaml(text: str) -> Any:
    """Read what `to_yaml` wrote, or what a person wrote in that form.

    Raises
    ------
    ValueError
        For text that is not YAML, and for unknown records, fields or units; the message names the nearest known
        spelling.

    Examples
    --------
    >>> from lensdeblend.scenes.yaml import from_yaml
    >>> from_yaml("Shear: {gamma1: 0.05}")
    Shear(gamma1=0.05, gamma2=0.0)
    >>> from_yaml("Shear: {gama1: 0.05}")
    Traceback (most recent call last):
        ...
    ValueError: Shear has no field 'gama1'; did you mean 'gamma1'? Known are gamma1, gamma2
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from error
    return _record(content)


def write_yaml(record: Any, path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Write ``record`` to a YAML file, whole or not at all.

    Parameters
    ----------
    record
        As for `to_yaml`.
    path : path
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OSError
        Where the file exists and may not be replaced, or cannot be written.
    TypeError
        For what `to_yaml` refuses.
    """
    text = to_yaml(record)
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_yaml(path: str | os.PathLike, kind: type) -> Any:
    """Read a record of class ``kind`` from a YAML file.

    Raises
    ------
    OSError
        Where the file cannot be read.
    ValueError
        For text that `from_yaml` refuses, and for a record of another class.
    """
    try:
        record = from_yaml(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(record, kind):
        raise ValueError(f"{path} holds a {type(record).__name__}, not a {kind.__name__}")
    return record


def plain(value: Any) -> Any:
    """What YAML holds of a record or of a value in one.

    Raises
    ------
    TypeError
        For what it cannot hold.
    """
    if isinstance(value, generated.SourceGenerator):
        given = {name: plain(getattr(value, name)) for name in ("options", "conditions") if getattr(value, name)}
        return {"method": value.method, **given} if given else value.method
    if is_dataclass(value):
        return {type(value).__name__: {
            entry.name: plain(getattr(value, entry.name)) for entry in fields(value) if not _is_default(value, entry)
        }}
    if isinstance(value, Quantity):
        if value.ndim:
            return {"value": value.value.tolist(), "unit": value.unit.to_string()}
        return f"{float(value.value)!r} {value.unit.to_string()}"
    if isinstance(value, u.UnitBase):
        return value.to_string()
    if isinstance(value, NDData):
        return {"NDData": _plain_nddata(value)}
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<")))
        text = base64.b64encode(value.tobytes()).decode()
        return {"dtype": value.dtype.str, "shape": list(value.shape), "base64": text}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"cannot write {value!r} as YAML")


def _plain_nddata(image: NDData) -> dict:
    parts = {"data": plain(np.asarray(image.data))}
    if image.unit is not None:
        parts["unit"] = image.unit.to_string()
    if image.uncertainty is not None:
        name = type(image.uncertainty).__name__
        if name not in _UNCERTAINTIES:
            raise TypeError(f"cannot write a {name} as YAML; convert it to one of {', '.join(_UNCERTAINTIES)}")
        parts["uncertainty"] = {name: plain(image.uncertainty.array)}
    for part in ("mask", "psf"):
        if getattr(image, part) is not None:
            parts[part] = plain(np.asarray(getattr(image, part)))
    if image.wcs is not None:
        parts["wcs"] = image.wcs.low_level_wcs.to_header_string(relax=True)
    if image.meta:
        parts["meta"] = {str(key): plain(item) for key, item in image.meta.items()}
    return parts


def _is_default(record: Any, entry) -> bool:
    if entry.default is MISSING:
        return False
    value = getattr(record, entry.name)
    return type(value) is type(entry.default) and np.shape(value) == np.shape(entry.default) and bool(
        np.all(value == entry.default)
    )


def _record(content: Any, where: str = "the text") -> Any:
    if not isinstance(content, dict) or len(content) != 1:
        known = ", ".join(_RECORDS)
        raise ValueError(f"{where} must be one record, such as 'Shear: {{gamma1: 0.05}}'; known are {known}")
    (name, values), = content.items()
    if name not in _RECORDS:
        raise ValueError(f"unknown record {name!r}; {advice(name, _RECORDS)}")
    record = _RECORDS[name]
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{name} must be followed by its fields; got {values!r}")
    known = {entry.name: entry for entry in fields(record)}
    for key in values:
        if key not in known:
            raise ValueError(f"{name} has no field {key!r}; {advice(key, known)}")
    for key, entry in known.items():
        if key not in values and entry.default is MISSING:
            raise ValueError(f"{name} needs the field {key!r}")
    hints = get_type_hints(record)
    try:
        return record(**{key: _value(value, hints[key], f"{name}.{key}") for key, value in values.items()})
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def _value(value: Any, hint: Any, where: str) -> Any:
    if hint is generated.SourceGenerator:
        return read_generator(value, where)
    if isinstance(value, str):
        if hint is u.UnitBase:
            return _unit(value, where)
        return _quantity(value, where) if "Quantity" in str(hint) else value
    if isinstance(value, list):
        if "ndarray" in str(hint):
            return _array(value, where)
        return tuple(_value(item, hint, where) for item in value)
    if isinstance(value, dict):
        if set(value) == {"value", "unit"}:
            return Quantity(value["value"], _unit(value["unit"], where))
        if "base64" in value:
            return _array(value, where)
        if set(value) == {"NDData"}:
            return _nddata(value["NDData"], where)
        return _record(value, where)
    return value


def read_generator(content: Any, where: str) -> generated.SourceGenerator:
    """A generator from plain YAML: its name, or ``{method, options, conditions}``.

    Raises
    ------
    ValueError
        For anything else, said of ``where``.
    """
    try:
        return generated.SourceGenerator.of(_free(content, where))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _free(value: Any, where: str) -> Any:
    """A value of which nothing tells the kind: text that is a number with a unit is a quantity."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        try:
            return _quantity(value, where)
        except ValueError:
            return value
    if isinstance(value, list):
        return [_free(item, where) for item in value]
    if isinstance(value, dict):
        if "base64" in value or set(value) == {"value", "unit"} or set(value) <= set(_RECORDS) and len(value) == 1:
            return _value(value, None, where)
        return {key: _free(item, where) for key, item in value.items()}
    return value


def _quantity(text: str, where: str) -> Quantity:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{where} must be a number with a unit, such as '1.2 arcsec'; got {text!r}")
    return float(match[1]) * _unit(match[2], where)


def _unit(text: Any, where: str) -> u.UnitBase:
    try:
        return u.Unit(text)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error


def _array(content: Any, where: str) -> np.ndarray:
    try:
        if isinstance(content, list):
            return np.array(content, dtype=float)
        dtype = np.dtype(content["dtype"])
        values = np.frombuffer(base64.b64decode(content["base64"], validate=True), dtype)
        return values.reshape(content["shape"]).astype(dtype.newbyteorder("="))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where} is not an array of numbers: {error}") from error


def _nddata(content: Any, where: str) -> NDData:
    known = ("data", "unit", "uncertainty", "mask", "psf", "wcs", "meta")
    if not isinstance(content, dict) or "data" not in content:
        raise ValueError(f"{where}: NDData needs the field 'data'")
    for key in content:
        if key not in known:
            raise ValueError(f"NDData has no field {key!r}; {advice(key, known)}")
    parts = {key: _array(content[key], f"{where}.{key}") for key in ("data", "mask", "psf") if key in content}
    if "mask" in parts:
        parts["mask"] = parts["mask"].astype(bool)
    if "unit" in content:
        parts["unit"] = _unit(content["unit"], where)
    if "uncertainty" in content:
        (name, values), = content["uncertainty"].items()
        if name not in _UNCERTAINTIES:
            raise ValueError(f"unknown uncertainty {name!r}; {advice(name, _UNCERTAINTIES)}")
        parts["uncertainty"] = getattr(astropy.nddata, name)(_array(values, f"{where}.uncertainty"))
    if "wcs" in content:
        parts["wcs"] = WCS(content["wcs"])
    return NDData(**parts, meta=content.get("meta") or {})
