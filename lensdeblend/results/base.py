"""What all results share: provenance, files and pictures."""

from __future__ import annotations

__all__ = ["Result"]


class Result:
    """Base of the five results: frozen dataclasses with ``meta``, `write`, `read` and `plot`."""

    def write(self, path, overwrite=False):
        """Write everything to one FITS file."""
        raise NotImplementedError

    @classmethod
    def read(cls, path):
        """Read what `write` wrote."""
        raise NotImplementedError

    def plot(self, path=None, *, overwrite=False):
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
        from lensdeblend.results.figures import draw
        from lensdeblend.results.panels import check_target, save

        if path is not None:
            check_target(path, overwrite)
        figure = draw(self)
        if path is not None:
            save(figure, path)
        return figure
