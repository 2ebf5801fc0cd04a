"""Conjugate gradients, several right-hand sides at once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["conjugate_gradients"]

_STEPS = 500


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], diagonal: Tensor, right: Tensor, begin: Tensor, enough: Tensor
) -> Tensor:
    """Solve for each of ``right`` along the first axis, preconditioned by the diagonal, until the sum of squares that
    is left is ``enough``."""
    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1)[(...,) + (None,) * (a.dim() - 1)]

    solution, residual = begin, right - apply(begin)
    scaled = residual / diagonal
    direction, power = scaled, dot(residual, scaled)
    for _ in range(_STEPS):
        if bool((dot(residual, residual).flatten() <= enough).all()):
            break
        ahead = apply(direction)
        length = power / dot(direction, ahead).clamp_min(1e-300)
        solution, residual = solution + length * direction, residual - length * ahead
        scaled = residual / diagonal
        before, power = power, dot(residual, scaled)
        direction = scaled + power / before.clamp_min(1e-300) * direction
    return solution
