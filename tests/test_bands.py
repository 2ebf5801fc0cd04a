"""One lens in several bands, each on its own pixels."""

from dataclasses import replace
from functools import cache

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import VarianceUncertainty
from skies import TURNED, changed, on_sky

from lensdeblend import reconstruct, simulate
from lensdeblend.cli import main
from lensdeblend.io import write_image
from lensdeblend.lensing.banded import BandedLens, JointLens, PlacedLens
from lensdeblend.lensing.parametric import ParametricLens, SersicLens
from lensdeblend.lensing.placement import Placement, carried
from lensdeblend.lensing.subdivision import PixelGrid, Subdivision
from lensdeblend.reconstructors.forward import Forward
from lensdeblend.results import Reconstruction
from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic, Shear

ARC = u.arcsec
NAMES = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
TRUTH = torch.tensor(
    [1.0, 2.05, 0.12, -0.08, 0.03, -0.02, 0.03, 0.02, 0.12, -0.08, np.log(0.15), np.log(1.2), 0.1, 0.1]
)
QUICK = Forward(lens_light=0, sources=1, samples=0, draws=64, starts=4)
OBSERVED = {
    "g": Observation(0.08 * ARC, (40, 40), GaussianPSF(0.15 * ARC), background_rms=0.02),
    "i": Observation(0.1 * ARC, (34, 38), GaussianPSF(0.22 * ARC), background_rms=0.03),
}
FLUX = {"g": 10.0, "i": 16.0}


def scene(flux, parameters=TRUTH, radius=None, light=0.0):
    theta_E, gamma, e1, e2, cx, cy, gamma1, gamma2, x, y, log_radius, log_n, f1, f2 = parameters.tolist()
    radius = radius or np.exp(log_radius)
    return Scene(
        mass=[EPL(theta_E * ARC, gamma, e1, e2, cx * ARC, cy * ARC), Shear(gamma1, gamma2)],
        lens_light=[Sersic(light, 0.5 * ARC, 3.0, 0.1, -0.05, cx * ARC, cy * ARC)] if light else [],
        sources=[Sersic(flux, radius * ARC, np.exp(log_n), f1, f2, x * ARC, y * ARC)],
    )


@cache
def simulated(band, placement=Placement(), **options):
    parameters = carried(TRUTH.double(), SersicLens(1, 0), placement.inverse)
    seed = 11 + list(OBSERVED).index(band)
    return simulate(scene(FLUX[band], parameters, **options), OBSERVED[band], method="torch", seed=seed)


def images(**options_of_i):
    return {"g": simulated("g").image, "i": simulated("i", **options_of_i).image}


@cache
def alone(band):
    return reconstruct(simulated(band).image, method=QUICK, seed=1)


@cache
def together():
    return reconstruct(images(), method=replace(QUICK, samples=1000), seed=1)


def number(result, name):
    return u.Quantity(result.parameters[name][0]).value


def values(result, suffix=""):
    return np.array([number(result, name + suffix) for name in NAMES])


def errors(result):
    return values(result, "_err")


def deviation(result):
    return (values(result) - TRUTH[:8].numpy()) / errors(result)


def covariance_of(result, *names):
    every = [name for name in result.parameters.colnames if not name.endswith("_err")]
    index = [every.index(name) for name in names]
    return result.covariance[np.ix_(index, index)]


@cache
def apart():
    """Bands whose images do not share centre and axes."""
    return {"g": on_sky(simulated("g").image), "i": on_sky(simulated("i", TURNED).image, TURNED)}


@cache
def fit_apart():
    return reconstruct(apart(), method=QUICK, seed=1)


# One mass --------------------------------------------------------------------------


def test_bands_together_know_the_mass_better_than_each_alone():
    result = together()
    assert result.flags == ()
    assert np.abs(deviation(result)).max() < 5
    assert abs(result.chi2 - 1) < 3 * np.sqrt(2 / result.meta["degrees_of_freedom"])
    for band in FLUX:
        assert (errors(result) < errors(alone(band))).all()


def test_errors_add_up_as_those_of_independent_data():
    """With shapes of their own the bands share nothing but the mass; its normal matrices add up."""
    result = reconstruct(images(), method=replace(QUICK, band_shapes="separate"), seed=1)
    priors = np.diag([0, 0.3**-2, 0.3**-2, 0.3**-2, 0, 0, 0.15**-2, 0.15**-2])
    each = sum(np.linalg.inv(covariance_of(alone(band), *NAMES)) for band in FLUX)
    expected = np.linalg.inv(each - priors)
    np.testing.assert_allclose(errors(result), np.sqrt(np.diag(expected)), rtol=0.05)


def test_colour():
    result = together()
    g, i = (number(result, f"source_flux_{band}") for band in FLUX)
    ratio = i / g
    slope = np.array([-i / g**2, 1 / g])
    error = np.sqrt(slope @ covariance_of(result, "source_flux_g", "source_flux_i") @ slope)
    assert abs(ratio - 1.6) < 4 * error
    # Magnification and shape are common to both: a colour is known far better than a flux.
    assert error / ratio < 0.3 * number(result, "source_flux_g_err") / g
    samples = result.samples
    drawn = u.Quantity(samples["source_flux_i"] / samples["source_flux_g"]).value
    assert drawn.std() == pytest.approx(error, rel=0.15)


def test_the_order_of_the_bands_does_not_matter():
    given = images()
    result = reconstruct(dict(reversed(given.items())), method=QUICK, seed=1)
    assert list(result.model) == ["i", "g"]
    assert result.chi2 == pytest.approx(together().chi2, rel=1e-4)
    assert np.abs((values(result) - values(together())) / errors(result)).max() < 0.05


def test_one_band_is_as_good_as_an_image():
    result = reconstruct({"g": simulated("g").image}, method=QUICK, seed=1)
    assert number(result, "source_flux_g") == pytest.approx(number(alone("g"), "source_flux"), rel=1e-3)
    assert np.abs((values(result) - values(alone("g"))) / errors(result)).max() < 0.05
    assert result.chi2 == pytest.approx(alone("g").chi2, rel=1e-4)


# Images --------------------------------------------------------------------------


def test_each_band_on_its_own_pixels():
    result = together()
    for band, image in images().items():
        truth = simulated(band)
        noise = OBSERVED[band].background_rms
        assert result.residual[band].data.std() == pytest.approx(1, abs=0.1)
        np.testing.assert_allclose(result.model[band].data, truth.noiseless.data, atol=3 * noise)
        flux, error = (number(result, f"source_flux_{band}{suffix}") for suffix in ("", "_err"))
        assert abs(flux - FLUX[band]) < 5 * error
        assert result.unlensed[band].data.sum() == pytest.approx(truth.unlensed.data.sum(), abs=5 * error)
        assert result.unlensed[band].data.shape == image.data.shape
        assert result.source[band].data.sum() == pytest.approx(flux, rel=0.02)
    assert result.source["g"].meta["PIXSCALE"] < result.source["i"].meta["PIXSCALE"]


def test_each_band_in_its_own_unit():
    given = images()
    fine = u.electron / u.s / 1000
    image = given["i"]
    given["i"] = changed(
        image, data=image.data * 1000, uncertainty=VarianceUncertainty(image.uncertainty.array * 1e6), unit=fine
    )
    result = reconstruct(given, method=QUICK, seed=1)
    assert result.parameters["source_flux_i"].unit == result.model["i"].unit == fine
    assert result.parameters["source_flux_g"].unit == result.model["g"].unit == u.electron / u.s
    assert number(result, "source_flux_i") == pytest.approx(1000 * number(together(), "source_flux_i"), rel=1e-3)


def test_what_is_masked_in_a_band_is_not_looked_at():
    given = images()
    mask = np.zeros(given["i"].data.shape, bool)
    mask[4:8, 20:26] = True
    clean = reconstruct(given | {"i": changed(given["i"], mask=mask)}, method=QUICK, seed=1)
    bad = np.where(mask, 1e4, given["i"].data)
    spoilt = reconstruct(given | {"i": changed(given["i"], data=bad, mask=mask)}, method=QUICK, seed=1)
    np.testing.assert_array_equal(values(spoilt), values(clean))
    assert clean.meta["degrees_of_freedom"] == together().meta["degrees_of_freedom"] - 24


# Colour gradients --------------------------------------------------------------------------


def test_a_colour_gradient_asks_for_separate_shapes():
    given = images(radius=0.25)
    shared = reconstruct(given, method=QUICK, seed=1)
    assert {"poor fit (band g)", "poor fit (band i)"} <= set(shared.flags)
    result = reconstruct(given, method=replace(QUICK, band_shapes="separate"), seed=1)
    assert result.flags == ()
    assert np.abs(deviation(result)).max() < 5
    for band, radius in (("g", 0.15), ("i", 0.25)):
        assert abs(number(result, f"source_radius_{band}") - radius) < 5 * number(result, f"source_radius_{band}_err")
    difference = number(result, "source_radius_i") - number(result, "source_radius_g")
    assert difference > 5 * np.sqrt([1, -1] @ covariance_of(result, "source_radius_g", "source_radius_i") @ [1, -1])
    assert "source_radius" not in result.parameters.colnames


def test_lens_light_that_shows_in_one_band():
    result = reconstruct(images(light=30.0), method=replace(QUICK, lens_light="auto"), seed=1)
    assert result.flags == () and result.meta["lens_lights"] == 1
    assert np.abs(deviation(result)).max() < 5
    assert number(result, "light_flux_g") < 0.05 * number(result, "light_flux_i")
    light = simulated("i", light=30.0)
    truth = light.noiseless.data - light.sources[0].data
    np.testing.assert_allclose(result.lens_light["i"].data, truth, atol=3 * OBSERVED["i"].background_rms)


def test_lens_light_that_only_the_fainter_band_shows():
    faint = simulate(scene(2.0, light=8.0), OBSERVED["i"], method="torch", seed=3).image
    result = reconstruct({"g": simulated("g").image, "i": faint}, method=replace(QUICK, lens_light="auto"), seed=1)
    assert result.flags == () and result.meta["lens_lights"] == 1
    for name, truth in (("light_flux_i", 8.0), ("light_flux_g", 0.0), ("light_x", 0.03), ("light_y", -0.02)):
        assert abs(number(result, name) - truth) < 5 * number(result, f"{name}_err")
    light = result.lens_light["i"].data
    assert np.sqrt((light**2).sum()) > 10 * OBSERVED["i"].background_rms


# Where the bands lie --------------------------------------------------------------------------


def test_a_placement_and_its_inverse():
    x, y = TURNED(*TURNED.inverse(0.7, -0.4))
    assert (x, y) == pytest.approx((0.7, -0.4))
    assert TURNED.inverse.turned(*TURNED.turned(0.1, -0.2)) == pytest.approx((0.1, -0.2))


def test_carried_parameters_make_the_same_image():
    model = SersicLens(1, 1)
    parameters = torch.cat([TRUTH.double(), TRUTH.double()[8:] * 1.1])
    moved = carried(parameters, model, TURNED)
    x, y = torch.meshgrid(torch.linspace(-2, 2, 15).double(), torch.linspace(-2, 2, 15).double(), indexing="ij")
    x, y = x.reshape(-1), y.reshape(-1)
    here, there = model.brightness(parameters[None], x, y), model.brightness(moved[None], *TURNED(x, y))
    np.testing.assert_allclose(here, there, rtol=1e-9)
    back = carried(moved, model, TURNED.inverse)
    np.testing.assert_allclose(back, parameters, atol=1e-12)


def test_derivatives_of_all_bands_against_finite_differences():
    one = SersicLens(1, 1)
    model = BandedLens(one, ("g", "i"), separate=True)
    grids = PixelGrid((12, 12), 0.25), PixelGrid((9, 11), 0.3)
    lens = JointLens([
        ParametricLens(PlacedLens(one, model.columns(number), placement), Subdivision.uniform(grid, 2), None, weight)
        for number, (grid, placement) in enumerate(zip(grids, (Placement(), TURNED)))
        for weight in [torch.ones(grid.shape, dtype=torch.float64)]
    ])
    shared = torch.cat([TRUTH.double(), TRUTH.double()[8:] * 1.1])
    parameters = model.spread(shared)[None]
    assert len(model.names) == len(set(model.names)) == parameters.shape[1] == 8 + 12 + 2 + 8
    amplitudes = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    slopes = lens.linearise(parameters).combined_slopes(amplitudes, parameters.shape[1])[0]
    step = 1e-5
    for column in range(parameters.shape[1]):
        sides = []
        for sign in (1, -1):
            moved = parameters.clone()
            moved[0, column] += sign * step
            sides.append(amplitudes[0] @ lens.linearise(moved, False).basis[0])
        numeric = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(slopes[column], numeric, atol=1e-4 * float(slopes.abs().max()))


def test_bands_with_other_centres_and_axes():
    result = fit_apart()
    assert result.flags == ()
    assert np.abs(deviation(result)).max() < 5
    np.testing.assert_allclose(errors(result), errors(together()), rtol=0.2)


def test_told_from_the_first_band():
    given = apart()
    result = reconstruct({"i": given["i"], "g": given["g"]}, method=QUICK, seed=1)
    assert result.meta["told_from"] == "i"
    carried_back = carried(torch.as_tensor(values(result)), SersicLens(0, 0), TURNED).numpy()
    assert np.abs((carried_back - values(fit_apart())) / errors(fit_apart())).max() < 0.1
    assert result.chi2 == pytest.approx(fit_apart().chi2, rel=1e-4)


def test_sources_lie_in_the_same_place_of_the_sky():
    places = []
    for source in fit_apart().source.values():
        y, x = np.indices(source.data.shape)
        total = source.data.sum()
        places.append(source.wcs.pixel_to_world((x * source.data).sum() / total, (y * source.data).sum() / total))
    assert places[0].separation(places[1]).to_value("arcsec") < 1e-4


# Out and back --------------------------------------------------------------------------


def test_a_result_is_read_back_equal(tmp_path):
    result = together()
    result.write(tmp_path / "bands.fits")
    back = Reconstruction.read(tmp_path / "bands.fits")
    for field in ("source", "unlensed", "model", "residual", "image"):
        for band, image in getattr(result, field).items():
            other = getattr(back, field)[band]
            np.testing.assert_array_equal(other.data, image.data)
            assert other.unit == image.unit
    assert back.parameters.colnames == result.parameters.colnames
    assert back.samples.colnames == result.samples.colnames
    np.testing.assert_array_equal(back.covariance, result.covariance)
    assert back.lens_light is None and back.flags == result.flags and back.chi2 == result.chi2
    assert dict(back.meta) == dict(result.meta)


def test_a_figure_has_a_row_a_band():
    result = fit_apart()
    panels = [axes for axes in result.plot().axes if axes.get_title()]
    assert len(panels) == 8
    rings = {}
    for band, row in zip(FLUX, (panels[:4], panels[4:])):
        assert row[0].get_title() == f"data, {band}"
        assert f"{result.meta['chi2_by_band'][band]:.3f}" in row[2].get_title()
        assert row[1].get_title() == "model, critical curves"
        rings[band] = np.array(row[1].lines[0].get_data())
    np.testing.assert_allclose(TURNED(*rings["i"]), rings["g"], atol=1e-4)


def test_the_command_line(tmp_path):
    path, out = tmp_path / "lens.fits", tmp_path / "out.fits"
    write_image(apart(), path)
    options = ["--set", "lens_light=0", "--set", "sources=1", "--set", "samples=20", "--set", "draws=64"]
    options += ["--set", "starts=4"]
    assert main(["reconstruct", str(path), "--bands", "-o", str(out), "--seed", "1", *options]) == 0
    result = Reconstruction.read(out)
    assert list(result.source) == ["g", "i"] and len(result.samples) == 20
    np.testing.assert_allclose(values(result), values(fit_apart()), atol=1e-9)


# Noise, flags, bad input --------------------------------------------------------------------------


def test_a_noise_map_made_from_the_data_in_one_band():
    given = images()
    clean = simulated("i").noiseless.data
    exposure, background = 500.0, 0.0009
    rng = np.random.default_rng(5)
    data = rng.poisson(clean * exposure) / exposure + rng.normal(0, np.sqrt(background), clean.shape)
    variance = VarianceUncertainty(np.clip(background + data / exposure, 1e-5, None))
    result = reconstruct(given | {"i": changed(given["i"], data=data, uncertainty=variance)}, method=QUICK, seed=1)
    assert result.meta["variance"]["g"] == "as given" and "* model" in result.meta["variance"]["i"]
    np.testing.assert_allclose(result.image["i"].uncertainty.array, background + clean / exposure, rtol=0.05)
    assert result.flags == () and np.abs(deviation(result)).max() < 5


def test_the_lens_is_cut_out_of_wide_bands():
    result = reconstruct(apart(), method=replace(QUICK, radius=1.3, rounds=1), seed=1)
    assert result.meta["radius"] == {"g": 1.3, "i": 1.3}
    columns, rows = (np.indices(apart()["i"].data.shape)[axis] for axis in (1, 0))
    ny, nx = apart()["i"].data.shape
    distance = np.hypot(*TURNED((columns - (nx - 1) / 2) * 0.1, (rows - (ny - 1) / 2) * 0.1))
    assert result.image["i"].mask[distance > 1.5 * 1.3 + 1e-6].all()
    assert not result.image["i"].mask[distance < 1.2].any()


def test_noise_in_two_bands_shows_no_lens():
    rng = np.random.default_rng(6)
    given = {
        band: changed(image, data=rng.normal(0, OBSERVED[band].background_rms, image.data.shape))
        for band, image in images().items()
    }
    method = Forward(lens_light=0, sources=1, samples=0, rounds=1)
    assert "no lens seen" in reconstruct(given, method=method, seed=1).flags


def test_a_galaxy_in_two_bands_is_no_lens():
    galaxy = Sersic(2.0, 0.4 * ARC, 4.0, 0.2, 0.1, 0.2 * ARC, -0.2 * ARC)
    given = {
        band: simulate(Scene(sources=[galaxy]), OBSERVED[band], method="torch", seed=3).image for band in OBSERVED
    }
    assert "no lens seen" in reconstruct(given, method=replace(QUICK, lens_light="auto", rounds=1), seed=1).flags


@pytest.mark.slow
def test_hamiltonian_samples_of_two_bands():
    observed = Observation(0.12 * ARC, (22, 22), GaussianPSF(0.2 * ARC), background_rms=0.03)
    given = {
        band: simulate(scene(flux), observed, method="torch", seed=seed).image
        for seed, (band, flux) in enumerate(FLUX.items(), 5)
    }
    result = reconstruct(given, method=replace(QUICK, samples=40, posterior="hmc"), seed=1)
    samples = np.array([u.Quantity(result.samples[name]).value for name in NAMES])
    assert np.abs((samples.mean(1) - values(result)) / errors(result)).max() < 1.2
    ratio = samples.std(1) / errors(result)
    assert 0.5 < ratio.min() and ratio.max() < 1.8


def test_bands_of_another_sky_are_refused():
    given = apart()
    elsewhere = on_sky(simulated("i").image, Placement(offset=(30.0, 0.0)))
    with pytest.raises(ValueError, match="band 'i' does not reach the centre of band 'g': .* 30 arcsec apart; cut all"):
        reconstruct(given | {"i": elsewhere}, method=QUICK, seed=1)
    elsewhere.wcs.wcs.crval = [330.0, -2.0]
    with pytest.raises(ValueError, match="bands 'g' and 'i' do not show the same sky"):
        reconstruct(given | {"i": elsewhere}, method=QUICK, seed=1)


def test_the_bad_band_is_named():
    given = images()
    mask = np.ones(given["i"].data.shape, bool)
    mask[15, 10:30] = False
    with pytest.raises(ValueError, match="band 'i': a lens fit needs at least 30 unmasked pixels; the image has 20"):
        reconstruct(given | {"i": changed(given["i"], mask=mask)}, method=QUICK)
    with pytest.raises(ValueError, match="a band named 'err' makes columns that look like errors"):
        reconstruct({"g": given["g"], "err": given["i"]}, method=QUICK)


def test_bad_band_shapes():
    with pytest.raises(ValueError, match="band_shapes must be one of 'shared', 'separate'; got 'both'"):
        Forward(band_shapes="both")
