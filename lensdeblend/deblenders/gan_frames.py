"""Between the bands of a blend and what a trained generator sees: frames, channels, units, and the card's domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lensdeblend.deblenders.blend import Band, Blend
from lensdeblend.networks.deblending import Generator, Overlap
from lensdeblend.networks.orientations import Orientation, turned, turned_place
from lensdeblend.reconstructors.network_grid import gaussian_width

__all__ = ["Channels", "channels", "drawn", "outside"]

_MARGIN = 0.1


@dataclass(frozen=True)
class Channels:
    """Bands on one grid that are shown together, as many as the network has channels; ``numbers``, which of the blend's
    bands stands in each channel: a band that is left over stands in all."""

    bands: tuple[Band, ...]
    numbers: tuple[int, ...]


def channels(blend: Blend, count: int) -> list[Channels]:
    """All bands: those of one grid ``count`` at a time, what is left over one by one."""
    grids: dict[tuple, list[int]] = {}
    for number, band in enumerate(blend.bands):
        key = (band.data.shape, *np.round(band.matrix, 6).ravel(), *np.round(band.offset, 3))
        grids.setdefault(key, []).append(number)
    found = []
    for numbers in grids.values():
        whole = len(numbers) - len(numbers) % count
        found += [tuple(numbers[start:start + count]) for start in range(0, whole, count)]
        found += [(number,) * count for number in numbers[whole:]]
    return [Channels(tuple(blend.bands[number] for number in numbers), numbers) for numbers in found]


def drawn(
    network: Generator, shown: Channels, positions: np.ndarray, levels: Sequence[float], *, pixels: int, batch: int,
    orientations: Sequence[Orientation], device: str,
) -> np.ndarray:
    """The galaxies as the network draws them, in the unit of each band, (n, channels, ny, nx).

    Each is drawn in a frame of ``pixels`` a side that holds it, and is 0 beyond.
    """
    first = shown.bands[0]
    places = positions @ first.matrix.T + first.offset
    units = _units(shown, levels, network.rule)
    data = np.stack([
        np.where(band.used, band.data - levels[number], 0.0) / unit
        for band, number, unit in zip(shown.bands, shown.numbers, units)
    ])
    sigma = np.array([band.noise / unit for band, unit in zip(shown.bands, units)])
    if network.rule == "maximum":
        sigma = np.zeros_like(sigma)
    images = np.zeros((len(places), *data.shape))
    ny, nx = data.shape[1:]
    inside = [i for i, (x, y) in enumerate(places) if -0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5]
    for start in range(0, len(inside), batch):
        part = inside[start:start + batch]
        corners = [_corner(places[i], (ny, nx), pixels) for i in part]
        seen = _overlap(data, sigma, _width(first), places, part, corners, pixels, device)
        with torch.no_grad():
            galaxies = torch.stack([
                turned(network(_turned(seen, orientation)), orientation, back=True) for orientation in orientations
            ]).mean(0).double().cpu().numpy()
        for i, corner, galaxy in zip(part, corners, galaxies):
            own, frame = _overlapping(corner, (ny, nx), pixels)
            images[(i, slice(None), *own)] = galaxy[(slice(None), *frame)]
    # A share of the data has its noise, which would no longer be zero in the mean.
    images = images if network.rule == "maximum" else images.clip(0)
    return images * np.array(units)[:, None, None]


def _units(shown: Channels, levels: Sequence[float], rule: str) -> list[float]:
    """What is 1 to the network: pictures are of one scale in all channels, white being 1; else each band's noise."""
    if rule == "sum":
        return [band.noise for band in shown.bands]
    peaks = [np.where(b.used, b.data - levels[n], 0.0).max(initial=0.0) for b, n in zip(shown.bands, shown.numbers)]
    return [max(peaks) or 1.0] * len(shown.bands)


def _width(band: Band) -> float:
    return 0.0 if band.psf is None else gaussian_width(band.psf)


def _corner(place: np.ndarray, shape: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Row and column of the frame's first pixel: a small image is in its middle, a large one cut about the galaxy."""
    corner = []
    for centre, size in zip(place[::-1], shape):
        if size <= pixels:
            corner.append(-((pixels - size) // 2))
        else:
            corner.append(int(np.clip(np.rint(centre - (pixels - 1) / 2), 0, size - pixels)))
    return tuple(corner)


def _overlapping(corner: tuple[int, int], shape: tuple[int, int], pixels: int):
    """The slices of the image and of the frame that are the same pixels."""
    own, frame = [], []
    for start, size in zip(corner, shape):
        low, high = max(start, 0), min(start + pixels, size)
        own.append(slice(low, high))
        frame.append(slice(low - start, high - start))
    return tuple(own), tuple(frame)


def _overlap(data, sigma, width, places, part, corners, pixels: int, device: str) -> Overlap:
    images = np.zeros((len(part), len(data), pixels, pixels))
    centers, others = [], []
    for number, (i, corner) in enumerate(zip(part, corners)):
        own, frame = _overlapping(corner, data.shape[1:], pixels)
        images[(number, slice(None), *frame)] = data[(slice(None), *own)]
        moved = places - np.array(corner[::-1])
        centers.append(moved[i])
        near = np.delete(moved, i, 0)
        others.append(near[((near > -0.5) & (near < pixels - 0.5)).all(1)])
    most = max(1, *map(len, others))
    padded = np.full((len(part), most, 2), np.nan)
    for number, near in enumerate(others):
        padded[number, :len(near)] = near

    def told(values) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=device)

    count = len(part)
    return Overlap(told(images), told(np.tile(sigma, (count, 1))), told(np.full(count, width)), told(centers),
                   told(padded))


def _turned(seen: Overlap, orientation: Orientation) -> Overlap:
    middle = (seen.image.shape[-1] - 1) / 2
    return replace(
        seen, image=turned(seen.image, orientation).contiguous(),
        center=turned_place(seen.center - middle, orientation) + middle,
        others=turned_place(seen.others - middle, orientation) + middle,
    )


def outside(blend: Blend, positions: np.ndarray, domain: Mapping, rule: str) -> list[str]:
    """Flags that say in what a blend differs from those of a card's ``domain``."""
    flags, pixels, bands = [], domain["pixels"], domain["bands"]
    groups = channels(blend, bands)
    if any(len(set(shown.numbers)) != bands for shown in groups) and not (domain.get("alone") and len(groups) == 1):
        flags.append(f"out_of_domain: bands that were not shown in groups of {bands} on one grid, as in training")
    small, large, least = min(blend.shape), max(blend.shape), domain.get("smallest", pixels)
    if small < (1 - _MARGIN) * least or (rule == "maximum" and large > (1 + _MARGIN) * pixels):
        flags.append(f"out_of_domain: {blend.shape[1]} x {blend.shape[0]} pixels, trained on {pixels} a side")
    if "psf_fwhm" in domain:
        low, high = domain["psf_fwhm"]
        widths = [_width(band) for band in blend.bands]
        wrong = [width for width in widths if not low * (1 - _MARGIN) <= width <= high * (1 + _MARGIN)]
        if wrong:
            flags.append(f"out_of_domain: PSF FWHM of {wrong[0]:.2g} pixels, trained on {low:.2g} to {high:.2g}")
    low, high = domain["galaxies"]
    most = _most_in_a_frame(positions, pixels)
    if most > high or (rule == "maximum" and most < low):
        flags.append(f"out_of_domain: {most} galaxies in {pixels} pixels, trained on {low:.0f} to {high:.0f}")
    return flags


def _most_in_a_frame(positions: np.ndarray, pixels: int) -> int:
    apart = np.abs(positions[:, None] - positions).max(-1)
    return int((apart < pixels / 2).sum(1).max())


def shown_in(all_channels: Sequence[Channels], images: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """For each band of the blend its number and galaxies (n, ny, nx), the mean over the channels it stood in."""
    for shown, group in zip(all_channels, images):
        for number in sorted(set(shown.numbers)):
            yield number, group[:, [place for place, own in enumerate(shown.numbers) if own == number]].mean(1)
