"""Galaxies as a trained network knows them: Sérsic profiles that depart from themselves as real galaxies do.

What is wished or drawn from the population gives the Sérsic profile. A normalising flow, told the index, the
ellipticity and the colours, turns white noise into a latent vector, and the decoder that into the departure by which
the profile is multiplied (`lensdeblend.lensing.standard_light`). What of it another profile would take up is taken off
(`lensdeblend.lensing.closest_profile`): flux, size and shape are as wished where they are measured through a PSF, arms,
bars and knots the network's. This is
the auto-encoder and flow of Lanusse et al. 2021 (2021MNRAS.504.5543L), in a frame where it need not learn how large,
bright or elongated galaxies are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.units import Quantity
from torch import Tensor

from lensdeblend.generators.measuring import stamp_flags
from lensdeblend.generators.population import COSMOS, ZERO_POINT
from lensdeblend.generators.stamps import Stamps
from lensdeblend.generators.wishes import Galaxies, known_properties, tell_outside
from lensdeblend.interfaces import Generator
from lensdeblend.lensing.closest_profile import centred_on_profile
from lensdeblend.lensing.standard_light import placed, standard_light
from lensdeblend.lensing.threads import single_thread
from lensdeblend.networks.galaxies import GalaxyAutoencoder, GalaxyImages
from lensdeblend.networks.galaxy_weights import THREE_BANDS, galaxy_weights
from lensdeblend.networks.weights import Card
from lensdeblend.options import check_choice, check_device, check_number, check_whole, chosen_device
from lensdeblend.results import Generation
from lensdeblend.scenes import GaussianPSF
from lensdeblend.wavelengths import reddest_first

__all__ = ["VaeFlow"]

_ONE_BAND = "galaxies-map"
_AT_ONCE = 64
# Standard deviations from the mean of the colours learned.
_USUAL_COLOURS = 4.0


@dataclass(frozen=True, kw_only=True)
class VaeFlow(Generator):
    """Make galaxies that look like those a network learned from.

    Conditions are those of `~lensdeblend.generators.sersic.Sersic`; with bands also the colours of neighbouring ones,
    such as ``"g-r"`` (AB), and ``flux`` and ``magnitude`` are of the reddest band. What is not wished is drawn: colours
    from the normal distribution of those learned, whatever else is known.

    The catalogue is that of `~lensdeblend.generators.sersic.Sersic`, with ``flux_BAND`` and the colours where there are
    bands; what is measured is that of the reddest. ``flags`` has besides ``finer_than_learned``, where the radius has
    more pixels than those of the galaxies learned from: it has no more detail than they.

    Parameters
    ----------
    weights : str
        A name of ``lensdeblend weights``, or the path of a safetensors file; ``"auto"``: ``galaxies-map``, for bands
        ``galaxies-colour``. ``galaxies`` draws smoother galaxies of one band, in half the time.
    bands : sequence of str, optional
        Three names of filters that tell their wavelengths (``("g", "r", "i")``); left out, one band without a name.
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
    >>> from lensdeblend.generators.vae_flow import VaeFlow
    >>> wishes = {"magnitude": 21, "radius": 0.25 * u.arcsec, "n": 1}
    >>> made = VaeFlow(pixels=64, bands=("g", "r", "i")).generate(2, {**wishes, "g-r": 0.4}, np.random.default_rng(1))
    >>> [band.data.shape for band in made.images[0].values()], [round(float(c), 2) for c in made.catalog["g-r"].value]
    ([(64, 64), (64, 64), (64, 64)], [0.4, 0.4])
    """

    weights: str = "auto"
    bands: Sequence[str] | None = None
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
        check_choice("outside", self.outside, ("warn", "flag", "error"))
        check_device(self.device)
        if self.bands is not None and (
            isinstance(self.bands, str) or len(self.bands) != 3 or reddest_first(self.bands) is None
        ):
            raise ValueError(
                "bands must be three different names of filters that tell their wavelengths, such as ('g', 'r', 'i'); "
                f"got {self.bands!r}"
            )
        self._stamps()

    def generate(self, n: int, conditions: Mapping | None, rng: np.random.Generator) -> Generation:
        """Return ``n`` galaxies."""
        network, card = self._network()
        stamps = self._stamps()
        known = known_properties(n, conditions, zero_point=self.zero_point, colours=stamps.colours)
        for_profiles, for_rest = rng.spawn(2)
        profile = {name: value for name, value in known.items() if name not in stamps.colours}
        galaxies = Galaxies.of(COSMOS.draw(n, profile, for_profiles), self.zero_point)
        normals = np.array([child.standard_normal(len(stamps.colours) + network.latent) for child in for_rest.spawn(n)])
        colours = _drawn_colours(network, stamps, known, normals)
        outside = np.broadcast_to(COSMOS.outside(profile), n) | _unusual(network, colours)
        finer = galaxies.radius / stamps.scale > card.domain["radius"][1]
        tell_outside(outside, self.outside)
        drawn = _drawn(network, stamps, galaxies, colours, normals[:, len(stamps.colours):])
        images = drawn * stamps.fluxes(galaxies, colours)[:, :, None, None]
        flags = stamp_flags(galaxies, images[:, 0].sum((1, 2)), outside, finer_than_learned=finer)
        return stamps.generation(
            galaxies, colours, images, flags, self.bands, measure=self.measure,
            meta={"weights": card.name, "weights_sha256": card.sha256},
        )

    def redrawn(self, images: np.ndarray, noise: np.ndarray, psf: np.ndarray, profiles: Table) -> np.ndarray:
        """Let the network say what it sees: galaxies encoded, decoded and drawn again.

        Parameters
        ----------
        images : (n, bands, ny, nx) array
            A galaxy in the middle of each, the reddest band first, with noise.
        noise : (n, bands) array
            Its standard deviation a pixel.
        psf : array
            Of odd size, common to all.
        profiles : `~astropy.table.Table`
            Of Sérsic fits: ``radius`` (pixels), ``e1``, ``e2``, ``n``, and the colours, (n,) each.

        Returns
        -------
        (n, bands, ny, nx) array
            Without noise.
        """
        network, _ = self._network()

        def tensor(values) -> Tensor:
            return torch.as_tensor(np.asarray(values, dtype=np.float32), device=network.center.device)

        (n, bands), side = noise.shape, images.shape[-1]
        colours = np.reshape([-np.asarray(profiles[name], float) for name in self._stamps().colours], (bands - 1, n)).T
        found = []
        with torch.no_grad(), single_thread():
            for some in np.array_split(np.arange(n), max(1, n // _AT_ONCE)):
                level = tensor(noise[some])[:, :, None, None]
                seen = GalaxyImages(
                    tensor(images[some]), (1 / level).expand(-1, -1, side, side),
                    tensor(psf).expand(len(some), bands, -1, -1), tensor(np.full((len(some), 2), (side - 1) / 2)),
                    *(tensor(profiles[name][some]) for name in ("radius", "e1", "e2", "n")), tensor(colours[some]),
                )
                drawn = seen.drawn(network.decode(network.encode(seen)[0]))
                found.append((seen.amplitudes(drawn)[:, :, None, None] * drawn).cpu().double().numpy())
        return np.concatenate(found)

    def _stamps(self) -> Stamps:
        return Stamps.of(
            self.pixel_scale, self.pixels, self.psf, self.zero_point, bands=self.bands, position=self.position
        )

    def _network(self) -> tuple[GalaxyAutoencoder, Card]:
        usual = _ONE_BAND if self.bands is None else THREE_BANDS
        name = usual if self.weights == "auto" else str(self.weights)
        network, card = galaxy_weights(name, chosen_device(self.device))
        if network.bands != len(self._stamps().bands):
            raise ValueError(
                f"the weights {name!r} are of {network.bands} band{'s' * (network.bands > 1)}, not of "
                f"{len(self._stamps().bands)}: name as many bands, or take other weights"
            )
        return network, card


def _usual_colours(network: GalaxyAutoencoder) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation; the network has them as redder less bluer."""
    mean, spread = (part[3:].cpu().double().numpy() for part in (network.center, network.spread))
    return -mean, spread


def _drawn_colours(network: GalaxyAutoencoder, stamps: Stamps, known: Mapping, normals: np.ndarray) -> np.ndarray:
    mean, spread = _usual_colours(network)
    colours = mean + spread * normals[:, :len(mean)]
    for place, name in enumerate(stamps.colours):
        if name in known:
            colours[:, place] = known[name]
    return colours


def _unusual(network: GalaxyAutoencoder, colours: np.ndarray) -> np.ndarray:
    mean, spread = _usual_colours(network)
    return (np.abs(colours - mean) > _USUAL_COLOURS * spread).any(1)


def _drawn(
    network: GalaxyAutoencoder, stamps: Stamps, galaxies: Galaxies, colours: np.ndarray, white: np.ndarray
) -> np.ndarray:
    """Of flux 1, through the PSFs, (n, bands, ny, nx)."""
    device, side = network.center.device, stamps.observations[0].shape[0] + 2 * stamps.border

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)

    columns = tensor(np.stack([galaxies.radius / stamps.scale, galaxies.e1, galaxies.e2, galaxies.n], 1))
    kinds = torch.cat([columns[:, 3:].log(), columns[:, 1:3], tensor(-colours)], 1)

    def part(some: Tensor, kind: Tensor, own: Tensor) -> np.ndarray:
        radius, e1, e2, n = some.unbind(1)
        with torch.no_grad():
            departure = centred_on_profile(n, network.decode(network.latents(own, kind)))
            place = placed(torch.full_like(some[:, :2], (side - 1) / 2), radius, e1, e2)
            return stamps.seen(standard_light(place, n, departure, (side, side))[0]).cpu().double().numpy()

    threads = torch.get_num_threads() if device.type == "cpu" else 1
    with single_thread(), ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(part, *(one.split(_AT_ONCE) for one in (columns, kinds, tensor(white))))))
