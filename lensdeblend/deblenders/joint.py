r"""Joint deblending: all galaxies of a blend, in all bands, fitted at once through the PSF.

.. math::

    d_b = P_b \otimes \sum_i \big( f_{ib} \, D_i + g_{ib} \, B_i \big) + s_b + n_b,

with a disc :math:`D_i` and a bulge :math:`B_i` a galaxy, Sérsics of one centre and one shape. Shapes are common to the
bands, fluxes are not; fluxes are solved for at every step of a damped least-squares descent, none of them negative.
Galaxies that are unresolved become points, and where a further galaxy would help one is added
(`lensdeblend.deblenders.further`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import chi2

from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.catalog import blendedness, catalogue, flags_of, half_light_radius, together
from lensdeblend.deblenders.detection import Detection, Detector, detected_above_sky
from lensdeblend.deblenders.dressing import POOR_FIT, dressed, nothing_found, segmented
from lensdeblend.deblenders.falling import falling
from lensdeblend.deblenders.fitting import BlendFit, Priors, fit_blends
from lensdeblend.deblenders.further import further_places
from lensdeblend.deblenders.model_error import with_model_error
from lensdeblend.deblenders.structure import Structure, structured
from lensdeblend.deblenders.worth import worth
from lensdeblend.interfaces import Deblender, Image
from lensdeblend.lensing.threads import single_thread
from lensdeblend.options import check_choice, check_device, check_number, check_positive, check_whole, chosen_device
from lensdeblend.results import Deblending

__all__ = ["Joint"]

log = logging.getLogger(__name__)

_INDICES: dict[str, tuple[float | None, ...]] = {
    "bulge+disc": (1.0, 4.0), "disc": (1.0,), "sersic": (None,),
}
_CLOSEST = 1.0
# How many galaxies of noise a blend may get, that are added to it.
_FALSE_DETECTIONS = 1e-2


@dataclass(frozen=True)
class Joint(Deblender):
    """Fit all galaxies of a blend at once.

    Parameters
    ----------
    components : {"bulge+disc", "disc", "sersic"}
        What a galaxy is made of: Sérsics of index 1 and 4, of index 1, or one of free index.
    select : bool
        Whether to drop the bulge or the disc of a galaxy that does without, by Akaike's information criterion. Errors
        are then those of the simpler galaxies, and too small where one was dropped that is there.
    new_galaxies : int
        How many further galaxies may be added, where neither positions nor a segmentation are given: each where a star
        would lower chi-square most with all numbers of the galaxies free to give way (Rao's score test), and kept where
        noise does not do as much in one of a hundred blends, a fifth of the model counted as noise.
    new_significance : float
        What the fluxes of a further galaxy must be over their errors, all bands together.
    strict : bool
        Whether the departures of the other galaxies from their profiles count as noise, too, where a further galaxy is
        judged: fewer knots pass for galaxies, and fewer neighbours that were swallowed are found.
    threshold : float
        Significance of a star from which a pixel belongs to a galaxy, and that a further galaxy needs.
    structure : {"auto", "falling", "none"}
        Whether galaxies may depart from their profiles (arms, bars, knots), smoothly and as strongly and as lopsidedly
        as the data say, where one departs by more than 3 sigma (`lensdeblend.deblenders.structure`); no pixel becomes
        negative. ``"falling"``: and none brighter than its neighbours nearer to the centre.
    model_error : float
        What galaxies depart from their profiles by, as a fraction of their light: noise in the fit
        (`lensdeblend.deblenders.model_error`), not in chi-square, in the search for further galaxies, and where
        departures are drawn.
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
    Errors are those of the Laplace approximation, all other galaxies' numbers marginalised; those of fluxes also what
    remains unknown of the structure. Position, ellipticities and radius are those of the profiles; the column
    ``structure`` is the root mean square of a galaxy's departure from them, as a fraction. A galaxy whose light is all
    unresolved is a point if the data do as well with that: its radius and ellipticities are 0, these with errors of
    NaN. Flags of a galaxy: ``at a bound: ellipticity`` (or ``position``, ``radius``; ``structure``: it is hardly as its
    profiles are), ``no flux``, ``at the edge``, ``off the image``, ``masked``; of the whole, in ``meta["flags"]``:
    ``nothing found``, ``not converged``, ``poor fit`` (chi-square more than three standard deviations above 1, or a
    galaxy that is hardly as its profiles are, such as a saturated star).

    References
    ----------
    Melchior et al. 2018 (2018A&C....24..129M) for sources with one shape in all bands; Golub & Pereyra 2003
    (2003InvPr..19R...1G) for fluxes that are solved along; Akaike 1974 (1974ITAC...19..716A) for what a component must
    be worth; Rao 1948 (10.1017/S0305004100023987) for the score test.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend import deblend, simulate
    >>> from lensdeblend.scenes import GaussianPSF, Observation, Scene, Sersic
    >>> galaxies = [Sersic(90, 0.5 * u.arcsec, 1.0), Sersic(60, 0.4 * u.arcsec, 1.0, center_x=1.2 * u.arcsec)]
    >>> observation = Observation(0.2 * u.arcsec, (40, 40), GaussianPSF(0.7 * u.arcsec), background_rms=0.05)
    >>> image = simulate(Scene(sources=galaxies), observation, method="galsim", seed=1).image
    >>> found = deblend(image, positions=[(19.5, 19.5), (25.5, 19.5)], seed=1)
    >>> [round(float(flux.value) / 10) for flux in found.catalog["flux"]]
    [9, 6]
    """

    components: str = "bulge+disc"
    select: bool = False
    new_galaxies: int = 3
    new_significance: float = 5.0
    strict: bool = False
    threshold: float = 4.0
    structure: str = "auto"
    model_error: float = 0.05
    background: str = "auto"
    position_prior: float | None = 0.5
    ellipticity_prior: float | None = 0.3
    radius_prior: tuple[float, float] | None = (0.4, 0.8)
    device: str = "auto"

    def __post_init__(self):
        check_choice("components", self.components, tuple(_INDICES))
        check_choice("structure", self.structure, ("auto", "falling", "none"))
        check_choice("background", self.background, ("auto", "none"))
        check_whole("new_galaxies", self.new_galaxies, 0)
        check_number("new_significance", self.new_significance)
        check_number("model_error", self.model_error)
        if not 0 <= self.model_error < 1:
            raise ValueError(f"model_error must be a fraction from 0 to below 1; got {self.model_error!r}")
        check_device(self.device)
        # Their making refuses what no prior can be.
        self._priors
        if self.threshold is None:
            raise ValueError("threshold must be a positive number; got None")
        check_positive("threshold", self.threshold, "a positive number")
        for name in ("select", "strict"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False; got {getattr(self, name)!r}")

    def deblend(self, image: Image, segmentation, positions, rng: np.random.Generator) -> Deblending:
        """Return one image and one catalogue row a galaxy; nothing is random."""
        return self.deblend_batch([image], [segmentation], [positions], rng)[0]

    def deblend_batch(
        self, images: Sequence[Image], segmentations, positions, rng: np.random.Generator
    ) -> list[Deblending]:
        """Return one `Deblending` an image; blends of one kind are fitted together."""
        segmentations, positions = segmentations or [None] * len(images), positions or [None] * len(images)
        detector = Detector(threshold=self.threshold)
        blends = [Blend.of(image) for image in images]
        found = [
            detected_above_sky(detector, blend, self.background, segmentation, where)
            for blend, segmentation, where in zip(blends, segmentations, positions)
        ]
        shown = [k for k, (detection, _) in enumerate(found) if len(detection.positions)]
        levels = [levels for _, levels in found]
        places = {k: found[k][0].positions for k in shown}
        with torch.no_grad(), single_thread():
            fits = self._searched(blends, levels, places, [
                k for k in shown if self.new_galaxies and positions[k] is None and segmentations[k] is None
            ])
            left = shown if self.model_error else [k for k in shown if k not in fits]
            fits |= zip(left, self._fit(
                [with_model_error(blends[k], levels[k], self.model_error) for k in left], [places[k] for k in left],
                [levels[k] for k in left],
            ))
        return [
            self._dressed(blend, fits[k], levels[k], found[k][0]) if k in fits
            else nothing_found(blend, levels[k], ("x_err", "y_err", "e1_err", "e2_err", "structure"))
            for k, blend in enumerate(blends)
        ]

    @property
    def _priors(self) -> Priors:
        return Priors(self.position_prior, self.ellipticity_prior, self.radius_prior)

    def _fit(self, blends: Sequence[Blend], positions: Sequence[np.ndarray], levels) -> list[BlendFit]:
        return fit_blends(
            blends, positions, levels, indices=_INDICES[self.components], priors=self._priors, select=self.select,
            device=chosen_device(self.device),
        )

    def _searched(self, blends, levels, places: dict[int, np.ndarray], searched: Sequence[int]) -> dict[int, BlendFit]:
        """Add to ``places`` further galaxies of the blends ``searched``; fits by the noise alone, by which two close
        galaxies are told from one."""
        fits = dict(zip(searched, self._fit(
            [blends[k] for k in searched], [places[k] for k in searched], [levels[k] for k in searched]
        )))
        for _ in range(self.new_galaxies):
            searched = self._completed(blends, fits, levels, places, searched)
        return fits

    def _completed(
        self, blends, fits: dict[int, BlendFit], levels, places: dict[int, np.ndarray], searched: Sequence[int]
    ) -> list[int]:
        """Add to ``fits`` and ``places`` the galaxy that would help most, where it is worth its numbers; which these
        were."""
        wider = {}
        for k in searched:
            more = self._another(fits[k])
            if more is not None:
                wider[k] = more
        new = self._fit([blends[k] for k in wider], list(wider.values()), [levels[k] for k in wider])
        better = []
        for k, fit in zip(wider, new):
            numbers = len(fit.parameters) + fit.fluxes.size - len(fits[k].parameters) - fits[k].fluxes.size
            fall = worth(fits[k], fit, levels[k], chosen_device(self.device), structured=self.strict)
            flux, error = fit.flux(len(fit) - 1)
            significance = np.linalg.norm(np.divide(flux, error, out=np.zeros_like(flux), where=error > 0))
            log.debug("a galaxy at %s is worth %.1f in chi-square", wider[k][-1], fall)
            least = chi2.isf(_FALSE_DETECTIONS / fit.images[0][0].size, max(numbers, 1))
            if fall >= least and significance >= self.new_significance:
                fits[k], places[k] = fit, wider[k]
                better.append(k)
        return better

    def _another(self, fit: BlendFit) -> np.ndarray | None:
        """The places of the galaxies and, last, where another would help most; None where it would not."""
        places = np.array([[fit.value("x", g)[0], fit.value("y", g)[0]] for g in range(len(fit))])
        found = further_places(fit, self.threshold)
        apart = np.hypot(*(found[:, None] - places).transpose(2, 0, 1)).min(1) if len(found) else np.zeros(0)
        found = found[apart > _CLOSEST]
        return np.concatenate([places, found[:1]]) if len(found) else None

    def _dressed(self, blend: Blend, fit: BlendFit, levels: Sequence[float], detection: Detection) -> Deblending:
        names = ("x", "y", "e1", "e2")
        told = {name: np.array([fit.value(name, g) for g in range(len(fit))]) for name in names}
        fluxes, errors = (np.array(part) for part in zip(*(fit.flux(g) for g in range(len(fit)))))
        radii = np.array([_radius(fit, g) for g in range(len(fit))])
        positions = np.stack([told["x"][:, 0], told["y"][:, 0]], 1)
        found = self._structure(blend, fit.images, positions, levels)
        fluxes += np.array([(new - old).sum((1, 2)) for new, old in zip(found.images, fit.images)]).T
        errors = np.hypot(errors, found.flux_errors)
        bounds = [
            [*own, "at a bound: structure"] if most else own for own, most in zip(fit.at_bounds, found.at_bound)
        ]
        whole = together(blend, found.images)
        catalog = catalogue(
            blend, positions, fluxes, errors, np.stack([told["e1"][:, 0], told["e2"][:, 0]], 1), radii,
            blendedness(whole),
            [[*bounds[g], *flags_of(positions[g], fluxes[g], blend)] for g in range(len(fit))],
            **{f"{name}_err": told[name][:, 1] for name in names}, structure=found.strength,
        )
        count = len(fit.parameters) + fit.fluxes.size + round(found.numbers)
        flags = [] if fit.converged else ["not converged"]
        if any(found.at_bound):
            flags.append(POOR_FIT)
        return dressed(
            blend, found.images, levels, catalog, segmented(whole, detection.significance, self.threshold), count,
            flags, judged=True,
        )

    def _structure(self, blend: Blend, images, positions: np.ndarray, levels: Sequence[float]) -> Structure:
        if self.structure == "none":
            return Structure.none(images)
        with torch.no_grad(), single_thread():
            found = structured(blend, images, positions, levels, device=chosen_device(self.device))
        if self.structure == "auto":
            return found
        places = (positions @ band.matrix.T + band.offset for band in blend.bands)
        return replace(found, images=[falling(one, place) for one, place in zip(found.images, places)])


def _radius(fit: BlendFit, galaxy: int) -> float:
    layout = fit.layout
    components = []
    for c, g in enumerate(layout.galaxy):
        column = layout.places["log_radius"][c]
        if g != galaxy or column >= len(fit.parameters):
            continue
        constants = np.concatenate([fit.parameters, layout.constants])
        components.append((
            float(fit.fluxes[:, c].sum()), float(np.exp(constants[column])),
            float(np.exp(constants[layout.places["log_n"][c]])),
        ))
    return half_light_radius(components) if components else 0.0
