"""Where a fit begins: lens light, ring radius and source position read off the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation, gaussian_filter
from torch import Tensor

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.epl import epl
from lensdeblend.lensing.halos import shear
from lensdeblend.lensing.least_squares import levenberg_marquardt, nonnegative_amplitudes
from lensdeblend.lensing.parametric import ParametricLens, SersicLens
from lensdeblend.lensing.subdivision import PixelGrid, Subdivision
from lensdeblend.reconstructors.frame import Frame

__all__ = [
    "Arcs", "LensLight", "blurred_data", "blurred_lens", "bounds", "bounds_on", "clipped_light", "draw_starts",
    "find_arcs", "find_lens_light", "fit_lens_light", "given_lens_light", "rank_starts",
]

_LIGHT_CENTER_PIXELS = 4
_SECOND_LIGHT_GAIN = 150.0


@dataclass(frozen=True)
class Arcs:
    """The pixels that stand out: positions and flux, and what they say of the lens."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    center: tuple[float, float]
    radius: float


@dataclass(frozen=True)
class LensLight:
    """Parameters of the lens light, six a component, and its image."""

    parameters: np.ndarray
    image: Tensor

    @property
    def center(self) -> tuple[float, float]:
        """Of the first component, in arcsec."""
        return float(self.parameters[0]), float(self.parameters[1])

    @property
    def components(self) -> int:
        """How many."""
        return len(self.parameters) // 6


def find_arcs(frame: Frame, center: tuple[float, float]) -> Arcs:
    """Significant pixels of the image (lens light taken off) around ``center`` in arcsec."""
    smooth = frame.smoothed(1.0)
    noise = frame.sigma.double().numpy() / (2 * np.sqrt(np.pi))
    x, y = frame.positions()
    used = frame.used.numpy()
    significance = np.where(used, smooth / noise, 0)
    distance = np.hypot(x - center[0], y - center[1])
    bright = significance > max(4.0, 0.1 * significance.max())
    if bright.sum() < 5:
        bright = significance >= np.sort(significance, axis=None)[-5]
    flux = np.clip(smooth[bright], 0, None)
    weights = flux if flux.any() else None
    return Arcs(x[bright], y[bright], flux, center, float(np.average(distance[bright], weights=weights)))


def draw_starts(arcs: Arcs, count: int, rng: np.random.Generator, *, spread: float = 1.0) -> np.ndarray:
    """Random lens and source parameters that the arcs allow: (count, 14).

    The mass is drawn at random about an isothermal lens whose Einstein radius is the arcs' mean radius; the source
    lies where the arcs, traced back through it, meet.
    """
    theta_E = arcs.radius * np.exp(rng.normal(0, 0.12 * spread, count))
    gamma = rng.normal(2.0, 0.05 * spread, count)
    e1, e2 = rng.normal(0, 0.1 * spread, (2, count))
    center_x, center_y = np.array(arcs.center)[:, None] + rng.normal(0, 0.05 * spread, (2, count))
    gamma1, gamma2 = rng.normal(0, 0.05 * spread, (2, count))
    lens = np.stack([theta_E, gamma, e1, e2, center_x, center_y, gamma1, gamma2], 1)
    lens[0, 2:4] = lens[0, 6:8] = 0
    parameters = [torch.as_tensor(c)[:, None] for c in lens.T]
    x, y = torch.as_tensor(arcs.x), torch.as_tensor(arcs.y)
    ax, ay = epl(x, y, *parameters[:6])
    sx, sy = shear(x, y, *parameters[6:])
    beta_x, beta_y = (x - ax - sx).numpy(), (y - ay - sy).numpy()
    weight = arcs.flux / arcs.flux.sum() if arcs.flux.any() else np.full(len(arcs.flux), 1 / len(arcs.flux))
    source_x, source_y = beta_x @ weight, beta_y @ weight
    scatter = np.sqrt(((beta_x - source_x[:, None]) ** 2 + (beta_y - source_y[:, None]) ** 2) @ weight)
    radius = np.clip(scatter, 0.05, 0.6) * np.exp(rng.normal(0, 0.3, count))
    n = np.exp(rng.normal(np.log(1.5), 0.3, count))
    f1, f2 = rng.normal(0, 0.05, (2, count))
    return np.concatenate([lens, np.stack([source_x, source_y, np.log(radius), np.log(n), f1, f2], 1)], 1)


def rank_starts(
    frame: Frame, starts: np.ndarray, *, blur: float = 1.0, batch: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Order starts by the chi-square of the blurred image, best first; also returns the values."""
    lens = blurred_lens(frame, SersicLens(1, 0), blur)
    data = blurred_data(frame, blur)
    values = []
    for part in torch.as_tensor(starts, dtype=frame.data.dtype).split(batch):
        basis = lens.linearise(part, False).basis
        amplitudes = nonnegative_amplitudes(basis, data)
        values.append(((data - torch.einsum("sk,skm->sm", amplitudes, basis)) ** 2).sum(-1))
    values = torch.cat(values).double().numpy()
    order = np.argsort(np.where(np.isfinite(values), values, np.inf))
    return starts[order], values[order]


def blurred_lens(frame: Frame, model: SersicLens, blur: float) -> ParametricLens:
    """The forward model at one sample a pixel with a PSF widened by ``blur`` pixels: a smoother landscape."""
    half = max(3, int(np.ceil(3 * blur)))
    kernel = np.zeros((2 * half + 1,) * 2)
    kernel[half, half] = 1
    if frame.kernel is not None:
        pad = half
        kernel = np.pad(frame.kernel.double().numpy(), pad)
    kernel = torch.as_tensor(gaussian_filter(kernel, blur, mode="constant"), dtype=frame.data.dtype)
    return ParametricLens(
        model, Subdivision.uniform(frame.grid, 1, frame.data.dtype),
        Convolution(kernel, frame.grid.shape, frame.grid.border), frame.weight,
    )


def blurred_data(frame: Frame, blur: float) -> Tensor:
    """Data to hold against `blurred_lens`."""
    smooth = torch.as_tensor(frame.smoothed(blur), dtype=frame.data.dtype)
    return frame.with_data(smooth).weighted_data


def central_peak(frame: Frame) -> tuple[int, int]:
    """Row and column of the smoothed peak near the middle, where a lens galaxy would be; the nearer, the likelier."""
    x, y = frame.positions()
    used = frame.used.numpy()
    distance = np.hypot(x - frame.grid.centre[0], y - frame.grid.centre[1])
    reach = max(0.12 * min(frame.grid.shape), 2) * frame.grid.scale
    near = used & (distance < reach)
    likely = frame.smoothed(1.0) * np.exp(-2 * (distance / reach) ** 2)
    return np.unravel_index(np.argmax(np.where(near if near.any() else used, likely, -np.inf)), likely.shape)


def find_lens_light(frame: Frame) -> list[LensLight]:
    """Lens light in the middle of the image: no, one or two components, as many as the pixels inside the arcs ask for.

    The list grows from one fit to the next; the last is the one to use, and it is empty where no galaxy shows.
    """
    smooth = frame.smoothed(1.0)
    x, y = frame.positions()
    peak = central_peak(frame)
    if smooth[peak] < 5 * frame.sigma.numpy()[peak] / (2 * np.sqrt(np.pi)):
        return []
    around = np.hypot(x - x[peak], y - y[peak])
    ring = frame.used.numpy() & (around > 2.5 * frame.grid.scale) & (around < 3.5 * frame.grid.scale)
    # An arc that reaches into the middle is as bright on along itself; a galaxy falls off on all sides.
    if not ring.any() or smooth[ring].max() > 0.8 * smooth[peak]:
        return []
    one = fit_lens_light(frame, 1)
    arcs = find_arcs(frame.with_data(frame.data - one.image), one.center)
    # Nearer in than the arcs, so that a second component cannot earn its place by taking some of their light.
    inside = torch.as_tensor(np.hypot(x - one.center[0], y - one.center[1]) < 0.6 * arcs.radius) & frame.used
    left, count = clipped_chi2(frame, one.image, inside), int(inside.sum())
    if left < count + 4 * np.sqrt(2 * count):
        return [one]
    two = fit_lens_light(frame, 2, first=one)
    return [one, two] if left - clipped_chi2(frame, two.image, inside) > _SECOND_LIGHT_GAIN else [one]


def fit_lens_light(frame: Frame, count: int, first: LensLight | None = None) -> LensLight:
    """Fit the lens light with ``count`` components, the arcs clipped away as positive outliers.

    A second component begins where the first leaves most light near the centre.
    """
    x, y = frame.positions()
    if first is None:
        row, column = central_peak(frame)
        first = clipped_light(frame, np.array([x[row, column], y[row, column], np.log(0.6), np.log(3.0), 0, 0]))
    if count == 1:
        return first
    light = first.parameters
    rest = frame.with_data(frame.data - first.image)
    second = rest.smoothed(1.0) * frame.used.numpy()
    near = np.hypot(x - light[0], y - light[1]) < max(0.12 * min(frame.grid.shape), 4) * frame.grid.scale
    row, column = np.unravel_index(np.argmax(np.where(near, second, -np.inf)), second.shape)
    core = np.concatenate([light[:2], light[2:4] + [np.log(0.4), 0.0], light[4:]])
    halo = np.concatenate([light[:2], [light[2] + np.log(2), 0.0], light[4:]])
    begins = [
        np.concatenate([light, [x[row, column], y[row, column], np.log(0.2), np.log(1.5), 0, 0]]),
        np.concatenate([core, halo]),
    ]
    return min((clipped_light(frame, b) for b in begins), key=lambda fit: clipped_chi2(frame, fit.image))


def given_lens_light(frame: Frame, image: np.ndarray) -> LensLight:
    """One component that looks like ``image``, the lens galaxy alone, or two where one leaves too much of it."""
    row, column = frame.corner
    ny, nx = frame.grid.shape
    alone = frame.with_data(torch.as_tensor(image[row:row + ny, column:column + nx]).to(frame.data)).single()
    one = fit_lens_light(alone, 1)
    left = clipped_chi2(alone, one.image)
    if left < _SECOND_LIGHT_GAIN:
        return one
    two = fit_lens_light(alone, 2, first=one)
    return two if left - clipped_chi2(alone, two.image) > _SECOND_LIGHT_GAIN else one


def clipped_chi2(frame: Frame, image: Tensor, where: Tensor | None = None) -> float:
    """Chi-square in which no pixel counts more than nine."""
    terms = (((frame.data - image) * frame.weight) ** 2).clamp_max(9.0)
    return float(terms.sum() if where is None else terms[where].sum())


def _above_falling_profile(frame: Frame, begin: np.ndarray) -> np.ndarray:
    """Pixels three sigma above a profile that only falls: arcs, whatever part of a ring they fill.

    The profile is the running minimum of the medians over rings around the first component. Around the others nothing
    counts.
    """
    x, y = frame.positions()
    data, sigma, used = frame.data.double().numpy(), frame.sigma.double().numpy(), frame.used.numpy()
    ring = np.round(np.hypot(x - begin[0], y - begin[1]) / frame.grid.scale).astype(int)
    profile = np.full(ring.max() + 1, np.inf)
    for number in range(ring.max() + 1):
        here = used & (ring == number)
        if here.any():
            profile[number] = np.median(data[here])
    above = data - np.minimum.accumulate(profile)[ring] > 3 * sigma
    above &= ring > 2
    for other in begin.reshape(-1, 6)[1:]:
        above &= np.hypot(x - other[0], y - other[1]) > 3 * frame.grid.scale
    return binary_dilation(above) & (ring > 2)


def clipped_light(frame: Frame, begin: np.ndarray) -> LensLight:
    """Fit the lens light from ``begin``, six parameters a component, what stands out clipped away."""
    model = SersicLens(0, len(begin) // 6)
    start = torch.as_tensor(np.concatenate([[1.0, 2.0], np.zeros(6), begin])[None], dtype=frame.data.dtype)
    lower, upper = bounds(model, frame, start[0])
    lower[:8], upper[:8] = start[0, :8], start[0, :8]
    subdivision = Subdivision.uniform(frame.grid, 2, frame.data.dtype)
    clipped = frame.used & torch.as_tensor(~_above_falling_profile(frame, begin))
    image = torch.zeros_like(frame.data)
    for _ in range(5):
        current = Frame(frame.data, frame.sigma, clipped, frame.kernel, frame.grid, frame.corner)
        lens = ParametricLens(model, subdivision, frame.convolution, current.weight)
        fit = levenberg_marquardt(
            lens.linearise, current.weighted_data, start, lower, upper, iterations=10, tolerance=3.0
        )
        start = fit.parameters
        image = (fit.amplitudes[:, :, None, None] * lens.images(start)).sum((0, 1))
        outlier = ((frame.data - image) / frame.sigma > 3) & frame.used
        spread = torch.as_tensor(gaussian_filter(outlier.double().numpy(), 1.0) > 0.2)
        before, clipped = clipped, frame.used & ~spread
        settled = bool(fit.converged) and torch.equal(clipped, before)
        if settled or int(clipped.sum()) < 20:
            break
    return LensLight(start[0, 8:].double().numpy(), image)


def bounds(model: SersicLens, frame: Frame, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Lower and upper bound of every parameter; lens light stays within a few pixels of where ``start`` (P,) has it."""
    return bounds_on(model, frame.grid, start, frame.data.dtype)


def bounds_on(
    model: SersicLens, grid: PixelGrid, start: Tensor | None = None, dtype=torch.float64
) -> tuple[Tensor, Tensor]:
    """`bounds` for the pixels of a grid."""
    half = 0.5 * max(grid.shape) * grid.scale
    cx, cy = grid.centre
    lens = [
        (0.02 * half, 1.2 * half), (1.2, 2.8), (-0.7, 0.7), (-0.7, 0.7), (cx - half, cx + half), (cy - half, cy + half),
        (-0.5, 0.5), (-0.5, 0.5),
    ]
    scale = grid.scale
    light = [
        (cx - half, cx + half), (cy - half, cy + half), (np.log(0.05 * scale), np.log(3 * half)),
        (np.log(0.3), np.log(8.0)), (-0.7, 0.7), (-0.7, 0.7),
    ]
    values = torch.as_tensor(np.array(lens + light * model.components), dtype=dtype)
    lower, upper = values.T.clone()
    if start is not None:
        for k in range(model.sources, model.components):
            center = slice(model.light_columns(k).start, model.light_columns(k).start + 2)
            lower[center] = start[center].to(lower) - _LIGHT_CENTER_PIXELS * scale
            upper[center] = start[center].to(upper) + _LIGHT_CENTER_PIXELS * scale
    return lower, upper
