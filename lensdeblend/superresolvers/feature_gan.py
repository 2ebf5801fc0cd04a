"""Super-resolution by a radial deflection learned in a classifier's latent space."""

from __future__ import annotations

from dataclasses import dataclass

from lensdeblend.superresolvers.radial import Radial

__all__ = ["FeatureGan"]


@dataclass(frozen=True)
class FeatureGan(Radial):
    """Read the deflection off the image by a generator that a classifier's latent space has trained, and lens a disc.

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
    The classifier tells the classes of substructure apart on images of low resolution. In its latent maps the lensed
    disc was to be as the data, and to critics as in `lensdeblend.superresolvers.srgan.Srgan`. Decoder and everything in
    the result are as in `lensdeblend.superresolvers.physics_paper.PhysicsPaper`.

    References
    ----------
    Johnson, Alahi & Fei-Fei 2016 (arXiv:1603.08155) for losses of this kind.

    Examples
    --------
    >>> from lensdeblend.superresolvers.feature_gan import FeatureGan
    >>> FeatureGan(batch=8).weights
    'auto'
    """

    name = "feature-gan"
    architecture = "super-feature-gan"
