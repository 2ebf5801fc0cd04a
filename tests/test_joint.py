"""The joint fit of all galaxies of a blend."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData, StdDevUncertainty, VarianceUncertainty
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from scipy.signal import fftconvolve

from lensdeblend import deblend, simulate
from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.joint import Joint
from lensdeblend.deblenders.model_error import with_model_error
from lensdeblend.images import prepare
from lensdeblend.scenes import Galaxy, GaussianPSF, Observation, Scene, Sersic

SCALE = 0.2
CENTRE = 23.5


def galaxy(x, y, flux, radius=0.4, bulge=0.0, e1=0.0, e2=0.0):
    """At pixel (x, y) of a frame of 48 pixels."""
    place = dict(center_x=(x - CENTRE) * SCALE * u.arcsec, center_y=(y - CENTRE) * SCALE * u.arcsec, e1=e1, e2=e2)
    parts = [Sersic((1 - bulge) * flux, radius * u.arcsec, 1.0, **place)]
    if bulge:
        parts.append(Sersic(bulge * flux, 0.4 * radius * u.arcsec, 4.0, **place))
    return Galaxy(tuple(parts))


GALAXIES = [
    galaxy(20.3, 22.1, 400.0, e1=0.2), galaxy(26.4, 24.8, 250.0, 0.3, 0.4, e2=-0.15), galaxy(24.1, 30.7, 120.0, 0.3),
]
POSITIONS = np.array([[20.3, 22.1], [26.4, 24.8], [24.1, 30.7]])
FLUXES = np.array([400.0, 250.0, 120.0])


def observation(fwhm=0.7, noise=0.5):
    return Observation(SCALE * u.arcsec, (48, 48), GaussianPSF(fwhm * u.arcsec), background_rms=noise)


def simulated(galaxies=GALAXIES, seed=1, **conditions):
    return simulate(Scene(sources=galaxies), observation(**conditions), method="galsim", seed=seed)


@pytest.fixture(scope="module")
def truth():
    return simulated()


@pytest.fixture(scope="module")
def found(truth):
    return deblend(truth.image, positions=POSITIONS, seed=1)


def brighter(galaxies, factors):
    return [
        replace(one, components=tuple(replace(part, flux=part.flux * factor) for part in one.components))
        for one, factor in zip(galaxies, factors)
    ]


def test_finds_fluxes_and_shapes_within_its_errors(found):
    table = found.catalog
    flux, error = table["flux"].value, table["flux_err"].value
    assert (np.abs(flux - FLUXES) < 4 * error).all() and (error < 0.2 * FLUXES).all()
    assert (np.abs(table["e1"] - [0.2, 0.0, 0.0]) < 4 * table["e1_err"]).all()
    assert (np.abs(table["e2"] - [0.0, -0.15, 0.0]) < 4 * table["e2_err"]).all()
    assert np.hypot(*(np.stack([table["x"], table["y"]], 1) - POSITIONS).T).max() < 0.3
    assert abs(found.chi2 - 1) < 4 * np.sqrt(2 / found.meta["degrees_of_freedom"])
    assert found.meta["flags"] == () and set(table["flags"]) == {""}


def test_each_galaxy_looks_like_itself(truth, found):
    for number, (model, true) in enumerate(zip(found.sources, truth.sources)):
        assert np.abs(model.data - true.data).max() < 0.15 * true.data.max(), number


def test_parts_sum_to_the_whole(truth, found):
    np.testing.assert_allclose(sum(s.data for s in found.sources), found.model.data, atol=1e-6)
    np.testing.assert_allclose(sum(s.data for s in found.shares), truth.image.data, rtol=1e-9)
    residual = (truth.image.data - found.model.data) / np.sqrt(prepare(truth.image).uncertainty.array)
    np.testing.assert_allclose(found.residual.data, residual, atol=1e-4)


def test_radius_is_that_of_half_the_light(found):
    np.testing.assert_allclose(found.catalog["radius"][[0, 2]].to_value(u.arcsec), [0.4, 0.3], rtol=0.2)


def test_blendedness_is_that_of_the_truth(truth, found):
    from lensdeblend.deblenders.catalog import blendedness

    exact = blendedness(np.stack([source.data for source in truth.sources]))
    np.testing.assert_allclose(found.catalog["blendedness"], exact, atol=0.08)
    assert blendedness(np.stack([truth.sources[0].data]))[0] == 0


def test_turned_images_give_turned_galaxies(truth, found):
    image = prepare(truth.image)
    turned = NDData(
        np.rot90(image.data).copy(), uncertainty=VarianceUncertainty(np.rot90(image.uncertainty.array).copy()),
        unit=image.unit, psf=np.rot90(image.psf).copy(), meta=image.meta,
    )
    there = np.stack([POSITIONS[:, 1], 47 - POSITIONS[:, 0]], 1)
    again = deblend(turned, positions=there, seed=1).catalog
    np.testing.assert_allclose(again["flux"].value, found.catalog["flux"].value, rtol=0.01)
    np.testing.assert_allclose(again["e1"], -found.catalog["e1"], atol=0.01)
    np.testing.assert_allclose(again["e2"], -found.catalog["e2"], atol=0.01)


def test_units_do_not_matter(truth, found):
    image = prepare(truth.image)
    faint = NDData(
        1e-20 * image.data, uncertainty=VarianceUncertainty(1e-40 * image.uncertainty.array), unit="W",
        psf=image.psf, meta=image.meta,
    )
    again = deblend(faint, positions=POSITIONS, seed=1).catalog
    assert again["flux"].unit == u.W
    np.testing.assert_allclose(again["flux"].value, 1e-20 * found.catalog["flux"].value, rtol=1e-3)


COLOURS = np.array([[1.0, 0.5], [1.0, 2.0], [1.0, 1.5]])


@pytest.fixture(scope="module")
def images():
    sharp = simulated(seed=2).image
    wide = simulated(brighter(GALAXIES, COLOURS[:, 1]), seed=3, fwhm=1.0, noise=0.8).image
    return {"g": sharp, "r": wide}


@pytest.fixture(scope="module")
def both(images):
    return deblend(images, positions=POSITIONS, seed=1)


class TestBands:
    def test_fluxes_are_a_column_a_band(self, both):
        for number, name in enumerate("gr"):
            error = both.catalog[f"flux_err_{name}"].value
            off = both.catalog[f"flux_{name}"].value - FLUXES * COLOURS[:, number]
            assert (np.abs(off) < 4 * error).all(), name
        assert set(both.sources[0]) == set(both.model) == set(both.residual) == {"g", "r"}

    def test_two_bands_know_shapes_better_than_one(self, images, both):
        alone = deblend(images["g"], positions=POSITIONS, seed=1)
        assert (both.catalog["e1_err"] < alone.catalog["e1_err"]).all()

    def test_one_band_by_name_is_the_image_alone(self, truth, found):
        named = deblend({"g": truth.image}, positions=POSITIONS, seed=1)
        np.testing.assert_array_equal(named.catalog["flux_g"].value, found.catalog["flux"].value)
        np.testing.assert_array_equal(named.model["g"].data, found.model.data)

    def test_bands_on_their_own_pixels(self):
        def seen(scale, size, seed):
            wcs = WCS(naxis=2)
            wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
            wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [(size + 1) / 2] * 2
            wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
            exposure = Observation(
                scale * u.arcsec, (size, size), GaussianPSF(0.7 * u.arcsec), background_rms=0.5 * (scale / SCALE) ** 2
            )
            image = simulate(Scene(sources=GALAXIES), exposure, method="galsim", seed=seed).image
            return NDData(image.data, uncertainty=image.uncertainty, unit=image.unit, psf=image.psf, wcs=wcs)

        images = {"fine": seen(SCALE, 48, 5), "coarse": seen(0.3, 32, 6)}
        table = deblend(images, positions=POSITIONS, seed=1).catalog
        for name in images:
            assert (np.abs(table[f"flux_{name}"].value - FLUXES) < 4 * table[f"flux_err_{name}"].value).all()
        sky = images["fine"].wcs.pixel_to_world(table["x"], table["y"])
        assert (table["sky"].separation(sky) < 1e-6 * u.arcsec).all()

    def test_nan_in_one_band_only(self, images):
        whole = prepare(images["g"])
        data = whole.data.copy()
        data[20:26, 18:22] = np.nan
        holed = NDData(data, uncertainty=whole.uncertainty, unit=whole.unit, psf=whole.psf, meta=whole.meta)
        table = deblend({"g": holed, "r": images["r"]}, positions=POSITIONS, seed=1).catalog
        assert (np.abs(table["flux_g"].value - FLUXES) < 4 * table["flux_err_g"].value).all()

    def test_another_part_of_the_sky(self, images):
        def placed(image, ra):
            wcs = WCS(naxis=2)
            wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [ra, 2.0]
            wcs.wcs.crpix, wcs.wcs.cdelt = [24, 24], [-SCALE / 3600, SCALE / 3600]
            return prepare(NDData(image.data, uncertainty=image.uncertainty, psf=image.psf, wcs=wcs))

        with pytest.raises(ValueError, match="'r' shows another part of the sky"):
            Blend.of({"g": placed(images["g"], 150.0), "r": placed(images["r"], 150.1)})


class TestDetection:
    def test_finds_what_is_there(self, truth):
        table = deblend(truth.image, seed=1).catalog
        assert len(table) == 3
        apart = np.hypot(*(np.stack([table["x"], table["y"]], 1)[:, None] - POSITIONS).transpose(2, 0, 1))
        assert (apart.min(0) < 1).all()

    def test_a_galaxy_in_the_wing_of_another_is_added(self):
        pair = [galaxy(22.0, 24.0, 800.0), galaxy(25.2, 24.0, 150.0, 0.15)]
        image = simulated(pair, fwhm=0.5, noise=0.3).image
        coarse = deblend(image, method=Joint(new_galaxies=0), seed=1)
        full = deblend(image, seed=1)
        assert len(coarse.catalog) == 1 and len(full.catalog) == 2
        assert full.chi2 < coarse.chi2

    @pytest.mark.parametrize("options, found", [({}, 2), ({"new_significance": 60.0}, 1)])
    def test_a_galaxy_that_is_added_must_be_significant(self, options, found):
        pair = [galaxy(22.0, 24.0, 800.0), galaxy(25.2, 24.0, 150.0, 0.15)]
        image = simulated(pair, fwhm=0.5, noise=0.3).image
        assert len(deblend(image, method=Joint(**options), seed=1).catalog) == found

    @pytest.mark.parametrize("strict", [False, True])
    def test_strict_counts_departures_as_noise(self, monkeypatch, strict):
        asked = []

        def nothing(*args, structured):
            asked.append(structured)
            return 0.0

        monkeypatch.setattr("lensdeblend.deblenders.joint.worth", nothing)
        pair = [galaxy(22.0, 24.0, 800.0), galaxy(25.2, 24.0, 150.0, 0.15)]
        image = simulated(pair, fwhm=0.5, noise=0.3).image
        assert len(deblend(image, method=Joint(strict=strict), seed=1).catalog) == 1
        assert asked == [strict]

    def test_noise_is_no_galaxy(self):
        image = NDData(
            np.random.default_rng(1).normal(size=(40, 40)), uncertainty=StdDevUncertainty(np.ones((40, 40))),
            psf=np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]), meta={"PIXSCALE": 0.2},
        )
        with pytest.warns(AstropyUserWarning, match="no galaxy was found"):
            result = deblend(image, seed=1)
        assert len(result.catalog) == 0 and result.sources == [] and "nothing found" in result.meta["flags"]
        assert abs(result.chi2 - 1) < 0.2

    def test_an_empty_result_is_written_and_read(self, tmp_path):
        image = NDData(
            np.zeros((32, 32)), uncertainty=StdDevUncertainty(np.ones((32, 32))), meta={"PIXSCALE": 0.2}
        )
        with pytest.warns(AstropyUserWarning, match="no galaxy was found"):
            result = deblend(image, seed=1)
        result.write(tmp_path / "empty.fits")
        assert len(type(result).read(tmp_path / "empty.fits").catalog) == 0

    def test_a_segmentation_says_how_many(self, truth):
        labels = np.zeros((48, 48), int)
        labels[18:26, 16:24], labels[22:28, 24:30] = 7, 3
        result = deblend(truth.image, segmentation=labels, seed=1)
        assert len(result.catalog) == 2 and set(np.unique(result.segmentation.data)) == {0, 1, 2}

    def test_the_sky_is_taken_off_where_there_is_some(self, truth):
        image = prepare(truth.image)
        lifted = NDData(
            image.data + 2.0, uncertainty=image.uncertainty, unit=image.unit, psf=image.psf, meta=image.meta
        )
        result = deblend(lifted, positions=POSITIONS, seed=1)
        assert result.meta["background"] == pytest.approx(2.0, abs=0.15)
        assert (np.abs(result.catalog["flux"].value - FLUXES) < 5 * result.catalog["flux_err"].value).all()


class TestHardInput:
    def test_a_galaxy_at_the_edge_and_one_off_the_image(self, truth):
        result = deblend(truth.image, positions=[(0.0, 20.0), (60.0, 60.0), *POSITIONS], seed=1)
        assert "at the edge" in result.catalog["flags"][0]
        assert "off the image" in result.catalog["flags"][1]
        assert (np.abs(result.catalog["flux"].value[2:] - FLUXES) < 5 * result.catalog["flux_err"].value[2:]).all()

    def test_everything_masked(self):
        ones = np.ones((32, 32))
        image = NDData(ones, uncertainty=StdDevUncertainty(ones), mask=ones.astype(bool))
        with pytest.raises(ValueError, match="mask"):
            deblend(image, positions=[(3, 3)], seed=1)

    def test_many_galaxies(self):
        rng = np.random.default_rng(3)
        places = rng.uniform(4, 44, (30, 2))
        image = simulated([galaxy(x, y, 60.0, 0.2) for x, y in places]).image
        result = deblend(image, positions=places, method=Joint(components="disc", select=False), seed=1)
        assert len(result.catalog) == 30 and np.isfinite(result.catalog["flux_err"].value).all()
        assert abs(result.catalog["flux"].value.sum() / 1800 - 1) < 0.05

    @pytest.mark.parametrize("options, complaint", [
        ({"components": "discs"}, "components"), ({"new_galaxies": -1}, "new_galaxies"),
        ({"new_significance": "high"}, "new_significance"), ({"strict": "yes"}, "strict"),
        ({"model_error": -0.1}, "model_error"), ({"model_error": 1}, "model_error"),
        ({"model_error": "no"}, "model_error"),
        ({"threshold": 0}, "threshold"),
        ({"background": "some"}, "background"), ({"position_prior": 0}, "position_prior"),
        ({"ellipticity_prior": -1}, "ellipticity_prior"), ({"radius_prior": (1, 0)}, "radius_prior"),
        ({"select": 1}, "select"), ({"device": 3}, "device"),
    ])
    def test_bad_options(self, options, complaint):
        with pytest.raises(ValueError, match=complaint):
            Joint(**options)


class TestModelError:
    def test_is_noise_in_proportion_to_the_light_above_the_sky(self):
        y, x = np.mgrid[:48, :48]
        light = 200 * np.exp(-((x - 20) ** 2 + (y - 22) ** 2) / (2 * 4.0**2))
        mask = np.zeros(light.shape, bool)
        mask[22, 20] = True
        image = NDData(
            light + 30, uncertainty=VarianceUncertainty(np.full(light.shape, 4.0)), mask=mask, meta={"PIXSCALE": SCALE}
        )
        blend = Blend.of(prepare(image))
        assert with_model_error(blend, [30.0], 0.0) is blend
        sigma = with_model_error(blend, [30.0], 0.1).first.sigma
        assert sigma[2, 45] == pytest.approx(2, abs=0.01) and sigma[22, 20] == blend.first.sigma[22, 20] == 1
        # Smoothed over a pixel, a Gaussian of 4 pixels is 1/17 fainter in its middle; the hole takes a little more.
        assert sigma[18, 20] == pytest.approx(np.hypot(2, 0.1 * light[18, 20]), rel=0.06)

    def test_bright_galaxies_are_less_certain_faint_ones_hardly(self):
        galaxies = [galaxy(14.0, 15.0, 8000.0), galaxy(33.0, 33.0, 60.0)]
        seen = simulated(galaxies).image
        places = np.array([[14.0, 15.0], [33.0, 33.0]])
        sure, doubtful = (
            deblend(seen, positions=places, method=Joint(model_error=error, structure="none"), seed=1)
            for error in (0.0, 0.1)
        )
        for name in ("x_err", "e1_err", "flux_err"):
            ratio = np.asarray(doubtful.catalog[name] / sure.catalog[name], float)
            assert ratio[0] > 2 and ratio[1] == pytest.approx(1, abs=0.1), name
        # They are galaxies as the model has them: chi-square is of the pixels' noise.
        assert doubtful.chi2 == pytest.approx(sure.chi2, abs=0.02)

    def test_a_galaxy_that_is_no_bulge_and_disc_is_told_with_honest_errors(self):
        """Arms of a third of the light shift centre and ellipticity by many times their errors by noise alone."""
        y, x = np.mgrid[:48, :48]
        dx, dy = x - 22.0, y - 24.0
        r, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
        kernel = GaussianPSF(0.6 * u.arcsec).kernel(SCALE * u.arcsec)
        pulls = {0.0: [], 0.1: []}
        for number in range(6):
            arms = 0.35 * np.cos(2 * angle - 0.5 * r + number) * (1 - np.exp(-r / 3))
            light = fftconvolve(300 * np.exp(-r / 4) * (1 + arms), kernel, mode="same")
            data = light + np.random.default_rng(number).normal(size=light.shape)
            image = NDData(
                data, uncertainty=VarianceUncertainty(np.ones(data.shape)), psf=kernel, meta={"PIXSCALE": SCALE}
            )
            for error, own in pulls.items():
                row = deblend(image, positions=[(22.0, 24.0)], method=Joint(model_error=error), seed=1).catalog[0]
                own += [(row["x"] - 22.0) / row["x_err"], (row["y"] - 24.0) / row["y_err"]]
        by_noise, with_error = (float(np.sqrt(np.mean(np.square(own)))) for own in pulls.values())
        assert with_error < 0.5 * by_noise


def test_a_batch_gives_what_each_blend_gives_alone():
    """Three of one kind, one of them with another PSF, and one with fewer galaxies."""
    images = [
        prepare(simulated(GALAXIES[:count], seed=seed, fwhm=fwhm).image)
        for seed, (count, fwhm) in enumerate([(3, 0.7), (2, 0.7), (3, 0.7), (3, 0.8)])
    ]
    places, rng = [POSITIONS, POSITIONS[:2], POSITIONS, POSITIONS], np.random.default_rng(1)
    together = Joint().deblend_batch(images, None, places, rng)
    for image, where, one in zip(images, places, together):
        alone = Joint().deblend(image, None, where, rng)
        for name in ("flux", "x", "e1"):
            off = (one.catalog[name] - alone.catalog[name]) / alone.catalog[f"{name}_err"]
            assert np.abs(off).max() < 0.1, name
        assert one.chi2 == pytest.approx(alone.chi2, abs=1e-4)


def test_a_star_is_a_point_and_a_galaxy_is_not():
    star = Sersic(400.0, 0.004 * u.arcsec, 0.5, center_x=-0.5 * u.arcsec)
    scene = Scene(sources=[Galaxy((star,)), galaxy(28.5, 23.5, 300.0, 0.5)])
    image = simulate(scene, observation(), method="galsim", seed=1).image
    rows = deblend(image, positions=[(21.0, 23.5), (28.5, 23.5)], seed=1).catalog
    assert rows["radius"][0] == 0 and np.isnan(rows["e1_err"][0]) and rows["e1"][0] == 0
    assert rows["radius"][1] > 0.3 * u.arcsec and np.isfinite(rows["e1_err"][1])
    np.testing.assert_allclose(rows["flux"].value, [400.0, 300.0], atol=4 * rows["flux_err"].value.max())


def test_a_neighbour_that_a_galaxy_has_swallowed_is_found():
    """Closer than the PSF is wide: one galaxy leaves no peak in the residual."""
    scene = Scene(sources=[galaxy(22.5, 23.5, 800.0, 0.3), galaxy(25.2, 23.5, 500.0, 0.3)])
    image = simulate(scene, observation(), method="galsim", seed=1).image
    assert len(deblend(image, method=Joint(new_galaxies=0), seed=1).catalog) == 1
    rows = deblend(image, seed=1).catalog
    assert len(rows) == 2
    rows.sort("x")
    np.testing.assert_allclose(rows["x"], [22.5, 25.2], atol=0.2)
    assert np.all(np.abs(rows["flux"].value - [800.0, 500.0]) < 4 * rows["flux_err"].value)


def test_no_galaxy_is_more_elliptical_than_can_be_drawn():
    """An image that no ellipse fits: a streak of stars along the diagonal."""
    stars = [
        Galaxy((Sersic(200.0, 0.004 * u.arcsec, 0.5, center_x=k * u.arcsec, center_y=k * u.arcsec),))
        for k in np.linspace(-1.5, 1.5, 9)
    ]
    image = simulate(Scene(sources=stars), observation(), method="galsim", seed=1).image
    row, = deblend(image, positions=[(23.5, 23.5)], seed=1).catalog
    assert np.hypot(row["e1"], row["e2"]) <= 0.851
    assert row["flux_err"].value > 0.1 and row["e2_err"] > 1e-4
    assert "at a bound: ellipticity" in row["flags"]
