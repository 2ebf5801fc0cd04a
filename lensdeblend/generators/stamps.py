"""How generated galaxies are seen: pixels, PSF, place on the sky, and bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import torch
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData
from astropy.table import QTable
from astropy.units import Quantity
from astropy.wcs import WCS
from torch import Tensor

from lensdeblend.generators.measuring import measured
from lensdeblend.generators.wishes import Galaxies
from lensdeblend.lensing.convolution import Convolution
from lensdeblend.results import Generation
from lensdeblend.scenes import Observation
from lensdeblend.spelling import advice
from lensdeblend.wavelengths import reddest_first

__all__ = ["Stamps", "ordered_bands", "stamp_image", "stamp_observation", "stamp_wcs"]


def stamp_observation(pixel_scale: Quantity | float, pixels: int, psf, zero_point: float) -> Observation:
    """How stamps of galaxies are seen.

    Raises
    ------
    ValueError
        As `~lensdeblend.scenes.Observation`, and for a PSF wider than the stamp.
    """
    scale = u.Quantity(pixel_scale)
    scale = scale.value * u.arcsec if scale.unit == u.dimensionless_unscaled else scale
    observation = Observation(scale, (pixels, pixels), psf, unit=u.ct / u.s, zero_point=zero_point)
    if observation.kernel is not None and max(observation.kernel.shape) > pixels:
        raise ValueError(
            f"the PSF has {max(observation.kernel.shape)} pixels a side and the stamp {pixels}: give a smaller PSF or "
            "a larger stamp"
        )
    return observation


def stamp_wcs(observation: Observation, position: SkyCoord | None) -> WCS | None:
    """The tangent projection that has ``position`` in the middle of the stamp, north up and east to the left.

    Raises
    ------
    TypeError, ValueError
        For what is no single position on the sky.
    """
    if position is None:
        return None
    if not isinstance(position, SkyCoord):
        raise TypeError(f"position must be an astropy SkyCoord or None; got {type(position).__name__}")
    if not position.isscalar:
        raise ValueError(f"position must be one place on the sky, that of all stamps; got {len(position)}")
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [position.icrs.ra.deg, position.icrs.dec.deg]
    # FITS counts pixels from 1.
    wcs.wcs.crpix = [(side + 1) / 2 for side in observation.shape[::-1]]
    scale = observation.pixel_scale.to_value(u.deg)
    wcs.wcs.cdelt = [-scale, scale]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def stamp_image(data: np.ndarray, observation: Observation, position: SkyCoord | None, **more) -> NDData:
    """A stamp with its unit, PSF and WCS, or pixel scale where it has no place on the sky."""
    wcs = stamp_wcs(observation, position)
    meta = {"PIXSCALE": float(observation.pixel_scale.to_value(u.arcsec))} if wcs is None else {}
    return NDData(data, unit=observation.unit, psf=observation.kernel, wcs=wcs, meta=meta, **more)


def ordered_bands(bands: Sequence[str] | None) -> list[str | None]:
    """The names of ``bands``, the reddest first; ``[None]`` where there are none.

    Raises
    ------
    ValueError
        For names that are not different or do not tell their wavelengths.
    """
    if bands is None:
        return [None]
    places = None if isinstance(bands, str) or not len(bands) else reddest_first(bands)
    if places is None:
        raise ValueError(
            "bands must be different names of filters that tell their wavelengths, such as ('g', 'r', 'i'); got "
            f"{bands!r}"
        )
    return [band for _, band in sorted(zip(places, bands))]


@dataclass(frozen=True)
class Stamps:
    """Stamps of galaxies in one band or in several, on the same pixels.

    ``bands``: the reddest first, ``[None]`` for one without a name; ``observations``: one a band.
    """

    bands: list[str | None]
    observations: list[Observation]
    zero_point: float
    position: SkyCoord | None = None

    @classmethod
    def of(
        cls, pixel_scale: Quantity | float, pixels: int, psf, zero_point: float, *,
        bands: Sequence[str] | None = None, position: SkyCoord | None = None,
    ) -> Stamps:
        """As the options of a generator say; ``psf`` may be a mapping of each of the bands to its own.

        Raises
        ------
        TypeError, ValueError
            For options that are out of range, and for PSFs of other bands.
        """
        ordered = ordered_bands(bands)
        if isinstance(psf, Mapping):
            if bands is None:
                raise ValueError("a PSF for each band needs bands; give one PSF, or the option bands")
            unknown = [name for name in psf if name not in ordered]
            missing = [name for name in ordered if name not in psf]
            if unknown:
                raise ValueError(f"psf has {unknown[0]!r}, which is none of bands; {advice(unknown[0], bands)}")
            if missing:
                raise ValueError(f"psf lacks the band {missing[0]!r}; None is for no PSF")
        own = [psf[band] if isinstance(psf, Mapping) else psf for band in ordered]
        observations = [stamp_observation(pixel_scale, pixels, one, zero_point) for one in own]
        stamp_wcs(observations[0], position)
        return cls(ordered, observations, zero_point, position)

    @property
    def colours(self) -> list[str]:
        """Of a band and its redder neighbour, the reddest first."""
        return [f"{bluer}-{redder}" for redder, bluer in zip(self.bands, self.bands[1:])]

    @property
    def scale(self) -> float:
        """Arcsec a pixel."""
        return float(self.observations[0].pixel_scale.to_value(u.arcsec))

    @property
    def kernels(self) -> list[np.ndarray | None]:
        """The PSF of each band."""
        return [observation.kernel for observation in self.observations]

    @property
    def border(self) -> int:
        """Pixels around the stamp from which a PSF brings light."""
        return max(0 if kernel is None else max(kernel.shape) // 2 for kernel in self.kernels)

    def fluxes(self, galaxies: Galaxies, colours: np.ndarray) -> np.ndarray:
        """(n, bands), counts a second, from that in the reddest band and the ``colours`` (n, bands - 1)."""
        return galaxies.flux[:, None] * 10 ** (-0.4 * np.cumsum(np.pad(colours, ((0, 0), (1, 0))), 1))

    def seen(self, wide: Tensor) -> Tensor:
        """What is drawn on stamps with a `border`, (n, bands, side, side), through the PSFs, (n, bands, ny, nx)."""
        shape, border = self.observations[0].shape, self.border
        bands = []
        for place, kernel in enumerate(self.kernels):
            inside = slice(border, wide.shape[-1] - border)
            bands.append(
                wide[:, place, inside, inside] if kernel is None
                else Convolution(torch.as_tensor(kernel).to(wide), shape, border)(wide[:, place])
            )
        return torch.stack(bands, 1)

    def generation(
        self, galaxies: Galaxies, colours: np.ndarray, stamps: np.ndarray, flags: Sequence[str],
        asked: Sequence[str] | None, *, measure: bool, meta: Mapping,
    ) -> Generation:
        """Images and catalogue of ``stamps`` (n, bands, ny, nx), in the order of the bands that were ``asked`` for."""
        images = [
            [stamp_image(data, seen, self.position) for data, seen in zip(galaxy, self.observations)]
            for galaxy in stamps
        ]
        reference, unit = [galaxy[0] for galaxy in images], self.observations[0].unit
        catalog = galaxies.table(self.zero_point)
        if asked is not None:
            fluxes = self.fluxes(galaxies, colours)
            for place in reversed(range(len(self.bands))):
                catalog[f"flux_{self.bands[place]}"] = fluxes[:, place] * unit
            for place in reversed(range(len(self.colours))):
                catalog[self.colours[place]] = colours[:, place] * u.mag
        catalog.update(
            measured(reference, self.observations[0].pixel_scale) if measure
            else QTable({"flux_measured": stamps[:, 0].sum((1, 2)) * unit})
        )
        catalog["flags"] = list(flags)
        if asked is None:
            return Generation(images=reference, catalog=catalog, meta=dict(meta))
        in_order = [{band: galaxy[self.bands.index(band)] for band in asked} for galaxy in images]
        return Generation(images=in_order, catalog=catalog, meta={**meta, "measured_in": self.bands[0]})
