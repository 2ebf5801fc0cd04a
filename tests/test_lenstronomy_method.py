"""lenstronomy's FittingSequence as a reconstructor."""

import warnings
from functools import cache
from importlib.util import find_spec

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData, VarianceUncertainty

from lensdeblend import prepare, reconstruct, simulate
from lensdeblend.images import pixel_scale
from lensdeblend.plugins import resolve
from lensdeblend.reconstructors import lenstronomy as module
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.lenstronomy import Lenstronomy
from lensdeblend.reconstructors.lenstronomy_model import LENS, LIGHT, SOURCE, LenstronomyModel, padded
from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic, Shear
from lensdeblend.simulators.lenstronomy import Lenstronomy as Simulator
from lensdeblend.testing import check_reconstructor

ARC = u.arcsec
NAMES = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
QUICK = Lenstronomy(particles=16, iterations=15, supersampling=1)
TRUTH = np.array([1.0, 2.05, 0.12, -0.08, 0.03, -0.02, 0.03, 0.02])
needs_emcee = pytest.mark.skipif(find_spec("emcee") is None, reason="emcee is not installed")


def scene(lens_light=False):
    theta_E, gamma, e1, e2, cx, cy, gamma1, gamma2 = TRUTH
    light = [Sersic(40.0, 0.4 * ARC, 2.0, 0.1, -0.05, cx * ARC, cy * ARC)] if lens_light else []
    return Scene(
        mass=[EPL(theta_E * ARC, gamma, e1, e2, cx * ARC, cy * ARC), Shear(gamma1, gamma2)], lens_light=light,
        sources=[Sersic(10.0, 0.25 * ARC, 1.2, 0.1, 0.1, 0.12 * ARC, -0.08 * ARC)],
    )


@cache
def simulation(lens_light=False, psf=True, rms=0.15, shape=(28, 30), scale=0.14):
    observation = Observation(scale * ARC, shape, GaussianPSF(0.3 * ARC) if psf else None, background_rms=rms)
    return simulate(scene(lens_light), observation, method=Simulator(precision=1e-5), seed=11)


def changed(image, **new):
    fields = {name: getattr(image, name) for name in ("data", "uncertainty", "mask", "psf", "unit")} | new
    return NDData(fields.pop("data"), meta=dict(image.meta), **fields)


@cache
def fitted(method=Lenstronomy(particles=30, iterations=60, supersampling=2)):
    return reconstruct(simulation().image, method=method, seed=1)


def values(result, suffix=""):
    return np.array([u.Quantity(result.parameters[name + suffix][0]).value for name in NAMES])


# The model --------------------------------------------------------------------------


def true_values(lens_light):
    """The scene as lenstronomy has it; its own simulator says what radius it takes for half of the light."""
    from lensdeblend.simulators.lenstronomy import _sersic

    drawn = scene(lens_light)
    lens = dict(zip(NAMES[:6], TRUTH))
    source, *light = [_sersic(c, c.flux)[1] for c in (drawn.sources[0], *drawn.lens_light)]
    return {LENS: [lens, dict(zip(NAMES[6:], TRUTH[6:]))], SOURCE: [source], LIGHT: light}


@pytest.mark.parametrize("psf", [True, False])
@pytest.mark.parametrize("lens_light", [0, 1])
def test_model_image_is_that_of_the_simulator(lens_light, psf):
    truth = simulation(bool(lens_light), psf, shape=(36, 40), scale=0.1)
    image = prepare(truth.image)
    model = LenstronomyModel("sersic", 0, lens_light)
    frame = Frame.of(image)
    simulator = model.simulator(*padded(frame), 10)
    with module._tolerant():
        seen = simulator.image(**true_values(lens_light))
    border = frame.grid.border
    assert (border > 0) == psf
    worst = np.abs(seen[border:border + 36, border:border + 40] - truth.noiseless.data).max()
    assert worst < 1e-3 * truth.noiseless.data.max()
    numbers = dict(zip(model.names, model.numbers(true_values(lens_light))))
    assert numbers["source_flux"] == pytest.approx(10, rel=1e-6)
    assert numbers["source_radius"] == pytest.approx(0.25, rel=1e-6)


def test_flux_of_shapelets_is_their_integral():
    model = LenstronomyModel("shapelets", 5, 0)
    amplitudes = np.random.default_rng(1).normal(size=model.basis_size)
    bare = {LENS: [dict(zip(NAMES[:6], TRUTH)), dict(zip(NAMES[6:], TRUTH[6:]))], LIGHT: []}
    bare[SOURCE] = [{"beta": 0.2, "center_x": 0.1, "center_y": -0.05}]
    full = model.with_amplitudes(bare, amplitudes)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(-3, 3, 0.02), np.arange(-3, 3, 0.02)))
    integral = model.source_brightness(full)(x, y).sum() * 0.02**2
    assert model.numbers(full)[model.names.index("source_flux")] == pytest.approx(integral, rel=1e-6)


# The fit ----------------------------------------------------------------------------


def test_keeps_the_contract():
    image = changed(simulation().image)
    mask = np.zeros(image.data.shape, bool)
    mask[3, 4] = mask[12, 20] = True
    image = changed(image, mask=mask)
    check_reconstructor(Lenstronomy(particles=30, iterations=40, supersampling=1), image=image)


def test_finds_the_lens():
    result, truth = fitted(), simulation()
    assert "poor fit" not in result.flags
    freedom = result.meta["degrees_of_freedom"]
    assert freedom == truth.image.data.size - 15
    assert abs(result.chi2 - 1) < 3 * np.sqrt(2 / freedom)
    assert abs(values(result)[0] - 1) < 0.05
    assert abs(result.parameters["source_flux"][0].value - 10) < 3
    assert np.isnan(values(result, "_err")).all()
    assert result.covariance is None and result.samples is None and result.lens_light is None
    # What the noise leaves of the signal.
    signal = truth.noiseless.data
    assert np.sum((result.model.data - signal) ** 2) < 0.05 * np.sum(signal**2)
    curves = result.curves
    assert abs(np.median(np.hypot(curves["x"].value, curves["y"].value)) - 1) < 0.2


def test_source_and_unlensed_hold_the_same_light():
    result = fitted()
    total = result.parameters["source_flux"][0].value
    assert result.unlensed.data.sum() == pytest.approx(total, rel=0.03)
    assert result.source.data.sum() == pytest.approx(total, rel=0.08)
    assert pixel_scale(result.source) < pixel_scale(result.image)


@pytest.mark.parametrize("source", ["sersic", "shapelets"])
def test_same_seed_same_result_whatever_the_global_state(source):
    method = Lenstronomy(source=source, n_max=2, particles=8, iterations=5, supersampling=1)
    image = simulation().image
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    one = reconstruct(image, method=method, seed=5)
    assert np.array_equal(np.random.get_state()[1], before)
    np.random.seed(2)
    two = reconstruct(image, method=method, seed=5)
    three = reconstruct(image, method=method, seed=6)
    assert np.array_equal(one.model.data, two.model.data)
    assert not np.array_equal(one.model.data, three.model.data)


def test_the_global_state_comes_back_after_a_failure():
    before = np.random.get_state()[1].copy()
    with pytest.raises(RuntimeError), module._seeded(np.random.default_rng(1)):
        np.random.random(3)
        raise RuntimeError
    assert np.array_equal(np.random.get_state()[1], before)


def test_prints_nothing(capfd):
    reconstruct(simulation().image, method=Lenstronomy(particles=6, iterations=3, supersampling=1), seed=1)
    out, err = capfd.readouterr()
    assert not out and not err


def test_masked_pixels_do_not_matter():
    image = simulation().image
    mask = np.zeros(image.data.shape, bool)
    mask[:, :4] = mask[9:12, 15] = True
    one, two = (
        reconstruct(changed(image, data=np.where(mask, value, image.data), mask=mask), method=QUICK, seed=1)
        for value in (0.0, 1e5)
    )
    assert np.array_equal(one.model.data, two.model.data)
    assert one.chi2 == two.chi2
    assert (one.residual.data[mask] == 0).all()
    assert one.model.data.shape == image.data.shape and np.isfinite(one.model.data).all()


def test_unit_of_the_image_does_not_matter():
    image = simulation().image
    small = changed(
        image, data=image.data * 1e-18, uncertainty=VarianceUncertainty(image.uncertainty.array * 1e-36)
    )
    one, two = (reconstruct(one, method=QUICK, seed=1) for one in (image, small))
    np.testing.assert_allclose(two.model.data * 1e18, one.model.data, atol=1e-3 * one.model.data.max())
    np.testing.assert_allclose(values(two), values(one), rtol=1e-3, atol=1e-4)


def test_shapelets_fit_what_they_can():
    truth = simulation()
    method = Lenstronomy(source="shapelets", n_max=4, particles=20, iterations=25, supersampling=1)
    result = reconstruct(truth.image, method=method, seed=1)
    assert result.meta["degrees_of_freedom"] == truth.image.data.size - 8 - 3 - 15
    assert {"source_x", "source_y", "source_beta", "source_flux"} < set(result.parameters.colnames)
    assert result.chi2 < 1.15
    assert result.unlensed.data.sum() == pytest.approx(result.parameters["source_flux"][0].value, rel=0.1)


def test_lens_light_is_told_from_the_source():
    truth = simulation(lens_light=True)
    method = Lenstronomy(lens_light=1, particles=30, iterations=60, supersampling=1)
    result = reconstruct(truth.image, method=method, seed=1)
    light = truth.noiseless.data - truth.sources[0].data
    assert np.sum((result.lens_light.data - light) ** 2) < 0.05 * np.sum(light**2)
    source = result.model.data - result.lens_light.data
    assert np.sum((source - truth.sources[0].data) ** 2) < 0.3 * np.sum(truth.sources[0].data ** 2)
    assert {"light_x", "light_radius", "light_n", "light_flux"} < set(result.parameters.colnames)


def test_says_that_the_swarm_has_not_settled_and_that_the_fit_is_poor():
    bright = simulation(rms=0.005)
    result = reconstruct(bright.image, method=Lenstronomy(particles=12, iterations=8, supersampling=1), seed=1)
    assert {"not converged", "poor fit"} <= set(result.flags)


def test_leaves_out_neighbours_and_sky_of_a_wide_image():
    observation = Observation(0.2 * ARC, (64, 60), GaussianPSF(0.3 * ARC), background_rms=0.1)
    image = simulate(scene(), observation, method=Simulator(), seed=3).image
    y, x = np.indices(image.data.shape)
    crowded = image.data + 2.0 + 30 * np.exp(-((y - 55) ** 2 + (x - 50) ** 2) / 8)
    method = Lenstronomy(radius=2.5, particles=20, iterations=20, supersampling=1)
    result = reconstruct(changed(image, data=crowded), method=method, seed=1)
    assert result.meta["sky"] == pytest.approx(2.0, abs=0.02)
    assert result.image.mask[55, 50] and not result.image.mask[32, 30]
    assert np.array_equal(result.image.data, crowded)
    assert result.parameters["theta_E"][0].value == pytest.approx(1.0, abs=0.1)
    good = ~result.image.mask
    shown = (crowded - result.model.data) / np.sqrt(result.image.uncertainty.array)
    np.testing.assert_allclose(result.residual.data[good], shown[good], rtol=1e-6, atol=1e-6)


def test_says_what_ends_at_a_bound():
    model = LenstronomyModel("sersic", 0, 1)
    vectors = [np.concatenate([np.full(8, level), np.full(12, level)]) for level in (0.0, 0.5, 1.0)]
    vectors[1][1] = 1.0
    vectors[1][8] = 0.0
    low, best, high = (model.unpack(vector) for vector in vectors)
    fit = module.PeerFit(model, None, 1.0, best, low, high, True, None)
    assert fit.at_bounds() == ["gamma", "source_x"]


# The chain --------------------------------------------------------------------------


@needs_emcee
@pytest.mark.parametrize("source", ["sersic", "shapelets"])
def test_chain_gives_errors_samples_and_covariance(source):
    method = Lenstronomy(
        source=source, n_max=1, particles=10, iterations=8, supersampling=1, mcmc_steps=16, mcmc_burn=6,
        walker_ratio=2, samples=60,
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = reconstruct(simulation().image, method=method, seed=1)
    assert not [w for w in seen if "emcee" in str(w.filename)]
    names = [name for name in result.parameters.colnames if not name.endswith("_err")]
    draws = np.array([u.Quantity(result.samples[name]).value for name in names])
    assert draws.shape == (len(names), 60)
    np.testing.assert_allclose(np.cov(draws), result.covariance, atol=1e-12)
    np.testing.assert_allclose(values(result, "_err"), np.sqrt(np.diag(result.covariance))[:8])
    assert (values(result, "_err") > 0).all()
    # A chain of so few steps cannot be trusted, and is said to be short.
    assert "short chain" in result.flags
    assert result.meta["autocorrelation_steps"] > 0
    again = reconstruct(simulation().image, method=method, seed=1)
    assert np.array_equal(again.covariance, result.covariance)


def test_says_how_to_get_emcee(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install .lensdeblend.mcmc."):
        reconstruct(simulation().image, method=Lenstronomy(mcmc_steps=10), seed=1)


# Bad input --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {"source": "gaussian"}, {"source": 1}, {"lens_light": 3}, {"lens_light": True}, {"n_max": -1}, {"n_max": 2.5},
    {"particles": 1}, {"iterations": 0}, {"mcmc_steps": -1}, {"mcmc_burn": -1}, {"walker_ratio": 1}, {"samples": 1},
    {"supersampling": 0}, {"radius": 0}, {"gamma_prior": 2.0}, {"gamma_prior": (2.0, 0)}, {"gamma_prior": ("2", 1)},
    {"ellipticity_prior": -1}, {"shear_prior": "wide"},
])
def test_refuses_options_that_mean_nothing(options):
    name, = options
    with pytest.raises(ValueError, match=f"^{name} must be "):
        Lenstronomy(**options)


def test_refuses_bands_and_images_without_light():
    image = simulation().image
    with pytest.raises(ValueError, match="one band at a time; got the bands g, r"):
        reconstruct({"g": image, "r": image}, method=QUICK, seed=1)
    with pytest.raises(ValueError, match="needs light"):
        reconstruct(changed(image, data=-np.abs(image.data)), method=QUICK, seed=1)
    mask = np.ones(image.data.shape, bool)
    mask[10:15, 10:20] = False
    with pytest.raises(ValueError, match="at least 57 unmasked pixels; the image has 50"):
        reconstruct(changed(image, mask=mask), method=Lenstronomy(source="shapelets"), seed=1)


def test_is_found_by_name():
    assert isinstance(resolve("reconstructor", "lenstronomy").method, Lenstronomy)
