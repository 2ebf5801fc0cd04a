"""Populations by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

from lensdeblend.scenes.populations import blends, deeplense, lenses
from lensdeblend.scenes.populations.population import Population

__all__ = ["population", "populations"]


def _makers() -> dict[str, Callable[[], Population]]:
    return {
        "lens-benchmark": lenses.benchmark,
        "lens-benchmark-light": lenses.benchmark_light,
        "lens-published": lenses.published,
        "blends": blends.blends,
        **{name: partial(deeplense.deeplense, name) for name in deeplense.deeplense_names()},
    }


def populations() -> list[str]:
    """List the names that `population` knows."""
    return list(_makers())


def population(name: str) -> Population:
    """Return the population called ``name``.

    Raises
    ------
    ValueError
        For an unknown name; the message gives the nearest and all known ones.

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.scenes.populations import population
    >>> lenses = population("lens-benchmark")
    >>> lenses.priors["theta_E"]
    Uniform(low=0.8, high=1.6)
    >>> scene = lenses.draw(np.random.default_rng(1))
    >>> [type(component).__name__ for component in scene.mass]
    ['EPL', 'Shear']
    """
    makers = _makers()
    if name not in makers:
        near = difflib.get_close_matches(name, makers, 1, 0.4)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown population {name!r}; {guess}Known are {', '.join(makers)}")
    return makers[name]()
