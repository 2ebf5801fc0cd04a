"""The record with which a method makes itself known."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Method"]

_TARGET = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


@dataclass(frozen=True)
class Method:
    """One registered method.

    Parameters
    ----------
    name : str
        What users write in ``method=``.
    target : str
        ``"package.module:Class"``; imported only when the method is used.
    summary : str
        One line.
    requires : tuple of str
        Importable modules the method needs beyond the package's core; one that is not on the package index with its
        address after " @ ", as pip takes it: ``"package.module @ git+https://..."``.
    reference : str
        Bibcode of the paper.

    Raises
    ------
    TypeError, ValueError
        When a field could not be meant: the record is refused where it is written, not where it is used.

    Examples
    --------
    >>> from lensdeblend.plugins import Method
    >>> Method(name="mine", target="my_package.methods:Mine", summary="One line about it").name
    'mine'
    """

    name: str
    target: str
    summary: str = ""
    requires: tuple[str, ...] = ()
    reference: str = ""

    def __post_init__(self):
        for field in ("name", "target", "summary", "reference"):
            if not isinstance(getattr(self, field), str):
                raise TypeError(f"Method.{field} must be a str; got {getattr(self, field)!r}")
        if not self.name or "::" in self.name or self.name != self.name.strip():
            raise ValueError(f"Method.name must be a word without '::' or surrounding blanks; got {self.name!r}")
        if not _TARGET.fullmatch(self.target):
            raise ValueError(f"Method.target must look like 'package.module:Class'; got {self.target!r}")
        if isinstance(self.requires, str) or not all(isinstance(module, str) for module in self.requires):
            raise TypeError(f"Method.requires must be a tuple of module names; got {self.requires!r}")
        object.__setattr__(self, "requires", tuple(self.requires))
