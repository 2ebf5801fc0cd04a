"""What an evaluation found: tables, pictures, and the files they go into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import ClassVar

import numpy as np
from astropy.table import Table

from lensdeblend.evaluation.page import page
from lensdeblend.evaluation.readable import aligned
from lensdeblend.io.atomic import replacing

__all__ = [
    "Case", "DeblendingReport", "DownstreamReport", "GenerationReport", "ReconstructionReport", "Report",
    "SuperResolutionReport",
]


@dataclass(frozen=True, eq=False)
class Case:
    """One result as pictures.

    Attributes
    ----------
    method, rank : str
        Label of the method; ``"best"``, ``"median"`` or ``"worst"``.
    index : int
        Of the image in its set.
    footprint_psnr : float
        By which it was ranked, dB.
    pictures : mapping
        Arrays by name, and ``scale``, arcsec a pixel.
    """

    method: str
    rank: str
    index: int
    footprint_psnr: float
    pictures: Mapping[str, np.ndarray | float]


@dataclass(frozen=True, eq=False)
class Report:
    """Methods on a set of images whose truth is known.

    Attributes
    ----------
    title : str
        Which set, how many images, which seed.
    notes : tuple of str
        What to know when reading the numbers.
    summaries : dict of str to `~astropy.table.Table`
        A few rows a method; ``headings`` has the names.
    details : dict of str to `~astropy.table.Table`
        Many rows; ``detailed`` has the names.
    cases : tuple of `Case`
        The best, median and worst of each method, by PSNR over the footprint.
    """

    #: Headings of the summaries, in order.
    headings: ClassVar[Mapping[str, str]] = {}
    #: Names of the tables that are only written.
    detailed: ClassVar[tuple[str, ...]] = ()
    #: What a case shows.
    caption: ClassVar[str] = "image {index}, footprint PSNR {psnr:.2f} dB"
    #: Heading of the pictures.
    pictured: ClassVar[str] = "Best, median and worst"

    title: str
    notes: tuple[str, ...]
    summaries: dict[str, Table]
    details: dict[str, Table]
    cases: tuple[Case, ...]

    @property
    def text(self) -> str:
        """The summaries for a terminal."""
        lines = [self.title, *self.notes]
        for name, heading in self.headings.items():
            lines += ["", heading, *(aligned(self.summaries[name]) or ["none"])]
        return "\n".join(lines)

    @property
    def failures(self) -> int:
        """How many times a method gave no answer."""
        return len(self.summaries["failures"])

    def html(self, *, pictures: bool = True) -> str:
        """The summaries and the pictures of the cases as one page, which needs nothing from elsewhere.

        Raises
        ------
        ImportError
            Where pictures are wanted and matplotlib is not installed.
        """
        drawn = None
        if pictures:
            drawn = [(self._caption(case), self._drawn(case)) for case in self.cases]
        tables = {heading: self.summaries[name] for name, heading in self.headings.items()}
        return page(self.title, self.notes, tables, drawn, pictured=self.pictured)

    def _drawn(self, case: Case) -> bytes:
        from lensdeblend.evaluation.pictures import draw_case

        return draw_case(case)

    def _caption(self, case: Case) -> str:
        return f"{case.method}, {case.rank}: {self.caption.format(index=case.index, psnr=case.footprint_psnr)}"

    @classmethod
    def files(cls, folder: str | PathLike) -> list[Path]:
        """What `write` writes into ``folder``."""
        tables = [f"{name}.{suffix}" for name in (*cls.headings, *cls.detailed) for suffix in ("csv", "ecsv")]
        return [Path(folder) / name for name in ("report.html", "report.txt", *tables)]

    def write(self, folder: str | PathLike, *, overwrite: bool = False, pictures: bool = True) -> None:
        """Write the report into a folder, which is made where it does not exist.

        ``report.html`` and ``report.txt`` hold the summaries; each table is also a ``.csv`` and a ``.ecsv`` file of its
        own name.

        Parameters
        ----------
        folder : path
        overwrite : bool
            Whether existing files may be replaced.
        pictures : bool
            Whether to draw the cases; needs matplotlib.

        Raises
        ------
        FileExistsError
            Where one of the files exists and ``overwrite`` is not given; nothing is written then.
        ImportError
            Where pictures are wanted and matplotlib is not installed.
        """
        folder = Path(folder)
        there = [path for path in self.files(folder) if path.exists()]
        if there and not overwrite:
            raise FileExistsError(f"{there[0]} exists; to replace it give overwrite=True, or write to another folder")
        html = self.html(pictures=pictures)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("report.html", html), ("report.txt", self.text + "\n")):
            with replacing(folder / name, overwrite=overwrite) as temporary:
                temporary.write_text(text, encoding="utf-8")
        for name, table in {**self.summaries, **self.details}.items():
            for suffix, kind in (("csv", "ascii.csv"), ("ecsv", "ascii.ecsv")):
                with replacing(folder / f"{name}.{suffix}", overwrite=overwrite) as temporary:
                    table.write(temporary, format=kind)


class ReconstructionReport(Report):
    """Reconstructors on a set of lenses.

    ``summaries`` has ``sources``, ``parameters``, ``fits``, ``flags``, ``failures`` and ``methods``; ``details`` has
    ``images``, a row a method and image, and ``lenses``, the truth, a row an image. Cases are ranked by the unlensed
    source.
    """

    headings = {
        "sources": "Unlensed sources", "parameters": "Lens parameters", "fits": "Fits", "flags": "Flags raised",
        "failures": "Failures", "methods": "Methods",
    }
    detailed = ("images", "lenses")
    caption = "lens {index}, footprint PSNR of the unlensed source {psnr:.2f} dB"


class DeblendingReport(Report):
    """Deblenders on a set of blends.

    ``summaries`` has ``galaxies`` and ``bands`` (true positions given), ``detections`` (none given), ``fits``,
    ``flags``, ``failures`` and ``methods``; ``details`` has ``images``, a row a method, mode and blend, ``sources``, a
    row a method and galaxy (true positions given), ``matches``, a row a method and galaxy (none given), and ``truths``,
    a row a galaxy. Cases are ranked by the mean over a blend's galaxies.
    """

    headings = {
        "galaxies": "Galaxies at given positions", "bands": "Fluxes by band at given positions",
        "detections": "Detection", "fits": "Fits", "flags": "Flags raised", "failures": "Failures",
        "methods": "Methods",
    }
    detailed = ("images", "sources", "matches", "truths")
    caption = "blend {index}, mean footprint PSNR of its galaxies {psnr:.2f} dB"


class GenerationReport(Report):
    """Generators on a sample of galaxies.

    ``summaries`` has ``wishes``, ``distributions``, ``spectra``, ``classifier``, ``neighbours``, ``reconstructions``,
    ``speed``, ``failures`` and ``methods``; ``details`` has ``reference``, a row a galaxy of the sample, and
    ``galaxies``, a row a method and galaxy. The cases are mosaics: of the sample, of the same drawn again by the
    method's network, where it has one, and of what was made in its place.
    """

    headings = {
        "wishes": "Wished against measured", "distributions": "Distributions",
        "spectra": "Power spectra, over those of the sample", "classifier": "Told apart by a network",
        "neighbours": "Distance to the nearest real galaxy that was learned from",
        "reconstructions": "Noisy galaxies of the sample, drawn again by the network", "speed": "Made",
        "failures": "Failures", "methods": "Methods",
    }
    detailed = ("reference", "galaxies")

    def _drawn(self, case: Case) -> bytes:
        from lensdeblend.evaluation.pictures import draw_mosaics

        return draw_mosaics(case)

    def _caption(self, case: Case) -> str:
        return f"{case.method}: the sample, and what was made in its place"


class SuperResolutionReport(Report):
    """Superresolvers on a set of lenses.

    ``summaries`` has ``comparison``, ``published``, ``maps``, ``errors``, ``fits``, ``flags``, ``failures`` and
    ``methods``; ``details`` has ``images``, a row a method and image, those that the methods stand beside included, and
    ``lenses``, the truth, a row an image.
    """

    headings = {
        "comparison": "Finer images against the truth, without noise and noisy", "published": "Published",
        "maps": "Deflection and mass", "errors": "Error maps of the finer images", "fits": "Fits",
        "flags": "Flags raised", "failures": "Failures", "methods": "Methods",
    }
    detailed = ("images", "lenses")
    caption = "lens {index} ({which}), footprint PSNR of the finer image {psnr:.2f} dB"

    def _drawn(self, case: Case) -> bytes:
        from lensdeblend.evaluation.pictures import draw_finer_case

        return draw_finer_case(case)

    def _caption(self, case: Case) -> str:
        lens = self.details["lenses"][case.index]
        which = f"model {lens['model']}, class {lens['class']}"
        told = self.caption.format(index=case.index, which=which, psnr=case.footprint_psnr)
        return f"{case.method}, {case.rank}: {told}"


class DownstreamReport(Report):
    """Classes of substructure told apart on images and on what superresolvers make of them.

    ``summaries`` has ``areas``, a row a method, model and class, ``accuracy``, a row a method and model with how many
    images of each class were taken for each, ``failures`` and ``methods``; ``details`` has ``curves``, the ROC curves.
    The cases are these as pictures, one a model.
    """

    headings = {
        "areas": "Area under the ROC curve", "accuracy": "Accuracy", "failures": "Failures", "methods": "Methods",
    }
    detailed = ("curves",)
    pictured = "ROC curves"

    def _drawn(self, case: Case) -> bytes:
        from lensdeblend.evaluation.pictures import draw_roc

        return draw_roc(case)

    def _caption(self, case: Case) -> str:
        return f"model {case.rank}" if case.rank else "each class against the others"
