"""Super-resolution by a network that was trained on pairs: what any that never saw the truth is to be held against."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from lensdeblend.superresolvers.trained import Shown, Trained

__all__ = ["RcanSupervised"]


@dataclass(frozen=True)
class RcanSupervised(Trained):
    """Add to an interpolation what a residual channel-attention network has learned from the finer truth.

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
    Pixels become two times smaller, nothing else. The network draws an image and knows of no lens: there are no
    ``deflection``, no ``convergence``, no ``source`` and no ``parameters``, and no ``intrinsic`` image. It sees each
    image in units of the brightness of its own bright pixels, and answers in those. Masked pixels do not count in
    ``chi2``; the network is shown what is around them.

    ``chi2`` is that of the finer image summed on the data's pixels: what follows their noise is below 1. Flags:
    ``"poor fit"`` where it is more than three standard deviations above 1, ``"out_of_domain: ..."`` where the image is
    unlike those trained on.

    References
    ----------
    Zhang et al. 2018 (arXiv:1807.02758).

    Examples
    --------
    >>> from lensdeblend.superresolvers.rcan_supervised import RcanSupervised
    >>> RcanSupervised(batch=8).weights
    'auto'
    """

    name = "rcan-supervised"
    architecture = "super-rcan-supervised"

    def told(self, network: nn.Module, shown: Shown) -> list[dict]:
        images = network(shown.seen).double().cpu().numpy()
        return [{"image": image * unit, "fitted": 0} for image, unit in zip(images, shown.units)]
