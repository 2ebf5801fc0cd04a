r"""Gauss-Newton steps on lens and source from where a network has put them, the clumps of convergence held.

.. math::

    \min_{p, a}\; \frac{1}{s} \sum_i w_i^2 \big(d_i - a\, m_i(p)\big)^2 + \sum_j \frac{(p_j - c_j)^2}{\sigma_j^2},

damped as Levenberg and Marquardt do, each image of a batch on its own. The prior :math:`(c, \sigma)` keeps what the
data do not tell near the population; :math:`s`, the reduced chi-square where it is above 1, gives it its weight where
the model is not as good as the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensdeblend.lensing.epl import epl_jacobian
from lensdeblend.lensing.finer_images import FinerLens, amplitudes
from lensdeblend.lensing.halos import shear
from lensdeblend.lensing.sersic import sersic_jacobian

__all__ = ["FinerFit", "descend", "with_slopes"]

_PARAMETERS = 14
_RAYS_AT_ONCE = 32768
_DAMPING = 1e-3


@dataclass
class FinerFit:
    """``parameters`` (batch, 14) of lens and source, ``flux`` (batch,), ``covariance`` (batch, 15, 15) of both (the
    flux last; None before any step), ``chi2`` (batch,) per pixel that is used, ``significance`` (batch,): the flux over
    its noise, all else held."""

    parameters: Tensor
    flux: Tensor
    covariance: Tensor | None
    chi2: Tensor
    significance: Tensor


@dataclass
class _State:
    parameters: Tensor
    flux: Tensor
    residual: Tensor
    slopes: Tensor
    squares: Tensor
    penalty: Tensor

    def cost(self, factor: Tensor) -> Tensor:
        return self.squares / factor + self.penalty


def with_slopes(
    imager: FinerLens, lens: Tensor, source: Tensor, bend: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The image of a source (batch, 7), and its derivatives (batch, 14, ny, nx) by all of the lens and by the source's
    ``radius``, ``n``, ``e1``, ``e2``, ``center_x``, ``center_y``; both through the PSF."""
    everything = (lens, source, *(bend or ()))
    piece = max(1, _RAYS_AT_ONCE // imager.points[0].shape[-1])
    with torch.no_grad():
        layers = torch.cat([_layers(imager, *part) for part in zip(*(each.split(piece) for each in everything))])
    return layers[:, 0], layers[:, 1:]


def _layers(imager: FinerLens, lens: Tensor, source: Tensor, *bend: Tensor) -> Tensor:
    x, y = imager.points
    theta_E, gamma, e1, e2, center_x, center_y, gamma1, gamma2 = lens.unsqueeze(-1).unbind(1)
    flux, radius, n, *shape, place_x, place_y = source.unsqueeze(-1).unbind(1)
    z = torch.complex(x, y)
    alpha, by_lens = epl_jacobian(z, theta_E, gamma, e1, e2, torch.complex(center_x, center_y), imager.terms)
    along_x, along_y = shear(x, y, gamma1, gamma2)
    beta_x, beta_y = x - alpha.real - along_x, y - alpha.imag - along_y
    if bend:
        beta_x, beta_y = beta_x - bend[0], beta_y - bend[1]
    light, (by_x, by_y, *by_shape) = sersic_jacobian(beta_x - place_x, beta_y - place_y, radius, n, *shape)
    slopes = [-(by_x * one.real + by_y * one.imag) for one in by_lens]
    slopes += [-(by_x * x - by_y * y), -(by_x * y + by_y * x)]
    rays = torch.stack([light, *slopes, *by_shape, -by_x, -by_y], 1) * (flux * imager.grid.scale**2)[:, None]
    rays = rays.unflatten(2, tuple(n * imager.supersampling for n in imager.grid.padded_shape))
    return imager.see(torch.nn.functional.avg_pool2d(rays, imager.supersampling))


def descend(
    imager: FinerLens, image: Tensor, weight: Tensor, parameters: Tensor, bend: tuple[Tensor, Tensor] | None,
    *, center: Tensor, spread: Tensor, steps: int, rough: tuple[FinerLens, tuple[Tensor, Tensor] | None] | None = None,
) -> FinerFit:
    """Fit the images (batch, ny, nx) from ``parameters`` (batch, 14) on.

    Parameters
    ----------
    imager : FinerLens
        On the pixels of the data.
    image, weight : Tensor
        Data, and one over their noise, 0 where a pixel is not used.
    parameters : Tensor
        Eight of the lens, then radius, n, e1, e2, x and y of the source; as they come out, they are never worse.
    bend : tuple of Tensor or None
        What else deflects the rays, as for `LensImager`.
    center, spread : Tensor
        (14,), of the prior.
    steps : int
        None where 0: then only the flux is solved for.
    rough : tuple of FinerLens and what else deflects its rays, optional
        With fewer rays, on the same pixels: what the slopes are taken from. The way is another, the end is not.
    """
    used = (weight > 0).sum((1, 2)).clamp_min(1)

    total = (image * weight).square().sum((1, 2))
    if not steps:
        model = imager(*_split(parameters), bend)
        flux = amplitudes(image, model, weight)
        squares = ((image - flux[:, None, None] * model) * weight).square().sum((1, 2))
        return FinerFit(parameters, flux, None, squares / used, (total - squares).clamp_min(0).sqrt())

    def state(parameters: Tensor, last: Tensor | None = None) -> _State:
        if last is None and rough is None:
            model, slopes = with_slopes(imager, *_split(parameters), bend)
        else:
            model = imager(*_split(parameters), bend)
            slopes = None if last is not None else with_slopes(rough[0], *_split(parameters), rough[1])[1]
        flux = amplitudes(image, model, weight)
        residual = ((image - flux[:, None, None] * model) * weight).flatten(1)
        penalty = ((parameters - center) / spread).square().sum(1)
        if last is None:
            columns = torch.cat([slopes * (flux[:, None] * spread)[..., None, None], model[:, None]], 1)
            last = (columns * weight[:, None]).flatten(2)
        return _State(parameters, flux, residual, last, residual.square().sum(1), penalty)

    now = state(parameters)
    damping = torch.full_like(now.flux, _DAMPING)
    for remaining in reversed(range(steps)):
        factor = (now.squares / used).clamp_min(1)
        normal, downward = _normal(now, factor, center, spread)
        scale = normal.diagonal(dim1=1, dim2=2).sqrt()
        scaled = normal / (scale[:, :, None] * scale[:, None, :])
        damped = scaled + torch.diag_embed(damping[:, None].expand_as(scale))
        step = (torch.linalg.solve(damped, downward / scale) / scale).to(parameters)[:, :_PARAMETERS] * spread
        # After the last step no slopes are needed but for the errors, for which those before it will do.
        trial = state(now.parameters + step, None if remaining else now.slopes)
        better = torch.isfinite(trial.squares) & (trial.cost(factor) < now.cost(factor))
        damping = torch.where(better, damping * 0.1, damping * 30)
        now = _State(*(
            torch.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(vars(trial).values(), vars(now).values())
        ))
    normal, _ = _normal(now, (now.squares / used).clamp_min(1), center, spread)
    units = torch.cat([spread, spread.new_ones(1)])
    covariance = torch.linalg.inv(normal) * units[:, None] * units
    significance = (total - now.squares).clamp_min(0).sqrt()
    return FinerFit(now.parameters, now.flux, covariance, now.squares / used, significance)


def _normal(now: _State, factor: Tensor, center: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix (batch, 15, 15) and right-hand side, in units of the spreads, the flux last; double precision."""
    slopes = now.slopes
    normal = (slopes @ slopes.transpose(1, 2) / factor[:, None, None]).double()
    downward = ((slopes @ now.residual[:, :, None])[..., 0] / factor[:, None]).double()
    prior = torch.ones_like(downward)
    # What is not seen at all, as the shape of a source without flux, would leave the matrix singular.
    prior[:, -1] = 1e-12 + 1e-9 * normal[:, -1, -1]
    downward[:, :_PARAMETERS] -= ((now.parameters - center) / spread).double()
    return normal + torch.diag_embed(prior), downward


def _split(parameters: Tensor) -> tuple[Tensor, Tensor]:
    lens, source = parameters[:, :8], parameters[:, 8:]
    return lens, torch.cat([torch.ones_like(source[:, :1]), source], 1)
