"""Simulate, unlens, deblend, generate and super-resolve galaxies that overlap or lens each other."""

from importlib import import_module
from importlib.metadata import version

__version__ = version("lensdeblend")

_HOMES = {
    "simulate": "lensdeblend.verbs",
    "reconstruct": "lensdeblend.verbs",
    "deblend": "lensdeblend.verbs",
    "generate": "lensdeblend.verbs",
    "superresolve": "lensdeblend.verbs",
    "methods": "lensdeblend.plugins",
    "prepare": "lensdeblend.images",
    "cutout": "lensdeblend.images",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
