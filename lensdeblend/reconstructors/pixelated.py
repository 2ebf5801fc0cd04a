r"""Pixelated reconstruction: semi-linear inversion with the lens parameters at the most evidence.

The source is as many numbers as the data can tell apart, on pixels that move and stretch with the lens:

.. math::

    d = \mathrm{PSF} \otimes \Big[L(\lambda)\, s + \sum_j b_j\, L_j\Big] + n, \qquad s \sim N(0, (\mu C)^{-1}),

with the mapping :math:`L` of the pixels through lens parameters :math:`\lambda`, a regularisation :math:`C`, and lens
light :math:`L_j` as Sérsic components. For given lens parameters the most probable source is a linear problem (Warren
& Dye 2003ApJ...590..673W); the strength :math:`\mu` of the regularisation and the lens parameters are those of the
largest Bayesian evidence (Suyu et al. 2006MNRAS.371..983S), found along its gradient in closed form.

The lens begins at a parametric fit, by default that of ``forward`` with one Sérsic source. Where that misleads, lenses
drawn about the arcs are searched through by the evidence of a coarse inversion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from astropy.nddata import NDData
from torch import Tensor

from lensdeblend.interfaces import Image, Reconstructor
from lensdeblend.lensing.banded import BandedLens
from lensdeblend.lensing.inversion import PixelMapping, seeing_matrix, trace_back
from lensdeblend.lensing.parametric import LENS_NAMES, ParametricLens, SersicLens
from lensdeblend.lensing.regularisation import precision_matrix
from lensdeblend.lensing.subdivision import Subdivision
from lensdeblend.lensing.threads import single_thread
from lensdeblend.plugins import create, resolve
from lensdeblend.reconstructors.bands import bounds_of_bands
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.inverting import (
    JointFit, JointProblem, Part, PixelFit, PixelProblem, fit_pixels, with_nonnegative_sources,
)
from lensdeblend.options import (
    check_choice, check_device, check_gaussian, check_number, check_positive, check_whole, chosen_device,
)
from lensdeblend.reconstructors.pixel_dressing import dress_pixels, model_in_frame
from lensdeblend.reconstructors.pixel_search import searched
from lensdeblend.reconstructors.pixel_start import PixelStart, start_from_parameters, start_from_result
from lensdeblend.reconstructors.source_region import adaptive_grid, find_source, regular_grid
from lensdeblend.results import Reconstruction

__all__ = ["Pixelated"]

_FEWEST_PIXELS = 30
_POINTS_A_SIDE = 3
_COARSE_SIDE = 16
# Reduced chi-square of a quick start from which it is not worth to go on.
_HOPELESS = 5.0
# How much curvature is expected where nothing shines, in units of what is where the source is brightest.
_FAINTEST = 0.03


@dataclass(frozen=True)
class Pixelated(Reconstructor):
    """Solve for the source as pixels, and for the lens along, in one image or in several bands at once.

    Parameters
    ----------
    grid : {"regular", "adaptive"}
        Pixels of the source: squares, or Delaunay triangles between traced image pixels, closer where the source is
        bright.
    side : int
        Pixels a side of the regular grid; the adaptive one has about as many vertices as that squared.
    regularisation : {"gradient", "curvature", "adaptive"}
        What the prior keeps small; ``"adaptive"`` is the curvature, of which more is allowed where the source is
        bright.
    strength : float or None
        Of the regularisation, for a source in units of the noise of an image pixel and lengths in units of its rms size
        along each axis; None for that of the largest evidence.
    nonnegative : bool
        Whether no pixel of the source may be negative.
    lens : {"free", "fixed"}
        Whether the lens parameters move from the start.
    start : str, Reconstructor or mapping
        The method that finds the first lens parameters, by name or as an instance, or a mapping of the eight parameters
        themselves, angles in arcsec or as Quantity. For bands, a method that takes bands. After ``"forward"``, the
        default, other lenses are tried where the inversion is flagged; a start that is given stands.
    lens_light : {"auto", 0, 1, 2}
        Sérsic components of the lens galaxy, in each band; ``"auto"`` takes none if the pixels fit without.
    radius : float or None
        As in ``forward``: arcsec from the centre within which the lens lies.
    gamma_prior, ellipticity_prior, shear_prior
        As in ``forward``.
    samples : int
        Number of samples of the parameters from the Laplace approximation; 0 for none.
    device : str
        ``"auto"`` or a torch device, for the dense algebra; ``"auto"`` takes a GPU where there is one.

    Notes
    -----
    Errors are those of the Laplace approximation, the source marginalised. ``source`` carries the variance of its
    pixels, that of the lens parameters included. The number of degrees of freedom that ``chi2`` is divided by counts
    as many source pixels as the data determine.

    Bands ``{band: NDData}`` have one mass, at the most evidence of all of them together. Each has a source and a
    strength of its own, and a shape of the lens light, whose centre is common. They differ as they like in pixels, PSF,
    noise, mask and unit. Their WCS say how they lie to each other; where one has none, their centres are the same
    place. All positions are told from the centre of the first band.

    References
    ----------
    Warren & Dye 2003 (2003ApJ...590..673W); Suyu et al. 2006 (2006MNRAS.371..983S); Vegetti & Koopmans 2009
    (2009MNRAS.392..945V) for grids of traced image pixels.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend import reconstruct, simulate
    >>> from lensdeblend.reconstructors.pixelated import Pixelated
    >>> from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic
    >>> scene = Scene(mass=[EPL(1.2 * u.arcsec, e1=0.1)], sources=[Sersic(50, 0.2 * u.arcsec)])
    >>> observation = Observation(0.1 * u.arcsec, (48, 48), GaussianPSF(0.15 * u.arcsec), background_rms=0.05)
    >>> image = simulate(scene, observation, seed=1).image
    >>> result = reconstruct(image, method=Pixelated(lens_light=0, side=20), seed=1)
    >>> bool(abs(result.parameters["theta_E"][0].value - 1.2) < 4 * result.parameters["theta_E_err"][0].value)
    True
    """

    grid: Literal["regular", "adaptive"] = "regular"
    side: int = 28
    regularisation: Literal["gradient", "curvature", "adaptive"] = "adaptive"
    strength: float | None = None
    nonnegative: bool = False
    lens: Literal["free", "fixed"] = "free"
    start: Any = "forward"
    lens_light: Literal["auto", 0, 1, 2] = "auto"
    radius: float | None = None
    gamma_prior: tuple[float, float] | None = (2.0, 0.3)
    ellipticity_prior: float | None = 0.3
    shear_prior: float | None = 0.15
    samples: int = 1000
    device: str = "auto"

    def __post_init__(self):
        check_choice("grid", self.grid, ("regular", "adaptive"))
        check_choice("regularisation", self.regularisation, ("gradient", "curvature", "adaptive"))
        check_choice("lens", self.lens, ("free", "fixed"))
        check_choice("lens_light", self.lens_light, ("auto", 0, 1, 2))
        check_whole("side", self.side, 8)
        check_whole("samples", self.samples, 0)
        check_positive("strength", self.strength, "a positive number")
        check_positive("radius", self.radius, "a positive number of arcsec")
        for name in ("ellipticity_prior", "shear_prior"):
            check_positive(name, getattr(self, name), "a positive standard deviation")
        check_gaussian("gamma_prior", self.gamma_prior)
        if not isinstance(self.nonnegative, bool):
            raise ValueError(f"nonnegative must be True or False; got {self.nonnegative!r}")
        check_device(self.device)
        _check_start(self.start)

    def reconstruct(self, image: Image, rng: np.random.Generator) -> Reconstruction:
        """Return the `~lensdeblend.results.Reconstruction` of one prepared image, or of ``{band: NDData}``.

        Raises
        ------
        ValueError
            For an image with too few unmasked pixels, and for bands whose WCS do not show the same sky.
        """
        if isinstance(image, Mapping):
            for band, own in image.items():
                _check_pixels(own, f"band {band!r}: ")
        else:
            _check_pixels(image)
        with torch.no_grad(), single_thread():
            best = None
            for start in self._starts(image, rng):
                result = self._invert(start, rng)
                if best is None or result.meta["log_evidence"] > best.meta["log_evidence"]:
                    best = result
                if not any(flag.startswith(("poor fit", "structure in the residual")) for flag in best.flags):
                    break
            return best

    def _starts(self, image: Image, rng: np.random.Generator) -> Iterator[PixelStart]:
        """First a quick one, and where the amount of lens light is open, one without any; at last a search."""
        if isinstance(self.start, Mapping):
            yield start_from_parameters(image, self.start, self.lens_light, self.radius)
            return
        if self.start != "forward":
            method = resolve("reconstructor", self.start).method
            yield start_from_result(image, method.reconstruct(image, rng))
            return
        tries = ((0, 1), ("auto", 3)) if self.lens_light == "auto" else ((self.lens_light, 1),)
        for lights, rounds in tries:
            method = create(
                "reconstructor", "forward", sources=1, lens_light=lights, rounds=rounds, radius=self.radius, samples=0,
                gamma_prior=self.gamma_prior, ellipticity_prior=self.ellipticity_prior, shear_prior=self.shear_prior,
            )
            start = start_from_result(image, method.reconstruct(image, rng))
            if (lights, rounds) != tries[-1] and start.chi2 > _HOPELESS:
                continue
            yield start
        if self.lens == "free":
            coarse = replace(self, side=_COARSE_SIDE, grid="regular", regularisation="curvature")
            yield searched(start, coarse._problem, rng)

    def _invert(self, start: PixelStart, rng: np.random.Generator) -> Reconstruction:
        fit = self._fit(start, [1e-3] * len(start.bands))
        if any(band.view.noise is not None for band in start.bands):
            lit = [
                replace(band, view=band.view.lit(model_in_frame(band.frame, own)))
                for band, own in zip(start.bands, fit.bands)
            ]
            start = replace(start, bands=lit, parameters=fit.parameters)
            fit = self._fit(start, fit.strengths)
        return dress_pixels(start, fit, rng, self.samples)

    def _fit(self, start: PixelStart, around: Sequence[float]) -> JointFit:
        problem = self._problem(start)
        adaptive = self.regularisation == "adaptive"
        effort = {"rounds": 1, "iterations": 4} if adaptive else {}
        fit = fit_pixels(problem, start.parameters, self.strength, around, **effort)
        if adaptive:
            problem = replace(problem, bands=[self._adapted(own) for own in fit.bands])
            fit = fit_pixels(problem, fit.parameters, self.strength, fit.strengths, decades=1.5)
        return with_nonnegative_sources(fit) if self.nonnegative else fit

    def _adapted(self, fit: PixelFit) -> PixelProblem:
        """More curvature is expected where the source is bright."""
        source = fit.source.clamp_min(0)
        freedom = source / source.max().clamp_min(1e-300) + _FAINTEST
        precision, log_determinant = precision_matrix(fit.problem.mapping.grid, "curvature", freedom)
        return replace(
            fit.problem, precision=precision.to(chosen_device(self.device)), precision_log_determinant=log_determinant
        )

    def _problem(self, start: PixelStart, points: int = _POINTS_A_SIDE) -> JointProblem:
        model = start.model
        parts = [Part.of(model, number, band.placement) for number, band in enumerate(start.bands)]
        lower, upper = bounds_of_bands(start.bands, model, start.parameters)
        mean, weight = self._priors(model)
        return JointProblem(
            model,
            [
                self._problem_of(band.frame, light, model.one, part(start.parameters)[:8], points)
                for band, light, part in zip(start.bands, start.lights, parts)
            ],
            parts, lower, upper, mean, weight,
            torch.tensor([self.lens == "free"] * 8 + [True] * (len(start.parameters) - 8)),
        )

    def _problem_of(
        self, frame: Frame, light: np.ndarray, model: SersicLens, lens: Tensor, points: int
    ) -> PixelProblem:
        """That of one band, whose lens light at the start is ``light`` on its whole image."""
        (row, column), (ny, nx) = frame.corner, frame.grid.shape
        light = torch.as_tensor(light[row:row + ny, column:column + nx])
        arcs = find_source(frame, light, lens)
        subdivision = Subdivision.uniform(frame.grid, points, used=frame.reachable)
        if self.grid == "regular":
            grid = regular_grid(arcs, self.side)
        else:
            x, y = (torch.as_tensor(v.reshape(-1)) for v in frame.positions())
            x, y, _ = arcs.frame(*trace_back(x, y, lens), lens)
            grid = adaptive_grid(arcs, self.side, x, y, (frame.smoothed(1.0) - light.numpy()).reshape(-1))
        kind = "gradient" if self.regularisation == "gradient" else "curvature"
        precision, log_determinant = precision_matrix(grid, kind)
        # A source of 1 everywhere would be seen as bright as the noise.
        unit = torch.full((len(grid),), float(frame.sigma[frame.used].median()) / frame.grid.scale**2).double()
        seeing = seeing_matrix(subdivision, frame.kernel, frame.weight)
        return PixelProblem(
            PixelMapping(grid, subdivision, seeing, unit, arcs.frame),
            precision.to(chosen_device(self.device)), log_determinant,
            ParametricLens(
                model, Subdivision.uniform(frame.grid, 4, used=frame.reachable), frame.convolution, frame.weight
            ),
            frame.weighted_data,
        )

    def _priors(self, model: BandedLens) -> tuple[Tensor, Tensor]:
        mean = torch.zeros(len(model.names), dtype=torch.float64)
        weight = torch.zeros_like(mean)
        if self.gamma_prior is not None:
            mean[1], weight[1] = self.gamma_prior[0], self.gamma_prior[1] ** -2
        if self.ellipticity_prior is not None:
            weight[2:4] = self.ellipticity_prior**-2
        if self.shear_prior is not None:
            weight[6:8] = self.shear_prior**-2
        return mean, weight


def _check_pixels(image: NDData, where: str = "") -> None:
    good = image.data.size if image.mask is None else int(np.sum(~image.mask))
    if good < _FEWEST_PIXELS:
        raise ValueError(f"{where}an inversion needs at least {_FEWEST_PIXELS} unmasked pixels; the image has {good}")


def _check_start(start) -> None:
    if isinstance(start, Mapping):
        missing = [name for name in LENS_NAMES if name not in start]
        if missing:
            raise ValueError(f"start must have all lens parameters; it lacks {', '.join(missing)}")
        for name in LENS_NAMES:
            check_number(f"start: {name}", start[name])
    elif not isinstance(start, (str, Reconstructor)):
        raise ValueError(
            "start must be the name or an instance of a reconstructor, or a mapping of lens parameters; "
            f"got {start!r}"
        )
