r"""Deblending under a learned prior: the latent vectors of all galaxies at once, under the exact likelihood.

A network has learned what galaxies look like (`lensdeblend.networks.galaxies`). Each galaxy is its decoder's,

.. math::

    d_b = P_b \otimes \sum_i f_{ib} \, I_b(x; x_i, R_i, e_i, n_i, z_i) + s_b + n_b, \qquad z_i = T_{k_i}(u_i),
    \quad u_i \sim \mathcal{N}(0, 1),

with :math:`T_k` the normalising flow of galaxies of kind :math:`k`, so that the posterior of positions, profiles and
white latent vectors is a non-linear least-squares problem. It is solved by damped steps, the fluxes along; its errors
are those of the Laplace approximation, or of samples by randomise-then-optimise: data and prior are disturbed by their
own noise, and the problem is solved again.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from torch import Tensor

from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.catalog import blendedness, catalogue, flags_of, together
from lensdeblend.deblenders.detection import Detector, detected_above_sky
from lensdeblend.deblenders.dressing import dressed, nothing_found, segmented
from lensdeblend.deblenders.fitting import BlendFit, Priors, covariance_of, fit_blends
from lensdeblend.deblenders.joint import Joint
from lensdeblend.deblenders.latent_blend import PROFILE, LatentBlend, Seen
from lensdeblend.deblenders.latent_samples import Samples, disturbed_solutions
from lensdeblend.interfaces import Deblender, Image
from lensdeblend.lensing.least_squares import Fit, descend
from lensdeblend.lensing.threads import single_thread
from lensdeblend.networks.galaxies import GalaxyAutoencoder
from lensdeblend.networks.galaxy_weights import ONE_BAND, THREE_BANDS, galaxy_weights
from lensdeblend.networks.weights import Card
from lensdeblend.options import check_choice, check_device, check_positive, check_whole, chosen_device
from lensdeblend.reconstructors.network_grid import gaussian_width
from lensdeblend.results import Deblending
from lensdeblend.wavelengths import reddest_first

__all__ = ["Vae"]

_MOST_GALAXIES = 30
_ITERATIONS, _TOLERANCE = 20, 0.1
_FARTHEST_MOVE, _MOST_ELLIPTICAL = 3.0, 0.85
_SMALLEST, _LOWEST_N, _HIGHEST_N, _FARTHEST_LATENT = 0.2, 0.4, 7.0, 6.0
_TYPICAL_N = 1.5
# Of a galaxy that is a point to a Sérsic profile.
_POINT_RADIUS = 0.3
_MARGIN = 0.25


@dataclass(frozen=True)
class Vae(Deblender):
    """Fit galaxies as a trained network knows them.

    Parameters
    ----------
    weights : str
        A name of ``lensdeblend weights``, or the path of a safetensors file. ``"auto"``: ``galaxies-colour`` for three
        bands whose names tell their order in wavelength (``g``, ``r``, ``i``; ``F606W`` ...), else ``galaxies``, with
        which a galaxy looks alike in all bands but for its flux.
    samples : int
        Of the posterior, kept as ``samples``; errors are then theirs. 0 for none.
    new_galaxies : int
        Where neither positions nor a segmentation are given, galaxies are where `~lensdeblend.deblenders.joint.Joint`
        finds them, with at most so many that show only in its residuals.
    threshold : float
        Significance of a star from which a pixel belongs to a galaxy.
    background : {"auto", "none"}
        Whether to take off the level of the empty sky, where it differs from zero by 3 sigma.
    position_prior : float or None
        Standard deviation, in pixels, of the Gaussian prior about the given or detected positions; None for none.
    ellipticity_prior : float or None
        Standard deviation of the prior on ``e1`` and ``e2``.
    radius_prior : tuple of two floats, or None
        Median (arcsec) of half-light radii, and standard deviation of their natural logarithm.
    device : str
        ``"auto"`` (a GPU where there is one) or a torch device.

    Notes
    -----
    Position, ellipticities, radius and index are those of the galaxy's Sérsic profile, which the network departs from.
    Flags of a galaxy: ``at a bound: position`` (or ``radius``, ``ellipticity``, ``index``), ``no flux``, ``at the
    edge``, ``off the image``, ``masked``; of the whole, in ``meta["flags"]``: ``nothing found``, ``not converged``,
    ``poor fit``, and ``out_of_domain`` with the reason. It takes seconds a galaxy.

    References
    ----------
    Arcelin et al. 2021 (2021MNRAS.500..531A) and Biswas et al. 2025 (2025A&A...700A.129B) for deblending by variational
    auto-encoders; Bardsley et al. 2014 (10.1137/140964023) for randomise-then-optimise.

    Examples
    --------
    >>> from lensdeblend.deblenders.vae import Vae
    >>> Vae(samples=100).weights
    'auto'
    """

    weights: str = "auto"
    samples: int = 0
    new_galaxies: int = 3
    threshold: float = 4.0
    background: str = "auto"
    position_prior: float | None = 0.5
    ellipticity_prior: float | None = 0.3
    radius_prior: tuple[float, float] | None = (0.4, 0.8)
    device: str = "auto"

    def __post_init__(self):
        check_choice("background", self.background, ("auto", "none"))
        check_whole("samples", self.samples, 0)
        if self.samples == 1:
            raise ValueError("samples must be 0, or at least 2: one tells no error")
        check_whole("new_galaxies", self.new_galaxies, 0)
        check_device(self.device)
        # Their making refuses what no prior can be.
        self._priors
        if self.threshold is None:
            raise ValueError("threshold must be a positive number; got None")
        check_positive("threshold", self.threshold, "a positive number")

    def deblend(self, image: Image, segmentation, positions, rng: np.random.Generator) -> Deblending:
        """Return one image and one catalogue row a galaxy."""
        blend = Blend.of(image)
        if segmentation is None and positions is None and self.new_galaxies:
            positions = self._found(image, rng)
        detection, levels = detected_above_sky(
            Detector(self.threshold), blend, self.background, segmentation, positions
        )
        count = len(detection.positions)
        if not count:
            return nothing_found(blend, levels, ("x_err", "y_err", "e1_err", "e2_err", "n", "n_err"))
        if count > _MOST_GALAXIES:
            raise ValueError(
                f"{count} galaxies are more than the {_MOST_GALAXIES} that 'vae' fits at once: cut the image up, or "
                "use the method 'joint'"
            )
        device = chosen_device(self.device)
        name, order = self._chosen(blend)
        network, card = galaxy_weights(name, device)
        with torch.no_grad(), single_thread():
            begin, = fit_blends(
                [blend], [detection.positions], [levels], indices=(None,), priors=self._priors, device=device
            )
            problem, lower, upper, start = self._problem(blend, begin, detection.positions, levels, network, order)
            within = _within(count)
            fit = descend(
                problem, start, lower, upper, iterations=_ITERATIONS, tolerance=_TOLERANCE, within=within,
            )
            samples = disturbed_solutions(problem, fit, within, self.samples, rng) if self.samples else None
        bounds = _at_bounds(fit.parameters.reshape(count, -1), lower.reshape(count, -1), upper.reshape(count, -1))
        return self._told(blend, problem, fit, samples, levels, detection, card, bounds)

    @property
    def _priors(self) -> Priors:
        return Priors(self.position_prior, self.ellipticity_prior, self.radius_prior)

    def _found(self, image: Image, rng: np.random.Generator) -> np.ndarray:
        joint = Joint(
            new_galaxies=self.new_galaxies, threshold=self.threshold, structure="none", background=self.background,
            position_prior=self.position_prior, ellipticity_prior=self.ellipticity_prior,
            radius_prior=self.radius_prior, device=self.device,
        )
        with warnings.catch_warnings():
            # It will be told once, of the result.
            warnings.filterwarnings("ignore", "no galaxy was found", AstropyUserWarning)
            catalog = joint.deblend(image, None, None, rng).catalog
        return np.column_stack([catalog["x"], catalog["y"]]).reshape(-1, 2)

    def _chosen(self, blend: Blend) -> tuple[str, tuple[int, ...]]:
        """Weights, and for each band of the blend which of the network's it is."""
        order = reddest_first([band.name for band in blend.bands])
        coloured = len(blend.bands) == 3 and order is not None
        if self.weights == "auto":
            name = THREE_BANDS if coloured else ONE_BAND
        else:
            name = str(self.weights)
        bands = galaxy_weights(name, chosen_device(self.device))[0].bands
        if bands == 1:
            return name, (0,) * len(blend.bands)
        if bands != len(blend.bands) or order is None:
            raise ValueError(
                f"the weights {name!r} are of {bands} bands whose names tell their wavelengths; got "
                f"{', '.join(repr(band.name) for band in blend.bands)}: name them after their filters, or use weights "
                "of one band"
            )
        return name, order

    def _problem(self, blend: Blend, begin: BlendFit, positions, levels, network: GalaxyAutoencoder, order):
        """With bounds and start, (1, P)."""
        count, latent = len(begin), network.latent
        profiles, mean, weight = np.zeros((3, count, len(PROFILE)))
        for g in range(count):
            profiles[g] = _profile(begin, g)
        mean[:, :2], mean[:, 5] = positions, np.log(_TYPICAL_N)
        median, width = self.radius_prior or (blend.scale, None)
        mean[:, 2] = np.log(median / blend.scale)
        weight[:] = [0 if w is None else w**-2 for w in (
            self.position_prior, self.position_prior, width, self.ellipticity_prior, self.ellipticity_prior, 1.0
        )]
        far = np.full((count, latent), _FARTHEST_LATENT)
        reach = np.array([_FARTHEST_MOVE, _FARTHEST_MOVE])
        low = np.concatenate([np.log([_SMALLEST]), [-_MOST_ELLIPTICAL] * 2, np.log([_LOWEST_N])])
        high = np.concatenate([
            np.log([0.5 * max(blend.shape)]), [_MOST_ELLIPTICAL] * 2, np.log([_HIGHEST_N])
        ])
        lower = np.concatenate([positions - reach, np.tile(low, (count, 1)), -far], 1)
        upper = np.concatenate([positions + reach, np.tile(high, (count, 1)), far], 1)

        def tensor(values) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=network.center.device)

        start = tensor(np.concatenate([profiles, np.zeros((count, latent))], 1))
        lower, upper = tensor(lower).reshape(1, -1), tensor(upper).reshape(1, -1)
        start = start.reshape(1, -1).clamp(lower, upper)
        problem = LatentBlend(
            network, _kinds(start.reshape(count, -1), network), order,
            Seen.all_of(blend, levels, str(network.center.device)),
            tensor(np.concatenate([mean, np.zeros((count, latent))], 1)),
            tensor(np.concatenate([weight, np.ones((count, latent))], 1)),
        )
        return problem, lower, upper, start

    def _told(
        self, blend: Blend, problem: LatentBlend, fit: Fit, samples: Samples | None, levels, detection, card: Card,
        bounds: list[list[str]],
    ) -> Deblending:
        count, noise = len(problem), np.array([band.noise for band in blend.bands])
        numbers = fit.parameters[0].reshape(count, -1)
        amplitudes = fit.amplitudes[0].reshape(-1, count)
        images: list[np.ndarray] = [np.zeros(0)] * len(blend.bands)
        with torch.no_grad(), single_thread():
            for group, drawn in zip(problem.seen, problem.images(numbers)):
                for place, number in enumerate(group.numbers):
                    galaxies = drawn[:, place] * amplitudes[number, :, None, None]
                    images[number] = galaxies.cpu().double().numpy() * noise[number]
        profiles = numbers[:, :len(PROFILE)].cpu().double().numpy()
        fluxes = amplitudes.T.cpu().double().numpy() * noise
        errors, flux_errors = self._errors(fit, samples, count, noise)
        radii, indices = np.exp(profiles[:, 2]), np.exp(profiles[:, 5])
        whole = together(blend, images)
        catalog = catalogue(
            blend, profiles[:, :2], fluxes, flux_errors, profiles[:, 3:5], radii, blendedness(whole),
            [[*bounds[g], *flags_of(profiles[g, :2], fluxes[g], blend)] for g in range(count)],
            x_err=errors[:, 0], y_err=errors[:, 1], e1_err=errors[:, 3], e2_err=errors[:, 4], n=indices,
            n_err=indices * errors[:, 5],
        )
        # What the prior decides is no number fitted.
        left = covariance_of(fit).diagonal()[:numbers.numel()] * problem.prior_weight.flatten().cpu().double().numpy()
        used = fluxes.size + float((1 - left).clip(0, 1).sum())
        flags = [] if bool(fit.converged[0]) else ["not converged"]
        found = dressed(
            blend, images, levels, catalog, segmented(whole, detection.significance, self.threshold),
            round(used), [*flags, *_outside(blend, radii, card)], judged=True, weights=card.name,
            weights_sha256=card.sha256,
        )
        return replace(found, samples=None if samples is None else _table(blend, samples, noise))

    def _errors(
        self, fit: Fit, samples: Samples | None, count: int, noise: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of the profiles (n, 6) and of the fluxes (n, bands)."""
        if samples is not None:
            return samples.profiles.std(0, ddof=1), samples.fluxes.std(0, ddof=1) * noise
        errors = np.sqrt(covariance_of(fit).diagonal().clip(0))
        size = fit.parameters.shape[1]
        return errors[:size].reshape(count, -1)[:, :len(PROFILE)], errors[size:].reshape(-1, count).T * noise


def _profile(fit: BlendFit, galaxy: int) -> list[float]:
    """The numbers of `PROFILE` where the network begins."""
    layout = fit.layout
    constants = np.concatenate([fit.parameters, layout.constants])
    x, y, e1, e2 = (fit.value(key, galaxy)[0] for key in ("x", "y", "e1", "e2"))
    if not layout.indices[galaxy]:
        return [x, y, np.log(_POINT_RADIUS), 0.0, 0.0, np.log(_TYPICAL_N)]
    component = layout.galaxy.index(galaxy)
    return [
        x, y, constants[layout.places["log_radius"][component]], e1, e2, constants[layout.places["log_n"][component]]
    ]


def _kinds(start: Tensor, network: GalaxyAutoencoder) -> Tensor:
    """What the flow is told: index and ellipticity of the profiles; usual colours, as zero points are not known."""
    kinds = torch.stack([start[:, 5], start[:, 3], start[:, 4]], 1)
    return torch.cat([kinds, network.center[3:].expand(len(kinds), -1)], 1)


def _at_bounds(numbers: Tensor, lower: Tensor, upper: Tensor) -> list[list[str]]:
    """Flags of each galaxy, (n, 6 + latent)."""
    reach = 0.01 * (upper - lower)
    hit = ((numbers < lower + reach) | (numbers > upper - reach))[:, :len(PROFILE)].cpu()
    hit[:, 3:5] = (numbers[:, 3:5].square().sum(1).sqrt() > 0.99 * _MOST_ELLIPTICAL).cpu()[:, None]
    columns = {"position": (0, 1), "radius": (2,), "ellipticity": (3, 4), "index": (5,)}
    return [
        [f"at a bound: {name}" for name, own in columns.items() if bool(row[list(own)].any())] for row in hit
    ]


def _within(count: int):
    """Brings ellipticities inside of the circle."""

    def rounded(parameters: Tensor) -> Tensor:
        numbers = parameters.clone().unflatten(1, (count, -1))
        shapes = numbers[..., 3:5]
        modulus = shapes.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-9)
        numbers[..., 3:5] = shapes * (_MOST_ELLIPTICAL / modulus).clamp(max=1.0)
        return numbers.flatten(1)

    return rounded


def _table(blend: Blend, samples: Samples, noise: np.ndarray) -> QTable:
    profiles, fluxes = samples.profiles, samples.fluxes
    count, galaxies = profiles.shape[:2]
    flat, table = profiles.reshape(-1, len(PROFILE)), QTable()
    table["sample"], table["id"] = np.repeat(np.arange(count), galaxies), np.tile(np.arange(1, galaxies + 1), count)
    table["x"], table["y"] = flat[:, 0], flat[:, 1]
    for number, band in enumerate(blend.bands):
        unit = band.image.unit or u.dimensionless_unscaled
        name = f"flux_{band.name}" if blend.banded else "flux"
        table[name] = fluxes[..., number].ravel() * noise[number] * unit
    table["e1"], table["e2"] = flat[:, 3], flat[:, 4]
    table["radius"] = np.exp(flat[:, 2]) * blend.scale * u.arcsec
    table["n"] = np.exp(flat[:, 5])
    return table


def _outside(blend: Blend, radii: np.ndarray, card: Card) -> list[str]:
    """Flags that say in what a blend differs from the images of a card's domain."""
    flags = []
    widths = [gaussian_width(band.psf) for band in blend.bands if band.psf is not None]
    for what, values, key in (("PSF FWHM", widths, "psf_fwhm"), ("half-light radius", radii, "radius")):
        low, high = card.domain[key]
        # What is smaller than the galaxies learned from shows less, and is not wrong.
        low = 0.0 if key == "radius" else low * (1 - _MARGIN)
        wrong = [value for value in values if not low <= value <= high * (1 + _MARGIN)]
        if wrong:
            flags.append(
                f"out_of_domain: {what} of {wrong[0]:.2g} pixels, trained on {card.domain[key][0]:.2g} to {high:.2g}"
            )
    return flags
