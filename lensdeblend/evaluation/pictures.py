"""Cases of a report as pictures."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from astropy.nddata import NDData

from lensdeblend.evaluation.report import Case
from lensdeblend.results import panels

__all__ = ["draw_case"]

_DOTS_PER_INCH = 90
# Data and model share a scale, and so do what was found and the truth.
_SCALED_LIKE = {"model": "data", "unlensed, found": "unlensed, true", "galaxy, found": "galaxy, true"}


def draw_case(case: Case) -> bytes:
    """Draw data, model, residual and what was looked for, found and true, as a PNG.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    scale = float(case.pictures["scale"])
    images = {
        name: NDData(np.asarray(pixels, dtype=float), meta={"PIXSCALE": scale})
        for name, pixels in case.pictures.items() if name != "scale"
    }
    figure, axes = panels.blank_figure(1, len(images))
    for panel, (name, image) in zip(axes[0], images.items()):
        if name == "residual":
            panels.draw_residual(panel, image, name)
        else:
            panels.draw_image(panel, image, name, norm=panels.stretch(images[_SCALED_LIKE.get(name, name)]))
        panel.set_xlabel("arcsec", fontsize="small")
    with BytesIO() as file:
        figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
        return file.getvalue()
