r"""How rough a source may be: precision matrices of Gaussian priors on its pixels.

With the stiffness :math:`G` of a grid (the integral of the squared gradient is :math:`s^T G s`) and the area :math:`M`
of its vertices, ``"gradient"`` is :math:`G` and ``"curvature"`` is :math:`G M^{-1} G`, the integral of the squared
Laplacian (Suyu et al. 2006MNRAS.371..983S compare them). Light is zero beyond the edge, which makes both invertible.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lensdeblend.lensing.source_grids import DelaunayGrid, RegularGrid

__all__ = ["precision_matrix"]


def precision_matrix(
    grid: RegularGrid | DelaunayGrid, kind: Literal["gradient", "curvature"], freedom: Tensor | None = None
) -> tuple[Tensor, float]:
    """The matrix (N, N) at strength 1, and the logarithm of its determinant.

    ``freedom`` (N,) is how large a curvature is expected at each vertex, in any unit; the same everywhere where left
    out.
    """
    matrix = grid.stiffness
    if kind == "curvature":
        weight = 1 / grid.area.numpy()
        if freedom is not None:
            weight = weight / freedom.numpy() ** 2
        matrix = grid.stiffness @ grid.stiffness.multiply(weight[:, None])
    matrix = torch.as_tensor(matrix.toarray())
    matrix = (matrix + matrix.T) / 2
    return matrix, 2 * float(torch.linalg.cholesky(matrix).diagonal().log().sum())
