"""Galaxies that a generator is to make: which generator, with which options and wishes, as plain data.

Nothing is made here. `lensdeblend.simulators.generated` turns a `GeneratedSource` into an `ImageSource`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral
from typing import Any

import astropy.units as u
from astropy.units import Quantity

from lensdeblend.scenes.components import LightComponent
from lensdeblend.spelling import advice

__all__ = ["GeneratedSource", "SourceGenerator"]


@dataclass(frozen=True)
class SourceGenerator:
    """A generator by name, with what it is to be given.

    Parameters
    ----------
    method : str
        A name of ``methods("generator")``, or ``"distribution::name"``.
    options : mapping
        Fields of the method's dataclass.
    conditions : mapping
        Wishes as `~lensdeblend.generate` takes them, one value each. None leaves to the generator what a population
        would wish of it.

    Examples
    --------
    >>> from lensdeblend.scenes import SourceGenerator
    >>> print(SourceGenerator("vae-flow", options={"pixels": 96}, conditions={"n": None}))
    vae-flow, options pixels=96, conditions n=None
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.method, str) or not self.method:
            raise TypeError(f"SourceGenerator: method must be the name of a generator; got {self.method!r}")
        for name in ("options", "conditions"):
            given = getattr(self, name)
            if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
                raise TypeError(f"SourceGenerator: {name} must be a mapping of names to values; got {given!r}")
            object.__setattr__(self, name, {key: _without_empty_unit(value) for key, value in given.items()})

    @classmethod
    def of(cls, content: Any) -> SourceGenerator:
        """Take a name, a mapping with ``method``, ``options`` and ``conditions``, or what is one already.

        Raises
        ------
        TypeError
            For anything else.
        ValueError
            For an unknown key.
        """
        if isinstance(content, cls):
            return content
        if not isinstance(content, Mapping):
            return cls(content)
        known = [entry.name for entry in fields(cls)]
        for key in content:
            if key not in known:
                raise ValueError(f"a generator has no {key!r}; {advice(key, known)}")
        if "method" not in content:
            raise ValueError("a generator needs its method, such as {method: vae-flow}")
        return cls(**{key: {} if value is None else value for key, value in content.items()})

    def wishing(self, **wishes: Any) -> SourceGenerator:
        """The same with ``wishes`` as conditions, but for those that it has itself, and without those that are None."""
        conditions = {name: value for name, value in {**wishes, **self.conditions}.items() if value is not None}
        return SourceGenerator(self.method, self.options, conditions)

    def __str__(self) -> str:
        parts = [self.method]
        for name in ("options", "conditions"):
            given = ", ".join(f"{key}={value}" for key, value in getattr(self, name).items())
            parts += [f"{name} {given}"] if given else []
        return ", ".join(parts)


@dataclass(frozen=True)
class GeneratedSource(LightComponent):
    """A galaxy that a generator makes: an `ImageSource` to be.

    ``generator`` is a `SourceGenerator`, or the name of a method; the same ``seed`` gives the same galaxy. ``flux`` is
    that of the galaxy's stamp; left out, it is the magnitude that the generator's catalogue states. ``angle`` turns
    the galaxy counter-clockwise. `~lensdeblend.simulate` makes the image and hands it to whichever simulator there is.
    """

    generator: SourceGenerator
    flux: float | Quantity | None = None
    seed: int = 0
    angle: Quantity = field(default=0.0 * u.deg, metadata={"unit": u.deg})
    center_x: Quantity = field(default=0.0 * u.arcsec, metadata={"unit": u.arcsec})
    center_y: Quantity = field(default=0.0 * u.arcsec, metadata={"unit": u.arcsec})

    def __post_init__(self):
        object.__setattr__(self, "generator", SourceGenerator.of(self.generator))
        super().__post_init__()
        if isinstance(self.seed, bool) or not isinstance(self.seed, Integral) or self.seed < 0:
            self._refuse(f"seed must be a whole number of at least 0; got {self.seed!r}")


def _without_empty_unit(value: Any) -> Any:
    if isinstance(value, Quantity) and value.unit == u.dimensionless_unscaled:
        return value.value.tolist()
    return value
