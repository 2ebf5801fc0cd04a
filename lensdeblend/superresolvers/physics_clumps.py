"""The most likely clumps beside the lens that a network has seen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lensdeblend.lensing.parametric import SersicLens
from lensdeblend.lensing.substructure import LensPrior
from lensdeblend.superresolvers.clumpy import SPREAD, ClumpyLens
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.physics_dressing import Drawn, source_images

__all__ = ["with_fitted_clumps"]

_LENS = 8
# The network's names after the lens are radius, n, e1, e2, x, y; those of a `SersicLens` x, y, log radius, log n, e1,
# e2.
_ORDER = [*range(_LENS), 12, 13, 8, 9, 10, 11]
_LOGARITHMIC = slice(10, 12)
# Of the population's spread, about what the network has told: a lens that is free to move takes up what its clumps do
# to the arcs, and is wrong beside them.
_HELD = 0.1


def with_fitted_clumps(
    pixels: FinePixels, start: tuple[Tensor, Tensor, float], center: Tensor, spread: Tensor, psf: np.ndarray | None,
    rng: np.random.Generator, leftover: bool,
) -> Drawn:
    """Fit clumps, lens and source of one image.

    Parameters
    ----------
    pixels : FinePixels
    start : tuple
        Lens and source (14,), flux, flux over noise.
    center, spread : Tensor
        (14,): about which lens and source are held, and by how much they differ from one image of the population to
        another.
    psf : ndarray or None
        On the finer pixels.
    rng : numpy.random.Generator
    leftover : bool
        Whether what the model leaves of the data is asked for.
    """
    parameters, flux, significance = start
    spread = spread.double().cpu()[_ORDER]
    center = center.double().cpu()[_ORDER]
    spread[:_LENS] *= _HELD
    spread[_LOGARITHMIC] /= center[_LOGARITHMIC]
    prior = LensPrior(_logarithmic(center), spread, SPREAD)
    clumpy = ClumpyLens.fitted(
        pixels.image, SersicLens(1), _logarithmic(parameters[_ORDER]), flux[None], prior
    )
    maps, fit = clumpy.maps(pixels, psf, rng), clumpy.fit
    found, errors = fit.parameters.clone(), clumpy.errors
    found[_LOGARITHMIC] = found[_LOGARITHMIC].exp()
    errors[_LOGARITHMIC] *= found[_LOGARITHMIC].numpy()
    back = np.argsort(_ORDER)
    parameters = found[torch.as_tensor(back)]
    values, count = maps.values, int(pixels.image.data.size)
    if pixels.image.mask is not None:
        count -= int(pixels.image.mask.sum())
    return Drawn(
        images=np.stack([values["image"], values["intrinsic"]]),
        deflection=np.stack([values["deflection_x"], values["deflection_y"]]), convergence=values["convergence"],
        substructure=values["substructure"],
        source=source_images(torch.cat([torch.ones(1), parameters[_LENS:]])[None])[0].numpy(),
        parameters=parameters.numpy(), flux=float(fit.fluxes[0]), errors=np.append(errors[:-1][back], errors[-1]),
        chi2=fit.chi2 / count, significance=significance, magnification=values["magnification"],
        told=count - fit.freedom, variances=maps.variances, notes=clumpy.notes,
        model=clumpy.seen(pixels.image) if leftover else None,
    )


def _logarithmic(parameters: Tensor) -> Tensor:
    result = parameters.clone()
    result[_LOGARITHMIC] = result[_LOGARITHMIC].log()
    return result
