"""Recipes: all that makes a weight file, as YAML."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from lensdeblend.spelling import advice

__all__ = ["Length", "Network", "Recipe", "from_mapping", "read_recipe", "recipes"]

_SHIPPED = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Network:
    """Which network: the ``architecture`` of `lensdeblend.networks.architectures`, and its ``options``."""

    architecture: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Length:
    """How long to train, and how.

    Attributes
    ----------
    steps, batch : int
        Updates of the weights, and images in each.
    validate_every : int
        Steps from one validation, checkpoint and line in the log to the next.
    validation : int
        Images of the validation set, the same each time, from galaxies not trained on.
    learning_rate, weight_decay : float
        Of AdamW.
    schedule : {"cosine", "constant"}
        The rate rises over the first 5% of the steps and falls as a cosine to zero, or is the same throughout.
    clip : float
        Largest norm of the gradient.
    patience : int or None
        Stop after so many validations without gain; None never.
    """

    steps: int
    batch: int = 64
    validate_every: int = 250
    validation: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    clip: float = 1.0
    patience: int | None = None
    schedule: str = "cosine"

    def __post_init__(self):
        for name in ("steps", "batch", "validate_every", "validation"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"length: {name} must be a whole number of at least 1; got {value!r}")
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"length: {name} must be a positive number; got {value!r}")
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"length: schedule must be 'cosine' or 'constant'; got {self.schedule!r}")


@dataclass(frozen=True)
class Recipe:
    """What to train on what, how long, and from which seed.

    Attributes
    ----------
    name, summary : str
        Of the weights that come out.
    task : str
        What is learned; one of `lensdeblend.training.tasks.tasks`.
    network : Network
    data : mapping
        Population, priors and sources; what may stand here is the task's to say.
    loss : mapping of str to float
        Weights of the task's losses.
    length : Length
    seed : int
    budget : mapping
        Changes to the above by name, such as ``cpu``.
    licence : str
        Of the weights.
    """

    name: str
    summary: str
    task: str
    network: Network
    data: Mapping[str, Any]
    loss: Mapping[str, float]
    length: Length
    seed: int = 0
    budget: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    licence: str = "BSD-3-Clause"

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """The same with some entries replaced; mappings are merged, and None takes an entry of one out.

        Raises
        ------
        ValueError
            For an unknown key.
        """
        return from_mapping(Recipe, _merged(asdict(self), changes), "the recipe")

    def within(self, budget: str | None) -> Recipe:
        """With the changes of one of its budgets; None for none.

        Raises
        ------
        ValueError
            For a budget the recipe does not have.
        """
        if budget is None:
            return replace(self, budget={})
        if budget not in self.budget:
            raise ValueError(f"{self.name} has no budget {budget!r}; it has {', '.join(self.budget) or 'none'}")
        return replace(self.changed(self.budget[budget]), budget={})


def recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def read_recipe(path: str | os.PathLike) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    path : path or str
        A YAML file, or a name of `recipes`.

    Raises
    ------
    ValueError
        For an unknown name, text that is not YAML, a key that is missing or unknown.

    Examples
    --------
    >>> from lensdeblend.training.recipe import read_recipe
    >>> read_recipe("unet-paper").network.architecture
    'unlens-paper'
    """
    file = Path(path)
    if str(path) in recipes() and not file.is_file():
        file = _SHIPPED / f"{path}.yaml"
    if not file.is_file():
        raise ValueError(f"{path} is no file and no recipe of the package; these are {', '.join(recipes())}")
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    return from_mapping(Recipe, content, str(path))


def from_mapping(kind: type, content: Any, where: str):
    """Fill a dataclass from a mapping, nested ones too.

    Raises
    ------
    ValueError
        For what is no mapping, a key that is missing, a key that is unknown; the message says where.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{where} must be a mapping of {', '.join(f.name for f in fields(kind))}; got {content!r}")
    known = {f.name: f for f in fields(kind)}
    for key in content:
        if key not in known:
            raise ValueError(f"{where} has the unknown key {key!r}; {advice(key, known)}")
    needed = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in needed if name not in content]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    nested = {"network": Network, "length": Length} if kind is Recipe else {}
    values = {
        key: from_mapping(nested[key], value, f"{where}: {key}") if key in nested else value
        for key, value in content.items()
    }
    return kind(**values)


def _is_distribution(value: Mapping[str, Any]) -> bool:
    """``{Uniform: [0, 1]}`` is one thing, replaced as a whole."""
    return len(value) == 1 and str(next(iter(value)))[:1].isupper()


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(old)
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping) and not _is_distribution(value):
            result[key] = _merged(result[key], value)
        elif value is None and key in result and key != "patience":
            del result[key]
        else:
            result[key] = value
    return result
