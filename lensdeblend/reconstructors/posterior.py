r"""The posterior of the lens as a trained network gives it, held against the data by a fit that starts from it.

A flow on a convolutional embedding (`lensdeblend.networks.posterior`) turns the image :math:`x` into samples of
:math:`p(\theta | x)`, the eight lens parameters and the source's position and half-light radius; no likelihood is
computed for them. Networks propose, physics decides: the best of the samples start a fit of the parametric model, which
gives source, model, residual and chi-square. Where asked for, the samples are weighted by the model's likelihood
(`lensdeblend.reconstructors.reweighting`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData
from astropy.table import QTable

from lensdeblend.interfaces import Image, Reconstructor
from lensdeblend.lensing.parametric import SersicLens
from lensdeblend.lensing.threads import single_thread
from lensdeblend.networks.posterior import NAMES
from lensdeblend.networks.weights import has_weights
from lensdeblend.reconstructors.dressing import dress
from lensdeblend.reconstructors.fitting import LensFit, fit_lens, light_in_frame, sharpen
from lensdeblend.reconstructors.network_posterior import NetworkPosterior, as_starts
from lensdeblend.options import check_device, check_whole, chosen_device
from lensdeblend.reconstructors.population_prior import PopulationPrior
from lensdeblend.reconstructors.reweighting import reweight
from lensdeblend.reconstructors.view import View
from lensdeblend.results import Reconstruction

__all__ = ["Posterior", "Proposal"]

_ANGLES = {"theta_E", "center_x", "center_y", "source_x", "source_y", "source_radius"}
_RANKED = 128
_FEW = 0.05


@dataclass(frozen=True)
class Proposal:
    """Samples (n, 11), the columns of `lensdeblend.networks.posterior.NAMES`, angles in arcsec from the image's centre;
    and flags that say in what the image differs from those that were learned from."""

    values: np.ndarray
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Posterior(Reconstructor):
    """Sample the posterior of lens and source by a trained network.

    Parameters
    ----------
    weights : str
        A name of ``lensdeblend weights``, or the path of a safetensors file.
    samples : int
        How many.
    reweight : bool
        Weigh the samples by the likelihood of the parametric model under the population's priors. Half of them are
        then drawn about the best fit; the source's amplitude is integrated out in closed form, its Sérsic index and
        ellipticity are sampled along. ``meta["effective_samples"]`` says how many samples of equal weight they are
        worth, ``meta["effective_samples_network"]`` how many the network's own samples alone would be, and a flag
        tells where the former are few.
    symmetrise : bool
        Draw from all eight orientations of the image alike. What they do not agree on is then added to what each says
        of itself, and intervals hold the truth too often.
    device : str
        ``"auto"`` (a GPU where there is one) or a torch device; the fit always runs on the CPU.

    Notes
    -----
    ``parameters`` are mean and standard deviation of the samples; the images, chi-square and "poor fit" are those of
    one Sérsic source fitted from the best samples, so that a galaxy with arms and knots is flagged though its lens may
    be right. Lens light is not modelled: take it off first.

    References
    ----------
    Papamakarios & Murray 2016 (2016arXiv160506376P); Durkan et al. 2019 (2019arXiv190604032D).

    Examples
    --------
    >>> from lensdeblend.reconstructors.posterior import Posterior
    >>> Posterior(samples=200).weights
    'posterior'
    """

    weights: str = "posterior"
    samples: int = 1000
    reweight: bool = False
    symmetrise: bool = False
    device: str = "auto"

    def __post_init__(self):
        check_whole("samples", self.samples, 2)
        check_device(self.device)
        for name in ("reweight", "symmetrise"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False; got {getattr(self, name)!r}")

    @property
    def ready(self) -> bool:
        """Whether the weights are there."""
        return has_weights(self.weights)

    def propose(self, image: NDData, count: int, rng: np.random.Generator) -> Proposal:
        """Return samples of one prepared image, without a model: what a fit may start from."""
        with torch.no_grad(), single_thread():
            read = self._read(image)
            return Proposal(read.sample(count, rng), read.flags)

    def reconstruct(self, image: Image, rng: np.random.Generator) -> Reconstruction:
        """Return the `~lensdeblend.results.Reconstruction` of one prepared image.

        Raises
        ------
        ValueError
            For several bands, an image with too few unmasked pixels, or weights that are not there.
        """
        if isinstance(image, Mapping):
            raise ValueError(
                f"posterior reads one band at a time; got the bands {', '.join(image)}: hand in one of them, "
                f"such as image[{next(iter(image))!r}]"
            )
        with torch.no_grad(), single_thread():
            view = View.of(image)
            read = self._read(view.image)
            prior = PopulationPrior.of(read.card)
            values = read.sample(self.samples, rng)
            fit = self._fit(view, values, prior, rng)
            if view.noise is not None:
                view = view.lit(light_in_frame(fit))
                fit = sharpen(view.frame, fit.model, fit.parameters[None], prior.gaussian)
            result = dress(view, fit, None)
            mean, spread, flags = values.mean(0), np.cov(values.T), read.flags
            notes = {"weights": read.card.name, "weights_sha256": read.card.sha256}
            if self.reweight:
                found, alone = reweight(read, fit, view.frame.weighted_data, prior, self.samples, rng)
                notes |= {"effective_samples": found.effective, "effective_samples_network": alone}
                if found.effective < _FEW * self.samples:
                    flags += (f"few effective samples: {found.effective:.3g} of {self.samples}",)
                if found.effective > 0:
                    mean, spread, values = found.mean, found.covariance, found.resampled(self.samples, rng)
        return replace(
            result, parameters=_parameters(mean, spread), covariance=spread, samples=_samples(values),
            flags=(*flags, *result.flags), meta={**result.meta, **notes},
        )

    def _read(self, image: NDData) -> NetworkPosterior:
        device = chosen_device(self.device)
        return NetworkPosterior.of(image, str(self.weights), device=device, symmetrise=self.symmetrise)

    def _fit(self, view: View, values: np.ndarray, prior: PopulationPrior, rng: np.random.Generator) -> LensFit:
        starts = as_starts(values[:_RANKED], rng)
        return fit_lens(
            view.frame, SersicLens(1, 0), rng, rounds=0, priors=prior.gaussian, propose=lambda frame: starts,
        )


def _parameters(mean: np.ndarray, spread: np.ndarray) -> QTable:
    table = QTable()
    for name, value, error in zip(NAMES, mean, np.sqrt(np.diag(spread))):
        table[name], table[f"{name}_err"] = np.array([value]) * _unit(name), np.array([error]) * _unit(name)
    return table


def _samples(values: np.ndarray) -> QTable:
    return QTable({name: column * _unit(name) for name, column in zip(NAMES, values.T)})


def _unit(name: str):
    return u.arcsec if name in _ANGLES else 1
