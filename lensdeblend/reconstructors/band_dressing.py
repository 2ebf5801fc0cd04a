"""From a fit of several bands to a `Reconstruction` whose images are ``{band: NDData}``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lensdeblend.lensing.placement import carried
from lensdeblend.reconstructors.bands import Band, BandsFit, poor_bands
from lensdeblend.reconstructors.curves import curves_table
from lensdeblend.reconstructors.dressing import at_bounds, seen_images
from lensdeblend.reconstructors.numbers import Numbers
from lensdeblend.reconstructors.unlensed import bands_see_lens
from lensdeblend.results import Reconstruction

__all__ = ["dress_bands", "notes_by_band"]


def dress_bands(bands: Sequence[Band], fit: BandsFit, samples: np.ndarray | None) -> Reconstruction:
    """Put the fit into NDData, each band on its own grid, and its numbers, told from the first band, into tables."""
    numbers = Numbers.of(fit.model)
    values, spread = numbers.best(fit)
    units = {band.name: band.view.given.unit for band in bands}
    own = [fit.in_band(number, band) for number, band in enumerate(bands)]
    images = [_images(band, alone, fit, number) for number, (band, alone) in enumerate(zip(bands, own))]
    squares = [float(np.sum(part["residual"].data[band.view.used] ** 2)) for band, part in zip(bands, images)]
    names = [band.name for band in bands]
    fields = {field: dict(zip(names, (part[field] for part in images))) for field in images[0]}
    if not fit.model.lens_lights:
        fields["lens_light"] = None
    return Reconstruction(
        **fields,
        parameters=numbers.table(values, spread, units),
        covariance=spread,
        samples=None if samples is None else numbers.samples(samples, units),
        chi2=sum(squares) / max(fit.degrees_of_freedom, 1),
        flags=_flags(bands, fit, own),
        curves=curves_table(fit.parameters[:8].numpy()),
        meta={
            "sources": fit.model.sources,
            "lens_lights": fit.model.lens_lights,
            "degrees_of_freedom": fit.degrees_of_freedom,
            "told_from": names[0],
            "chi2_by_band": {
                name: part / max(fit.degrees_of_freedom_in(number), 1)
                for number, (name, part) in enumerate(zip(names, squares))
            },
            **notes_by_band(bands),
        },
    )


def _images(band: Band, alone, fit: BandsFit, number: int) -> dict:
    one, columns = fit.model.one, fit.model.columns(number)
    # On the sky the sources lie in one place, whatever image tells of them.
    place = carried(fit.parameters[columns], one, band.placement.inverse, lensed=False)
    return seen_images(band.view, alone, place)


def notes_by_band(bands: Sequence[Band]) -> dict[str, dict]:
    """The notes of each band's view, for the ``meta`` of a result."""
    each = {band.name: band.view.notes for band in bands}
    keys = dict.fromkeys(key for notes in each.values() for key in notes)
    return {key: {name: notes[key] for name, notes in each.items() if key in notes} for key in keys}


def _flags(bands: Sequence[Band], fit: BandsFit, own) -> tuple[str, ...]:
    flags = []
    names = [band.name for band in bands]
    light_parameters = len(fit.model.light_parameters) + fit.model.components
    if not bands_see_lens([band.frame for band in bands], own, fit.bayesian_information, light_parameters):
        flags.append("no lens seen")
    if not fit.converged:
        flags.append("not converged")
    flags += [f"poor fit (band {names[number]})" for number in poor_bands(fit)]
    for number, (name, alone) in enumerate(zip(names, own)):
        freedom = fit.degrees_of_freedom_in(number)
        if alone.chi2 / freedom < 1 - 3 * np.sqrt(2 / freedom):
            flags.append(f"noise overstated (band {name})")
        if not bool((alone.amplitudes[:fit.model.sources] > 0).any()):
            flags.append(f"no source (band {name})")
    return (*flags, *at_bounds(fit))
