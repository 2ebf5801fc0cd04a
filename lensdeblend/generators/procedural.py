r"""Galaxies composed of parts: bulge, disc, bar, log-spiral arms, ring, knots, dust, and asymmetry.

What is wished or drawn from the population says how concentrated and how elongated a galaxy is, and these which kinds
it may be: ellipticals, lenticulars, spirals with and without a bar, irregulars. Its parts are drawn to suit
(`lensdeblend.lensing.composed`, on the light profiles of `lensdeblend.lensing.procedural_light`); then their sum is
multiplied by a smooth factor, so that of all Sérsic profiles the one wished is the closest to the galaxy in least
squares (`lensdeblend.lensing.profile_correction`): flux, size, shape and index are as wished, arms and knots as sharp
as they were drawn. The kinds' shares and the ranges of the parts are plausible, not fitted to any catalogue; magnitude,
radius, index and ellipticity are those of the population.

In several bands old stars (bulge, bar), the disc, and young stars (knots, ring, half of the arms) each have a spectrum,
and dust reddens what is behind it (`lensdeblend.generators.spectra`). The whole galaxy's colours come from its parts
with a scatter, unless wished: then all parts are made redder or bluer alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import astropy.units as u
import numpy as np
import torch
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.units import Quantity
from torch import Tensor

from lensdeblend.generators.measuring import stamp_flags
from lensdeblend.generators.population import COSMOS, ZERO_POINT
from lensdeblend.generators.spectra import PARTS, part_fluxes, reddening
from lensdeblend.generators.stamps import Stamps
from lensdeblend.generators.wishes import Galaxies, known_properties, tell_outside
from lensdeblend.interfaces import Generator
from lensdeblend.lensing.composed import ComposedGalaxies, draw_composed
from lensdeblend.lensing.composed_images import ComposedShapes, composed_images, composed_shapes
from lensdeblend.lensing.procedural import KINDS, checked_mix
from lensdeblend.lensing.threads import single_thread
from lensdeblend.options import check_choice, check_device, check_number, check_whole, chosen_device
from lensdeblend.results import Generation
from lensdeblend.scenes import GaussianPSF

__all__ = ["PARAMETERS", "Procedural"]

# What of the parts follows from the wishes.
_WISHED = ("scale", "amplitude", "axis_ratio", "cos_angle", "sin_angle", "bulge_e2")
#: Columns of the catalogue that say what a galaxy is composed of, those of `~lensdeblend.lensing.composed`.
PARAMETERS = tuple(field.name for field in fields(ComposedGalaxies) if field.name not in _WISHED)

_FLUXES = ("bulge", "disc", "bar", "ring", "knot_flux")
_INDICES = (0.3, 8.0)
_BLURRED_AT_ONCE = 64
# Of the colours about those of the parts together, and how far beyond the spectra a colour is unusual (magnitudes).
_COLOUR_SCATTER, _USUAL_COLOURS = 0.08, 0.4


@dataclass(frozen=True, kw_only=True)
class Procedural(Generator):
    """Make galaxies composed of parts.

    Conditions are those of `~lensdeblend.generators.sersic.Sersic`; with bands also the colours of neighbouring ones,
    such as ``"g-r"`` (AB), and ``flux`` and ``magnitude`` are of the reddest band. What is not wished is drawn. Galaxy
    ``i`` of a seed does not depend on how many are made.

    The catalogue is that of `~lensdeblend.generators.vae_flow.VaeFlow`, and has the ``kind`` of each galaxy and all
    `PARAMETERS` of its parts, lengths in half-light radii in the plane of the galaxy, along its major axis and across:
    `drawn_again` makes the same galaxies from it, or others where it was changed.

    Parameters
    ----------
    bands : sequence of str, optional
        Names of filters that tell their wavelengths (``("g", "r", "i")``), any number; left out, one band without a
        name.
    mix : mapping, optional
        How much likelier than usual each kind is: ``elliptical``, ``lenticular``, ``spiral``, ``barred``,
        ``irregular``; 0 for those left out.
    redshift : float
        Of the spectra in the bands: it makes colours, not sizes.
    psf : `~lensdeblend.scenes.GaussianPSF`, 2-d array, mapping or None
        An array is the PSF on the stamp's own pixels; a mapping has one of these for each of the bands.
    pixel_scale, pixels, position, zero_point, measure, outside
        As for `~lensdeblend.generators.sersic.Sersic`, common to all bands.
    device : str
        ``"auto"`` (a GPU where there is one) or a torch device.

    Raises
    ------
    TypeError, ValueError
        For options that are out of range or, from ``generate``, wishes that cannot be granted.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from lensdeblend.generators.procedural import Procedural
    >>> method = Procedural(pixels=64, bands=("g", "r"), mix={"barred": 1})
    >>> made = method.generate(2, {"radius": 0.25 * u.arcsec, "n": 1, "g-r": 0.7}, np.random.default_rng(1))
    >>> made.images[0]["g"].data.shape, made.catalog["g-r"], made.catalog["kind"].tolist()
    ((64, 64), <Quantity [0.7, 0.7] mag>, ['barred', 'barred'])

    The same galaxies without their bars:

    >>> made.catalog["bar"] = 0
    >>> without = method.drawn_again(made.catalog)
    """

    bands: Sequence[str] | None = None
    mix: Mapping[str, float] | None = None
    redshift: float = 0.3
    pixel_scale: Quantity | float = 0.03
    pixels: int = 128
    psf: GaussianPSF | np.ndarray | Mapping | None = None
    position: SkyCoord | None = None
    zero_point: float = ZERO_POINT
    measure: bool = True
    outside: str = "warn"
    device: str = "auto"

    def __post_init__(self):
        check_whole("pixels", self.pixels, 8)
        check_number("zero_point", self.zero_point)
        check_number("redshift", self.redshift)
        check_choice("outside", self.outside, ("warn", "flag", "error"))
        check_device(self.device)
        checked_mix(self.mix)
        self._stamps()
        if self.bands is not None:
            part_fluxes(self.bands, self.redshift)

    def generate(self, n: int, conditions: Mapping | None, rng: np.random.Generator) -> Generation:
        """Return ``n`` galaxies."""
        names = self._stamps().colours
        known = known_properties(n, conditions, zero_point=self.zero_point, colours=names)
        for_profiles, for_parts, for_colours = rng.spawn(3)
        profile = {name: value for name, value in known.items() if name not in names}
        galaxies = Galaxies.of(COSMOS.draw(n, profile, for_profiles), self.zero_point)
        _check_indices(galaxies.n)
        seeded = torch.Generator().manual_seed(int(for_parts.integers(2**63)))
        mix = None if self.mix is None else checked_mix(self.mix)
        with torch.no_grad(), single_thread():
            ellipticity = np.hypot(galaxies.e1, galaxies.e2)
            parts, kind = draw_composed(self._tensor(galaxies.n), self._tensor(ellipticity), seeded, mix=mix)
            shapes = self._shapes(galaxies, parts)
        scatter = _COLOUR_SCATTER * for_colours.standard_normal((n, 1))
        colours = self._own_colours(shapes) + scatter
        for place, name in enumerate(names):
            colours[:, place] = known.get(name, colours[:, place])
        outside = np.broadcast_to(COSMOS.outside(profile), n) | self._unusual(colours)
        tell_outside(outside, self.outside)
        return self._generation(galaxies, parts, shapes, np.array(list(KINDS))[kind.cpu()], colours, outside)

    def drawn_again(self, catalog: Table) -> Generation:
        """Draw galaxies from what a catalogue says of them, with this method's pixels, PSF and bands.

        Parameters
        ----------
        catalog : `~astropy.table.QTable`
            That of a `~lensdeblend.results.Generation` by this method, or one with its columns ``flux``, ``radius``,
            ``e1``, ``e2``, ``n`` and `PARAMETERS`. Colours that it does not have are those of the parts.

        Raises
        ------
        ValueError
            For a column that is missing, with its name, numbers that are not finite, and parts of negative flux.
        """
        columns = {name: _numbers(catalog, name) for name in ("flux", "radius", "e1", "e2", "n", *PARAMETERS)}
        galaxies = Galaxies(*(columns[name] for name in ("flux", "radius", "e1", "e2", "n")))
        _check_indices(galaxies.n)
        for name in _FLUXES:
            if np.any(columns[name] < 0):
                raise ValueError(f"the column {name!r} of the catalogue must not be negative")
        ellipticity = np.hypot(galaxies.e1, galaxies.e2)
        one = np.ones(len(ellipticity))
        columns |= dict(zip(_WISHED, (one, one, (1 - ellipticity) / (1 + ellipticity), one, 0 * one, 0 * one)))
        parts = ComposedGalaxies(**{
            field.name: self._tensor(columns[field.name].reshape(len(one), -1)) for field in fields(ComposedGalaxies)
        })
        with torch.no_grad(), single_thread():
            shapes = self._shapes(galaxies, parts)
        own = self._own_colours(shapes)
        for place, name in enumerate(self._stamps().colours):
            if name in catalog.colnames:
                own[:, place] = _numbers(catalog, name)
        flags = catalog["flags"] if "flags" in catalog.colnames else [""] * len(one)
        kind = catalog["kind"] if "kind" in catalog.colnames else [""] * len(one)
        outside = np.array(["outside_population" in flag for flag in flags])
        return self._generation(galaxies, parts, shapes, np.array(kind), own, outside)

    def _stamps(self) -> Stamps:
        return Stamps.of(
            self.pixel_scale, self.pixels, self.psf, self.zero_point, bands=self.bands, position=self.position
        )

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.tensor(np.array(values, dtype=np.float32), device=chosen_device(self.device))

    def _spectra(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the parts and of the dust, relative to the reddest band."""
        if self.bands is None:
            return np.ones((1, len(PARTS))), np.ones(1)
        return part_fluxes(self._stamps().bands, self.redshift), reddening(self._stamps().bands)

    def _shapes(self, galaxies: Galaxies, parts: ComposedGalaxies) -> ComposedShapes:
        return composed_shapes(parts, self._tensor(galaxies.n), *(self._tensor(one) for one in self._spectra()))

    def _own_colours(self, shapes: ComposedShapes) -> np.ndarray:
        """Of the parts together, (n, colours)."""
        return np.diff(-2.5 * np.log10(shapes.flux.cpu().double().numpy()), axis=1)

    def _unusual(self, colours: np.ndarray) -> np.ndarray:
        """Whether any is far beyond those of all the parts."""
        of_parts = np.diff(-2.5 * np.log10(self._spectra()[0]), axis=0)
        low, high = (of_parts.min(1) - _USUAL_COLOURS, of_parts.max(1) + _USUAL_COLOURS)
        return ((colours < low) | (colours > high)).any(1)

    def _generation(
        self, galaxies: Galaxies, parts: ComposedGalaxies, shapes: ComposedShapes, kind: np.ndarray,
        colours: np.ndarray, outside: np.ndarray,
    ) -> Generation:
        stamps = self._stamps()
        with torch.no_grad(), single_thread():
            images = self._drawn(stamps, galaxies, parts, shapes)
        images *= stamps.fluxes(galaxies, colours)[:, :, None, None]
        found = stamps.generation(
            galaxies, colours, images, stamp_flags(galaxies, images[:, 0].sum((1, 2)), outside), self.bands,
            measure=self.measure, meta={} if self.bands is None else {"redshift": self.redshift},
        )
        found.catalog["kind"] = kind
        for name in PARAMETERS:
            column = getattr(parts, name).cpu().numpy()
            found.catalog[name] = column[:, 0] if column.shape[1] == 1 else column
        return found

    def _drawn(
        self, stamps: Stamps, galaxies: Galaxies, parts: ComposedGalaxies, shapes: ComposedShapes
    ) -> np.ndarray:
        """Of flux 1, through the PSFs, (n, bands, ny, nx)."""
        radius, e1, e2, n = (
            self._tensor(one) for one in (galaxies.radius / stamps.scale, galaxies.e1, galaxies.e2, galaxies.n)
        )
        spectra = (self._tensor(one) for one in self._spectra())
        wide = composed_images(parts, shapes, n, radius, e1, e2, *spectra, self.pixels + 2 * stamps.border)
        return np.concatenate([stamps.seen(some).cpu().double().numpy() for some in wide.split(_BLURRED_AT_ONCE)])


def _check_indices(n: np.ndarray) -> None:
    beyond = (n < _INDICES[0] * (1 - 1e-6)) | (n > _INDICES[1])
    if beyond.any():
        raise ValueError(f"no galaxy of index {n[beyond][0]:g} is made: from {_INDICES[0]} to {_INDICES[1]}")


def _numbers(catalog: Table, name: str) -> np.ndarray:
    if name not in catalog.colnames:
        raise ValueError(f"the catalogue has no column {name!r}, from which galaxies are drawn again")
    unit = {"radius": u.arcsec, "flux": u.ct / u.s}.get(name, u.mag if "-" in name else u.dimensionless_unscaled)
    values = u.Quantity(catalog[name], dtype=float)
    values = values.value if values.unit == u.dimensionless_unscaled else values.to_value(unit)
    if not np.all(np.isfinite(values)):
        raise ValueError(f"the column {name!r} of the catalogue must have finite numbers only")
    return values
