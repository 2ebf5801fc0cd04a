"""What the picture of a deblending shows."""

import numpy as np
import pytest
from astropy.nddata import NDData, StdDevUncertainty
from toy_methods import gaussian

from lensdeblend import deblend
from lensdeblend.results.panels import colour_bands, composite

pytest.importorskip("matplotlib")

SHAPE = 30, 34


def image(*fluxes, seed=1, shape=SHAPE):
    places = (8, 15), (25, 14)
    data = sum(flux * gaussian(shape, x, y, 1.8) for flux, (x, y) in zip(fluxes, places))
    data = data + np.random.default_rng(seed).normal(0, 1, shape)
    return NDData(data, uncertainty=StdDevUncertainty(np.ones(shape)), psf=gaussian((13, 13), 6, 6, 1.3),
                  meta={"PIXSCALE": 0.2})


def drawn(result, path):
    figure = result.plot(path)
    assert path.stat().st_size > 10_000
    return [axes for axes in figure.axes if axes.axison and axes.get_title()]


def test_one_band(tmp_path):
    result = deblend(image(900, 700), method="photutils", seed=1)
    titles = [axes.get_title() for axes in drawn(result, tmp_path / "one.png")]
    assert titles[:3] == ["data", "segmentation", "model"] and titles[3].startswith("residual")
    assert titles[4:] == ["galaxy 1 of 2", "galaxy 2 of 2"]


def test_three_bands_are_shown_in_colour(tmp_path):
    # The left galaxy is red, the right one blue.
    bands = {"g": image(100, 900), "r": image(400, 400, seed=2), "z": image(900, 100, seed=3)}
    result = deblend(bands, positions=[(8, 15), (25, 14)], method="photutils", seed=1)
    panels = drawn(result, tmp_path / "three.png")
    by_title = {axes.get_title(): axes.images[0].get_array() for axes in panels[:5]}
    assert list(by_title) == [
        "data: z, r, g as red, green, blue", "model", "segmentation", "galaxy 1 of 2", "galaxy 2 of 2"
    ]
    colours = by_title["data: z, r, g as red, green, blue"]
    assert colours.shape == (*SHAPE, 3)
    red, _, blue = (int(value) for value in colours[15, 8])
    assert red > 3 * blue
    red, _, blue = (int(value) for value in colours[14, 25])
    assert blue > 3 * red
    # Each galaxy alone is as bright as it is in the data, and the other is not there.
    alone = by_title["galaxy 1 of 2"].astype(int)
    assert np.abs(alone[15, 8] - colours[15, 8].astype(int)).max() < 40 and alone[14, 25].max() < 30
    assert by_title["segmentation"][15, 8] == 1 and by_title["segmentation"][14, 25] == 2
    assert by_title["segmentation"].mask[0, 0]


@pytest.mark.parametrize("bands", [2, 3])
def test_bands_that_make_no_colours(bands, tmp_path):
    images = {"g": image(900, 700), "r": image(900, 700, seed=2), "i": image(900, 700, shape=(28, 34))}
    images = dict(list(images.items())[:bands])
    assert colour_bands(images) == ()
    result = deblend(images, positions=[(8, 15), (25, 14)], method="photutils", seed=1)
    assert not any("as red" in axes.get_title() for axes in drawn(result, tmp_path / "two.png"))


def test_nothing_and_masked_pixels_are_black():
    band = image(900, 700)
    band.mask = np.zeros(SHAPE, bool)
    band.mask[15, 8] = True
    colours = composite([band] * 3, [band] * 3)
    assert colours[15, 8].max() == 0 and colours[15, 9].min() > 100
    empty = NDData(np.zeros(SHAPE))
    assert composite([empty] * 3, [band] * 3).max() == 0
    band.mask[:] = True
    assert composite([band] * 3, [band] * 3).max() == 0
