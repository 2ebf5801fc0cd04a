r"""Parametric reconstruction: a damped least-squares fit of lens and source through the point-spread function.

The model is an elliptical power law with external shear in front of one or two Sérsic sources, and up to two Sérsics
of lens light:

.. math::

    I(\theta) = \mathrm{PSF} \otimes
    \Big[\sum_k a_k\, S_k\big(\theta - \alpha(\theta)\big) + \sum_j b_j\, L_j(\theta)\Big].

The amplitudes :math:`a_k, b_j \ge 0` are solved linearly at every step (variable projection: Golub & Pereyra
2003InvPr..19R...1G); the rest by Levenberg-Marquardt with derivatives in closed form. Many starts, read off the
image, run as one batch; the poor ones are dropped. Where a trained network knows such images, a few starts drawn from
its posterior are tried first. Each pixel is divided as finely as its light needs.

Errors are those of the Laplace approximation: the inverse of the normal matrix at the best fit, priors included;
without priors it is the Cramér-Rao bound of the model there. Where the fit is flagged they should not be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from astropy.nddata import NDData

from lensdeblend.interfaces import Image, Reconstructor
from lensdeblend.lensing.parametric import SersicLens
from lensdeblend.lensing.threads import single_thread
from lensdeblend.options import check_choice, check_gaussian, check_positive, check_whole
from lensdeblend.reconstructors.band_dressing import dress_bands
from lensdeblend.reconstructors.bands import fit_bands, open_bands
from lensdeblend.reconstructors.dressing import dress
from lensdeblend.reconstructors.fitting import LensFit, fit_lens, is_good, light_in_frame, sharpen, with_another
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.posterior_samples import hamiltonian_samples, laplace_samples
from lensdeblend.reconstructors.proposals import proposed_starts
from lensdeblend.reconstructors.starts import LensLight, find_lens_light, given_lens_light
from lensdeblend.reconstructors.view import View
from lensdeblend.results import Deblending, Reconstruction

__all__ = ["Forward"]

_NOISE_PASSES = 2
# Chi-square a pixel above which a model that may be too simple is given up.
_HOPELESS = 1.5


@dataclass(frozen=True)
class Forward(Reconstructor):
    """Fit a power law with shear, Sérsic sources and lens light, to one image or to several bands at once.

    Parameters
    ----------
    sources : {"auto", 1, 2}
        Sérsic components of the source. ``"auto"`` adds the second where one leaves a reduced chi-square more than
        three sigma above 1 and the Bayesian information criterion improves by more than 10.
    lens_light : {"auto", 0, 1, 2}
        Sérsic components of the lens galaxy; ``"auto"`` chooses by the same rule.
    light : `~lensdeblend.results.Deblending` or None
        Of this image, its first source the lens galaxy, as the deblender ``lens`` gives it: the lens light begins as
        Sérsics that look like it, and is fitted further with all the rest; where that source has no light, the lens
        light is as for ``"auto"``. For one image, not for bands.
    start : {"auto", "blind", "posterior"}
        Where the fit begins: from random lenses that the arcs allow (``"blind"``), or from samples of the method
        ``posterior`` (Papamakarios & Murray 2016arXiv160506376P), and from the random ones only where these end in a
        poor fit. ``"auto"`` asks ``posterior`` where its weights are found and were trained on such images.
    draws : int
        Random starts that are ranked.
    starts : int
        Of these, how many are fitted.
    rounds : int
        How often to widen the search while the fit stays poor.
    radius : float or None
        Arcsec from the image centre within which the lens lies. What photutils detects further out is masked as a
        neighbour, so is all beyond 1.5 times this, and the median of the empty sky is taken off (``meta["sky"]``).
        None takes an image that reaches no more than 5.5 arcsec from its centre whole; in a wider one the radius is
        read off the brightest arc.
    gamma_prior : (float, float) or None
        Mean and standard deviation of a Gaussian prior on the slope, by default wider than the slopes of the SLACS
        lenses (2.08 with scatter 0.16: Auger et al. 2010ApJ...724..511A); None for none.
    ellipticity_prior, shear_prior : float or None
        Standard deviation of Gaussian priors about 0 on each of ``e1``, ``e2`` and each of ``gamma1``, ``gamma2``;
        None for none.
    posterior : {"laplace", "hmc"}
        How ``samples`` are drawn: from the Laplace approximation, or by a short Hamiltonian Monte Carlo run from it.
    samples : int
        Number of posterior samples; 0 for none.
    band_shapes : {"shared", "separate"}
        For ``{band: NDData}``: whether source and lens light have the same shape in all bands and differ in flux alone,
        or each band its own: position, radius, index and ellipticity of the source; of the lens light all but its
        centre. The mass is always shared.
    device : str
        ``"auto"`` or ``"cpu"``, which are the same: the fit of one lens is small, and the CPU the faster for it.

    Notes
    -----
    A noise map that was computed from the noisy data themselves (an exact linear function of them, or of their
    positive part) biases chi-square and flux. It is recognised; the variance is then computed anew from the model by
    the same law, is found in the result's ``image``, and ``meta["variance"]`` says so.

    Any image can be fitted with a lens. The flag ``"no lens seen"`` is raised unless the Bayesian information criterion
    prefers the fit by more than 10 both to an empty sky and to as many Sérsic components without a lens: so it is for
    noise, a star, a galaxy. It says that these data ask for no lens, not that there is none; and two galaxies that pass
    for the two images of one source do not raise it.

    Bands differ as they like in pixels, PSF, noise, mask and unit. Their WCS say how they lie to each other; where one
    has none, their centres are the same place. All positions are told from the centre of the first band.

    References
    ----------
    Tessore & Metcalf 2015 (2015A&A...580A..79T) for the deflection; Golub & Pereyra 2003 (2003InvPr..19R...1G).

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend import reconstruct, simulate
    >>> from lensdeblend.reconstructors.forward import Forward
    >>> from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic
    >>> scene = Scene(mass=[EPL(1.2 * u.arcsec, e1=0.1)], sources=[Sersic(50, 0.2 * u.arcsec, center_x=0.1 * u.arcsec)])
    >>> observation = Observation(0.1 * u.arcsec, (48, 48), GaussianPSF(0.15 * u.arcsec), background_rms=0.05)
    >>> image = simulate(scene, observation, seed=1).image
    >>> result = reconstruct(image, method=Forward(lens_light=0), seed=1)
    >>> bool(abs(result.parameters["theta_E"][0].value - 1.2) < 4 * result.parameters["theta_E_err"][0].value)
    True
    """

    sources: Literal["auto", 1, 2] = "auto"
    lens_light: Literal["auto", 0, 1, 2] = "auto"
    light: Deblending | None = None
    start: Literal["auto", "blind", "posterior"] = "auto"
    draws: int = 256
    starts: int = 12
    rounds: int = 3
    radius: float | None = None
    gamma_prior: tuple[float, float] | None = (2.0, 0.3)
    ellipticity_prior: float | None = 0.3
    shear_prior: float | None = 0.15
    posterior: Literal["laplace", "hmc"] = "laplace"
    samples: int = 1000
    band_shapes: Literal["shared", "separate"] = "shared"
    device: str = "auto"

    def __post_init__(self):
        check_choice("sources", self.sources, ("auto", 1, 2))
        check_choice("lens_light", self.lens_light, ("auto", 0, 1, 2))
        if self.light is not None:
            if not (isinstance(self.light, Deblending) and self.light.sources):
                raise ValueError(f"light must be a Deblending with a source, or None; got {type(self.light).__name__}")
            if self.lens_light != "auto":
                raise ValueError(f"light says what lens light there is: leave lens_light={self.lens_light!r} out")
        check_choice("start", self.start, ("auto", "blind", "posterior"))
        check_choice("posterior", self.posterior, ("laplace", "hmc"))
        check_choice("band_shapes", self.band_shapes, ("shared", "separate"))
        for name, least in (("draws", 1), ("starts", 1), ("rounds", 1), ("samples", 0)):
            check_whole(name, getattr(self, name), least)
        for name in ("ellipticity_prior", "shear_prior"):
            check_positive(name, getattr(self, name), "a positive standard deviation")
        check_positive("radius", self.radius, "a positive number of arcsec")
        check_gaussian("gamma_prior", self.gamma_prior)
        if not isinstance(self.device, str) or self.device not in ("auto", "cpu"):
            raise ValueError(f"forward runs on the CPU: device must be 'auto' or 'cpu'; got {self.device!r}")

    def reconstruct(self, image: Image, rng: np.random.Generator) -> Reconstruction:
        """Return the `~lensdeblend.results.Reconstruction` of one prepared image, or of ``{band: NDData}``.

        Raises
        ------
        ValueError
            For an image with fewer unmasked pixels than a fit needs, or none above 0, and for bands whose WCS do not
            show the same sky.
        """
        if self.light is not None:
            self._check_light(image)
        if isinstance(image, Mapping):
            return self._reconstruct_bands(image, rng)
        with torch.no_grad(), single_thread():
            view = View.of(image, self.radius)
            fit = self._best(view.frame, rng)
            if view.noise is not None:
                for _ in range(_NOISE_PASSES):
                    view = view.lit(light_in_frame(fit))
                    fit = sharpen(view.frame, fit.model, fit.parameters[None], self._priors)
            return dress(view, fit, self._samples(fit, view.frame.weighted_data, rng))

    def _check_light(self, image: Image) -> None:
        if isinstance(image, Mapping) or isinstance(self.light.model, Mapping):
            raise ValueError("light is for one image: leave it out for bands")
        shape = self.light.sources[0].data.shape
        if shape != image.data.shape:
            raise ValueError(f"light is of an image of {shape} pixels, this one has {image.data.shape}")

    def _reconstruct_bands(self, images: Mapping[str, NDData], rng: np.random.Generator) -> Reconstruction:
        def larger(parameters, model):
            return [(richer, with_another(parameters, model, richer)) for richer in self._richer(model)]

        with torch.no_grad(), single_thread():
            fit, bands = fit_bands(
                open_bands(images, self.radius), lambda frame: self._best(frame, rng), larger, self._priors,
                separate=self.band_shapes == "separate",
            )
            data = torch.cat([band.frame.weighted_data for band in bands])
            return dress_bands(bands, fit, self._samples(fit, data, rng))

    def _samples(self, fit: LensFit, data: torch.Tensor, rng: np.random.Generator) -> np.ndarray | None:
        if not self.samples:
            return None
        draw = laplace_samples if self.posterior == "laplace" else hamiltonian_samples
        return draw(fit, data, self.samples, rng, self._priors(fit.model))

    def _best(self, frame: Frame, rng: np.random.Generator) -> LensFit:
        """Fit, and add components while the data ask for them."""
        sources = 1 if self.sources == "auto" else self.sources
        if self.light is not None and np.any(self.light.sources[0].data):
            light = given_lens_light(frame, np.asarray(self.light.sources[0].data, dtype=float))
            best = self._fit(frame, SersicLens(sources, light.components), rng, light)
        elif self.lens_light == "auto":
            best = self._fewest_lights(frame, sources, rng)
        else:
            best = self._fit(frame, SersicLens(sources, self.lens_light), rng)
        while not is_good(best):
            fits = [self._extend(frame, best, model, rng) for model in self._richer(best.model)]
            better = min(fits, key=lambda f: f.bayesian_information, default=None)
            if better is None or better.bayesian_information > best.bayesian_information - 10:
                break
            best = better
        return best

    def _richer(self, model: SersicLens) -> list[SersicLens]:
        """The models with one component more, of those that the data may choose."""
        richer = []
        if self.lens_light == "auto" and model.lens_lights < 2:
            richer.append(SersicLens(model.sources, model.lens_lights + 1))
        if self.sources == "auto" and model.sources < 2:
            richer.append(SersicLens(model.sources + 1, model.lens_lights))
        return richer

    def _fewest_lights(self, frame: Frame, sources: int, rng: np.random.Generator) -> LensFit:
        """Fit with no lens light, then with as much as shows, and take the first that is good.

        An image of the source near the centre looks like a galaxy, and a galaxy put there fits as well as the right
        lens: so the data are asked first whether they need one.
        """
        *fewer, last = [None, *find_lens_light(frame.single())]
        proposer = self._proposer(rng)
        for light in fewer:
            fit = self._tried(frame, sources, light, proposer, rng)
            if fit is not None:
                return fit
        best = self._fit(frame, SersicLens(sources, last.components if last else 0), rng, last)
        if proposer is None or is_good(best):
            return best
        # What was proposed may have missed the simpler lens.
        again = (self._tried(frame, sources, light, None, rng) for light in fewer)
        return next((fit for fit in again if fit is not None), best)

    def _tried(
        self, frame: Frame, sources: int, light: LensLight | None, proposer, rng: np.random.Generator
    ) -> LensFit | None:
        """A fit with ``light`` or none, if that is good."""
        model = SersicLens(1, light.components if light else 0)
        fit = fit_lens(
            frame, model, rng, draws=self.draws, starts=self.starts, rounds=1, priors=self._priors, light=light,
            hopeless=_HOPELESS, propose=proposer,
        )
        if fit is not None and not is_good(fit) and sources > 1:
            fit = self._extend(frame, fit, SersicLens(sources, model.lens_lights), rng)
        return fit if fit is not None and is_good(fit) else None

    def _fit(
        self, frame: Frame, model: SersicLens, rng: np.random.Generator, light: LensLight | None = None
    ) -> LensFit:
        single = SersicLens(1, model.lens_lights)
        fit = fit_lens(
            frame, single, rng, draws=self.draws, starts=self.starts, rounds=self.rounds, priors=self._priors,
            light=light, propose=self._proposer(rng),
        )
        return fit if model.sources == 1 else self._extend(frame, fit, model, rng)

    def _proposer(self, rng: np.random.Generator) -> Callable[[Frame], np.ndarray | None] | None:
        if self.start == "blind":
            return None
        return partial(proposed_starts, rng=rng, anywhere=self.start == "posterior")

    def _extend(self, frame: Frame, fit: LensFit, model: SersicLens, rng: np.random.Generator) -> LensFit:
        """Add the component in which ``model`` exceeds ``fit``, started from what ``fit`` found."""
        if model.lens_lights and not fit.model.lens_lights:
            return self._fit(frame, model, rng)
        begins = with_another(fit.parameters, fit.model, model)
        fits = [sharpen(frame, model, begin[None], self._priors, passes=2) for begin in begins]
        return min(fits, key=lambda f: f.chi2)

    def _priors(self, model: SersicLens):
        mean = torch.zeros(len(model.names), dtype=torch.float64)
        weight = torch.zeros_like(mean)
        if self.gamma_prior is not None:
            mean[1], weight[1] = self.gamma_prior[0], self.gamma_prior[1] ** -2
        if self.ellipticity_prior is not None:
            weight[2:4] = self.ellipticity_prior**-2
        if self.shear_prior is not None:
            weight[6:8] = self.shear_prior**-2
        return mean, weight
