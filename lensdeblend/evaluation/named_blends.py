"""The sets of blends that are known by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import astropy.units as u

from lensdeblend.evaluation.blends import BlendSet
from lensdeblend.scenes import GaussianPSF, Observation
from lensdeblend.scenes.populations import Normal, population
from lensdeblend.spelling import advice

__all__ = ["blend_set", "blend_sets"]

_SIZE = (60, 60)
_COLOURS = (Normal(0.7, 0.3), Normal(0.3, 0.15))
_NOTE = (
    "Fluxes are the galaxies' totals; the population's signal-to-noise, 10 to 200 in {band}, is that of a Gaussian of "
    "the disc's size, and bins go by the galaxy's own in all bands together, of a matched filter."
)


def blend_sets() -> list[str]:
    """List the names that `blend_set` knows."""
    return list(_SETS)


def blend_set(name: str) -> BlendSet:
    """Return the set called ``name``.

    ``hsc``, ``lsst`` and ``euclid`` have bulge and disc galaxies of the population ``blends`` as these instruments see
    them; ``cosmos`` has real galaxies as HSC sees them, ``cosmos-lsst`` and ``cosmos-euclid`` as the others do;
    ``des-sky`` puts bulge and disc galaxies into real sky.

    Raises
    ------
    ValueError
        For an unknown name; the message gives the nearest and all known ones.

    Examples
    --------
    >>> from lensdeblend.evaluation import blend_set
    >>> blend_set("lsst").bands["r"].psf.fwhm
    <Quantity 0.73 arcsec>
    """
    if name not in _SETS:
        raise ValueError(f"unknown set of blends {name!r}; {advice(name, _SETS)}")
    return _SETS[name]()


def _hsc() -> BlendSet:
    seen = Observation(
        0.168 * u.arcsec, _SIZE, GaussianPSF(0.6 * u.arcsec), background_rms=1.0, unit=u.dimensionless_unscaled,
    )
    return BlendSet(
        "hsc", "bulge and disc galaxies on HSC-like pixels of 0.168 arcsec, Gaussian PSF of 0.6 arcsec FWHM, g, r, i, "
        "noise equal in all", population("blends"), dict.fromkeys("gri", seen), _COLOURS,
        noted=(_NOTE.format(band="i"), "No instrument table has HSC: pixels, PSF and noise are those of the summary."),
    )


def _lsst() -> BlendSet:
    bands = {band: Observation.preset(f"lsst-{band}", shape=_SIZE) for band in "gri"}
    return BlendSet(
        "lsst", "bulge and disc galaxies as LSST sees them, g, r, i", population("blends"), bands, _COLOURS,
        noted=(_NOTE.format(band="i"),),
    )


def _euclid() -> BlendSet:
    return BlendSet(
        "euclid", "bulge and disc galaxies as Euclid sees them, VIS", population("blends"),
        {"VIS": Observation.preset("euclid-vis", shape=_SIZE)}, noted=(
            _NOTE.format(band="VIS"),
            "The images are 6 arcsec wide: many galaxies reach beyond the border, and large groups are close ones.",
        ),
    )


def _des_sky() -> BlendSet:
    # Only what the patches do not tell is of the table: pixels and PSF.
    told = {band: Observation.preset(f"des-{band}", shape=_SIZE) for band in "gri"}
    bands = {
        band: Observation(
            seen.pixel_scale, _SIZE, seen.psf, background_rms=1.0, unit=u.dimensionless_unscaled,
        ) for band, seen in told.items()
    }
    return BlendSet(
        "des-sky", "bulge and disc galaxies put into real DES sky, g, r, i", population("blends"), bands, _COLOURS,
        real_sky=True, noted=(
            _NOTE.format(band="i"),
            "The PSF is no part of the patches: Gaussians with the widths of lenstronomy's table of DES stand for it, "
            "for the galaxies and for what the methods are told. The bands have one zero point.",
        ),
    )


def _real(maker: Callable[[], BlendSet], name: str) -> Callable[[], BlendSet]:
    def made() -> BlendSet:
        parametric = maker()
        summary = parametric.summary.replace("bulge and disc galaxies", "real galaxies")
        # It agrees with galsim to a millionth of the peak on galaxies given as pixels, in a twentieth of the time.
        return replace(parametric, name=name, summary=summary, simulator="torch", real_sources=True)

    return made


_SETS: dict[str, Callable[[], BlendSet]] = {
    "hsc": _hsc, "lsst": _lsst, "euclid": _euclid, "cosmos": _real(_hsc, "cosmos"),
    "cosmos-lsst": _real(_lsst, "cosmos-lsst"), "cosmos-euclid": _real(_euclid, "cosmos-euclid"),
    "des-sky": _des_sky,
}
