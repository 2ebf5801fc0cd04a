"""The door: what comes out of `prepare`, what it refuses, and what `cutout` keeps."""

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io.fits import Header
from astropy.nddata import (
    CCDData, InverseVariance, NDData, NDDataRef, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty,
)
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal

from lensdeblend import cutout, prepare
from lensdeblend.images import ImageWarning, like, on_grid, pixel_scale, position_angle, recast

SHAPE = (24, 20)


def gaussian(shape, fwhm=2.5, centre=None):
    y, x = np.indices(shape)
    cy, cx = ((n - 1) / 2 for n in shape) if centre is None else centre
    return np.exp(-4 * np.log(2) * ((x - cx) ** 2 + (y - cy) ** 2) / fwhm**2)


def celestial(scale=0.1, *, angle=0.0, unequal=1.0, shape=SHAPE, skew=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 150.1, 2.2
    wcs.wcs.crpix = 11.3, 8.9
    turn = np.radians(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn + skew)], [np.sin(turn), np.cos(turn + skew)]])
    wcs.wcs.cd = rotation @ np.diag([-scale, scale * unequal]) / 3600
    wcs.wcs.set()
    wcs.array_shape = shape
    return wcs


def image(kind=NDData, *, data=None, noise=0.5, **options):
    if data is None:
        data = np.random.default_rng(5).normal(size=SHAPE)
    given = {"uncertainty": StdDevUncertainty(np.full(np.shape(data), noise)), "meta": {"PIXSCALE": 0.1}, "unit": "nJy"}
    return kind(data, **given | options)


class TestPrepare:
    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [
            (">f4", "f4"), ("<f4", "f4"), (">f8", "f8"), ("f2", "f8"), (">i2", "f8"), ("u2", "f8"), (">i4", "f8"),
            ("bool", "f8"),
        ],
    )
    def test_data_become_native_floats_of_the_same_value(self, dtype, expected):
        data = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)
        ready = prepare(image(data=data))
        assert ready.data.dtype == np.dtype(expected) and ready.data.dtype.isnative
        assert ready.uncertainty.array.dtype == ready.data.dtype
        assert_array_equal(ready.data, data.astype(expected))

    @pytest.mark.parametrize("order", [">", "<"])
    @pytest.mark.parametrize(
        ("kind", "power"), [(StdDevUncertainty, 0.5), (VarianceUncertainty, 1), (InverseVariance, -1)]
    )
    def test_every_uncertainty_becomes_the_same_variance(self, kind, power, order, rng):
        variance = rng.uniform(0.1, 2, SHAPE)
        ready = prepare(image(uncertainty=kind((variance**power).astype(f"{order}f8"))))
        assert type(ready.uncertainty) is VarianceUncertainty
        assert ready.uncertainty.array.dtype.isnative
        assert_allclose(ready.uncertainty.array, variance, rtol=1e-14)
        assert ready.uncertainty.unit == u.nJy**2
        assert not ready.mask.any()

    @pytest.mark.parametrize(
        "uncertainty",
        [
            StdDevUncertainty(np.full(SHAPE, 0.5e-9), unit=u.Jy),
            VarianceUncertainty(np.full(SHAPE, 0.25e-18), unit=u.Jy**2),
            InverseVariance(np.full(SHAPE, 4e18), unit=u.Jy**-2),
        ],
    )
    def test_uncertainty_of_another_unit_is_converted(self, uncertainty):
        assert_allclose(prepare(image(uncertainty=uncertainty)).uncertainty.array, 0.25)

    def test_scalar_uncertainty_holds_everywhere(self):
        assert_allclose(prepare(image(uncertainty=StdDevUncertainty(0.5))).uncertainty.array, np.full(SHAPE, 0.25))

    def test_input_is_left_alone(self):
        given = image(psf=np.full((3, 3), 2.0), meta={"PIXSCALE": 0.1, "deep": {"a": 1}})
        given.data[0, 0] = np.nan
        ready = prepare(given)
        ready.data[1, 1] = 99
        ready.meta["deep"]["a"] = 2
        assert np.isnan(given.data[0, 0]) and given.data[1, 1] != 99
        assert given.meta["deep"]["a"] == 1 and given.mask is None and given.psf.sum() == 18

    def test_a_header_as_meta_becomes_a_dict(self):
        meta = Header({"PIXSCALE": 0.1, "EXPTIME": None})
        meta.add_history("flat-fielded")
        assert prepare(image(CCDData, meta=meta)).meta == {"PIXSCALE": 0.1, "EXPTIME": None, "HISTORY": "flat-fielded"}

    def test_twice_is_as_once(self):
        given = image(psf=gaussian((7, 7)), wcs=celestial())
        given.data[2, 3], given.uncertainty.array[4, 5] = np.nan, 0
        once = prepare(given)
        twice = prepare(once)
        for name in ("data", "mask", "psf"):
            assert_allclose(getattr(twice, name), getattr(once, name), rtol=1e-15)
        assert_array_equal(twice.uncertainty.array, once.uncertainty.array)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_are_masked(self, bad):
        given = image()
        given.data[3, 4] = bad
        ready = prepare(given)
        assert_array_equal(np.argwhere(ready.mask), [[3, 4]])
        assert np.isfinite(ready.data).all()

    @pytest.mark.parametrize(
        ("kind", "values"),
        [
            (VarianceUncertainty, [np.nan, np.inf, 0, -1]),
            (StdDevUncertainty, [np.nan, np.inf, 0, -1]),
            (InverseVariance, [np.nan, np.inf, 0, -1]),
        ],
    )
    def test_bad_variances_are_masked(self, kind, values):
        array = np.full(SHAPE, 2.0)
        array[0, : len(values)] = values
        ready = prepare(image(uncertainty=kind(array)))
        assert_array_equal(np.argwhere(ready.mask), [[0, i] for i in range(len(values))])
        assert (ready.uncertainty.array > 0).all()

    def test_masks_join(self):
        mask = np.zeros(SHAPE, dtype=bool)
        mask[1, 1] = True
        given = image(mask=mask)
        given.data[2, 2] = np.nan
        given.uncertainty.array[3, 3] = 0
        assert_array_equal(np.argwhere(prepare(given).mask), [[1, 1], [2, 2], [3, 3]])

    def test_missing_uncertainty_is_measured_on_the_background(self, rng):
        data = rng.normal(scale=0.3, size=(100, 100))
        data[40:60, 40:60] += 50 * gaussian((20, 20), 8)
        mask = np.zeros(data.shape, dtype=bool)
        mask[:, :5] = True
        data[:, :5] = 1e5
        with pytest.warns(ImageWarning, match="no uncertainty: a background noise of 0.29"):
            ready = prepare(NDData(data, mask=mask, meta={"PIXSCALE": 0.1}))
        assert_allclose(np.sqrt(ready.uncertainty.array), 0.3, rtol=0.05)

    def test_nothing_to_measure_the_noise_on(self):
        with pytest.raises(ValueError, match="its background no scatter"):
            prepare(image(data=np.zeros(SHAPE), uncertainty=None))

    def test_float32_gives_way_where_a_square_would_underflow(self):
        data = np.full(SHAPE, 1e-24, dtype=np.float32)
        ready = prepare(image(data=data, noise=1e-25))
        assert ready.data.dtype == np.float64
        assert_allclose(ready.uncertainty.array, 1e-50)

    def test_float32_gives_way_where_a_square_would_overflow(self):
        data = np.full(SHAPE, 1.0, dtype=np.float32)
        assert prepare(image(data=data)).data.dtype == np.float32
        data[3, 4] = 1e25
        ready = prepare(image(data=data, noise=1e15))
        assert ready.data.dtype == np.float64
        assert np.isfinite(ready.data**2).all()

    @pytest.mark.parametrize(("value", "noise", "message"), [
        (1e155, 1e150, "the image has values up to 1e.155.*squares double precision does not hold: mask such pix"),
        (1.0, 1e-154, "noise from 1e-154 to 0.5, whose squares double precision does not hold"),
        (1e150, 0.5, "values up to 1e.150 where the noise is 0.5: more than 1e.15 times it"),
        (-1e150, 0.5, "values up to 1e.150 where the noise is 0.5: more than 1e.15 times it"),
        (1.0, 1e100, "noise from 0.5 to 1e.100, its median 0.5"),
        (1.0, 1e-100, "noise from 1e-100 to 0.5, its median 0.5"),
    ])
    def test_what_double_precision_does_not_hold_is_refused_unless_masked(self, value, noise, message):
        data, std = np.ones(SHAPE), np.full(SHAPE, 0.5)
        data[3, 4], std[3, 4] = value, noise
        with pytest.raises(ValueError, match=message):
            prepare(image(data=data, uncertainty=StdDevUncertainty(std)))
        mask = np.zeros(SHAPE, dtype=bool)
        mask[3, 4] = True
        assert prepare(image(data=data, uncertainty=StdDevUncertainty(std), mask=mask)).mask.sum() == 1

    @pytest.mark.parametrize("level", [1e160, 1e-170])
    def test_noise_whose_square_is_no_number_names_the_way_out(self, level):
        with pytest.raises(ValueError, match="no pixel with a positive, finite variance.*divide data and noise by one"):
            prepare(image(data=np.ones(SHAPE) * level, noise=level))

    @pytest.mark.parametrize("level", [1e150, 1e-150])
    def test_any_unit_whose_squares_are_numbers_passes(self, level):
        ready = prepare(image(data=np.ones(SHAPE) * level, noise=level / 10))
        assert_allclose(ready.uncertainty.array / level / level, 0.01)

    @pytest.mark.parametrize("kind", [NDData, NDDataRef, CCDData])
    def test_every_class_comes_out_as_plain_nddata(self, kind):
        ready = prepare(image(kind, psf=gaussian((5, 5))))
        assert type(ready) is NDData
        assert ready.unit == u.nJy and ready.psf is not None

    def test_masked_arrays_bring_their_mask(self):
        data = np.ma.masked_array(np.ones(SHAPE), mask=np.eye(*SHAPE, dtype=bool))
        assert_array_equal(prepare(image(data=data)).mask, np.eye(*SHAPE, dtype=bool))

    def test_zero_and_one_are_a_mask_but_bit_planes_are_not(self):
        bits = np.zeros(SHAPE, dtype=np.int16)
        bits[0, 0] = 1
        assert prepare(image(mask=bits)).mask.sum() == 1
        bits[0, 1] = 64
        with pytest.raises(ValueError, match="bit planes .largest value 64.*bitfield_to_boolean_mask"):
            prepare(image(mask=bits))

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"data": np.ones(30)}, ValueError, "two-dimensional"),
            ({"data": np.ones((3, 24, 20))}, ValueError, r"two-dimensional; got shape \(3, 24, 20\).*band: NDData"),
            ({"data": np.ones((7, 40))}, ValueError, "too small"),
            ({"data": np.ones(SHAPE, dtype=complex)}, TypeError, "real numbers"),
            ({"data": np.full(SHAPE, "a")}, TypeError, "real numbers"),
            ({"data": np.full(SHAPE, np.nan)}, ValueError, "no usable pixel"),
            ({"mask": np.ones(SHAPE, dtype=bool)}, ValueError, "no usable pixel"),
            ({"mask": np.zeros((3, 3), dtype=bool)}, ValueError, r"the mask has shape \(3, 3\)"),
            ({"uncertainty": StdDevUncertainty(np.zeros(SHAPE))}, ValueError, "no pixel with a positive"),
            ({"uncertainty": VarianceUncertainty(np.zeros(SHAPE))}, ValueError, "no pixel with a positive"),
            ({"uncertainty": VarianceUncertainty(-np.ones(SHAPE))}, ValueError, "no pixel with a positive"),
            ({"uncertainty": StdDevUncertainty(-np.ones(SHAPE))}, ValueError, "no pixel with a positive"),
            ({"uncertainty": InverseVariance(np.zeros(SHAPE))}, ValueError, "no pixel with a positive"),
            ({"uncertainty": VarianceUncertainty(np.full(SHAPE, np.nan))}, ValueError, "no pixel with a positive"),
            ({"uncertainty": VarianceUncertainty(np.ones((2, 2)))}, ValueError, r"the uncertainty has shape \(2, 2\)"),
            ({"uncertainty": UnknownUncertainty(np.ones(SHAPE))}, ValueError, "unknown kind.*StdDevUncertainty"),
            ({"meta": {}}, ValueError, r"a pixel scale is needed.*meta\[\"PIXSCALE\"\]"),
            ({"meta": {"PIXSCALE": 0}}, ValueError, "one positive angle"),
            ({"meta": {"PIXSCALE": np.nan}}, ValueError, "one positive angle"),
            ({"meta": {"PIXSCALE": "wide"}}, ValueError, "number of arcsec"),
            ({"meta": {"PIXSCALE": 3 * u.kg}}, ValueError, "number of arcsec"),
            ({"wcs": celestial(unequal=1.1)}, ValueError, "unequal pixel scales: 0.1 and 0.11 arcsec"),
            ({"wcs": celestial(skew=0.2)}, ValueError, "unequal pixel scales"),
            ({"wcs": WCS(naxis=2), "meta": {}}, ValueError, "a pixel scale is needed"),
        ],
    )
    def test_refusals(self, change, error, message):
        with pytest.raises(error, match=message):
            prepare(image(**change))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"uncertainty": StdDevUncertainty(np.full(SHAPE, "a"))}, "the uncertainty of .* must hold real numbers"),
            ({"uncertainty": StdDevUncertainty(np.full(SHAPE, 1j))}, "the uncertainty of .* must hold real numbers"),
            ({"mask": np.full(SHAPE, "bad")}, "mask of the image must hold booleans"),
        ],
    )
    def test_planes_of_another_kind(self, change, message):
        with pytest.raises(TypeError, match=message):
            prepare(image(**change))

    def test_a_wcs_without_scale(self):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
        with pytest.raises(ValueError, match="the WCS has no pixel scale: without CDELT"):
            prepare(image(wcs=wcs))
        wcs.wcs.cdelt = 0, 0
        with pytest.raises(ValueError, match="the WCS is broken: .* singular"):
            prepare(image(wcs=wcs))

    def test_masked_in_turn_until_nothing_is_left(self):
        given = image(mask=np.arange(480).reshape(SHAPE) % 2 == 0)
        given.uncertainty.array[given.mask == 0] = 0
        with pytest.raises(ValueError, match="no usable pixel"):
            prepare(given)

    @pytest.mark.parametrize(
        ("thing", "message"),
        [
            (np.ones(SHAPE), "got ndarray. Wrap an array: NDData"),
            ([image()], "got list. Give one image at a time"),
            ("cutout.fits", r"got str. Read the file first: lensdeblend.io.read_image"),
            (None, "got NoneType"),
        ],
    )
    def test_what_is_no_nddata(self, thing, message):
        with pytest.raises(TypeError, match=message):
            prepare(thing)


class TestPSF:
    def test_normalised_with_its_negative_wings(self):
        psf = gaussian((9, 7))
        psf[0, 0] = -1e-3
        ready = prepare(image(psf=(3 * psf).astype(">f4"))).psf
        assert ready.dtype == np.float64 and ready.dtype.isnative
        assert_allclose(ready, psf / psf.sum(), atol=1e-7)
        assert ready[0, 0] < 0 and ready.sum() == pytest.approx(1, abs=1e-14)

    @pytest.mark.parametrize(
        ("psf", "message"),
        [
            (np.full((5, 5), np.nan), "NaN or infinite"),
            (np.full((5, 5), np.inf), "NaN or infinite"),
            (np.zeros((5, 5)), "sums to 0"),
            (-gaussian((5, 5)), "the sum must be positive"),
            (gaussian((6, 5)), r"even size, \(6, 5\)"),
            (gaussian((6, 6)), "even size"),
            (np.ones((3, 5, 5)), "two-dimensional; got shape"),
            (np.ones(5), "two-dimensional; got shape"),
            ([[1, 2], [1]], "rows differ in length"),
            (np.ma.masked_equal(np.eye(5), 1), "has masked pixels"),
            (gaussian((11, 11), centre=(1, 1)), r"not centred: its peak is at x, y = \(1, 1\),"),
        ],
    )
    def test_refusals(self, psf, message):
        with pytest.raises(ValueError, match=message):
            prepare(image(psf=psf))

    @pytest.mark.parametrize("peak", [1e308, 1e-300])
    def test_of_any_unit(self, peak):
        given = gaussian((5, 5))
        assert_allclose(prepare(image(psf=given * peak / given.max())).psf, given / given.sum())

    def test_text_is_no_psf(self):
        with pytest.raises(TypeError, match="array of real numbers"):
            prepare(image(psf=np.full((3, 3), "a")))

    def test_one_pixel_off_is_shifted_back(self):
        with pytest.warns(ImageWarning, match=r"peak is at x, y = \(6, 4\), its central pixel at \(5, 5\)"):
            ready = prepare(image(psf=gaussian((11, 11), 1.5, centre=(4, 6)))).psf
        assert_allclose(ready, gaussian((11, 11), 1.5) / gaussian((11, 11), 1.5).sum(), atol=1e-9)

    @pytest.mark.parametrize("centre", [(5.3, 5), (4.8, 5.4)])
    def test_an_offset_below_half_a_pixel_stays(self, centre):
        psf = gaussian((11, 11), centre=centre)
        assert_allclose(prepare(image(psf=psf)).psf, psf / psf.sum())

    def test_a_ring_is_centred_though_its_peak_is_not(self):
        psf = gaussian((11, 11), 6) - 0.9 * gaussian((11, 11), 5)
        assert np.argmax(psf) != psf.size // 2
        assert_allclose(prepare(image(psf=psf)).psf, psf / psf.sum())


@pytest.mark.parametrize("unit", [u.ABmag, u.dex(u.Jy), u.mag])
def test_logarithmic_units_are_refused(unit):
    with pytest.raises(ValueError, match="logarithmic unit"):
        prepare(NDData(np.ones(SHAPE), unit=unit, meta={"PIXSCALE": 0.1}))


class TestBands:
    def test_each_band_keeps_its_own_grid_psf_and_unit(self):
        bands = {
            "g": image(psf=gaussian((5, 5))),
            "i": image(data=np.ones((16, 16)), unit="uJy", meta={"PIXSCALE": 0.2}, psf=gaussian((7, 7))),
        }
        ready = prepare(bands)
        assert list(ready) == ["g", "i"]
        assert ready["i"].unit == u.uJy and ready["i"].data.shape == (16, 16) and ready["i"].psf.shape == (7, 7)
        assert_allclose([pixel_scale(band).value for band in ready.values()], [0.1, 0.2])

    @pytest.mark.parametrize("other", ["electron / s", None])
    def test_units_that_do_not_convert(self, other):
        with pytest.raises(ValueError, match="'g' is in 'nJy', 'i' in"):
            prepare({"g": image(), "i": image(unit=other)})

    def test_the_bad_band_is_named(self):
        with pytest.raises(ValueError, match="the PSF of band 'i' has an even size"):
            prepare({"g": image(), "i": image(psf=np.ones((4, 4)))})

    def test_no_band(self):
        with pytest.raises(ValueError, match="mapping of bands is empty"):
            prepare({})

    def test_names_are_strings(self):
        with pytest.raises(TypeError, match="named by strings"):
            prepare({1: image()})


class TestPixelScale:
    @pytest.mark.parametrize("angle", [0, 33, 200])
    def test_of_a_wcs_at_any_angle(self, angle):
        scale = pixel_scale(image(wcs=celestial(0.168, angle=angle), meta={"PIXSCALE": 9}))
        assert scale.unit == u.arcsec
        assert_allclose(scale.value, 0.168, rtol=1e-12)

    @pytest.mark.parametrize("scale", [0.05, 0.05 * u.arcsec, 50 * u.mas, "0.05"])
    def test_of_meta(self, scale):
        assert_allclose(pixel_scale(image(meta={"PIXSCALE": scale})).to_value("arcsec"), 0.05)
        assert prepare(image(meta={"PIXSCALE": scale})).meta["PIXSCALE"] == pytest.approx(0.05)

    def test_given_by_keyword(self):
        assert prepare(image(meta={}), pixel_scale=0.2).meta["PIXSCALE"] == 0.2
        assert prepare(image(meta={}), pixel_scale=200 * u.mas).meta["PIXSCALE"] == pytest.approx(0.2)

    def test_keyword_against_wcs(self):
        with pytest.raises(ValueError, match="but pixel_scale says 0.2"):
            prepare(image(wcs=celestial(0.1)), pixel_scale=0.2)

    def test_a_wcs_without_sky_leaves_it_to_meta(self):
        ready = prepare(image(wcs=WCS(naxis=2)))
        assert ready.wcs is None and pixel_scale(ready) == 0.1 * u.arcsec

    def test_a_cube_s_wcs_gives_its_celestial_part(self):
        wcs = WCS(naxis=3)
        wcs.wcs.ctype = "RA---TAN", "DEC--TAN", "WAVE"
        wcs.wcs.cdelt = -1e-4, 1e-4, 1e-9
        ready = prepare(NDData(np.ones(SHAPE), uncertainty=StdDevUncertainty(1.0), wcs=wcs.celestial))
        assert pixel_scale(ready).value == pytest.approx(0.36)

    def test_sliced_wcs_of_any_kind_is_made_a_fits_wcs(self):
        whole = image(NDDataRef, wcs=celestial(angle=20))
        part = whole[4:20, 3:19]
        ready = prepare(part)
        assert isinstance(ready.wcs, WCS)
        assert ready.wcs.pixel_to_world(2, 5).separation(whole.wcs.pixel_to_world(5, 9)) < 1e-6 * u.arcsec


class TestCutout:
    @pytest.mark.parametrize("kind", [NDData, NDDataRef, CCDData])
    def test_everything_comes_along(self, kind, rng):
        given = image(
            kind, data=rng.normal(size=(40, 50)), uncertainty=VarianceUncertainty(rng.uniform(1, 2, (40, 50))),
            mask=rng.random((40, 50)) > 0.8, psf=gaussian((5, 5)), wcs=celestial(shape=(40, 50)),
            meta={"FILTER": "F814W"},
        )
        part = cutout(given, (20, 15), (11, 9))
        where = np.s_[10:21, 16:25]
        assert type(part) is kind
        assert_array_equal(part.data, given.data[where])
        assert_array_equal(part.mask, given.mask[where])
        assert type(part.uncertainty) is VarianceUncertainty
        assert_array_equal(part.uncertainty.array, given.uncertainty.array[where])
        assert_array_equal(part.psf, given.psf)
        assert part.unit == u.nJy and part.meta["FILTER"] == "F814W"
        assert part.wcs.pixel_to_world(0, 0).separation(given.wcs.pixel_to_world(16, 10)) < 1e-9 * u.arcsec

    def test_slicing_drops_the_psf_but_cutout_does_not(self):
        given = image(NDDataRef, psf=gaussian((5, 5)))
        assert given[2:12, 2:12].psf is None
        assert cutout(given, (7, 7), 10).psf is not None

    def test_it_is_a_copy(self):
        given = image()
        cutout(given, (10, 10), 9).data[:] = 0
        assert given.data.any()

    def test_sky_position_and_angular_size(self):
        given = image(wcs=celestial(0.1))
        part = cutout(given, given.wcs.pixel_to_world(9, 12), 0.9 * u.arcsec)
        assert_array_equal(part.data, given.data[8:17, 5:14])

    def test_angular_size_from_a_plain_pixel_scale(self):
        assert cutout(image(), (10, 12), [0.5, 0.9] * u.arcsec).data.shape == (5, 9)
        assert cutout(image(), (10, 12), [5, 9] * u.pixel).data.shape == (5, 9)

    def test_over_the_edge_is_masked(self):
        given = image(data=np.ones(SHAPE, dtype=np.int32), wcs=celestial())
        part = cutout(given, (0, 0), 9)
        assert part.data.shape == (9, 9)
        assert_array_equal(np.isnan(part.data), part.mask)
        assert_array_equal(np.isnan(part.uncertainty.array), part.mask)
        assert part.mask.sum() == 81 - 25 and not part.mask[4:, 4:].any()
        assert part.wcs.pixel_to_world(4, 4).separation(given.wcs.pixel_to_world(0, 0)) < 1e-9 * u.arcsec
        assert not prepare(part).mask[4:, 4:].any()

    def test_over_the_edge_trimmed_or_refused(self):
        assert cutout(image(), (0, 0), 9, mode="trim").data.shape == (5, 5)
        assert cutout(image(), (9, 9), 1e12, mode="trim").data.shape == SHAPE
        with pytest.raises(ValueError, match="[Oo]verlap"):
            cutout(image(), (0, 0), 9, mode="strict")

    def test_integers_inside_stay_integers(self):
        assert cutout(image(data=np.ones(SHAPE, dtype=np.uint16)), (10, 10), 5).data.dtype == np.uint16

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((np.ones(SHAPE), (1, 1), 5), TypeError, "got ndarray"),
            (({"g": image()}, (1, 1), 5), TypeError, "got dict. Give one band at a time"),
            ((NDData(np.ones(9)), (1, 1), 5), ValueError, "two-dimensional"),
            ((image(), (100, 100), 5), ValueError, "overlap"),
            ((image(), SkyCoord(1, 2, unit="deg"), 5), ValueError, "no celestial WCS"),
            ((image(meta={}), (9, 9), 1 * u.arcsec), ValueError, "a pixel scale is needed"),
            ((image(), (9, 9), 0), ValueError, "at least one whole pixel"),
            ((image(), (9, 9), 2.5), ValueError, "at least one whole pixel"),
            ((image(), (9, 9), 1e12), ValueError, r"1000000000000 by 1000000000000 pixels is too large.*24 by 20"),
            ((image(), (9, 9), (2, 10**9)), ValueError, "too large"),
            ((image(), (9, 9), np.inf), ValueError, "size must be finite"),
            ((image(), (9, 9), np.inf * u.arcsec), ValueError, "size must be finite"),
            ((image(), (9, 9), "all"), ValueError, "size must be pixels"),
            ((image(), (9, 9), (5, 5, 5)), ValueError, "size must be pixels"),
            ((image(), (9, 9), 3 * u.kg), ValueError, "size must be pixels"),
            ((image(), (9, 9, 9), 5), ValueError, "position must be"),
            ((image(), "centre", 5), ValueError, "position must be"),
            ((image(), (1, 2) * u.arcsec, 5), ValueError, "position must be"),
            ((image(), (np.nan, 2), 5), ValueError, "position must be finite"),
            ((image(wcs=celestial()), SkyCoord([1, 2], [1, 2], unit="deg"), 5), ValueError, "one position; got 2"),
        ],
    )
    def test_refusals(self, arguments, error, message):
        with pytest.raises(error, match=message):
            cutout(*arguments)


class TestGrids:
    @pytest.mark.parametrize("kind", [NDData, CCDData])
    def test_like_shares_pixels(self, kind):
        given = image(kind, psf=gaussian((5, 5)), wcs=celestial(), mask=np.ones(SHAPE, dtype=bool))
        model = like(given, np.ones(SHAPE), meta={"a": 1})
        assert type(model) is kind and model.mask is None and model.uncertainty is None
        assert model.unit == u.nJy and model.meta == {"PIXSCALE": 0.1, "a": 1}
        assert_array_equal(model.psf, given.psf)
        assert model.wcs.wcs.compare(given.wcs.wcs)
        assert like(given, np.ones(SHAPE), unit=None, psf=None).psf is None
        with pytest.raises(ValueError, match="not on the pixels"):
            like(given, np.ones((3, 3)))

    @pytest.mark.parametrize("angle", [0, 40])
    @pytest.mark.parametrize(("factor", "offset"), [(2, (0, 0)), (3, (0.4, -0.25)), (0.5, (0, 0.3))])
    def test_own_grid_lies_where_it_should(self, angle, factor, offset):
        given = image(wcs=celestial(0.1, angle=angle))
        shape = (31, 44)
        fine = on_grid(given, np.zeros(shape), pixel_scale=0.1 * u.arcsec / factor, offset=offset * u.arcsec)
        assert_allclose(pixel_scale(fine).value, 0.1 / factor, rtol=1e-12)
        assert fine.meta["PIXSCALE"] == pytest.approx(0.1 / factor)
        q = np.array([3.0, 17.0])
        centre = (np.array(SHAPE[::-1]) - 1) / 2
        p = centre + np.array(offset) / 0.1 + (q - (np.array(shape[::-1]) - 1) / 2) / factor
        assert fine.wcs.pixel_to_world(*q).separation(given.wcs.pixel_to_world(*p)) < 1e-9 * u.arcsec
        assert fine.wcs.array_shape == shape

    def test_own_grid_without_wcs(self):
        fine = on_grid(image(), np.zeros((48, 40)), pixel_scale=50 * u.mas, unit=None)
        assert fine.wcs is None and fine.unit is None and fine.psf is None
        assert pixel_scale(fine) == 0.05 * u.arcsec

    def test_own_grid_of_a_distorted_image(self):
        wcs = celestial(0.1)
        header = wcs.to_header()
        header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
        header.update({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-7, "B_0_2": 1e-7})
        given = image(wcs=WCS(header))
        fine = on_grid(given, np.zeros((48, 40)), pixel_scale=0.05 * u.arcsec)
        assert not fine.wcs.has_distortion
        assert fine.wcs.pixel_to_world(19.5, 23.5).separation(given.wcs.pixel_to_world(9.5, 11.5)) < 1e-4 * u.arcsec

    def test_recast(self):
        given = prepare(image(psf=gaussian((5, 5)), wcs=celestial()))
        back = recast(given, CCDData)
        assert type(back) is CCDData and back.unit == u.nJy
        assert_array_equal(back.psf, given.psf)
        assert_array_equal(back.uncertainty.array, given.uncertainty.array)
        assert recast(NDData(np.ones(SHAPE)), CCDData).unit == u.dimensionless_unscaled

    @pytest.mark.parametrize("angle", [0, 25, 250])
    def test_position_angle(self, angle):
        given = image(wcs=celestial(0.1, angle=angle))
        start, end = (given.wcs.pixel_to_world(9.5 + d, 11.5 + 2 * d) for d in (0, 1e-1))
        found = position_angle(given, np.arctan2(2, 1) * u.rad)
        assert_allclose(found.value, start.position_angle(end).to_value("deg"), atol=1e-3)
        with pytest.raises(ValueError, match="celestial WCS"):
            position_angle(image(), 0 * u.deg)


def test_real_images_pass_without_warning(shared_data):
    from lensdeblend.io import read_image

    folder = shared_data / "euclid_lens"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ready = prepare(read_image(folder / "data.fits", std=folder / "noise_map.fits", psf=folder / "psf.fits"))
    assert ready.data.shape == (300, 300) and ready.psf.sum() == pytest.approx(1)
    assert pixel_scale(ready) == 0.1 * u.arcsec
    assert not ready.mask.any()
