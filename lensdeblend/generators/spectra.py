r"""The colours of a galaxy's parts: spectra of old stars, of a disc and of young stars, and what dust does to them.

The spectra are those of an elliptical, an Sbc and an irregular galaxy by Coleman, Wu & Weedman 1980
(1980ApJS...43..393C), as GalSim distributes them. A band is a box of a tenth of its wavelength to each side. The
optical depth of dust goes as :math:`\lambda^{-0.7}` (Charlot & Fall 2000, 2000ApJ...539..718C).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import galsim
import numpy as np

from lensdeblend.wavelengths import wavelength

__all__ = ["PARTS", "part_fluxes", "reddening"]

#: Parts that have a spectrum of their own, and whose galaxy's it is.
PARTS = {"old": "CWW_E_ext.sed", "disc": "CWW_Sbc_ext.sed", "young": "CWW_Im_ext.sed"}

_HALF_WIDTH, _SAMPLES = 0.1, 41
_DUST_POWER = -0.7


def part_fluxes(bands: Sequence[str], redshift: float) -> np.ndarray:
    """Fluxes (AB, so per frequency) of `PARTS` in bands, relative to those in the first band, (bands, parts).

    Parameters
    ----------
    bands : sequence of str
        Names of filters that tell their wavelengths.
    redshift : float

    Raises
    ------
    ValueError
        For a band outside of the spectra.

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.generators.spectra import part_fluxes
    >>> (-2.5 * np.log10(part_fluxes(["r", "g"], 0.0)[1])).round(2)
    array([0.74, 0.47, 0.15])
    """
    box = np.linspace(1 - _HALF_WIDTH, 1 + _HALF_WIDTH, _SAMPLES)
    fluxes = []
    for band in bands:
        nanometres = 1000 * wavelength(band) * box / (1 + redshift)
        for spectrum in _spectra():
            if nanometres[0] < spectrum.blue_limit or nanometres[-1] > spectrum.red_limit:
                raise ValueError(
                    f"the spectra have no light in {band!r} at redshift {redshift:g}: they go from "
                    f"{spectrum.blue_limit:.0f} to {spectrum.red_limit:.0f} nm at rest"
                )
        # Photons per wavelength times wavelength are energy per frequency, up to a constant.
        fluxes.append([np.mean(spectrum(nanometres) * nanometres) for spectrum in _spectra()])
    return np.array(fluxes) / np.array(fluxes[0])


def reddening(bands: Sequence[str]) -> np.ndarray:
    """Optical depth of dust in bands, relative to that in the first."""
    lengths = np.array([wavelength(band) for band in bands])
    return (lengths / lengths[0]) ** _DUST_POWER


@lru_cache(1)
def _spectra() -> tuple[galsim.SED, ...]:
    return tuple(galsim.SED(file, wave_type="Ang", flux_type="flambda") for file in PARTS.values())
