"""Tasks by name."""

from __future__ import annotations

import difflib
from importlib import import_module

from lensdeblend.training.tasks.task import Task

__all__ = ["task", "tasks"]

_CLASSES = {
    "unlens": "lensdeblend.training.tasks.unlens:Unlens",
    "posterior": "lensdeblend.training.tasks.posterior:Posterior",
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
        near = difflib.get_close_matches(str(name), _CLASSES, 1, 0.4)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown task {name!r}; {guess}Known are {', '.join(_CLASSES)}")
    module, _, attribute = _CLASSES[name].partition(":")
    return getattr(import_module(module), attribute)
