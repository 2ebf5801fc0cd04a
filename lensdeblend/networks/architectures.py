"""Architectures by name: what recipes and weight files speak of."""

from __future__ import annotations

import inspect
from importlib import import_module

from torch import nn

from lensdeblend.spelling import advice

__all__ = ["architecture", "architectures", "build"]

_CLASSES = {
    "unlens-paper": "lensdeblend.networks.paper:PaperUnlenser",
    "unlens": "lensdeblend.networks.unlenser:Unlenser",
    "lens-posterior": "lensdeblend.networks.posterior:LensPosterior",
    "deblend-generator": "lensdeblend.networks.deblending:Generator",
    "galaxy-autoencoder": "lensdeblend.networks.galaxies:GalaxyAutoencoder",
    "super-lens": "lensdeblend.networks.super_lens:SuperLens",
    "super-paper": "lensdeblend.networks.super_paper:PaperDeflector",
    "super-rcan": "lensdeblend.networks.rcan:RcanDeflector",
    "super-srgan": "lensdeblend.networks.srgan:SrganDeflector",
    "super-feature-gan": "lensdeblend.networks.srgan:SrganDeflector",
    "super-rcan-supervised": "lensdeblend.networks.rcan:RcanImager",
}


def architectures() -> list[str]:
    """List the names that `architecture` knows."""
    return list(_CLASSES)


def architecture(name: str) -> type[nn.Module]:
    """Return the class of the architecture called ``name``.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name not in _CLASSES:
        raise ValueError(f"unknown architecture {name!r}; {advice(name, _CLASSES)}")
    module, _, attribute = _CLASSES[name].partition(":")
    return getattr(import_module(module), attribute)


def build(name: str, options: dict | None = None) -> nn.Module:
    """Make a network.

    Raises
    ------
    ValueError
        For an unknown architecture, or an option that it does not have.
    """
    maker, options = architecture(name), dict(options or {})
    known = list(inspect.signature(maker).parameters)
    for option in options:
        if option not in known:
            raise ValueError(f"the architecture {name!r} has no option {option!r}; it has {', '.join(known)}")
    return maker(**options)
