"""Generated galaxies as files: all in one, as a cube a band, one file a galaxy, or as GalSim reads real galaxies.

``mef`` has extensions for every galaxy. ``cube`` has ``SCI``, ``VAR``, ``DQ`` and ``PSF`` of three dimensions, of which
the first counts galaxies. ``files`` is a folder with ``catalog.fits`` and ``galaxy_0001.fits`` and so on. ``galsim`` is
a folder with ``galaxies.fits``, which is ``mef``, and the tables of `lensdeblend.results.real_galaxies`. In all of them
the catalogue is the first extension of its file, where ``galsim.Catalog`` looks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from astropy.nddata import NDData

from lensdeblend.io.atomic import replacing_folder
from lensdeblend.io.contents import read_contents, write_contents
from lensdeblend.spelling import advice

__all__ = ["LAYOUTS", "index_file", "read_galaxies", "write_galaxies"]

LAYOUTS = ("mef", "cube", "files", "galsim")

_CATALOG, _GALAXIES = "catalog.fits", "galaxies.fits"
_OWN = ("catalog*.fits", "galax*.fits", "psf.fits")


def write_galaxies(
    contents: Mapping[str, Any], path: str | PathLike, *, layout: str, band: str | None, provenance: Mapping[str, Any],
    overwrite: bool,
) -> None:
    """Write the contents of a `~lensdeblend.results.Generation`, whole or not at all.

    Parameters
    ----------
    contents : mapping
        ``result``, ``catalog``, ``images`` and ``meta``.
    path : path
        A file, for the layouts ``files`` and ``galsim`` a folder.
    layout : str
    band : str or None
        Of the layout ``galsim``.
    provenance : mapping
    overwrite : bool

    Raises
    ------
    OSError
        Where the path exists and may not be replaced, is of the wrong kind, or cannot be written.
    TypeError, ValueError
        For an unknown layout, and galaxies that it cannot hold.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; {advice(layout, LAYOUTS)}")
    if band is not None and layout != "galsim":
        raise ValueError(f"band goes with the layout galsim; the layout {layout} has all bands")
    if layout == "mef":
        write_contents(contents, path, provenance=provenance, overwrite=overwrite)
    elif layout == "cube":
        image, metas = _stacked(contents["images"])
        rest = {name: value for name, value in contents.items() if name != "images"}
        cube = {**rest, "layout": layout, "image": image, "image_meta": metas}
        write_contents(cube, path, provenance=provenance, overwrite=overwrite)
    elif layout == "files":
        _write_files(contents, path, provenance, overwrite)
    else:
        from lensdeblend.results.real_galaxies import real_galaxies

        tables = real_galaxies(contents["images"], contents["catalog"], band)
        with replacing_folder(path, own=_OWN, overwrite=overwrite) as folder:
            write_contents(contents, folder / _GALAXIES, provenance=provenance)
            tables.write(folder, _CATALOG, _GALAXIES)


def read_galaxies(contents: dict[str, Any], path: str | PathLike) -> dict[str, Any]:
    """The fields of a `~lensdeblend.results.Generation` from the contents of a file in any layout.

    Raises
    ------
    FileNotFoundError
        For a galaxy whose file is missing.
    """
    layout = contents.pop("layout", "mef")
    if layout == "cube":
        contents["images"] = _unstacked(contents.pop("image"), contents.pop("image_meta"))
    elif layout == "files":
        folder = Path(path).parent
        contents["images"] = [read_contents(folder / name)["image"] for name in contents.pop("files")]
    return contents


def index_file(folder: str | PathLike) -> Path:
    """The file in a folder of galaxies from which the rest follows.

    Raises
    ------
    FileNotFoundError
        Where there is none.
    """
    for name in (_GALAXIES, _CATALOG):
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise FileNotFoundError(f"the folder {folder} holds no generated galaxies: there is no {_CATALOG} in it")


def _write_files(contents: Mapping[str, Any], path, provenance: Mapping[str, Any], overwrite: bool) -> None:
    images = contents["images"]
    width = max(4, len(str(len(images))))
    names = [f"galaxy_{number:0{width}d}.fits" for number in range(1, len(images) + 1)]
    rest = {name: value for name, value in contents.items() if name != "images"}
    with replacing_folder(path, own=_OWN, overwrite=overwrite) as folder:
        for number, (name, image) in enumerate(zip(names, images), 1):
            write_contents({"image": image}, folder / name, provenance={"GALAXY": number, **provenance})
        write_contents({**rest, "layout": "files", "files": names}, folder / _CATALOG, provenance=provenance)


def _stacked(images: Sequence[NDData | Mapping[str, NDData]]) -> tuple[NDData | dict[str, NDData], Any]:
    """One cube, or one a band, with the ``meta`` of its images where these differ."""
    if isinstance(images[0], NDData):
        return _cube(images)
    bands = list(images[0])
    if any(list(image) != bands for image in images):
        raise ValueError(f"the layout cube needs galaxies in the same bands{_WAY_OUT}")
    pairs = {band: _cube([image[band] for image in images]) for band in bands}
    return {band: cube for band, (cube, _) in pairs.items()}, {band: metas for band, (_, metas) in pairs.items()}


_WAY_OUT = ": use the layout mef or files"


def _cube(images: Sequence[NDData]) -> tuple[NDData, list[dict] | None]:
    first = images[0]
    for number, image in enumerate(images, 1):
        if image.data.shape != first.data.shape:
            raise ValueError(
                f"the layout cube needs stamps of one shape; galaxy 1 has {first.data.shape}, galaxy {number} "
                f"{image.data.shape}{_WAY_OUT}"
            )
        if image.wcs is not None:
            raise ValueError(f"the layout cube has one header for all, and galaxy {number} has a WCS{_WAY_OUT}")
        for what, own, others in zip(("type", "unit", "uncertainty", "mask", "PSF"), _kind(image), _kind(first)):
            if own != others:
                raise ValueError(f"the layout cube needs galaxies alike; galaxy {number} has another {what}{_WAY_OUT}")
    uncertainty = first.uncertainty
    if uncertainty is not None:
        planes = [np.broadcast_to(image.uncertainty.array, image.data.shape) for image in images]
        uncertainty = type(uncertainty)(np.stack(planes), unit=uncertainty.unit)
    psfs = None if first.psf is None else np.stack([image.psf for image in images])
    if psfs is not None and np.all(psfs == psfs[0]):
        psfs = psfs[0]
    metas = [dict(image.meta) for image in images]
    shared = {key: value for key, value in metas[0].items() if all(_same(meta.get(key), value) for meta in metas)}
    cube = type(first)(
        np.stack([image.data for image in images]), uncertainty=uncertainty, unit=first.unit, psf=psfs, meta=shared,
        mask=None if first.mask is None else np.stack([np.broadcast_to(i.mask, i.data.shape) for i in images]),
    )
    return cube, None if all(len(meta) == len(shared) for meta in metas) else metas


def _kind(image: NDData) -> tuple:
    uncertainty = image.uncertainty
    return (
        (type(image), np.asarray(image.data).dtype), image.unit,
        None if uncertainty is None else (type(uncertainty), uncertainty.unit), image.mask is None,
        None if image.psf is None else np.shape(image.psf),
    )


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and np.all(one == other)


def _unstacked(cube: NDData | Mapping[str, NDData], metas) -> list[NDData | dict[str, NDData]]:
    if isinstance(cube, NDData):
        return _slices(cube, metas)
    bands = {band: _slices(one, metas[band]) for band, one in cube.items()}
    return [dict(zip(bands, galaxy)) for galaxy in zip(*bands.values())]


def _slices(cube: NDData, metas: list[dict] | None) -> list[NDData]:
    def plane(stack, k: int):
        return None if stack is None else stack[k] if stack.ndim == 3 else stack

    uncertainty = cube.uncertainty
    return [
        type(cube)(
            cube.data[k], unit=cube.unit, mask=plane(cube.mask, k), psf=plane(cube.psf, k),
            uncertainty=None if uncertainty is None else type(uncertainty)(uncertainty.array[k], unit=uncertainty.unit),
            meta=dict(cube.meta if metas is None else metas[k]),
        )
        for k in range(len(cube.data))
    ]
