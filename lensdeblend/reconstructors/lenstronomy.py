r"""The peer as a method: lenstronomy's ``FittingSequence``, a particle swarm and then, if asked for, a Markov chain.

An elliptical power law with external shear, a Sérsic or shapelet source and up to two Sérsics of lens light. The
linear amplitudes are solved at every step; the swarm moves the rest towards the largest

.. math::

    \ln p = -\frac{1}{2}\sum_i \frac{(d_i - m_i)^2}{\sigma_i^2} + \ln \pi .

Data, noise, PSF and mask are those that the other methods see, and the swarm begins where the image says, so that
what differs is the fit.

lenstronomy: Birrer & Amara 2018 (2018PDU....22..189B), Birrer et al. 2021 (2021JOSS....6.3283B). Particle swarm:
Kennedy & Eberhart 1995. emcee: Foreman-Mackey et al. 2013 (2013PASP..125..306F).
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
from astropy.nddata import NDData
from lenstronomy.Workflow.fitting_sequence import FittingSequence

from lensdeblend.images import like
from lensdeblend.interfaces import Image, Reconstructor
from lensdeblend.lensing.parametric import SersicLens
from lensdeblend.lensing.threads import single_thread
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.lenstronomy_model import (
    LENS, LIGHT, SOURCE, LenstronomyModel, Values, band, padded,
)
from lensdeblend.reconstructors.lenstronomy_result import Chain, PeerFit, dressed
from lensdeblend.reconstructors.neighbours import LensRegion, lens_region
from lensdeblend.options import check_choice, check_gaussian, check_positive, check_whole
from lensdeblend.reconstructors.starts import bounds, draw_starts, find_arcs, fit_lens_light

__all__ = ["Lenstronomy"]

log = logging.getLogger(__name__)

_FEWEST_PIXELS = 30
# The walkers begin in a ball of this part of the swarm's first box; they spread to the posterior's width by themselves.
_WALKERS_BALL = 0.1
# Of ln p in the last quarter of its steps: what moves more than this has not settled.
_SETTLED = 0.5
_ARGUMENTS = {LENS: "lens_model", SOURCE: "source_model", LIGHT: "lens_light_model"}


@dataclass(frozen=True)
class Lenstronomy(Reconstructor):
    """Fit a lens by lenstronomy's particle swarm, then sample its posterior by emcee.

    Parameters
    ----------
    source : {"sersic", "shapelets"}
        The light behind the lens.
    n_max : int
        Largest order of the shapelets, (n_max + 1) (n_max + 2) / 2 of them.
    lens_light : {0, 1, 2}
        Sérsic components of the lens galaxy.
    particles : int
        In the swarm.
    iterations : int
        Most steps of the swarm, which stops before where it has contracted to a point.
    mcmc_steps : int
        Steps of each walker of emcee that are kept; 0 for no chain, and so no errors.
    mcmc_burn : int
        Steps before these, thrown away.
    walker_ratio : int
        Walkers a fitted parameter.
    samples : int
        Of the chain, the most that are handed out, evenly spaced along it.
    supersampling : int
        Parts into which each pixel is cut along each axis.
    radius : float or None
        Arcsec within which the lens lies, as in `~lensdeblend.reconstructors.forward.Forward`.
    gamma_prior : (float, float) or None
        Mean and standard deviation of a Gaussian prior on the slope; None for none.
    ellipticity_prior, shear_prior : float or None
        Standard deviation of Gaussian priors about 0 on each of ``e1``, ``e2`` and each of ``gamma1``, ``gamma2``;
        None for none.

    Notes
    -----
    A swarm draws from NumPy's global random state. It is seeded from ``rng`` while the fit runs and put back after, so
    that the result depends on nothing else; two threads of one process would disturb each other.

    Errors are those of the chain about its mean; without a chain they are NaN and there is no covariance. The variance
    is taken as given, also where it was computed from the noisy data themselves.

    References
    ----------
    Birrer & Amara 2018 (2018PDU....22..189B); shapelets: Refregier 2003 (2003MNRAS.338...35R).

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend import reconstruct, simulate
    >>> from lensdeblend.reconstructors.lenstronomy import Lenstronomy
    >>> from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic
    >>> scene = Scene(mass=[EPL(1.2 * u.arcsec)], sources=[Sersic(50, 0.2 * u.arcsec, center_x=0.1 * u.arcsec)])
    >>> observation = Observation(0.1 * u.arcsec, (40, 40), GaussianPSF(0.15 * u.arcsec), background_rms=0.05)
    >>> image = simulate(scene, observation, seed=1).image
    >>> result = reconstruct(image, method=Lenstronomy(particles=20, iterations=20, supersampling=1), seed=1)
    >>> bool(abs(result.parameters["theta_E"][0].value - 1.2) < 0.1)
    True
    """

    source: Literal["sersic", "shapelets"] = "sersic"
    n_max: int = 8
    lens_light: Literal[0, 1, 2] = 0
    particles: int = 100
    iterations: int = 150
    mcmc_steps: int = 0
    mcmc_burn: int = 100
    walker_ratio: int = 4
    samples: int = 1000
    supersampling: int = 2
    radius: float | None = None
    gamma_prior: tuple[float, float] | None = (2.0, 0.3)
    ellipticity_prior: float | None = 0.3
    shear_prior: float | None = 0.15

    def __post_init__(self):
        check_choice("source", self.source, ("sersic", "shapelets"))
        check_choice("lens_light", self.lens_light, (0, 1, 2))
        for name, least in (
            ("n_max", 0), ("particles", 4), ("iterations", 1), ("mcmc_steps", 0), ("mcmc_burn", 0), ("walker_ratio", 2),
            ("samples", 2), ("supersampling", 1),
        ):
            check_whole(name, getattr(self, name), least)
        for name in ("ellipticity_prior", "shear_prior"):
            check_positive(name, getattr(self, name), "a positive standard deviation")
        check_positive("radius", self.radius, "a positive number of arcsec")
        check_gaussian("gamma_prior", self.gamma_prior)

    def reconstruct(self, image: Image, rng: np.random.Generator):
        """Return the `~lensdeblend.results.Reconstruction` of one prepared image.

        Raises
        ------
        ImportError
            For a chain where emcee is not installed.
        ValueError
            For several bands, and for an image with fewer unmasked pixels than a fit needs, or none above 0.
        """
        if isinstance(image, Mapping):
            raise ValueError(
                f"lenstronomy fits one band at a time; got the bands {', '.join(image)}: hand in one of them, "
                f"such as image[{next(iter(image))!r}]"
            )
        if self.mcmc_steps and find_spec("emcee") is None:
            raise ImportError('a Markov chain (mcmc_steps) needs emcee: pip install "lensdeblend[mcmc]"')
        model = LenstronomyModel(self.source, self.n_max, self.lens_light)
        self._check_pixels(image, model)
        with single_thread(), _tolerant():
            region = lens_region(image, self.radius)
            lens = image if region is None else _within(region, image)
            self._check_pixels(lens, model)
            frame = Frame.of(lens)
            unit = float(frame.sigma[frame.used].median())
            frame = frame.single()
            begin, lower, upper = self._starts(frame, model, rng)
            with _seeded(rng), redirect_stdout(io.StringIO()):
                fit = self._fit(frame, unit, model, begin, lower, upper)
            return dressed(image, lens, region, fit, self.supersampling, self.samples, rng)

    def _check_pixels(self, image: NDData, model: LenstronomyModel) -> None:
        good = np.ones(image.data.shape, bool) if image.mask is None else ~image.mask
        fewest = max(_FEWEST_PIXELS, model.count + 1)
        if good.sum() < fewest:
            raise ValueError(
                f"this lens fit needs at least {fewest} unmasked pixels; the image has {good.sum()}"
            )
        if not (image.data[good] > 0).any():
            raise ValueError("a lens fit needs light, but no unmasked pixel is above 0: was too much sky taken off?")

    def _starts(
        self, frame: Frame, model: LenstronomyModel, rng: np.random.Generator
    ) -> tuple[Values, Values, Values]:
        """Where the swarm begins, and how far it may go."""
        arcs_frame, center, light = frame, frame.grid.centre, np.zeros(0)
        if self.lens_light:
            found = fit_lens_light(frame, self.lens_light)
            arcs_frame, center, light = frame.with_data(frame.data - found.image), found.center, found.parameters
        drawn = draw_starts(find_arcs(arcs_frame, center), 1, rng, spread=0.0)[0]
        start = np.concatenate([drawn, light])
        lower, upper = bounds(SersicLens(1, self.lens_light), frame, frame.data.new_tensor(start))
        low, high = lower.double().numpy(), upper.double().numpy()
        return tuple(model.unpack(values) for values in (np.clip(start, low, high), low, high))

    def _fit(
        self, frame: Frame, unit: float, model: LenstronomyModel, begin: Values, lower: Values, upper: Values
    ) -> PeerFit:
        data, sigma, used, kernel, scale, centre = padded(frame)
        widths, fixed = model.widths(begin, frame.grid.scale), model.fixed()
        scene = {
            argument: [part[group] for part in (begin, widths, fixed, lower, upper)]
            for group, argument in _ARGUMENTS.items()
        }
        numerics = band(data, sigma, kernel, scale, centre, self.supersampling)
        likelihood = {
            "check_positive_flux": True, "image_likelihood_mask_list": [used], "prior_lens": self._priors(),
        }
        sequence = FittingSequence(
            {"multi_band_list": [list(numerics)], "multi_band_type": "single-band"}, model.profiles, {}, likelihood,
            scene, verbose=False,
        )
        swarm = {"n_particles": self.particles, "n_iterations": self.iterations, "sigma_scale": 1.0}
        (_, (path, _, _), _), = sequence.fit_sequence([["PSO", swarm]])
        best, likeliest = sequence.best_fit(), sequence.best_fit_likelihood()
        settled = len(path) < self.iterations or (len(path) > 3 and path[-1] - path[-1 - len(path) // 4] < _SETTLED)
        log.debug("particle swarm: ln p %.2f after %d steps", likeliest, len(path))
        chain = None
        if self.mcmc_steps:
            walk = {
                "n_run": self.mcmc_steps, "n_burn": self.mcmc_burn, "walkerRatio": self.walker_ratio,
                "sigma_scale": _WALKERS_BALL, "progress": False,
            }
            (_, points, _, heights), = sequence.fit_sequence([["emcee", walk]])
            if heights.max() > likeliest:
                best, settled = sequence.best_fit(), True
            to_values = sequence.param_class.args2kwargs
            chain = Chain(np.asarray(points).reshape(self.mcmc_steps, -1, points.shape[1]), to_values)
        values = {group: best[group] for group in _ARGUMENTS}
        return PeerFit(model, frame, unit, values, lower, upper, settled, chain)

    def _priors(self) -> list[list]:
        priors = [] if self.gamma_prior is None else [[0, "gamma", *self.gamma_prior]]
        if self.ellipticity_prior is not None:
            priors += [[0, name, 0.0, self.ellipticity_prior] for name in ("e1", "e2")]
        if self.shear_prior is not None:
            priors += [[1, name, 0.0, self.shear_prior] for name in ("gamma1", "gamma2")]
        return priors


def _within(region: LensRegion, image: NDData) -> NDData:
    """The image without its sky, masked outside of the region."""
    return like(image, image.data - region.sky, uncertainty=image.uncertainty, mask=region.mask, meta=image.meta)


@contextmanager
def _seeded(rng: np.random.Generator) -> Iterator[None]:
    """NumPy's global random state, which lenstronomy and emcee draw from, seeded by ``rng`` and put back after."""
    state = np.random.get_state()
    np.random.seed(rng.integers(2**32, dtype=np.uint32))
    try:
        yield
    finally:
        np.random.set_state(state)


@contextmanager
def _tolerant() -> Iterator[None]:
    """Neither the divisions by zero of lenstronomy's profiles nor its use of old NumPy signatures is news."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield
