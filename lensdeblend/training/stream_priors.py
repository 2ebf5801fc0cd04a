"""Priors of what a stream draws: replaced by a recipe, and what they span."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lensdeblend.scenes.populations import Distribution
from lensdeblend.training.lens_data import distribution

__all__ = ["DRAWS_FOR_RANGES", "ranges_of", "replaced"]

#: How many draws tell the range of a prior.
DRAWS_FOR_RANGES = 20000


def replaced(usual: Mapping[str, Distribution], own: Mapping[str, Any]) -> dict[str, Distribution]:
    """The ``usual`` priors with a recipe's ``own``.

    Raises
    ------
    ValueError
        For a name that none of the usual has.
    """
    unknown = sorted(set(own) - set(usual))
    if unknown:
        raise ValueError(f"the recipe: data: priors has the unknown {unknown[0]!r}; known are {', '.join(usual)}")
    return {**usual, **{name: distribution(one, f"data: priors: {name}") for name, one in own.items()}}


def ranges_of(priors: Mapping[str, Distribution]) -> dict[str, list[float]]:
    """What they span, as ``[low, high]``."""
    rng = np.random.default_rng(0)
    spans = {name: np.asarray(prior.draw(rng, DRAWS_FOR_RANGES)) for name, prior in priors.items()}
    return {name: [round(float(values.min()), 3), round(float(values.max()), 3)] for name, values in spans.items()}
