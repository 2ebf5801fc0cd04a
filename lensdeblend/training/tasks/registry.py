"""Tasks by name."""

from __future__ import annotations

from importlib import import_module

from lensdeblend.spelling import advice
from lensdeblend.training.tasks.task import Task

__all__ = ["task", "tasks"]

_CLASSES = {
    "unlens": "lensdeblend.training.tasks.unlens:Unlens",
    "posterior": "lensdeblend.training.tasks.posterior:Posterior",
    "deblend": "lensdeblend.training.tasks.deblend:Deblend",
    "galaxies": "lensdeblend.training.tasks.galaxies:Galaxies",
    "superresolve": "lensdeblend.training.tasks.superresolve:Superresolve",
    "superresolve-radial": "lensdeblend.training.tasks.superresolve_radial:SuperresolveRadial",
    "superresolve-pairs": "lensdeblend.training.tasks.superresolve_pairs:SuperresolvePairs",
}


def tasks() -> list[str]:
    """List the names that `task` knows."""
    return list(_CLASSES)


def task(name: str) -> type[Task]:
    """Return the class of the task called ``name``.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name not in _CLASSES:
        raise ValueError(f"unknown task {name!r}; {advice(name, _CLASSES)}")
    module, _, attribute = _CLASSES[name].partition(":")
    return getattr(import_module(module), attribute)
