"""The panels figures are made of: an image in arcsec, a residual in sigma, curves, compass, scale bar.

Axes are in arcsec from the image centre, x towards +column and y towards +row, origin at the bottom.
Matplotlib is imported only when a figure is made, and never through pyplot, so no global state is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData, StdDevUncertainty
from astropy.stats import mad_std
from astropy.table import Table
from astropy.wcs import WCS

from lensdeblend.images import pixel_scale
from lensdeblend.io.wcs import as_fits_wcs

__all__ = [
    "Frame", "arcsec", "blank_figure", "check_format", "colour_bands", "composite", "curves_on", "draw_colours",
    "draw_compass", "draw_curves", "draw_image", "draw_map", "draw_residual", "draw_scale_bar", "draw_segments",
    "look_at", "number_galaxies", "outline", "stretch", "unmasked",
]

DOTS_PER_INCH = 150
PANEL_WIDTH, PANEL_HEIGHT = 3.3, 2.9
IMAGE_MAP, RESIDUAL_MAP, POSITIVE_MAP = "inferno", "RdBu_r", "cividis"
MASKED_COLOUR = "0.62"
CURVE_COLOUR = "#5fd3ff"
RESIDUAL_LIMIT = 5.0
_NICE = (1, 5, 2)


@dataclass(frozen=True)
class Frame:
    """Where the pixels of an image lie, in arcsec from the centre of the image that was analysed."""

    shape: tuple[int, int]
    scale: float
    center: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, image: NDData, reference: NDData | None = None) -> Frame:
        """Read the frame off ``image``; where both have a celestial WCS, its centre is found on that of ``reference``.

        Without one, ``meta["CENTER_X"]`` and ``meta["CENTER_Y"]`` say where its centre lies, in arcsec.
        """
        shape = image.data.shape
        center = float(image.meta.get("CENTER_X", 0.0)), float(image.meta.get("CENTER_Y", 0.0))
        wcs, reference_wcs = _celestial(image), _celestial(reference)
        if wcs is not None and reference_wcs is not None:
            sky = wcs.pixel_to_world((shape[1] - 1) / 2, (shape[0] - 1) / 2)
            column, row = reference_wcs.world_to_pixel(sky)
            scale, (rows, columns) = _scale(reference), reference.data.shape
            center = float(column - (columns - 1) / 2) * scale, float(row - (rows - 1) / 2) * scale
        return cls(shape, _scale(image), center)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top edge, in arcsec."""
        half_y, half_x = (n * self.scale / 2 for n in self.shape)
        x, y = self.center
        return x - half_x, x + half_x, y - half_y, y + half_y

    def position(self, column, row) -> tuple[np.ndarray, np.ndarray]:
        """Turn pixel coordinates into arcsec."""
        rows, columns = self.shape
        return (
            (np.asarray(column) - (columns - 1) / 2) * self.scale + self.center[0],
            (np.asarray(row) - (rows - 1) / 2) * self.scale + self.center[1],
        )


def blank_figure(rows: int, columns: int, *, title_lines: int = 0):
    """A figure with ``rows`` by ``columns`` empty panels, and the array of them."""
    size = PANEL_WIDTH * columns, PANEL_HEIGHT * rows + 0.28 * title_lines
    figure = _import_figure()(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.06)
    return figure, figure.subplots(rows, columns, squeeze=False)


def check_format(path) -> None:
    """Refuse a file name whose suffix names no format of figures."""
    _import_figure()
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.lower().removeprefix(".") not in formats:
        known = ", ".join(sorted(formats))
        raise ValueError(f"{path}: the suffix must name a format of figures; matplotlib knows {known}")


def unmasked(image: NDData) -> np.ma.MaskedArray:
    """The pixels, masked where the mask says so or where they are not finite."""
    mask = ~np.isfinite(image.data)
    if image.mask is not None:
        mask |= np.asarray(image.mask, dtype=bool)
    return np.ma.masked_array(image.data, mask)


def stretch(image: NDData, within: np.ndarray | None = None):
    """An asinh stretch from just below the sky to the brightest unmasked pixel, linear up to a few times the noise."""
    from astropy.visualization import AsinhStretch, ImageNormalize

    values = unmasked(image)
    if within is not None and not values.mask[within].all():
        values = values[within]
    values = values.compressed()
    if values.size == 0 or values.max() == values.min():
        return ImageNormalize(vmin=0, vmax=1)
    noise = _noise(image, values)
    low, high = max(values.min(), min(np.median(values), 0) - 2 * noise), values.max()
    if high <= low:
        low = values.min()
    linear = np.clip(4 * noise / (high - low), 0.005, 1.0)
    return ImageNormalize(vmin=low, vmax=high, stretch=AsinhStretch(linear))


def draw_image(
    axes, image: NDData, title: str, *, norm=None, frame: Frame | None = None, label: str = "flux per pixel"
):
    """Draw an image with its colour bar; masked pixels are grey."""
    norm = norm or stretch(image)
    drawn = _draw(axes, unmasked(image), title, frame or Frame.of(image), norm=norm, colours=IMAGE_MAP)
    _stretched_colour_bar(axes, drawn, norm, label, image.unit)
    return drawn


def colour_bands(images) -> tuple[str, ...]:
    """Red, green, blue: the last, the middle and the first of three bands or more on one grid; else none."""
    bands = list(images) if isinstance(images, Mapping) else []
    if len(bands) < 3 or len({image.data.shape for image in images.values()}) > 1:
        return ()
    return bands[-1], bands[len(bands) // 2], bands[0]


def composite(images: Sequence[NDData], reference: Sequence[NDData]) -> np.ndarray:
    """Red, green and blue (ny, nx, 3), by `~astropy.visualization.make_lupton_rgb` (Lupton et al. 2004).

    Parameters
    ----------
    images, reference : sequence of NDData
        Three each, red first, on one grid. Each channel is in units of the noise of ``reference``, whose brightest
        pixel the stretch is made for, so that composites of one reference can be compared.

    Notes
    -----
    Galaxies of equal signal-to-noise in the three bands are grey.
    """
    from astropy.visualization import make_lupton_rgb

    noise = [_noise(given, unmasked(given).filled(0.0)) or 1.0 for given in reference]
    channels = [unmasked(image).filled(0.0) / unit for image, unit in zip(images, noise)]
    peak = max(float(unmasked(given).filled(0.0).max()) / unit for given, unit in zip(reference, noise))
    with np.errstate(divide="ignore", invalid="ignore"):
        # astropy divides by an intensity of zero before it looks.
        return make_lupton_rgb(*channels, stretch=max(0.03 * peak, 4.0), Q=8)


def draw_colours(axes, colours: np.ndarray, title: str, frame: Frame):
    """Draw what `composite` made."""
    drawn = axes.imshow(colours, origin="lower", extent=frame.extent, interpolation="nearest")
    _dress(axes, title)
    return drawn


def draw_segments(axes, segmentation, title: str, frame: Frame):
    """Draw photutils' segmentation, each label in its own colour, the background in black."""
    from matplotlib.colors import ListedColormap, hsv_to_rgb

    values = np.ma.masked_equal(segmentation.data, 0)
    count = max(int(segmentation.data.max()), 1)
    # By the golden ratio, labels that follow each other get hues far apart, however many there are.
    hues = (0.11 + 0.618034 * np.arange(count)) % 1.0
    colours = hsv_to_rgb(np.stack([hues, np.full(count, 0.65), np.full(count, 0.95)], 1))
    drawn = axes.imshow(
        values, origin="lower", extent=frame.extent, cmap=ListedColormap(colours).with_extremes(bad="black"),
        interpolation="nearest", vmin=0.5, vmax=count + 0.5,
    )
    _dress(axes, title)
    return drawn


def draw_residual(axes, residual: NDData, title: str, *, frame: Frame | None = None):
    """Draw (data - model) / sigma on a diverging map that ends at five sigma."""
    drawn = _draw(
        axes, unmasked(residual), title, frame or Frame.of(residual),
        colours=RESIDUAL_MAP, vmin=-RESIDUAL_LIMIT, vmax=RESIDUAL_LIMIT,
    )
    _colour_bar(axes, drawn, r"(data $-$ model) / $\sigma$", extend="both")
    return drawn


def draw_difference(axes, image: NDData, title: str, label: str, *, frame: Frame | None = None):
    """Draw a quantity of either sign on a diverging map as far as it goes."""
    values = unmasked(image)
    limit = float(np.abs(values).max()) or 1.0
    drawn = _draw(axes, values, title, frame or Frame.of(image), colours=RESIDUAL_MAP, vmin=-limit, vmax=limit)
    _colour_bar(axes, drawn, label)
    return drawn


def draw_map(axes, image: NDData, title: str, label: str, *, frame: Frame | None = None, upper: float | None = None):
    """Draw a quantity on a linear scale, such as a convergence or a deflection."""
    values = unmasked(image)
    drawn = _draw(axes, values, title, frame or Frame.of(image), colours=POSITIVE_MAP, vmax=upper)
    _colour_bar(axes, drawn, label, extend="max" if upper is not None and values.max() > upper else "neither")
    return drawn


def draw_curves(axes, curves: Table, x: str, y: str) -> None:
    """Draw each curve of the table from the columns ``x`` and ``y``, in arcsec."""
    for number in np.unique(curves["curve"]):
        part = curves[curves["curve"] == number]
        axes.plot(arcsec(part[x]), arcsec(part[y]), color=CURVE_COLOUR, linewidth=0.9, scalex=False, scaley=False)


def curves_on(curves: Table, told_from: NDData, image: NDData) -> Table:
    """Curves told from the centre of one image as told from that of another; the same where a WCS is missing."""
    wcs, own = _celestial(told_from), _celestial(image)
    if wcs is None or own is None:
        return curves
    moved = curves.copy()
    shapes = told_from.data.shape, image.data.shape
    start, end = (np.array([[(columns - 1) / 2], [(rows - 1) / 2]]) for rows, columns in shapes)
    for x, y in (("x", "y"), ("source_x", "source_y")):
        pixels = np.stack([arcsec(curves[x]), arcsec(curves[y])]) / _scale(told_from) + start
        there = np.stack(own.world_to_pixel(wcs.pixel_to_world(*pixels))) - end
        moved[x], moved[y] = there * _scale(image) * u.arcsec
    return moved


def number_galaxies(axes, catalog: Table, frame: Frame) -> None:
    """Mark the galaxies of a catalogue and number them from 1."""
    x, y = frame.position(catalog["x"], catalog["y"])
    for number, (column, row) in enumerate(zip(x, y), start=1):
        axes.annotate(
            str(number), (column, row), xytext=(4, 4), textcoords="offset points", color="white", fontsize="small",
            path_effects=outline(),
        )
    axes.plot(x, y, "+", color=CURVE_COLOUR, markersize=5, scalex=False, scaley=False)


def draw_compass(axes, image: NDData) -> None:
    """Point to north and east, where the image has a celestial WCS."""
    wcs = _celestial(image)
    if wcs is None:
        return
    directions = dict(zip("NE", _north_and_east(wcs, image.data.shape)))
    length, middle = 0.13, np.array([0.86, 0.16])
    origin = middle - 0.5 * length * sum(directions.values())
    for name, vector in directions.items():
        axes.annotate(
            "", xy=origin + length * vector, xytext=origin, xycoords="axes fraction", textcoords="axes fraction",
            arrowprops={"arrowstyle": "-|>,head_width=0.18,head_length=0.35", "color": "white", "linewidth": 1,
                        "shrinkA": 0, "shrinkB": 0, "path_effects": outline()},
        )
        axes.text(
            *(origin + 1.35 * length * vector), name, transform=axes.transAxes, color="white", fontsize="small",
            ha="center", va="center", path_effects=outline(),
        )


def draw_scale_bar(axes) -> None:
    """A bar of a round number of arcsec, about a quarter of the panel wide, in the lower left corner."""
    left, right = axes.get_xlim()
    length = _round_down((right - left) / 4)
    start = left + 0.06 * (right - left)
    bottom, top = axes.get_ylim()
    height = bottom + 0.06 * (top - bottom)
    axes.plot(
        [start, start + length], [height, height], color="white", linewidth=2, solid_capstyle="butt",
        scalex=False, scaley=False, path_effects=outline(3.5),
    )
    axes.annotate(
        f'{length:g}"', (start + length / 2, height), xytext=(0, 3), textcoords="offset points", color="white",
        fontsize="small", ha="center", va="bottom", path_effects=outline(),
    )


def look_at(axes: Sequence, limits: tuple[float, float, float, float]) -> None:
    """Show the same part of the sky in each panel."""
    for panel in axes:
        panel.set_xlim(limits[0], limits[1])
        panel.set_ylim(limits[2], limits[3])


def arcsec(column) -> np.ndarray:
    """The numbers of an angle, in arcsec; a plain column is taken to be in arcsec."""
    return column.to_value(u.arcsec) if isinstance(column, u.Quantity) else np.asarray(column, dtype=float)


def _import_figure() -> type:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError('plots need matplotlib, which is not installed: pip install "lensdeblend[plot]"') from error
    return Figure


def _draw(axes, values, title: str, frame: Frame, *, colours: str, **scaling):
    from matplotlib import colormaps

    colour_map = colormaps[colours].with_extremes(bad=MASKED_COLOUR)
    drawn = axes.imshow(
        values, origin="lower", extent=frame.extent, cmap=colour_map, interpolation="nearest", **scaling
    )
    _dress(axes, title)
    return drawn


def _dress(axes, title: str) -> None:
    axes.set_title(title, fontsize="medium")
    axes.tick_params(labelsize="small")
    axes.locator_params(nbins=6, steps=[1, 2, 5, 10])


def _colour_bar(axes, drawn, label: str, **options):
    # An inset keeps the bar as high as the panel, whatever the panel's aspect.
    bar = axes.figure.colorbar(drawn, cax=axes.inset_axes([1.03, 0, 0.05, 1]), **options)
    bar.set_label(label, fontsize="small")
    bar.ax.tick_params(labelsize="small")
    return bar


def _stretched_colour_bar(axes, drawn, norm, label: str, unit: u.UnitBase | None) -> None:
    ticks = _ticks(norm)
    peak = max(abs(norm.vmin), abs(norm.vmax))
    exponent = int(np.floor(np.log10(peak))) if peak > 0 else 0
    if -3 < exponent < 4:
        exponent = 0
    parts = [rf"$10^{{{exponent}}}$" if exponent else "", unit.to_string("latex_inline") if unit else ""]
    scale = " ".join(part for part in parts if part)
    bar = _colour_bar(axes, drawn, f"{label} ({scale})" if scale else label, ticks=ticks)
    bar.ax.set_yticks(ticks, [f"{tick / 10.0**exponent:g}".replace("-", "\N{MINUS SIGN}") for tick in ticks])
    bar.ax.minorticks_off()


def _ticks(norm, spacing: float = 0.11) -> list[float]:
    """Round values that lie apart on the stretched scale."""
    top = int(np.ceil(np.log10(max(abs(norm.vmin), abs(norm.vmax)))))
    candidates = [0.0] + [
        sign * digit * 10.0**power for digit in _NICE for power in range(top, top - 5, -1) for sign in (1, -1)
    ]
    chosen: list[float] = []
    places: list[float] = []
    for value in candidates:
        if not norm.vmin <= value <= norm.vmax:
            continue
        place = float(norm(value))
        if all(abs(place - other) >= spacing for other in places):
            chosen.append(value)
            places.append(place)
    return sorted(chosen)


def _noise(image: NDData, values: np.ndarray) -> float:
    if image.uncertainty is not None and image.uncertainty.uncertainty_type in ("std", "var", "ivar"):
        deviations = image.uncertainty.represent_as(StdDevUncertainty).array
        deviations = deviations[np.isfinite(deviations)]
        if deviations.size:
            return float(np.median(deviations))
    return float(mad_std(values))


def _celestial(image: NDData | None) -> WCS | None:
    return None if image is None else as_fits_wcs(image.wcs, image.data.shape)


def _scale(image: NDData) -> float:
    return float(pixel_scale(image).to_value(u.arcsec))


def _north_and_east(wcs: WCS, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = shape
    middle = np.array([(columns - 1) / 2, (rows - 1) / 2])
    center: SkyCoord = wcs.pixel_to_world(*middle)
    vectors = []
    for angle in (0 * u.deg, 90 * u.deg):
        step = np.array(wcs.world_to_pixel(center.directional_offset_by(angle, 1 * u.arcsec))) - middle
        vectors.append(step / np.hypot(*step))
    return vectors[0], vectors[1]


def _round_down(value: float) -> float:
    power = 10.0 ** np.floor(np.log10(value))
    return max(digit * power for digit in (1, 2, 5) if digit * power <= value)


def outline(width: float = 1.8):
    """A dark rim that keeps white marks visible on bright and grey pixels."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground="black")]
