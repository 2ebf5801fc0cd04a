"""Parts that several architectures share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Added", "Attention", "ResidualBlock", "Upsample", "conv_block", "steady_norm"]


def steady_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the constants of Keras: with torch's, a channel that is hardly ever active can blow up."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def conv_block(channels: int, out: int, count: int = 2) -> nn.Sequential:
    """``count`` times a 3x3 convolution, batch norm and ReLU: (batch, channels, h, w) to (batch, out, h, w)."""
    layers = []
    for index in range(count):
        layers += [
            nn.Conv2d(channels if index == 0 else out, out, 3, padding=1, bias=False), steady_norm(out), nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class Added(nn.Sequential):
    """Layers in sequence, what comes out added to what went in."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, ``stride`` on the first: (batch, channels, h, w) to (batch, out, h', w')."""

    def __init__(self, channels: int, out: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.SiLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out),
        )
        self.shortcut = nn.Identity()
        if channels != out or stride > 1:
            pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(channels, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.body(x) + self.shortcut(x))


class Attention(nn.Module):
    """Self-attention over all pixels, added to the input: for small maps. (batch, channels, h, w), shape kept."""

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.mix = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        mixed, _ = self.mix(tokens, tokens, tokens, need_weights=False)
        return x + mixed.transpose(1, 2).reshape(x.shape)


class Upsample(nn.Module):
    """Transposed convolution to twice the size, joined with the skip connection."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.grow = nn.ConvTranspose2d(channels, out, 2, 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([skip, self.grow(x)], 1)
