"""Pictures of a training: curves of the log, samples of what the network makes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

__all__ = ["draw_curves", "draw_marginals", "draw_rows"]

_FAINT = 0.05


def draw_curves(log: Path, path: Path) -> None:
    """Every column of a CSV log against its ``step``, training and validation in one panel."""
    from matplotlib.figure import Figure

    with log.open() as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    names = sorted({name.removeprefix("validation_") for name in rows[0] if name != "step"})
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    width, height = 3.2 * columns, 2.4 * lines
    # Margins in inches: to let matplotlib find them takes as long as all else, at every validation.
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(0.65 / width, 0.45 / height, 1 - 0.15 / width, 1 - 0.3 / height, wspace=0.25, hspace=0.5)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(names):]:
        axes.set_axis_off()
    for axes, name in zip(panels, names):
        for column, style in ((name, "-"), (f"validation_{name}", "--")):
            if column in rows[0]:
                axes.plot(steps, [float(row[column]) for row in rows], style, label=column)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("step", fontsize=7)
    figure.savefig(path, dpi=90)


def draw_rows(rows: Sequence[Mapping[str, np.ndarray]], path: Path) -> None:
    """A row a sample, a column a name; each row on the scale of its own brightest pixel, differences about zero."""
    from matplotlib.figure import Figure

    names = list(rows[0])
    figure = Figure(figsize=(2.2 * len(names), 2.2 * len(rows)), layout="constrained")
    for line, row in zip(figure.subplots(len(rows), len(names), squeeze=False), rows):
        peak = max(float(np.max(image)) for name, image in row.items() if "-" not in name)
        for axes, name in zip(line, names):
            if "-" in name:
                axes.imshow(row[name], origin="lower", cmap="RdBu_r", vmin=-0.1 * peak, vmax=0.1 * peak)
            else:
                stretched = np.arcsinh(row[name] / (_FAINT * peak))
                axes.imshow(stretched, origin="lower", cmap="gray", vmin=0, vmax=np.arcsinh(1 / _FAINT))
            axes.set_axis_off()
            axes.set_title(name, fontsize=8)
    figure.savefig(path, dpi=90)


def draw_marginals(
    images: np.ndarray, samples: np.ndarray, truth: np.ndarray, names: Sequence[str],
    ranges: Sequence[tuple[float, float]], path: Path,
) -> None:
    """A row an image: the image, then a histogram of every parameter's samples over its range, the truth a line.

    ``images`` (rows, n, n), ``samples`` (many, rows, names), ``truth`` (rows, names).
    """
    from matplotlib.figure import Figure

    columns = 1 + len(names)
    figure = Figure(figsize=(1.5 * columns, 1.5 * len(images)), layout="constrained")
    for row, line in enumerate(figure.subplots(len(images), columns, squeeze=False)):
        line[0].imshow(images[row], origin="lower", cmap="gray")
        line[0].set_axis_off()
        for column, (axes, name) in enumerate(zip(line[1:], names)):
            axes.hist(samples[:, row, column], bins=40, range=ranges[column], histtype="stepfilled", alpha=0.6)
            axes.axvline(truth[row, column], color="black", linewidth=1)
            axes.set_yticks([])
            axes.tick_params(labelsize=6)
            if row == 0:
                axes.set_title(name, fontsize=8)
    figure.savefig(path, dpi=90)
