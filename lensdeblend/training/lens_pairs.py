"""Pairs of a lens image and the galaxy behind it, simulated on the device that trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.delensing import source_positions
from lensdeblend.lensing.epl import series_terms
from lensdeblend.lensing.subdivision import PixelGrid
from lensdeblend.networks.unlensing import Seen
from lensdeblend.scenes.populations import Distribution
from lensdeblend.training.sources import Sources

__all__ = ["LensPairs", "Pairs"]

_LENS = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
_LENGTHS = [0, 4, 5]
_SUPERSAMPLING = 2
_BORDER = 2
_PSF_SIGMAS = 5.0
# Pixels around the source's centre that are divided more finely, and how finely.
_CORE, _CORE_DIVISION = 8, 6
# Pixels that see the middle of the source, where a cusp may be, and the points a side of each.
_CENTRAL, _CENTRAL_DIVISION = 48, 8
_MAX_ELLIPTICITY = 0.5
_DRAWS_FOR_STATISTICS = 20000


@dataclass
class Pairs:
    """A batch of what a network sees and what it should find; lengths in pixels.

    ``seen``: the images. ``lens`` (batch, 8). ``unlensed`` (batch, n, n) and ``source`` (batch, 2 n, 2 n): as in
    `lensdeblend.networks.unlensing.Unlensed`. ``place`` (batch, 2): the source's centre; ``radius`` (batch,): its
    half-light radius. ``clean`` (batch, n, n): the image without noise. ``dice`` (batch,): uniform random numbers.
    """

    seen: Seen
    lens: Tensor
    unlensed: Tensor
    source: Tensor
    place: Tensor
    radius: Tensor
    clean: Tensor
    dice: Tensor


class LensPairs:
    """Draws lenses from priors and sources from galaxies, and images them.

    Parameters
    ----------
    priors : mapping of str to Distribution
        Those of `lensdeblend.scenes.populations.LensPopulation` without lens light, in arcsec, and ``pixel_scale`` and
        ``psf_fwhm`` (arcsec); where there is noise, ``peak_snr``.
    sources : Sources
        The galaxies; their ``source_radius`` is drawn from the priors, their shape is their own.
    pixels : int
        A side of the images.
    noise_free : float
        Share of images without noise.
    """

    def __init__(
        self, priors: Mapping[str, Distribution], sources: Sources, *, pixels: int = 64, noise_free: float = 0.0
    ):
        needed = (*_LENS, "source_radius", "source_offset", "pixel_scale", "psf_fwhm")
        missing = [name for name in (*needed, *(["peak_snr"] if noise_free < 1 else [])) if name not in priors]
        if missing:
            raise ValueError(f"lens pairs need priors on {', '.join(missing)}")
        if not 0 <= noise_free <= 1:
            raise ValueError(f"noise_free is a share from 0 to 1; got {noise_free!r}")
        self.priors, self.sources, self.pixels, self.noise_free = priors, sources, pixels, noise_free
        self._terms = series_terms(_MAX_ELLIPTICITY, torch.float32)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the lens parameters, lengths in pixels."""
        lens, *_ = self._lenses(_DRAWS_FOR_STATISTICS, np.random.default_rng(0))
        return lens.mean(0).tolist(), np.maximum(lens.std(0), 1e-6).tolist()

    def parameters(self) -> Tensor:
        """Lens, position and half-light radius of the source of many: (many, 11), lengths in pixels."""
        lens, scale, _, place, radius = self._lenses(_DRAWS_FOR_STATISTICS, np.random.default_rng(0))
        return torch.as_tensor(np.concatenate([lens, place, (radius / scale)[:, None]], 1))

    def ranges(self) -> dict[str, list[float]]:
        """What the images span, as ``[low, high]``: ``pixel_scale`` (arcsec), ``psf_fwhm`` and ``theta_E`` (pixels),
        ``peak_snr``."""
        rng = np.random.default_rng(0)
        lens, scale, fwhm, *_ = self._lenses(_DRAWS_FOR_STATISTICS, rng)
        spans = {"pixel_scale": scale, "psf_fwhm": fwhm / scale, "theta_E": lens[:, 0]}
        if self.noise_free < 1:
            spans["peak_snr"] = self.priors["peak_snr"].draw(rng, _DRAWS_FOR_STATISTICS)
        return {name: [round(float(values.min()), 4), round(float(values.max()), 4)] for name, values in spans.items()}

    def draw(self, count: int, seed: int | tuple[int, ...], device: str | torch.device = "cpu") -> Pairs:
        """A batch; the same seed gives the same."""
        rng = np.random.default_rng(seed)
        lens, scale, fwhm, place, radius = (
            torch.as_tensor(part, dtype=torch.float32, device=device) for part in self._lenses(count, rng)
        )
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        with torch.no_grad():
            light = self.sources.draw(radius, generator)

            def brightness(x: Tensor, y: Tensor) -> Tensor:
                """Flux per square pixel, at pixels from the image's centre."""
                s = scale[:, None]
                return light((x - place[:, :1]) * s, (y - place[:, 1:]) * s) * s**2

            psf = self._convolutions(fwhm / scale)
            clean = psf(self._lensed(brightness, lens, place, device))
            source = self._unlensed(brightness, place, device)
            coarse = torch.nn.functional.avg_pool2d(source[:, None], 2)[:, 0]
            unlensed = psf(torch.nn.functional.pad(coarse, (_BORDER,) * 4))
            sigma = self._noise(clean, rng)
            noise = torch.randn(clean.shape, generator=generator, device=device)
            dice = torch.rand(count, generator=generator, device=device)
        seen = Seen(
            clean + noise * sigma[:, None, None], sigma[:, None, None].expand_as(clean).contiguous(),
            torch.ones_like(clean, dtype=torch.bool), fwhm / scale,
        )
        return Pairs(seen, lens, unlensed, source, place, radius / scale, clean, dice)

    def _lenses(self, count: int, rng: np.random.Generator):
        """Lens, place and radius; ``scale`` and ``fwhm`` in arcsec, all else that is a length in pixels but radius."""
        def drawn(name: str) -> np.ndarray:
            return np.asarray(self.priors[name].draw(rng, count), dtype=float)

        scale, fwhm = drawn("pixel_scale"), drawn("psf_fwhm")
        lens = np.stack([drawn(name) for name in _LENS], 1)
        lens[:, 1] = np.clip(lens[:, 1], 1.3, 2.8)
        radius = drawn("source_radius")
        distance, angle = drawn("source_offset") * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
        x, y, gamma1, gamma2 = lens[:, 4:].T
        place = np.stack([
            x - gamma1 * x - gamma2 * y + distance * np.cos(angle),
            y - gamma2 * x + gamma1 * y + distance * np.sin(angle),
        ], 1)
        lens[:, _LENGTHS] /= scale[:, None]
        return lens, scale, fwhm, place / scale[:, None], radius

    def _lensed(self, brightness, lens: Tensor, place: Tensor, device) -> Tensor:
        """Brightness of the pixels, those that see the middle of the source as means over many points."""
        count, side = len(lens), self.pixels + 2 * _BORDER
        grid = PixelGrid((side * _SUPERSAMPLING,) * 2, 1 / _SUPERSAMPLING)
        x, y = grid.centres(torch.float32, device)
        beta_x, beta_y = source_positions(lens, x, y, self._terms)
        image = brightness(beta_x, beta_y).reshape(count, 1, *grid.shape)
        image = torch.nn.functional.avg_pool2d(image, _SUPERSAMPLING).reshape(count, -1)
        nearness = -torch.hypot(beta_x - place[:, :1], beta_y - place[:, 1:]).reshape(count, 1, *grid.shape)
        nearest = torch.nn.functional.max_pool2d(nearness, _SUPERSAMPLING).reshape(count, -1)
        chosen = nearest.topk(min(_CENTRAL, side**2), 1).indices
        n = _CENTRAL_DIVISION
        steps = (torch.arange(n, device=device) + 0.5) / n - 0.5 - (side - 1) / 2
        column, row = (chosen % side)[:, :, None, None], (chosen // side)[:, :, None, None]
        x, y = column + steps.expand(n, n), row + steps[:, None].expand(n, n)
        fine = brightness(*source_positions(lens, x.reshape(count, -1), y.reshape(count, -1), self._terms))
        image.scatter_(1, chosen, fine.reshape(count, -1, n * n).mean(-1))
        return image.reshape(count, side, side)

    def _unlensed(self, brightness, place: Tensor, device) -> Tensor:
        """Brightness on pixels half as large, those around the source's centre as means over many points."""
        count, side = len(place), 2 * self.pixels
        grid = PixelGrid((side, side), 0.5)
        x, y = grid.centres(torch.float32, device)
        fine = brightness(x[None].expand(count, -1), y[None].expand(count, -1))
        corner = torch.floor(place + (self.pixels - 1) / 2) - _CORE // 2 + 1
        n = _CORE * _CORE_DIVISION
        steps = (torch.arange(n, device=device) + 0.5) / _CORE_DIVISION - 0.5
        at = corner[:, :, None] - (self.pixels - 1) / 2 + steps
        columns, rows = at[:, 0, None, :].expand(-1, n, -1), at[:, 1, :, None].expand(-1, -1, n)
        core = brightness(columns.reshape(count, -1), rows.reshape(count, -1))
        core = torch.nn.functional.avg_pool2d(core.reshape(count, 1, n, n), _CORE_DIVISION // 2)[:, 0].flatten(1)
        near = torch.arange(2 * _CORE, device=device)
        column, row = (2 * corner[:, axis, None].long() + near for axis in (0, 1))
        inside = ((row >= 0) & (row < side))[:, :, None] & ((column >= 0) & (column < side))[:, None, :]
        index = row.clamp(0, side - 1)[:, :, None] * side + column.clamp(0, side - 1)[:, None, :]
        inside, index = inside.flatten(1), index.flatten(1)
        which = torch.arange(count, device=device)[:, None].expand_as(index)
        fine[which[inside], index[inside]] = core[inside]
        # Brightness is flux per square pixel; as a mean over any area it keeps that unit.
        return fine.reshape(count, side, side)

    def _convolutions(self, fwhm: Tensor) -> Convolution:
        sigma = fwhm / np.sqrt(8 * np.log(2))
        half = max(1, int(np.ceil(_PSF_SIGMAS * float(sigma.max()))))
        steps = torch.arange(-half, half + 1, device=fwhm.device)
        line = torch.exp(-0.5 * (steps / sigma[:, None]) ** 2)
        kernel = line[:, :, None] * line[:, None, :]
        return Convolution(kernel / kernel.sum((-2, -1), keepdim=True), (self.pixels, self.pixels), _BORDER)

    def _noise(self, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """Standard deviation (batch,)."""
        peak = clean.flatten(1).amax(1)
        noisy = rng.random(len(clean)) >= self.noise_free
        if not noisy.any():
            return torch.zeros_like(peak)
        share = np.where(noisy, 1 / self.priors["peak_snr"].draw(rng, len(clean)), 0)
        return peak * torch.as_tensor(share, dtype=peak.dtype, device=peak.device)
