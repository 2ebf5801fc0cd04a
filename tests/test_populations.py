"""Populations: what their priors say is what they draw."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from lensdeblend.scenes import EPL, SIE, PointSubhalos, Sersic, Shear, Vortex
from lensdeblend.scenes.populations import (
    Fixed, Integer, LogUniform, Normal, PowerLaw, Uniform, axion_mass, population, populations,
)
from lensdeblend.scenes.yaml import to_yaml
from lensdeblend.simulators.galsim import GalSim
from lensdeblend.simulators.lenstronomy import Lenstronomy, deflection
from lensdeblend.simulators.sampling import sample

ARC = u.arcsec


def draws(name, n, seed=1):
    chosen = population(name)
    return [chosen.draw(rng) for rng in np.random.default_rng(seed).spawn(n)]


@pytest.mark.parametrize("name", populations())
def test_a_seed_gives_the_same_scene(name):
    first, again = (to_yaml(draws(name, 1, seed=5)[0]) for _ in range(2))
    assert first == again
    assert "nan" not in first
    chosen = population(name)
    assert chosen.name == name
    for parameter, prior in chosen.priors.items():
        assert f"{parameter} " in str(chosen) and str(prior) in str(chosen)


@pytest.mark.parametrize("prior, mean, sd", [
    (Uniform(1, 3), 2, 2 / np.sqrt(12)),
    (Normal(2, 0.1), 2, 0.1),
    (LogUniform(1, np.e**2), (np.e**2 - 1) / 2, 1.790),
    (PowerLaw(-0.9, 1e6, 1e10), 1.51e9, 2.36e9),
    (PowerLaw(1.0, 0, 1), 2 / 3, np.sqrt(1 / 18)),
    (Integer(2, 6), 4, np.sqrt(2)),
    (Fixed(3.0), 3, 0),
])
def test_distributions(prior, mean, sd):
    drawn = prior.draw(np.random.default_rng(2), 40_000)
    assert drawn.mean() == pytest.approx(mean, abs=5 * sd / 200 + 1e-12, rel=0.005)
    assert drawn.std() == pytest.approx(sd, rel=0.03)
    assert np.ndim(prior.draw(np.random.default_rng(2))) == 0


def test_benchmark_lenses_follow_their_priors():
    scenes = draws("lens-benchmark", 400)
    epl = [scene.mass[0] for scene in scenes]
    theta_E = np.array([lens.theta_E.value for lens in epl])
    gamma = np.array([lens.gamma for lens in epl])
    shear = np.array([scene.mass[1].gamma1 for scene in scenes])
    assert 0.8 <= theta_E.min() < 0.81 and 1.59 < theta_E.max() <= 1.6
    assert gamma.mean() == pytest.approx(2, abs=0.025) and gamma.std() == pytest.approx(0.1, rel=0.15)
    assert shear.std() == pytest.approx(0.05, rel=0.15)
    assert all(isinstance(scene.mass[0], EPL) and isinstance(scene.mass[1], Shear) for scene in scenes)
    assert all(not scene.lens_light and len(scene.sources) == 1 for scene in scenes)


def test_sources_fill_a_disc_around_the_caustics_centre():
    distances = []
    for scene in draws("lens-benchmark", 400):
        lens, source = scene.mass[0], scene.sources[0]
        # The EPL deflects by nothing at its own centre, but is not smooth there: the mean of opposite points is.
        around = lens.center_x.value + np.array([1e-3, -1e-3]), lens.center_y.value + np.array([1e-3, -1e-3])
        alpha_x, alpha_y = deflection(scene.mass, *around)
        center = (around[0] - alpha_x).mean(), (around[1] - alpha_y).mean()
        distances.append(np.hypot(source.center_x.value - center[0], source.center_y.value - center[1]))
    distances = np.array(distances)
    assert distances.max() <= 0.3 + 1e-9
    assert np.median(distances) == pytest.approx(0.3 / np.sqrt(2), abs=0.015)


def test_peak_signal_to_noise_is_what_was_drawn():
    simulations = sample(population("lens-benchmark"), 12, Lenstronomy(3, None), np.random.default_rng(4))
    for simulation in simulations:
        sigma = np.sqrt(simulation.image.uncertainty.array)
        assert np.ptp(sigma) == 0
        peak = simulation.noiseless.data.max() / sigma[0, 0]
        assert 10 <= peak <= 100
        assert simulation.catalog["peak_snr"][0] == pytest.approx(peak)
    assert len({simulation.observation.background_rms for simulation in simulations}) == 12


def test_lens_light_sits_on_the_mass():
    for scene in draws("lens-benchmark-light", 50):
        lens, (light,) = scene.mass[0], scene.lens_light
        assert (light.center_x, light.center_y) == (lens.center_x, lens.center_y)
        assert abs(light.e1 - lens.e1) < 0.15
        assert 3 <= light.flux / scene.sources[0].flux <= 30


def test_published_lenses_have_no_noise():
    chosen = population("lens-published")
    one, = sample(chosen, 1, Lenstronomy(2, None), np.random.default_rng(1))
    assert one.image.uncertainty is None
    np.testing.assert_array_equal(one.image.data, one.noiseless.data)
    assert chosen.priors["center_x"] == Normal(0.0, 0.2)


def test_blends_keep_their_distances():
    counts = []
    for scene in draws("blends", 200):
        centers = np.array([[g.components[0].center_x.value, g.components[0].center_y.value] for g in scene.galaxies])
        counts.append(len(centers))
        apart = np.hypot(*(centers[:, None] - centers).transpose(2, 0, 1)) + np.diag(np.full(len(centers), np.inf))
        assert np.all((apart.min(axis=1) >= 0.5 - 1e-9) & (apart.min(axis=1) <= 3 + 1e-9))
        np.testing.assert_allclose(centers.mean(axis=0), 0, atol=1e-12)
    assert set(counts) == {2, 3, 4, 5, 6}


def test_blends_have_the_signal_to_noise_they_are_drawn_for():
    chosen = population("blends").with_priors(snr=Fixed(50.0), bulge_fraction=Fixed(0.0), e1=Fixed(0.0), e2=Fixed(0.0))
    one, = sample(chosen, 1, GalSim(), np.random.default_rng(3))
    # The formula takes a Gaussian where the disc is an exponential.
    np.testing.assert_allclose(one.catalog["snr"], 50, rtol=0.25)


@pytest.mark.parametrize("published, radius", [(True, 1.2815), (False, 1.6645)])
def test_deeplense_einstein_radius(published, radius):
    name = "deeplense-model-1-none" + published * "-published"
    main, shear = draws(name, 1)[0].mass
    assert isinstance(main, SIE)
    assert main.theta_E.to_value(ARC) == pytest.approx(radius, abs=6e-5)
    assert (main.e1, main.e2, shear.gamma1, shear.gamma2) == (0.1, 0, 0.05, 0)


@pytest.mark.parametrize("variant", ["", "-published"])
def test_deeplense_axion(variant):
    masses = []
    for scene in draws("deeplense-model-2-axion" + variant, 60):
        main, _, vortex = scene.mass
        assert isinstance(vortex, Vortex) and vortex.n == 100
        assert float(vortex.theta_E / main.theta_E) ** 2 == pytest.approx(0.03)
        points = vortex.points
        assert float(np.sum(points.theta_E**2 / main.theta_E**2)) * 1e12 == pytest.approx(3e10)
        step = np.hypot(np.diff(points.center_x), np.diff(points.center_y))
        np.testing.assert_allclose(step, 2 * vortex.half_length / 99)
        mass = axion_mass(scene)
        assert (vortex.half_length * (mass / (1e-22 * u.eV))).to_value(ARC) == pytest.approx(0.03)
        masses.append(np.log10(mass.to_value(u.eV)))
    assert -24 <= min(masses) < -23.8 and -22.2 < max(masses) <= -22
    if variant:
        assert points.theta_E[0].to_value(ARC) == pytest.approx(0.0222, abs=5e-5)


@pytest.mark.parametrize("variant, mean_mass", [("-published", 1.5e9), ("", 1.36e7)])
def test_deeplense_cdm(variant, mean_mass):
    masses, distances = [], []
    for scene in draws("deeplense-model-3-cdm" + variant, 300):
        main, _, subhalos = scene.mass
        assert isinstance(subhalos, PointSubhalos) and len(subhalos.theta_E) == 25
        masses.append((1e12 * (subhalos.theta_E / main.theta_E) ** 2).value)
        distances.append(np.hypot(subhalos.center_x, subhalos.center_y).value)
    masses, distances = np.concatenate(masses), np.concatenate(distances)
    assert masses.min() >= 1e6 * (1 - 1e-9) and masses.max() <= 1e10 * (1 + 1e-9)
    assert masses.mean() == pytest.approx(mean_mass, rel=0.06 if variant else 0.5)
    assert distances.min() >= 0.25 - 1e-9 and distances.max() <= 2 + 1e-9
    assert distances.mean() == pytest.approx(1.125, abs=0.03)


@pytest.mark.parametrize("model, shape, scale, zero_point", [
    (1, 150, 0.05, None), (2, 64, 0.101, 24.0), (3, 64, 0.08, 25.96),
])
def test_deeplense_instruments(model, shape, scale, zero_point):
    chosen = population(f"deeplense-model-{model}-none")
    observation = chosen.observation
    assert observation.shape == (shape, shape)
    assert observation.pixel_scale.to_value(ARC) == pytest.approx(scale)
    assert observation.zero_point == zero_point
    source = draws(chosen.name, 1)[0].sources[0]
    assert (source.radius, source.n, source.e1, source.e2) == (0.25 * ARC, 1.0, -0.1, 0.1)
    if model > 1:
        assert source.flux.value == 20
        assert "1.9.3" in observation.provenance
        noiseless = population(f"deeplense-model-{model}-none-noiseless").observation
        assert noiseless.variance(np.ones((2, 2))).max() == 0
        assert observation.variance(np.ones((2, 2))).min() > 0


def test_deeplense_model_1_draws_its_exposure():
    chosen = population("deeplense-model-1-none")
    times = [chosen.observe(rng, 1.0).exposure_time.value for rng in np.random.default_rng(1).spawn(200)]
    assert 1000 <= min(times) < 1050 and 3000 < max(times) <= 3163


def test_deeplense_model_1_signal_to_noise():
    name = "deeplense-model-1-none-published"
    seen = sample(population(name), 10, Lenstronomy(1, None), np.random.default_rng(2))
    assert 10 < np.mean([simulation.catalog["peak_snr"][0] for simulation in seen]) < 30


def test_sersic_amplitude_is_its_brightness_at_the_radius():
    chosen = population("deeplense-model-1-none").with_priors(source_x=Fixed(0.0), source_y=Fixed(0.0))
    source = replace(chosen.draw(np.random.default_rng(1)).sources[0], e1=0.0, e2=0.0)
    from lenstronomy.LightModel.light_model import LightModel

    from lensdeblend.simulators.lenstronomy import _light

    model, parameters = _light([source], chosen.observation)
    assert isinstance(source, Sersic) and isinstance(model, LightModel)
    assert model.surface_brightness(np.array([0.25]), np.array([0.0]), parameters)[0] == pytest.approx(20, rel=1e-6)


def test_super_resolution_twin():
    low = population("deeplense-model-2-none").observation
    high = low.refined(2)
    assert high.shape == (128, 128) and high.psf == low.psf
    assert high.pixel_scale * 2 == low.pixel_scale


def test_bad_names():
    with pytest.raises(ValueError, match="did you mean 'lens-benchmark'"):
        population("lens-benchmrk")
    with pytest.raises(ValueError, match="did you mean 'theta_E'"):
        population("lens-benchmark").with_priors(theta_e=Fixed(1.0))
    with pytest.raises(TypeError, match="must be a Distribution"):
        population("lens-benchmark").with_priors(theta_E=1.0)
