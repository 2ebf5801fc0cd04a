"""Images and masks as metrics want them: plain, finite arrays of one shape."""

from __future__ import annotations

import numpy as np
from astropy.nddata import NDData

__all__ = ["as_array", "as_mask", "as_pair", "require_same_shape", "selection"]


def as_array(values, name: str, *, finite=None) -> np.ndarray:
    """Return the pixels as floats, finite where ``finite`` says they must be (everywhere if left out)."""
    if isinstance(values, NDData):
        values = values.data
    values = np.asarray(values, dtype=float)
    if values.size == 0:
        raise ValueError(f"{name} is empty")
    must_be_finite = values if finite is None or finite.shape != values.shape else values[finite]
    if not np.isfinite(must_be_finite).all():
        raise ValueError(f"{name} has values that are not finite")
    return values


def as_pair(image, truth) -> tuple[np.ndarray, np.ndarray]:
    """Return two finite arrays of one shape."""
    image, truth = as_array(image, "image"), as_array(truth, "truth")
    require_same_shape(image=image, truth=truth)
    return image, truth


def require_same_shape(**arrays: np.ndarray) -> None:
    """Raise ValueError with the names and shapes unless all are equal."""
    if len({values.shape for values in arrays.values()}) != 1:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
        raise ValueError(f"the shapes must be equal; got {shapes}")


def as_mask(values, name: str) -> np.ndarray:
    """Return an array of bool, and of nothing that only looks like it."""
    values = np.asarray(values)
    if values.dtype != bool:
        raise ValueError(f"{name} must be an array of bool; got {values.dtype}")
    return values


def selection(where, shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels that count, at least one: all of them where ``where`` is None."""
    if where is None:
        return np.ones(shape, dtype=bool)
    where = as_mask(where, "where")
    if where.shape != shape:
        raise ValueError(f"the shapes must be equal; got where {where.shape}, image {shape}")
    if not where.any():
        raise ValueError("where selects no pixel")
    return where
