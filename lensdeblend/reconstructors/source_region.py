"""Which part of the source plane is taken into pixels, and which pixels."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, label
from scipy.spatial import cKDTree
from torch import Tensor

from lensdeblend.lensing.inversion import SourceFrame, trace_back
from lensdeblend.lensing.source_grids import DelaunayGrid, RegularGrid
from lensdeblend.reconstructors.frame import Frame

__all__ = ["Arcs", "adaptive_grid", "find_source", "regular_grid"]

log = logging.getLogger(__name__)

_SMOOTHING = 1.0
_SIGMA = 4.0
_FEWEST_PIXELS = 6
# How far the light reaches, in units of its rms size, at least and at most.
_REACH = 2.5, 4.5


@dataclass(frozen=True)
class Arcs:
    """The image pixels in which the source shows: positions, light, and the frame they span in the source plane.

    ``reach`` is how far the traced pixels lie from the middle, in units of the frame.
    """

    x: Tensor
    y: Tensor
    light: Tensor
    frame: SourceFrame
    reach: float


def find_source(frame: Frame, light: Tensor, lens: Tensor) -> Arcs:
    """What stands out four sigma from ``frame`` less ``light`` (ny, nx), smoothed, in groups of six pixels or more."""
    rest = frame.with_data(frame.data - light)
    smooth = rest.smoothed(_SMOOTHING)
    noise = np.sqrt(gaussian_filter((frame.sigma.numpy() * frame.used.numpy()) ** 2, _SMOOTHING / np.sqrt(2)))
    noise = noise / (2 * np.sqrt(np.pi) * _SMOOTHING)
    shown = (smooth > _SIGMA * noise) & frame.used.numpy()
    groups, _ = label(shown, np.ones((3, 3)))
    shown &= np.bincount(groups.ravel())[groups] >= _FEWEST_PIXELS
    if shown.sum() < _FEWEST_PIXELS:
        shown = frame.used.numpy() & (smooth >= np.quantile(smooth[frame.used.numpy()], 0.95))
    x, y = (torch.as_tensor(v[shown]) for v in frame.positions())
    weight = torch.as_tensor(np.clip(smooth[shown], 1e-3 * noise[shown], None))
    moving = SourceFrame(x, y, weight)
    px, py, _ = moving(*trace_back(x, y, lens), lens)
    distance = torch.hypot(px, py)
    order = torch.argsort(distance)
    # Noise peaks far out are few and faint.
    share = torch.cumsum(weight[order], 0) / weight.sum()
    reach = float(distance[order][int(torch.searchsorted(share, 0.99).clamp_max(len(order) - 1))])
    return Arcs(x, y, weight, moving, float(np.clip(1.15 * reach + 0.4, *_REACH)))


def regular_grid(arcs: Arcs, side: int) -> RegularGrid:
    """A square of ``side`` pixels a side in the coordinates of the frame."""
    return RegularGrid((0.0, 0.0), 2 * arcs.reach / (side + 1), (side, side))


def adaptive_grid(arcs: Arcs, side: int, x: Tensor, y: Tensor, light: np.ndarray) -> DelaunayGrid:
    """About ``side`` squared vertices on traced image pixels, closer where the source is brighter.

    ``x``, ``y`` are all image pixels in the coordinates of the frame, ``light`` the smoothed data there.
    """
    inside = (torch.maximum(x.abs(), y.abs()) < arcs.reach).numpy()
    points = torch.stack([x, y], 1).numpy()[inside]
    light = np.clip(light[inside] / np.quantile(light[inside], 0.99), 0.02, 1)
    # Neighbouring images of one place differ by noise: the mean of the nearest is steadier.
    tree = cKDTree(points)
    light = light[tree.query(points, k=min(9, len(points)))[1]].mean(1)
    wish = light**-0.25
    spacing = arcs.reach / side
    for _ in range(4):
        chosen = _thinned(points, tree, light, spacing * wish)
        filler = np.stack(np.meshgrid(*[np.arange(-arcs.reach, arcs.reach, 2 * spacing)] * 2), -1).reshape(-1, 2)
        far = cKDTree(chosen).query(filler)[0] > 1.5 * spacing
        chosen = np.concatenate([chosen, filler[far]])
        if 0.85 < len(chosen) / side**2 < 1.15:
            break
        spacing *= np.sqrt(len(chosen)) / side
    log.debug("adaptive grid of %d vertices", len(chosen))
    return DelaunayGrid(chosen[:, 0], chosen[:, 1])


def _thinned(points: np.ndarray, tree: cKDTree, light: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The brightest of the points, then the brightest of those further from it than its ``distance``, and so on."""
    blocked = np.zeros(len(points), bool)
    taken = []
    for index in np.argsort(-light, kind="stable"):
        if not blocked[index]:
            taken.append(index)
            blocked[tree.query_ball_point(points[index], distance[index])] = True
    return points[taken]
