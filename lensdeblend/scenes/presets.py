"""Observations as instruments make them, from the tables of lenstronomy and GalSim.

Nothing is typed in: names, numbers and bands are read when asked for, from whichever version is installed, and that
version goes into ``Observation.provenance``. Tables change: Euclid VIS had the zero point 24.0 in lenstronomy of late
2021 (1.9.3) and has 25.72 since June 2026, so that a study that must not move writes its observation to YAML.

Neither package has a table of Subaru HSC or of HST/ACS; give `Observation` such an instrument's numbers yourself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from lensdeblend.scenes.observation import GaussianPSF, Observation
from lensdeblend.spelling import advice

__all__ = ["from_configuration", "preset", "presets"]

_SUFFIX = "_band_obs"
_SURVEY_MODES = ("wide_area", "time_domain_wide", "time_domain_deep", "microlensing")


def presets() -> Table:
    """List the observations that `Observation.preset` knows.

    Returns
    -------
    `~astropy.table.Table`
        ``name``, ``pixel_scale``, ``fwhm`` (NaN where the PSF is an image, or where the table has none: see ``psf``),
        ``exposure_time``, ``zero_point``, ``background_rms`` (electron / s) and ``source``.

    Examples
    --------
    >>> from lensdeblend.scenes.presets import presets
    >>> "euclid-vis" in presets()["name"]
    True
    """
    rows = []
    for name, row in sorted(_all().items()):
        fwhm = row["psf"].fwhm.to_value(u.arcsec) if isinstance(row["psf"], GaussianPSF) else np.nan
        kind = {GaussianPSF: "Gaussian", type(None): "none: give one"}.get(type(row["psf"]), "image")
        rows.append((
            name, row["pixel_scale"].to_value(u.arcsec), kind, fwhm, row["exposure_time"].to_value(u.s),
            row["zero_point"], row["background_rms"], row["provenance"],
        ))
    names = ("name", "pixel_scale", "psf", "fwhm", "exposure_time", "zero_point", "background_rms", "source")
    units = {"pixel_scale": u.arcsec, "fwhm": u.arcsec, "exposure_time": u.s, "zero_point": u.ABmag}
    return Table(rows=rows, names=names, units={**units, "background_rms": u.electron / u.s})


def preset(name: str, *, shape: tuple[int, int], psf: GaussianPSF | np.ndarray | None = None) -> Observation:
    """Make the observation called ``name``.

    Parameters
    ----------
    name : str
        One of `presets`.
    shape : tuple of int
        ``(ny, nx)``.
    psf : `GaussianPSF` or 2-d array, optional
        In place of the table's.

    Returns
    -------
    `Observation`
        In electron / s; ``exposure_time`` is that of all exposures together; ``background_rms`` holds sky and read
        noise.

    Raises
    ------
    ValueError
        For an unknown name, and where neither the table nor ``psf`` gives a PSF.

    Examples
    --------
    >>> from lensdeblend.scenes.presets import preset
    >>> preset("euclid-vis", shape=(64, 64)).pixel_scale
    <Quantity 0.101 arcsec>
    """
    known = _all()
    if name not in known:
        raise ValueError(f"unknown preset {name!r}; {advice(name, sorted(known))}")
    row = dict(known[name])
    row["psf"] = row["psf"] if psf is None else psf
    if row["psf"] is None:
        raise ValueError(f"the table of {name!r} has no PSF; pass psf=GaussianPSF(...) or an array on its pixels")
    if callable(row["psf"]):
        row["psf"] = row["psf"]()
    return Observation(shape=shape, unit=u.electron / u.s, gain=1.0, **row)


def from_configuration(
    configuration: dict[str, Any], *, shape: tuple[int, int], band: str = "", provenance: str = "",
) -> Observation:
    """Make an observation from the numbers of one of lenstronomy's tables, of any version.

    Parameters
    ----------
    configuration : dict
        What ``kwargs_single_band()`` of an ``ObservationConfig`` class returns: ``pixel_scale``, ``exposure_time``,
        ``num_exposures``, ``sky_brightness``, ``magnitude_zero_point``, ``read_noise``, ``ccd_gain``, ``seeing``.
    shape : tuple of int
        ``(ny, nx)``.
    band, provenance : str
        As in `Observation`.
    """
    return Observation(shape=shape, unit=u.electron / u.s, **_lenstronomy_row(configuration, band, provenance))


def _all() -> dict[str, dict[str, Any]]:
    return dict([*_from_lenstronomy(), *_from_galsim()])


def _from_lenstronomy() -> Iterator[tuple[str, dict[str, Any]]]:
    from lenstronomy.SimulationAPI.ObservationConfig import DES, HST, JWST, LSST, ZTF, Euclid, Roman

    for module in (DES, Euclid, HST, JWST, LSST, Roman, ZTF):
        instrument = module.__name__.rpartition(".")[2]
        table = getattr(module, instrument)
        for entry in dir(module):
            if not entry.endswith(_SUFFIX):
                continue
            full = entry.removesuffix(_SUFFIX)
            band = full.rpartition("_")[2]
            for mode, configuration in _configurations(table, full, band):
                name = "-".join(filter(None, (instrument, full, mode))).lower().replace("_", "-")
                yield name, _lenstronomy_row(configuration, band, _provenance(instrument, full, mode))


def _configurations(table: Callable, *bands: str) -> Iterator[tuple[str, dict]]:
    """The keyword arguments of ``SingleBand`` in every survey mode in which the table has the band."""
    parameters = inspect.signature(table).parameters
    modes = _SURVEY_MODES if "survey_mode" in parameters else ("",)
    for mode in modes:
        options = {"survey_mode": mode} if mode else {}
        for band in bands:
            try:
                found = table(band=band, **options).kwargs_single_band()
            except ValueError:
                continue
            yield ("" if mode == "wide_area" else mode), dict(found)
            break


def _provenance(*label: str) -> str:
    return f"lenstronomy {version('lenstronomy')}, ObservationConfig: {' '.join(filter(None, label))}"


def _lenstronomy_row(configuration: dict, band: str, provenance: str) -> dict[str, Any]:
    from lenstronomy.SimulationAPI.observation_api import SingleBand

    seeing = configuration.get("seeing")
    single = SingleBand(**{**configuration, "psf_type": "NONE", "data_count_unit": "e-"})
    return {
        "pixel_scale": configuration["pixel_scale"] * u.arcsec,
        "psf": None if seeing is None else GaussianPSF(seeing * u.arcsec),
        "exposure_time": float(single.exposure_time) * u.s,
        "background_rms": float(single.background_noise),
        "zero_point": float(configuration["magnitude_zero_point"]),
        "band": band,
        "provenance": provenance,
    }


def _from_galsim() -> Iterator[tuple[str, dict[str, Any]]]:
    """Roman, one pointing of ``n_dithers`` exposures; sky, thermal light and dark current are in the background."""
    from galsim import roman
    from lenstronomy.Util.data_util import bkg_noise

    for band, throughput in roman.getBandpasses(AB_zeropoint=True).items():
        sky = roman.getSkyLevel(throughput, exptime=1.0) * (1 + roman.stray_light_fraction)
        other = (roman.thermal_backgrounds[band] + roman.dark_current) / roman.pixel_scale**2
        yield f"roman-galsim-{band}".lower(), {
            "pixel_scale": roman.pixel_scale * u.arcsec,
            "psf": _RomanPSF(band, throughput.effective_wavelength),
            "exposure_time": roman.exptime * roman.n_dithers * u.s,
            "background_rms": float(bkg_noise(
                roman.read_noise, roman.exptime, sky + other, roman.pixel_scale, num_exposures=roman.n_dithers,
            )),
            "zero_point": float(throughput.zeropoint + 2.5 * np.log10(roman.collecting_area)),
            "band": band,
            "provenance": f"GalSim {version('galsim')}, galsim.roman: {band}",
        }


class _RomanPSF:
    """The PSF of GalSim's Roman in the middle of the field, drawn when needed: it takes a second."""

    def __init__(self, band: str, wavelength: float):
        self._band, self._wavelength = band, wavelength

    def __call__(self) -> np.ndarray:
        from galsim import roman

        psf = roman.getPSF(_CENTRAL_DETECTOR, self._band, wavelength=self._wavelength, pupil_bin=8)
        size = {"nx": _ROMAN_SIZE, "ny": _ROMAN_SIZE, "scale": roman.pixel_scale}
        return psf.drawImage(**size, method="no_pixel", dtype=float).array


# GalSim names SCA2 as the one near the centre of the focal plane.
_CENTRAL_DETECTOR = 2
_ROMAN_SIZE = 31
