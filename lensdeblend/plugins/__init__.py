"""How methods make themselves known, and how they are found."""

from lensdeblend.plugins.hookspecs import hookimpl
from lensdeblend.plugins.lookup import MissingDependencyError, Resolved, create, method_class, methods, resolve
from lensdeblend.plugins.manager import Plugin, PluginWarning, manager
from lensdeblend.plugins.method import Method

__all__ = [
    "Method", "MissingDependencyError", "Plugin", "PluginWarning", "Resolved", "create", "hookimpl", "manager",
    "method_class", "methods", "resolve",
]
