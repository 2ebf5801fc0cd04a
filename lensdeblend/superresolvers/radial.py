r"""What methods share whose networks tell of a deflection that is all but radial.

The network was trained on how well what follows from its deflection tells of data of low resolution
(`lensdeblend.training.tasks.superresolve_radial`, `lensdeblend.lensing.radial_decoder`). The lensed disc goes from 0 to
1; the finer image is what it becomes by the slope and the offset that bring it closest to the data in chi-square, once
it is summed on their pixels: the scaling of the network's input, undone by the data themselves.
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
from torch import nn

from lensdeblend.images import pixel_scale
from lensdeblend.lensing.finer_images import binned
from lensdeblend.lensing.radial_decoder import RadialDecoder, brought_to, unit_range
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.trained import FACTOR, Shown, Trained

__all__ = ["Radial"]


class Radial(Trained):
    """A network of deflections with the published decoder."""

    def told(self, network: nn.Module, shown: Shown) -> list[dict]:
        image = shown.seen.image
        scale = pixel_scale(shown.pixels[0].image).to_value(u.arcsec)
        decode = RadialDecoder(tuple(image.shape[1:]), scale, device=image.device)
        found = decode(unit_range(image), network(shown.seen))
        fine = found.images[0] / FACTOR**2
        slope, offset = (
            part.double().cpu().numpy() * shown.units
            for part in brought_to(image, binned(fine, FACTOR), shown.weight)
        )
        fine, source, deflection = (
            part.double().cpu().numpy() for part in (fine, found.profiles[0] / FACTOR**2, found.deflection)
        )
        return [
            {
                "image": slope[i] * fine[i] + offset[i] / FACTOR**2, "fitted": 2,
                "source": pixels.dressed(slope[i] * source[i]), **_maps(pixels, deflection[i]),
            }
            for i, pixels in enumerate(shown.pixels)
        ]


def _maps(pixels: FinePixels, deflection: np.ndarray) -> dict:
    (_, xx), (yy, _) = (np.gradient(axis, pixels.scale) for axis in deflection)
    return {
        "deflection": tuple(pixels.dressed(axis, unit=u.arcsec) for axis in deflection),
        "convergence": pixels.dressed((xx + yy) / 2, unit=u.dimensionless_unscaled),
    }
