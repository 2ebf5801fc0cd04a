"""A small network that tells classes of images apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lensdeblend.evaluation.two_sample import turned
from lensdeblend.lensing.threads import single_thread

__all__ = ["class_probabilities"]

_WIDTHS = (24, 32, 48)
_ROUNDS, _BATCH, _RATE, _DECAY, _DROPPED = 16, 64, 3e-3, 1e-2, 0.3
_JUDGED_AT_ONCE = 256


def class_probabilities(
    learned: Sequence[np.ndarray], truth: np.ndarray, judged: Sequence[np.ndarray], classes: int, seed: int, *,
    networks: int = 2,
) -> np.ndarray:
    """How probable each class is for each image, (n, classes), the mean over the networks and eight orientations.

    Parameters
    ----------
    learned, judged : sequence of (n, channels, ny, nx) arrays
        Of one or more grids, sides of each a whole number of times those of the first, the pixels of the finer ones
        are channels of the coarsest. What the networks learn from, and what they judge.
    truth : (n,) array of int
        The class of each image learned from.
    classes : int
    seed : int
        The same seed gives the same networks, on one machine.
    networks : int
        How many are trained, on the same images in another order from other weights.
    """
    learned, judged = ([torch.as_tensor(part, dtype=torch.float32) for part in parts] for parts in (learned, judged))
    truth = torch.as_tensor(truth, dtype=torch.long)
    with single_thread(), torch.random.fork_rng(devices=[]):
        told = []
        for which in range(networks):
            torch.manual_seed(seed + which)
            network = _trained(learned, truth, classes)
            with torch.no_grad():
                told.append(_judged(network, judged))
    return torch.stack(told).mean(0).double().numpy()


def _trained(images: list[Tensor], truth: Tensor, classes: int) -> nn.Module:
    channels = sum(part.shape[1] * _times(part, images[0]) ** 2 for part in images)
    layers, before = [nn.BatchNorm2d(channels, affine=False)], channels
    for width in _WIDTHS:
        layers += [nn.Conv2d(before, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.SiLU()]
        before = width
    network = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(_DROPPED), nn.Linear(16 * before, classes),
    )
    optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=_DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_ROUNDS * -(-len(truth) // _BATCH))
    for _ in range(_ROUNDS):
        for some in torch.randperm(len(truth)).split(_BATCH):
            # Batch normalisation needs two.
            if len(some) > 1:
                optimizer.zero_grad()
                shown = _shown([part[some] for part in images], int(torch.randint(8, ())))
                cross_entropy(network(shown), truth[some]).backward()
                optimizer.step()
            rate.step()
    return network.eval()


def _judged(network: nn.Module, images: list[Tensor]) -> Tensor:
    rows = []
    for some in torch.arange(len(images[0])).split(_JUDGED_AT_ONCE):
        parts = [part[some] for part in images]
        rows.append(sum(network(_shown(parts, which)).softmax(1) for which in range(8)) / 8)
    return torch.cat(rows)


def _shown(parts: list[Tensor], which: int) -> Tensor:
    """In one of eight orientations, all on the pixels of the first."""
    return torch.cat([
        nn.functional.pixel_unshuffle(turned(part, which), _times(part, parts[0])) for part in parts
    ], 1)


def _times(part: Tensor, first: Tensor) -> int:
    times, rest = divmod(part.shape[-1], first.shape[-1])
    if rest or part.shape[-2] != times * first.shape[-2]:
        raise ValueError(
            f"{tuple(part.shape[-2:])} pixels are not a whole number of times as many as {tuple(first.shape[-2:])}"
        )
    return times
