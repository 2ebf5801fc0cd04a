"""Generators held against galaxies that nobody has learned from."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from os import PathLike

import astropy.units as u
import numpy as np
from astropy.nddata import NDData
from astropy.table import Table, vstack
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend.evaluation.galaxy_morphology import MORPHOLOGY, morphologies, radial_power
from lensdeblend.evaluation.galaxy_neighbours import GalaxyShapes, nearest_distances
from lensdeblend.evaluation.galaxy_samples import GalaxySample, GalaxySet, galaxy_set
from lensdeblend.evaluation.galaxy_summaries import (
    distribution_table, neighbour_table, spectrum_table, wish_table,
)
from lensdeblend.evaluation.report import Case, GenerationReport
from lensdeblend.evaluation.running import labelled, method_table, reason
from lensdeblend.evaluation.summaries import failure_table
from lensdeblend.interfaces import Generator
from lensdeblend.results import Generation

__all__ = ["evaluate_generators"]

_PROFILE = ("flux", "radius", "e1", "e2", "n")
# Fits end at 0.3 and 8, where they mean little; that of COSMOS is 6 at most.
_INDICES = 0.31, 6.0
_NEEDED = ("pixel_scale", "pixels", "psf")
_RINGS = 6
# Of the amplitude: what less a PSF lets through is not told from nothing.
_SEEN = 0.05
_SHOWN = 32
_ROW = {"method": str, "galaxies": int, "flagged": int, "flags": str, "seconds": float, "failure": str}


def evaluate_generators(
    methods: str | Generator | Sequence[str | Generator] | Mapping[str, str | Generator],
    test_set: str | GalaxySet = "made", n: int = 400, seed: int = 1, *, images: Sequence[str | PathLike] = (),
    split: str = "test", peak_snr: float = 30.0, morphology: int = 150, progress: bool = True,
) -> GenerationReport:
    """Let generators make the galaxies of a sample anew, by what these measure, and compare the two.

    A Sérsic profile is fitted to each galaxy of the sample, and its flux, radius, ellipticity, index and colours are
    what is wished of the generator, so that both have the same distribution of these where wishes are granted, and
    all else is left to the generator. Both are seen through the same pixels and PSF, and for asymmetry, Gini, M20 and
    the classifier with the same signal to noise.

    Parameters
    ----------
    methods : str, Generator, sequence of these, or mapping of labels to them
        Their options for pixels, PSF, bands and measuring are set to those of the sample.
    test_set : str or `GalaxySet`
        A name of `galaxy_sets`, or a set of one's own.
    n, seed : int
        How many galaxies; the same seed gives the same report, but for seconds.
    images, split
        Real galaxies for the sets that need them, as in `GalaxySet.draw`.
    peak_snr : float
        Brightest pixel over the noise, for what is measured on noisy images.
    morphology : int
        Of how many galaxies to measure concentration, asymmetry, Gini and M20, half a second each; 0 does without
        statmorph.
    progress : bool
        Whether to show progress bars, where there is a terminal.

    Returns
    -------
    `GenerationReport`
        A method that raises is counted as failed.

    Raises
    ------
    ImportError
        Where statmorph is wanted and not installed.
    TypeError, ValueError
        For an unknown set or method, two methods of one label, ``n`` below 4, and as `GalaxySet.draw`.

    Examples
    --------
    >>> from lensdeblend.evaluation import evaluate_generators
    >>> report = evaluate_generators("sersic", n=8, morphology=0, progress=False)
    >>> report.summaries["wishes"]["property", "galaxies"].pprint()
    property galaxies
    -------- --------
        flux        8
      radius        8
          e1        8
          e2        8
           n        8
    """
    from tqdm import tqdm

    if isinstance(test_set, str):
        test_set = galaxy_set(test_set)
    if not isinstance(test_set, GalaxySet):
        raise TypeError(f"test_set must be a GalaxySet or the name of one; got {type(test_set).__name__}")
    if n < 4:
        raise ValueError(f"n must be at least 4, to tell distributions; got {n}")
    if not (np.isfinite(peak_snr) and peak_snr > 0):
        raise ValueError(f"peak_snr must be a positive number; got {peak_snr}")
    if morphology < 0:
        raise ValueError(f"morphology must not be negative; got {morphology}")
    resolved = labelled("generator", Generator, methods)
    with tqdm(total=len(resolved) + 1, disable=None if progress else True) as bar:
        bar.set_description("sample")
        sample = test_set.draw(n, seed, images=images, split=split)
        judge = _Judge(test_set, peak_snr, morphology, seed)
        reference = judge.measured(sample.images)
        learned = test_set.learned(images) if test_set.real else None
        bar.update()
        made, colours, rows = {}, {}, []
        for label, method in resolved.items():
            bar.set_description(label)
            row, stamps, drawn = _made(label, method.method, test_set, reference, seed)
            rows.append(row)
            if stamps is not None:
                made[label], colours[label] = stamps, drawn
            bar.update()
        rows = Table(rows=rows, names=list(_ROW), dtype=list(_ROW.values()))
        able = {label: _as_seen(resolved[label].method, test_set) for label in made}
        about = method_table("generate", resolved, seed)
        return judge.report(sample, reference, learned, made, colours, able, rows, about)


def _wishes(reference: Table, bands: Sequence[str]) -> dict:
    """What is wished, by the measured properties of the sample."""
    found = {
        "flux": np.asarray(reference["flux"]) * u.ct / u.s, "radius": np.asarray(reference["radius"]) * u.arcsec,
        **{name: np.asarray(reference[name]) for name in ("e1", "e2", "n")},
    }
    return found | {name: np.asarray(reference[name]) * u.mag for name in _colours(bands)}


def _colours(bands: Sequence[str]) -> list[str]:
    """Of each band and its redder neighbour; bands are the reddest first."""
    return [f"{bluer}-{redder}" for redder, bluer in zip(bands, bands[1:])]


def _measured_colours(images: np.ndarray) -> np.ndarray:
    """(n, bands - 1), of stamps (n, bands, ny, nx)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.diff(-2.5 * np.log10(images.sum((2, 3))), axis=1)


def _made(label: str, method: Generator, test_set: GalaxySet, reference: Table, seed: int):
    """A row of the method, its stamps (n, bands, ny, nx) and the colours (n, bands - 1) of galaxies of which no colours
    are wished, both NaN where nothing could be wished; None for both where it fails."""
    known = np.isfinite(np.array([reference[name] for name in _PROFILE])).all(0)
    row = {"method": label, "galaxies": int(known.sum()), "flagged": 0, "flags": "", "seconds": np.nan, "failure": ""}
    began = time.process_time()
    try:
        own = _as_seen(method, test_set)
        with warnings.catch_warnings():
            # The report tells of flags.
            warnings.filterwarnings("ignore", ".*beyond the population.*", AstropyUserWarning)
            wished = _wishes(reference[known], test_set.bands)
            found = own.generate(int(known.sum()), wished, np.random.default_rng(seed))
            row["seconds"] = (time.process_time() - began) / known.sum()
            free = {name: one for name, one in wished.items() if name not in _colours(test_set.bands)}
            others = found
            if len(free) < len(wished):
                others = own.generate(int(known.sum()), free, np.random.default_rng((seed, 1)))
        stamps = np.full((len(reference), len(test_set.bands), *test_set.observation.shape), np.nan)
        stamps[known] = _stamps(found, test_set)
        drawn = np.full((len(reference), len(test_set.bands) - 1), np.nan)
        drawn[known] = _measured_colours(_stamps(others, test_set))
    except Exception as error:
        return {**row, "failure": reason(error)}, None, None
    raised = [str(flags) for flags in found.catalog["flags"]] if "flags" in found.catalog.colnames else []
    counted = Counter(flag for flags in raised for flag in flags.split(",") if flag)
    return {
        **row, "flagged": sum(map(bool, raised)), "flags": "; ".join(f"{k} {v}" for k, v in counted.most_common()),
    }, stamps, drawn


def _as_seen(method: Generator, test_set: GalaxySet) -> Generator:
    """The method with the pixels, PSF and bands of the set."""
    options = {field.name for field in fields(method)} if is_dataclass(method) else set()
    missing = [name for name in (*_NEEDED, *(["bands"] * (len(test_set.bands) > 1))) if name not in options]
    if missing:
        raise ValueError(f"it lacks the option {missing[0]!r}, by which it would make galaxies as the set has them")
    seen = test_set.observation
    wanted = {"pixel_scale": seen.pixel_scale, "pixels": seen.shape[0], "psf": seen.psf}
    if len(test_set.bands) > 1:
        wanted["bands"] = test_set.bands
    # It is measured here, as the sample is.
    wanted |= {"measure": False} if "measure" in options else {}
    return replace(method, **wanted)


def _stamps(found: Generation, test_set: GalaxySet) -> np.ndarray:
    if len(test_set.bands) == 1:
        images = [[image if isinstance(image, NDData) else next(iter(image.values()))] for image in found.images]
    else:
        images = [[image[band] for band in test_set.bands] for image in found.images]
    stamps = np.array([[band.data for band in galaxy] for galaxy in images], dtype=float)
    if stamps.shape[2:] != test_set.observation.shape or not np.isfinite(stamps).all():
        raise ValueError(f"its images are not finite stamps of {test_set.observation.shape} pixels")
    return stamps


@dataclass(frozen=True)
class _Judge:
    test_set: GalaxySet
    peak_snr: float
    morphology: int
    seed: int

    def measured(self, images: np.ndarray) -> Table:
        """A row a galaxy, by fits to the images without noise, and, of the first ones, `MORPHOLOGY` with noise."""
        there = np.isfinite(images).all((1, 2, 3))
        kernel = self.test_set.observation.kernel
        table = Table(np.full((len(images), len(_PROFILE)), np.nan), names=_PROFILE)
        for name, values in self._profiles(images[there, 0], kernel).items():
            table[name][there] = values
        table["e"] = np.hypot(table["e1"], table["e2"])
        for name, values in zip(_colours(self.test_set.bands), _measured_colours(images).T):
            table[name] = values
        if self.morphology:
            noisy, noise = self.noisy(images[:, :1])
            chosen = np.flatnonzero(there)[:self.morphology]
            found = morphologies(noisy[chosen, 0], noise[chosen, 0], kernel)
            for name in MORPHOLOGY:
                table[name] = np.nan
                table[name][chosen] = found[name]
        return table

    def _profiles(self, images: np.ndarray, kernel: np.ndarray) -> dict[str, np.ndarray]:
        """Of Sérsic fits in least squares, NaN where these did not converge, or to an index that none is wished of."""
        import torch

        from lensdeblend.lensing.sersic_fit import fit_sersics

        data = torch.from_numpy(images)
        fit = fit_sersics(data, psf=torch.from_numpy(kernel).to(data).expand(len(data), -1, -1))
        good = (fit.converged & (fit.n > _INDICES[0]) & (fit.n < _INDICES[1])).numpy()
        found = {name: np.where(good, getattr(fit, name).numpy(), np.nan) for name in _PROFILE}
        return found | {"radius": found["radius"] * self.test_set.pixel_scale}

    def noisy(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """With white noise, and its standard deviation (n, bands)."""
        noise = images.max((2, 3)) / self.peak_snr
        drawn = np.random.default_rng((self.seed, 2)).standard_normal(images.shape)
        return images + noise[:, :, None, None] * drawn, noise

    def report(
        self, sample: GalaxySample, reference: Table, learned: GalaxyShapes | None, made: Mapping[str, np.ndarray],
        drawn: Mapping[str, np.ndarray], able: Mapping[str, Generator], rows: Table, methods: Table,
    ) -> GenerationReport:
        n, colours, labels = len(sample), _colours(self.test_set.bands), list(made)
        for name in colours:
            reference[f"{name}, not wished"] = reference[name]
        tables = [
            self._against(reference, label, self.measured(images), drawn[label]) for label, images in made.items()
        ]
        galaxies = vstack(tables) if tables else Table(names=["method", "flux"], dtype=[str, float])
        properties = (*_PROFILE, *colours)
        free = [f"{name}, not wished" for name in colours]
        compared = (*_PROFILE, "e", *colours, *free, *(MORPHOLOGY if self.morphology else ()))
        edges, transfer = self._rings()
        spectra = {
            label: radial_power(images[np.isfinite(images).all((1, 2, 3)), 0], edges) for label, images in made.items()
        }
        again = self._drawn_again(sample, reference, able)
        usual = radial_power(sample.images[:, 0], edges)
        reference["galaxy"] = sample.galaxy
        return GenerationReport(
            title=f"{n} galaxies of the set {self.test_set.name!r} ({self.test_set.summary}), seed {self.seed}",
            notes=self._notes(rows, n),
            summaries={
                "wishes": wish_table(galaxies, labels, properties),
                "distributions": distribution_table(reference, galaxies, labels, compared, self.seed),
                "spectra": spectrum_table(usual, spectra, edges, transfer),
                "classifier": self._told_apart(sample, made),
                "neighbours": self._neighbours(sample, reference, made, galaxies, learned),
                "reconstructions": self._reconstructions(sample, again),
                "speed": rows["method", "galaxies", "flagged", "flags", "seconds"],
                "failures": failure_table(rows, ()), "methods": methods,
            },
            details={"reference": reference, "galaxies": galaxies},
            cases=tuple(self._mosaics(sample, again, made)),
        )

    def _against(self, reference: Table, label: str, found: Table, drawn: np.ndarray) -> Table:
        colours = _colours(self.test_set.bands)
        found.add_column([label] * len(found), name="method", index=0)
        for name, values in zip(colours, drawn.T):
            found[f"{name}, not wished"] = values
        for name in (*_PROFILE, *colours):
            found[f"{name}_wished"] = reference[name]
        return found

    def _notes(self, rows: Table, n: int) -> tuple[str, ...]:
        bare = n - rows["galaxies"][0]
        return (
            "Generators are wished the flux, radius, ellipticity, index and colours that a Sérsic fit measures on each "
            "galaxy of the sample; both are measured alike. Fluxes are those of the fitted profiles, radii in arcsec, "
            "colours in magnitudes.",
            f"Where there is noise, the brightest pixel is {self.peak_snr:g} times it. Power spectra are of images "
            "without noise; a ratio's error is that of both samples. The classifier learns from half of the galaxies "
            "and judges the other half.",
            *([
                f"{bare} of the sample's galaxies have no profile (the fit did not converge, or to an index beyond "
                f"{_INDICES[0]:g} to {_INDICES[1]:g}); nothing is wished of them."
            ] * bool(bare)),
        )

    def _rings(self) -> tuple[np.ndarray, np.ndarray]:
        """Edges of rings of wave numbers, cycles a pixel, as far as the PSF lets through, and what it does."""
        side, kernel = self.test_set.observation.shape[0], self.test_set.observation.kernel
        padded = np.zeros((side, side))
        padded[:kernel.shape[0], :kernel.shape[1]] = kernel
        line = np.abs(np.fft.rfft2(padded))[0]
        wave = np.fft.rfftfreq(side)
        last = wave[np.flatnonzero(line > _SEEN)[-1]]
        edges = np.linspace(1 / side, last, _RINGS + 1)
        return edges, np.interp((edges[1:] + edges[:-1]) / 2, wave, line)

    def _told_apart(self, sample: GalaxySample, made: Mapping[str, np.ndarray]) -> Table:
        from lensdeblend.evaluation.two_sample import two_sample_auc

        rows = []
        for label, images in made.items():
            there = np.isfinite(images).all((1, 2, 3))
            real, own = (self.noisy(part[there])[0] for part in (sample.images, images))
            # The noise of a pair must not be the same.
            area, error = two_sample_auc(real, own[:, :, ::-1], sample.galaxy[there], self.seed)
            rows.append((label, int(there.sum()), area, error))
        names = ("method", "galaxies", "auc", "auc_error")
        return Table(rows=rows or None, names=names, dtype=(str, int, float, float))

    def _neighbours(self, sample, reference, made, galaxies, learned: GalaxyShapes | None) -> Table:
        if learned is None:
            return neighbour_table(np.zeros(1), {})
        scale = self.test_set.pixel_scale
        standard = learned.standard()
        held = GalaxyShapes.of(sample.images[:, 0], reference, scale).standard()
        distances = {
            label: nearest_distances(
                GalaxyShapes.of(images[:, 0], galaxies[galaxies["method"] == label], scale).standard(), standard
            ) for label, images in made.items()
        }
        return neighbour_table(nearest_distances(held, standard), distances)

    def _drawn_again(self, sample: GalaxySample, reference: Table, methods: Mapping[str, Generator]):
        """What networks make of the noisy sample, NaN where there is no profile, of methods that have ``redrawn``."""
        known = np.isfinite(np.array([reference[name] for name in _PROFILE])).all(0)
        noisy, noise = self.noisy(sample.images)
        profiles = Table({"radius": reference["radius"] / self.test_set.pixel_scale})
        for name in ("e1", "e2", "n", *_colours(self.test_set.bands)):
            profiles[name] = reference[name]
        again = {}
        for label, method in methods.items():
            if hasattr(method, "redrawn"):
                again[label] = np.full_like(sample.images, np.nan)
                again[label][known] = method.redrawn(
                    noisy[known], noise[known], self.test_set.observation.kernel, profiles[known]
                )
        return again

    def _reconstructions(self, sample: GalaxySample, again: Mapping[str, np.ndarray]) -> Table:
        noisy, noise = self.noisy(sample.images)
        rows = []
        for label, drawn in again.items():
            known = np.isfinite(drawn).all((1, 2, 3))
            off = (noisy - drawn)[known] / noise[known][:, :, None, None]
            error = np.sqrt(((drawn - sample.images)[known] ** 2).mean((2, 3))) / sample.images[known].max((2, 3))
            rows.append((label, int(known.sum()), float((off**2).mean()), float((-20 * np.log10(error)).mean())))
        names = ("method", "galaxies", "chi2_per_pixel", "psnr_mean")
        return Table(rows=rows or None, names=names, dtype=(str, int, float, float))

    def _mosaics(self, sample: GalaxySample, again: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]):
        for label, images in made.items():
            some = np.flatnonzero(np.isfinite(images).all((1, 2, 3)))[:_SHOWN]
            shown = {"the sample": sample.images[some]}
            if label in again:
                shown["the same, drawn again by the network"] = again[label][some]
            yield Case(label, "mosaic", 0, np.nan, {
                **shown, f"made by {label} in its place": images[some], "scale": self.test_set.pixel_scale,
            })
