"""Starts of a fit that another method proposes; it is asked for by name."""

from __future__ import annotations

import logging

import numpy as np
from astropy.nddata import NDData, VarianceUncertainty

from lensdeblend.plugins import create
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.network_posterior import as_starts, moved

__all__ = ["proposed_starts"]

log = logging.getLogger(__name__)

_METHOD = "posterior"
_DRAWN = 64


def proposed_starts(frame: Frame, rng: np.random.Generator, *, anywhere: bool) -> np.ndarray | None:
    """Starts (n, 14) drawn from the posterior a network reads off ``frame``, which shows no lens light.

    None where its weights are not there, or were trained on other images, unless it is to be asked ``anywhere``. What
    is drawn here leaves the stream of ``rng`` as it was.
    """
    # A little too wide is no fault of starts.
    method = create("reconstructor", _METHOD, symmetrise=True)
    if not anywhere and not method.ready:
        return None
    own, = rng.spawn(1)
    proposal = method.propose(_image(frame), _DRAWN, own)
    if proposal.flags and not anywhere:
        log.debug("no starts are proposed: %s", "; ".join(proposal.flags))
        return None
    return as_starts(moved(proposal.values, np.array(frame.grid.centre)), own)


def _image(frame: Frame) -> NDData:
    return NDData(
        frame.data.double().numpy(), uncertainty=VarianceUncertainty(frame.sigma.double().numpy() ** 2),
        mask=~frame.used.numpy(), psf=None if frame.kernel is None else frame.kernel.double().numpy(),
        meta={"PIXSCALE": frame.grid.scale},
    )
