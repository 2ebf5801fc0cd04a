"""Blends as round Gaussians of one width: d = A f + noise, hence f = (A^T W A)^-1 A^T W d, covariance (A^T W A)^-1."""

from collections.abc import Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import QTable

from lensdeblend.images import like, pixel_scale
from lensdeblend.interfaces import Deblender
from lensdeblend.results import Deblending

SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))


@dataclass(frozen=True)
class Gaussians(Deblender):
    """Fits the fluxes of round Gaussians at given positions; ``fwhm`` is in pixels, as seen through the PSF."""

    fwhm: float = 6.0
    threshold: float = 10.0

    def deblend(self, image, segmentation, positions, rng):
        if isinstance(image, Mapping):
            raise TypeError(f"gaussians takes one band at a time; got {', '.join(image)}")
        if positions is None:
            positions = self._peaks(image)
        profiles = self._profiles(image.data.shape, positions)
        flux, covariance = self._fluxes(image, profiles)
        sources = flux[:, np.newaxis, np.newaxis] * profiles
        model = sources.sum(axis=0)
        sigma = np.where(image.mask, np.inf, np.sqrt(image.uncertainty.array))
        residual = (image.data - model) / sigma
        return Deblending(
            sources=[like(image, source) for source in sources],
            shares=[like(image, image.data * share) for share in self._shares(profiles)],
            catalog=self._catalog(image, positions, flux, covariance, sources, model),
            segmentation=segmentation,
            model=like(image, model),
            residual=like(image, residual, unit=u.dimensionless_unscaled, mask=image.mask),
            chi2=float(np.sum(residual**2) / ((~image.mask).sum() - len(flux))),
            image=image,
        )

    def _peaks(self, image):
        from photutils.detection import find_peaks

        sigma = np.sqrt(np.median(image.uncertainty.array[~image.mask]))
        peaks = find_peaks(image.data, self.threshold * sigma, box_size=2 * int(self.fwhm / 2) + 1, mask=image.mask)
        if peaks is None:
            raise ValueError(f"no peak above {self.threshold} sigma: give positions, or a lower threshold")
        return np.column_stack([peaks["x_peak"], peaks["y_peak"]]).astype(float)

    def _profiles(self, shape, positions):
        row, column = np.indices(shape)
        squared = [(column - x) ** 2 + (row - y) ** 2 for x, y in positions]
        profiles = np.exp(-0.5 * np.array(squared) / (self.fwhm * SIGMA_PER_FWHM) ** 2)
        return profiles / profiles.sum(axis=(1, 2), keepdims=True)

    def _fluxes(self, image, profiles):
        good = ~image.mask
        weight = 1 / image.uncertainty.array[good]
        design = profiles[:, good]
        covariance = np.linalg.inv((design * weight) @ design.T)
        return covariance @ (design * weight) @ image.data[good], covariance

    def _shares(self, profiles):
        # Far from every galaxy all profiles underflow; there each gets an equal part, so that nothing is lost.
        profiles = profiles + np.finfo(float).tiny
        return profiles / profiles.sum(axis=0)

    def _catalog(self, image, positions, flux, covariance, sources, model):
        unit = image.unit or u.dimensionless_unscaled
        overlap = [1 - np.sum(source**2) / np.sum(source * model) for source in sources]
        catalog = QTable({"id": np.arange(1, len(flux) + 1), "x": positions[:, 0], "y": positions[:, 1]})
        catalog["flux"] = flux * unit
        catalog["flux_err"] = np.sqrt(np.diag(covariance)) * unit
        catalog["e1"] = catalog["e2"] = np.zeros(len(flux))
        catalog["radius"] = np.full(len(flux), self.fwhm / 2) * pixel_scale(image)
        catalog["blendedness"] = overlap
        catalog["flags"] = [""] * len(flux)
        return catalog
