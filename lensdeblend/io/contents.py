"""Images, tables and values in one FITS file, written and read back equal.

The layout: an empty primary HDU with provenance; for an image named ``image`` the extensions ``SCI``, ``VAR`` (``ERR``,
``IVAR`` for a standard deviation, an inverse variance), ``DQ``, ``PSF``, and for one of another name ``NAME``,
``NAME_VAR``, ...; lists are numbered, ``NAME_1``; bands have EXTVER and a ``BAND`` key. Tables and arrays have
extensions of their own names. The last extension, ``CONTENTS``, holds as lines of YAML what the rest means, and what no
header can hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from io import BytesIO
from os import PathLike
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.io.misc import yaml
from astropy.nddata import (
    CCDData, InverseVariance, NDData, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty,
)
from astropy.table import Column, MaskedColumn, QTable, Table
from astropy.time import Time
from astropy.units import Quantity
from astropy.wcs import WCS

from lensdeblend.io.atomic import replacing
from lensdeblend.io.read import is_structural, open_fits
from lensdeblend.io.wcs import as_fits_wcs, header_of_wcs, read_wcs

__all__ = ["read_contents", "write_contents"]

FORMAT = 1
_PLANES = {StdDevUncertainty: "ERR", VarianceUncertainty: "VAR", InverseVariance: "IVAR", UnknownUncertainty: "UNCERT"}
_KEY = re.compile(r"[A-Z0-9_-]{1,8}")
_STORED_AS = {"bool": np.uint8, "int8": np.int16, "float16": np.float32}


def write_contents(
    contents: Mapping[str, Any],
    path: str | PathLike,
    *,
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write named images, tables, arrays and values to one FITS file.

    Parameters
    ----------
    contents : mapping
        Names to values: NDData, ``{band: NDData}``, lists of these; tables; arrays; None, numbers, strings, quantities,
        and lists and mappings of such.
    path : path
    provenance : mapping, optional
        Goes to the primary header: what fits as cards, all of it as HISTORY.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OSError
        Where the file exists and may not be replaced, or cannot be written.
    TypeError
        Where something has no place in the file.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import NDData
    >>> from lensdeblend.io.contents import read_contents, write_contents
    >>> write_contents({"model": NDData(np.ones((16, 16))), "chi2": 1.5, "flags": ("poor fit",)}, "fit.fits")
    >>> contents = read_contents("fit.fits")
    >>> float(contents["model"].data.sum()), contents["chi2"], contents["flags"]
    (256.0, 1.5, ('poor fit',))
    """
    shelf = _Shelf()
    names = {name: "SCI" if name == "image" else name.upper() for name in contents}
    nodes = {name: shelf.put(value, names[name], name) for name, value in contents.items()}
    lines = _dump({"format": FORMAT, "contents": nodes}, "the contents").splitlines()
    table = fits.BinTableHDU(Table({"YAML": np.array(lines, dtype=np.bytes_)}), name="CONTENTS")
    hdus = fits.HDUList([_primary(provenance or {}), *shelf.hdus, table])
    with replacing(path, overwrite=overwrite) as temporary:
        hdus.writeto(temporary, checksum=True)


def read_contents(path: str | PathLike) -> dict[str, Any]:
    """Read what `write_contents` wrote.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict
        Names to values, equal to those written; NDData classes other than CCDData come back as NDData.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    OSError
        Where it is no FITS file, or a truncated one.
    ValueError
        Where it is not one of ours, or of a newer version.
    """
    with open_fits(path) as hdus:
        if "CONTENTS" not in hdus:
            raise ValueError(f"{path} has no CONTENTS: it is truncated, or not written by lensdeblend; try read_image")
        lines = hdus["CONTENTS"].data["YAML"]
        record = yaml.load("\n".join(lines))
        if record["format"] > FORMAT:
            raise ValueError(f"{path} is from a newer lensdeblend (format {record['format']}): update to read it")
        return {name: _take(hdus, node) for name, node in record["contents"].items()}


def _take(hdus: fits.HDUList, node: Mapping[str, Any]):
    match node["kind"]:
        case "image":
            return _take_image(hdus, node)
        case "bands":
            return {band: _take(hdus, item) for band, item in node["items"].items()}
        case "list":
            return [_take(hdus, item) for item in node["items"]]
        case "tuple":
            return tuple(_take(hdus, item) for item in node["items"])
        case "table":
            return _take_table(hdus, node)
        case "array":
            return _take_array(hdus, node)
        case "value":
            return node["value"]
    raise ValueError(f"CONTENTS has an unknown kind {node['kind']!r}")


def _take_image(hdus: fits.HDUList, node: Mapping[str, Any]) -> NDData:
    uncertainty = None
    if "uncertainty" in node:
        kinds = {kind.__name__: kind for kind in _PLANES}
        kind = kinds[hdus[tuple(node["uncertainty"]["hdu"])].header["UTYPE"]]
        uncertainty = kind(_take_array(hdus, node["uncertainty"]), unit=node["uncertainty"]["unit"])
    meta = node["meta"]
    return (CCDData if node["class"] == "CCDData" else NDData)(
        _take_array(hdus, node["data"]),
        uncertainty=uncertainty,
        mask=_take_array(hdus, node["mask"]) if "mask" in node else None,
        wcs=read_wcs(hdus[tuple(node["data"]["hdu"])].header) if node["wcs"] else None,
        unit=node["unit"],
        meta=fits.Header.fromstring(meta["header"], sep="\n") if "header" in meta else meta["dict"],
        psf=_take_array(hdus, node["psf"]) if "psf" in node else None,
    )


def _take_array(hdus: fits.HDUList, node: Mapping[str, Any]) -> np.ndarray:
    return hdus[tuple(node["hdu"])].data.astype(node["dtype"])


def _take_table(hdus: fits.HDUList, node: Mapping[str, Any]) -> Table:
    kind = QTable if node["class"] == "QTable" else Table
    table = kind.read(hdus[tuple(node["hdu"])], format="fits", mask_invalid=False, astropy_native=True)
    table.meta = node["meta"]
    for name in node["text"]:
        table[name] = _recoded(table[name], Table.convert_bytestring_to_unicode)
    for name in table.colnames:
        column = table[name]
        if isinstance(column, (Column, Quantity)) and not column.dtype.isnative:
            table[name] = column.astype(column.dtype.newbyteorder("="))
        if name in node["units"]:
            table[name] = table[name].value * u.Unit(node["units"][name])
        if name in node["masked"] and not isinstance(table[name], MaskedColumn):
            missing = table[name] == "" if column.dtype.kind in "SU" else np.isnan(table[name])
            table[name] = MaskedColumn(table[name], mask=missing)
    return table


def _recoded(column: Column, convert: Callable[[Table], None]) -> Column:
    single = Table([column])
    convert(single)
    return single.columns[0]


def _has_fits_unit(column) -> bool:
    unit = getattr(column, "unit", None)
    if not isinstance(column, (Column, Quantity)) or unit is None:
        return True
    try:
        return u.Unit(unit.to_string("fits"), format="fits") == unit
    except ValueError:
        return False


class _Shelf:
    """The HDUs of a file as it grows; each ``put`` returns the entry of CONTENTS that finds its value again."""

    def __init__(self):
        self.hdus = []
        self._psfs = {}

    def put(self, value, name: str, path: str, number: int = 1, band: str | None = None) -> dict[str, Any]:
        if isinstance(value, NDData):
            return self._image(value, name, path, number, band)
        if _is_bands(value):
            numbered = enumerate(value.items(), 1)
            items = {band: self.put(v, name, f"{path}[{band!r}]", i, band) for i, (band, v) in numbered}
            return {"kind": "bands", "items": items}
        if isinstance(value, (list, tuple)) and any(isinstance(v, NDData) or _is_bands(v) for v in value):
            items = [self.put(v, f"{name}_{i}", f"{path}[{i - 1}]") for i, v in enumerate(value, 1)]
            return {"kind": type(value).__name__, "items": items}
        if isinstance(value, Table):
            return self._table(value, name, path)
        if isinstance(value, np.ndarray) and not isinstance(value, Quantity) and value.size and value.ndim:
            return {"kind": "array", **self._array(value, name, path)}
        return {"kind": "value", "value": _checked(value, path)}

    def _image(self, image: NDData, name: str, path: str, number: int, band: str | None) -> dict[str, Any]:
        shared = fits.Header() if band is None else fits.Header({"BAND": band})
        wcs = _writable_wcs(image, path)
        if wcs is not None:
            shared.update(header_of_wcs(wcs))
        meta = fits.Header(_cards(image.meta, shared))
        node = {
            "kind": "image",
            "class": "CCDData" if isinstance(image, CCDData) else "NDData",
            "unit": _checked(image.unit, path),
            "wcs": wcs is not None,
            "meta": _checked(_meta(image.meta), f"{path}.meta"),
            "data": self._array(image.data, name, path, number, _with_unit(shared + meta, image.unit)),
        }
        prefix = "" if name == "SCI" else f"{name}_"
        uncertainty = image.uncertainty
        if uncertainty is not None:
            kind = next((kind for kind in _PLANES if isinstance(uncertainty, kind)), None)
            if kind is None:
                raise TypeError(f"{path} has an uncertainty that FITS has no name for: {type(uncertainty).__name__}")
            header = _with_unit(shared, uncertainty.unit)
            header["UTYPE"] = kind.__name__
            array = np.broadcast_to(uncertainty.array, image.data.shape)
            node["uncertainty"] = {
                "unit": _checked(uncertainty.unit, path),
                **self._array(array, prefix + _PLANES[kind], path, number, header),
            }
        if image.mask is not None:
            mask = np.broadcast_to(image.mask, image.data.shape)
            node["mask"] = self._array(mask, f"{prefix}DQ", path, number, shared)
        if image.psf is not None:
            header = fits.Header() if band is None else fits.Header({"BAND": band})
            node["psf"] = self._psf(np.asarray(image.psf), f"{prefix}PSF", path, number, header)
        return node

    def _psf(self, psf: np.ndarray, name: str, path: str, number: int, header: fits.Header) -> dict[str, Any]:
        key = (psf.shape, psf.dtype.str, psf.tobytes())
        if key not in self._psfs:
            self._psfs[key] = self._array(psf, name, path, number, header)
        return dict(self._psfs[key])

    def _array(self, array, name: str, path: str, number: int = 1, header: fits.Header | None = None) -> dict[str, Any]:
        array = np.asarray(array)
        dtype = array.dtype.newbyteorder("=").name
        try:
            hdu = fits.ImageHDU(array.astype(_STORED_AS.get(dtype, array.dtype)), header, name=name, ver=number)
        except (KeyError, TypeError, ValueError) as error:
            raise TypeError(f"{path} holds {array.dtype}, which FITS images cannot") from error
        self.hdus.append(hdu)
        return {"hdu": [name, number], "dtype": dtype}

    def _table(self, table: Table, name: str, path: str) -> dict[str, Any]:
        bare = table.copy()
        bare.meta.clear()
        # FITS strings are ASCII; UTF-8 bytes pass through them unharmed.
        text = [column for column in bare.colnames if getattr(bare[column], "dtype", np.dtype(float)).kind == "U"]
        for column in text:
            bare[column] = _recoded(bare[column], Table.convert_unicode_to_bytestring)
        units = {column: bare[column].unit for column in bare.colnames if not _has_fits_unit(bare[column])}
        for column, unit in units.items():
            # The header of a magnitude says mag; of what system, only CONTENTS can say.
            bare[column] = Quantity(bare[column].value, getattr(unit, "function_unit", None))
        buffer = BytesIO()
        try:
            bare.write(buffer, format="fits")
        except (TypeError, ValueError) as error:
            raise TypeError(f"the table {path} cannot be written to FITS: {error}") from error
        with fits.open(BytesIO(buffer.getvalue())) as hdus:
            hdu = hdus[1].copy()
        hdu.name = name
        self.hdus.append(hdu)
        return {
            "kind": "table",
            "class": "QTable" if isinstance(table, QTable) else "Table",
            "hdu": [name, 1],
            "text": text,
            "masked": [column for column in bare.colnames if isinstance(bare[column], MaskedColumn)],
            "units": {column: unit.to_string() for column, unit in units.items()},
            "meta": _checked(dict(table.meta), f"{path}.meta"),
        }


def _is_bands(value) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, NDData) for v in value.values())


def _writable_wcs(image: NDData, path: str) -> WCS | None:
    wcs = image.wcs
    if wcs is None:
        return None
    if isinstance(wcs, WCS) and wcs.naxis == 2 and wcs.cpdis1 is None and wcs.det2im1 is None:
        return wcs
    celestial = as_fits_wcs(wcs, image.data.shape)
    if celestial is None:
        raise TypeError(f"{path}: no FITS header holds a {type(wcs).__name__}; attach an astropy.wcs.WCS, or none")
    return celestial


def _with_unit(header: fits.Header, unit: u.UnitBase | None) -> fits.Header:
    header = header.copy()
    if unit is not None:
        try:
            header["BUNIT"] = unit.to_string("fits")
        except ValueError:
            header["BUNIT"] = unit.to_string()
    return header


def _meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(meta, fits.Header):
        return {"header": meta.tostring(sep="\n")}
    return {"dict": dict(meta)}


def _cards(meta: Mapping[str, Any], taken: fits.Header) -> list[fits.Card]:
    cards = []
    for key, value in meta.items():
        if key == "PIXSCALE" and isinstance(value, Quantity):
            value = value.to_value(u.arcsec)
        if isinstance(value, np.generic):
            value = value.item()
        if not (isinstance(key, str) and _KEY.fullmatch(key) and isinstance(value, (bool, int, float, str))):
            continue
        if key in taken or is_structural(key):
            continue
        try:
            card = fits.Card(key, value)
            if len(str(card)) == fits.Card.length:
                cards.append(card)
        except ValueError:
            continue
    return cards


def _primary(provenance: Mapping[str, Any]) -> fits.PrimaryHDU:
    header = fits.Header()
    header["CREATOR"] = f"lensdeblend {version('lensdeblend')}"
    header["DATE"] = Time.now().utc.isot
    header.extend(_cards({str(key).upper(): value for key, value in provenance.items()}, header), unique=True)
    for line in _dump(dict(provenance), "the provenance").splitlines():
        header.add_history(line)
    return fits.PrimaryHDU(header=header)


def _checked(value, path: str):
    value = _plain(value)
    _dump(value, path)
    return value


def _plain(value):
    if isinstance(value, np.generic) and not isinstance(value, np.void):
        return value.item()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value


def _dump(value, path: str) -> str:
    try:
        return yaml.dump(_plain(value), sort_keys=False)
    except yaml.yaml.representer.RepresenterError as error:
        raise TypeError(f"{path} holds what a file cannot: {error.args[-1]!r}") from error
