r"""What galaxies have beyond their profiles, arms and knots and bars: smooth departures, as strong and as lopsided as
the data say.

With :math:`M_i` a galaxy's profiles through the PSF, its light becomes

.. math::

    I_i = M_i \, (1 + g_i),

its departures :math:`g_i` a Gaussian process (`lensdeblend.deblenders.departures`). Where no galaxy departs from its
profiles by more than noise does (the score test of a variance), nothing is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.departures import Departures

__all__ = ["Structure", "structured"]


@dataclass(frozen=True)
class Structure:
    """Galaxies with their structure.

    ``images``: one array (n, ny, nx) a band; ``flux_errors`` (n, bands): what not knowing it better adds to the errors
    of fluxes; ``strength`` (n,): root mean square of the departure, a fraction; ``numbers``: how many numbers the data
    have determined; ``at_bound`` (n,): whether a galaxy departs from its profiles by as much as may be, so that these
    hardly say what it is.
    """

    images: list[np.ndarray]
    flux_errors: np.ndarray
    strength: np.ndarray
    numbers: float
    at_bound: np.ndarray

    @classmethod
    def none(cls, images: Sequence[np.ndarray]) -> Structure:
        """Galaxies that are their profiles."""
        count = len(images[0])
        return cls(
            [np.array(one, float) for one in images], np.zeros((count, len(images))), np.zeros(count), 0.0,
            np.zeros(count, bool),
        )


def structured(
    blend: Blend, images: Sequence[np.ndarray], positions: np.ndarray, levels: Sequence[float], *, device: str = "cpu"
) -> Structure:
    """Add to galaxies what of the residual is theirs.

    Parameters
    ----------
    blend : Blend
    images : sequence of ndarray
        One array (n, ny, nx) a band: the galaxies' profiles, through the PSF.
    positions : ndarray
        (n, 2), pixels of the first band.
    levels : sequence of float
        Of the sky in each band.
    device : str
    """
    found = Structure.none(images)
    for bands in blend.grids:
        departures = Departures.of(blend, bands, images, positions, levels, device)
        if not departures.significant():
            continue
        variances, likeliest, determined = departures.likeliest()
        relative = departures.flux_errors(variances)
        for place, number in enumerate(bands):
            found.images[number] *= 1 + departures.windows.framed(likeliest[place]).cpu().numpy()
            found.flux_errors[:, number] = relative * found.images[number].sum((1, 2)).clip(0)
        found = replace(
            found, strength=np.maximum(found.strength, departures.strength(variances).cpu().numpy()),
            numbers=found.numbers + determined,
            at_bound=found.at_bound | departures.at_bound(variances).cpu().numpy(),
        )
    return found
