"""Super-resolution as published: a residual CNN that tells of a radial deflection, and a disc lensed by it."""

from __future__ import annotations

from dataclasses import dataclass

from lensdeblend.superresolvers.radial import Radial

__all__ = ["PhysicsPaper"]


@dataclass(frozen=True)
class PhysicsPaper(Radial):
    """Read the deflection off the image by the published residual CNN, and lens the published disc by it.

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
    Pixels become two times smaller, nothing else. The source is a circular exponential disc of 0.25 arcsec about the
    brightest pixel of the image traced back, the deflection radial but for a trace; neither sees the PSF
    (`lensdeblend.lensing.radial_decoder`, which says what the description leaves open). The network sees each image
    scaled by its own minimum and maximum; flux comes back by the slope and the offset that bring the lensed disc,
    summed on the data's pixels, closest to them. `lensdeblend.superresolvers.physics.Physics` keeps to the lens
    equation instead.

    ``source`` is the disc, ``convergence`` half the divergence of ``deflection``, which no potential need have. There
    are no errors, no ``parameters`` and no ``intrinsic`` image. Masked pixels do not count in ``chi2``; the network is
    shown what is around them.

    Flags: ``"poor fit"`` where ``chi2`` is more than three standard deviations above 1, ``"out_of_domain: ..."`` where
    the image is unlike those trained on.

    References
    ----------
    Alexander et al. 2020 (2020ApJ...893...15A) for the lenses of DeepLense.

    Examples
    --------
    >>> from lensdeblend.superresolvers.physics_paper import PhysicsPaper
    >>> PhysicsPaper(batch=8).weights
    'auto'
    """

    name = "physics-paper"
    architecture = "super-paper"
