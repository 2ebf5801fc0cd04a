"""A GalSim catalogue of real galaxies, with its parametric fits where it has them, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import galsim
import numpy as np
from astropy.table import Table

from lensdeblend.generators.population import ZERO_POINT, fitted_properties

__all__ = ["RealCatalog", "open_catalog"]

_COLUMNS = (
    "IDENT", "GAL_FILENAME", "PSF_FILENAME", "GAL_HDU", "PSF_HDU", "PIXEL_SCALE", "NOISE_VARIANCE",
)


@dataclass(frozen=True)
class RealCatalog:
    """A catalogue, its file, how probable each galaxy is, and its fits.

    ``fits`` has ``flux`` (counts a second), ``radius`` (arcsec), ``n`` and ``e`` (complex), NaN for a galaxy without a
    viable fit; None, with the reason in ``without_fits``, where there are none.
    """

    galaxies: galsim.RealGalaxyCatalog
    file: Path
    weight: np.ndarray
    fits: dict[str, np.ndarray] | None
    without_fits: str

    def galaxy(self, index: int, rng: galsim.BaseDeviate, size: float) -> galsim.RealGalaxy:
        """The deconvolved galaxy, with noise of its own kind around it up to ``size`` (arcsec).

        Raises
        ------
        FileNotFoundError
            For an image, PSF or noise file that is not there or lacks the extension, with its name.
        """
        names = [self.galaxies.gal_file_name[index], self.galaxies.psf_file_name[index]]
        names += [self.galaxies.noise_file_name[index]] if self.galaxies.noise_file_name else []
        for name in names:
            if not Path(name).is_file():
                raise FileNotFoundError(f"{self.file} names the image file {name}, which is not there")
        try:
            return galsim.RealGalaxy(self.galaxies, index=index, rng=rng, noise_pad_size=size)
        except (OSError, IndexError) as error:
            raise FileNotFoundError(f"galaxy {index} of {self.file} cannot be read: {error}") from error


def open_catalog(path) -> RealCatalog:
    """Open a catalogue and, beside it, ``NAME_fits.fits``.

    Parameters
    ----------
    path : str or path
        The FITS file of a GalSim ``RealGalaxyCatalog``, or a folder with one.

    Raises
    ------
    FileNotFoundError
        Where there is none.
    ValueError
        For a folder with several, and for missing columns, with their names.
    """
    file = _file(Path(path).expanduser())
    table = Table.read(file, hdu=1)
    names = {name.upper() for name in table.colnames}
    missing = [name for name in _COLUMNS if name not in names]
    if missing:
        raise ValueError(f"{file} is no GalSim catalogue of real galaxies: it lacks the column {', '.join(missing)}")
    galaxies = galsim.RealGalaxyCatalog(file.name, dir=str(file.parent))
    weight = np.array(galaxies.weight, dtype=float) if "WEIGHT" in names else np.ones(len(table))
    fits, reason = _fits(file, list(galaxies.ident))
    return RealCatalog(galaxies, file, weight / weight.sum(), fits, reason)


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(
            f"no galaxy catalogue at {path}; give the FITS file of a GalSim RealGalaxyCatalog or its folder "
            "(galsim_download_cosmos fetches one)"
        )
    found = [other.with_name(other.name.replace("_fits.fits", ".fits")) for other in path.glob("*_fits.fits")]
    found = sorted(other for other in found if other.is_file()) or sorted(path.glob("*catalog*.fits"))
    if not found:
        raise FileNotFoundError(f"no galaxy catalogue (*catalog*.fits) in the folder {path}")
    if len(found) > 1:
        raise ValueError(f"{path} has several catalogues: give one of {', '.join(other.name for other in found)}")
    return found[0]


def _fits(file: Path, ident: list[str]) -> tuple[dict[str, np.ndarray] | None, str]:
    beside = file.with_name(f"{file.stem}_fits.fits")
    if not beside.is_file():
        return None, f"there is no {beside}"
    table = Table.read(beside, hdu=1)
    try:
        properties = fitted_properties(table)
    except ValueError as error:
        return None, f"{beside}: {error}"
    if "IDENT" not in table.colnames:
        return None, f"{beside} lacks the column IDENT"
    viable = table[np.asarray(table["viable_sersic"]) == 1]
    row = {str(one): i for i, one in enumerate(viable["IDENT"])}
    angle = np.asarray(viable["sersicfit"], dtype=float)[:, 7]
    own = {
        "flux": 10 ** (-0.4 * (properties["magnitude"] - ZERO_POINT)), "radius": np.exp(properties["log_radius"]),
        "n": np.exp(properties["log_n"]), "e": properties["ellipticity"] * np.exp(2j * angle),
    }
    places = [row.get(one) for one in ident]
    return {name: np.array([np.nan if i is None else one[i] for i in places]) for name, one in own.items()}, ""
