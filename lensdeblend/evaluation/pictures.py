"""Cases of a report as pictures."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from astropy.nddata import NDData

from lensdeblend.evaluation.report import Case
from lensdeblend.results import panels

__all__ = ["draw_case", "draw_finer_case", "draw_mosaics", "draw_roc"]

_DOTS_PER_INCH = 90
_COLUMNS = 8
# Of the brightest pixel: what is as bright as the sky is black.
_FAINT = 0.05
# Data and model share a scale, and so do what was found and the truth.
_SCALED_LIKE = {"model": "data", "unlensed, found": "unlensed, true", "galaxy, found": "galaxy, true"}


def draw_case(case: Case) -> bytes:
    """Draw data, model, residual and what was looked for, found and true, as a PNG.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    images = _images(case)
    figure, axes = panels.blank_figure(1, len(images))
    for panel, (name, image) in zip(axes[0], images.items()):
        if name == "residual":
            panels.draw_residual(panel, image, name)
        else:
            panels.draw_image(panel, image, name, norm=panels.stretch(images[_SCALED_LIKE.get(name, name)]))
        panel.set_xlabel("arcsec", fontsize="small")
    return _png(figure)


def draw_finer_case(case: Case) -> bytes:
    """Draw data, what finer pixels show and what was found there, the difference, and the error of the deflection, as
    a PNG.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    images = _images(case)
    norm = panels.stretch(images["finer, true"])
    figure, axes = panels.blank_figure(1, len(images))
    for panel, (name, image) in zip(axes[0], images.items()):
        if name == "error":
            panels.draw_difference(panel, image, "found \N{MINUS SIGN} true", "% of the true maximum")
        elif name == "deflection error":
            # Next to a point mass it is as large as one likes.
            most = float(np.percentile(image.data, 99.5))
            panels.draw_map(panel, image, name, "% of the Einstein radius", upper=most)
        else:
            panels.draw_image(panel, image, name, norm=norm, label="flux per finer pixel")
        panel.set_xlabel("arcsec", fontsize="small")
    return _png(figure)


def draw_mosaics(case: Case) -> bytes:
    """Draw stamps (n, bands, ny, nx), the reddest band first, of two samples side by side, as a PNG.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    stamps = {name: np.asarray(pixels, dtype=float) for name, pixels in case.pictures.items() if name != "scale"}
    figure, axes = panels.blank_figure(1, len(stamps))
    rows = -(-len(next(iter(stamps.values()))) // _COLUMNS)
    figure.set_size_inches(6.2 * len(stamps), 6.2 * rows / _COLUMNS + 0.4)
    for panel, (name, images) in zip(axes[0], stamps.items()):
        panel.imshow(_mosaic(images), origin="lower", interpolation="nearest")
        panel.set_title(name, fontsize="small")
        panel.set_axis_off()
    return _png(figure)


def draw_roc(case: Case) -> bytes:
    """Draw ROC curves, arrays (points, 2) by "class, method", a panel a class, as a PNG.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    kinds = list(dict.fromkeys(name.partition(", ")[0] for name in case.pictures))
    figure, axes = panels.blank_figure(1, len(kinds))
    for panel, kind in zip(axes[0], kinds):
        for name, points in case.pictures.items():
            own, _, label = name.partition(", ")
            if own == kind:
                panel.plot(*points.T, label=label, linewidth=1.2)
        panel.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        panel.set(xlabel="false positive rate", ylabel="true positive rate")
        panel.set_title(f"{kind} against the others", fontsize="medium")
    axes[0, -1].legend(fontsize="small", loc="lower right")
    return _png(figure)


def _images(case: Case) -> dict[str, NDData]:
    scale = float(case.pictures["scale"])
    return {
        name: NDData(np.asarray(pixels, dtype=float), meta={"PIXSCALE": scale})
        for name, pixels in case.pictures.items() if name != "scale"
    }


def _png(figure) -> bytes:
    with BytesIO() as file:
        figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
        return file.getvalue()


def _mosaic(images: np.ndarray) -> np.ndarray:
    """Rows of stamps, the first at the top left; in red, green and blue, brightness compressed."""
    n, bands, ny, nx = images.shape
    rows = -(-n // _COLUMNS)
    grid = np.zeros((rows * ny, _COLUMNS * nx, 3))
    for place, stamp in enumerate(images):
        light = stamp.clip(0) / max(float(stamp.mean(0).max()), 1e-300)
        bright = np.arcsinh(light.mean(0) / _FAINT) / np.arcsinh(1 / _FAINT)
        shown = (light if bands == 3 else light[[0] * 3]) * (bright / light.mean(0).clip(1e-12))
        row, column = divmod(place, _COLUMNS)
        top = (rows - 1 - row) * ny
        grid[top:top + ny, column * nx:(column + 1) * nx] = shown.transpose(1, 2, 0)
    return grid.clip(0, 1)
