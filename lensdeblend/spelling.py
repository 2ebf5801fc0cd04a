"""What to say to a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["advice"]


def advice(name: object, known: Iterable[str], have: str = "Known are") -> str:
    """Return the nearest of the known names as a question, where there is one, and all of them.

    Examples
    --------
    >>> from lensdeblend.spelling import advice
    >>> advice("pixeled", ["forward", "pixelated"])
    "did you mean 'pixelated'? Known are forward, pixelated"
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, 1, 0.4)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}{have} {', '.join(known) or 'none'}"
