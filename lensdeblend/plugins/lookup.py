"""From what a user writes in ``method=`` to the method itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata
from importlib.util import find_spec
from typing import Any

from astropy.table import Table
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lensdeblend import interfaces
from lensdeblend.plugins.hookspecs import HOOKS
from lensdeblend.plugins.manager import HOME, Declared, manager
from lensdeblend.spelling import advice

__all__ = ["MissingDependencyError", "Resolved", "create", "method_class", "methods", "resolve"]

INTERFACES = {
    "simulator": interfaces.Simulator,
    "reconstructor": interfaces.Reconstructor,
    "deblender": interfaces.Deblender,
    "generator": interfaces.Generator,
    "superresolver": interfaces.SuperResolver,
}


class MissingDependencyError(ImportError):
    """A method needs a module that is not installed; the message has the pip command."""


@dataclass(frozen=True)
class Resolved:
    """A method ready for use, with the name and distribution that go into the provenance."""

    method: Any
    name: str
    distribution: str


def methods(kind: str | None = None) -> Table:
    """List the registered methods without importing them.

    Parameters
    ----------
    kind : {'simulator', 'reconstructor', 'deblender', 'generator', 'superresolver'}, optional
        Left out, all kinds.

    Returns
    -------
    `~astropy.table.Table`
        One row a method: ``name``, ``kind``, ``distribution``, ``summary``, ``requires``, ``reference`` (bibcode) and
        ``available``, False where something in ``requires`` is not installed.

    Raises
    ------
    TypeError
        For a kind that is no string.
    ValueError
        For an unknown kind.

    Examples
    --------
    >>> from lensdeblend import methods
    >>> "lenstronomy" in methods("simulator")["name"]
    True
    """
    rows = [
        (
            entry.method.name, entry.kind, entry.distribution, entry.method.summary, ", ".join(entry.method.requires),
            entry.method.reference, not _missing(entry),
        )
        for entry in _of_kind(kind)
    ]
    names = ("name", "kind", "distribution", "summary", "requires", "reference", "available")
    return Table(rows=rows or None, names=names, dtype=[str] * 6 + [bool])


def resolve(kind: str, method: Any) -> Resolved:
    """Find the method a user means.

    Parameters
    ----------
    kind : str
        One of the kinds of `methods`.
    method : str or instance
        A name, ``"distribution::name"``, or an instance, which carries its options.

    Raises
    ------
    ValueError
        For a name that nobody or more than one distribution declares.
    TypeError
        For an instance of another kind.
    MissingDependencyError
        For a method whose requirements are not installed.

    Examples
    --------
    >>> from lensdeblend.plugins import resolve
    >>> resolve("reconstructor", "forwrad")
    Traceback (most recent call last):
        ...
    ValueError: unknown reconstructor 'forwrad'; did you mean 'forward'? ...
    """
    if isinstance(method, str):
        entry = _entry(kind, method)
        return Resolved(_construct(entry, {}), entry.method.name, entry.distribution)
    interface = _interface(kind)
    if isinstance(method, type):
        name = method.__name__
        raise TypeError(f"method must be a name or an instance; got the class {name}: write {name}()")
    if not isinstance(method, interface):
        raise TypeError(f"method must be the name or an instance of a {interface.__name__}; got {method!r}")
    target = f"{type(method).__module__}:{type(method).__qualname__}"
    for entry in _of_kind(kind):
        if entry.method.target == target:
            _check_installed(entry)
            return Resolved(method, entry.method.name, entry.distribution)
    return Resolved(method, target, type(method).__module__.partition(".")[0])


def create(kind: str, name: str, **options) -> Any:
    """Make the method called ``name`` with ``options``, the fields of its dataclass.

    Raises
    ------
    TypeError
        For an option that the method does not have; the message lists those it has.
    """
    return _construct(_entry(kind, name), options)


def method_class(kind: str, name: str) -> type:
    """Import and return the class of the method called ``name``."""
    return _import(_entry(kind, name))


def _of_kind(kind: str | None) -> list[Declared]:
    if kind is not None:
        _interface(kind)
    return [entry for entry in manager().declared if kind in (None, entry.kind)]


def _interface(kind: str) -> type:
    if not isinstance(kind, str):
        raise TypeError(f"kind must be a string, one of {', '.join(map(repr, HOOKS))}; got {kind!r}")
    if kind not in INTERFACES:
        raise ValueError(f"unknown kind of method {kind!r}; the kinds are {', '.join(HOOKS)}")
    return INTERFACES[kind]


def _entry(kind: str, name: str) -> Declared:
    known = _of_kind(kind)
    matches = [entry for entry in known if name in (entry.method.name, entry.full_name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        choices = " or ".join(repr(entry.full_name) for entry in matches)
        raise ValueError(f"more than one package has a {kind} called {name!r}; write {choices}")
    if not known:
        raise ValueError(f"unknown {kind} {name!r}; no {kind} is installed")
    names = sorted({entry.full_name if "::" in name else entry.method.name for entry in known})
    raise ValueError(f"unknown {kind} {name!r}; {advice(name, names)}")


def _construct(entry: Declared, options: dict[str, Any]) -> Any:
    cls = _import(entry)
    known = [field.name for field in fields(cls) if field.init]
    for option in options:
        if option not in known:
            label = f"{entry.kind} {entry.method.name!r}"
            raise TypeError(f"{label} has no option {option!r}; {advice(option, known, 'It has')}")
    return cls(**options)


def _import(entry: Declared) -> type:
    _check_installed(entry)
    label, target = _label(entry), entry.method.target
    module, _, attribute = target.partition(":")
    try:
        cls = import_module(module)
        for part in attribute.split("."):
            cls = getattr(cls, part)
    except ModuleNotFoundError as error:
        own = module.partition(".")[0]
        if error.name and error.name.partition(".")[0] != own:
            raise MissingDependencyError(_advice(entry, [error.name.partition(".")[0]])) from error
        raise ImportError(f"{label} cannot be loaded from {target}: {error}") from error
    except Exception as error:
        raise ImportError(f"{label} cannot be loaded from {target}: {type(error).__name__}: {error}") from error
    interface = INTERFACES[entry.kind]
    if not (isinstance(cls, type) and issubclass(cls, interface)):
        raise TypeError(f"{label}: {target} is not a subclass of lensdeblend.interfaces.{interface.__name__}")
    if not hasattr(cls, "__dataclass_fields__"):
        raise TypeError(f"{label}: {target} must be a frozen dataclass whose fields are its options")
    return cls


def _check_installed(entry: Declared) -> None:
    missing = _missing(entry)
    if missing:
        raise MissingDependencyError(_advice(entry, missing))


def _label(entry: Declared) -> str:
    return f"{entry.kind} {entry.method.name!r} of {entry.distribution}"


def _missing(entry: Declared) -> list[str]:
    return [required for required in entry.method.requires if not _installed(_module(required))]


def _module(required: str) -> str:
    return required.partition(" @ ")[0]


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # A package that it would be in is missing.
        return False


def _advice(entry: Declared, missing: list[str]) -> str:
    packages = " ".join(f'"{_package(entry.distribution, required)}"' for required in missing)
    names = ", ".join(map(_module, missing))
    return f"{_label(entry)} needs {names}, which is not installed: pip install {packages}"


def _package(distribution: str, module: str) -> str:
    """What to hand to pip for ``module``: the distribution's own extra where one draws it in.

    A module with an address is what pip takes as it is.
    """
    if " @ " in module:
        return module
    for owner in (distribution, HOME):
        try:
            about = metadata(owner)
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, about.get_all("Requires-Dist") or ()):
            if canonicalize_name(requirement.name) != canonicalize_name(module):
                continue
            for extra in about.get_all("Provides-Extra") or ():
                if requirement.marker and requirement.marker.evaluate({"extra": extra}):
                    return f"{owner}[{extra}]"
            return requirement.name
    return module
