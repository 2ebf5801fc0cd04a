"""Finds plug-ins, isolates the broken ones, and keeps what the others declare."""

from __future__ import annotations

import os
import re
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version

import pluggy
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend.plugins import builtin, hookspecs
from lensdeblend.plugins.hookspecs import GROUP, HOOKS
from lensdeblend.plugins.method import Method

__all__ = ["ALLOW_LIST", "Declared", "Manager", "Plugin", "PluginWarning", "load", "manager"]

ALLOW_LIST = "LENSDEBLEND_PLUGINS"
HOME = "lensdeblend"


class PluginWarning(AstropyUserWarning):
    """A plug-in package was left out; everything else works."""


@dataclass(frozen=True)
class Plugin:
    """One entry point: where it comes from and how it fared.

    ``status`` is ``"loaded"``, ``"failed"`` (``message`` says why), ``"not allowed"`` (left out by
    ``LENSDEBLEND_PLUGINS``) or ``"not installed"`` (named there, but not found).
    """

    name: str
    distribution: str
    version: str
    status: str
    methods: int = 0
    message: str = ""


@dataclass(frozen=True)
class Declared:
    """A `~lensdeblend.plugins.Method` with its kind and the distribution that declares it."""

    kind: str
    distribution: str
    method: Method

    @property
    def full_name(self) -> str:
        """``"distribution::name"``, which no other method has."""
        return f"{self.distribution}::{self.method.name}"


@dataclass(frozen=True)
class Manager:
    """Everything that was found, broken plug-ins included."""

    plugins: tuple[Plugin, ...]
    declared: tuple[Declared, ...]


@cache
def manager() -> Manager:
    """Return the plug-ins of this environment, found once; ``manager.cache_clear()`` looks anew."""
    names = os.environ.get(ALLOW_LIST)
    allowed = None if names is None else [name.strip() for name in names.split(",") if name.strip()]
    return load(entry_points(group=GROUP), allowed)


def load(points: Iterable[EntryPoint], allowed: Collection[str] | None = None) -> Manager:
    """Load the built-in methods and those of ``points``.

    Parameters
    ----------
    points : iterable of `~importlib.metadata.EntryPoint`
    allowed : collection of str, optional
        Distributions to load; left out, all of them. The built-in methods are always there.

    Warns
    -----
    PluginWarning
        Once for each plug-in that cannot be used.
    """
    pluggy_manager = pluggy.PluginManager(GROUP)
    pluggy_manager.add_hookspecs(hookspecs)
    plugins = [Plugin("builtin", HOME, version(HOME), "loaded")]
    declared = _declarations(pluggy_manager, builtin, HOME)
    plugins[0] = replace(plugins[0], methods=len(declared))
    permitted = None if allowed is None else {_canonical(name) for name in allowed}

    found = set()
    for point in sorted(points, key=lambda point: (_distribution(point), point.name)):
        distribution = _distribution(point)
        found.add(_canonical(distribution))
        plugin = Plugin(point.name, distribution, point.dist.version if point.dist else "", "loaded")
        if permitted is not None and _canonical(distribution) not in permitted:
            plugins.append(replace(plugin, status="not allowed", message=f"not named in {ALLOW_LIST}"))
            continue
        try:
            new = _declarations(pluggy_manager, point.load(), distribution)
            _refuse_repetition(declared, new)
        except (Exception, SystemExit) as error:
            message = f"{type(error).__name__}: {error}"
            plugins.append(replace(plugin, status="failed", message=message))
            warnings.warn(
                f"the plug-in {point.name!r} of {distribution} is left out: {message}", PluginWarning, stacklevel=2
            )
            continue
        declared += new
        plugins.append(replace(plugin, methods=len(new)))

    for name in allowed or ():
        if _canonical(name) not in found and _canonical(name) != HOME:
            plugins.append(Plugin("", name, "", "not installed", message=f"named in {ALLOW_LIST}"))
            warnings.warn(f"{ALLOW_LIST} names {name}, which offers no plug-in here", PluginWarning, stacklevel=2)
    return Manager(tuple(_mention_clashes(plugins, declared)), tuple(declared))


def _declarations(pluggy_manager: pluggy.PluginManager, plugin, distribution: str) -> list[Declared]:
    _refuse_unknown_hooks(pluggy_manager, plugin)
    pluggy_manager.register(plugin)
    declared = []
    for kind, hook in HOOKS.items():
        for implementation in getattr(pluggy_manager.hook, hook).get_hookimpls():
            if implementation.plugin is not plugin:
                continue
            # Called one by one: pluggy's own call would let one plug-in's exception silence the others.
            for record in implementation.function():
                if not isinstance(record, Method):
                    raise TypeError(f"{hook} must yield lensdeblend.plugins.Method records; got {record!r}")
                declared.append(Declared(kind, distribution, record))
    _refuse_repetition((), declared)
    return declared


def _refuse_unknown_hooks(pluggy_manager: pluggy.PluginManager, plugin) -> None:
    known = f"the hooks are {', '.join(HOOKS.values())}"
    for name in dir(plugin):
        options = pluggy_manager.parse_hookimpl_opts(plugin, name)
        if options is not None:
            hook = options.get("specname") or name
            if hook not in HOOKS.values():
                raise ValueError(f"{hook} is not a hook; {known}")
        elif name in HOOKS.values():
            raise ValueError(f"{name} lacks the decorator lensdeblend.plugins.hookimpl")
        elif name.startswith("lensdeblend_") and callable(getattr(plugin, name)):
            raise ValueError(f"{name} is not a hook; {known}")


def _refuse_repetition(declared: Iterable[Declared], new: Iterable[Declared]) -> None:
    seen = {(entry.kind, entry.full_name) for entry in declared}
    for entry in new:
        if (entry.kind, entry.full_name) in seen:
            raise ValueError(f"{entry.distribution} declares the {entry.kind} {entry.method.name!r} twice")
        seen.add((entry.kind, entry.full_name))


def _mention_clashes(plugins: Iterable[Plugin], declared: Iterable[Declared]) -> Iterable[Plugin]:
    claims = defaultdict(list)
    for entry in declared:
        claims[entry.kind, entry.method.name].append(entry)
    shared = defaultdict(list)
    for rivals in claims.values():
        for entry in rivals if len(rivals) > 1 else ():
            others = " and ".join(rival.distribution for rival in rivals if rival is not entry)
            shared[entry.distribution].append(f"{entry.kind} {entry.method.name!r} is claimed by {others}, too")
    for plugin in plugins:
        clashes = shared[plugin.distribution] if plugin.status == "loaded" else ()
        yield replace(plugin, message="; ".join(clashes)) if clashes else plugin


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value.partition(".")[0].partition(":")[0]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
