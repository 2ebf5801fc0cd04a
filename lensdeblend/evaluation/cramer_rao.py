r"""The Cramér-Rao bound: the smallest errors that any unbiased estimate can have on an image.

For Gaussian noise of known variance the Fisher matrix is :math:`F = J^T C^{-1} J` with the Jacobian :math:`J` of the
noise-free image by all parameters, fluxes included, at the truth; the bound on the covariance is :math:`F^{-1}` (Rao
1945, Cramér 1946; for images e.g. 2013PASP..125..580M).
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable

from lensdeblend.images import prepare
from lensdeblend.lensing.parametric import LENS_NAMES, ParametricLens, SersicLens
from lensdeblend.lensing.subdivision import refine
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.results import Simulation
from lensdeblend.scenes import EPL, SIE, Scene, Sersic, Shear

__all__ = ["cramer_rao_bound", "parameter_vector"]

_CELL_TOLERANCE = 1e-3


def cramer_rao_bound(simulation: Simulation) -> QTable:
    """Cramér-Rao bound of the lens parameters for one simulated image.

    Parameters
    ----------
    simulation : `~lensdeblend.results.Simulation`
        Of one `~lensdeblend.scenes.EPL` or `~lensdeblend.scenes.SIE`, at most one `~lensdeblend.scenes.Shear`, Sérsic
        sources and Sérsic lens light, with noise.

    Returns
    -------
    `~astropy.table.QTable`
        One row: the smallest standard deviation of ``theta_E``, ``gamma``, ``e1``, ``e2``, ``center_x``,
        ``center_y``, ``gamma1``, ``gamma2`` when everything else about lens, source and lens light is unknown too.

    Raises
    ------
    ValueError
        For a scene of other components, for an image without noise, and for one that does not constrain some parameter.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend import simulate
    >>> from lensdeblend.evaluation.cramer_rao import cramer_rao_bound
    >>> from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic
    >>> scene = Scene([EPL(1 * u.arcsec, e1=0.1)], sources=[Sersic(50, 0.2 * u.arcsec, center_x=0.1 * u.arcsec)])
    >>> noisy, noisier = (
    ...     Observation(0.1 * u.arcsec, (40, 40), GaussianPSF(0.15 * u.arcsec), background_rms=rms)
    ...     for rms in (0.1, 0.2)
    ... )
    >>> low, high = (cramer_rao_bound(simulate(scene, o, seed=1))["theta_E"][0] for o in (noisy, noisier))
    >>> round(float(high / low), 3)
    2.0
    """
    if simulation.image.uncertainty is None:
        raise ValueError("the Cramér-Rao bound needs an image with noise")
    model, parameters, fluxes = parameter_vector(simulation.scene, simulation)
    frame = Frame.of(prepare(simulation.image))

    def brightness(x, y):
        return (fluxes[:, None] * model.brightness(parameters[None], x, y)[0]).sum(0) * frame.grid.scale**2

    with torch.no_grad():
        tolerance = torch.full((frame.grid.size,), _CELL_TOLERANCE * float(frame.sigma.min()), dtype=torch.float64)
        cells = refine(frame.grid, brightness, tolerance)
        lens = ParametricLens(model, cells, frame.convolution, frame.weight)
        linear = lens.linearise(parameters[None])
        slopes = linear.combined_slopes(fluxes[None], len(parameters))[0]
        jacobian = torch.cat([slopes, linear.basis[0] * fluxes[:, None]]).numpy()
    scale = np.sqrt((jacobian**2).sum(1))
    if not (scale > 0).all():
        raise ValueError("some parameter of the scene does not show in the image at all")
    scaled = jacobian / scale[:, None]
    fisher = scaled @ scaled.T
    if np.linalg.matrix_rank(fisher, hermitian=True) < len(fisher):
        raise ValueError("some parameters of the scene cannot be told apart in the image: is there a component twice?")
    deviation = np.sqrt(np.diag(np.linalg.inv(fisher))) / scale
    units = {"theta_E": u.arcsec, "center_x": u.arcsec, "center_y": u.arcsec}
    return QTable({name: deviation[i:i + 1] * units.get(name, 1) for i, name in enumerate(LENS_NAMES)})


def parameter_vector(scene: Scene, simulation: Simulation) -> tuple[SersicLens, torch.Tensor, torch.Tensor]:
    """A scene as the forward model's parameters and fluxes."""
    sources = [component for galaxy in scene.galaxies for component in galaxy.components]
    main = [m for m in scene.mass if isinstance(m, (EPL, SIE))]
    shears = [m for m in scene.mass if isinstance(m, Shear)]
    lights = [*sources, *scene.lens_light]
    if len(main) != 1 or len(shears) > 1 or len(main) + len(shears) != len(scene.mass) or not sources:
        raise ValueError("the forward model describes one EPL or SIE, at most one Shear, and at least one source")
    if not all(isinstance(light, Sersic) for light in lights):
        raise ValueError("the forward model describes light by Sersic components only")
    mass, shear = main[0], shears[0] if shears else Shear()
    values = [
        mass.theta_E.to_value(u.arcsec), getattr(mass, "gamma", 2.0), mass.e1, mass.e2,
        mass.center_x.to_value(u.arcsec), mass.center_y.to_value(u.arcsec), shear.gamma1, shear.gamma2,
    ]
    for light in lights:
        values += [
            light.center_x.to_value(u.arcsec), light.center_y.to_value(u.arcsec),
            np.log(light.radius.to_value(u.arcsec)), np.log(light.n), light.e1, light.e2,
        ]
    fluxes = [simulation.observation.flux(light.flux) for light in lights]
    model = SersicLens(len(sources), len(scene.lens_light))
    return model, torch.tensor(values, dtype=torch.float64), torch.tensor(fluxes, dtype=torch.float64)
