r"""Super-resolution by a fit: the lens and its source are fitted to the pixels that there are, and drawn on finer ones.

A reconstructor finds the parameters :math:`p` of the model of the image and their covariance :math:`C`. The model is
then averaged over each finer pixel and convolved with the point-spread function on the finer pixels,

.. math::

    f = \mathrm{PSF}_F \otimes I_F(p), \qquad \mathrm{var}\, f = J C J^T, \quad J = \partial f / \partial p,

and so are deflection, convergence and magnification. What is finer than the pixels of the data comes from the model
alone: from the lens equation, in which the several images of one source make up for each other's pixels, and from the
smooth profiles that the source is taken to have (Tessore & Metcalf 2015, 2015A&A...580A..79T, for the lens).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData, VarianceUncertainty

from lensdeblend.interfaces import Image, Reconstructor, SuperResolver
from lensdeblend.lensing.lens_maps import convergence_map, deflection_map, determinant_map
from lensdeblend.lensing.subdivision import PixelGrid
from lensdeblend.lensing.threads import single_thread
from lensdeblend.options import check_switch
from lensdeblend.plugins import resolve
from lensdeblend.reconstructors.bands import placed
from lensdeblend.results import Reconstruction, SuperResolution
from lensdeblend.superresolvers.einstein_mass import check_distances, with_mass
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.fitted import FittedLens
from lensdeblend.superresolvers.leftover import left_by
from lensdeblend.superresolvers.forward_clumps import APART, rebinned, with_substructure
from lensdeblend.superresolvers.rendering import drawn, pixel_source, spread

__all__ = ["Forward"]


@dataclass(frozen=True)
class Forward(SuperResolver):
    """Fit the lens, draw the fit on finer pixels, with errors.

    With ``substructure=True`` the most likely convergence on square cells is then fitted beside lens and source
    (`lensdeblend.lensing.substructure`).

    Parameters
    ----------
    reconstructor : str or `~lensdeblend.interfaces.Reconstructor`
        The method that fits: a name of ``methods("reconstructor")``, or an instance that carries its options. It has to
        tell of the eight lens parameters, and of its lens light by Sérsic profiles, as ``forward`` does. Of a source
        that is not told by Sérsic profiles (``pixelated``, ``unet``) its pixels are interpolated by a cubic spline.
    lens_redshift, source_redshift : float or None
        Where both are given, ``parameters`` has the mass within the Einstein radius, ``mass_E`` and ``mass_E_err``, in
        solar masses.
    cosmology : str
        A name that `astropy.cosmology` knows.
    substructure : bool
        Whether to look for convergence beside the smooth lens; of one image, with Sérsic sources, by a reconstructor
        that tells errors.
    leftover : bool
        Whether to add to the image, where the fit is poor, what it leaves of the data, interpolated
        (`lensdeblend.superresolvers.leftover`).

    Notes
    -----
    The PSF is given on the pixels of the data; on the finer ones it is an elliptical Moffat profile fitted to them plus
    the quintic spline through what that leaves, its sum 1. The fine image so is that of the same telescope with smaller
    pixels. Gathered on the pixels of the data it is not quite the model that was fitted, which sees the PSF only once a
    pixel: the largest difference, in sigma, is ``meta["rebinned"]``, and the flag ``"finer pixels depart from the
    fit"`` is raised where it exceeds 1. It grows as the PSF becomes narrower than two pixels, also where the PSF
    between the pixels is right.

    Deflection (shear included) and magnification are those at the centres of the finer pixels, the convergence is
    averaged over them. All but the source have a variance, from the covariance of the parameters to first order: it is
    that of the data's noise under the model, and says nothing of what the model leaves out. On critical curves that of
    the magnification is larger than itself. The images have none where the source is given as pixels, whose errors are
    not independent of each other; nor has anything where the reconstructor has no covariance.

    A sky level that the fit took off is in both images. ``chi2`` and the flags are those of the fit. For bands, all of
    which need Sérsic sources, the maps are on the pixels of the first, from which lens parameters are told.

    Substructure is given 24 by 24 cells over twice the Einstein radius to each side, at most over the image, none
    smaller than a pixel, each with a convergence of 0 +- 0.05 before the data are seen; lens and profiles are held to
    three of their errors about the smooth fit, more where that is poor. All that the result tells, ``chi2`` and "poor
    fit" among it, is then of both together, other flags are those of the smooth fit. ``meta["substructure_evidence"]``
    is the log of the evidence with cells over that without: where it is negative, there are none, and the errors tell
    what could have been missed. Variances are those of 128 draws from the covariance, good to 6%; where ``chi2`` is
    above 1 they are as much larger. A mass that is no Gaussian about 0, as a single heavy one, makes them too small.

    References
    ----------
    Tessore & Metcalf 2015 (2015A&A...580A..79T) for the deflection; Koopmans 2005 (2005MNRAS.363.1136K), Vegetti &
    Koopmans 2009 (2009MNRAS.392..945V) for substructure.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend import simulate, superresolve
    >>> from lensdeblend.reconstructors.forward import Forward as Fit
    >>> from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic
    >>> from lensdeblend.superresolvers.forward import Forward
    >>> scene = Scene(mass=[EPL(1.1 * u.arcsec, e1=0.1)], sources=[Sersic(40, 0.2 * u.arcsec, center_x=0.1 * u.arcsec)])
    >>> observation = Observation(0.1 * u.arcsec, (40, 40), GaussianPSF(0.2 * u.arcsec), background_rms=0.05)
    >>> image = simulate(scene, observation, seed=1).image
    >>> method = Forward(reconstructor=Fit(sources=1, lens_light=0), lens_redshift=0.5, source_redshift=1.5)
    >>> result = superresolve(image, factor=3, method=method, seed=1)
    >>> result.image.data.shape, result.flags
    ((120, 120), ())
    >>> print(f"{result.parameters['mass_E'][0]:.3g}")
    3.4e+11 solMass
    """

    reconstructor: str | Reconstructor = "forward"
    lens_redshift: float | None = None
    source_redshift: float | None = None
    cosmology: str = "Planck18"
    substructure: bool = False
    leftover: bool = True

    def __post_init__(self):
        if not isinstance(self.reconstructor, (str, Reconstructor)):
            raise ValueError(f"reconstructor must be the name of one, or an instance; got {self.reconstructor!r}")
        check_switch("substructure", self.substructure)
        check_switch("leftover", self.leftover)
        check_distances(self.lens_redshift, self.source_redshift, self.cosmology)

    def superresolve(self, image: Image, factor: float, rng: np.random.Generator) -> SuperResolution:
        """Return the finer image of one prepared image, or of ``{band: NDData}``.

        Raises
        ------
        TypeError, ValueError
            For a factor that is not from 1 to 5, an image that the reconstructor refuses, and a reconstruction that
            does not tell enough of lens or lens light, or of the source for substructure; for substructure of bands.
        """
        return self._drawn(image, self._pixels(image, factor), self._method.reconstruct(image, rng), rng)

    def superresolve_batch(
        self, images: Sequence[Image], factor: float, rng: np.random.Generator
    ) -> list[SuperResolution]:
        """Return one `~lensdeblend.results.SuperResolution` an image, all fitted as one batch."""
        pixels = [self._pixels(image, factor) for image in images]
        found = self._method.reconstruct_batch(images, rng)
        return [self._drawn(*each, rng) for each in zip(images, pixels, found)]

    @property
    def _method(self) -> Reconstructor:
        return resolve("reconstructor", self.reconstructor).method

    def _pixels(self, image: Image, factor: float) -> dict[str | None, FinePixels]:
        if isinstance(image, Mapping) and self.substructure:
            raise ValueError("substructure is looked for in one image, not in bands: give it the sharpest of them")
        bands = image if isinstance(image, Mapping) else {None: image}
        return {band: FinePixels(one, factor) for band, one in bands.items()}

    def _drawn(
        self, image: Image, pixels: Mapping[str | None, FinePixels], found: Reconstruction, rng: np.random.Generator
    ) -> SuperResolution:
        if self.substructure:
            with torch.no_grad(), single_thread():
                return self._with_mass(with_substructure(pixels[None], found, rng, self.leftover))
        with torch.no_grad(), single_thread():
            first = next(iter(pixels))
            placements = placed({band: fine.image for band, fine in pixels.items()})
            told = {band: FittedLens.of(found, fine.image.unit, band) for band, fine in pixels.items()}
            parts = [
                _images(fine, told[band].placed(placements[band].inverse), _of_band(found, band), self.leftover)
                for band, fine in pixels.items()
            ]
            maps = _maps(pixels[first], told[first])
        images, intrinsics, apart = (dict(zip(pixels, each)) for each in zip(*parts))
        worst = max(apart.values())
        banded = isinstance(image, Mapping)
        return self._with_mass(SuperResolution(
            image=images if banded else images[None], intrinsic=intrinsics if banded else intrinsics[None],
            source=found.source, **maps, parameters=found.parameters, chi2=found.chi2,
            flags=(*found.flags, *(["finer pixels depart from the fit"] if worst > APART else [])),
            meta={**found.meta, "rebinned": apart if banded else worst},
        ))

    def _with_mass(self, result: SuperResolution) -> SuperResolution:
        if self.lens_redshift is None:
            return result
        return replace(
            result,
            parameters=with_mass(result.parameters, self.lens_redshift, self.source_redshift, self.cosmology),
        )


@dataclass(frozen=True)
class _BandOf:
    """What a reconstruction says of one band."""

    model: NDData
    image: NDData
    source: NDData | None
    sky: float


def _of_band(found: Reconstruction, band: str | None) -> _BandOf:
    def own(value):
        return value[band] if isinstance(value, Mapping) else value

    return _BandOf(own(found.model), own(found.image), own(found.source), float(own(found.meta.get("sky", 0.0))))


def _images(
    pixels: FinePixels, fitted: FittedLens, found: _BandOf, leftover: bool
) -> tuple[NDData, NDData, float]:
    """Image, intrinsic image, and how far, in sigma, the first is from the model that was fitted."""
    source = None if fitted.model.sources else pixel_source(found.source, pixels.image, fitted.lens)
    (intrinsic, seen), variances = drawn(fitted, pixels, source)
    level = found.sky / pixels.factor**2
    uncertain = (None, None) if variances is None else [VarianceUncertainty(each) for each in variances]
    whole = seen + level
    if leftover:
        whole = whole + left_by(found.model.data, FinePixels(found.image, pixels.factor))
    return (
        pixels.dressed(whole, uncertainty=uncertain[1], psf=pixels.psf()),
        pixels.dressed(intrinsic + level, uncertainty=uncertain[0]),
        rebinned(pixels, seen + level, found.model.data, found.image),
    )


def _maps(pixels: FinePixels, fitted: FittedLens) -> dict:
    """Deflection, convergence and magnification, with their variances."""
    grid, covariance = PixelGrid(pixels.shape, pixels.scale), fitted.lens_covariance

    def dressed(values, slopes, unit=u.dimensionless_unscaled) -> NDData:
        errors = None if covariance is None else VarianceUncertainty(spread(slopes, covariance))
        return pixels.dressed(values.numpy(), unit=unit, uncertainty=errors)

    deflection, by_lens = deflection_map(grid, fitted.lens)
    determinant, by_lens_too = determinant_map(grid, fitted.lens)
    return {
        "deflection": tuple(dressed(deflection[axis], by_lens[:, axis], u.arcsec) for axis in (0, 1)),
        "convergence": dressed(*convergence_map(grid, fitted.lens)),
        "magnification": dressed(1 / determinant, by_lens_too / determinant**2),
    }
