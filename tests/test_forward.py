"""The forward reconstructor against what was simulated."""

from dataclasses import replace
from functools import cache

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData, StdDevUncertainty, VarianceUncertainty

from lensdeblend import reconstruct, simulate
from lensdeblend.reconstructors.forward import Forward
from lensdeblend.reconstructors.frame import estimated_from_data
from lensdeblend.scenes import EPL, GaussianPSF, Observation, PointSource, Scene, Sersic, Shear
from lensdeblend.scenes.populations import population

ARC = u.arcsec
NAMES = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
QUICK = Forward(lens_light=0, sources=1, samples=0)
TRUTH = np.array([1.0, 2.05, 0.12, -0.08, 0.03, -0.02, 0.03, 0.02])


def scene(lens_light=False):
    theta_E, gamma, e1, e2, cx, cy, gamma1, gamma2 = TRUTH
    light = [Sersic(60.0, 0.5 * ARC, 3.0, 0.1, -0.05, cx * ARC, cy * ARC)] if lens_light else []
    return Scene(
        mass=[EPL(theta_E * ARC, gamma, e1, e2, cx * ARC, cy * ARC), Shear(gamma1, gamma2)], lens_light=light,
        sources=[Sersic(10.0, 0.15 * ARC, 1.2, 0.1, 0.1, 0.12 * ARC, -0.08 * ARC)],
    )


@cache
def simulation(lens_light=False, psf=True, shape=(40, 40), rms=0.01):
    observation = Observation(0.08 * ARC, shape, GaussianPSF(0.15 * ARC) if psf else None, background_rms=rms)
    return simulate(scene(lens_light), observation, method="torch", seed=11)


@cache
def reference():
    """The lens that most tests vary."""
    return reconstruct(simulation().image, method=Forward(lens_light=0, sources=1), seed=1)


def changed(image, **new):
    """The image with other data, uncertainty, mask, psf or unit."""
    fields = {name: getattr(image, name) for name in ("data", "uncertainty", "mask", "psf", "unit")} | new
    return NDData(fields.pop("data"), meta=dict(image.meta), **fields)


def values(result, suffix=""):
    return np.array([u.Quantity(result.parameters[name + suffix][0]).value for name in NAMES])


def errors(result):
    return values(result, "_err")


def drawn(name, seed):
    lenses = population(name)
    rng = np.random.default_rng(seed)
    one = lenses.draw(rng)
    noiseless = simulate(one, lenses.observation, method="torch", seed=seed)
    observation = lenses.observe(rng, float(sum(s.data for s in noiseless.sources).max()))
    lens, shear = one.mass
    truth = [getattr(lens, n) for n in NAMES[:6]] + [shear.gamma1, shear.gamma2]
    return simulate(one, observation, method="torch", seed=seed), np.array([u.Quantity(v).value for v in truth])


# Truth --------------------------------------------------------------------------


@pytest.mark.parametrize("name, seed", [
    ("lens-benchmark", 101), ("lens-benchmark", 102), ("lens-benchmark", 103), ("lens-benchmark-light", 104),
    ("lens-benchmark-light", 105),
])
def test_recovers_lenses_of_the_population(name, seed):
    simulated, truth = drawn(name, seed)
    result = reconstruct(simulated.image, method=Forward(samples=0), seed=1)
    freedom = result.meta["degrees_of_freedom"]
    assert abs(result.chi2 - 1) < 3 * np.sqrt(2 / freedom)
    assert np.abs((values(result) - truth) / errors(result)).max() < 5
    assert bool(result.meta["lens_lights"]) == name.endswith("light")
    assert (result.lens_light is not None) == name.endswith("light")
    for image in (result.source, result.unlensed, result.model, result.residual):
        assert np.isfinite(image.data).all()


def test_flags_are_empty_and_errors_are_those_of_the_covariance():
    result = reference()
    assert result.flags == ()
    variance = np.diag(result.covariance)
    np.testing.assert_allclose(errors(result), np.sqrt(variance[:8]))
    correlation = result.covariance / np.sqrt(np.outer(variance, variance))
    assert np.abs(correlation).max() < 1 + 1e-9
    assert np.linalg.eigvalsh(correlation).min() > 0
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 5


def test_samples_have_the_covariance():
    result = reference()
    samples = np.array([u.Quantity(column).value for column in result.samples.columns.values()])
    assert samples.shape == (len(result.covariance), 1000)
    spread = np.sqrt(np.diag(result.covariance))[:8]
    best = values(result)
    np.testing.assert_allclose(samples[:8].mean(1), best, atol=5 * spread.max() / np.sqrt(1000))
    assert np.abs((samples[:8].mean(1) - best) / spread).max() < 5 / np.sqrt(1000)
    np.testing.assert_allclose(
        np.cov(samples[:8]) / np.outer(spread, spread), result.covariance[:8, :8] / np.outer(spread, spread), atol=0.2
    )


def test_images_of_the_source():
    result, truth = reference(), simulation()
    parameters = result.parameters
    flux, flux_err = parameters["source_flux"][0].value, parameters["source_flux_err"][0].value
    assert abs(flux - 10) < 5 * flux_err
    assert parameters["source_flux"].unit == truth.image.unit
    for name, expected in (("source_x", 0.12), ("source_y", -0.08), ("source_radius", 0.15), ("source_n", 1.2)):
        value, error = (u.Quantity(parameters[column][0]).value for column in (name, name + "_err"))
        assert abs(value - expected) < 5 * error
    # Within what the error of the flux and of the radius leave.
    peak = truth.unlensed.data.max()
    np.testing.assert_allclose(result.unlensed.data, truth.unlensed.data, atol=5 * flux_err / flux * peak + 0.02 * peak)
    assert result.unlensed.data.sum() == pytest.approx(truth.unlensed.data.sum(), abs=5 * flux_err)
    np.testing.assert_allclose(result.model.data, truth.noiseless.data, atol=5 * 0.01)
    source = result.source
    scale = source.meta["PIXSCALE"]
    ny, nx = source.data.shape
    y, x = np.mgrid[:ny, :nx]
    total = source.data.sum()
    assert scale <= 0.02
    assert total == pytest.approx(flux, rel=0.02)
    for axis, size, name, expected in ((x, nx, "CENTER_X", 0.12), (y, ny, "CENTER_Y", -0.08)):
        centre = source.meta[name] + ((source.data * axis).sum() / total - (size - 1) / 2) * scale
        assert centre == pytest.approx(expected, abs=0.01)


def test_residual_is_noise():
    residual = reference().residual.data
    assert residual.mean() == pytest.approx(0, abs=5 / 40)
    assert residual.std() == pytest.approx(1, abs=0.1)
    assert np.abs(residual).max() < 5


def test_critical_curve_runs_through_the_ring():
    curve = reference().curves
    tangential = curve[curve["curve"] == 0]
    radius = np.hypot(tangential["x"].value - TRUTH[4], tangential["y"].value - TRUTH[5])
    assert radius.mean() == pytest.approx(1.0, abs=0.05)


# What must not matter --------------------------------------------------------------------------


def assert_same_lens(one, other, tolerance=0.05):
    """Within a small part of the error."""
    np.testing.assert_array_less(np.abs(values(one) - values(other)) / errors(other), tolerance)
    np.testing.assert_allclose(errors(one), errors(other), rtol=0.05)


def test_the_same_seed_gives_the_same():
    again = reconstruct(simulation().image, method=Forward(lens_light=0, sources=1), seed=1)
    np.testing.assert_array_equal(values(again), values(reference()))
    np.testing.assert_array_equal(again.samples["theta_E"], reference().samples["theta_E"])


def test_another_seed_finds_the_same_minimum():
    assert_same_lens(reconstruct(simulation().image, method=QUICK, seed=2), reference())


def test_what_is_masked_is_not_looked_at():
    image = simulation().image
    mask = np.zeros(image.data.shape, bool)
    mask[5:8, 30:34] = True
    clean = changed(image, mask=mask)
    bad = np.where(mask, [[1e4]], image.data)
    bad[6, 31] = np.nan
    one, other = (reconstruct(i, method=QUICK, seed=1) for i in (clean, changed(image, data=bad, mask=mask)))
    np.testing.assert_array_equal(values(one), values(other))
    assert one.meta["degrees_of_freedom"] == reference().meta["degrees_of_freedom"] - 12
    assert np.all(other.residual.data[mask] == 0)


def test_units_do_not_matter():
    image = simulation().image
    scaled = changed(image, data=image.data * 1000, uncertainty=VarianceUncertainty(image.uncertainty.array * 1e6))
    result = reconstruct(scaled, method=QUICK, seed=1)
    assert_same_lens(result, reference(), 0.01)
    assert result.chi2 == pytest.approx(reference().chi2, rel=1e-6)
    ratio = result.parameters["source_flux"][0] / reference().parameters["source_flux"][0]
    assert u.Quantity(ratio).value == pytest.approx(1000, rel=1e-4)


@pytest.mark.parametrize("dtype", [">f8", ">f4", "<f4"])
def test_byte_order_and_precision_do_not_matter(dtype):
    image = simulation().image
    foreign = changed(
        image, data=image.data.astype(dtype), psf=np.asarray(image.psf).astype(dtype),
        uncertainty=StdDevUncertainty(np.sqrt(image.uncertainty.array).astype(dtype)),
    )
    assert_same_lens(reconstruct(foreign, method=QUICK, seed=1), reference(), 0.01)


def turned(parameters, number):
    """Of the sky turned by quarter turns counter-clockwise."""
    theta_E, gamma, e1, e2, cx, cy, g1, g2 = parameters
    turn = 1j**number
    e, c, g = (e1 + 1j * e2) * turn**2, (cx + 1j * cy) * turn, (g1 + 1j * g2) * turn**2
    return np.array([theta_E, gamma, e.real, e.imag, c.real, c.imag, g.real, g.imag])


FLIP_X = np.array([1, 1, 1, -1, -1, 1, 1, -1])
FLIP_Y = np.array([1, 1, 1, -1, 1, -1, 1, -1])


@pytest.mark.parametrize("operation, expected", [
    # Rows count upwards, so numpy's counter-clockwise turn of the printed array is a clockwise one of the sky.
    (lambda a: np.rot90(a, 1), lambda p: turned(p, -1)),
    (lambda a: np.rot90(a, 2), lambda p: turned(p, 2)),
    (lambda a: a[:, ::-1], lambda p: p * FLIP_X),
    (lambda a: a[::-1], lambda p: p * FLIP_Y),
    (lambda a: a.T, lambda p: turned(p * FLIP_X, -1)),
], ids=["quarter turn", "half turn", "flip x", "flip y", "transpose"])
def test_turning_the_image_turns_the_lens(operation, expected):
    image = simulation().image
    moved = changed(
        image, data=operation(image.data), uncertainty=VarianceUncertainty(operation(image.uncertainty.array)),
        psf=operation(np.asarray(image.psf)),
    )
    result = reconstruct(moved, method=QUICK, seed=1)
    wanted = expected(values(reference()))
    assert np.abs((values(result) - wanted) / errors(result)).max() < 0.05


def test_an_image_that_is_not_square():
    result = reconstruct(simulation(shape=(36, 47)).image, method=QUICK, seed=1)
    assert result.model.data.shape == (36, 47)
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 5
    assert abs(result.chi2 - 1) < 3 * np.sqrt(2 / result.meta["degrees_of_freedom"])


def test_without_a_psf():
    result = reconstruct(simulation(psf=False).image, method=QUICK, seed=1)
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 5
    assert abs(result.chi2 - 1) < 3 * np.sqrt(2 / result.meta["degrees_of_freedom"])
    peak = simulation(psf=False).unlensed.data.max()
    np.testing.assert_allclose(result.unlensed.data, simulation(psf=False).unlensed.data, atol=0.1 * peak)


# Options --------------------------------------------------------------------------


def test_lens_light_is_taken_off():
    simulated = simulation(lens_light=True)
    result = reconstruct(simulated.image, method=Forward(samples=0), seed=1)
    assert result.meta["lens_lights"] >= 1
    assert abs(result.chi2 - 1) < 3 * np.sqrt(2 / result.meta["degrees_of_freedom"])
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 5
    light = simulated.noiseless.data - simulated.sources[0].data
    np.testing.assert_allclose(result.lens_light.data, light, atol=0.05 * light.max())


def test_no_lens_light_where_there_is_none():
    result = reconstruct(simulation().image, method=Forward(samples=0), seed=1)
    assert result.meta["lens_lights"] == 0 and result.lens_light is None
    assert_same_lens(result, reference())


def test_hamiltonian_samples_agree_with_laplace():
    observation = Observation(0.12 * ARC, (22, 22), GaussianPSF(0.2 * ARC), background_rms=0.02)
    simulated = simulate(scene(), observation, method="torch", seed=11)
    laplace = reconstruct(simulated.image, method=QUICK, seed=1)
    chain = reconstruct(simulated.image, method=Forward(lens_light=0, sources=1, samples=64, posterior="hmc"), seed=1)
    samples = np.array([u.Quantity(chain.samples[name]).value for name in NAMES])
    assert samples.shape == (8, 64)
    offset = (samples.mean(1) - values(laplace)) / errors(laplace)
    # Eight chains of eight correlated samples: as many as some twenty independent ones.
    assert np.abs(offset).max() < 4 / np.sqrt(20)
    ratio = samples.std(1) / errors(laplace)
    assert 0.6 < ratio.min() and ratio.max() < 1.6


def test_a_prior_holds_the_slope():
    free = reconstruct(simulation().image, method=Forward(lens_light=0, sources=1, samples=0, gamma_prior=None), seed=1)
    held = reconstruct(
        simulation().image, method=Forward(lens_light=0, sources=1, samples=0, gamma_prior=(2.05, 1e-4)), seed=1
    )
    assert held.parameters["gamma"][0] == pytest.approx(2.05, abs=5e-4)
    assert held.parameters["gamma_err"][0] == pytest.approx(1e-4, rel=0.01)
    assert free.parameters["gamma_err"][0] > reference().parameters["gamma_err"][0] * (1 - 1e-6)
    assert free.parameters["gamma_err"][0] > 1e-3


@pytest.mark.parametrize("light", [lambda data: data, lambda data: np.clip(data, 0, None)], ids=["all", "positive"])
def test_a_noise_map_made_from_the_noisy_data_is_recognised(light):
    exposure, background = 500.0, 0.0004
    clean = simulation().noiseless.data
    rng = np.random.default_rng(5)
    data = rng.poisson(clean * exposure) / exposure + rng.normal(0, np.sqrt(background), clean.shape)
    from_data = np.clip(background + light(data) / exposure, 1e-5, None)
    expected = background + clean / exposure
    honest, biased = (
        changed(simulation().image, data=data, uncertainty=VarianceUncertainty(v)) for v in (expected, from_data)
    )
    assert estimated_from_data(honest) is None
    law = estimated_from_data(biased)
    assert law.background == pytest.approx(background, rel=0.01)
    assert law.per_count == pytest.approx(1 / exposure, rel=0.01)
    result = reconstruct(biased, method=QUICK, seed=1)
    truth = reconstruct(honest, method=QUICK, seed=1)
    assert abs(result.chi2 - 1) < 3 * np.sqrt(2 / result.meta["degrees_of_freedom"])
    assert "* model" in result.meta["variance"] and truth.meta["variance"] == "as given"
    np.testing.assert_allclose(result.image.uncertainty.array, expected, rtol=0.05)
    assert_same_lens(result, truth, 0.5)


# Bad input --------------------------------------------------------------------------


def test_an_image_without_a_lens_is_flagged():
    rng = np.random.default_rng(6)
    noise = changed(simulation().image, data=rng.normal(0, 0.01, (40, 40)))
    result = reconstruct(noise, method=Forward(), seed=1)
    assert "no lens seen" in result.flags
    assert result.chi2 < 1.2
    assert np.isfinite(result.model.data).all() and np.isfinite(result.residual.data).all()
    assert np.isfinite(values(result)).all()


GALAXY = Sersic(8.0, 0.4 * ARC, 4.0, 0.2, 0.1, 0.2 * ARC, -0.2 * ARC)


@pytest.mark.parametrize("components", [
    [replace(GALAXY, flux=2.0)], [replace(GALAXY, flux=2000.0)], [PointSource(10.0, 0.03 * ARC, 0.04 * ARC)],
    [Sersic(20.0, 0.4 * ARC, 2.0, 0.2, 0.1), Sersic(8.0, 0.2 * ARC, 1.0, 0.1, -0.1, 0.8 * ARC, 0.5 * ARC)],
], ids=["faint galaxy", "bright galaxy", "star", "galaxy and companion"])
def test_what_is_no_lens_is_flagged(components):
    observation = Observation(0.08 * ARC, (30, 30), GaussianPSF(0.15 * ARC), background_rms=0.01)
    image = simulate(Scene(sources=components), observation, method="torch", seed=3).image
    assert "no lens seen" in reconstruct(image, method=Forward(samples=0, rounds=1), seed=1).flags


@pytest.mark.parametrize("lens_light, rms", [(False, 0.01), (True, 0.01), (False, 0.05)])
def test_a_lens_is_seen(lens_light, rms):
    image = simulation(lens_light, rms=rms).image
    assert "no lens seen" not in reconstruct(image, method=Forward(samples=0, rounds=1), seed=1).flags


def test_more_noise_hides_the_lens():
    """The same light, from seen to unseen."""
    given = simulation()
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 1, given.image.data.shape)
    image = changed(given.image, data=given.noiseless.data + noise, uncertainty=VarianceUncertainty(noise**0))
    assert "no lens seen" in reconstruct(image, method=QUICK, seed=1).flags


def test_a_lens_that_the_model_cannot_fit_is_flagged():
    image = simulation().image
    y, x = np.mgrid[:40, :40]
    rings = 0.3 * np.sin(x / 2.0) * np.sin(y / 3.0)
    method = Forward(sources=1, lens_light=0, samples=0, rounds=1)
    result = reconstruct(changed(image, data=image.data + rings), method=method, seed=1)
    assert "poor fit" in result.flags
    assert np.isfinite(result.model.data).all()


def test_too_few_pixels_are_refused():
    image = simulation().image
    mask = np.ones(image.data.shape, bool)
    mask[20, 10:30] = False
    with pytest.raises(ValueError, match="at least 30 unmasked pixels; the image has 20"):
        reconstruct(changed(image, mask=mask), method=QUICK)


@pytest.mark.parametrize("options, message", [
    ({"sources": 3}, "sources must be one of 'auto', 1, 2; got 3"),
    ({"lens_light": "yes"}, "lens_light must be one of 'auto', 0, 1, 2; got 'yes'"),
    ({"posterior": "mcmc"}, "posterior must be one of 'laplace', 'hmc'; got 'mcmc'"),
    ({"draws": 0}, "draws must be a whole number of at least 1; got 0"),
    ({"starts": 1.5}, "starts must be a whole number of at least 1; got 1.5"),
    ({"rounds": True}, "rounds must be a whole number of at least 1; got True"),
    ({"samples": -1}, "samples must be a whole number of at least 0; got -1"),
    ({"gamma_prior": (2.0, 0.0)}, r"gamma_prior must be \(mean, standard deviation\)"),
    ({"shear_prior": -0.1}, "shear_prior must be a positive standard deviation, or None; got -0.1"),
    ({"ellipticity_prior": 0}, "ellipticity_prior must be a positive standard deviation, or None; got 0"),
    ({"radius": 0}, "radius must be a positive number of arcsec, or None; got 0"),
    ({"device": "cuda"}, "forward runs on the CPU"),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Forward(**options)


@pytest.mark.parametrize("options", [
    {"sources": True}, {"gamma_prior": 2.0}, {"gamma_prior": ("a", "b")}, {"radius": "wide"}, {"radius": np.nan},
    {"shear_prior": "0.1"}, {"sources": np.array([1, 2])}, {"lens_light": [0]}, {"sources": 1.0},
    {"posterior": np.array(["hmc", "hmc"])}, {"device": np.array(["cpu", "cpu"])},
])
def test_options_of_the_wrong_type(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        Forward(**options)


@pytest.mark.parametrize("unit", [1e-20, 1e20])
def test_the_unit_does_not_matter(unit):
    given = simulation().image
    noise = VarianceUncertainty(given.uncertainty.array * unit**2)
    scaled = reconstruct(changed(given, data=given.data * unit, uncertainty=noise), method=QUICK, seed=1)
    assert np.allclose(values(scaled), values(reference()), rtol=0, atol=0.1 * errors(reference()))
    assert scaled.chi2 == pytest.approx(reference().chi2, rel=1e-3)


def test_a_saturated_pixel_is_flagged_or_masked():
    given = simulation().image
    data = given.data.copy()
    data[20, 20] = 1e5
    assert "poor fit" in reconstruct(changed(given, data=data), method=replace(QUICK, rounds=1), seed=1).flags
    mask = np.zeros(data.shape, bool)
    mask[20, 20] = True
    clean = reconstruct(changed(given, data=data, mask=mask), method=QUICK, seed=1)
    assert not clean.flags
    assert np.allclose(values(clean), values(reference()), rtol=0, atol=errors(reference()))


@pytest.mark.parametrize("level", [0.0, -3.0])
def test_an_image_without_light_is_refused(level):
    given = simulation().image
    with pytest.raises(ValueError, match="no unmasked pixel is above 0"):
        reconstruct(changed(given, data=np.full(given.data.shape, level)), method=QUICK, seed=1)


@pytest.mark.parametrize("level", [1e-3, 30.0])
def test_one_pixel_above_a_dark_sky_gives_no_confident_lens(level):
    """Smoothed, it may be nowhere above 0, so that nothing says where the arcs are."""
    given = simulation().image
    data = np.full(given.data.shape, -1.0)
    data[7, 9] = level
    uncertainty = VarianceUncertainty(np.ones(data.shape))
    result = reconstruct(changed(given, data=data, uncertainty=uncertainty), method=replace(QUICK, rounds=1), seed=1)
    assert result.flags


def test_overstated_noise_is_flagged():
    given = simulation().image
    louder = changed(given, uncertainty=VarianceUncertainty(4 * given.uncertainty.array))
    assert "noise overstated" in reconstruct(louder, method=QUICK, seed=1).flags


def test_understated_noise_comes_to_an_end():
    given = simulation().image
    quieter = changed(given, uncertainty=VarianceUncertainty(1e-8 * given.uncertainty.array))
    assert "poor fit" in reconstruct(quieter, method=QUICK, seed=1).flags
