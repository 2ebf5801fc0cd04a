"""One figure for each of the five results."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch

import numpy as np
from astropy.nddata import NDData
from astropy.table import QTable

from lensdeblend.results import panels
from lensdeblend.results.panels import Frame
from lensdeblend.results.records import (
    BandedImage,
    Deblending,
    Generation,
    Reconstruction,
    Simulation,
    SuperResolution,
)
from lensdeblend.results.titles import flag_lines, reconstruction_title

__all__ = ["draw"]

MAX_GALAXIES = 8
MAX_STAMPS = 36
# A lens lies well inside this many times its critical curves; what is outside would only make it small.
VIEW_IN_CRITICAL_RADII = 2.5


@singledispatch
def draw(result):
    """Return the `~matplotlib.figure.Figure` of a result."""
    raise TypeError(f"no figure is known for {type(result).__name__}")


@draw.register
def _(result: Reconstruction):
    bands = list(_bands(result.model))
    panels_a_band = 4 + 2 * (result.lens_light is not None) if result.image is not None else 3
    wide = panels_a_band == 6 and len(bands) == 1
    rows, columns = (2, 3) if wide else (len(bands), panels_a_band)
    title = reconstruction_title(result, columns)
    figure, axes = panels.blank_figure(rows, columns, title_lines=title.count("\n") + 1)
    axes = axes.reshape(len(bands), panels_a_band)
    for row, band in zip(axes, bands):
        _draw_reconstruction(row, result, band)
    _label_axes(axes.reshape(2, 3) if wide else axes)
    figure.suptitle(title, fontsize="medium")
    return figure


def _draw_reconstruction(row, result: Reconstruction, band: str) -> None:
    pick = _picker(band)
    image, model, lens_light = pick(result.image), pick(result.model), pick(result.lens_light)
    reference = image if image is not None else model
    frame = Frame.of(reference)
    curves = result.curves
    if _has_rows(curves) and isinstance(result.model, Mapping):
        curves = panels.curves_on(curves, next(iter(result.model.values())), reference)
    view = _view(frame, panels.unmasked(reference).mask, curves)
    seen = _pixels_within(frame, view)
    norm = panels.stretch(reference, seen)
    remaining = list(row)

    if image is not None:
        panels.draw_image(_next(remaining, view), image, _titled("data", band), norm=norm, frame=frame)
        panels.draw_compass(row[0], image)
    if image is not None and lens_light is not None:
        panels.draw_image(_next(remaining, view), lens_light, "lens light", norm=norm, frame=frame)
        arcs = NDData(
            image.data - lens_light.data, mask=image.mask, uncertainty=_copied(image.uncertainty), unit=image.unit
        )
        panels.draw_image(
            _next(remaining, view), arcs, "data $-$ lens light", norm=panels.stretch(arcs, seen), frame=frame
        )
    on_model = _next(remaining, view)
    with_curves = _has_rows(curves)
    panels.draw_image(on_model, model, "model, critical curves" if with_curves else "model", norm=norm, frame=frame)
    chi2 = result.meta.get("chi2_by_band", {}).get(band, result.chi2)
    panels.draw_residual(_next(remaining, view), pick(result.residual), _residual_title(chi2), frame=frame)
    on_source = remaining.pop(0)
    source = pick(result.source)
    source_frame = Frame.of(source, reference)
    panels.draw_image(
        on_source, source, "source, caustics" if with_curves else "source", frame=source_frame,
        label="flux per source pixel",
    )
    if with_curves:
        panels.draw_curves(on_model, curves, "x", "y")
        panels.draw_curves(on_source, curves, "source_x", "source_y")
        _look_at_source(on_source, source_frame, curves)
    panels.draw_scale_bar(row[0])
    panels.draw_scale_bar(on_source)


@draw.register
def _(result: Simulation):
    bands = list(_bands(result.image))
    galaxies = [] if result.unlensed is not None else result.sources[:MAX_GALAXIES] if len(result.sources) > 1 else []
    n_panels = 2 + len(galaxies) + (result.source is not None) + (result.unlensed is not None)
    figure, axes = panels.blank_figure(*_rows_and_columns(len(bands), n_panels))
    for row, band in zip(_split(axes, len(bands)), bands):
        pick = _picker(band)
        image = pick(result.image)
        norm = panels.stretch(image)
        remaining = list(row)
        panels.draw_image(remaining[0], image, _titled("image", band), norm=norm)
        panels.draw_compass(remaining[0], image)
        panels.draw_scale_bar(remaining.pop(0))
        panels.draw_image(remaining.pop(0), pick(result.noiseless), "without noise", norm=norm)
        if result.unlensed is not None:
            panels.draw_image(remaining.pop(0), pick(result.unlensed), "unlensed", norm=norm)
        if result.source is not None:
            source = pick(result.source)
            panels.draw_image(
                remaining[0], source, "source", frame=Frame.of(source, image), label="flux per source pixel"
            )
            panels.draw_scale_bar(remaining.pop(0))
        for number, galaxy in enumerate(galaxies, start=1):
            panels.draw_image(remaining.pop(0), pick(galaxy), _numbered(number, len(result.sources)), norm=norm)
        _hide(remaining)
    _label_axes(axes)
    return figure


@draw.register
def _(result: Deblending):
    bands = list(_bands(result.model))
    galaxies = result.sources[:MAX_GALAXIES]
    coloured = panels.colour_bands(result.model)
    n_rows = len(bands) + bool(coloured)
    n_panels = 3 + len(galaxies) + (n_rows == 1 and result.segmentation is not None)
    figure, axes = panels.blank_figure(*_rows_and_columns(n_rows, n_panels), title_lines=1)
    rows = _split(axes, n_rows)
    if coloured:
        _draw_colours(rows[0], result, coloured)
    for row, band in zip(rows[bool(coloured):], bands):
        pick = _picker(band)
        model = pick(result.model)
        image = model if result.image is None else pick(result.image)
        norm = panels.stretch(image)
        remaining = list(row)
        title = "model" if result.image is None else "data"
        panels.draw_image(remaining[0], image, _titled(title, band), norm=norm)
        panels.draw_compass(remaining[0], image)
        panels.draw_scale_bar(remaining[0])
        if band == bands[0]:
            panels.number_galaxies(remaining[0], result.catalog, Frame.of(image))
        remaining.pop(0)
        if n_rows == 1 and result.segmentation is not None:
            panels.draw_segments(remaining.pop(0), result.segmentation, "segmentation", Frame.of(image))
        panels.draw_image(remaining.pop(0), model, "model", norm=norm)
        panels.draw_residual(remaining.pop(0), pick(result.residual), _residual_title(result.chi2))
        for number, galaxy in enumerate(galaxies, start=1):
            panels.draw_image(remaining.pop(0), pick(galaxy), _numbered(number, len(result.sources)), norm=norm)
        _hide(remaining)
    _label_axes(axes)
    figure.suptitle(_galaxies(len(result.sources)), fontsize="medium")
    return figure


def _draw_colours(row, result: Deblending, bands: tuple[str, ...]) -> None:
    """Data, model, segmentation and galaxies in colour."""
    image = result.model if result.image is None else result.image
    reference, frame = [image[band] for band in bands], Frame.of(image[bands[-1]])
    remaining = list(row)

    def colours(of, title: str) -> None:
        panels.draw_colours(
            remaining.pop(0), panels.composite([of[band] for band in bands], reference), title, frame
        )

    colours(image, f"{'model' if result.image is None else 'data'}: {', '.join(bands)} as red, green, blue")
    panels.number_galaxies(row[0], result.catalog, frame)
    panels.draw_scale_bar(row[0])
    colours(result.model, "model")
    if result.segmentation is not None:
        panels.draw_segments(remaining.pop(0), result.segmentation, "segmentation", frame)
    else:
        _hide([remaining.pop(0)])
    for number, galaxy in enumerate(result.sources[:MAX_GALAXIES], start=1):
        colours(galaxy, _numbered(number, len(result.sources)))
    _hide(remaining)


@draw.register
def _(result: Generation):
    shown = result.images[:MAX_STAMPS]
    band = next(iter(_bands(shown[0])), "") if shown else ""
    columns = max(1, min(6, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure, axes = panels.blank_figure(rows, columns, title_lines=1)
    figure.set_size_inches(1.6 * columns, 1.6 * rows + 0.4)
    remaining = list(axes.flat)
    for image in shown:
        stamp = remaining.pop(0)
        pixels = _picker(band)(image)
        stamp.imshow(
            panels.unmasked(pixels), origin="lower", cmap=panels.IMAGE_MAP, norm=panels.stretch(pixels),
            extent=Frame.of(pixels).extent,
        )
        stamp.set_xticks([])
        stamp.set_yticks([])
    _hide(remaining)
    if shown:
        panels.draw_scale_bar(axes.flat[0])
    total = _galaxies(len(result.images))
    title = f"{len(shown)} of {total}" if len(shown) < len(result.images) else total
    figure.suptitle(_titled(title, band), fontsize="medium")
    return figure


@draw.register
def _(result: SuperResolution):
    bands = list(_bands(result.image))
    optional = (
        result.intrinsic, result.source, result.convergence, result.substructure, result.deflection,
        result.magnification,
    )
    n_panels = 1 + sum(part is not None for part in optional)
    rows, columns = _rows_and_columns(len(bands), n_panels)
    title = "\n".join([rf"$\chi^2_\nu = {result.chi2:.3f}$", *flag_lines(result.flags, columns)])
    figure, axes = panels.blank_figure(rows, columns, title_lines=title.count("\n") + 1)
    for row, band in zip(_split(axes, len(bands)), bands):
        pick = _picker(band)
        image = pick(result.image)
        remaining = list(row)
        panels.draw_image(remaining[0], image, _titled("through the PSF", band))
        panels.draw_compass(remaining[0], image)
        panels.draw_scale_bar(remaining.pop(0))
        if result.intrinsic is not None:
            panels.draw_image(remaining.pop(0), pick(result.intrinsic), "before the PSF")
        if result.source is not None:
            source = pick(result.source)
            panels.draw_image(
                remaining[0], source, "source", frame=Frame.of(source, image), label="flux per source pixel"
            )
            panels.draw_scale_bar(remaining.pop(0))
        if band == bands[0]:
            _draw_lens_maps(remaining, result, Frame.of(image))
        _hide(remaining)
    _label_axes(axes)
    figure.suptitle(title, fontsize="medium")
    return figure


def _draw_lens_maps(remaining: list, result: SuperResolution, frame: Frame) -> None:
    """Draw what is known of the lens, on as many of the ``remaining`` panels."""
    if result.convergence is not None:
        # The convergence of a power law is infinite at its centre; beyond 2 nothing is to be seen.
        panels.draw_map(remaining.pop(0), result.convergence, "convergence", r"$\kappa$", frame=frame, upper=2.0)
    if result.substructure is not None:
        panels.draw_map(remaining.pop(0), result.substructure, "substructure", r"$\kappa$", frame=frame)
    if result.deflection is not None:
        x, y = result.deflection
        panels.draw_map(remaining.pop(0), NDData(np.hypot(x.data, y.data)), "deflection", "arcsec", frame=frame)
    if result.magnification is not None:
        # It is infinite on critical curves.
        strength = NDData(np.abs(result.magnification.data))
        panels.draw_map(remaining.pop(0), strength, "magnification", r"$|\mu|$", frame=frame, upper=20.0)


def _bands(image: BandedImage) -> tuple[str, ...]:
    return tuple(image) if isinstance(image, Mapping) else ("",)


def _picker(band: str):
    return lambda image: image[band] if isinstance(image, Mapping) else image


def _titled(title: str, band: str) -> str:
    return f"{title}, {band}" if band else title


def _residual_title(chi2: float) -> str:
    return rf"residual, $\chi^2_\nu = {chi2:.3f}$"


def _numbered(number: int, total: int) -> str:
    return f"galaxy {number} of {total}"


def _galaxies(number: int) -> str:
    return f"{number} galaxy" if number == 1 else f"{number} galaxies"


def _copied(uncertainty):
    # NDData takes an uncertainty over and points it to its new parent.
    return None if uncertainty is None else type(uncertainty)(uncertainty.array, unit=uncertainty.unit)


def _next(remaining: list, view: tuple[float, float, float, float]):
    axes = remaining.pop(0)
    axes.set_autoscale_on(False)
    panels.look_at([axes], view)
    return axes


def _hide(remaining: list) -> None:
    for axes in remaining:
        axes.set_axis_off()


def _has_rows(curves: QTable | None) -> bool:
    return curves is not None and len(curves) > 0


def _view(frame: Frame, mask: np.ndarray | None, curves: QTable | None) -> tuple[float, float, float, float]:
    """The part of the frame worth seeing: around what was fitted, and around the lens where that is much less."""
    left, right, bottom, top = _fitted(frame, mask)
    if not _has_rows(curves):
        return left, right, bottom, top
    x, y = panels.arcsec(curves["x"]), panels.arcsec(curves["y"])
    middle_x, middle_y = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
    half = VIEW_IN_CRITICAL_RADII * max(np.ptp(x), np.ptp(y)) / 2
    if 2 * half > 0.75 * min(right - left, top - bottom):
        return left, right, bottom, top
    return middle_x - half, middle_x + half, middle_y - half, middle_y + half


def _fitted(frame: Frame, mask: np.ndarray | None) -> tuple[float, float, float, float]:
    """The square around all unmasked pixels, with a rim; the frame where that is not smaller."""
    if mask is None or not mask.any() or mask.all():
        return frame.extent
    row, column = np.nonzero(~mask)
    x, y = frame.position(column, row)
    half = 0.55 * max(np.ptp(x), np.ptp(y)) + frame.scale
    middle_x, middle_y = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
    left, right, bottom, top = frame.extent
    if half > min(right - left, top - bottom) / 2:
        return frame.extent
    return middle_x - half, middle_x + half, middle_y - half, middle_y + half


def _pixels_within(frame: Frame, view: tuple[float, float, float, float]) -> np.ndarray:
    row, column = np.indices(frame.shape)
    x, y = frame.position(column, row)
    return (x >= view[0]) & (x <= view[1]) & (y >= view[2]) & (y <= view[3])


def _look_at_source(axes, frame: Frame, curves: QTable) -> None:
    """Show the whole source image and the whole of every caustic, in a square."""
    left, right, bottom, top = frame.extent
    x, y = panels.arcsec(curves["source_x"]), panels.arcsec(curves["source_y"])
    margin = 0.03 * max(right - left, top - bottom)
    left, right = min(left, x.min() - margin), max(right, x.max() + margin)
    bottom, top = min(bottom, y.min() - margin), max(top, y.max() + margin)
    half = max(right - left, top - bottom) / 2
    middle_x, middle_y = (left + right) / 2, (bottom + top) / 2
    panels.look_at([axes], (middle_x - half, middle_x + half, middle_y - half, middle_y + half))
    axes.set_facecolor(axes.images[0].cmap(0.0))


def _rows_and_columns(n_bands: int, n_panels: int) -> tuple[int, int]:
    """One row a band; a single band of many panels is folded."""
    if n_bands > 1 or n_panels <= 4:
        return n_bands, n_panels
    columns = 3 if n_panels in (5, 6, 9) else 4
    return -(-n_panels // columns), columns


def _split(axes: np.ndarray, n_bands: int) -> list[np.ndarray]:
    return list(axes) if n_bands > 1 else [axes.reshape(-1)]


def _label_axes(axes: np.ndarray) -> None:
    visible = np.vectorize(lambda panel: panel.axison, otypes=[bool])(axes)
    for (row, column), panel in np.ndenumerate(axes):
        if not visible[row, column]:
            continue
        if column == 0:
            panel.set_ylabel("y (arcsec)", fontsize="small")
        if row == len(axes) - 1 or not visible[row + 1, column]:
            panel.set_xlabel("x (arcsec)", fontsize="small")
