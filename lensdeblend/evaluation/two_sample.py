"""Whether a network can tell two kinds of galaxies apart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lensdeblend.lensing.threads import single_thread

__all__ = ["area_under_curve", "turned", "two_sample_auc"]

_WIDTHS = (16, 32, 48)
_ROUNDS, _BATCH, _RATE = 24, 64, 3e-3
_FAINT = 0.1


def two_sample_auc(
    real: np.ndarray, made: np.ndarray, groups: np.ndarray, seed: int, *, folds: int = 2
) -> tuple[float, float]:
    """Area under the ROC curve of a small network that learns which galaxies are ``made``, and its standard error.

    0.5 where it cannot tell, 1 where it always can. Each galaxy is judged by a network that has not learned from it,
    nor from another of its group; a network that learned more galaxies would tell more.

    Parameters
    ----------
    real, made : (n, bands, ny, nx) arrays
        As they are seen, with noise.
    groups : (n,) array
        Galaxies that belong together, of both samples alike.
    seed : int
    folds : int

    References
    ----------
    Lopez-Paz & Oquab 2017 (arXiv:1610.06545) for two-sample tests by classifiers; Hanley & McNeil 1982
    (10.1148/radiology.143.1.7063747) for the error.
    """
    kinds, where = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(kinds))[where] % folds
    images = _normalised(np.concatenate([real, made]))
    truth = torch.cat([torch.zeros(len(real)), torch.ones(len(made))])
    fold = torch.as_tensor(np.concatenate([fold, fold]))
    scores = torch.zeros(len(images))
    with single_thread(), torch.random.fork_rng(devices=[]):
        for own in range(folds):
            torch.manual_seed(seed + own)
            told = fold == own
            network = _learned(images[~told], truth[~told])
            with torch.no_grad():
                # Networks of two folds have no common zero.
                found = _mean_over_orientations(network, images[told])
                scores[told] = (found - found.mean()) / found.std().clamp_min(1e-9)
    return area_under_curve(scores.numpy(), truth.numpy())


def area_under_curve(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Of the ROC curve, and its standard error.

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.evaluation.two_sample import area_under_curve
    >>> area_under_curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))[0]
    0.75
    """
    from scipy.stats import rankdata

    positive = truth > 0.5
    most, least = np.count_nonzero(positive), np.count_nonzero(~positive)
    area = (rankdata(scores)[positive].sum() - most * (most + 1) / 2) / (most * least)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (most - 1) * (q1 - area**2) + (least - 1) * (q2 - area**2)
    return float(area), float(np.sqrt(max(variance, 0.0) / (most * least)))


def _normalised(images: np.ndarray) -> Tensor:
    """Brightness in units of the brightest pixel, and compressed."""
    tensor = torch.as_tensor(images, dtype=torch.float32)
    tensor = tensor / tensor.flatten(1).amax(1).clamp_min(1e-30)[:, None, None, None]
    return torch.cat([tensor, torch.asinh(tensor / _FAINT) / 3], 1)


def _learned(images: Tensor, truth: Tensor) -> nn.Module:
    layers, before = [], images.shape[1]
    for width in _WIDTHS:
        layers += [nn.Conv2d(before, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.SiLU()]
        before = width
    network = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16 * before, 1), nn.Flatten(0),
    )
    steps = _ROUNDS * -(-len(images) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    for _ in range(_ROUNDS):
        for some in torch.randperm(len(images)).split(_BATCH):
            shown = turned(images[some], int(torch.randint(8, ())))
            # Batch normalisation needs two.
            if len(some) > 1:
                optimizer.zero_grad()
                binary_cross_entropy_with_logits(network(shown), truth[some]).backward()
                optimizer.step()
            rate.step()
    return network.eval()


def turned(images: Tensor, which: int) -> Tensor:
    """Images (..., n, n) in one of their eight orientations."""
    images = images.flip(-1) if which >= 4 else images
    return torch.rot90(images, which % 4, (-2, -1))


def _mean_over_orientations(network: nn.Module, images: Tensor) -> Tensor:
    return torch.stack([network(turned(images, which)) for which in range(8)]).mean(0)
