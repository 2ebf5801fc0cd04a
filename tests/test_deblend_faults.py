"""Bad input to every deblender: what is refused, what is flagged, and that nothing crashes a batch."""

import re
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData, StdDevUncertainty
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from toy_methods import gaussian

from lensdeblend import deblend, methods
from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.catalog import together
from lensdeblend.deblenders.photutils import Photutils
from lensdeblend.images import prepare
from lensdeblend.results import Deblending

NAMES = ["joint", "photutils"]
PSF = gaussian((15, 15), 7, 7, 1.4)
SHAPE = 36, 40


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def blend(*galaxies, shape=SHAPE, sigma=1.0, width=1.9, seed=3, **more):
    """Gaussian galaxies, each x, y and flux."""
    data = np.random.default_rng(seed).normal(0, sigma, shape)
    for x, y, flux in galaxies:
        data = data + flux * gaussian(shape, x, y, width)
    more = {"meta": {"PIXSCALE": 0.2}, "psf": PSF, **more}
    return NDData(data, uncertainty=StdDevUncertainty(np.full(shape, sigma)), unit=u.ct, **more)


PAIR = (15.0, 18.0, 1500.0), (25.0, 17.0, 900.0)


def quietly(image, **options):
    """Without the warning that nothing was found."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no galaxy was found")
        return deblend(image, seed=1, **options)


def assert_valid(result, count=None):
    """One image, one share and one row a galaxy, numbers everywhere, shares that sum to the data."""
    assert len(result.sources) == len(result.shares) == len(result.catalog)
    assert count is None or len(result.catalog) == count
    model = result.model if isinstance(result.model, dict) else {"": result.model}
    for band in model:
        pick = (lambda item: item[band]) if isinstance(result.model, dict) else (lambda item: item)
        assert np.isfinite(pick(result.model).data).all() and np.isfinite(pick(result.residual).data).all()
        if len(result.shares):
            total = sum(pick(share).data for share in result.shares)
            good = np.isfinite(pick(result.image).data)
            np.testing.assert_allclose(total[good], pick(result.image).data[good], rtol=1e-6, atol=1e-6)
    for column in result.catalog.colnames:
        if column.startswith("flux"):
            assert np.isfinite(result.catalog[column].value).all(), column


def test_these_are_the_deblenders_that_need_no_weights():
    assert set(NAMES) <= set(methods("deblender")["name"])


def test_nothing_there(name):
    with pytest.warns(AstropyUserWarning, match="no galaxy was found"):
        result = deblend(blend(), method=name, seed=1)
    assert_valid(result, 0)
    assert "nothing found" in result.meta["flags"]


def test_everything_masked(name):
    image = blend(*PAIR)
    image.mask = np.ones(SHAPE, bool)
    with pytest.raises(ValueError, match="mask"):
        deblend(image, method=name, seed=1)


def test_most_is_masked(name):
    image = blend(*PAIR)
    image.mask = np.ones(SHAPE, bool)
    image.mask[17:20, 14:17] = False
    assert_valid(quietly(image, method=name))
    assert_valid(quietly(image, positions=[PAIR[0][:2]], method=name), 1)


@pytest.mark.parametrize("masked", [False, True])
def test_a_saturated_star(name, masked):
    image = blend((15.0, 18.0, 60000.0), (30.0, 17.0, 900.0))
    top = 0.2 * image.data.max()
    saturated = image.data > top
    image.data[saturated] = top
    image.mask = saturated if masked else None
    result = deblend(image, method=name, seed=1)
    assert_valid(result)
    apart = np.hypot(result.catalog["x"] - 15, result.catalog["y"] - 18)
    if masked:
        assert apart.min() < 1.5
    else:
        # No galaxy looks like it; what stands for it must not look like an answer.
        assert apart.min() < 4 and (result.chi2 > 10 or "poor fit" in result.meta["flags"])
    given = deblend(image, positions=[(15, 18), (30, 17)], method=name, seed=1)
    assert_valid(given, 2)
    assert given.catalog["flux"][1].value == pytest.approx(900, rel=0.35)


@pytest.mark.parametrize("x, y", [(0.0, 18.0), (39.4, 35.4), (20.0, 0.0)])
def test_a_galaxy_at_the_edge(name, x, y):
    image = blend((x, y, 3000.0), (20.0, 18.0, 900.0))
    result = deblend(image, method=name, seed=1)
    assert_valid(result)
    assert np.hypot(result.catalog["x"] - x, result.catalog["y"] - y).min() < 1.5
    assert_valid(deblend(image, positions=[(x, y)], method=name, seed=1), 1)


def test_positions_off_the_image(name):
    image = blend(*PAIR)
    places = [*(galaxy[:2] for galaxy in PAIR), (-30.0, 100.0), (60.0, 18.0)]
    result = deblend(image, positions=places, method=name, seed=1)
    assert_valid(result, 4)
    assert [flags != "" for flags in result.catalog["flags"]] == [False, False, True, True]
    assert_valid(deblend(image, positions=[(-30.0, 100.0)], method=name, seed=1), 1)


def test_a_segmentation_of_another_shape(name):
    with pytest.raises(ValueError, match=r"the segmentation has shape \(5, 5\), the image \(36, 40\)"):
        deblend(blend(*PAIR), segmentation=np.ones((5, 5), int), method=name)


def test_an_empty_segmentation(name):
    with pytest.warns(AstropyUserWarning, match="no galaxy was found"):
        assert_valid(deblend(blend(*PAIR), segmentation=np.zeros(SHAPE, int), method=name, seed=1), 0)


def test_bands_on_other_grids(name):
    scale = 0.3 / 0.2
    other = blend(*[(13 + (x - 19.5) / scale, 12 + (y - 17.5) / scale, flux) for x, y, flux in PAIR],
                  shape=(25, 27), width=1.9 / scale, psf=gaussian((11, 11), 5, 5, 1.4 / scale), meta={"PIXSCALE": 0.3})
    bands = {"g": blend(*PAIR), "r": other}
    assert_valid(deblend(bands, method=name, seed=1))
    result = deblend(bands, positions=[g[:2] for g in PAIR], method=name, seed=1)
    assert_valid(result, 2)
    assert result.model["r"].data.shape == (25, 27)
    for band in "gr":
        np.testing.assert_allclose(result.catalog[f"flux_{band}"].value, [1500, 900], rtol=0.12)


def test_bands_as_large_that_lie_apart():
    def shifted(pixels):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [-0.2 / 3600, 0.2 / 3600]
        wcs.wcs.crval, wcs.wcs.crpix = [150, 2], [20 + pixels, 18]
        return blend(*[(x + pixels, y, flux) for x, y, flux in PAIR], wcs=wcs, meta={})

    method = {"positions": [g[:2] for g in PAIR], "method": "photutils", "seed": 1}
    one = deblend({"g": shifted(0)}, **method).catalog
    two = deblend({"g": shifted(0), "r": shifted(6)}, **method).catalog
    for column in ("e1", "e2", "blendedness"):
        np.testing.assert_allclose(two[column], one[column], atol=0.02)


def test_the_noise_of_masked_pixels_weighs_nothing():
    image = blend(*PAIR)
    faint = blend(*[(x, y, 1e-18 * flux) for x, y, flux in PAIR], sigma=1e-18)
    faint.mask = np.indices(SHAPE)[0] < 20
    bands = Blend.of({"g": prepare(image), "r": prepare(faint)})
    np.testing.assert_allclose([band.noise for band in bands.bands], [1, 1e-18])
    galaxies = np.ones((2, *SHAPE))
    np.testing.assert_allclose(together(bands, [galaxies, 1e-18 * galaxies]), 2 * galaxies)


def test_bands_of_other_places(name):
    def somewhere(ra):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.cdelt, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [-0.2 / 3600, 0.2 / 3600], [ra, 2]
        return blend(*PAIR, wcs=wcs, meta={})

    with pytest.raises(ValueError, match="band 'r' shows another part of the sky"):
        deblend({"g": somewhere(150), "r": somewhere(151)}, method=name, seed=1)


def test_nan_in_one_band(name):
    spoilt = blend(*PAIR, seed=4)
    spoilt.data[10:14, 12:30] = np.nan
    spoilt.data[18, 15] = np.inf
    result = deblend({"g": blend(*PAIR), "r": spoilt}, positions=[g[:2] for g in PAIR], method=name, seed=1)
    assert_valid(result, 2)
    np.testing.assert_allclose(result.catalog["flux_g"].value, [1500, 900], rtol=0.1)
    assert_valid(deblend({"g": blend(*PAIR), "r": spoilt}, method=name, seed=1))


def test_a_band_of_nothing_but_nan(name):
    spoilt = blend()
    spoilt.data[:] = np.nan
    with pytest.raises(ValueError):
        deblend({"g": blend(*PAIR), "r": spoilt}, method=name, seed=1)


def test_a_hundred_galaxies(rng):
    rows, columns = np.indices((10, 10)) * 12 + 9.0
    places = np.stack([columns.ravel(), rows.ravel()], 1) + rng.uniform(-3, 3, (100, 2))
    fluxes = rng.uniform(600, 1500, 100)
    image = blend(*np.column_stack([places, fluxes]), shape=(128, 128))
    result = deblend(image, positions=places, method="photutils", seed=1)
    assert_valid(result, 100)
    error = result.catalog["flux"].value / fluxes - 1
    assert abs(np.median(error)) < 0.05 and np.percentile(np.abs(error), 68) < 0.15
    found = deblend(image, method="photutils", seed=1)
    assert_valid(found)
    assert 85 <= len(found.catalog) <= 105


class Fussy(Photutils):
    """Raises where the first pixel is 7."""

    def deblend(self, image, segmentation, positions, rng):
        if image.data[0, 0] == 7:
            raise RuntimeError("a seven\nat the corner")
        return super().deblend(image, segmentation, positions, rng)


class TestBatch:
    """One blend fails, the rest come out."""

    @pytest.mark.parametrize("places", [(0,), (2,), (1, 3), (0, 1, 2, 3, 4)])
    def test_a_method_that_raises(self, places, tmp_path):
        images = [blend(*PAIR, seed=seed) for seed in range(5)]
        for place in places:
            images[place].data[0, 0] = 7
        with pytest.warns(AstropyUserWarning, match=r"image \d of the list .* a seven at the corner") as told:
            results = deblend(images, method=Fussy(), seed=1)
        assert [int(str(one.message)[6]) for one in told] == list(places) and len(results) == 5
        for place, result in enumerate(results):
            if place not in places:
                assert_valid(result, 2)
                assert not any("failed" in flag for flag in result.meta["flags"])
                alone = deblend(images[place], method=Fussy(), seed=1)
                np.testing.assert_allclose(result.catalog["flux"].value, alone.catalog["flux"].value)
                continue
            assert_valid(result, 0)
            assert result.meta["flags"] == ("failed: RuntimeError: a seven at the corner",)
            assert np.isnan(result.chi2) and result.model.data.shape == SHAPE and result.model.unit == u.ct
            assert result.meta["method"] and result.image.mask.all()
        result = results[places[0]]
        result.write(tmp_path / "failed.fits")
        back = Deblending.read(tmp_path / "failed.fits")
        assert np.isnan(back.chi2) and tuple(back.meta["flags"]) == result.meta["flags"] and len(back.catalog) == 0
        result.plot(tmp_path / "failed.png")

    def test_alone_it_raises(self):
        image = blend(*PAIR)
        image.data[0, 0] = 7
        with pytest.raises(RuntimeError, match="a seven"):
            deblend(image, method=Fussy(), seed=1)

    def test_data_that_are_no_blend(self, name):
        good, masked, flat = blend(*PAIR), blend(*PAIR), blend(*PAIR, meta={})
        masked.mask = np.ones(SHAPE, bool)
        segments = [None, None, None, np.ones((3, 3), int)]
        with pytest.warns(AstropyUserWarning) as told:
            results = deblend([good, masked, flat, good], segmentation=segments, method=name, seed=1)
        assert len(told) == 3
        assert_valid(results[0])
        assert len(results[0].catalog) >= 2
        for result, reason in zip(results[1:], ("mask", "pixel scale|PIXSCALE", "segmentation has shape")):
            assert_valid(result, 0)
            flag, = result.meta["flags"]
            assert re.search(f"^failed: ValueError: .*({reason})", flag), flag

    @pytest.mark.parametrize("scale", [{"PIXSCALE": -0.2}, {"PIXSCALE": np.nan}, (0.2, 0.3)])
    def test_pixels_that_are_none(self, scale):
        more = {"meta": scale}
        if not isinstance(scale, dict):
            wcs = WCS(naxis=2)
            wcs.wcs.ctype, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], np.array(scale) / 3600
            more = {"meta": {}, "wcs": wcs}
        with pytest.warns(AstropyUserWarning, match="image 1 of the list"):
            good, bad = deblend([blend(*PAIR), blend(*PAIR, **more)], method="photutils", seed=1)
        assert_valid(good, 2)
        assert_valid(bad, 0)

    def test_bands_of_which_one_is_refused(self, name):
        bad = blend(*PAIR)
        bad.mask = np.ones(SHAPE, bool)
        with pytest.warns(AstropyUserWarning, match="image 1 of the list"):
            good, failed = deblend(
                [{"g": blend(*PAIR), "r": blend(*PAIR, seed=5)}, {"g": blend(*PAIR), "r": bad}], method=name, seed=1,
                positions=[[g[:2] for g in PAIR]] * 2,
            )
        assert_valid(good, 2)
        assert_valid(failed, 0)
        assert list(failed.model) == ["g", "r"] and {"flux_g", "flux_err_r"} <= set(failed.catalog.colnames)

    def test_what_is_no_image_is_refused(self):
        with pytest.raises(TypeError, match=r"image 1 of the list \(counted from 0\): .*got str"):
            deblend([blend(*PAIR), "image.fits"], method="photutils")
        with pytest.raises(ValueError, match="for a list of 2 images, positions must be a list of that length"):
            deblend([blend(*PAIR)] * 2, positions=[(3, 4)], method="photutils")
