"""Populations as YAML.

One mapping: ``kind``, ``name``, ``summary``, ``observation``, ``priors`` as ``{theta_E: {Uniform: [0.8, 1.6]}}``, and
``generator``, a name or ``{method, options, conditions}``. In place of ``kind``, ``population`` is the name of a known
one, of which the rest is what differs::

    population: lens-benchmark
    priors: {theta_E: {Uniform: [1.0, 1.2]}}
    generator: vae-flow
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, astuple, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from lensdeblend.io.atomic import replacing
from lensdeblend.scenes.observation import Observation
from lensdeblend.scenes.populations.blends import BlendPopulation
from lensdeblend.scenes.populations.deeplense import DeepLense
from lensdeblend.scenes.populations.distributions import Distribution, distribution
from lensdeblend.scenes.populations.lenses import LensPopulation
from lensdeblend.scenes.populations.population import Population
from lensdeblend.scenes.populations.registry import population
from lensdeblend.scenes.yaml import from_yaml, plain, read_generator
from lensdeblend.spelling import advice

__all__ = ["population_from_yaml", "population_to_yaml", "read_population", "write_population"]

_KINDS = {kind.__name__: kind for kind in (LensPopulation, BlendPopulation, DeepLense)}


def population_to_yaml(drawn_from: Population) -> str:
    """Write a population as YAML.

    Raises
    ------
    TypeError
        For a kind of population that is not this package's.

    Examples
    --------
    >>> from lensdeblend.scenes.populations import Fixed, population
    >>> from lensdeblend.scenes.populations.yaml import population_from_yaml, population_to_yaml
    >>> lenses = population("lens-benchmark").with_generator("vae-flow").with_priors(theta_E=Fixed(1.2))
    >>> population_from_yaml(population_to_yaml(lenses)) == lenses
    True
    """
    kind = type(drawn_from).__name__
    if _KINDS.get(kind) is not type(drawn_from):
        raise TypeError(f"cannot write a {kind} as YAML; known are {', '.join(_KINDS)}")
    plain = {"kind": kind}
    for entry in fields(drawn_from):
        value = getattr(drawn_from, entry.name)
        if entry.default is MISSING or value != entry.default:
            plain[entry.name] = _plain(value)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def population_from_yaml(text: str) -> Population:
    """Read what `population_to_yaml` wrote, or what a person wrote in that form.

    Raises
    ------
    ValueError
        For text that is not YAML, unknown kinds, names and fields, and what is no prior; the message names the nearest
        known spelling.

    Examples
    --------
    >>> from lensdeblend.scenes.populations.yaml import population_from_yaml
    >>> lenses = population_from_yaml("{population: lens-benchmark, generator: vae-flow}")
    >>> print(lenses.generator)
    vae-flow
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping) or ("kind" in content) == ("population" in content):
        raise ValueError(
            "a population needs either the name of a known one, 'population: lens-benchmark', or its kind, "
            f"one of {', '.join(_KINDS)}"
        )
    content = dict(content)
    if "population" in content:
        base = population(content.pop("population"))
        given = _fields(type(base), content)
        priors = given.pop("priors", {})
        return replace(base.with_priors(**priors), **given)
    kind = content.pop("kind")
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of population {kind!r}; {advice(kind, _KINDS)}")
    given = _fields(_KINDS[kind], content)
    for entry in fields(_KINDS[kind]):
        if entry.default is MISSING and entry.name not in given:
            raise ValueError(f"{kind} needs {entry.name!r}")
    return _KINDS[kind](**given)


def write_population(drawn_from: Population, path: str | PathLike, *, overwrite: bool = False) -> None:
    """Write a population to a YAML file, whole or not at all."""
    text = population_to_yaml(drawn_from)
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_population(path: str | PathLike) -> Population:
    """Read a population from a YAML file.

    Raises
    ------
    OSError
        Where the file cannot be read.
    ValueError
        For text that `population_from_yaml` refuses.
    """
    try:
        return population_from_yaml(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Distribution):
        return {type(value).__name__: plain(astuple(value))}
    if isinstance(value, Mapping):
        return {name: _plain(prior) for name, prior in value.items()}
    return plain(value)


def _fields(kind: type, content: Mapping[str, Any]) -> dict[str, Any]:
    known = [entry.name for entry in fields(kind)]
    for name in content:
        if name not in known:
            raise ValueError(f"a {kind.__name__} has no {name!r}; {advice(name, known)}")
    given = dict(content)
    if "priors" in given:
        given["priors"] = _priors(given["priors"])
    if "observation" in given:
        given["observation"] = from_yaml(yaml.safe_dump(given["observation"]))
        if not isinstance(given["observation"], Observation):
            raise ValueError(f"observation must be an Observation; got a {type(given['observation']).__name__}")
    if given.get("generator") is not None:
        given["generator"] = read_generator(given["generator"], "generator")
    return given


def _priors(content: Any) -> dict[str, Distribution]:
    if not isinstance(content, Mapping):
        raise ValueError(f"priors must be a mapping of parameters to distributions; got {content!r}")
    return {name: distribution(value, f"priors: {name}") for name, value in content.items()}
