"""The hooks with which a package declares its methods: one an interface, each yielding `Method` records.

A package points the entry-point group ``lensdeblend`` to a module whose functions carry the decorator `hookimpl`.
Hooks declare and import nothing: the class behind a record is imported when somebody uses the method.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from lensdeblend.plugins.method import Method

__all__ = [
    "GROUP", "HOOKS", "hookimpl", "lensdeblend_deblenders", "lensdeblend_generators", "lensdeblend_reconstructors",
    "lensdeblend_simulators", "lensdeblend_superresolvers",
]

GROUP = "lensdeblend"

HOOKS = {
    "simulator": "lensdeblend_simulators",
    "reconstructor": "lensdeblend_reconstructors",
    "deblender": "lensdeblend_deblenders",
    "generator": "lensdeblend_generators",
    "superresolver": "lensdeblend_superresolvers",
}

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def lensdeblend_simulators() -> Iterable[Method]:
    """Yield one record for each `~lensdeblend.interfaces.Simulator`."""


@hookspec
def lensdeblend_reconstructors() -> Iterable[Method]:
    """Yield one record for each `~lensdeblend.interfaces.Reconstructor`."""


@hookspec
def lensdeblend_deblenders() -> Iterable[Method]:
    """Yield one record for each `~lensdeblend.interfaces.Deblender`."""


@hookspec
def lensdeblend_generators() -> Iterable[Method]:
    """Yield one record for each `~lensdeblend.interfaces.Generator`."""


@hookspec
def lensdeblend_superresolvers() -> Iterable[Method]:
    """Yield one record for each `~lensdeblend.interfaces.SuperResolver`."""
