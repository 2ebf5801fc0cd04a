"""Populations by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lensdeblend.scenes.populations import blends, deeplense, lenses
from lensdeblend.scenes.populations.population import Population
from lensdeblend.spelling import advice

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
        raise ValueError(f"unknown population {name!r}; {advice(name, makers)}")
    return makers[name]()
