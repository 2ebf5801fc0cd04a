"""Real galaxies: drawn from a catalogue of HST images, deconvolved, turned, and sheared and scaled as wished.

As GalSim's ``RealGalaxy`` does it (Mandelbaum et al. 2012, 2012MNRAS.420.1518M; Rowe et al. 2015,
2015A&C....10..121R): the galaxy is known only through the telescope's PSF, so it is deconvolved, turned, sheared,
magnified and convolved with a PSF that must not be narrower. The noise of its image goes with it, correlated, and is
whitened or symmetrised by more noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import astropy.units as u
import galsim
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData, VarianceUncertainty
from astropy.units import Quantity

from lensdeblend.generators.measuring import measured, stamp_flags
from lensdeblend.generators.population import ZERO_POINT
from lensdeblend.generators.real_catalog import RealCatalog, open_catalog
from lensdeblend.generators.stamps import stamp_image, stamp_observation, stamp_wcs
from lensdeblend.generators.wishes import Galaxies, known_properties
from lensdeblend.interfaces import Generator
from lensdeblend.options import check_choice, check_number, check_whole
from lensdeblend.results import Generation
from lensdeblend.scenes import GaussianPSF, Observation

__all__ = ["Cosmos"]

# The share of the catalogue, nearest in Sérsic index to the one that is wished, from which a galaxy is drawn.
_NEAREST = 0.05
_FWHM = 0.15 * u.arcsec


@dataclass(frozen=True, kw_only=True)
class Cosmos(Generator):
    """Draw real galaxies from a GalSim catalogue that is on this machine.

    Each galaxy is drawn at random (by the catalogue's weights) and turned by a random angle. ``flux`` or ``magnitude``,
    ``radius``, and ``e1`` with ``e2`` are granted by scaling, magnifying and shearing relative to the galaxy's own
    Sérsic fit; an index ``n`` by drawing among the twentieth of the catalogue nearest to it, so only roughly: the
    result's column has the galaxy's own. What is not wished is the galaxy's own. Without fits only ``flux`` or
    ``magnitude`` can be wished, and is that of the stamp.

    The uncertainty of each image is its noise as GalSim propagates it, which is correlated unless whitened. Of noise
    that is not whitened it leaves out what deconvolving amplifies near the resolution of the original pixels.
    The result's catalogue is that of `~lensdeblend.generators.sersic.Sersic` with ``ident``, the galaxy's name in its
    own, and the flag ``noise_amplified`` where the PSF of the galaxy's own image, magnified and sheared with it, is
    wider than the one asked for.

    Parameters
    ----------
    catalog : str or path
        The FITS file of a GalSim ``RealGalaxyCatalog``, or a folder with one; fits are taken from ``NAME_fits.fits``.
    pixel_scale : `~astropy.units.Quantity` or float
        Angle a pixel, a plain number in arcsec.
    pixels : int
        Along each side of the stamp, at least 8.
    psf : `~lensdeblend.scenes.GaussianPSF` or 2-d array
        An array is the PSF on the stamp's own pixels. Left out, a Gaussian of 0.15 arcsec FWHM, a little wider than
        that of HST/ACS.
    noise : {"whiten", "symmetrize", "none"}
        ``"symmetrize"`` makes the noise fourfold symmetric, by less additional noise than whitening takes.
    position : `~astropy.coordinates.SkyCoord`, optional
        As for `~lensdeblend.generators.sersic.Sersic`.
    zero_point : float
        AB magnitude of one count a second.
    measure : bool
        Whether to fit profiles to the images.

    Raises
    ------
    FileNotFoundError
        For a catalogue, an image, a PSF or a noise file that is not there, with its name.
    TypeError, ValueError
        For missing columns, options out of range, a PSF narrower than a galaxy's own, wishes that cannot be granted.

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.generators.cosmos import Cosmos
    >>> method = Cosmos(catalog="~/COSMOS_23.5_training_sample", noise="symmetrize")
    >>> method.generate(3, {"magnitude": 21}, np.random.default_rng(1))  # doctest: +SKIP
    """

    catalog: str | Path | None = None
    pixel_scale: Quantity | float = 0.03
    pixels: int = 128
    psf: GaussianPSF | np.ndarray | None = None
    position: SkyCoord | None = None
    noise: str = "whiten"
    zero_point: float = ZERO_POINT
    measure: bool = True

    def __post_init__(self):
        check_whole("pixels", self.pixels, 8)
        check_number("zero_point", self.zero_point)
        check_choice("noise", self.noise, ("whiten", "symmetrize", "none"))
        stamp_wcs(self._observation(), self.position)

    def generate(self, n: int, conditions: Mapping | None, rng: np.random.Generator) -> Generation:
        """Return ``n`` galaxies."""
        known = known_properties(n, conditions, zero_point=self.zero_point)
        catalog = self._opened()
        _check_grantable(known, catalog)
        observation = self._observation()
        drawn = [
            _Draw(catalog, {name: values[i] for name, values in known.items()}, self.zero_point, child, observation)
            for i, child in enumerate(rng.spawn(n))
        ]
        images, deviations = zip(*(self._image(one, observation) for one in drawn))
        names = ("flux", "radius", "e1", "e2", "n")
        galaxies = Galaxies(**{name: np.array([getattr(one, name) for one in drawn]) for name in names})
        table = galaxies.table(self.zero_point)
        table.add_column([one.ident for one in drawn], name="ident", index=1)
        held = np.array([image.data.sum() for image in images])
        table["flux_measured"] = held * observation.unit
        if self.measure:
            noise = np.array(deviations) if np.all(np.array(deviations) > 0) else None
            table.update(measured(images, observation.pixel_scale, noise=noise))
        noise_of_sum = np.array(deviations) * self.pixels
        flags = stamp_flags(galaxies, held + 3 * noise_of_sum, False)
        amplified = ["noise_amplified" if one.amplified else "" for one in drawn]
        table["flags"] = [",".join(filter(None, pair)) for pair in zip(flags, amplified)]
        return Generation(images=list(images), catalog=table, meta={"galaxies": str(catalog.file)})

    def _opened(self) -> RealCatalog:
        if self.catalog is None:
            raise ValueError(
                "cosmos needs a catalogue of galaxies: Cosmos(catalog=...), the file or folder of a GalSim "
                "RealGalaxyCatalog (galsim_download_cosmos fetches one)"
            )
        path = Path(self.catalog).expanduser()
        return _opened(str(path), path.stat().st_mtime_ns if path.exists() else 0)

    def _observation(self) -> Observation:
        psf = GaussianPSF(_FWHM) if self.psf is None else self.psf
        return stamp_observation(self.pixel_scale, self.pixels, psf, self.zero_point)

    def _image(self, one: _Draw, observation: Observation) -> tuple[NDData, float]:
        scale = float(observation.pixel_scale.to_value(u.arcsec))
        image = galsim.ImageD(self.pixels, self.pixels, scale=scale)
        one.profile.drawImage(image, method="no_pixel")
        # GalSim keeps the noise of a pixel of the galaxy's own image; here pixels have another area.
        noise = one.profile.noise * (scale / one.own_scale) ** 4
        if self.noise == "whiten":
            variance = image.whitenNoise(noise)
        elif self.noise == "symmetrize":
            variance = image.symmetrizeNoise(noise, order=4)
        else:
            variance = noise.drawImage(galsim.ImageD(3, 3, scale=scale)).array[1, 1]
        uncertainty = VarianceUncertainty(np.full(image.array.shape, float(variance)))
        dressed = stamp_image(image.array.copy(), observation, self.position, uncertainty=uncertainty)
        return dressed, float(np.sqrt(variance))


class _Draw:
    """One galaxy, chosen, turned and made as wished: its properties, and its profile through PSF and pixel."""

    def __init__(self, catalog, wish, zero_point, rng, observation):
        index = _chosen(catalog, wish, rng)
        angle = rng.uniform(0, 2 * np.pi)
        scale = observation.pixel_scale.to_value(u.arcsec)
        deviate = galsim.BaseDeviate(int(rng.integers(1, 2**31)))
        fit = {name: one[index] for name, one in catalog.fits.items()} if catalog.fits else {}
        magnified = np.exp(wish["log_radius"]) / fit["radius"] if "log_radius" in wish else 1.0
        wide = 1.5 * scale * observation.shape[0] / magnified
        real = catalog.galaxy(index, deviate, wide)
        self.ident = catalog.galaxies.ident[index]
        self.own_scale = real.pixel_scale
        own = fit["flux"] if np.isfinite(fit.get("flux", np.nan)) else float(np.sum(real.gal_image.array))
        unit = 10 ** (0.4 * (zero_point - ZERO_POINT))
        self.flux = 10 ** (-0.4 * (wish["magnitude"] - zero_point)) if "magnitude" in wish else own * unit
        shape = fit.get("e", np.nan) * np.exp(2j * angle)
        turned, stretched = real.rotate(angle * galsim.radians), magnified * np.eye(2)
        if "e1" in wish:
            wished = complex(wish["e1"], wish["e2"])
            for shear in (galsim.Shear(-shape), galsim.Shear(wished)):
                turned, stretched = turned.shear(shear), shear.getMatrix() @ stretched
            shape = wished
        widest = np.linalg.svd(stretched, compute_uv=False).max()
        self.amplified = _amplified(real, widest, observation, f"galaxy {self.ident} of {catalog.file}")
        self.e1, self.e2 = np.real(shape), np.imag(shape)
        self.radius, self.n = fit.get("radius", np.nan) * magnified, fit.get("n", np.nan)
        made = turned.dilate(magnified) * (self.flux / own)
        self.profile = galsim.Convolve([made, _psf(observation), galsim.Pixel(scale)])


def _check_grantable(known: Mapping, catalog: RealCatalog) -> None:
    needed = [
        name for name, own in (("radius", "log_radius"), ("e1", "e1"), ("e2", "e2"), ("n", "log_n")) if own in known
    ]
    if needed and catalog.fits is None:
        raise ValueError(
            f"the condition {needed[0]!r} needs the galaxies' Sérsic fits, and {catalog.without_fits}; without them "
            "only flux or magnitude can be wished"
        )
    if needed and not np.any(np.isfinite(catalog.fits["n"])):
        raise ValueError(f"the condition {needed[0]!r} needs Sérsic fits, and {catalog.file} has no viable one")
    if ("e1" in known) != ("e2" in known):
        raise ValueError("cosmos shears galaxies as a whole: give both conditions, e1 and e2, or none")


def _chosen(catalog: RealCatalog, wish: Mapping, rng: np.random.Generator) -> int:
    weight = catalog.weight
    if set(wish) - {"magnitude"}:
        weight = weight * np.isfinite(catalog.fits["n"])
    if "log_n" in wish:
        apart = np.where(weight > 0, np.abs(np.log(catalog.fits["n"]) - wish["log_n"]), np.inf)
        enough = max(1, int(_NEAREST * np.count_nonzero(weight)))
        weight = weight * (apart <= np.partition(apart, enough - 1)[enough - 1])
    return int(rng.choice(len(weight), p=weight / weight.sum()))


def _psf(observation: Observation) -> galsim.GSObject:
    scale = observation.pixel_scale.to_value(u.arcsec)
    if isinstance(observation.psf, GaussianPSF):
        return galsim.Gaussian(fwhm=observation.psf.fwhm.to_value(u.arcsec))
    return galsim.InterpolatedImage(galsim.Image(np.ascontiguousarray(observation.kernel)), scale=scale, flux=1.0)


def _amplified(real: galsim.RealGalaxy, widest: float, observation: Observation, name: str) -> bool:
    """Whether stretching by ``widest`` makes a galaxy's own PSF wider than the one that it is to be seen through."""
    pixel = galsim.Pixel(observation.pixel_scale.to_value(u.arcsec))
    seen, own = galsim.Convolve([_psf(observation), pixel]).calculateFWHM(), real.original_psf.calculateFWHM()
    if seen < own:
        raise ValueError(
            f"PSF and pixel ({seen:.3f} arcsec FWHM) are narrower than the PSF ({own:.3f} arcsec) through which {name} "
            "was seen: deconvolving would only amplify its noise"
        )
    return bool(seen < widest * own)


@lru_cache(maxsize=4)
def _opened(path: str, changed: int) -> RealCatalog:
    """The catalogue at ``path`` as it was when it was last ``changed``."""
    return open_catalog(path)
