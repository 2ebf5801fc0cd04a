"""Pairs of a lens image and the galaxy behind it, read from a folder of simulations."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from pathlib import Path

import astropy.units as u
import numpy as np
import torch
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend.images import pixel_scale
from lensdeblend.networks.orientations import ORIENTATIONS, turned, turned_lens, turned_place
from lensdeblend.networks.unlensing import Seen
from lensdeblend.results import Simulation
from lensdeblend.training.lens_pairs import Pairs
from lensdeblend.training.sources.galaxies import split_of

__all__ = ["FolderPairs", "SkippedPairsWarning"]

log = logging.getLogger(__name__)

_LENS = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
_LENGTHS = [0, 4, 5]
_SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))


class SkippedPairsWarning(AstropyUserWarning):
    """Some files of a folder of pairs are of no use."""


class FolderPairs:
    """Simulations of lenses, as `lensdeblend.simulate` writes them, each in its eight orientations.

    Parameters
    ----------
    folder : path
        Of FITS files.
    pixels : int
        A side of the images; files of another size are left out.
    split : str
        ``"train"``, ``"validation"`` or ``"test"``: the files are divided by a hash of their names.

    Raises
    ------
    ValueError
        Where no file of the split is of use.
    """

    def __init__(self, folder: Path, *, pixels: int, split: str):
        files = sorted(p for p in Path(folder).glob("*.fits*") if p.is_file())
        if not files:
            raise ValueError(f"{folder} holds no FITS files to learn from")
        skipped: Counter[str] = Counter()
        kept = []
        for path in files:
            if split_of(path.name) != split:
                continue
            try:
                kept.append(_pair(Simulation.read(path), pixels))
            except (OSError, TypeError, ValueError, KeyError) as error:
                skipped[str(error).partition(":")[0]] += 1
        if skipped:
            reasons = "; ".join(f"{count} times: {reason}" for reason, count in skipped.most_common(3))
            warnings.warn(f"{sum(skipped.values())} files in {folder} were left out ({reasons})", SkippedPairsWarning)
        if not kept:
            raise ValueError(
                f"of the {len(files)} files in {folder} none is of use for {split!r}: simulations of lenses of "
                f"{pixels} x {pixels} pixels are needed, some hundred of them for all splits"
            )
        log.info("%d pairs for %s in %s", len(kept), split, folder)
        self._rows = [torch.as_tensor(np.stack(column), dtype=torch.float32) for column in zip(*kept)]

    def __len__(self) -> int:
        return len(self._rows[0])

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the lens parameters, lengths in pixels."""
        lens = self._rows[5].double()
        return lens.mean(0).tolist(), lens.std(0, correction=0).clamp_min(1e-6).tolist()

    def parameters(self) -> torch.Tensor:
        """Lens, position and half-light radius of the source of many: (many, 11), lengths in pixels."""
        lens, place, radius = self._rows[5:8]
        return torch.cat([lens, place, radius[:, None]], 1)

    def ranges(self) -> dict[str, list[float]]:
        """What the images span, as ``[low, high]``."""
        peak, noise = self._rows[0].flatten(1).amax(1), self._rows[1].flatten(1).mean(1)
        spans = {"pixel_scale": self._rows[8], "psf_fwhm": self._rows[2], "theta_E": self._rows[5][:, 0]}
        if bool((noise > 0).any()):
            spans["peak_snr"] = (peak / noise)[noise > 0]
        return {name: [round(float(v.min()), 4), round(float(v.max()), 4)] for name, v in spans.items()}

    def draw(self, count: int, seed, device="cpu") -> Pairs:
        """A batch; the same seed gives the same."""
        rng = np.random.default_rng(seed)
        chosen = torch.as_tensor(rng.integers(len(self), size=count))
        image, sigma, fwhm, unlensed, source, lens, place, radius, _ = (rows[chosen] for rows in self._rows)
        which = rng.integers(len(ORIENTATIONS), size=count)
        images = [image, sigma, unlensed, source]
        for row, number in enumerate(which):
            orientation = ORIENTATIONS[number]
            for stack in images:
                stack[row] = turned(stack[row], orientation).clone()
            lens[row], place[row] = turned_lens(lens[row], orientation), turned_place(place[row], orientation)
        used = torch.ones_like(image, dtype=torch.bool)
        dice = torch.as_tensor(rng.random(count), dtype=torch.float32)
        parts = [part.to(device) for part in (image, sigma, used, fwhm, lens, unlensed, source, place, radius, dice)]
        image, sigma, used, fwhm, lens, unlensed, source, place, radius, dice = parts
        return Pairs(Seen(image, sigma, used, fwhm), lens, unlensed, source, place, radius, image, dice)


def _pair(simulation: Simulation, pixels: int) -> list[np.ndarray]:
    image = simulation.image
    if isinstance(image, dict) or not simulation.scene.is_lens or simulation.unlensed is None:
        raise ValueError("it is not the simulation of a lens in one band")
    if image.data.shape != (pixels, pixels):
        raise ValueError(f"it has {image.data.shape} pixels")
    scale = pixel_scale(image).to_value(u.arcsec)
    table = simulation.scene.lens_parameters
    lens = np.array([u.Quantity(table[name][0]).value for name in _LENS], dtype=float)
    lens[_LENGTHS] /= scale
    sigma = np.zeros(image.data.shape) if image.uncertainty is None else np.sqrt(image.uncertainty.array)
    fwhm = 0.0 if image.psf is None else _width(np.asarray(image.psf))
    first = simulation.scene.sources[0]
    place = np.array([first.center_x.to_value(u.arcsec), first.center_y.to_value(u.arcsec)]) / scale
    fine = _doubled(simulation, pixels, scale)
    radius = np.array(first.radius.to_value(u.arcsec) / scale if hasattr(first, "radius") else np.nan)
    unlensed = simulation.unlensed.data
    return [image.data, sigma, np.array(fwhm), unlensed, fine, lens, place, radius, np.array(scale)]


def _width(psf: np.ndarray) -> float:
    """FWHM in pixels of the Gaussian of the same second moments."""
    y, x = np.indices(psf.shape) - (np.array(psf.shape)[:, None, None] - 1) / 2
    return float(np.sqrt(max((psf * (x**2 + y**2)).sum() / 2, 0)) / _SIGMA_PER_FWHM)


def _doubled(simulation: Simulation, pixels: int, scale: float) -> np.ndarray:
    """The source plane's brightness, in flux a pixel of the image, at the middles of pixels half as large."""
    plane = simulation.source
    own = pixel_scale(plane).to_value(u.arcsec)
    center = np.array([plane.meta.get("CENTER_X", 0.0), plane.meta.get("CENTER_Y", 0.0)])
    at = (np.arange(2 * pixels) - pixels + 0.5) * scale / 2
    brightness = torch.as_tensor(np.asarray(plane.data, dtype=float))[None] * (scale / own) ** 2
    ny, nx = plane.data.shape
    x, y = ((at - c) / (own * n / 2) for c, n in zip(center, (nx, ny)))
    where = torch.as_tensor(np.stack(np.meshgrid(x, y), -1))[None]
    return torch.nn.functional.grid_sample(brightness[None], where, align_corners=False)[0, 0].numpy()
