"""Architectures, losses and weight files: plain tensors in, plain tensors out."""

from lensdeblend.networks.architectures import architecture, architectures, build

__all__ = ["architecture", "architectures", "build"]
