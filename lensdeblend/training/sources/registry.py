"""Kinds of sources by name, as recipes write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from lensdeblend.spelling import advice
from lensdeblend.training.sources.base import Sources
from lensdeblend.training.sources.parametric import Parametric
from lensdeblend.training.sources.real import RealImages
from lensdeblend.training.sources.synthetic import Procedural

__all__ = ["sources"]

_KINDS: dict[str, Callable[..., Sources]] = {"parametric": Parametric, "procedural": Procedural, "real": RealImages}


def sources(kind: str, **options: Any) -> Sources:
    """Make the sources called ``kind``.

    Parameters
    ----------
    kind : str
        ``"parametric"``, ``"procedural"`` or ``"real"``.
    **options
        Fields of `Parametric`, `Procedural` or `RealImages`.

    Raises
    ------
    ValueError
        For an unknown kind or option; the message gives the known ones.

    Examples
    --------
    >>> from lensdeblend.training.sources import sources
    >>> sources("procedural", mix={"spiral": 1})
    Procedural(mix={'spiral': 1})
    """
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of sources {kind!r}; {advice(kind, _KINDS)}")
    known = [field.name for field in fields(_KINDS[kind])]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"sources of kind {kind!r} have no option {', '.join(unknown)}; known are {', '.join(known)}")
    return _KINDS[kind](**options)
