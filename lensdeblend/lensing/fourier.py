r"""Galaxies drawn in Fourier space: each a point, a Sérsic, or several Sérsics with one centre and one shape.

The transform of a galaxy through pixels and PSF is a product,

.. math::

    \sum_c a_c F_{n_c}\big(R_c \sqrt{k^T S\, k}\big) \; e^{-i k \cdot x} \; \mathrm{sinc}(k/2\pi) \; P(k),

with :math:`F_n` from `lensdeblend.lensing.hankel`, so that its derivatives are products too, and one inverse transform
of the small frame is all that a component or a derivative costs; wave numbers that no PSF lets through are left out. A
model is averaged over each pixel before it goes through the PSF, and pixels fold what is finer than they are: to
compact and steep components the images of their transforms one wave a pixel away are added. Without a PSF, or with one
that is as sharp as the pixels, all is drawn three times as finely instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lensdeblend.lensing.fourier_frames import FourierFrame
from lensdeblend.lensing.galaxy_layout import GalaxyLayout
from lensdeblend.lensing.hankel import SersicTransform, sersic_transform

__all__ = ["Rendered", "render"]

_STEEP, _COMPACT = float(np.log(1.5)), float(np.log(2.0))
_IMAGES = (1, 0), (-1, 0), (0, 1), (0, -1)
_OF_GALAXIES = ("x", "y", "e1", "e2")


@dataclass
class Rendered:
    """Components in the bands of a frame at amplitude 1, ``basis`` (starts, bands, components, ny, nx), and what their
    derivatives are made of."""

    basis: Tensor
    layout: GalaxyLayout
    frame: FourierFrame
    plane: _Plane
    more: _Folded | None

    def band(self, place: int) -> Rendered:
        """One band alone, whose derivatives take the less memory."""
        frame = replace(self.frame, transfer=self.frame.transfer[:, [place]])
        return replace(self, basis=self.basis[:, [place]], frame=frame)

    def derivatives(self, amplitudes: Tensor) -> Tensor:
        """Of the whole by each parameter, (starts, bands, P, ny, nx), with ``amplitudes`` (starts, bands,
        components)."""
        layout, plane, size = self.layout, self.plane, len(self.layout.names)
        owned = torch.nn.functional.one_hot(layout.owner(amplitudes.device), len(layout)).T.to(amplitudes)
        weights = (amplitudes[:, :, None] * owned).to(plane.value.dtype)
        value, by_radius = weights @ plane.value[:, None], weights @ plane.by_radius[:, None]
        slopes = {
            "x": value * (-1j * self.frame.kx), "y": value * (-1j * self.frame.ky),
            "e1": by_radius * plane.shape1[:, None], "e2": by_radius * plane.shape2[:, None],
        }
        if self.more is not None:
            some = weights[..., self.more.components]
            for key, slope in slopes.items():
                slope[..., self.frame.folded] += some @ getattr(self.more, key)[:, None]
        slopes["log_radius"] = amplitudes[..., None] * plane.by_radius[:, None]
        if plane.by_index is not None:
            slopes["log_n"] = amplitudes[..., None] * plane.by_index[:, None]
        parts = value.new_empty(*amplitudes.shape[:2], size, value.shape[-1])
        for key, slope in slopes.items():
            free = [k for k, column in enumerate(layout.places[key]) if column < size]
            if free:
                parts[:, :, [layout.places[key][k] for k in free]] = slope[:, :, free]
        return self.frame.images(parts)


def render(
    parameters: Tensor, layout: GalaxyLayout, frames: Sequence[FourierFrame], table: SersicTransform | None = None,
    *, fold: bool = True,
) -> list[Rendered]:
    """Draw the components in the bands of every frame.

    Parameters
    ----------
    parameters : Tensor
        (starts, P) as `GalaxyLayout` orders them.
    layout : GalaxyLayout
    frames : sequence of FourierFrame
    table : SersicTransform, optional
        Left out, that of the parameters' dtype and device.
    fold : bool
        Whether to fold in what is finer than the pixels.
    """
    table = table or sersic_transform(parameters.dtype, str(parameters.device))
    components = _Components.of(parameters, layout, table)
    found = []
    for frame in frames:
        plane = components.plane(frame.kx, frame.ky)
        more = _Folded.onto(plane, components, frame) if fold and frame.grid.finer == 1 else None
        found.append(Rendered(frame.images(plane.value[:, None]), layout, frame, plane, more))
    return found


@dataclass
class _Plane:
    """Transforms of the components (starts, components, M) and of their derivatives by the logarithms of radius and
    index; ``shape1``, ``shape2`` (starts, galaxies, M): the logarithm of a wave number's modulus by ellipticity."""

    value: Tensor
    by_radius: Tensor
    by_index: Tensor | None
    shape1: Tensor
    shape2: Tensor


@dataclass
class _Components:
    """Numbers of galaxies (starts, galaxies, 1) and of components (starts, components, 1), and profiles as
    `SersicTransform.rows` gives them."""

    x: Tensor
    y: Tensor
    e1: Tensor
    e2: Tensor
    log_radius: Tensor
    owner: Tensor
    rows: tuple[Tensor, ...]
    table: SersicTransform
    compact: Tensor

    @classmethod
    def of(cls, parameters: Tensor, layout: GalaxyLayout, table: SersicTransform) -> _Components:
        full = torch.cat([parameters, parameters.new_tensor(layout.constants).expand(len(parameters), -1)], 1)
        log_radius, log_n = full[:, layout.places["log_radius"]], full[:, layout.places["log_n"]]
        compact = (log_n > _STEEP) | (log_radius < _COMPACT)
        rows = table.rows(log_n)
        loose = any(column < len(layout.names) for column in layout.places["log_n"])
        return cls(
            *(full[:, layout.places[key], None] for key in _OF_GALAXIES), log_radius[:, :, None],
            layout.owner(parameters.device), rows if loose else rows[:2], table,
            torch.nonzero(compact.any(0)).flatten(),
        )

    def chosen(self, index: Tensor) -> _Components:
        return replace(
            self, log_radius=self.log_radius[:, index], owner=self.owner[index],
            rows=tuple(row[:, index] for row in self.rows),
        )

    def plane(self, kx: Tensor, ky: Tensor, ratio: Tensor | None = None, shift: float = 0.0) -> _Plane:
        """At ``kx``, ``ky`` (M,), times the real ``ratio`` (M,), the phase less by ``shift``."""
        modulus2 = self.e1 * self.e1 + self.e2 * self.e2
        both, difference, cross = kx * kx + ky * ky, kx * kx - ky * ky, 2 * kx * ky
        square = ((1 + modulus2) * both + 2 * self.e1 * difference + 2 * self.e2 * cross) / (1 - modulus2)
        square = square.clamp_min(1e-12)
        angle = -(kx * self.x + ky * self.y) - shift
        wave = torch.polar(torch.ones_like(angle) if ratio is None else ratio.expand_as(angle).contiguous(), angle)
        wave = wave[:, self.owner]
        log_kappa = 0.5 * square.log()[:, self.owner] + self.log_radius
        value, slope, *by_index = (part * wave for part in self.table.at(self.rows, log_kappa))
        scale = 1 / ((1 - modulus2) * square)
        return _Plane(
            value, slope, by_index[0] if by_index else None, scale * (self.e1 * (both + square) + difference),
            scale * (self.e2 * (both + square) + cross),
        )


@dataclass
class _Folded:
    """What the images of the transforms one wave a pixel away add to derivatives beyond their share in ``value`` and
    ``by_radius``, of ``components``, (starts, some, K)."""

    components: Tensor
    x: Tensor
    y: Tensor
    e1: Tensor
    e2: Tensor

    @classmethod
    def onto(cls, plane: _Plane, components: _Components, frame: FourierFrame) -> _Folded | None:
        """Fold the images of compact components onto ``plane``."""
        index, where = components.compact, frame.folded
        if not len(index):
            return None
        some = components.chosen(index)
        owner, kx, ky = some.owner, frame.kx[where], frame.ky[where]
        here = [k[where] for k in frame.own_wave_numbers]
        (xx, xy), (yx, yy) = frame.grid.matrix
        total = {key: 0.0 for key in ("value", "by_radius", "by_index", *_OF_GALAXIES)}
        for right, up in _IMAGES:
            # The sinc there over the sinc here.
            ratio = torch.ones_like(kx)
            for along, waves in zip(here, (right, up)):
                ratio = ratio * (-along / (along + waves) if waves else 1.0)
            move = 2 * np.pi * (xx * right + yx * up), 2 * np.pi * (xy * right + yy * up)
            shift = 2 * np.pi * (right * frame.grid.offset[0] + up * frame.grid.offset[1])
            there = some.plane(kx + move[0], ky + move[1], ratio, shift)
            total["value"] = total["value"] + there.value
            total["by_radius"] = total["by_radius"] + there.by_radius
            if there.by_index is not None:
                total["by_index"] = total["by_index"] + there.by_index
            total["x"] = total["x"] - 1j * move[0] * there.value
            total["y"] = total["y"] - 1j * move[1] * there.value
            for key in ("1", "2"):
                turned = getattr(there, f"shape{key}") - getattr(plane, f"shape{key}")[..., where]
                total[f"e{key}"] = total[f"e{key}"] + turned[:, owner] * there.by_radius
        for key in ("value", "by_radius", "by_index"):
            if getattr(plane, key) is not None:
                getattr(plane, key)[:, index[:, None], where] += total[key]
        return cls(index, *(total[key] for key in _OF_GALAXIES))
