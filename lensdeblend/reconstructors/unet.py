r"""Reconstruction by trained networks: a regressor reads the lens, a U-Net draws the galaxy behind it.

The image is put on the network's pixels, flux conserved; the network gives the eight lens parameters
:math:`p`, their errors, and the unlensed galaxy :math:`s`. The prediction is then lensed again,

.. math::

    m(\theta) = \mathrm{PSF} \otimes s\big(\theta - \alpha_p(\theta)\big),

through the image's own PSF onto its own pixels and held against the data: chi-square and the flag "poor fit" say
whether to believe it. Where the image is unlike those the network was trained on, ``flags`` say so and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData
from astropy.table import QTable
from torch import Tensor, nn

from lensdeblend.images import like, on_grid
from lensdeblend.interfaces import Image, Reconstructor
from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.delensing import relens
from lensdeblend.lensing.parametric import LENS_NAMES
from lensdeblend.networks.orientations import ORIENTATIONS, turned, turned_lens
from lensdeblend.networks.unlensing import Seen
from lensdeblend.networks.weights import Card, load_weights
from lensdeblend.options import chosen_device
from lensdeblend.reconstructors.curves import curves_table
from lensdeblend.reconstructors.network_domain import as_seen, brightest, outside
from lensdeblend.reconstructors.network_grid import NetworkGrid, Stamp
from lensdeblend.results import Reconstruction

__all__ = ["UNet", "UNetPaper"]

_LENGTHS = (0, 4, 5)
_RELENS_POINTS = 3


@dataclass(frozen=True)
class UNet(Reconstructor):
    """Read lens and source off the image by trained networks.

    Parameters
    ----------
    weights : str
        A name of ``lensdeblend weights``, or the path of a safetensors file.
    symmetrise : bool
        Average over the eight orientations of the image.
    batch : int
        Images that go through the network at once.
    device : str
        ``"auto"`` (a GPU where there is one) or a torch device.

    Notes
    -----
    Bands, ``{band: NDData}``, are read one by one; their lenses are averaged by their errors, and each band's source is
    drawn behind the common lens. Lens light is not modelled: take it off first.

    Examples
    --------
    >>> from lensdeblend.reconstructors.unet import UNet
    >>> UNet(symmetrise=False).weights
    'unet'
    """

    weights: str = "unet"
    symmetrise: bool = True
    batch: int = 64
    device: str = "auto"

    def __post_init__(self):
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise ValueError(f"batch must be a whole number of at least 1; got {self.batch!r}")
        if not isinstance(self.symmetrise, bool):
            raise ValueError(f"symmetrise must be True or False; got {self.symmetrise!r}")

    def reconstruct(self, image: Image, rng: np.random.Generator) -> Reconstruction:
        """Return the reconstruction of one prepared image; nothing is random."""
        result, = self.reconstruct_batch([image], rng)
        return result

    def reconstruct_batch(self, images: Sequence[Image], rng: np.random.Generator) -> list[Reconstruction]:
        """Return one reconstruction an image, the network run on all of them together."""
        network, card = _loaded(str(self.weights), chosen_device(self.device))
        bands = [_as_bands(image) for image in images]
        flat = [_View.of(image, card) for group in bands for image in group.values()]
        for part in range(0, len(flat), self.batch):
            self._read(network, flat[part:part + self.batch])
        results, place = [], 0
        for image, group in zip(images, bands):
            views = flat[place:place + len(group)]
            place += len(group)
            _agree(views)
            self._draw(network, views)
            results.append(_dressed(image, list(group), views, card))
        return results

    @property
    def _orientations(self):
        return ORIENTATIONS if self.symmetrise else ORIENTATIONS[:1]

    def _read(self, network: nn.Module, views: Sequence[_View]) -> None:
        """Lens parameters and errors of each, lengths in network pixels, as a mean over orientations."""
        seen = _seen(views, chosen_device(self.device))
        lenses, spreads = [], []
        with torch.no_grad():
            for orientation in self._orientations:
                found = network(turned(seen, orientation))
                lenses.append(turned_lens(found.parameters, orientation, back=True))
                if found.log_spread is not None:
                    spread = turned_lens(found.log_spread.exp() * network.spread, orientation, back=True).abs()
                    spreads.append(spread)
        lens = torch.stack(lenses).mean(0)
        spread = torch.stack(spreads).mean(0) if spreads else torch.full_like(lens, torch.nan)
        for view, p, e in zip(views, lens, spread):
            view.lens, view.error = p, e

    def _draw(self, network: nn.Module, views: Sequence[_View]) -> None:
        """The source of each behind its lens, as a mean over orientations."""
        seen = _seen(views, chosen_device(self.device))
        lens = torch.stack([view.lens for view in views])
        unlensed, sources = [], []
        with torch.no_grad():
            for orientation in self._orientations:
                there = turned(seen, orientation)
                if hasattr(network, "draw"):
                    seen_source, source = network.draw(there, turned_lens(lens, orientation))
                    sources.append(turned(source, orientation, back=True))
                else:
                    seen_source = network(there).unlensed
                unlensed.append(turned(seen_source, orientation, back=True))
        unlensed = torch.stack(unlensed).mean(0)
        sharp = torch.stack(sources).mean(0) if sources else unlensed
        for view, image, source in zip(views, unlensed, sharp):
            view.unlensed, view.source = image.cpu().double() * view.unit, source.cpu().double() * view.unit
            view.blurred = not sources


@dataclass(frozen=True)
class UNetPaper(UNet):
    """The published CNN and U-Net, in the published setting: noise-free, one pixel scale, one PSF.

    Their source has been through the PSF already; it is lensed again without one.

    Parameters
    ----------
    weights, symmetrise, batch, device
        As for `UNet`; the published networks see one orientation.

    Examples
    --------
    >>> from lensdeblend.reconstructors.unet import UNetPaper
    >>> UNetPaper().weights
    'unet-paper'
    """

    weights: str = "unet-paper"
    symmetrise: bool = False


@lru_cache(maxsize=4)
def _loaded(weights: str, device: str) -> tuple[nn.Module, Card]:
    network, card = load_weights(weights, device=device)
    return network, card


def _as_bands(image: Image) -> Mapping[str, NDData]:
    return image if isinstance(image, Mapping) else {"": image}


@dataclass
class _View:
    """One band of one image on the network's pixels, and what the network makes of it."""

    image: NDData
    grid: NetworkGrid
    stamp: Stamp
    lens: Tensor | None = None
    error: Tensor | None = None
    unlensed: Tensor | None = None
    source: Tensor | None = None
    blurred: bool = False
    flags: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, image: NDData, card: Card) -> _View:
        grid = NetworkGrid.for_image(image, card.domain["pixels"], tuple(card.domain["pixel_scale"]))
        view = cls(image, grid, Stamp.of(image, grid))
        view.flags = outside(view.grid, view.stamp, card.domain)
        return view

    @property
    def unit(self) -> float:
        """The brightest pixel: in units of it, single precision holds any image."""
        return brightest(self.stamp)

    @property
    def lens_on_image(self) -> np.ndarray:
        """The lens in arcsec, from the image's centre."""
        return self._in_arcsec(self.lens, moved=True)

    @property
    def error_on_image(self) -> np.ndarray:
        return self._in_arcsec(self.error, moved=False)

    def _in_arcsec(self, values: Tensor, *, moved: bool) -> np.ndarray:
        values = values.cpu().double().numpy().copy()
        values[list(_LENGTHS)] *= self.grid.scale
        if moved:
            values[4:6] += np.array(self.grid.offset) * self.grid.image_scale
        return values

    @property
    def source_center(self) -> np.ndarray:
        """Where the middle of the network's source lies, (x, y) in arcsec from the image's centre.

        Shear is zero at the centre of the frame it is told from, so that another frame has another source plane.
        """
        gamma1, gamma2 = self.lens[6:].cpu().double().numpy()
        x, y = np.array(self.grid.offset) * self.grid.image_scale
        return np.array([x - gamma1 * x - gamma2 * y, y - gamma2 * x + gamma1 * y])


def _seen(views: Sequence[_View], device: str) -> Seen:
    return as_seen([view.stamp for view in views], device)


def _agree(views: Sequence[_View]) -> None:
    """One lens for all bands: the mean in arcsec, weighted by the errors where there are any."""
    if len(views) == 1:
        return
    lenses = np.stack([view.lens_on_image for view in views])
    errors = np.stack([view.error_on_image for view in views])
    weights = np.where(np.isfinite(errors), errors, 1.0) ** -2
    lens, error = np.average(lenses, 0, weights=weights), weights.sum(0) ** -0.5
    for view in views:
        own = lens.copy()
        own[4:6] -= np.array(view.grid.offset) * view.grid.image_scale
        own[list(_LENGTHS)] /= view.grid.scale
        spread = error.copy()
        spread[list(_LENGTHS)] /= view.grid.scale
        view.lens = torch.as_tensor(own).to(view.lens)
        view.error = torch.where(torch.isfinite(view.error), torch.as_tensor(spread).to(view.error), torch.nan)


def _relensed(view: _View) -> np.ndarray:
    """The prediction as the image would show it, flux a pixel."""
    image, grid = view.image, view.grid
    scale = grid.image_scale
    lens = view.lens_on_image
    lens[list(_LENGTHS)] /= scale
    pixel = grid.factor * grid.pixels / view.source.shape[-1]
    # Told from the middle of the source's grid, so that the grid need not move.
    center = torch.as_tensor(view.source_center / scale)
    psf = None if image.psf is None or view.blurred else torch.as_tensor(np.asarray(image.psf, dtype=float))
    border = 0 if psf is None else max(psf.shape) // 2
    seen = relens(
        view.source[None], torch.as_tensor(lens)[None], image.data.shape, pixel=pixel, border=border,
        supersampling=_RELENS_POINTS, center=center,
    ) / grid.factor**2
    if psf is None:
        return seen[0].numpy()
    return Convolution(psf, image.data.shape, border)(seen)[0].numpy()


def _dressed(image: Image, names: list[str], views: Sequence[_View], card: Card) -> Reconstruction:
    models = [_relensed(view) for view in views]
    parts = {name: [] for name in ("source", "unlensed", "model", "residual")}
    squares, count, flags = 0.0, 0, []
    for name, view, model in zip(names, views, models):
        one = view.image
        good = np.ones(one.data.shape, bool) if one.mask is None else ~one.mask
        with np.errstate(invalid="ignore", divide="ignore"):
            residual = np.where(good, (one.data - model) / np.sqrt(one.uncertainty.array), 0.0)
        squares, count = squares + float(np.sum(residual[good] ** 2)), count + int(good.sum())
        factor = view.source.shape[-1] / view.grid.pixels
        parts["source"].append(on_grid(
            one, view.source.numpy() / factor**2, pixel_scale=view.grid.scale / factor * u.arcsec,
            offset=view.source_center * u.arcsec,
        ))
        parts["unlensed"].append(like(one, view.grid.to_image(view.unlensed.numpy())))
        parts["model"].append(like(one, model))
        parts["residual"].append(like(one, residual, unit=u.dimensionless_unscaled, mask=one.mask, psf=None))
        flags += [f"{flag} (band {name})" if name else flag for flag in view.flags]
    chi2 = squares / max(count, 1)
    if chi2 > 1 + 3 * np.sqrt(2 / max(count, 1)):
        flags.append("poor fit")
    lens, error = views[0].lens_on_image, views[0].error_on_image
    parameters = QTable()
    for index, name in enumerate(LENS_NAMES):
        unit = u.arcsec if index in _LENGTHS else 1
        parameters[name], parameters[f"{name}_err"] = lens[index:index + 1] * unit, error[index:index + 1] * unit
    whole = {
        name: dict(zip(names, bands)) if isinstance(image, Mapping) else bands[0] for name, bands in parts.items()
    }
    return Reconstruction(
        **whole, parameters=parameters, covariance=np.diag(error**2) if np.isfinite(error).all() else None,
        samples=None, lens_light=None, chi2=chi2, flags=tuple(flags), curves=curves_table(lens), image=image,
        meta={"weights": card.name, "weights_sha256": card.sha256, "degrees_of_freedom": count},
    )
