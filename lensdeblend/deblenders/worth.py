r"""What a further galaxy is worth, where galaxies have arms and knots that no model of theirs has.

At high signal-to-noise these would pass for galaxies. So the residual :math:`r` of a fit is weighed by

.. math::

    \chi^2 = r^T (N + u^2 M^2 + D)^{-1} r,

with the noise :math:`N`, a share :math:`u` of the model :math:`M`, pixel by pixel, and the departures :math:`D` of the
galaxies from their profiles, smooth on the scale of each (`~lensdeblend.deblenders.departures.Departures`). These are
as strong as what the further galaxy leaves says: where that is noise, it is worth all that it takes from the residual;
among arms and knots, one more of these is worth little.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lensdeblend.deblenders.departures import Departures
from lensdeblend.deblenders.fitting import BlendFit

__all__ = ["worth"]

# Of the light, what may differ from pixel to pixel.
_UNEXPLAINED = 0.2
# Variance of the departures over that of those left, as the further galaxy may have taken the strongest.
_MORE = 2.0


def worth(
    before: BlendFit, after: BlendFit, levels: Sequence[float], device: str, *, structured: bool
) -> float:
    """By how much chi-square falls from one fit to another, which has one galaxy more at its end.

    The galaxies of the first depart from their profiles as strongly as they do in the second; not at all where they are
    not ``structured``.
    """
    total = 0.0
    for numbers in before.blend.grids:
        old, new = (
            Departures.of(fit.blend, numbers, fit.images, _positions(fit), levels, device, unexplained=_UNEXPLAINED)
            for fit in (before, after)
        )
        variances = old.sizes.new_zeros((2, len(old.sizes)))
        if structured and new.significant():
            variances = _MORE * new.likeliest()[0][:, :-1]
        left = torch.where(new.weight > 0, new.residual * old.weight / new.weight.clamp_min(1e-300), 0.0)
        fall = old.chi2(torch.stack([old.residual, left]), variances)
        total += float(fall[0] - fall[1])
    return total


def _positions(fit: BlendFit) -> np.ndarray:
    return np.array([[fit.value("x", g)[0], fit.value("y", g)[0]] for g in range(len(fit))])
