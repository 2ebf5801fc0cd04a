"""Read one image, with its noise, mask, PSF and coordinates, from FITS."""

from __future__ import annotations

import bz2
import gzip
import re
import warnings
import zlib
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from copy import deepcopy
from io import BytesIO
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import NDData
from astropy.units import Quantity
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend.io.planes import EXTNAMES, NOISE, mask_of, noise_kind, parse_unit, uncertainty_of
from lensdeblend.io.wcs import square_pixel_scale, wcs_of_header

__all__ = ["is_structural", "open_fits", "plain_meta", "read_bands", "read_image"]

Plane = int | str | tuple[str, int] | PathLike

_FILE = re.compile(r"(?P<path>.+\.(?:fits?|fts|fits?\.(?:gz|fz|bz2)))(?:\[(?P<extension>[^]]+)\])?", re.IGNORECASE)
_LAYOUT = (
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM|INHERIT",
    r"EXTNAME|EXTVER|EXTLEVEL|UTYPE|BUNIT|TFIELDS|TTYPE\d+|TFORM\d+|COMMENT|HISTORY|",
    r"Z(?:IMAGE|CMPTYPE|BITPIX|NAXIS\d*|TILE\d+|NAME\d+|VAL\d+|QUANTIZ|DITHER0|BLANK)",
    r"Z(?:SIMPLE|TENSION|EXTEND|PCOUNT|GCOUNT|HECKSUM|DATASUM)",
)
_COORDINATES = (
    r"WCSAXES|WCSDIM|C(?:TYPE|UNIT|RPIX|RVAL|DELT|ROTA)\d+[A-Z]?|(?:CD|PC|PV|PS)\d+_\d+[A-Z]?|LONPOLE|LATPOLE",
    r"RADE(?:C)?SYS|EQUINOX|(?:A|B|AP|BP)_(?:\d+_\d+|ORDER|DMAX)",
)
_COMMENTARY = ("COMMENT", "HISTORY", "")
_STRUCTURE = re.compile("|".join(_LAYOUT + _COORDINATES))


def read_image(
    path: str | PathLike,
    *,
    image: Plane | None = None,
    variance: Plane | None = None,
    std: Plane | None = None,
    inverse_variance: Plane | None = None,
    weight: Plane | None = None,
    mask: Plane | None = None,
    psf: Plane | None = None,
    mask_bits: str | Iterable[str | int] | Mapping[str, int] | None = None,
    plane: int | None = None,
    band: str | None = None,
    unit: str | u.UnitBase | None = None,
    pixel_scale: Quantity | float | None = None,
) -> NDData:
    """Read an image from FITS, plain, gzipped or fpacked.

    A plane that is not named is looked for by EXTNAME (and the EXTVER of the image) in ``path``:

    =====================  ==================================================================================
    image                  SCI, SCIENCE, IMAGE, DATA; else the first HDU with an image
    variance               VAR, VARIANCE
    std                    ERR, ERROR, RMS, STD, STDDEV, SIGMA, NOISE, NOISE_MAP
    inverse_variance       IVAR, INVVAR, INVERSE_VARIANCE
    weight                 WHT, WEIGHT, WEIGHT_MAP
    mask                   MASK, DQ, BPM, FLAGS
    psf                    PSF, PSFIMAGE, KERNEL
    =====================  ==================================================================================

    Of several noise planes the first in this order is taken. A UTYPE in the header decides over the name.

    Parameters
    ----------
    path : path
        Of the file with the image.
    image, variance, std, inverse_variance, weight, mask, psf : optional
        Where a plane is: an EXTNAME, a number, an (EXTNAME, EXTVER), or another file, ``"noise.fits"`` or
        ``"planes.fits[RMS]"``. At most one kind of noise. Weights are inverse variances of unknown scale, which the
        scatter of the background fixes, with a warning.
    mask_bits : optional
        The bits that mean bad: names, numbered in the mask's header as ``MP_name``, or numbers, or ``{name: number}``,
        or "all". Left out, a mask of 0 and 1 is taken as it is, and of named bits those in
        `lensdeblend.io.planes.BAD_BITS`.
    plane : int, optional
        Which plane of three-dimensional arrays.
    band : str, optional
        Which band of a file whose headers have a BAND key.
    unit : unit, optional
        Instead of what BUNIT says.
    pixel_scale : `~astropy.units.Quantity` or float, optional
        Angle per pixel (a plain number is arcsec) where there is no WCS; goes to ``meta["PIXSCALE"]``.

    Returns
    -------
    `~astropy.nddata.NDData`
        In native byte order, with uncertainty of the kind that was read, boolean mask, PSF, celestial WCS, unit, and as
        ``meta`` the readable cards of the primary header and of the image's own that are about neither layout nor WCS
        (nor comments and history).

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    OSError
        Where it is no FITS file, or a truncated one.
    ValueError
        Where there is no image or no HDU of a given name, a plane has another shape than the image, more than one kind
        of noise is named, mask bits are unknown, or the choice of plane or band is left open.

    Warns
    -----
    ImageWarning
        Where BUNIT is unknown (the image then has no unit), or weights were scaled.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from lensdeblend.io import read_image
    >>> fits.HDUList([
    ...     fits.PrimaryHDU(),
    ...     fits.ImageHDU(np.ones((32, 32)), fits.Header({"BUNIT": "nJy"}), name="SCI"),
    ...     fits.ImageHDU(np.full((32, 32), 0.04), name="VAR"),
    ... ]).writeto("cutout.fits")
    >>> image = read_image("cutout.fits", pixel_scale=0.1)
    >>> type(image.uncertainty).__name__, image.unit, image.meta["PIXSCALE"]
    ('VarianceUncertainty', Unit("nJy"), 0.1)
    """
    named = {"variance": variance, "std": std, "inverse_variance": inverse_variance, "weight": weight}
    named = {kind: where for kind, where in named.items() if where is not None}
    if len(named) > 1:
        raise ValueError(f"give one kind of noise, not {' and '.join(named)}")
    with open_fits(path) as hdus:
        science = _image_hdu(hdus, image, band, path)
        data, header = _array(science, plane, "image"), science.header
        unit = u.Unit(unit) if unit is not None else parse_unit(header.get("BUNIT"))
        kind, noise = _noise(hdus, named, header, path)
        uncertainty = None
        if noise is not None:
            values = _same_shape(_array(noise, plane, kind), data, kind)
            uncertainty = uncertainty_of(kind, values, noise.header, data, unit)
        bits = _plane_hdu(hdus, "mask", mask, header, path)
        flags = None
        if bits is not None:
            flags = mask_of(_same_shape(_array(bits, plane, "mask"), data, "mask"), bits.header, mask_bits)
        elif mask_bits is not None:
            raise ValueError(f"{path} has no mask plane for mask_bits; name it with mask=. It has {_contents(hdus)}")
        kernel = _plane_hdu(hdus, "psf", psf, header, path)
        wcs = wcs_of_header(header, hdus)
        return NDData(
            data,
            uncertainty=uncertainty,
            mask=flags,
            wcs=wcs,
            unit=unit,
            meta=_meta(hdus[0].header, header, wcs, pixel_scale),
            psf=None if kernel is None else _array(kernel, plane, "psf"),
        )


def read_bands(path: str | PathLike, **options: Any) -> dict[str, NDData]:
    """Read every band of a file whose headers have a BAND key.

    Parameters
    ----------
    path : path
    **options
        Those of `read_image`, but for ``band``.

    Returns
    -------
    dict
        ``{band: NDData}``, in the order of the file.

    Raises
    ------
    ValueError
        Where no image names its band.
    """
    with open_fits(path) as hdus:
        bands = list(_bands(hdus, path))
    if not bands:
        raise ValueError(f"no image in {path} has a BAND key")
    return {band: read_image(path, band=band, **options) for band in bands}


@contextmanager
def open_fits(path: str | PathLike):
    """Open a FITS file to read, whole: a truncated one is an OSError, not a warning."""
    hdus = _opened(Path(path))
    try:
        yield hdus
    finally:
        hdus.close()


def _opened(path: Path) -> fits.HDUList:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    with warnings.catch_warnings(), _unpacked(path) as stream:
        warnings.filterwarnings("ignore", "The following header keyword is invalid", AstropyUserWarning)
        # Both leave extensions out, such as the noise, and go on.
        warnings.filterwarnings("error", "File may have been truncated", AstropyUserWarning)
        warnings.filterwarnings("error", "Error validating header", AstropyUserWarning)
        try:
            with fits.open(stream, memmap=False, lazy_load_hdus=False) as hdus:
                return fits.HDUList([_loaded(hdu) for hdu in hdus])
        except AstropyUserWarning as error:
            raise OSError(f"{path} is truncated: {error}") from None
        except (OSError, TypeError, ValueError) as error:
            reason = str(error).split(". If")[0]
            raise OSError(f"{path} is empty, truncated or no FITS file: {reason}") from error


def _unpacked(path: Path):
    """Open ``path`` in binary; unzipped here, for astropy takes the end of a truncated archive for that of the file."""
    with path.open("rb") as stream:
        unzip = {b"\x1f\x8b": gzip.decompress, b"BZ": bz2.decompress}.get(stream.read(2))
    if unzip is None:
        return path.open("rb")
    try:
        return BytesIO(unzip(path.read_bytes()))
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise OSError(f"{path} is truncated or damaged: {error}") from error


def _loaded(hdu):
    hdu.data  # noqa: B018 - read now, while the file is open
    return hdu


def _image_hdu(hdus, where: Plane | None, band: str | None, path):
    if where is not None:
        return _hdu(hdus, where, "image", path)
    bands = _bands(hdus, path)
    if band is not None:
        if band not in bands:
            raise ValueError(f"{path} has no band {band!r}; it has {', '.join(bands) or 'no BAND keys'}")
        return bands[band]
    if len(bands) > 1:
        raise ValueError(f"{path} has several bands: choose one of {', '.join(bands)} with band=, or use read_bands")
    return _science_hdus(hdus, path)[0]


def _science_hdus(hdus, path):
    images = [hdu for hdu in hdus if _is_image(hdu)]
    if not images:
        raise ValueError(f"{path} has no image: it has {_contents(hdus)}")
    named = [hdu for hdu in images if hdu.name.upper() in EXTNAMES["image"]]
    other = {name for kind, names in EXTNAMES.items() if kind != "image" for name in names}
    unnamed = [hdu for hdu in images if hdu.name.upper() not in other]
    if not (named or unnamed):
        raise ValueError(f"{path} has no image but other planes: name it with image=; there are {_contents(hdus)}")
    return named or unnamed


def _bands(hdus, path) -> dict[str, Any]:
    if not any(_is_image(hdu) for hdu in hdus):
        return {}
    bands = {}
    for hdu in _science_hdus(hdus, path):
        if "BAND" in hdu.header:
            bands.setdefault(hdu.header["BAND"], hdu)
    return bands


def _is_image(hdu) -> bool:
    return hdu.is_image and hdu.header.get("NAXIS", 0) >= 2 and hdu.shape != ()


def _noise(hdus, named: Mapping[str, Plane], header, path):
    for kind, where in named.items():
        return kind, _hdu(hdus, where, kind, path)
    found = {}
    for hdu in hdus:
        if _is_image(hdu) and hdu.ver == header.get("EXTVER", 1):
            found.setdefault(noise_kind(hdu.header), hdu)
    return next(((kind, found[kind]) for kind in NOISE if kind in found), (None, None))


def _plane_hdu(hdus, kind: str, where: Plane | None, header, path):
    if where is not None:
        return _hdu(hdus, where, kind, path)
    names, version = EXTNAMES[kind], header.get("EXTVER", 1)
    return next((hdu for hdu in hdus if _is_image(hdu) and hdu.name.upper() in names and hdu.ver == version), None)


def _hdu(hdus, where: Plane, kind: str, path):
    file = None if isinstance(where, (int, tuple)) else _FILE.fullmatch(fspath(where))
    if file is None and isinstance(where, PathLike):
        raise ValueError(f"{kind}={str(where)!r} has no FITS file name")
    if file is None:
        return _extension(hdus, where, kind, path)
    with open_fits(file["path"]) as others:
        if file["extension"]:
            name = file["extension"]
            found = _extension(others, int(name) if name.isdigit() else name, kind, file["path"])
        else:
            found = next((hdu for hdu in others if _is_image(hdu)), None)
            if found is None:
                raise ValueError(f"{file['path']} has no image for {kind}: it has {_contents(others)}")
        return found.copy()


def _extension(hdus, where: int | str | tuple[str, int], kind: str, path):
    try:
        hdu = hdus[where]
    except (KeyError, IndexError):
        raise ValueError(f"{path} has no HDU {where!r} for {kind}; it has {_contents(hdus)}") from None
    if not _is_image(hdu):
        raise ValueError(f"HDU {where!r} of {path} holds no image for {kind}; the file has {_contents(hdus)}")
    return hdu


def _contents(hdus) -> str:
    def describe(i, hdu):
        what = f"image {hdu.shape}" if hdu.is_image and hdu.shape else "no data" if hdu.is_image else "table"
        return f"{i} {hdu.name or '(no name)'}: {what}"

    return "; ".join(describe(i, hdu) for i, hdu in enumerate(hdus))


def _array(hdu, plane: int | None, kind: str) -> np.ndarray:
    data = hdu.data
    while data.ndim > 2 and data.shape[0] == 1:
        data = data[0]
    if data.ndim == 3:
        if plane is None:
            raise ValueError(f"{kind} is three-dimensional: choose one of its {data.shape[0]} planes with plane=")
        if not 0 <= plane < data.shape[0]:
            raise ValueError(f"{kind} has planes 0 to {data.shape[0] - 1}, not {plane}")
        data = data[plane]
    if data.ndim != 2:
        raise ValueError(f"{kind} must be two-dimensional; got shape {data.shape}")
    return data.astype(data.dtype.newbyteorder("="))


def _same_shape(array: np.ndarray, data: np.ndarray, kind: str) -> np.ndarray:
    if array.shape != data.shape:
        raise ValueError(f"the {kind} plane has shape {array.shape}, the image {data.shape}; they must be equal")
    return array


def is_structural(key: str) -> bool:
    """Whether a header key is about layout or WCS, and so follows from the data."""
    return _STRUCTURE.fullmatch(key) is not None


def _meta(primary: fits.Header, own: fits.Header, wcs, pixel_scale) -> dict[str, Any]:
    headers = (own,) if own is primary else (primary, own)
    meta = {key: value for header in headers for key, value in _cards(header) if not is_structural(key)}
    if pixel_scale is not None:
        scale = u.Quantity(pixel_scale, u.arcsec).value
        of_wcs = None if wcs is None else square_pixel_scale(wcs)
        if of_wcs is not None and abs(scale / of_wcs.value - 1) > 0.01:
            raise ValueError(f"pixel_scale is {scale:.4g} arcsec, but the WCS has {of_wcs:.4g} a pixel")
        meta["PIXSCALE"] = float(scale)
    return meta


def plain_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the ``meta`` of an image as a dict; of a FITS header, in values that are no parts of headers."""
    if isinstance(meta, fits.Header):
        meta = {key: str(meta[key]) if key in _COMMENTARY else meta[key] for key in dict.fromkeys(meta)}
        return {key: None if isinstance(value, fits.card.Undefined) else value for key, value in meta.items()}
    return dict(deepcopy(meta))


def _cards(header: fits.Header) -> list[tuple[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        readable = [card for card in header.cards if _readable(card)]
        return [(card.keyword, card.value) for card in readable if not isinstance(card.value, fits.card.Undefined)]


def _readable(card: fits.Card) -> bool:
    try:
        card.verify("silentfix")
        return bool(card.keyword) and card.value is not None
    except fits.VerifyError:
        return False
