"""What a model leaves of an image, on finer pixels."""

import numpy as np
import pytest
from astropy.nddata import NDData, VarianceUncertainty
from numpy.testing import assert_allclose

from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.kernels import interpolated
from lensdeblend.superresolvers.leftover import left_by

SIDE, NOISE = 40, 0.5


def galaxy(pixels, x=0.0, y=0.0, flux=400.0, width=3.0):
    """Flux per pixel of a Gaussian, on pixels ``1 / pixels`` as large."""
    rows = (np.arange(SIDE * pixels) + 0.5) / pixels - SIDE / 2
    light = np.exp(-0.5 * ((rows[:, None] - y) ** 2 + (rows - x) ** 2) / width**2)
    return flux * light / (2 * np.pi * width**2) / pixels**2


def seen(seed=1, **lump):
    noise = NOISE * np.random.default_rng(seed).normal(size=(SIDE, SIDE))
    data = galaxy(1) + (galaxy(1, **lump) if lump else 0) + noise
    return NDData(data, uncertainty=VarianceUncertainty(np.full((SIDE, SIDE), NOISE**2)), meta={"PIXSCALE": 0.1})


LUMP = {"x": 6.0, "y": -3.0, "flux": 2000.0, "width": 2.0}


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_left_alone(seed):
    assert np.abs(left_by(galaxy(1), FinePixels(seen(seed), 2))).max() < 0.1 * NOISE / 4


def test_what_the_model_lacks_comes_back():
    image, truth = seen(**LUMP), galaxy(2) + galaxy(2, **LUMP)
    pixels = FinePixels(image, 2)
    found = galaxy(2) + left_by(galaxy(1), pixels)

    def off(finer):
        return np.sqrt(np.mean((finer - truth) ** 2))

    assert off(found) < 0.2 * off(galaxy(2))
    assert off(found) < 0.6 * off(interpolated(image.data, pixels, "spline"))


def test_masked_pixels_tell_nothing():
    image = seen()
    image.data[10:12, 20:22] = 1e6
    mask = np.zeros((SIDE, SIDE), bool)
    mask[10:12, 20:22] = True
    image.mask = mask
    assert np.abs(left_by(galaxy(1), FinePixels(image, 2))).max() < 0.1 * NOISE / 4
    image.mask = None
    assert left_by(galaxy(1), FinePixels(image, 2)).max() > 1e4


def test_flux_is_kept():
    image = seen(**LUMP)
    left = left_by(galaxy(1), FinePixels(image, 3))
    assert_allclose(left.sum(), LUMP["flux"], rtol=0.05)
