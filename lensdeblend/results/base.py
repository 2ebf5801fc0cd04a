"""What all results share: provenance, files and pictures."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Result"]


class Result:
    """Base of the five results: frozen dataclasses with ``meta``, `write`, `read` and `plot`."""

    def write(self, path: str | PathLike, overwrite: bool = False) -> None:
        """Write everything to one FITS file.

        An empty primary HDU holds the provenance; the image is in ``SCI``, ``VAR``, ``DQ`` and ``PSF``, the other
        fields in extensions of their own names, bands under EXTVER and a ``BAND`` key. Checksums are in every HDU.

        Parameters
        ----------
        path : path
            The file appears whole or not at all.
        overwrite : bool
            Whether an existing file may be replaced.

        Raises
        ------
        FileExistsError
            Where the file exists and ``overwrite`` is not given.
        OSError
            Where it cannot be written.
        TypeError
            Where a field holds what a file cannot.
        """
        from lensdeblend.results.files import write_result

        write_result(self, path, overwrite=overwrite)

    @classmethod
    def read(cls, path: str | PathLike) -> Self:
        """Read what `write` wrote.

        Parameters
        ----------
        path : path

        Returns
        -------
        Result
            Equal to what was written, but that images of other NDData classes than CCDData come back as NDData.
            ``Result.read`` reads any of the five kinds.

        Raises
        ------
        FileNotFoundError
            Where there is no such file.
        OSError
            Where it is no FITS file, or a truncated one.
        ValueError
            Where it holds no result, or one of another kind.
        """
        from lensdeblend.results.files import read_result

        result = read_result(path)
        if not isinstance(result, cls):
            kind = type(result).__name__
            raise ValueError(f"{path} holds a {kind}, not a {cls.__name__}: read it with {kind}.read or Result.read")
        return result

    def plot(self, path: str | PathLike | None = None, *, overwrite: bool = False) -> Figure:
        """Draw the result.

        Axes are in arcsec from the image centre, x towards +column and y towards +row; masked pixels are grey.

        Parameters
        ----------
        path : str or `~pathlib.Path`, optional
            File to write; its suffix chooses the format (``.png``, ``.pdf``, ``.svg``, ...).
        overwrite : bool
            Whether an existing file may be replaced.

        Returns
        -------
        `~matplotlib.figure.Figure`
            Not known to pyplot: nothing needs closing.

        Raises
        ------
        ImportError
            Without matplotlib, which comes with the extra ``lensdeblend[plot]``.
        FileExistsError
            Where ``path`` exists and ``overwrite`` is not given.
        FileNotFoundError
            Where the folder of ``path`` does not exist.
        ValueError
            Where the suffix names no format that matplotlib writes.
        """
        from lensdeblend.io.atomic import replacing
        from lensdeblend.results.figures import draw
        from lensdeblend.results.panels import DOTS_PER_INCH, check_format

        if path is None:
            return draw(self)
        check_format(path)
        with replacing(path, overwrite=overwrite) as temporary:
            figure = draw(self)
            figure.savefig(temporary, dpi=DOTS_PER_INCH)
        return figure
