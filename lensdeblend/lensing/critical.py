"""Critical curves of a power law with shear, and the caustics they map to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lensdeblend.lensing.epl import epl, epl_jacobian
from lensdeblend.lensing.halos import shear

__all__ = ["critical_curves", "inverse_magnification", "lensing_jacobian"]

_BISECTIONS = 20


def inverse_magnification(x: Tensor, y: Tensor, lens: Tensor) -> Tensor:
    """Determinant of the lensing Jacobian at points, for eight lens parameters (as in `SersicLens`)."""
    xx, xy, yx, yy = lensing_jacobian(x, y, lens)
    return xx * yy - xy * yx


def lensing_jacobian(x: Tensor, y: Tensor, lens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Derivatives of the ray in the source plane: of its x by x and by y, of its y by x and by y."""
    theta_E, gamma, e1, e2, cx, cy, g1, g2 = lens
    _, slopes = epl_jacobian(torch.complex(x, y), theta_E, gamma, e1, e2, torch.complex(cx, cy))
    by_x, by_y = -slopes[4], -slopes[5]
    return 1 - by_x.real - g1, -by_y.real - g2, -by_x.imag - g2, 1 - by_y.imag + g1


def critical_curves(lens: Tensor, *, angles: int = 181, radii: int = 160, reach: float = 3.0) -> list[np.ndarray]:
    """Critical curves as (points, 4) arrays of x, y in the lens plane and x, y of the caustic in the source plane.

    The determinant is sampled along rays from the lens centre out to ``reach`` Einstein radii; its outermost zero is
    the tangential curve, the one inside, where there is one on every ray, the radial curve. A lens whose outermost
    zero jumps between rays has critical curves that no ray from its centre crosses once; then there are none here.

    Parameters
    ----------
    lens : Tensor
        (8,), as in `SersicLens`.
    angles, radii : int
        Rays, and points along each.
    reach : float
        In Einstein radii.

    Returns
    -------
    list of (angles, 4) arrays
        In arcsec; each closed, its last point the first.

    Examples
    --------
    >>> import torch
    >>> from lensdeblend.lensing.critical import critical_curves
    >>> ring, = critical_curves(torch.tensor([1.2, 2.0, 0, 0, 0, 0, 0, 0]))
    >>> (ring[:, 0]**2 + ring[:, 1]**2).max().round(3)
    np.float64(1.44)
    """
    lens = lens.detach().cpu().double()
    theta_E, cx, cy = float(lens[0]), float(lens[4]), float(lens[5])
    angle = torch.linspace(0, 2 * np.pi, angles, dtype=torch.float64)
    radius = torch.exp(torch.linspace(np.log(1e-3), np.log(reach), radii, dtype=torch.float64)) * theta_E
    x = (cx + radius[None] * torch.cos(angle)[:, None]).reshape(-1)
    y = (cy + radius[None] * torch.sin(angle)[:, None]).reshape(-1)
    determinant = inverse_magnification(x, y, lens).reshape(angles, radii)
    change = determinant[:, 1:] * determinant[:, :-1] < 0
    curves = []
    for order in (1, 2):
        rank = change.flip(1).cumsum(1).flip(1)
        found = change & (rank == order)
        if not bool(found.any(1).all()):
            break
        index = found.double().argmax(1)
        rows = torch.arange(angles)
        inner = determinant[rows, index]
        low, high = radius[index], radius[index + 1]
        for _ in range(_BISECTIONS):
            crossing = (low + high) / 2
            px, py = cx + crossing * torch.cos(angle), cy + crossing * torch.sin(angle)
            same = inverse_magnification(px, py, lens) * inner > 0
            low, high = torch.where(same, crossing, low), torch.where(same, high, crossing)
        ax, ay = epl(px, py, *lens[:6])
        sx, sy = shear(px, py, *lens[6:8])
        curves.append(torch.stack([px, py, px - ax - sx, py - ay - sy], 1).numpy())
    return curves
