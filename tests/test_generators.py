"""Galaxies made to order: by Sérsic profiles and from real ones; and the population that gives what is not wished."""

import astropy.units as u
import galsim
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from scipy.stats import ks_2samp

from lensdeblend import generate, testing
from lensdeblend.generators.cosmos import Cosmos
from lensdeblend.generators.population import COSMOS, PROPERTIES, fitted_properties
from lensdeblend.generators.procedural import Procedural
from lensdeblend.generators.sersic import Sersic
from lensdeblend.generators.vae_flow import VaeFlow
from lensdeblend.generators.wishes import known_properties
from lensdeblend.images import pixel_scale
from lensdeblend.results import Generation
from lensdeblend.scenes import GaussianPSF

ARC = u.arcsec
WISHES = {"flux": [50.0, 80.0], "radius": [0.2, 0.35] * ARC, "e1": [0.3, -0.1], "e2": [0.1, 0.4], "n": [1.0, 2.5]}
PUBLISHED = "cosmos_galaxies/real_galaxy_catalog_23.5_example_fits.fits"


def rng(seed=1):
    return np.random.default_rng(seed)


def properties(drawn):
    return {**drawn, "ellipticity": np.hypot(drawn["e1"], drawn["e2"])}


class TestPopulation:
    def test_marginals_and_correlations_are_those_of_the_published_fits(self, shared_data):
        published = fitted_properties(shared_data / PUBLISHED)
        drawn = properties(COSMOS.draw(4000, {}, rng()))
        for name in PROPERTIES:
            # A hundred galaxies drawn from one distribution lie farther apart than this in one of twenty cases.
            assert ks_2samp(published[name], drawn[name]).statistic < 0.135, name
            assert np.mean(drawn[name]) == pytest.approx(np.mean(published[name]), abs=0.1 * np.std(published[name]))
            assert np.std(drawn[name]) == pytest.approx(np.std(published[name]), rel=0.15)
        ours, theirs = (np.corrcoef([one[name] for name in PROPERTIES]) for one in (drawn, published))
        assert np.abs(ours - theirs).max() < 0.2

    def test_position_angles_are_isotropic(self):
        drawn = COSMOS.draw(4000, {}, rng())
        assert abs(np.mean(drawn["e1"])) < 0.02 and abs(np.mean(drawn["e2"])) < 0.02
        assert np.std(drawn["e1"]) == pytest.approx(np.std(drawn["e2"]), rel=0.05)

    @pytest.mark.parametrize("given", [{"magnitude"}, {"log_radius", "e1"}, {"log_n", "e1", "e2"}, {"e2"}])
    def test_what_is_drawn_given_a_draw_has_the_joint_distribution(self, given):
        first = COSMOS.draw(3000, {}, rng(1))
        second = COSMOS.draw(3000, {name: first[name] for name in given}, rng(2))
        for name in first:
            assert name not in given or np.array_equal(first[name], second[name])
        first, second = ([properties(one)[name] for name in (*PROPERTIES, "e1", "e2")] for one in (first, second))
        for one, other in zip(first, second):
            assert ks_2samp(one, other).pvalue > 1e-3
        assert np.abs(np.corrcoef(first) - np.corrcoef(second)).max() < 0.08

    def test_a_galaxy_does_not_depend_on_how_many_there_are(self):
        few, many = COSMOS.draw(2, {}, rng()), COSMOS.draw(9, {}, rng())
        for name in few:
            np.testing.assert_array_equal(few[name], many[name][:2])

    def test_an_ellipticity_that_no_galaxy_has_is_granted_and_told(self):
        known = {"e1": np.array([0.1, 0.8])}
        assert COSMOS.outside(known).tolist() == [False, True]
        assert COSMOS.draw(2, known, rng())["e2"][1] == 0

    def test_the_lowest_index_can_be_drawn(self):
        lowest = np.exp(COSMOS.values("log_n", np.array([-9.0])))
        made = generate(conditions={"n": lowest, "radius": 0.2 * ARC}, method=Sersic(measure=False, pixels=32), seed=1)
        assert made.catalog["n"][0] == pytest.approx(0.3)

    def test_missing_columns_are_named(self):
        with pytest.raises(ValueError, match="lacks the column hlr, viable_sersic"):
            fitted_properties(Table({"sersicfit": [[1.0]], "flux": [[1.0]]}))


class TestSersic:
    @pytest.mark.parametrize("psf", [None, GaussianPSF(0.1 * ARC)])
    def test_galaxies_are_as_wished(self, psf):
        made = generate(2, conditions=WISHES, method=Sersic(psf=psf), seed=1).catalog
        for name, close in (("flux", 0.05), ("radius", 0.02), ("n", 0.03)):
            wished = u.Quantity(WISHES[name]).value
            np.testing.assert_allclose(u.Quantity(made[name]).value, wished)
            np.testing.assert_allclose(u.Quantity(made[f"{name}_measured"]).value, wished, rtol=close)
        for name in ("e1", "e2"):
            np.testing.assert_allclose(made[f"{name}_measured"], WISHES[name], atol=0.005)
        assert list(made["flags"]) == ["", ""]

    def test_an_independent_measure_agrees(self):
        # On pixels fine enough that they make the cusps no rounder.
        made = generate(2, conditions=WISHES, method=Sersic(pixel_scale=0.015, pixels=256, measure=False), seed=1)
        assert "n_measured" not in made.catalog.colnames
        for i, image in enumerate(made.images):
            pixels = galsim.Image(image.data, scale=0.015)
            shape = galsim.hsm.FindAdaptiveMom(pixels).observed_shape
            assert (shape.g1, shape.g2) == pytest.approx((WISHES["e1"][i], WISHES["e2"][i]), abs=0.005)
        # A disc's half-light radius, round and without PSF, by the light within it.
        wish = {"flux": 100, "radius": 0.2 * ARC, "e1": 0, "e2": 0, "n": 1}
        disc = generate(conditions=wish, method="sersic", seed=1)
        y, x = np.indices((128, 128)) - 63.5
        assert disc.images[0].data[np.hypot(x, y) < 0.2 / 0.03].sum() == pytest.approx(50, abs=1.5)

    def test_a_magnitude_is_a_flux(self):
        wish = {"magnitude": [20.94, 18.44], "radius": 0.2 * ARC, "n": 1}
        assert generate(2, conditions=wish, method="sersic", seed=1).catalog["flux"].value == pytest.approx([100, 1000])
        jansky = {"flux": (25.94 * u.ABmag).to(u.nJy)}
        assert known_properties(1, jansky, zero_point=25.94)["magnitude"] == pytest.approx(25.94)

    def test_the_seed_makes_the_galaxy(self):
        method = Sersic(measure=False, pixels=32)
        few, many = method.generate(1, None, rng()), method.generate(3, None, rng())
        np.testing.assert_array_equal(few.images[0].data, many.images[0].data)

    def test_what_is_unlike_the_wish_is_flagged(self):
        wishes = {"magnitude": [20, 25, 20], "radius": [0.3, 0.3, 2] * ARC, "n": 1, "e1": 0, "e2": 0.1}
        with pytest.warns(AstropyUserWarning, match="wishes for 1 of 3 galaxies are beyond the population"):
            made = generate(3, conditions=wishes, method=Sersic(measure=False), seed=1).catalog
        assert list(made["flags"]) == ["", "outside_population", "stamp_too_small"]
        assert made["flux_measured"][2] < 0.9 * made["flux"][2]
        again = generate(3, conditions=wishes, method=Sersic(measure=False, outside="flag"), seed=1).catalog
        assert list(again["flags"]) == list(made["flags"])
        with pytest.raises(ValueError, match="beyond the population"):
            generate(3, conditions=wishes, method=Sersic(outside="error"), seed=1)


@pytest.mark.parametrize("wishes, error, complaint", [
    ({"fluxx": 1}, ValueError, "unknown condition 'fluxx'; did you mean 'flux'"),
    ({"g-r": 0.5}, ValueError, "colours need a generator of several bands"),
    ({"flux": 1, "magnitude": 20}, ValueError, "both flux and magnitude"),
    ({"e1": 0.8, "e2": [0.1, 0.8]}, ValueError, r"modulus \(1-q\)/\(1\+q\) below 1; got 1.13"),
    ({"flux": [1, 0]}, ValueError, "'flux' must be positive; got 0"),
    ({"radius": -0.1 * ARC}, ValueError, "'radius' must be positive"),
    ({"radius": 0.1}, TypeError, "an angle with a unit"),
    ({"n": [1, 2, 3]}, ValueError, r"shape \(3,\); one value or 2"),
    ({"n": 9}, ValueError, "no Sérsic profile of index 9"),
    ({"n": np.nan}, ValueError, "'n' must be finite"),
    ({"n": "round"}, TypeError, "could not convert"),
    ({"flux": 1 * u.m}, TypeError, "not convertible"),
])
def test_wishes_that_cannot_be_granted_are_refused(wishes, error, complaint):
    with pytest.raises(error, match=complaint):
        Sersic(pixels=16, measure=False, outside="flag").generate(2, wishes, rng())


@pytest.mark.parametrize("n", [0, -1, 1.5])
def test_a_bad_number_is_refused(n):
    with pytest.raises(ValueError, match="n must be a whole number of at least 1"):
        Sersic().generate(n, None, rng())


@pytest.mark.parametrize("options, complaint", [
    ({"pixels": 4}, "pixels must be"),
    ({"pixel_scale": -1}, "pixel_scale must be one positive angle"),
    ({"psf": np.ones((4, 4))}, "odd"),
    ({"psf": GaussianPSF(2 * ARC)}, "the PSF has .* pixels a side and the stamp 128"),
])
def test_bad_options_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        Sersic(**options)


class TestVaeFlow:
    @pytest.mark.parametrize("options", [{}, {"bands": ("g", "r", "i"), "psf": GaussianPSF(0.15 * ARC)}])
    def test_the_contract(self, options):
        wishes = {"magnitude": 21, "radius": 0.3 * ARC}
        testing.check_generator(VaeFlow(pixels=48, pixel_scale=0.06, measure=False, **options), conditions=wishes)

    @pytest.mark.parametrize("weights, radius, index", [("galaxies", 0.05, 0.08), ("galaxies-map", 0.08, 0.16)])
    def test_galaxies_are_as_wished(self, weights, radius, index):
        """Though none of them is a Sérsic profile; which one fits a galaxy with arms is less sure."""
        wishes = COSMOS.draw(24, {"log_radius": np.linspace(-1.6, -0.9, 24)}, rng(4))
        wishes = {
            "magnitude": wishes["magnitude"], "radius": np.exp(wishes["log_radius"]) * ARC,
            "n": np.exp(wishes["log_n"]), "e1": wishes["e1"], "e2": wishes["e2"],
        }
        options = {"pixels": 96, "pixel_scale": 0.05, "psf": GaussianPSF(0.14 * ARC)}
        made = generate(24, conditions=wishes, method=VaeFlow(weights=weights, **options), seed=2)
        table = made.catalog
        for name, close in (("radius", radius), ("n", index), ("e1", 0.02), ("e2", 0.02)):
            wished, found = (u.Quantity(table[column]).value for column in (name, f"{name}_measured"))
            off = found - wished if name in ("e1", "e2") else found / wished - 1
            assert np.isfinite(off).sum() >= 22
            assert np.sqrt(np.nanmean(off**2)) < close, name
            assert np.nanmedian(np.abs(off)) < 0.05, name
        whole = table["flags"] == ""
        held = (table["flux_measured"] / table["flux"]).value[whole]
        assert whole.sum() > 15 and np.all(held < 1.01) and np.median(held) > 0.95
        profiles = generate(24, conditions=wishes, method=Sersic(measure=False, **options), seed=2)
        off = [
            np.abs(one.data - other.data).sum() / other.data.sum()
            for one, other in zip(made.images, profiles.images)
        ]
        assert np.median(off) > 0.05

    def test_colours_are_as_wished(self):
        method = VaeFlow(pixels=96, pixel_scale=0.06, bands=("r", "g", "i"), measure=False)
        wishes = {"magnitude": 20, "radius": 0.2 * ARC, "n": 1, "g-r": [0.3, 0.9], "r-i": 0.2}
        made = generate(2, conditions=wishes, method=method, seed=1)
        assert list(made.images[0]) == ["r", "g", "i"] and made.meta["measured_in"] == "i"
        for k, image in enumerate(made.images):
            g, r, i = (image[band].data.sum() for band in "gri")
            assert -2.5 * np.log10([g / r, r / i]) == pytest.approx([wishes["g-r"][k], 0.2], abs=0.02)
            assert made.catalog["flux_i"][k].value == pytest.approx(10 ** (-0.4 * (20 - 25.94)))
        # Colours differ within a galaxy.
        ratio = made.images[0]["g"].data[40:56, 40:56] / made.images[0]["i"].data[40:56, 40:56]
        assert ratio.std() > 0.02 * ratio.mean()

    def test_what_is_not_wished_is_drawn(self):
        method = VaeFlow(pixels=16, bands=("g", "r", "i"), measure=False)
        colours = generate(200, method=method, seed=3).catalog["g-r"].value
        assert 0.1 < np.std(colours) < 0.5 and 0 < np.mean(colours) < 0.6

    def test_the_seed_makes_the_galaxy(self):
        method = VaeFlow(measure=False, pixels=32)
        few, many = method.generate(1, None, rng()), method.generate(3, None, rng())
        np.testing.assert_allclose(few.images[0].data, many.images[0].data, rtol=1e-4)

    def test_a_psf_keeps_the_flux(self):
        wishes = {"flux": 100, "radius": 0.2 * ARC, "n": 1}
        kwargs = {"pixels": 96, "pixel_scale": 0.05, "measure": False}
        sharp, blurred = (
            generate(conditions=wishes, method=VaeFlow(psf=psf, **kwargs), seed=1).images[0]
            for psf in (None, GaussianPSF(0.2 * ARC))
        )
        assert blurred.data.sum() == pytest.approx(sharp.data.sum(), rel=5e-3)
        assert blurred.data.max() < sharp.data.max() and blurred.psf is not None and sharp.psf is None

    def test_what_the_network_does_not_know_is_flagged(self):
        wishes = {"magnitude": 20, "radius": [0.2, 0.5] * ARC, "n": 1, "g-r": [0.3, 5.0]}
        method = VaeFlow(bands=("g", "r", "i"), measure=False)
        with pytest.warns(AstropyUserWarning, match="wishes for 1 of 2 galaxies are beyond the population"):
            flags = generate(2, conditions=wishes, method=method, seed=1).catalog["flags"]
        assert list(flags) == ["", "outside_population,finer_than_learned"]

    @pytest.mark.parametrize("options, complaint", [
        ({"bands": "gri"}, "bands must be three"), ({"bands": ("g", "r")}, "bands must be three"),
        ({"bands": ("a", "b", "c")}, "bands must be three"), ({"device": "x"}, "device"), ({"pixels": 4}, "pixels"),
        ({"outside": "no"}, "outside"),
    ])
    def test_bad_options_are_refused(self, options, complaint):
        with pytest.raises(ValueError, match=complaint):
            VaeFlow(**options)

    @pytest.mark.parametrize("options, wishes, complaint", [
        ({"weights": "galaxies-colour"}, {}, "of 3 bands, not of 1"), ({"weights": "unet"}, {}, "not of galaxies"),
        ({}, {"g-r": 1}, "colours need a generator of several bands"),
        ({"bands": ("g", "r", "i")}, {"g-i": 1}, "unknown condition 'g-i'"),
        ({"bands": ("g", "r", "i")}, {"g-r": 1 * u.m}, "not convertible"),
    ])
    def test_what_cannot_be_made_is_refused(self, options, wishes, complaint):
        with pytest.raises((TypeError, ValueError), match=complaint):
            VaeFlow(measure=False, **options).generate(1, wishes, rng())


RMS = 0.005


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A folder in GalSim's format: five Sérsic galaxies through a Gaussian PSF, with white noise, and their fits."""
    folder = tmp_path_factory.mktemp("real")
    psf, noise = galsim.Gaussian(fwhm=0.1), rng(5)
    images, galaxies, fitted = [], [], []
    for i in range(5):
        n, radius, e, angle, flux = 0.8 + 0.2 * i, 0.15 + 0.02 * i, 0.1 + 0.05 * i, 0.5 * i, 40.0 + i
        profile = galsim.Sersic(n, half_light_radius=radius, flux=flux).shear(g=e, beta=angle * galsim.radians)
        image = galsim.Convolve([profile, psf]).drawImage(nx=96, ny=96, scale=0.03, dtype=float).array
        images.append(fits.ImageHDU(image + noise.normal(0, RMS, image.shape)))
        q = (1 - e) / (1 + e)
        fitted.append((100 + i, [1, radius / 0.03 / q**0.5, n, q, 0, 0, 0, angle], [radius, 0, 0], [flux, 0, 0, 0], 1))
        galaxies.append((100 + i, 22.0, "F814W", 1.0, "images.fits", "psf.fits", i + 1, 0, 0.03, RMS**2))
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(folder / "images.fits")
    seen = galsim.Convolve([psf, galsim.Pixel(0.03)])
    kernel = seen.drawImage(nx=41, ny=41, scale=0.03, method="no_pixel", dtype=float).array
    fits.PrimaryHDU(kernel).writeto(folder / "psf.fits")
    names = "IDENT MAG BAND WEIGHT GAL_FILENAME PSF_FILENAME GAL_HDU PSF_HDU PIXEL_SCALE NOISE_VARIANCE".split()
    Table(rows=galaxies, names=names).write(folder / "made.fits")
    names = ("IDENT", "sersicfit", "hlr", "flux", "viable_sersic")
    Table(rows=fitted, names=names).write(folder / "made_fits.fits")
    return folder


def copied(folder, to, *names):
    for name in names:
        (to / name).write_bytes((folder / name).read_bytes())
    return to


class TestCosmos:
    def test_the_contract(self, real):
        testing.check_generator(Cosmos(catalog=real, measure=False))

    @pytest.mark.parametrize("options", [{}, {"pixel_scale": 0.06, "pixels": 64}])
    def test_galaxies_are_as_wished(self, real, options):
        wishes = {"flux": [50.0, 60.0], "radius": [0.15, 0.18] * ARC, "e1": [0.2, 0.0], "e2": [-0.1, 0.3]}
        method = Cosmos(catalog=real / "made.fits", psf=GaussianPSF(0.2 * ARC), **options)
        result = generate(2, conditions=wishes, method=method, seed=1)
        made, errors = result.catalog, [image.uncertainty.array.sum() ** 0.5 for image in result.images]
        for name in ("flux", "radius"):
            np.testing.assert_allclose(made[name].value, u.Quantity(wishes[name]).value)
        assert np.all(np.abs(made["flux_measured"] - made["flux"]).value < 4 * np.array(errors))
        np.testing.assert_allclose(made["radius_measured"], made["radius"], rtol=0.06)
        np.testing.assert_allclose(made["n_measured"], made["n"], rtol=0.1)
        for name in ("e1", "e2"):
            np.testing.assert_allclose(made[f"{name}_measured"], wishes[name], atol=0.03)

    def test_what_is_not_wished_is_the_galaxy_s_own_turned(self, real):
        made = Cosmos(catalog=real).generate(4, None, rng(2)).catalog
        own = made["ident"].astype(int) - 100
        np.testing.assert_allclose(made["flux"].value, 40 + own)
        np.testing.assert_allclose(np.hypot(made["e1"], made["e2"]), 0.1 + 0.05 * own)
        for name in ("e1", "e2"):
            np.testing.assert_allclose(made[f"{name}_measured"], made[name], atol=0.03)
        assert len(set(np.round(np.arctan2(made["e2"], made["e1"]), 3))) == 4

    @pytest.mark.parametrize("options", [{}, {"pixel_scale": 0.06, "pixels": 64}])
    def test_whitened_noise_is_as_told(self, real, options):
        images = Cosmos(catalog=real, measure=False, **options).generate(3, None, rng(2)).images
        for image in images:
            corner = image.data[:len(image.data) // 5]
            assert np.std(corner) == pytest.approx(image.uncertainty.array[0, 0] ** 0.5, rel=0.1)
            assert abs(np.corrcoef(corner[:, 1:].ravel(), corner[:, :-1].ravel())[0, 1]) < 0.12

    def test_less_noise_is_added_to_symmetrise(self, real):
        told = {
            kind: Cosmos(catalog=real, measure=False, noise=kind).generate(1, None, rng()).images[0].uncertainty.array
            for kind in ("none", "symmetrize", "whiten")
        }
        assert 0 < told["none"].max() <= told["symmetrize"].max() < told["whiten"].max()

    def test_an_index_is_granted_by_choosing(self, real):
        made = Cosmos(catalog=real, measure=False).generate(3, {"n": 1.25}, rng()).catalog
        assert set(made["n"].round(3)) == {1.2}

    def test_a_stretched_galaxy_is_flagged(self, real):
        made = Cosmos(catalog=real, measure=False).generate(2, {"radius": [0.16, 0.5] * ARC}, rng()).catalog
        assert "noise_amplified" in made["flags"][1]

    def test_without_fits_there_is_flux(self, real, tmp_path):
        copied(real, tmp_path, "made.fits", "images.fits", "psf.fits")
        method = Cosmos(catalog=tmp_path / "made.fits", measure=False)
        made = method.generate(1, {"flux": 10}, rng()).catalog
        assert made["flux_measured"][0].value == pytest.approx(10, abs=2) and np.isnan(made["radius"][0])
        with pytest.raises(ValueError, match="'radius' needs the galaxies' Sérsic fits, and there is no .*made_fits"):
            method.generate(1, {"radius": 0.2 * ARC}, rng())

    def test_what_is_missing_is_named(self, real, tmp_path):
        with pytest.raises(ValueError, match="cosmos needs a catalogue"):
            Cosmos().generate(1, None, rng())
        with pytest.raises(FileNotFoundError, match="no galaxy catalogue .* in the folder"):
            Cosmos(catalog=tmp_path).generate(1, None, rng())
        with pytest.raises(FileNotFoundError, match="no galaxy catalogue at .*absent"):
            Cosmos(catalog=tmp_path / "absent").generate(1, None, rng())
        copied(real, tmp_path, "made.fits", "images.fits")
        with pytest.raises(FileNotFoundError, match="names the image file .*psf.fits, which is not there"):
            Cosmos(catalog=tmp_path / "made.fits").generate(1, None, rng())
        Table.read(real / "made.fits")["IDENT", "MAG", "GAL_FILENAME"].write(tmp_path / "few.fits")
        with pytest.raises(ValueError, match="lacks the column PSF_FILENAME, GAL_HDU"):
            Cosmos(catalog=tmp_path / "few.fits").generate(1, None, rng())

    def test_wishes_and_options_that_cannot_be_granted(self, real):
        with pytest.raises(ValueError, match="give both conditions, e1 and e2"):
            Cosmos(catalog=real).generate(1, {"e1": 0.1}, rng())
        with pytest.raises(ValueError, match="narrower than the PSF"):
            Cosmos(catalog=real, psf=GaussianPSF(0.05 * ARC)).generate(1, None, rng())
        with pytest.raises(ValueError, match="noise must be one of 'whiten'"):
            Cosmos(noise="white")


class TestStamps:
    @pytest.mark.parametrize("kind", [Sersic, VaeFlow, Procedural, Cosmos])
    def test_a_place_on_the_sky_gives_a_wcs(self, kind, request):
        more = {}
        if kind is Cosmos:
            more["catalog"] = request.getfixturevalue("shared_data") / "cosmos_galaxies" / "cosmos_catalog.fits"
        position = SkyCoord(150.1, 2.2, unit="deg")
        method = kind(pixels=32, pixel_scale=0.1, position=position, measure=False, **more)
        (image,) = method.generate(1, None, rng()).images
        assert pixel_scale(image).to_value(ARC) == pytest.approx(0.1, rel=1e-6) and "PIXSCALE" not in image.meta
        assert image.wcs.pixel_to_world(15.5, 15.5).separation(position) < 1e-6 * ARC
        north, left = image.wcs.pixel_to_world([15.5, 0], [31, 15.5])
        assert north.dec > position.dec and left.ra > position.ra
        (bare,) = kind(pixels=32, pixel_scale=0.1, measure=False, **more).generate(1, None, rng()).images
        np.testing.assert_array_equal(bare.data, image.data)
        assert bare.wcs is None and bare.meta["PIXSCALE"] == pytest.approx(0.1)

    @pytest.mark.parametrize("kind", [VaeFlow, Procedural])
    def test_each_band_has_its_psf(self, kind):
        bands, wishes = ("g", "r", "i"), {"n": 1.0, "radius": 0.3 * ARC, "flux": 100.0}
        options = {"pixels": 48, "pixel_scale": 0.1, "measure": False, "bands": bands}
        psf = {"g": GaussianPSF(0.4 * ARC), "r": None, "i": GaussianPSF(0.25 * ARC)}
        (own,) = kind(**options, psf=psf).generate(1, wishes, rng()).images
        for band, one in psf.items():
            (alike,) = kind(**options, psf=one).generate(1, wishes, rng()).images
            peak = alike[band].data.max()
            np.testing.assert_allclose(own[band].data, alike[band].data, atol=2e-3 * peak)
            assert (own[band].psf is None) == (one is None)
        assert own["g"].psf.shape != own["i"].psf.shape

    @pytest.mark.parametrize("options, error, message", [
        ({"position": (150, 2)}, TypeError, "SkyCoord"),
        ({"position": SkyCoord([1, 2], [3, 4], unit="deg")}, ValueError, "one place"),
        ({"bands": ("g", "r", "i"), "psf": {"g": None}}, ValueError, "lacks the band"),
        ({"bands": ("g", "r", "i"), "psf": {"z": None}}, ValueError, "none of bands"),
        ({"psf": {"g": None}}, ValueError, "needs bands"), ({"bands": ("g", "g", "i")}, ValueError, "different names"),
    ])
    @pytest.mark.parametrize("kind", [VaeFlow, Procedural])
    def test_bad_input(self, kind, options, error, message):
        with pytest.raises(error, match=message):
            kind(**options)

    def test_a_wcs_is_written_and_read(self, tmp_path):
        position = SkyCoord(10, -20, unit="deg")
        made = generate(2, method=Sersic(pixels=24, position=position, measure=False), seed=1)
        made.write(tmp_path / "made.fits")
        read = Generation.read(tmp_path / "made.fits")
        assert read.images[1].wcs.pixel_to_world(11.5, 11.5).separation(position) < 1e-6 * ARC
