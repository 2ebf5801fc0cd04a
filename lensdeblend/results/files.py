"""Results as FITS files: which field goes where.

Images and tables go to extensions named after their fields (``image`` to ``SCI``), see `lensdeblend.io.contents`;
scenes and observations go in as YAML, segmentations as integer images. What reads back differs in nothing but the class
of images that are neither NDData nor CCDData.
"""

from __future__ import annotations

from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any

from lensdeblend.io.contents import read_contents, write_contents
from lensdeblend.results import records
from lensdeblend.results.base import Result
from lensdeblend.results.layouts import index_file, read_galaxies, write_galaxies
from lensdeblend.scenes.yaml import from_yaml, to_yaml

__all__ = ["read_result", "write_generation", "write_result"]

_AS_YAML = ("scene", "observation")
_PREFIX = "result"


def write_result(result: Result, path: str | PathLike, *, overwrite: bool = False) -> None:
    """Write a result to one FITS file, whole or not at all.

    Raises
    ------
    OSError
        Where the file exists and may not be replaced, or cannot be written.
    TypeError
        Where a field holds what a file cannot.
    """
    write_contents(_contents(result, "image"), path, provenance=_provenance(result), overwrite=overwrite)


def write_generation(
    result: records.Generation, path: str | PathLike, *, layout: str, band: str | None, overwrite: bool
) -> None:
    """Write generated galaxies in one of the layouts of `lensdeblend.results.layouts`."""
    write_galaxies(
        _contents(result, "catalog"), path, layout=layout, band=band, provenance=_provenance(result),
        overwrite=overwrite,
    )


def _contents(result: Result, first: str) -> dict[str, Any]:
    """What goes into a file, with ``first`` where readers find it that look for the first image or table."""
    names = sorted((entry.name for entry in fields(result)), key=lambda name: name != first)
    return {_PREFIX: type(result).__name__} | {name: _to_file(name, getattr(result, name)) for name in names}


def read_result(path: str | PathLike) -> Result:
    """Read a result of any of the five kinds.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    OSError
        Where it is no FITS file, or a truncated one.
    ValueError
        Where it holds no result.
    """
    if Path(path).is_dir():
        path = index_file(path)
    contents = read_contents(path)
    kind = contents.pop(_PREFIX, None)
    if kind not in records.__all__:
        raise ValueError(f"{path} holds no result of lensdeblend; read its image with lensdeblend.io.read_image")
    if kind == records.Generation.__name__:
        contents = read_galaxies(contents, path)
    return getattr(records, kind)(**{name: _from_file(name, value) for name, value in contents.items()})


def _to_file(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _AS_YAML:
        return to_yaml(value)
    if name == "segmentation":
        return value.data
    return value


def _from_file(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _AS_YAML:
        return from_yaml(value)
    if name == "segmentation":
        from photutils.segmentation import SegmentationImage

        return SegmentationImage(value)
    return value


def _provenance(result: Result) -> dict[str, Any]:
    notes = {"RESULT": type(result).__name__}
    if hasattr(result, "chi2"):
        notes["CHI2"] = result.chi2
    if getattr(result, "flags", ()):
        notes["FLAGS"] = ", ".join(result.flags)
    return notes | dict(result.meta)
