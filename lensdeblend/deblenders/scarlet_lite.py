r"""The deblender of the Rubin Observatory, lsst.scarlet.lite, where it is installed.

A galaxy is one or two images :math:`A_{k}`, non-negative and falling from the centre, each of one colour:

.. math::

    d_b = P_b \otimes \sum_i \sum_{k \in i} f_{kb} A_k + n_b,

fitted by a proximal Adam descent on all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.detection import Detector, detected_above_sky
from lensdeblend.deblenders.dressing import nothing_found
from lensdeblend.deblenders.scarlet_common import Cube, Found, inside, told
from lensdeblend.interfaces import Deblender, Image
from lensdeblend.options import check_choice, check_positive, check_whole
from lensdeblend.results import Deblending

__all__ = ["ScarletLite"]

__doctest_requires__ = {"ScarletLite": ["lsst.scarlet.lite"]}

_PSF_HALF = 7
_FEWEST_ITERATIONS = 15
_RESIZED_EVERY = 10
# What the steps of a flux are at least, of the noise.
_SMALLEST_STEP = 0.1


@dataclass(frozen=True, kw_only=True)
class ScarletLite(Deblender):
    """Deblend by lsst.scarlet.lite.

    It is not on the package index: ``pip install git+https://github.com/lsst/scarlet_lite``. All steps are its own,
    with the settings of its documentation; detection, where no positions are given, is that of the other methods.

    Parameters
    ----------
    iterations : int
        At most.
    tolerance : float
        Relative change of the log-likelihood at which to stop.
    components : {1, 2}
        Images a galaxy has at most: the second is for those that are bright enough.
    bright : float
        Signal-to-noise of a component.
    sigma : float
        Of the model's Gaussian PSF, in pixels; made smaller for data that are sharper.
    threshold : float
        Significance of a star from which a pixel belongs to a galaxy.
    background : {"auto", "none"}
        Whether to take off the level of the empty sky, where it differs from zero by 3 sigma.

    Raises
    ------
    ValueError
        Of ``deblend``: for bands with different pixels, and images without PSF.

    Notes
    -----
    Bands share one grid. Fluxes are the model's; it has no errors, so ``flux_err`` is NaN. Centres, ellipticities
    and radii are by second moments of the model before the PSF. Positions are taken to the nearest pixel. ``chi2``
    counts the fluxes as fitted numbers, not the pixels of the shapes. Flags of a galaxy: ``no flux``, ``at the edge``,
    ``off the image``, ``masked``; of the whole, in ``meta["flags"]``: ``nothing found``, ``not converged``, ``poor
    fit``.

    References
    ----------
    Melchior et al. 2018 (2018A&C....24..129M); https://github.com/lsst/scarlet_lite.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend import deblend, simulate
    >>> from lensdeblend.scenes import GaussianPSF, Observation, Scene, Sersic
    >>> galaxies = [Sersic(90, 0.5 * u.arcsec, 1.0), Sersic(60, 0.4 * u.arcsec, 1.0, center_x=2 * u.arcsec)]
    >>> observation = Observation(0.2 * u.arcsec, (48, 48), GaussianPSF(0.7 * u.arcsec), background_rms=0.02)
    >>> image = simulate(Scene(sources=galaxies), observation, method="galsim", seed=1).image
    >>> found = deblend(image, positions=[(23.5, 23.5), (33.5, 23.5)], method="scarlet-lite", seed=1)
    >>> [round(float(flux.value) / 10) for flux in found.catalog["flux"]]
    [9, 6]
    """

    iterations: int = 300
    tolerance: float = 1e-4
    components: int = 2
    bright: float = 50.0
    sigma: float = 0.8
    threshold: float = 4.0
    background: str = "auto"

    def __post_init__(self):
        check_whole("iterations", self.iterations, 1)
        check_choice("components", self.components, (1, 2))
        check_choice("background", self.background, ("auto", "none"))
        for name in ("tolerance", "bright", "sigma", "threshold"):
            if getattr(self, name) is None:
                raise ValueError(f"{name} must be a positive number; got None")
            check_positive(name, getattr(self, name), "a positive number")

    def deblend(self, image: Image, segmentation, positions, rng: np.random.Generator) -> Deblending:
        """Return one image and one catalogue row a galaxy; nothing is random."""
        blend = Blend.of(image)
        detector = Detector(threshold=self.threshold)
        detection, levels = detected_above_sky(detector, blend, self.background, segmentation, positions)
        if not len(detection.positions):
            return nothing_found(blend, levels)
        cube = Cube.of(blend, levels, 2 * _PSF_HALF + 1)
        return told(blend, detection, levels, self._fit(cube, detection.positions), self.threshold)

    def _fit(self, cube: Cube, positions: np.ndarray) -> Found:
        from lsst.scarlet import lite

        sigma, shown = cube.narrow(self.sigma), inside(positions, cube.data.shape[1:])
        light = np.zeros((len(positions), *cube.data.shape))
        images = np.zeros_like(light)
        if not shown.any():
            return Found(light, images, light.sum((2, 3)), sigma, True)
        offsets = np.arange(-_PSF_HALF, _PSF_HALF + 1)
        # In units of each band's noise: steps go by the mean of the fluxes in all bands, whose units may differ.
        unit = cube.noise[:, None, None]
        observation = lite.Observation(
            cube.data / unit, cube.variance / unit**2, cube.weights * unit**2, cube.psfs,
            lite.utils.integrated_circular_gaussian(offsets, offsets, sigma=sigma)[None],
            noise_rms=np.ones(len(cube.bands)), bands=cube.bands,
        )
        side = 2 * max(cube.data.shape[1:]) + 1
        initial = lite.initialization.FactorizedInitialization(
            observation, [(y, x) for x, y in positions[shown]], min_snr=self.bright, max_components=self.components,
            monotonicity=lite.operators.Monotonicity((side, side)),
        )
        fit = lite.Blend(initial.sources, observation).fit_spectra()
        fit.parameterize(partial(lite.component.default_adaprox_parameterization, noise_rms=_SMALLEST_STEP))
        done, _ = fit.fit(self.iterations, e_rel=self.tolerance, min_iter=_FEWEST_ITERATIONS, resize=_RESIZED_EVERY)
        for number, source in zip(np.nonzero(shown)[0], fit.sources):
            if not source.is_null:
                alone = source.get_model().project(bbox=observation.bbox)
                light[number], images[number] = alone.data * unit, observation.convolve(alone).data * unit
        return Found(light, images, light.sum((2, 3)), sigma, done < self.iterations)
