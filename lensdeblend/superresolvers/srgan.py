"""Super-resolution by a radial deflection that was learned against critics."""

from __future__ import annotations

from dataclasses import dataclass

from lensdeblend.superresolvers.radial import Radial

__all__ = ["Srgan"]


@dataclass(frozen=True)
class Srgan(Radial):
    """Read the deflection off the image by a generator trained against three critics, and lens the published disc.

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
    Critics judge images on pixels two times smaller than the data's, as large, and two times larger: the data brought
    to these, and the lensed disc. They are of no use afterwards. Decoder and everything in the result are as
    in `lensdeblend.superresolvers.physics_paper.PhysicsPaper`.

    References
    ----------
    Ledig et al. 2017 (2016arXiv160904802L).

    Examples
    --------
    >>> from lensdeblend.superresolvers.srgan import Srgan
    >>> Srgan(batch=8).weights
    'auto'
    """

    name = "srgan"
    architecture = "super-srgan"
