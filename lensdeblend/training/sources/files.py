"""Images of galaxies in folders and catalogues, one after the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend.io import read_image
from lensdeblend.io.read import open_fits
from lensdeblend.training.sources.isolate import Unusable

__all__ = ["GalaxyImage", "files_of", "galaxy_images"]

_PICTURES = {".jpg", ".jpeg", ".png"}
_FITS = {".fits", ".fit", ".fts", ".fits.gz", ".fits.fz"}
# Of the arcsinh in which SDSS pictures are made (Lupton et al. 2004PASP..116..133L), with the sum of three channels.
_SDSS_NONLINEARITY = 3.0
# Names of columns, in lower case.
_COLUMNS = {"magnitude": ("mag", "mag_auto"), "redshift": ("zphot", "z", "redshift")}


@dataclass(frozen=True)
class GalaxyImage:
    """One image to be read.

    Attributes
    ----------
    id : str
        Of the galaxy.
    read : callable
        Gives the planes (bands, ny, nx), linear in flux, and the standard deviation of a sky that is 0, or None where
        both are unknown. Raises `Unusable`.
    known : mapping of str to float
        ``magnitude`` and ``redshift``, of a catalogue that has them.
    width : callable, optional
        Gives the width of a catalogue's galaxy over that of its PSF, NaN where it cannot be measured.
    """

    id: str
    read: Callable[[], tuple[np.ndarray, float | None]]
    known: Mapping[str, float] = field(default_factory=dict)
    width: Callable[[], float] | None = None


def files_of(path: Path) -> list[Path]:
    """All files that belong to a folder of images, or beside a catalogue."""
    folder = path if path.is_dir() else path.parent
    return sorted(file for file in folder.rglob("*") if file.is_file() and _kind(file) is not None)


def galaxy_images(
    path: Path, *, stretch: float = _SDSS_NONLINEARITY, needed: Sequence[str] = ()
) -> Iterator[GalaxyImage]:
    """Every image of a GalSim catalogue, or of a folder of them, of FITS images, or of pictures.

    Parameters
    ----------
    path : Path
        A catalogue or a folder.
    stretch : float
        Of the arcsinh that pictures were made with; 0 for pictures that are linear.
    needed : sequence of str
        What a catalogue must know of its galaxies: ``magnitude``, ``redshift``.

    Raises
    ------
    ValueError
        For a file that is no catalogue, or one without what is needed.
    """
    if path.is_file():
        yield from _catalogue(path, needed)
        return
    files = files_of(path)
    catalogues = {file: names for file in files if _kind(file) == "fits" and (names := _images_named_in(file))}
    for catalogue in catalogues:
        yield from _catalogue(catalogue, needed)
    if catalogues:
        return
    for file in files:
        if _kind(file) == "picture":
            yield GalaxyImage(_stem(file), lambda file=file: (_picture(file, stretch), None))
        else:
            yield GalaxyImage(_stem(file), lambda file=file: (_fits(file), None))


def _kind(file: Path) -> str | None:
    name = file.name.lower()
    if file.suffix.lower() in _PICTURES:
        return "picture"
    return "fits" if any(name.endswith(ending) for ending in _FITS) else None


def _stem(file: Path) -> str:
    name = file.name
    for ending in sorted((*_PICTURES, *_FITS), key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[:-len(ending)]
    return name


def _images_named_in(file: Path) -> set[str]:
    """The image files of a GalSim catalogue that are there; empty for any other FITS file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyUserWarning)
            with open_fits(file) as hdus:
                columns = hdus[1].columns.names if len(hdus) > 1 and hasattr(hdus[1], "columns") else ()
                if not {"IDENT", "GAL_FILENAME", "GAL_HDU"} <= set(columns):
                    return set()
                names = {str(name).strip() for name in hdus[1].data["GAL_FILENAME"]}
    except (OSError, ValueError, TypeError):
        return set()
    return {name for name in names if (file.parent / name).is_file()}


def _catalogue(path: Path, needed: Sequence[str]) -> Iterator[GalaxyImage]:
    """Images of a GalSim catalogue, seen through their own PSF, in counts of its own pixels."""
    import galsim

    try:
        catalogue = galsim.RealGalaxyCatalog(path.name, dir=str(path.parent))
        names = [str(name) for name in catalogue.ident]
    except (AttributeError, OSError, KeyError, ValueError, galsim.GalSimError) as error:
        # The AttributeError is of a FITS file whose first extension is an image.
        raise ValueError(
            f"{path} is no GalSim catalogue of real galaxies: {error}; for images, name their folder"
        ) from error

    def read(index: int) -> tuple[np.ndarray, float | None]:
        try:
            image = catalogue.getGalImage(index).array
        except (OSError, IndexError, ValueError, galsim.GalSimError) as error:
            raise Unusable("unreadable file") from error
        variance = float(catalogue.variance[index])
        return np.asarray(image, float)[None], np.sqrt(variance) if variance > 0 else None

    def width(index: int) -> float:
        try:
            images = catalogue.getGalImage(index), catalogue.getPSFImage(index)
        except (OSError, IndexError, ValueError, galsim.GalSimError):
            return np.nan
        galaxy, psf = (galsim.hsm.FindAdaptiveMom(image, strict=False) for image in images)
        measured = galaxy.moments_status == psf.moments_status == 0
        return galaxy.moments_sigma / psf.moments_sigma if measured else np.nan

    known = {name: _column(path, names, name) for name in needed}
    for index, name in enumerate(names):
        yield GalaxyImage(
            name, lambda index=index: read(index), {key: float(column[index]) for key, column in known.items()},
            lambda index=index: width(index),
        )


def _column(path: Path, idents: Sequence[str], name: str) -> np.ndarray:
    """What a catalogue, or the table of fits beside it, knows of its galaxies, NaN where it does not."""
    tables = [Table.read(file, hdu=1) for file in (path, path.with_name(f"{path.stem}_fits.fits")) if file.is_file()]
    for table in tables:
        own = next((column for column in table.colnames if column.lower() in _COLUMNS[name]), None)
        if own is None or "IDENT" not in table.colnames:
            continue
        values = dict(zip(map(str, table["IDENT"]), np.ma.filled(np.ma.asarray(table[own], dtype=float), np.nan)))
        return np.array([values.get(str(ident), np.nan) for ident in idents])
    raise ValueError(
        f"the cut on {name} needs a column {' or '.join(_COLUMNS[name])} in {path} or its table of fits; there is none"
    )


def _fits(file: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            # Of uncertainties and keywords, which are of no matter here.
            warnings.simplefilter("ignore", AstropyUserWarning)
            image = read_image(file, pixel_scale=1.0)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Unusable("unreadable file") from error
    data = np.asarray(image.data, float)
    if image.mask is not None:
        data = np.where(image.mask, np.nan, data)
    return data[None]


def _picture(file: Path, stretch: float) -> np.ndarray:
    """The channels of a picture, its stretch approximately undone, in the order red, green, blue."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('pictures need pillow, which is not installed: pip install "lensdeblend[train]"') from error
    try:
        with Image.open(file) as picture:
            channels = np.asarray(picture.convert("RGB"), dtype=float).transpose(2, 0, 1) / 255
    except (OSError, ValueError, SyntaxError) as error:
        raise Unusable("unreadable file") from error
    if stretch == 0:
        return channels
    total = channels.sum(axis=0)
    # The colour is kept by the stretch: one factor for all channels.
    return channels * np.divide(np.sinh(stretch * total), stretch * total, out=np.ones_like(total), where=total > 0)
