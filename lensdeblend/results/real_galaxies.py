"""Generated galaxies as the tables of a GalSim ``RealGalaxyCatalog``, with their fits.

GalSim deconvolves each galaxy from the PSF through which it was seen, and takes that PSF to hold the width of the
pixel, which ours does not: it is convolved with the pixel here. GalSim cannot pad a galaxy with noise of no variance;
where an image has no uncertainty, a standard deviation of 1e-8 of its brightest pixel is written in place of none.

``RealGalaxyCatalog``, ``RealGalaxy``: Mandelbaum et al. 2012 (2012MNRAS.420.1518M); Rowe et al. 2015
(2015A&C....10..121R).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, VarianceUncertainty
from astropy.table import QTable, Table

from lensdeblend.images import pixel_scale
from lensdeblend.io.real_galaxies import write_real_galaxies

__all__ = ["RealGalaxyTables", "real_galaxies"]

# The pixel in which the half-light radii of GalSim's fits are given.
_FIT_PIXEL = 0.03
_NEXT_TO_NO_NOISE = 1e-8
_PROPERTIES = ("flux", "radius", "e1", "e2", "n")


@dataclass(frozen=True)
class RealGalaxyTables:
    """The catalogue without the places of the images, the fits where there are any, and the PSFs.

    ``extensions`` has EXTNAME and EXTVER of each galaxy's image, ``psf_of`` the place in ``psfs`` of its PSF.
    """

    catalog: Table
    fits: Table | None
    extensions: list[tuple[str, int]]
    psfs: list[np.ndarray]
    psf_of: list[int]

    def write(self, folder: Path, catalog: str, galaxies: str) -> None:
        """Write ``catalog``, its fits and ``psf.fits`` beside the file ``galaxies``, which has the images."""
        write_real_galaxies(
            folder / catalog, self.catalog, self.fits, galaxies=galaxies, extensions=self.extensions, psfs=self.psfs,
            psf_of=self.psf_of,
        )


def real_galaxies(
    images: Sequence[NDData | Mapping[str, NDData]], catalog: QTable, band: str | None
) -> RealGalaxyTables:
    """Tabulate galaxies as GalSim wants them.

    Parameters
    ----------
    images : sequence of NDData or of {band: NDData}
    catalog : `~astropy.table.QTable`
        From ``flux``, ``radius``, ``e1``, ``e2`` and ``n`` come the fits, from ``magnitude`` the column MAG.
    band : str or None
        Which of several bands; of one band its name.

    Raises
    ------
    ValueError
        For images without a PSF, and for a band that is not there or left open.
    """
    stamps, number = _in_band(images, band)
    for place, stamp in enumerate(stamps, 1):
        if stamp.psf is None:
            raise ValueError(
                f"the layout galsim needs the PSF from which a RealGalaxy is deconvolved, and galaxy {place} has none: "
                "generate the galaxies with the option psf, such as Sersic(psf=GaussianPSF(0.1 * u.arcsec)) or --set "
                "psf=0.1arcsec, or use another layout"
            )
    kernels = {}
    psf_of = [kernels.setdefault(_key(stamp.psf), len(kernels)) for stamp in stamps]
    psfs = [through_pixel(stamps[psf_of.index(k)].psf) for k in range(len(kernels))]
    ident = np.asarray(catalog["id"], dtype=int) if "id" in catalog.colnames else np.arange(1, len(stamps) + 1)
    unknown = np.full(len(stamps), np.nan)
    table = Table({
        "IDENT": ident, "RA": unknown, "DEC": unknown, "MAG": _magnitude(catalog, band, unknown),
        "BAND": [band or ""] * len(stamps), "WEIGHT": np.ones(len(stamps)),
        "PIXEL_SCALE": [float(pixel_scale(stamp).to_value(u.arcsec)) for stamp in stamps],
        "NOISE_MEAN": np.zeros(len(stamps)), "NOISE_VARIANCE": [_variance(stamp) for stamp in stamps],
        "stamp_flux": [float(np.sum(stamp.data, dtype=float)) for stamp in stamps],
    })
    extensions = [(f"IMAGES_{k}", number) for k in range(1, len(stamps) + 1)]
    return RealGalaxyTables(table, _fits(catalog, table, band), extensions, psfs, psf_of)


def through_pixel(kernel: np.ndarray) -> np.ndarray:
    """A PSF convolved with the pixel on which it is given, eight pixels wider on each side."""
    wide = np.pad(np.asarray(kernel, dtype=float), 8)
    sinc = [np.sinc(np.fft.fftfreq(size)) for size in wide.shape]
    seen = np.fft.ifft2(np.fft.fft2(wide) * np.outer(*sinc)).real
    return seen / seen.sum()


def _in_band(images, band: str | None) -> tuple[list[NDData], int]:
    first = images[0]
    if isinstance(first, NDData):
        return list(images), 1
    bands = list(first)
    if band not in bands:
        said = "" if band is None else f"; there is no {band!r}"
        raise ValueError(
            f"a GalSim catalogue has one band: name one of {', '.join(bands)} with band= (--band){said}"
        )
    return [image[band] for image in images], bands.index(band) + 1


def _key(psf: np.ndarray) -> tuple:
    psf = np.asarray(psf, dtype=float)
    return psf.shape, psf.tobytes()


def _variance(stamp: NDData) -> float:
    if stamp.uncertainty is not None:
        variance = float(np.mean(stamp.uncertainty.represent_as(VarianceUncertainty).array))
        if variance > 0:
            return variance
    return float((_NEXT_TO_NO_NOISE * np.max(stamp.data)) ** 2)


def _flux(catalog: QTable, band: str | None) -> np.ndarray:
    name = f"flux_{band}" if f"flux_{band}" in catalog.colnames else "flux"
    return np.asarray(u.Quantity(catalog[name]).value, dtype=float)


def _magnitude(catalog: QTable, band: str | None, unknown: np.ndarray) -> np.ndarray:
    if not {"flux", "magnitude"} <= set(catalog.colnames):
        return unknown
    return np.asarray(catalog["magnitude"].value) - 2.5 * np.log10(_flux(catalog, band) / _flux(catalog, None))


def _fits(catalog: QTable, table: Table, band: str | None) -> Table | None:
    if not set(_PROPERTIES) <= set(catalog.colnames):
        return None
    radius = catalog["radius"].to_value(u.arcsec)
    flux, n = _flux(catalog, band), np.asarray(catalog["n"])
    e = np.asarray(catalog["e1"]) + 1j * np.asarray(catalog["e2"])
    ratio = (1 - np.abs(e)) / (1 + np.abs(e))
    viable = np.isfinite([flux, radius, n, ratio]).all(axis=0)
    nothing, unknown = np.zeros(len(table)), np.full(len(table), np.nan)
    sersic = [unknown, radius / np.sqrt(ratio) / _FIT_PIXEL, n, ratio, nothing, unknown, unknown, np.angle(e) / 2]
    status = np.zeros((len(table), 5), dtype=int)
    # GalSim takes 1 to 4 as a fit that succeeded: here that of one Sérsic profile, the last.
    status[:, 4] = viable
    return Table({
        "IDENT": table["IDENT"], "mag_auto": table["MAG"],
        "flux_radius": radius / np.asarray(table["PIXEL_SCALE"]), "zphot": unknown,
        "sersicfit": np.stack(sersic, axis=1), "bulgefit": np.full((len(table), 16), np.nan), "fit_status": status,
        "fit_mad_s": unknown, "fit_mad_b": unknown, "fit_dvc_btt": unknown, "use_bulgefit": nothing.astype(int),
        "viable_sersic": viable.astype(int), "hlr": np.stack([radius, nothing, nothing], axis=1),
        "flux": np.stack([flux, nothing, nothing, nothing], axis=1),
    })
