"""Super-resolution by a radial deflection that a residual channel-attention network tells of."""

from __future__ import annotations

from dataclasses import dataclass

from lensdeblend.superresolvers.radial import Radial

__all__ = ["Rcan"]


@dataclass(frozen=True)
class Rcan(Radial):
    """Read the deflection off the image by residual blocks with channel and pixel attention, and lens a disc.

    Parameters
    ----------
    weights : str
        A name of ``lensdeblend weights``, or the path of a safetensors file; ``"auto"`` for those that were trained on
        the image's pixels and PSF.
    batch : int
        Images that are worked on at once.
    device : str
        ``"auto"`` (a GPU where there is one) or a torch device.

    Notes
    -----
    Decoder, losses and everything in the result are as in `lensdeblend.superresolvers.physics_paper.PhysicsPaper`.

    References
    ----------
    Zhang et al. 2018 (arXiv:1807.02758) for channel attention; Qin et al. 2020 (arXiv:1911.07559) for that of pixels.

    Examples
    --------
    >>> from lensdeblend.superresolvers.rcan import Rcan
    >>> Rcan(batch=8).weights
    'auto'
    """

    name = "rcan"
    architecture = "super-rcan"
