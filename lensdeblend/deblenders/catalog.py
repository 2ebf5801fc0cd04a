"""The catalogue of a deblending: one row a galaxy."""

from __future__ import annotations

from collections.abc import Sequence

import astropy.units as u
import numpy as np
from astropy.table import QTable

from lensdeblend.deblenders.blend import Band, Blend
from lensdeblend.reconstructors.network_grid import gaussian_width

__all__ = [
    "blendedness", "catalogue", "flags_of", "half_light_radius", "moments", "shape", "together",
]

_TRUNCATION = 4.0


def catalogue(
    blend: Blend, positions: np.ndarray, fluxes: np.ndarray, flux_errors: np.ndarray, ellipticities: np.ndarray,
    radii: np.ndarray, blended: np.ndarray, flags: Sequence[Sequence[str]], **more: np.ndarray,
) -> QTable:
    """The columns of every deblender.

    Parameters
    ----------
    blend : Blend
    positions : ndarray
        (n, 2), pixels of the first band.
    fluxes, flux_errors : ndarray
        (n, bands), in the unit of the image.
    ellipticities : ndarray
        (n, 2), ``e1`` and ``e2`` of modulus (1 - q) / (1 + q), x towards +column.
    radii : ndarray
        (n,), half-light radius in pixels.
    blended : ndarray
        (n,), see `blendedness`.
    flags : sequence of sequences of str
    **more : ndarray
        Further columns.
    """
    table = QTable()
    table["id"] = np.arange(1, len(positions) + 1)
    table["x"], table["y"] = positions.T
    wcs = blend.first.image.wcs
    if wcs is not None:
        table["sky"] = wcs.pixel_to_world(*positions.T)
    for number, band in enumerate(blend.bands):
        unit = band.image.unit or u.dimensionless_unscaled
        after = f"_{band.name}" if blend.banded else ""
        table[f"flux{after}"], table[f"flux_err{after}"] = fluxes[:, number] * unit, flux_errors[:, number] * unit
    table["e1"], table["e2"] = ellipticities.T
    table["radius"] = radii * blend.scale * u.arcsec
    table["blendedness"] = blended
    for name, values in more.items():
        table[name] = values
    table["flags"] = np.array(["; ".join(some) for some in flags], dtype=str) if len(flags) else np.zeros(0, "U1")
    return table


def flags_of(position: np.ndarray, fluxes: np.ndarray, blend: Blend) -> list[str]:
    """Of a galaxy at pixel x, y of the first band: ``no flux``, ``off the image``, ``at the edge``, ``masked``.

    It is ``masked`` where no band shows a pixel within one FWHM of its PSF (a pixel at least) of the position: of a
    star, 94% of the light.
    """
    flags = [] if (fluxes > 0).any() else ["no flux"]
    upper = np.array(blend.shape[::-1]) - 0.5
    if (position < -0.5).any() or (position >= upper).any():
        return [*flags, "off the image"]
    if (position < 1.5).any() or (position > upper - 2).any():
        flags.append("at the edge")
    if not any(_shows(band, position) for band in blend.bands):
        flags.append("masked")
    return flags


def _shows(band: Band, position: np.ndarray) -> bool:
    x, y = band.matrix @ position + band.offset
    row, column = np.nonzero(band.used)
    nearest = np.hypot(column - x, row - y).min(initial=np.inf)
    return nearest <= 1 or (band.psf is not None and nearest <= gaussian_width(band.psf))


def together(blend: Blend, images: Sequence[np.ndarray]) -> np.ndarray:
    """Galaxies (n, ny, nx), given in each band, summed in units of the noise over the bands on the first one's pixels.
    """
    return sum(
        galaxies / band.noise for band, galaxies in zip(blend.bands, images)
        if band.aligned and galaxies.shape[1:] == blend.shape
    )


def blendedness(images: np.ndarray) -> np.ndarray:
    r"""How much of the light under each galaxy is of others: :math:`1 - \sum w I_i / \sum w \sum_j I_j`.

    Parameters
    ----------
    images : ndarray
        (n, ny, nx): the galaxies, noise-free.

    Returns
    -------
    ndarray
        (n,), 0 for a galaxy alone. The weight :math:`w` is an elliptical Gaussian with the galaxy's own second moments,
        as in Bosch et al. 2018 (2018PASJ...70S...5B), who weigh the deblended data where this weighs the models.
    """
    whole, found = images.sum(0), []
    for image in images:
        weight = _gaussian(image)
        total = float((weight * whole).sum())
        found.append(float(np.clip(1 - (weight * image).sum() / total, 0, 1)) if total > 0 else 0.0)
    return np.array(found)


def _gaussian(image: np.ndarray) -> np.ndarray:
    x, y, xx, yy, xy = moments(image)
    row, column = np.indices(image.shape)
    dx, dy = column - x, row - y
    determinant = max(xx * yy - xy**2, 1e-12)
    return np.exp(-0.5 * (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / determinant)


def moments(image: np.ndarray) -> tuple[float, float, float, float, float]:
    """Centroid and central second moments of the positive part of ``image``, iterated once inside of 4 sigma."""
    row, column = np.indices(image.shape)
    light = image.clip(0)
    reach = np.ones(image.shape, bool)
    found = 0.5 * (image.shape[1] - 1), 0.5 * (image.shape[0] - 1), 1.0, 1.0, 0.0
    for _ in range(2):
        weight = light * reach
        total = weight.sum()
        if total <= 0:
            return found
        x, y = float((weight * column).sum() / total), float((weight * row).sum() / total)
        xx, yy, xy = (
            float((weight * product).sum() / total)
            for product in ((column - x) ** 2, (row - y) ** 2, (column - x) * (row - y))
        )
        # A pixel is no narrower than this.
        found = x, y, max(xx, 1 / 12), max(yy, 1 / 12), xy
        reach = (column - x) ** 2 + (row - y) ** 2 < _TRUNCATION**2 * max(xx + yy, 1.0)
    return found


def shape(galaxy: np.ndarray, blur: float = 0.0) -> tuple[float, float, float]:
    """``e1``, ``e2`` by second moments, and the radius (pixels) of the circle with half of the light; both less what a
    Gaussian of standard deviation ``blur`` adds to them."""
    x, y, xx, yy, xy = moments(galaxy)
    xx, yy = max(xx - blur**2, 1e-3), max(yy - blur**2, 1e-3)
    size = xx + yy + 2 * np.sqrt(max(xx * yy - xy**2, 0.0))
    row, column = np.indices(galaxy.shape)
    distance = np.hypot(column - x, row - y).ravel()
    order = np.argsort(distance)
    inside = np.cumsum(galaxy.clip(0).ravel()[order])
    half = distance[order][np.searchsorted(inside, 0.5 * inside[-1])] if inside[-1] > 0 else 0.0
    # Squares of radii add for Gaussians.
    radius = np.sqrt(max(half**2 - 2 * np.log(2) * blur**2, 0.0))
    return (xx - yy) / size, 2 * xy / size, float(radius)


def half_light_radius(components: Sequence[tuple[float, float, float]]) -> float:
    """Of concentric Sérsics of one shape, each a flux, a half-light radius and an index; 0 where there is no flux.

    A bisection in the flux inside a radius, which is the incomplete gamma function.
    """
    from scipy.special import gammainc, gammaincinv

    flux, radius, n = (np.array(values, float) for values in zip(*components))
    shown = flux > 0
    if not shown.any():
        return 0.0
    flux, radius, n = flux[shown], radius[shown], n[shown]
    b = gammaincinv(2 * n, 0.5)
    low, high = float(radius.min()), float(radius.max())
    for _ in range(40):
        middle = np.sqrt(low * high)
        inside = float((flux * gammainc(2 * n, b * (middle / radius) ** (1 / n))).sum() / flux.sum())
        low, high = (middle, high) if inside < 0.5 else (low, middle)
    return float(np.sqrt(low * high))
