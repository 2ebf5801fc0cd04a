"""Samples of galaxies, seen alike, that generated ones are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path

import astropy.units as u
import numpy as np

from lensdeblend.evaluation.galaxy_neighbours import GalaxyShapes
from lensdeblend.scenes import GaussianPSF, Observation
from lensdeblend.spelling import advice

__all__ = ["GalaxySample", "GalaxySet", "galaxy_set", "galaxy_sets"]


@dataclass(frozen=True, eq=False)
class GalaxySample:
    """Galaxies without noise, each in the middle of a stamp.

    Attributes
    ----------
    images : ndarray
        (n, bands, ny, nx), through the PSF.
    galaxy : ndarray
        (n,): which galaxy of the library each is; one may come several times, turned and magnified anew.
    """

    images: np.ndarray
    galaxy: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class GalaxySet:
    """Where galaxies come from, and how they are seen.

    Parameters
    ----------
    name, summary : str
    shares : mapping of str to float
        Kinds of galaxies, as in the recipes of generators: ``real`` ones are of folders that the user names.
    bands : tuple of str
        The reddest first; one, or three.
    observation : `~lensdeblend.scenes.Observation`
        Pixels and PSF, common to all bands.
    radius : tuple of two floats
        Half-light radii, arcsec, uniform in the logarithm.
    flux : tuple of two floats
        In the reddest band, counts a second, likewise.

    Raises
    ------
    ValueError
        For another number of bands, an observation without a PSF, and stamps that are not square.

    Examples
    --------
    >>> from lensdeblend.evaluation import galaxy_set
    >>> sample = galaxy_set("made").draw(3, seed=1)
    >>> sample.images.shape
    (3, 1, 64, 64)
    """

    name: str
    summary: str
    shares: Mapping[str, float]
    bands: tuple[str, ...]
    observation: Observation
    radius: tuple[float, float] = (0.25, 0.7)
    flux: tuple[float, float] = (10.0, 1000.0)

    def __post_init__(self):
        if len(self.bands) not in (1, 3):
            raise ValueError(f"{self.name}: galaxies are drawn in 1 or 3 bands, not {len(self.bands)}")
        if self.observation.kernel is None:
            raise ValueError(f"{self.name}: the observation needs a PSF, through which galaxies are measured")
        if self.observation.shape[0] != self.observation.shape[1]:
            raise ValueError(f"{self.name}: stamps must be square; got {self.observation.shape} pixels")

    @property
    def real(self) -> bool:
        """Whether it needs galaxies that the user names."""
        return "real" in self.shares

    @property
    def pixel_scale(self) -> float:
        """Arcsec."""
        return float(self.observation.pixel_scale.to_value(u.arcsec))

    def draw(
        self, n: int, seed: int, *, images: Sequence[str | PathLike] = (), split: str = "test"
    ) -> GalaxySample:
        """Draw ``n`` galaxies, turned by any angle, mirrored or not, and magnified.

        Parameters
        ----------
        n, seed : int
            Galaxy ``i`` of a seed depends on ``n``.
        images : sequence of paths
            Folders or catalogues of real galaxies, as `lensdeblend.training.sources.read_galaxies` reads them.
        split : {"test", "validation", "train", "all"}
            Which of them; of those that are made, ``"all"`` gives the test split.

        Raises
        ------
        ValueError
            For ``n`` below 1, for real galaxies wanted and none named, or named and not wanted.
        """
        import torch

        from lensdeblend.lensing.convolution import Convolution
        from lensdeblend.training.galaxy_draws import BORDER, GalaxyDraws

        if n < 1:
            raise ValueError(f"n must be at least 1; got {n}")
        if seed < 0:
            raise ValueError(f"seed must not be negative; got {seed}")
        side = self.observation.shape[0]
        galaxies = self._galaxies(images, split)
        rng = np.random.default_rng((seed, 0))

        def tensor(values):
            return torch.as_tensor(np.asarray(values), dtype=torch.float32)

        chosen = rng.choice(len(galaxies), n, p=_normalised(galaxies.weights.numpy()))
        radius = np.exp(rng.uniform(*np.log(self.radius), n)) / self.pixel_scale
        magnified = tensor(radius) / galaxies.radius[chosen]
        angle, mirror = tensor(rng.uniform(0, 2 * np.pi, n)), tensor(rng.choice([-1.0, 1.0], n))
        place = torch.full((n, 2), (side - 1) / 2)
        flux = np.exp(rng.uniform(*np.log(self.flux), n))
        blur = Convolution(tensor(self.observation.kernel), self.observation.shape, BORDER)
        light = GalaxyDraws(galaxies, pixels=side).light(torch.as_tensor(chosen), magnified, angle, mirror, place)
        seen = blur(light).double().numpy()
        return GalaxySample(seen * (flux / seen[:, 0].sum((1, 2)))[:, None, None, None], chosen)

    def learned(self, images: Sequence[str | PathLike]) -> GalaxyShapes:
        """The real galaxies that a network was trained with, without a PSF, their bands added up."""
        found = _library((("real", 1.0),), "train", tuple(map(Path, images)), len(self.bands))
        stamps, *shape = (
            part.double().numpy() for part in (found.stamps.mean(1), found.center, found.radius, found.e1, found.e2)
        )
        return GalaxyShapes(stamps, *shape)

    def _galaxies(self, images: Sequence[str | PathLike], split: str):
        if self.real and not images:
            raise ValueError(
                f"the set {self.name!r} has real galaxies: name their folder or catalogue with images (--images)"
            )
        if images and not self.real:
            raise ValueError(f"the set {self.name!r} has no real galaxies; leave images (--images) out")
        if split == "all" and len(self.shares) > 1:
            split = "test"
        return _library(tuple(self.shares.items()), split, tuple(map(Path, images)), len(self.bands))


@lru_cache(maxsize=2)
def _library(shares: tuple[tuple[str, float], ...], split: str, folders: tuple[Path, ...], bands: int):
    """Kept, as the profiles of its galaxies take a minute to fit."""
    from lensdeblend.training.galaxy_library import library

    return library(dict(shares), split, folders, bands=bands)


def galaxy_sets() -> list[str]:
    """List the names that `galaxy_set` knows."""
    return list(_SETS)


def galaxy_set(name: str) -> GalaxySet:
    """Return the set called ``name``.

    ``learned`` has the held-out galaxies of what the weights ``galaxies`` learned from (real, procedural and
    parametric ones), ``learned-colour`` those of ``galaxies-colour``; ``made`` and ``made-colour`` are the same
    without real ones; ``real`` and ``real-colour`` have real ones only.

    Raises
    ------
    ValueError
        For an unknown name; the message gives the nearest and all known ones.

    Examples
    --------
    >>> from lensdeblend.evaluation import galaxy_set
    >>> galaxy_set("learned-colour").bands
    ('i', 'r', 'g')
    """
    if name not in _SETS:
        raise ValueError(f"unknown set of galaxies {name!r}; {advice(name, _SETS)}")
    return _SETS[name]


def _normalised(weights: np.ndarray) -> np.ndarray:
    return weights.astype(float) / weights.sum(dtype=float)


def _named() -> dict[str, GalaxySet]:
    seen = Observation(0.1 * u.arcsec, (64, 64), GaussianPSF(0.25 * u.arcsec), unit=u.ct / u.s)
    kinds = {
        "learned": ("real, procedural and parametric galaxies", {"real": 0.5, "procedural": 0.3, "parametric": 0.2}),
        "made": ("procedural and parametric galaxies", {"procedural": 0.6, "parametric": 0.4}),
        "real": ("real galaxies", {"real": 1.0}),
    }
    as_seen = "64 pixels of 0.1 arcsec, Gaussian PSF of 0.25 arcsec FWHM, half-light radii 0.25 to 0.7 arcsec"
    found = {}
    for name, (what, shares) in kinds.items():
        found[name] = GalaxySet(name, f"{what}, one band, {as_seen}", shares, ("i",), seen)
        colour = f"{name}-colour"
        found[colour] = GalaxySet(colour, f"{what}, three bands, {as_seen}", shares, ("i", "r", "g"), seen)
    return found


_SETS = _named()
