"""Real galaxies made ready to be sources, from the images that a user names."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
from astropy.utils.exceptions import AstropyUserWarning
from tqdm import tqdm

from lensdeblend.io.atomic import replacing
from lensdeblend.training.sources.cuts import Cuts
from lensdeblend.training.sources.files import files_of, galaxy_images
from lensdeblend.training.sources.isolate import STAMP, Unusable, isolate

__all__ = ["SPLITS", "GalaxyStamps", "SkippedGalaxiesWarning", "read_galaxies", "split_of"]

log = logging.getLogger(__name__)

#: Shares of the galaxies for training, validation and test.
SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
# Raised whenever what is made of an image changes, so that older caches are not read.
_VERSION = 1


class SkippedGalaxiesWarning(AstropyUserWarning):
    """Some images gave no galaxy."""


@dataclass(frozen=True, eq=False)
class GalaxyStamps:
    """Galaxies alone in small images.

    Attributes
    ----------
    ids : list of str
        Of the galaxies; several images of one galaxy share theirs.
    stamps : ndarray
        (galaxies, 96, 96), or (galaxies, 3, 96, 96) with the channels of pictures; float32, non-negative, the (mean
        over channels of the) sum 1, the centroid at the centre.
    radius : ndarray
        (galaxies,): half-light radius in pixels of the stamps, the geometric mean of the ellipse's axes.
    skipped : dict
        How many images were left out, by reason.
    """

    ids: list[str]
    stamps: np.ndarray
    radius: np.ndarray
    skipped: dict[str, int]

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, name: str) -> GalaxyStamps:
        """Those of ``"train"``, ``"validation"``, ``"test"`` or ``"all"``, by a hash of the galaxy's id.

        Raises
        ------
        ValueError
            For an unknown name, or where no galaxy is left.
        """
        if name == "all":
            return self
        if name not in SPLITS:
            raise ValueError(f"unknown split {name!r}; known are {', '.join(SPLITS)} and all")
        kept = [place for place, id in enumerate(self.ids) if split_of(id) == name]
        if not kept:
            raise ValueError(f"none of {len(self)} galaxies is in the split {name!r}; give more galaxies, or use 'all'")
        return replace(self, ids=[self.ids[i] for i in kept], stamps=self.stamps[kept], radius=self.radius[kept])


def split_of(id: str) -> str:
    """The split that a galaxy is in, the same wherever and whenever it is asked for.

    Examples
    --------
    >>> from lensdeblend.training.sources import split_of
    >>> split_of("587722981742084144")
    'train'
    """
    place = int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "big") / 2**64
    for name, share in SPLITS.items():
        if place < share:
            return name
        place -= share
    return name


def read_galaxies(
    path: str | PathLike,
    *,
    colour: bool = False,
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    stretch: float = 3.0,
    signal_to_noise: float = 15.0,
    cuts: Cuts = Cuts(),
    progress: bool = True,
    cache: bool | str | PathLike = True,
) -> GalaxyStamps:
    """Read galaxies from images and make them ready: alone, free of noise, cut to their footprint, on a common grid.

    The galaxy in the middle of each image is taken; neighbours and stars on it are replaced by what lies opposite in
    the galaxy. The PSF is not deconvolved: galaxies are as sharp as their images. Pictures are taken as made by the
    arcsinh stretch of SDSS (Lupton et al. 2004PASP..116..133L), undone approximately: eight bits, compression and the
    cuts of the stretch remain, so their light is a likely galaxy's, not this galaxy's photometry.

    Parameters
    ----------
    path : path
        A GalSim ``RealGalaxyCatalog`` (file, or folder that holds one), or a folder, looked through to its depth, of
        FITS, JPEG or PNG images.
    colour : bool
        Keep the three channels of pictures.
    weights : sequence of 3 floats
        Of red, green and blue in the grey image (for SDSS of i, r and g).
    stretch : float
        Nonlinearity of the pictures' arcsinh of the sum of the channels; 0 for linear pictures.
    signal_to_noise : float
        The least, of the galaxy's peak in an image smoothed by 1.5 pixels.
    cuts : `Cuts`
        Which galaxies of a catalogue to take, by magnitude, redshift and width.
    progress : bool
        Whether to show a progress bar.
    cache : bool or path
        Whether, or in which folder, to keep what was made; by default in astropy's cache folder.

    Returns
    -------
    GalaxyStamps
        With the number of images left out, by reason, which a `SkippedGalaxiesWarning` gives too.

    Raises
    ------
    FileNotFoundError
        Where there is no such file or folder.
    ValueError
        Where nothing in it is, or gives, a galaxy; for a cut on what a catalogue does not know.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no folder or catalogue of galaxies at {path}")
    weights = np.asarray(weights, float)
    if weights.shape != (3,) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
        raise ValueError("weights are three non-negative numbers, for red, green and blue, not all 0")
    if not 0 <= stretch < np.inf:
        raise ValueError(f"a stretch is finite and not negative, not {stretch}")
    options = colour, weights / weights.sum(), stretch, signal_to_noise
    files = files_of(path)
    if not files:
        raise ValueError(f"{path} holds no FITS, JPEG or PNG image")
    # Without cuts, what was kept before there were any is still right.
    kept = None if cache is False else _cache_file(path, files, cache, *options, *([repr(cuts)] if cuts else []))
    galaxies = _read_cache(kept)
    if galaxies is None:
        galaxies = _made(path, *options, cuts, progress)
        _write_cache(kept, galaxies)
    _report(path, galaxies)
    return galaxies


def _made(
    path: Path, colour: bool, weights: np.ndarray, stretch: float, signal_to_noise: float, cuts: Cuts, progress: bool
) -> GalaxyStamps:
    ids, stamps, radii, skipped = [], [], [], Counter()
    images = list(galaxy_images(path, stretch=stretch, needed=cuts.needed()))
    for image in tqdm(images, desc="galaxies", disable=not progress):
        try:
            if image.known or image.width is not None:
                cuts.check(image.known, image.width)
            planes, noise = image.read()
            shares = weights if len(planes) == 3 else np.ones(1)
            if colour and len(planes) != 3:
                raise Unusable("no colours")
            if not colour:
                planes, shares = np.tensordot(shares, planes, 1)[None], np.ones(1)
            stamp, radius = isolate(planes, shares, noise=noise, signal_to_noise=signal_to_noise)
        except Unusable as reason:
            skipped[str(reason)] += 1
            log.debug("%s: %s", image.id, reason)
            continue
        ids.append(image.id)
        stamps.append(stamp if colour else stamp[0])
        radii.append(radius)
    shape = (0, 3, STAMP, STAMP) if colour else (0, STAMP, STAMP)
    return GalaxyStamps(
        ids, np.stack(stamps) if stamps else np.zeros(shape, np.float32), np.array(radii, np.float32), dict(skipped)
    )


def _report(path: Path, galaxies: GalaxyStamps) -> None:
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(galaxies.skipped.items()))
    if not len(galaxies):
        raise ValueError(f"no galaxy in {path} could be used: {reasons}")
    log.info("%d galaxies of %s", len(galaxies), path)
    if galaxies.skipped:
        total = len(galaxies) + sum(galaxies.skipped.values())
        warnings.warn(
            f"{total - len(galaxies)} of {total} images of {path} are left out: {reasons}",
            SkippedGalaxiesWarning, stacklevel=3,
        )


def _cache_file(path: Path, files: list[Path], cache, *options) -> Path:
    key = hashlib.blake2b(digest_size=16)
    key.update(repr((_VERSION, str(path.resolve()), [np.asarray(option).tolist() for option in options])).encode())
    for file in files:
        state = file.stat()
        key.update(repr((str(file), state.st_size, state.st_mtime_ns)).encode())
    if cache is True:
        from astropy.config import get_cache_dir

        folder = Path(get_cache_dir("lensdeblend"))
    else:
        folder = Path(cache)
    return folder / "galaxies" / f"{key.hexdigest()}.safetensors"


def _read_cache(file: Path | None) -> GalaxyStamps | None:
    from safetensors import SafetensorError, safe_open

    if file is None or not file.is_file():
        return None
    try:
        with safe_open(file, "numpy") as stored:
            about = json.loads(stored.metadata()["galaxies"])
            stamps, radius = stored.get_tensor("stamps"), stored.get_tensor("radius")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        log.warning("the cache %s cannot be read and is made again: %s", file, error)
        return None
    return GalaxyStamps(about["ids"], stamps, radius, about["skipped"])


def _write_cache(file: Path | None, galaxies: GalaxyStamps) -> None:
    from safetensors.numpy import save_file

    if file is None:
        return
    about = json.dumps({"ids": galaxies.ids, "skipped": galaxies.skipped})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file, overwrite=True) as new:
            save_file({"stamps": galaxies.stamps, "radius": galaxies.radius}, new, metadata={"galaxies": about})
    except OSError as error:
        log.warning("the galaxies are not kept for the next time: %s", error)
