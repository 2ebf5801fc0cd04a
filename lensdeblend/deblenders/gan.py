r"""Deblending by a trained generator: a network draws each galaxy, the data say how bright it is.

The network proposes an image :math:`g_{ib}` of each galaxy :math:`i` in each band :math:`b`; amplitudes
:math:`a_{ib} \ge 0` are then those that bring

.. math::

    m_b = \sum_i a_{ib} \, g_{ib} + s_b

closest to the data in chi-square. Where a blend is unlike those the network was trained on, ``meta["flags"]`` says so
and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import nnls
from torch import nn

from lensdeblend.deblenders.blend import Band, Blend
from lensdeblend.deblenders.catalog import blendedness, catalogue, flags_of, shape, together
from lensdeblend.deblenders.detection import Detection, Detector, detected_above_sky
from lensdeblend.deblenders.dressing import dressed, nothing_found, segmented
from lensdeblend.deblenders.gan_frames import channels, drawn, outside, shown_in
from lensdeblend.interfaces import Deblender, Image
from lensdeblend.lensing.threads import single_thread
from lensdeblend.networks.orientations import ORIENTATIONS
from lensdeblend.networks.weights import Card, load_weights
from lensdeblend.options import check_choice, check_device, check_positive, check_whole, chosen_device
from lensdeblend.results import Deblending

__all__ = ["Gan", "GanPaper"]


@dataclass(frozen=True)
class Gan(Deblender):
    """Draw each galaxy by a network that was trained, against a critic, on physical blends.

    Parameters
    ----------
    weights : str
        A name of ``lensdeblend weights``, or the path of a safetensors file.
    symmetrise : bool
        Average over the eight orientations of the image.
    solve : bool
        Whether to solve for the amplitudes of the galaxies; else they are as bright as the network draws them.
    threshold : float
        Significance of a star from which a pixel belongs to a galaxy.
    background : {"auto", "none"}
        Whether to take off the level of the empty sky, where it differs from zero by 3 sigma.
    batch : int
        Galaxies that go through the network at once.
    device : str
        ``"auto"`` (a GPU where there is one) or a torch device.

    Notes
    -----
    The network sees three bands of one grid, 64 pixels a side: bands go through it in threes, those left over alone, in
    all three places; of larger images a frame about each galaxy is cut out, and a galaxy is 0 beyond it. Images of
    bands on other grids are drawn on those.

    ``flux`` is the sum of a galaxy's image. It has no error, ``flux_err`` is NaN: the network does not say how wrong
    its images are, and the noise of the pixels is the lesser part. Shapes and radii are moments of the images, with the
    PSF in them. Flags of a galaxy: ``no flux``, ``at the edge``, ``off the image``, ``masked``; of the whole, in
    ``meta["flags"]``: ``nothing found``, ``poor fit``, and ``out_of_domain`` with the reason.

    References
    ----------
    Reiman & Göhre 2019 (2019MNRAS.485.2617R) for galaxies drawn by generative adversarial networks; Salimans et al.
    2016 (arXiv:1606.03498) for feature matching.

    Examples
    --------
    >>> from lensdeblend.deblenders.gan import Gan
    >>> Gan(symmetrise=False).weights
    'gan'
    """

    weights: str = "gan"
    symmetrise: bool = True
    solve: bool = True
    threshold: float = 4.0
    background: str = "auto"
    batch: int = 32
    device: str = "auto"

    def __post_init__(self):
        for name in ("symmetrise", "solve"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False; got {getattr(self, name)!r}")
        if self.threshold is None:
            raise ValueError("threshold must be a positive number; got None")
        check_positive("threshold", self.threshold, "a positive number")
        check_choice("background", self.background, ("auto", "none"))
        check_whole("batch", self.batch, 1)
        check_device(self.device)

    def deblend(self, image: Image, segmentation, positions, rng: np.random.Generator) -> Deblending:
        """Return one image and one catalogue row a galaxy; nothing is random."""
        network, card = _loaded(str(self.weights), chosen_device(self.device))
        blend = Blend.of(image)
        detection, levels = detected_above_sky(
            Detector(self.threshold), blend, self.background, segmentation, positions
        )
        if not len(detection.positions):
            return nothing_found(blend, levels)
        all_channels = channels(blend, network.bands)
        with single_thread():
            groups = [
                drawn(
                    network, shown, detection.positions, levels, pixels=card.domain["pixels"], batch=self.batch,
                    orientations=ORIENTATIONS if self.symmetrise else ORIENTATIONS[:1],
                    device=chosen_device(self.device),
                )
                for shown in all_channels
            ]
        images = dict(shown_in(all_channels, groups))
        galaxies = [images[number] for number in range(len(blend.bands))]
        if self.solve:
            galaxies = [_solved(*each) for each in zip(blend.bands, galaxies, levels)]
        flags = outside(blend, detection.positions, card.domain, network.rule)
        return self._told(blend, detection, galaxies, levels, flags, card)

    def _told(
        self, blend: Blend, detection: Detection, galaxies: Sequence[np.ndarray], levels: Sequence[float],
        flags: Sequence[str], card: Card,
    ) -> Deblending:
        positions = detection.positions
        fluxes = np.stack([images.sum((1, 2)) for images in galaxies], 1)
        whole = together(blend, galaxies)
        shapes = np.array([shape(galaxy) for galaxy in whole])
        catalog = catalogue(
            blend, positions, fluxes, np.full_like(fluxes, np.nan), shapes[:, :2], shapes[:, 2], blendedness(whole),
            [flags_of(place, flux, blend) for place, flux in zip(positions, fluxes)],
        )
        labels = segmented(whole, detection.significance, self.threshold)
        return dressed(
            blend, galaxies, levels, catalog, labels, fluxes.size if self.solve else 0, flags, judged=True,
            weights=card.name, weights_sha256=card.sha256,
        )


@dataclass(frozen=True)
class GanPaper(Gan):
    """The published setting: two galaxies in a colour picture of 80 pixels a side, the brighter of two pixels.

    Parameters
    ----------
    weights, symmetrise, solve, threshold, background, batch, device
        As for `Gan`. Galaxies blended by the maximum do not sum to the data: with ``solve=False`` they are as the
        network draws them.

    Notes
    -----
    The network takes the three bands of a grid as the red, green and blue of a picture whose brightest pixel is 1, and
    gives each galaxy a share of every pixel. Other numbers of bands, sizes and numbers of galaxies are flagged as
    ``out_of_domain``. It has learned from pictures whose brightness is stretched: flux on a linear scale is out of its
    domain too, which it cannot tell and does not flag.

    Examples
    --------
    >>> from lensdeblend.deblenders.gan import GanPaper
    >>> GanPaper().weights
    'gan-paper'
    """

    weights: str = "gan-paper"


@lru_cache(maxsize=4)
def _loaded(weights: str, device: str) -> tuple[nn.Module, Card]:
    return load_weights(weights, device=device)


def _solved(band: Band, images: np.ndarray, level: float) -> np.ndarray:
    """With the amplitudes that bring the sum closest to the data, none negative."""
    basis = (images * band.weight).reshape(len(images), -1)
    norms = np.linalg.norm(basis, axis=1)
    norms = np.where(norms > 0, norms, 1.0)
    amplitudes, _ = nnls((basis / norms[:, None]).T, ((band.data - level) * band.weight).ravel())
    return images * (amplitudes / norms)[:, None, None]
