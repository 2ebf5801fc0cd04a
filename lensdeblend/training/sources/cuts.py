"""Which galaxies of a catalogue are learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass

import numpy as np

from lensdeblend.training.sources.isolate import Unusable

__all__ = ["Cuts"]


@dataclass(frozen=True)
class Cuts:
    """Limits on the galaxies of a GalSim catalogue; pictures and FITS images of a folder have none of these numbers,
    and are all kept.

    Parameters
    ----------
    magnitude, redshift : tuple of two floats, optional
        Least and most.
    resolved : float, optional
        How wide a galaxy must be over its PSF, by adaptive moments of both: narrower ones are point sources.

    Examples
    --------
    >>> from lensdeblend.training.sources import Cuts
    >>> Cuts(magnitude=(18, 23.5), resolved=1.2)
    Cuts(magnitude=(18, 23.5), redshift=None, resolved=1.2)
    """

    magnitude: tuple[float, float] | None = None
    redshift: tuple[float, float] | None = None
    resolved: float | None = None

    def __post_init__(self):
        for name in ("magnitude", "redshift"):
            limits = getattr(self, name)
            if limits is None:
                continue
            limits = tuple(limits) if isinstance(limits, (list, tuple)) else limits
            numbers = isinstance(limits, tuple) and len(limits) == 2 and all(map(_is_number, limits))
            if not numbers or not limits[0] < limits[1]:
                raise ValueError(f"the cut on {name} must be two numbers, the least and the most; got {limits!r}")
            object.__setattr__(self, name, limits)
        if self.resolved is not None and not (_is_number(self.resolved) and self.resolved > 0):
            raise ValueError(f"the cut resolved must be a positive number; got {self.resolved!r}")

    def __bool__(self) -> bool:
        return any(limit is not None for limit in astuple(self))

    def needed(self) -> list[str]:
        """The columns of a catalogue that the cuts are of."""
        return [name for name in ("magnitude", "redshift") if getattr(self, name) is not None]

    def check(self, known: Mapping[str, float], width: Callable[[], float] | None) -> None:
        """Raise `Unusable` for a galaxy that is beyond, with the reason.

        Parameters
        ----------
        known : mapping of str to float
            ``magnitude`` and ``redshift``, NaN where they are unknown.
        width : callable, optional
            Gives that of the galaxy over that of its PSF, NaN where it cannot be measured.
        """
        for name in self.needed():
            low, high = getattr(self, name)
            if not np.isfinite(known[name]):
                raise Unusable(f"{name} unknown")
            if not low <= known[name] <= high:
                raise Unusable(f"{name} beyond the cut")
        if self.resolved is not None and width is not None and not width() >= self.resolved:
            raise Unusable("point source")


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
