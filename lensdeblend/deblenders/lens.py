r"""The lens galaxy apart from the arcs around it, in the image of a strong lens.

Where the arcs lie on the lens galaxy, no symmetry and no profile tells one light from the other; the lens equation
does. So a reconstructor fits both at once, and its lens light :math:`L` and model :math:`M` (both through the PSF)
divide the data :math:`d`:

.. math::

    d = L + (d - L), \qquad \text{arcs} = M - L.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.nddata import NDData

from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.catalog import blendedness, catalogue, moments, shape, together
from lensdeblend.deblenders.detection import significance
from lensdeblend.deblenders.dressing import dressed, segmented
from lensdeblend.images import like
from lensdeblend.interfaces import Deblender, Image
from lensdeblend.options import check_positive
from lensdeblend.plugins import resolve
from lensdeblend.results import Deblending, Reconstruction

__all__ = ["Lens"]


@dataclass(frozen=True)
class Lens(Deblender):
    """Separate the lens galaxy (row 1) from the arcs (row 2).

    Parameters
    ----------
    reconstructor : str
        A name of ``methods("reconstructor")`` that fits the lens light.
    threshold : float
        Significance of a star from which a pixel belongs to the segmentation.

    Notes
    -----
    The share of the lens galaxy is its light as it was fitted, that of the arcs all the rest of the data: what is left
    of neighbours, which the reconstructor masks, is in it. The flux of the lens galaxy, its error and shape are those
    of the fit, to infinity and before the PSF; those of the arcs are of their image, their error that of the noise
    where both images may be brighter or fainter but keep their shape. Flags of the fit are those of the result; where
    no lens galaxy is seen, row 1 has the flag ``no flux``.

    References
    ----------
    Bolton et al. 2006 (2006ApJ...638..703B) for arcs after the subtraction of the lens galaxy.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend import deblend, simulate
    >>> from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic
    >>> scene = Scene(
    ...     mass=[EPL(1.1 * u.arcsec, e1=0.1)], lens_light=[Sersic(100, 0.4 * u.arcsec, 3.0)],
    ...     sources=[Sersic(30, 0.15 * u.arcsec, center_x=0.1 * u.arcsec)],
    ... )
    >>> observation = Observation(0.1 * u.arcsec, (40, 40), GaussianPSF(0.15 * u.arcsec), background_rms=0.05)
    >>> image = simulate(scene, observation, seed=1).image
    >>> galaxy, arcs = deblend(image, method="lens", seed=1).catalog["flux"]
    >>> bool(90 < galaxy.value < 110), bool(arcs.value > 150)
    (True, True)
    """

    reconstructor: str = "forward"
    threshold: float = 4.0

    def __post_init__(self):
        if not isinstance(self.reconstructor, str):
            raise ValueError(f"reconstructor must be the name of one; got {self.reconstructor!r}")
        if self.threshold is None:
            raise ValueError("threshold must be a positive number; got None")
        check_positive("threshold", self.threshold, "a positive number")

    def deblend(self, image: Image, segmentation, positions, rng: np.random.Generator) -> Deblending:
        """Return the lens galaxy and the arcs.

        Raises
        ------
        ValueError
            Where positions or a segmentation are given, and for an image that the reconstructor refuses.
        """
        if segmentation is not None or positions is not None:
            raise ValueError("the method 'lens' knows what it looks for: leave positions and segmentation out")
        found = resolve("reconstructor", self.reconstructor).method.reconstruct(image, rng)
        bands = list(image) if isinstance(image, Mapping) else [""]
        blend = Blend.of(_as_fitted(image, found))
        light = [_array(found.lens_light, band, of) for band, of in zip(bands, blend.bands)]
        arcs = [_array(found.model, band, of) - own for band, of, own in zip(bands, blend.bands, light)]
        images = [np.stack(pair) for pair in zip(light, arcs)]
        levels = [_sky(found, band) for band in bands]
        fluxes, errors = (np.array(part).T for part in zip(*(_fluxes(of, own) for of, own in zip(blend.bands, images))))
        _take_fitted(found, bands, blend, fluxes[0], errors[0])
        shares = [
            np.stack([own, np.where(np.isfinite(of.image.data), of.image.data, 0.0) - own])
            for of, own in zip(blend.bands, light)
        ]
        return self._dressed(found, blend, images, shares, levels, fluxes, errors)

    def _dressed(self, found: Reconstruction, blend: Blend, images, shares, levels, fluxes, errors) -> Deblending:
        whole = together(blend, images)
        positions = np.array([moments(galaxy)[:2] for galaxy in whole])
        *ellipticities, radii = np.array([shape(galaxy) for galaxy in whole]).T
        ellipticities = np.stack(ellipticities, 1)
        if "light_x" in found.parameters.colnames:
            row = {name: u.Quantity(found.parameters[f"light_{name}"][0]).value for name in ("x", "y", "e1", "e2")}
            middle = (np.array(blend.shape[::-1]) - 1) / 2
            positions[0] = middle + np.array([row["x"], row["y"]]) / blend.scale
            ellipticities[0] = row["e1"], row["e2"]
            radii[0] = u.Quantity(found.parameters["light_radius"][0]).value / blend.scale
        catalog = catalogue(
            blend, positions, fluxes, errors, ellipticities, radii, blendedness(whole),
            [[] if own.any() else ["no flux"] for own in whole],
        )
        count = sum(f"{name}_err" in found.parameters.colnames for name in found.parameters.colnames)
        return dressed(
            blend, images, levels, catalog, segmented(whole, significance(blend), self.threshold), count,
            found.flags, shares=shares,
        )


def _as_fitted(image: Image, found: Reconstruction) -> Image:
    """The data as they came, with the mask and the variance that the fit used."""
    if isinstance(image, Mapping):
        return {band: _with_noise_of(one, found.image[band]) for band, one in image.items()}
    return _with_noise_of(image, found.image)


def _with_noise_of(image: NDData, fitted: NDData) -> NDData:
    mask = None if fitted.mask is None else np.array(fitted.mask)
    return like(image, image.data, uncertainty=type(fitted.uncertainty)(fitted.uncertainty.array), mask=mask)


def _array(images, band: str, of) -> np.ndarray:
    if images is None:
        return np.zeros(of.data.shape)
    return np.asarray((images[band] if isinstance(images, Mapping) else images).data, dtype=float)


def _sky(found: Reconstruction, band: str) -> float:
    sky = found.meta.get("sky", 0.0)
    return float(sky.get(band, 0.0) if isinstance(sky, Mapping) else sky)


def _fluxes(band, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the two images, and the errors of these if each is a number times its image."""
    seen = (images * band.weight).reshape(len(images), -1)
    normal = seen @ seen.T
    shining = normal.diagonal() > 0
    fluxes, errors = images.sum((1, 2)), np.zeros(len(images))
    covariance = np.linalg.pinv(normal[np.ix_(shining, shining)])
    errors[shining] = np.abs(fluxes[shining]) * np.sqrt(covariance.diagonal().clip(0))
    return fluxes, errors


def _take_fitted(found: Reconstruction, bands, blend: Blend, fluxes: np.ndarray, errors: np.ndarray) -> None:
    """The lens galaxy's, where the fit tells them: to infinity, and with the errors of its shape."""
    columns = found.parameters.colnames
    for number, (band, of) in enumerate(zip(bands, blend.bands)):
        pattern = rf"light\d*_flux{f'_{re.escape(band)}' if band else ''}"
        names = [name for name in columns if re.fullmatch(pattern, name) and f"{name}_err" in columns]
        if not names:
            continue
        unit = of.image.unit or u.dimensionless_unscaled
        told, claimed = (
            [u.Quantity(found.parameters[name + after][0], unit).value for name in names] for after in ("", "_err")
        )
        # Of two components one gains what the other loses: this is more than the error of their sum.
        fluxes[number], errors[number] = sum(told), np.sqrt(sum(np.square(claimed)))
