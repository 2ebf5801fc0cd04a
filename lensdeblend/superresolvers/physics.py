r"""Super-resolution by a network that has seen images of low resolution alone.

The network tells of lens, clumps of convergence :math:`\kappa` and a Sérsic source :math:`S`; the finer image follows
from them,

.. math::

    f = \mathrm{PSF}_F \otimes S\big(\theta - \alpha(\theta)\big), \qquad
    \alpha = \alpha_\mathrm{lens} + \frac{1}{\pi} \int \kappa(\theta')\,
    \frac{\theta - \theta'}{|\theta - \theta'|^2}\, d^2\theta',

at any factor, as the deflection is the gradient of a potential and no mass is negative. It was trained on how well that
tells of data of low resolution, without the truth on finer pixels (`lensdeblend.training.tasks.superresolve`). Held
against the image at hand, lens and source are then moved by a few Gauss-Newton steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData
from torch import Tensor

from lensdeblend.images import pixel_scale
from lensdeblend.interfaces import Image, SuperResolver
from lensdeblend.lensing.finer_fit import FinerFit, descend
from lensdeblend.lensing.finer_images import FinerLens
from lensdeblend.networks.super_lens import SuperLens
from lensdeblend.options import check_choice, check_device, check_switch, check_whole, chosen_device
from lensdeblend.reconstructors.network_domain import as_seen
from lensdeblend.results import SuperResolution
from lensdeblend.scenes import GaussianPSF
from lensdeblend.superresolvers.batches import batches
from lensdeblend.superresolvers.filling import known
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.physics_clumps import with_fitted_clumps
from lensdeblend.superresolvers.physics_dressing import Drawn, dressed, source_images
from lensdeblend.superresolvers.super_weights import AUTO, NetworkView, candidates, super_weights

__all__ = ["Physics"]

# Rays a side of a pixel of the data, in the finer image as in that which is fitted.
_RAYS = 2
_TERMS = 8
_ARCHITECTURE = "super-lens"
# From what a network says of an image that is unlike those it knows, the way is longer.
_FAR_STEPS = 12
CLUMPS = ("network", "fit")
# Chi-square a pixel from which on a model is looked at for what it leaves.
_PERHAPS_POOR = 1.02
# Of the PSF's peak: what is nearer to the instrument's own than this is that.
_SAME_PSF = 2e-3


@dataclass(frozen=True)
class Physics(SuperResolver):
    """Read lens, clumps and source off the image by a trained network, move them, and draw them on finer pixels.

    Parameters
    ----------
    weights : str
        A name of ``lensdeblend weights``, or the path of a safetensors file; ``"auto"`` for those that were trained on
        the image's pixels and PSF, or else on those nearest to them, with a flag.
    refine : int
        Gauss-Newton steps on lens and source; 0 for the network alone. There are at least 12 where pixels or PSF are
        others than those trained on.
    clumps : {"network", "fit"}
        What lies beside the smooth lens: what the network sees, or the most likely convergence on square cells
        (`lensdeblend.lensing.substructure`), for which lens and source start from the network's. A fit takes a second
        an image, and gives images and maps errors.
    leftover : bool
        Whether to add to the image of a poor fit what it leaves of the data, interpolated where it is more than noise
        (`lensdeblend.superresolvers.leftover`).
    batch : int
        Images that are worked on at once.
    device : str
        ``"auto"`` (a GPU where there is one) or a torch device.

    Notes
    -----
    Lens light is not modelled: take it off first. Masked pixels do not count in the fit; the network is shown what is
    around them. Where the image's PSF is that of the images trained on, it is known on finer pixels; otherwise it
    is taken as by `lensdeblend.superresolvers.forward.Forward`.

    Deflection (shear included) and magnification are those at the centres of the finer pixels, the latter from the
    deflection's differences between them. ``parameters`` are lens, shear and source beside the clumps, with errors
    from the last step (NaN for ``refine=0``), enlarged by the square root of ``chi2`` where that is above 1; images and
    maps have none. ``substructure`` is the convergence of the clumps.

    With ``clumps="fit"`` lens and source move with the cells, the lens held to a tenth of the population's spread about
    what the network has told of it. Where the evidence is for no substructure, ``meta["substructure_evidence"]`` (the
    log of its ratio) is negative and there is none, with errors that tell what could have been missed. All is double
    precision, images and maps have a variance, that of 128 draws of ``rng`` from the covariance, good to 6%, and
    enlarged as the parameters'.

    Flags: ``"poor fit"`` where ``chi2`` is more than three standard deviations above 1, ``"no lens seen"`` where what
    was found is less than five times its noise, ``"out_of_domain: ..."`` where the image is unlike those trained on.
    """

    weights: str = "auto"
    refine: int = 2
    clumps: str = "network"
    leftover: bool = True
    batch: int = 32
    device: str = "auto"

    def __post_init__(self):
        check_whole("refine", self.refine, 0)
        check_whole("batch", self.batch, 1)
        check_choice("clumps", self.clumps, CLUMPS)
        check_switch("leftover", self.leftover)
        check_device(self.device)

    def superresolve(self, image: Image, factor: float, rng: np.random.Generator) -> SuperResolution:
        """Return the finer image of one prepared image; nothing is random but the draws behind variances.

        Raises
        ------
        TypeError
            For bands, and for a factor that is no number.
        ValueError
            For a factor that is not from 1 to 5, and where there are no weights.
        """
        result, = self.superresolve_batch([image], factor, rng)
        return result

    def superresolve_batch(
        self, images: Sequence[Image], factor: float, rng: np.random.Generator
    ) -> list[SuperResolution]:
        """Return one `~lensdeblend.results.SuperResolution` an image, those of one grid and PSF computed together."""
        device = chosen_device(self.device)
        keys, views, cards = [], [], candidates(str(self.weights), device, _ARCHITECTURE)
        for image in images:
            if isinstance(image, Mapping):
                raise TypeError("physics takes one image, not bands: give it one band, or choose method='forward'")
            pixels = FinePixels(image, factor)
            named = self.weights != AUTO
            view = NetworkView.of(image, cards, named=named, method="physics", nearest=True)
            psf = None if image.psf is None else np.asarray(image.psf, dtype=float).tobytes()
            unit = str(image.unit)
            keys.append(
                (view.card.name, view.is_familiar, image.data.shape, pixels.scale, view.grid.offset, psf, unit)
            )
            views.append((pixels, view))
        results: list[SuperResolution | None] = [None] * len(images)
        with torch.no_grad():
            for part in batches(keys, self.batch):
                for index, result in zip(part, self._together([views[i] for i in part], device, rng)):
                    results[index] = result
        return results

    def _together(
        self, views: Sequence[tuple[FinePixels, NetworkView]], device: str, rng: np.random.Generator
    ) -> list[SuperResolution]:
        """Of one grid and PSF, told by the same weights."""
        name = views[0][1].card.name if self.weights == AUTO else str(self.weights)
        network, card = super_weights(name, device, _ARCHITECTURE)
        found = network(as_seen([view.stamp for _, view in views], device))
        pixels, middle = views[0][0], views[0][1].middle
        rays = _Rays(pixels, network, card.domain, middle, device)
        data, weight, units = _plain([pixels.image for pixels, _ in views], device)
        start, center = (
            moved(told, middle) for told in (torch.cat([found.lens, found.source[:, 1:]], 1), network.center[None])
        )
        steps = self.refine
        if steps and not views[0][1].is_familiar:
            steps = max(steps, _FAR_STEPS)
        fitted = rays.fitted(
            data, weight, start, found.clumps, center=center[0], spread=network.spread, steps=steps
        )
        if self.clumps == "fit":
            # The steps have brought the lens closer to the image, and farther from the lens without its clumps.
            around = torch.cat([start[:, :8], center[:, 8:].expand(len(start), -1)], 1)
            drawn = [
                with_fitted_clumps(pixels, *each, network.spread, rays.psf, rng, self.leftover)
                for (pixels, _), *each in zip(views, rays.found(fitted, units), around)
            ]
        else:
            drawn = rays.drawn(fitted, found.clumps, units, self.leftover)
        return dressed(
            [(pixels, view.flags) for pixels, view in views], drawn, rays.psf,
            {"weights": card.name, "weights_sha256": card.sha256},
        )


class _Rays:
    """Rays through the pixels of the data, and through finer ones."""

    def __init__(
        self, pixels: FinePixels, network: SuperLens, domain: Mapping, middle: tuple[float, float], device,
    ):
        image = pixels.image
        self.pixels = pixels
        scale = pixel_scale(image).to_value("arcsec")
        kernels = None, None
        if image.psf is not None:
            kernels = np.asarray(image.psf, dtype=float), _finer_psf(pixels, domain)
        self.psf = kernels[1]
        coarse, finer = (
            None if one is None else torch.as_tensor(one, dtype=torch.float32, device=device) for one in kernels
        )
        cell = domain["pixels"] * domain["pixel_scale"][0] / network.cells
        options = {
            "clumps": (network.cells, network.cells), "cell": cell, "middle": middle, "terms": _TERMS,
            "device": device,
        }
        self.coarse, self.rough = (
            FinerLens(image.data.shape, scale, coarse, supersampling=rays, **options) for rays in (_RAYS, 1)
        )
        self.fine = FinerLens(
            image.data.shape, scale, finer, factor=pixels.factor,
            supersampling=math.ceil(_RAYS / pixels.factor), **options,
        )

    def fitted(self, data: Tensor, weight: Tensor, start: Tensor, clumps: Tensor, **options) -> FinerFit:
        bend, fewer = self.coarse.bend(clumps), self.rough.bend(clumps)
        return descend(self.coarse, data, weight, start, bend, rough=(self.rough, fewer), **options)

    def found(self, fitted: FinerFit, units: Tensor) -> list[tuple[Tensor, Tensor, float]]:
        """Lens and source (14,), flux in the image's own unit, and flux over noise, one an image."""
        parameters, flux = fitted.parameters.double().cpu(), (fitted.flux.double() * units).cpu()
        return list(zip(parameters, flux, fitted.significance.cpu().tolist()))

    def drawn(self, fitted: FinerFit, clumps: Tensor, units: Tensor, leftover: bool) -> list[Drawn]:
        """One an image, in its own unit; double precision from here on. With ``leftover``, those that may be poor have
        a model on the pixels of the data."""
        lens = fitted.parameters[:, :8]
        source = torch.cat([fitted.flux[:, None], fitted.parameters[:, 8:]], 1)
        unseen = self.fine.unseen(lens, source, self.fine.bend(clumps))
        images = torch.stack([self.fine.see(unseen), self.fine.framed(unseen)], 1)
        images = images.double() * units[:, None, None, None]
        flux = fitted.flux.double() * units
        substructure = self.fine.substructure(clumps)
        deflection, convergence = self.fine.deflection(lens, clumps), self.fine.convergence(lens) + substructure
        errors = torch.full((len(lens), 15), torch.nan, dtype=torch.float64, device=lens.device)
        if fitted.covariance is not None:
            errors = fitted.covariance.diagonal(dim1=1, dim2=2).sqrt()
            errors = torch.cat([errors[:, :-1], errors[:, -1:] * units[:, None]], 1)
        columns = (
            images, deflection.double(), convergence.double(), substructure.double(), source_images(source).double(),
            fitted.parameters.double(), flux, errors, fitted.chi2, fitted.significance,
        )
        found = [Drawn(*row) for row in zip(*(column.cpu().numpy() for column in columns))]
        poor = torch.nonzero(fitted.chi2 > _PERHAPS_POOR).flatten() if leftover else []
        if len(poor):
            bend = tuple(axis[poor] for axis in self.coarse.bend(clumps))
            models = self.coarse(lens[poor], source[poor], bend).double() * units[poor, None, None]
            for row, model in zip(poor.tolist(), models.cpu().numpy()):
                found[row] = replace(found[row], model=model)
        return found


def moved(parameters: Tensor, middle: tuple[float, float]) -> Tensor:
    """Parameters (batch, 14) told from a point, as they are told from where that point is at ``middle``.

    Shear is zero at the origin of the frame it is told from, so that another frame has another source plane.
    """
    x, y = middle
    gamma1, gamma2 = parameters[:, 6], parameters[:, 7]
    result = parameters.clone()
    result[:, 4] += x
    result[:, 5] += y
    result[:, 12] += x - gamma1 * x - gamma2 * y
    result[:, 13] += y - gamma2 * x + gamma1 * y
    return result


def _plain(images: Sequence[NDData], device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Data and one over the noise, in units of the brightest pixel; these units."""
    rows, weights, units = [], [], []
    for image in images:
        good = known(image)
        data = np.where(good, image.data, 0.0)
        unit = float(np.abs(data).max()) or 1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.where(good, unit / np.sqrt(image.uncertainty.array), 0.0)
        rows.append(data / unit)
        weights.append(weight)
        units.append(unit)
    kind = {"dtype": torch.float32, "device": device}
    return (
        torch.as_tensor(np.stack(rows), **kind), torch.as_tensor(np.stack(weights), **kind),
        torch.tensor(units, dtype=torch.float64, device=device),
    )


def _finer_psf(pixels: FinePixels, domain: Mapping) -> np.ndarray:
    """The instrument's own where the image has that, else the spline through the image's."""
    own, given = GaussianPSF(domain["psf_fwhm_arcsec"] * u.arcsec, domain["psf_truncation"]), pixels.image.psf
    expected = own.kernel(pixel_scale(pixels.image))
    widest = max(*expected.shape, *given.shape)
    apart = _centred(np.asarray(given, dtype=float), widest) - _centred(expected, widest)
    if np.abs(apart).max() < _SAME_PSF * expected.max():
        return own.kernel(pixels.scale * u.arcsec)
    return pixels.psf()


def _centred(kernel: np.ndarray, side: int) -> np.ndarray:
    return np.pad(kernel, [((side - n) // 2,) * 2 for n in kernel.shape])
