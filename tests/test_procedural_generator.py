"""Galaxies composed of parts: as wished, whatever the parts are, and drawn again from what the catalogue says."""

import astropy.units as u
import galsim
import numpy as np
import pytest
import torch
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend import generate, testing
from lensdeblend.generators.population import COSMOS
from lensdeblend.generators.procedural import PARAMETERS, Procedural
from lensdeblend.generators.spectra import PARTS, part_fluxes, reddening
from lensdeblend.lensing.composed import draw_composed
from lensdeblend.lensing.composed_images import composed_images, composed_shapes
from lensdeblend.lensing.procedural import KINDS
from lensdeblend.lensing.standard_light import placed, standard_light
from lensdeblend.results import Generation
from lensdeblend.scenes import GaussianPSF

ARC = u.arcsec
DISC = {"magnitude": 20, "radius": 0.3 * ARC, "n": 1, "e1": 0.2, "e2": 0.1}
STAMP = {"pixels": 64, "pixel_scale": 0.06, "measure": False}


def rng(seed=1):
    return np.random.default_rng(seed)


def column(table, name):
    return u.Quantity(table[name]).value


@pytest.fixture(scope="module")
def measured():
    """48 galaxies whose radius has 3 to 12 pixels, and what Sérsic profiles fitted to the stamps say."""
    wishes = {"radius": np.geomspace(0.15, 0.6, 48) * ARC, "magnitude": np.linspace(19, 22, 48)[::-1]}
    return generate(48, conditions=wishes, method=Procedural(pixels=96, pixel_scale=0.05), seed=5).catalog


@pytest.mark.parametrize("options", [{}, {"bands": ("g", "r", "i", "z"), "psf": GaussianPSF(0.15 * ARC)}])
def test_the_contract(options):
    testing.check_generator(Procedural(**STAMP, **options), conditions={"magnitude": 21, "radius": 0.3 * ARC})


class TestAsWished:
    @pytest.mark.parametrize("name, correlation", [
        ("flux", 0.95), ("radius", 0.95), ("e1", 0.95), ("e2", 0.95), ("n", 0.8),
    ])
    def test_what_is_wished_is_measured(self, measured, name, correlation):
        found = np.isfinite(measured["n_measured"])
        assert found.sum() >= 46
        wished, seen = (column(measured, one)[found] for one in (name, f"{name}_measured"))
        if name in ("flux", "radius", "n"):
            wished, seen = np.log(wished), np.log(seen)
        assert np.polyfit(wished, seen, 1)[0] == pytest.approx(1, abs=0.05 if name != "n" else 0.1)
        assert np.corrcoef(wished, seen)[0, 1] > correlation

    def test_distributions_are_those_of_the_population(self, measured):
        found = np.isfinite(measured["n_measured"])
        wished, seen = (
            np.hypot(measured[f"e1{which}"], measured[f"e2{which}"])[found] for which in ("", "_measured")
        )
        assert np.mean(seen) == pytest.approx(np.mean(wished), abs=0.03)
        assert np.std(seen) == pytest.approx(np.std(wished), abs=0.03)
        assert np.mean(np.log(measured["n_measured"][found] / measured["n"][found])) == pytest.approx(0, abs=0.1)

    def test_what_is_drawn_is_what_the_population_says(self):
        made = generate(400, method=Procedural(pixels=8, measure=False), seed=3).catalog
        drawn = COSMOS.draw(4000, {}, rng(8))
        for name, theirs in (("radius", np.exp(drawn["log_radius"])), ("n", np.exp(drawn["log_n"]))):
            assert np.median(column(made, name)) == pytest.approx(np.median(theirs), rel=0.15)

    @pytest.mark.parametrize("kind", KINDS)
    def test_flux_is_conserved(self, kind):
        """On a stamp that holds all of it."""
        method = Procedural(pixels=256, pixel_scale=0.04, measure=False, mix={kind: 1})
        made = generate(6, conditions={**DISC, "radius": 0.3 * ARC}, method=method, seed=2).catalog
        assert set(made["kind"]) == {kind}
        np.testing.assert_allclose(column(made, "flux_measured"), column(made, "flux"), rtol=0.02)

    def test_half_of_the_light_of_an_elliptical_is_within_its_radius(self):
        method = Procedural(pixels=256, pixel_scale=0.03, measure=False, mix={"elliptical": 1})
        image = generate(1, conditions={**DISC, "n": 2, "e1": 0, "e2": 0}, method=method, seed=1).images[0].data
        y, x = np.indices(image.shape) - 127.5
        assert image[np.hypot(x, y) < 10].sum() / image.sum() == pytest.approx(0.5, abs=0.02)

    def test_an_elliptical_is_what_galsim_draws(self):
        method = Procedural(**STAMP, mix={"elliptical": 1})
        wishes = {"flux": 100, "radius": 0.3 * ARC, "n": 2, "e1": 0.2, "e2": -0.1}
        ours = generate(1, conditions=wishes, method=method, seed=1)
        ours.catalog["lane_depth"], ours.catalog["patch_depth"] = 0, 0
        image = method.drawn_again(ours.catalog).images[0].data
        profile = galsim.Sersic(2, half_light_radius=0.3, flux=100).shear(g1=0.2, g2=-0.1)
        theirs = profile.drawImage(nx=64, ny=64, scale=0.06).array
        assert np.abs(image - theirs).sum() < 0.02 * theirs.sum()

    def test_turning_the_wish_turns_the_galaxy(self):
        one, other = (
            generate(3, conditions={**DISC, "e1": sign * 0.2, "e2": sign * 0.1}, method=Procedural(**STAMP), seed=2)
            for sign in (1, -1)
        )
        for image, turned in zip(one.images, other.images):
            difference = np.abs(np.rot90(image.data, -1) - turned.data).sum()
            opposite = np.abs(np.rot90(image.data, 1) - turned.data).sum()
            assert min(difference, opposite) < 1e-3 * image.data.sum() < np.abs(image.data - turned.data).sum()

    def test_a_psf_keeps_the_flux(self):
        sharp, blurred = (
            generate(conditions=DISC, method=Procedural(**STAMP, psf=psf), seed=1).images[0]
            for psf in (None, GaussianPSF(0.2 * ARC))
        )
        assert blurred.data.sum() == pytest.approx(sharp.data.sum(), rel=5e-3)
        assert blurred.data.max() < sharp.data.max() and blurred.psf is not None and sharp.psf is None

    def test_a_galaxy_does_not_depend_on_how_many_there_are(self):
        few, many = (Procedural(**STAMP, bands=("g", "r")).generate(n, None, rng()) for n in (2, 40))
        for i in range(2):
            for band in "gr":
                np.testing.assert_allclose(few.images[i][band].data, many.images[i][band].data, rtol=2e-3)
            assert few.catalog["kind"][i] == many.catalog["kind"][i]

    def test_what_is_unlike_the_wish_is_flagged(self):
        wishes = {**DISC, "radius": [0.3, 0.3, 2.0] * ARC, "magnitude": [20, 25, 20], "g-r": [0.8, 0.8, 9.0]}
        with pytest.warns(AstropyUserWarning, match="wishes for 2 of 3 galaxies are beyond the population"):
            made = generate(3, conditions=wishes, method=Procedural(**STAMP, bands=("g", "r")), seed=1)
        assert list(made.catalog["flags"]) == ["", "outside_population", "stamp_too_small,outside_population"]


class TestParts:
    def drawn(self, kind, n=1.0, count=24, **without):
        method = Procedural(**STAMP, mix={kind: 1})
        wishes = {**DISC, "e1": 0.0, "e2": 0.05, "radius": 0.5 * ARC, "n": n}
        made = generate(count, conditions=wishes, method=method, seed=4)
        for name, value in without.items():
            made.catalog[name] = np.full_like(made.catalog[name], value)
        return method, made.catalog, [image.data for image in method.drawn_again(made.catalog).images]

    @staticmethod
    def departures(images, others):
        return np.array([np.abs(a - b).sum() / b.sum() for a, b in zip(images, others)])

    @pytest.mark.parametrize("kind, parts, least", [
        ("spiral", ("arms",), 0.1), ("barred", ("bar",), 0.05), ("irregular", ("knot_flux",), 0.1),
    ])
    def test_a_kind_has_the_parts_in_its_name(self, kind, parts, least):
        _, _, whole = self.drawn(kind)
        _, _, without = self.drawn(kind, **dict.fromkeys(parts, 0))
        assert np.median(self.departures(whole, without)) > least

    def test_spirals_are_not_ellipticals(self):
        _, _, ellipticals = self.drawn("elliptical")
        _, _, spirals = self.drawn("spiral")
        assert np.median(self.departures(spirals, ellipticals)) > 0.2

    def test_dust_takes_light_from_where_it_is(self):
        method, catalog, _ = self.drawn("spiral", count=1, patch_depth=0, lane_depth=0, arm_dust=0)
        clear = method.drawn_again(catalog).images[0].data
        catalog["patch_depth"][0, 0], catalog["patch_size"][0, 0] = 3, 0.3
        catalog["patch_x"][0, 0], catalog["patch_y"][0, 0] = 1.0, 0.0
        angle = 0.5 * np.arctan2(catalog["e2"][0], catalog["e1"][0])
        x, y = (int(31.5 + 0.5 / 0.06 * part) for part in (np.cos(angle), np.sin(angle)))
        ratio = method.drawn_again(catalog).images[0].data / clear
        assert ratio[y, x] < 0.3 < 0.7 < ratio[63 - y, 63 - x]

    def test_rings_are_bright_at_their_radius(self):
        rings = {"ring": 0.3, "ring_radius": 1.5, "ring_width": 0.15, "warp": 0.0}
        _, _, with_ring = self.drawn("lenticular", count=3, **rings)
        _, _, without = self.drawn("lenticular", count=3, **rings | {"ring": 0.0})
        y, x = np.indices(with_ring[0].shape) - 31.5
        at = np.hypot(x, y) / (0.5 / 0.06)
        for one, other in zip(with_ring, without):
            here, inside, outside = (
                (one / other)[(at > low) & (at < low + 0.2)].mean() for low in (1.4, 0.7, 2.2)
            )
            assert here > 1.3 * inside and here > 1.3 * outside

    def test_kinds_follow_index_and_ellipticity(self):
        made = {
            n: set(generate(60, conditions={"n": n, "radius": 0.3 * ARC}, seed=1,
                            method=Procedural(pixels=8, measure=False)).catalog["kind"])
            for n in (0.7, 5.0)
        }
        assert made[5.0] == {"elliptical", "lenticular"} and made[0.7] == {"spiral", "barred", "irregular"}
        flat = generate(60, conditions={"n": 4, "e1": 0.6, "radius": 0.3 * ARC}, seed=1,
                        method=Procedural(pixels=8, measure=False, outside="flag"))
        assert "elliptical" not in flat.catalog["kind"]

    def test_a_profile_that_is_wished_is_the_closest_one(self):
        """No small change of it brings it closer to the galaxy: the normal equations, on finer points than theirs."""
        n = torch.tensor([0.8, 1.5, 3.0, 5.0]).repeat(4)
        e1, e2 = torch.full_like(n, 0.3), torch.zeros_like(n)
        parts, _ = draw_composed(n, e1, torch.Generator().manual_seed(2))
        white, one = torch.ones(1, 3), torch.ones(1)
        shapes = composed_shapes(parts, n, white, one)
        radius, side = torch.full_like(n, 8.0), 128
        image = composed_images(parts, shapes, n, radius, e1, e2, white, one, side)[:, 0].double().numpy()

        def misfit(r=8.0, g1=0.3, g2=0.0, x=0.0, index=1.0):
            place = placed(torch.tensor([[63.5 + x, 63.5]]), *(torch.tensor([one]) for one in (r, g1, g2)))
            model = standard_light(place, torch.tensor([index]), None, (side, side))[0][:, 0].double().numpy()
            level = (model * image).sum((1, 2), keepdims=True) / (model**2).sum((1, 2), keepdims=True)
            return ((image - level * model) ** 2).sum((1, 2))

        changes = {"r": (7.2, 8.8), "g1": (0.25, 0.35), "g2": (-0.05, 0.05), "x": (-0.5, 0.5)}
        for index in n.unique().tolist():
            own = misfit(index=index)[n == index]
            for name, values in changes.items():
                for value in values:
                    assert np.all(misfit(index=index, **{name: value})[n == index] > own), (index, name, value)
            for other in (0.85 * index, 1.15 * index):
                assert np.all(misfit(index=other)[n == index] > own), (index, other)


class TestDrawnAgain:
    def test_the_catalogue_makes_the_galaxies(self, tmp_path):
        method = Procedural(**STAMP, bands=("g", "i"))
        made = generate(12, method=method, seed=6)
        made.write(tmp_path / "made.fits")
        again = method.drawn_again(Generation.read(tmp_path / "made.fits").catalog)
        for one, other in zip(made.images, again.images):
            for band in "gi":
                np.testing.assert_allclose(other[band].data, one[band].data, rtol=1e-3, atol=1e-6)
        assert again.catalog.colnames == made.catalog.colnames
        assert list(again.catalog["flags"]) == list(made.catalog["flags"])

    def test_some_of_them_on_other_pixels(self):
        made = generate(4, conditions=DISC, method=Procedural(**STAMP), seed=6)
        finer = Procedural(pixels=128, pixel_scale=0.03, measure=False).drawn_again(made.catalog[2:3])
        binned = finer.images[0].data.reshape(64, 2, 64, 2).sum((1, 3))
        assert np.abs(binned - made.images[2].data).sum() < 0.04 * binned.sum()

    def test_what_was_made_in_one_band_has_colours(self):
        made = generate(3, conditions=DISC, method=Procedural(**STAMP), seed=6)
        coloured = Procedural(**STAMP, bands=("g", "r")).drawn_again(made.catalog)
        for one, other in zip(made.images, coloured.images):
            np.testing.assert_allclose(other["r"].data, one.data, rtol=1e-3)
        assert np.all(coloured.catalog["g-r"] > 0.4 * u.mag)

    def test_what_is_missing_is_named(self):
        catalog = generate(1, conditions=DISC, method=Procedural(**STAMP), seed=6).catalog
        assert set(PARAMETERS) < set(catalog.colnames)
        without = catalog.copy()
        without.remove_column("bar")
        with pytest.raises(ValueError, match="no column 'bar'"):
            Procedural(**STAMP).drawn_again(without)
        catalog["disc"] = -1.0
        with pytest.raises(ValueError, match="'disc' of the catalogue must not be negative"):
            Procedural(**STAMP).drawn_again(catalog)
        catalog["disc"] = np.nan
        with pytest.raises(ValueError, match="'disc' of the catalogue must have finite"):
            Procedural(**STAMP).drawn_again(catalog)


class TestColours:
    def test_colours_are_as_wished(self):
        wishes = {"magnitude": 20, "radius": 0.2 * ARC, "g-r": np.linspace(0.5, 1.5, 20), "r-i": 0.4}
        method = Procedural(**STAMP, bands=("r", "g", "i"), outside="flag")
        made = generate(20, conditions=wishes, method=method, seed=1)
        assert list(made.images[0]) == ["r", "g", "i"] and made.meta["measured_in"] == "i"
        g, r, i = (np.array([image[band].data.sum() for image in made.images]) for band in "gri")
        found = -2.5 * np.log10(g / r)
        assert np.corrcoef(found, wishes["g-r"])[0, 1] > 0.99
        assert np.polyfit(wishes["g-r"], found, 1)[0] == pytest.approx(1, abs=0.05)
        np.testing.assert_allclose(-2.5 * np.log10(r / i), 0.4, atol=0.05)
        np.testing.assert_allclose(column(made.catalog, "flux_i"), 10 ** (-0.4 * (20 - 25.94)))

    def test_ellipticals_are_redder_than_spirals(self):
        colours = {
            n: column(generate(60, conditions={"n": n}, method=Procedural(pixels=8, measure=False, bands=("g", "r")),
                               seed=2).catalog, "g-r")
            for n in (0.8, 5.0)
        }
        assert np.median(colours[5.0]) > np.median(colours[0.8]) + 0.3
        assert 0.03 < np.std(colours[0.8]) < 0.4

    def test_knots_are_bluer_than_the_bulge(self):
        method = Procedural(**STAMP, bands=("g", "i"), mix={"spiral": 1})
        catalog = generate(1, conditions={**DISC, "n": 2, "radius": 0.5 * ARC}, method=method, seed=3).catalog
        catalog["knot_flux"], catalog["knot_x"], catalog["knot_size"] = 0.02, 1.5, 0.1
        catalog["knot_y"], catalog["warp"], catalog["patch_depth"], catalog["arm_dust"] = 0, 0, 0, 0
        image = method.drawn_again(catalog).images[0]
        angle = 0.5 * np.arctan2(0.1, 0.2)
        e = np.hypot(0.1, 0.2)
        reach = 1.5 * 0.5 / 0.06 * np.sqrt((1 + e) / (1 - e))
        x, y = (int(round(31.5 + reach * part)) for part in (np.cos(angle), np.sin(angle)))
        blue = image["g"].data / image["i"].data
        assert blue[y, x] > 1.5 * blue[31:33, 31:33].mean()

    def test_dust_reddens(self):
        method = Procedural(**STAMP, bands=("g", "i"), mix={"elliptical": 1})
        catalog = generate(1, conditions={**DISC, "n": 3}, method=method, seed=3).catalog
        catalog["patch_depth"], catalog["patch_x"], catalog["patch_y"], catalog["patch_size"] = 0, 0, 0, 0.6
        catalog["patch_depth"][0, 0] = 1.0
        image = method.drawn_again(catalog).images[0]
        blue = image["g"].data / image["i"].data
        expected = np.exp(-(reddening(["i", "g"])[1] - 1))
        assert blue[31:33, 31:33].mean() / blue[5, 5] == pytest.approx(expected, rel=0.03)

    def test_spectra(self):
        red, disc, blue = -2.5 * np.log10(part_fluxes(["r", "g"], 0.0)[1])
        assert list(PARTS) == ["old", "disc", "young"] and red > disc > blue
        # A spectrum's mean over GalSim's own band is not far from the box.
        sed = galsim.SED("CWW_E_ext.sed", "Ang", "flambda")
        g, r = (sed.calculateMagnitude(galsim.Bandpass(f"LSST_{b}.dat", "nm").withZeropoint("AB")) for b in "gr")
        assert red == pytest.approx(g - r, abs=0.1)
        assert np.all(part_fluxes(["r", "g"], 0.5)[1] < part_fluxes(["r", "g"], 0.0)[1])
        assert reddening(["i", "g"])[1] == pytest.approx((0.48 / 0.77) ** -0.7)

    @pytest.mark.parametrize("bands", [("g",), ("g", "r", "i", "z", "y"), ("F606W", "F814W")])
    def test_any_number_of_bands(self, bands):
        made = generate(2, conditions=DISC, method=Procedural(**STAMP, bands=bands), seed=1)
        assert [list(image) for image in made.images] == [list(bands)] * 2
        assert sum("-" in name for name in made.catalog.colnames) == len(bands) - 1


@pytest.mark.parametrize("options, complaint", [
    ({"bands": "gri"}, "bands must be different names"), ({"bands": ()}, "bands must be different names"),
    ({"bands": ("a", "b")}, "bands must be different names"), ({"bands": ("g", "g")}, "bands must be different names"),
    ({"bands": ("k", "g"), "redshift": -0.5}, "no light in 'k'"), ({"mix": {"round": 1}}, "unknown kinds"),
    ({"mix": {"spiral": 0}}, "weights of a mix"), ({"device": "x"}, "device"), ({"pixels": 4}, "pixels"),
    ({"outside": "no"}, "outside"),
])
def test_bad_options_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        Procedural(**options)


@pytest.mark.parametrize("n, wishes, options, complaint", [
    (0, {}, {}, "n must be a whole number"), (1, {"n": 0.1}, {}, "no galaxy of index 0.1"),
    (1, {"flux": 1, "magnitude": 20}, {}, "both flux and magnitude"),
    (1, {"g-r": 1}, {}, "colours need a generator of several bands"),
    (1, {"g-i": 1}, {"bands": ("g", "r", "i")}, "unknown condition 'g-i'"),
    (2, {"radius": [0.1, 0.2, 0.3] * ARC}, {}, r"shape \(3,\)"), (1, {"e1": 0.9, "e2": 0.9}, {}, "modulus"),
])
def test_what_cannot_be_made_is_refused(n, wishes, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        Procedural(measure=False, outside="flag", **options).generate(n, wishes, rng())
