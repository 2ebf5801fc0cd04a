"""The record with which a method makes itself known."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Method"]


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
        Importable modules the method needs beyond the package's core.
    reference : str
        Bibcode of the paper.
    """

    name: str
    target: str
    summary: str = ""
    requires: tuple[str, ...] = ()
    reference: str = ""
