r"""scarlet2 on jax, where it is installed.

A galaxy is one image :math:`A_i` times fluxes by band,

.. math::

    d_b = P_b \otimes \sum_i f_{ib} A_i + n_b,

and all of them are fitted at once by an Adam descent.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.optimize import nnls

from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.detection import Detector, detected_above_sky
from lensdeblend.deblenders.dressing import nothing_found
from lensdeblend.deblenders.scarlet_common import Cube, Found, inside, told
from lensdeblend.interfaces import Deblender, Image
from lensdeblend.options import check_choice, check_positive, check_whole
from lensdeblend.results import Deblending

__all__ = ["Scarlet"]

__doctest_requires__ = {"Scarlet": ["scarlet2"]}

# Steps of the descent, in the parameters' unbounded form; those of pixels and fluxes are of scarlet2's documentation.
_STEPS = {"pixels": 0.1, "flux": 0.05, "center": 0.02, "size": 0.05, "ellipticity": 0.03, "n": 0.05}
_INDICES = 0.5, 5.0
# Images are kept off the ends of the interval from 0 to 1, fluxes off zero, where their transformations are infinite.
_TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Scarlet(Deblender):
    """Deblend by scarlet2.

    It comes with the extra ``scarlet``: ``pip install "lensdeblend[scarlet]"``. (The package ``scarlet`` on PyPI is
    something else.) Frame, start, parameters and descent are its own; detection, where no positions are given, is that
    of the other methods.

    Parameters
    ----------
    morphology : {"sersic", "free"}
        What the image of a galaxy is: an elliptical Sérsic with free centre and index, or free pixels between 0 and 1
        around the position.
    iterations : int
        At most.
    tolerance : float
        Relative change of every parameter's norm at which to stop.
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
    Bands share one grid. Version 2 has no constraint that makes free pixels fall from the centre: they take up noise
    and neighbours the more, the longer the descent; networks as priors, which its authors suggest against that, are not
    used here. Fluxes are those of the model; it has no errors short of sampling, so ``flux_err`` is NaN. Centres,
    ellipticities and radii are by second moments of the model before the PSF. ``chi2`` counts the fluxes as fitted
    numbers, not the shapes. Every blend is compiled anew, which takes most of the time, and jax keeps what it compiled:
    in long runs, call ``jax.clear_caches()`` now and then. Flags of a galaxy: ``no flux``, ``at the edge``, ``off the
    image``, ``masked``; of the whole, in ``meta["flags"]``: ``nothing found``, ``not converged``, ``poor fit``.

    References
    ----------
    Melchior et al. 2018 (2018A&C....24..129M); Melchior et al. 2026, 10.21105/joss.09646.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend import deblend, simulate
    >>> from lensdeblend.scenes import GaussianPSF, Observation, Scene, Sersic
    >>> galaxies = [Sersic(90, 0.5 * u.arcsec, 1.0), Sersic(60, 0.4 * u.arcsec, 1.0, center_x=2 * u.arcsec)]
    >>> observation = Observation(0.2 * u.arcsec, (48, 48), GaussianPSF(0.7 * u.arcsec), background_rms=0.02)
    >>> image = simulate(Scene(sources=galaxies), observation, method="galsim", seed=1).image
    >>> found = deblend(image, positions=[(23.5, 23.5), (33.5, 23.5)], method="scarlet", seed=1)
    >>> [round(float(flux.value) / 10) for flux in found.catalog["flux"]]
    [9, 6]
    """

    morphology: str = "sersic"
    iterations: int = 300
    tolerance: float = 1e-4
    sigma: float = 0.7
    threshold: float = 4.0
    background: str = "auto"

    def __post_init__(self):
        check_choice("morphology", self.morphology, ("sersic", "free"))
        check_whole("iterations", self.iterations, 1)
        check_choice("background", self.background, ("auto", "none"))
        for name in ("tolerance", "sigma", "threshold"):
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
        cube = Cube.of(blend, levels, 1)
        with _silent():
            found = self._fit(cube, detection.positions)
        return told(blend, detection, levels, found, self.threshold)

    def _fit(self, cube: Cube, positions: np.ndarray) -> Found:
        import scarlet2

        sigma, shown = cube.narrow(self.sigma), inside(positions, cube.data.shape[1:])
        light = np.zeros((len(positions), *cube.data.shape))
        images, fluxes = np.zeros_like(light), np.zeros(light.shape[:2])
        if not shown.any():
            return Found(light, images, fluxes, sigma, True)
        # In units of the noise: jax counts with single precision, and some of its floors are absolute.
        unit = cube.noise[:, None, None]
        observation = scarlet2.Observation(
            cube.data / unit, cube.weights * unit**2, psf=cube.psfs, channels=list(cube.bands)
        )
        frame = scarlet2.Frame(
            observation.frame.bbox, scarlet2.GaussianPSF(sigma), observation.frame.wcs, list(cube.bands)
        )
        observation.match(frame)
        scene = self._scene(frame, observation, positions[shown][:, ::-1])
        _declare(scene)
        steps = _Steps()
        try:
            fit = scene.fit(
                observation, max_iter=self.iterations, e_rel=self.tolerance, progress_bar=False, callback=steps,
            )
        finally:
            # It would be kept for as long as the process lives.
            scarlet2.parameter_registry.pop(scene.registry_key, None)
        for number, source in zip(np.nonzero(shown)[0], fit.sources):
            alone = fit.evaluate_source(source)
            light[number], images[number] = alone * unit, observation.render(alone) * unit
            fluxes[number] = np.asarray(scarlet2.measure.flux(source)) * cube.noise
        return Found(light, images, fluxes, sigma, steps.done < self.iterations)

    def _scene(self, frame, observation, centers: np.ndarray):
        """A start for every galaxy: its shape by itself, the fluxes of all together by least squares."""
        import jax.numpy as jnp
        import scarlet2

        with scarlet2.Scene(frame) as first:
            for center in jnp.asarray(centers, jnp.float32):
                image = _sersic(observation) if self.morphology == "sersic" else _pixels(observation, center)
                scarlet2.Source(center, jnp.ones(len(frame.channels)), image)
        seen = np.stack([observation.render(first.evaluate_source(source)) for source in first.sources])
        weight = np.sqrt(observation.weights)
        with scarlet2.Scene(frame) as scene:
            for source, flux in zip(first.sources, _fluxes(seen * weight, np.asarray(observation.data * weight)).T):
                scarlet2.Source(source.center, jnp.asarray(flux.clip(_TINY), jnp.float32), source.morphology)
        return scene


class _Steps:
    """Counts the steps of a descent."""

    done = 0

    def __call__(self, *_):
        self.done += 1


def _sersic(observation):
    """Round, exponential, as large as the PSF."""
    import jax.numpy as jnp
    from scarlet2 import SersicMorphology

    size = 1 / np.sqrt(2 * np.pi * float(observation.frame.psf().max()))
    side = min(2 * int(np.ceil(10 * size)) + 1, 2 * max(observation.frame.bbox.spatial.shape) + 1)
    # Without their type, jax would compile every step anew until it has seen the types that come out.
    index, size, ellipticity = (jnp.array(start, jnp.float32) for start in (1.0, size, [0.01, 0.01]))
    return SersicMorphology(index, size, ellipticity, shape=(side, side))


def _pixels(observation, center):
    """A Gaussian of the moments in the box where the galaxy seems to be alone, else the narrowest image there is."""
    from jax import numpy as jnp
    from scarlet2 import init

    try:
        _, image = init.from_gaussian_moments(observation, center, min_value=_TINY, max_value=1 - _TINY)
    except ValueError:
        image = init.compact_morphology(_TINY, 1 - _TINY)
    return image if jnp.isfinite(image).all() else init.compact_morphology(_TINY, 1 - _TINY)


def _fluxes(seen: np.ndarray, data: np.ndarray) -> np.ndarray:
    """(bands, n), none negative."""
    return np.stack([
        nnls(images.reshape(len(images), -1).T, band.ravel())[0] for images, band in zip(seen.swapaxes(0, 1), data)
    ])


def _declare(scene) -> None:
    """What is free, between which bounds, and how fast it goes."""
    import scarlet2
    from numpyro.distributions import constraints

    with scarlet2.Parameters(scene):
        for number, source in enumerate(scene.sources):
            def free(node, name, constraint=None, step=None, number=number):
                step = _STEPS[name] if step is None else step
                scarlet2.Parameter(node, name=f"{name}:{number}", constraint=constraint, stepsize=step)

            free(source.spectrum, "flux", constraints.positive, partial(scarlet2.relative_step, factor=_STEPS["flux"]))
            if not isinstance(source.morphology, scarlet2.SersicMorphology):
                free(source.morphology, "pixels", constraints.unit_interval)
                continue
            free(source.center, "center")
            free(source.morphology.size, "size", constraints.positive)
            free(source.morphology.ellipticity, "ellipticity", scarlet2.constraint.unit_disk)
            free(source.morphology.n, "n", constraints.interval(*_INDICES))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the checks that scarlet2 prints, nor its prints."""
    from scarlet2 import validation_utils

    before = validation_utils.VALIDATION_SWITCH
    validation_utils.set_validation(False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        validation_utils.set_validation(before)
