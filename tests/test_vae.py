"""Deblending under a learned prior; with weights made here, which know nothing but have departures."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import NDData, StdDevUncertainty
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend import deblend, simulate
from lensdeblend.deblenders.joint import Joint
from lensdeblend.deblenders.vae import Vae
from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.standard_light import placed, standard_light
from lensdeblend.networks import build
from lensdeblend.networks.weights import Card, load_weights, save_weights
from lensdeblend.results import Deblending
from lensdeblend.scenes import GaussianPSF, Observation, Scene, Sersic
from lensdeblend.testing import check_deblender
from lensdeblend.wavelengths import reddest_first

OPTIONS = {"latent": 3, "widths": [8, 8, 8, 4], "transforms": 2, "hidden": 8, "bins": 4}
POSITIONS = np.array([[20.3, 22.1], [30.2, 24.4]])
DOMAIN = {"pixels": 64, "radius": [2.0, 10.0], "psf_fwhm": [1.5, 4.0], "snr": [20.0, 1000.0]}
RADII, INDICES, FLUXES = (3.0, 2.5), (1.0, 1.5), {"g": (300.0, 250.0), "r": (500.0, 300.0), "i": (600.0, 500.0)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    for bands in (1, 3):
        torch.manual_seed(1)
        options = {**OPTIONS, "bands": bands}
        network = build("galaxy-autoencoder", options)
        torch.nn.init.normal_(network.out.weight, std=0.1)
        card = Card(
            f"vae{bands}", "galaxy-autoencoder", options, {}, {}, {**DOMAIN, "bands": bands}, {}, 1, "", "", "", ""
        )
        paths[bands] = str(save_weights(network, card, folder))
    return paths


def psf(width=1.2):
    steps = np.arange(-7, 8)
    line = np.exp(-0.5 * (steps / width) ** 2)
    return line[:, None] * line / line.sum() ** 2


def galaxies(departures, shape=(46, 50)):
    """Each of flux 1 through the PSF, (2, bands, ny, nx)."""
    e = torch.tensor([0.2, -0.1])
    place = placed(torch.tensor(POSITIONS, dtype=torch.float32), torch.tensor(RADII), e, -e)
    drawn = standard_light(place, torch.tensor(INDICES), departures, shape)[0]
    return Convolution(torch.as_tensor(psf(), dtype=torch.float32), shape)(drawn).numpy()


def blend(departures=None, names="gri", noise=0.15, seed=1, unit=None):
    departures = torch.zeros(2, 3, 4, 4) if departures is None else departures
    rng, images = np.random.default_rng(seed), {}
    for number, name in enumerate(names):
        alone = galaxies(departures)[:, {"i": 0, "r": 1, "g": 2}.get(name, 0)]
        data = np.tensordot(list(FLUXES.values())[number], alone, 1)
        images[name] = NDData(
            data + rng.normal(0, noise, data.shape), uncertainty=StdDevUncertainty(np.full(data.shape, noise)),
            psf=psf(), meta={"PIXSCALE": 0.2}, unit=unit,
        )
    return images


@pytest.mark.parametrize("samples", [0, 2])
def test_contract(weights, samples):
    check_deblender(Vae(weights=weights[1], samples=samples))


class TestFit:
    def test_finds_departures_that_the_network_knows(self, weights):
        """Galaxies of its own latent vectors come back, to the noise, where Sérsics alone do not."""
        network = load_weights(weights[3])[0]
        with torch.no_grad():
            kinds = torch.zeros(2, 5)
            white = torch.tensor([[1.5, -1.0, 0.5], [-1.0, 1.2, 1.0]])
            departures = network.decode(network.latents(white, kinds))
        images = blend(departures, noise=0.02)
        found = deblend(images, positions=POSITIONS, method=Vae(weights=weights[3]))
        plain = deblend(images, positions=POSITIONS, method=Joint(structure="none"))
        assert found.chi2 < 1.1 < plain.chi2
        for band in "gri":
            np.testing.assert_allclose(found.catalog[f"flux_{band}"], FLUXES[band], rtol=0.05)

    def test_errors_are_those_of_the_scatter(self, weights):
        """Over ten draws of the noise."""
        pulls, method = [], Vae(weights=weights[1])
        for seed in range(10):
            image = blend(names="r", seed=seed)["r"]
            row = deblend(image, positions=POSITIONS, method=method).catalog
            pulls += [(float(f) - true) / float(e) for f, e, true in zip(row["flux"], row["flux_err"], FLUXES["g"])]
        assert 0.5 < np.std(pulls) < 1.6
        assert abs(np.mean(pulls)) < 1.0

    def test_samples_agree_with_the_errors(self, weights):
        image = blend(names="r")["r"]
        plain, sampled = (
            deblend(image, positions=POSITIONS, method=Vae(weights=weights[1], samples=n), seed=1) for n in (0, 200)
        )
        assert plain.samples is None
        assert len(sampled.samples) == 400
        for name in ("flux", "x", "e1"):
            errors = [np.asarray(row[f"{name}_err"]) for row in (plain.catalog, sampled.catalog)]
            np.testing.assert_allclose(errors[1], errors[0], rtol=0.35, err_msg=name)
            for galaxy in (1, 2):
                own = np.asarray(sampled.samples[name][sampled.samples["id"] == galaxy])
                assert abs(own.mean() - float(sampled.catalog[name][galaxy - 1])) < own.std()

    def test_samples_are_written_and_read(self, weights, tmp_path):
        found = deblend(blend(unit="ct"), positions=POSITIONS, method=Vae(weights=weights[3], samples=3), seed=1)
        found.write(tmp_path / "found.fits")
        again = Deblending.read(tmp_path / "found.fits")
        assert again.samples["flux_g"].unit == "ct"
        np.testing.assert_array_equal(again.samples["flux_g"], found.samples["flux_g"])

    def test_parts_sum_up(self, weights):
        images = blend()
        found = deblend(images, positions=POSITIONS, method=Vae(weights=weights[3]))
        for name, image in images.items():
            np.testing.assert_allclose(sum(share[name].data for share in found.shares), image.data, rtol=1e-9)
            whole = sum(source[name].data for source in found.sources) + found.meta["background"][name]
            np.testing.assert_allclose(whole, found.model[name].data, rtol=1e-9, atol=1e-12)
            for galaxy, flux in zip(found.sources, found.catalog[f"flux_{name}"]):
                assert galaxy[name].data.sum() == pytest.approx(float(flux), rel=0.1)

    def test_bands_on_other_pixels(self, weights):
        """A band of half as large pixels has the same galaxies; positions are those of the first band's pixels."""
        images = blend(names="r")
        fine = np.kron(images["r"].data, np.full((2, 2), 0.25))
        rng = np.random.default_rng(5)
        steps = np.arange(-15, 16)
        line = np.exp(-0.5 * (steps / 2.5) ** 2)
        images["i"] = NDData(
            fine + rng.normal(0, 0.05, fine.shape), uncertainty=StdDevUncertainty(np.full(fine.shape, 0.1)),
            psf=line[:, None] * line / line.sum() ** 2, meta={"PIXSCALE": 0.1},
        )
        found = deblend(images, positions=POSITIONS, method=Vae(weights=weights[1]))
        np.testing.assert_allclose(found.catalog["flux_i"], found.catalog["flux_r"], rtol=0.1)
        assert found.sources[0]["i"].data.shape == fine.shape

    def test_units_do_not_matter(self, weights):
        images = blend()
        bright = {
            name: NDData(
                1e6 * image.data, uncertainty=StdDevUncertainty(1e6 * image.uncertainty.array), psf=image.psf,
                meta=image.meta,
            ) for name, image in images.items()
        }
        one, other = (deblend(some, positions=POSITIONS, method=Vae(weights=weights[3])) for some in (images, bright))
        np.testing.assert_allclose(other.catalog["flux_r"], 1e6 * np.asarray(one.catalog["flux_r"]), rtol=1e-3)

    def test_masked_pixels_do_not_matter(self, weights):
        images = blend()
        for image in images.values():
            image.mask = np.zeros(image.data.shape, bool)
            image.mask[5:9, 5:40] = True
        spoilt = {
            name: NDData(np.where(image.mask, 1e4, image.data), uncertainty=image.uncertainty, psf=image.psf,
                         meta=image.meta, mask=image.mask) for name, image in images.items()
        }
        one, other = (deblend(some, positions=POSITIONS, method=Vae(weights=weights[3])) for some in (images, spoilt))
        np.testing.assert_allclose(other.catalog["flux_r"], one.catalog["flux_r"], rtol=1e-3)


class TestJacobian:
    def test_is_that_of_finite_differences(self, weights):
        method = Vae(weights=weights[3])
        caught = {}
        from lensdeblend.deblenders import vae as module

        kept = module.descend

        def spy(problem, start, *args, **more):
            fit = kept(problem, start, *args, **more)
            caught.update(problem=problem, fit=fit)
            return fit

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "descend", spy)
            deblend(blend(), positions=POSITIONS, method=method)
        problem, fit = caught["problem"], caught["fit"]
        numbers = fit.parameters[0].reshape(2, -1)
        amplitudes = fit.amplitudes[0].reshape(3, 2)
        with torch.no_grad():
            slopes = problem.linearised(numbers, amplitudes)
            for column in range(numbers.numel()):
                step = 0.02 * torch.eye(numbers.numel())[column].reshape(2, -1)
                ahead, behind = (problem.residual(numbers + sign * step, amplitudes) for sign in (1, -1))
                expected = (behind - ahead) / 0.04
                off = float((slopes[column] - expected).norm())
                assert off < 0.15 * float(expected.norm()) + 1.0, (column, off)
            for place in range(6):
                more = amplitudes.flatten().clone()
                more[place] += 1.0
                change = problem.residual(numbers, amplitudes) - problem.residual(numbers, more.reshape(3, 2))
                np.testing.assert_allclose(slopes[numbers.numel() + place], change, atol=1e-3)


class TestDetection:
    """Galaxies that show only in the residuals of others."""

    @pytest.fixture
    def pair(self):
        sources = [
            Sersic(800.0, 0.4 * u.arcsec, 1.0, center_x=-0.3 * u.arcsec),
            Sersic(150.0, 0.15 * u.arcsec, 1.0, center_x=0.34 * u.arcsec),
        ]
        seen = Observation(0.2 * u.arcsec, (48, 48), GaussianPSF(0.5 * u.arcsec), background_rms=0.3)
        return simulate(Scene(sources=sources), seen, method="galsim", seed=1).image

    @pytest.mark.parametrize("most, found", [(0, 1), (3, 2)])
    def test_as_many_as_asked_for(self, weights, pair, most, found):
        assert len(deblend(pair, method=Vae(weights=weights[1], new_galaxies=most)).catalog) == found

    def test_not_where_positions_are_given(self, weights, pair):
        assert len(deblend(pair, positions=[(22, 23.5)], method=Vae(weights=weights[1])).catalog) == 1


def test_an_index_at_its_bound_is_flagged(weights):
    """A ring has less in the middle than any Sérsic profile, whose index goes as low as it may."""
    row, column = np.indices((46, 50))
    radius = np.hypot(column - POSITIONS[0, 0], row - POSITIONS[0, 1])
    data = 20 * np.exp(-0.5 * ((radius - 6) / 1.5) ** 2) + np.random.default_rng(2).normal(size=radius.shape)
    ring = NDData(data, uncertainty=StdDevUncertainty(np.ones(data.shape)), psf=psf(), meta={"PIXSCALE": 0.2})
    found = deblend(ring, positions=POSITIONS[:1], method=Vae(weights=weights[1]))
    assert found.catalog["flags"][0].split("; ") == ["at a bound: index"]


class TestFaults:
    def test_nothing_found(self, weights):
        image = replace_data(blend(names="r")["r"], np.random.default_rng(1).normal(0, 0.15, (46, 50)))
        with pytest.warns(AstropyUserWarning, match="no galaxy") as warned:
            found = deblend(image, method=Vae(weights=weights[1]))
        assert len(warned) == 1 and len(found.catalog) == 0
        assert {"x_err", "n", "n_err"} <= set(found.catalog.colnames)

    def test_too_many(self, weights):
        positions = np.random.default_rng(1).uniform(5, 40, (31, 2))
        with pytest.raises(ValueError, match="joint"):
            deblend(blend(names="r")["r"], positions=positions, method=Vae(weights=weights[1]))

    def test_bands_without_names_of_filters(self, weights):
        with pytest.raises(ValueError, match="filters"):
            deblend(blend(names="abc"), positions=POSITIONS, method=Vae(weights=weights[3]))

    def test_other_weights(self, weights):
        with pytest.raises(ValueError, match="not of galaxies"):
            deblend(blend(), positions=POSITIONS, method=Vae(weights="posterior"))

    def test_out_of_domain(self, weights):
        images = blend(names="r")
        wide = NDData(images["r"].data, uncertainty=images["r"].uncertainty, psf=psf(3.5), meta=images["r"].meta)
        found = deblend(wide, positions=POSITIONS, method=Vae(weights=weights[1]))
        assert any("out_of_domain: PSF FWHM" in flag for flag in found.meta["flags"])

    @pytest.mark.parametrize("options, message", [
        ({"new_galaxies": -1}, "new_galaxies"),
        ({"samples": -1}, "samples"), ({"samples": 1}, "samples"), ({"threshold": None}, "threshold"),
        ({"background": "dark"}, "background"),
        ({"position_prior": 0}, "position_prior"), ({"radius_prior": (-1, 1)}, "radius_prior"),
        ({"device": "x"}, "device"),
    ])
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            Vae(**options)


def replace_data(image, data):
    return NDData(data, uncertainty=image.uncertainty, psf=image.psf, meta=image.meta)


@pytest.mark.parametrize("names, order", [
    (["g", "r", "i"], (2, 1, 0)), (["i", "r", "g"], (0, 1, 2)), (["F606W", "F814W", "F160W"], (2, 1, 0)),
    (["HSC-g", "HSC-y", "HSC-z"], (2, 0, 1)), (["F115W", "F277W", "F444W"], (2, 1, 0)), (["g", "g", "i"], None),
    (["red", "green", "blue"], None), ([""], None),
])
def test_reddest_first(names, order):
    assert reddest_first(names) == order
