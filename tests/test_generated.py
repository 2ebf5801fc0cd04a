"""Generated galaxies as sources of scenes: from any generator, through any simulator, sheared, magnified and lensed."""

from dataclasses import dataclass, replace

import astropy.units as u
import galsim
import numpy as np
import pytest

from lensdeblend import generate, simulate
from lensdeblend.cli.main import main
from lensdeblend.generators.cosmos import Cosmos
from lensdeblend.generators.sersic import Sersic as SersicGenerator
from lensdeblend.generators.vae_flow import VaeFlow
from lensdeblend.results import Simulation
from lensdeblend.scenes import (
    SIE, Galaxy, GaussianPSF, GeneratedSource, ImageSource, Observation, Scene, Sersic, Shear, SourceGenerator,
)
from lensdeblend.scenes.populations import Fixed, Population, population, read_population
from lensdeblend.scenes.populations.yaml import population_from_yaml, population_to_yaml
from lensdeblend.scenes.yaml import from_yaml, to_yaml
from lensdeblend.simulators.galsim import GalSim
from lensdeblend.simulators.generated import generated
from lensdeblend.simulators.lenstronomy import Lenstronomy
from lensdeblend.simulators.sampling import sample
from lensdeblend.simulators.torch import Torch

ARC = u.arcsec
OBSERVATION = Observation(0.1 * ARC, (61, 61), GaussianPSF(0.2 * ARC), unit=u.ct / u.s, zero_point=25.94)
SIMULATORS = ["torch", "lenstronomy", "galsim"]
WISHES = {"radius": 0.3 * ARC, "n": 1.2, "e1": 0.2, "e2": -0.1, "flux": 40.0}


@pytest.fixture(scope="module", params=["sersic", "vae-flow", "cosmos"])
def galaxy(request, shared_data):
    """One galaxy of each built-in generator."""
    if request.param == "cosmos":
        catalog = shared_data / "cosmos_galaxies" / "cosmos_catalog.fits"
        if not catalog.is_file():
            pytest.skip(f"needs {catalog}")
        method = Cosmos(catalog=catalog, psf=GaussianPSF(0.2 * ARC), noise="none", pixels=48, measure=False)
        # Most are as faint as their noise.
        return max(generate(12, method=method, seed=1).images, key=lambda image: image.data[16:32, 16:32].sum())
    method = {"sersic": SersicGenerator, "vae-flow": VaeFlow}[request.param](measure=False)
    return generate(1, conditions=WISHES, method=method, seed=3).images[0]


def interpolated(image):
    pixels = galsim.Image(np.ascontiguousarray(image.data, dtype=float))
    return galsim.InterpolatedImage(pixels, x_interpolant="linear", scale=image.meta["PIXSCALE"])


def drawn(profile, scale=0.015, pixels=500):
    return profile.drawImage(nx=pixels, ny=pixels, scale=scale, method="no_pixel", dtype=float).array


def shape(pixels):
    """Adaptive moments: the reduced shear e1 + i e2, and the size."""
    found = galsim.hsm.FindAdaptiveMom(galsim.Image(np.ascontiguousarray(pixels)), guess_sig=20.0)
    return complex(found.observed_shape.g1, found.observed_shape.g2), found.moments_sigma


@pytest.mark.parametrize("g, mu", [(0.1 + 0.05j, 1.4), (-0.2 + 0.1j, 1.0), (0.3j, 2.0)])
def test_a_galaxy_is_sheared_and_magnified(galaxy, g, mu):
    """Adaptive moments go along with every linear map of the image, whatever the galaxy looks like."""
    profile = interpolated(galaxy)
    e, size = shape(drawn(profile))
    image = drawn(profile.lens(g.real, g.imag, mu))
    sheared, magnified = shape(image)
    assert profile.flux == pytest.approx(galaxy.data.sum())
    assert image.sum() == pytest.approx(mu * galaxy.data.sum(), rel=0.002)
    assert abs(sheared - (e + g) / (1 + np.conj(g) * e)) < 0.001
    assert magnified / size == pytest.approx(mu**0.5, rel=0.002)
    assert abs(sheared - e) > 0.05


def test_torch_and_galsim_draw_the_same(galaxy):
    scene = Scene(sources=[ImageSource(galaxy, center_x=0.13 * ARC, angle=30 * u.deg)])
    observation = replace(OBSERVATION, pixel_scale=0.2 * ARC, shape=(25, 25))
    one, other = (simulate(scene, observation, method=name).noiseless.data for name in ("torch", "galsim"))
    assert one.sum() == pytest.approx(galaxy.data.sum(), rel=0.01)
    np.testing.assert_allclose(one, other, atol=1e-3 * one.max())


def test_a_shear_of_a_lens_is_galsims(galaxy):
    g = 0.1 + 0.05j
    mu = 1 / (1 - abs(g) ** 2)
    observation = replace(OBSERVATION, pixel_scale=0.05 * ARC, shape=(121, 121), psf=None)
    scene = Scene([Shear(g.real, g.imag)], sources=[ImageSource(galaxy)])
    ours = simulate(scene, observation, method="torch").noiseless.data
    theirs = interpolated(galaxy).lens(g.real, g.imag, mu).drawImage(nx=121, ny=121, scale=0.05, dtype=float).array
    assert ours.sum() == pytest.approx(mu * galaxy.data.sum(), rel=0.01)
    # GalSim draws in Fourier space, where the corners of a linear interpolation are lost.
    np.testing.assert_allclose(ours, theirs, atol=0.01 * ours.max())


def test_a_lens_magnifies_a_galaxy_equally(galaxy):
    scene = Scene([SIE(1.0 * ARC, 0.1, 0.05), Shear(0.03, 0.0)], sources=[ImageSource(galaxy, center_x=0.1 * ARC)])
    one, other = (simulate(scene, OBSERVATION, method=name).noiseless.data for name in ("torch", "lenstronomy"))
    assert one.sum() > 3 * galaxy.data.sum()
    assert one.sum() == pytest.approx(other.sum(), rel=1e-3)
    np.testing.assert_allclose(one, other, atol=1e-3 * one.max())


class TestPopulations:
    @pytest.mark.parametrize("name", ["lens-benchmark", "lens-benchmark-light", "blends", "deeplense-model-1-axion"])
    def test_only_the_sources_differ(self, name):
        own, made = population(name), population(name).with_generator("sersic")
        one, other = (chosen.draw(np.random.default_rng(4)) for chosen in (own, made))
        assert other.mass == one.mass and other.lens_light == one.lens_light
        for profiles, galaxy in zip(one.galaxies, other.galaxies, strict=True):
            source, = galaxy.components
            first = profiles.components[0]
            assert isinstance(source, GeneratedSource) and galaxy.name == profiles.name
            assert (source.center_x, source.center_y) == (first.center_x, first.center_y)
            assert source.flux == pytest.approx(sum(part.flux for part in profiles.components))
            wished = source.generator.conditions
            assert (wished["e1"], wished["e2"]) == (first.e1, first.e2)
            assert wished["radius"] <= first.radius and ("n" in wished) == (len(profiles.components) == 1)
        assert to_yaml(made.draw(np.random.default_rng(4))) == to_yaml(other)
        assert from_yaml(to_yaml(other)) == other

    @pytest.mark.parametrize("simulator", [Torch(), Lenstronomy(3, None), GalSim()], ids=SIMULATORS)
    @pytest.mark.parametrize("method", ["sersic", "vae-flow"])
    def test_any_generator_through_any_simulator(self, method, simulator):
        blends = population("blends").with_priors(count=Fixed(2), disc_radius=Fixed(0.3), separation=Fixed(0.8))
        blends = replace(blends.with_generator(method), observation=replace(blends.observation, shape=(28, 28)))
        one, = sample(blends, 1, simulator, np.random.default_rng(1))
        again, = sample(blends, 1, simulator, np.random.default_rng(1))
        own, = sample(replace(blends, generator=None), 1, simulator, np.random.default_rng(1))
        np.testing.assert_array_equal(one.image.data, again.image.data)
        assert not np.array_equal(one.noiseless.data, own.noiseless.data)
        for name in ("x", "y", "flux"):
            np.testing.assert_allclose(one.catalog[name], own.catalog[name])
        np.testing.assert_allclose(one.catalog["flux_seen"], own.catalog["flux_seen"], rtol=0.05)
        first, second = (galaxy.components[0] for galaxy in one.scene.galaxies)
        assert isinstance(first, ImageSource) and not np.array_equal(first.image.data, second.image.data)
        assert first.image.meta["GENERATOR"] == method
        assert to_yaml(from_yaml(to_yaml(one.scene))) == to_yaml(one.scene)

    def test_a_lens_with_a_sersic_galaxy_is_the_lens_with_the_profile(self):
        """The generator makes what the population would have drawn, so the images agree but for the stamp's pixels."""
        lenses = population("lens-benchmark").with_priors(source_n=Fixed(1.0))
        scenes = [chosen.draw(np.random.default_rng(2)) for chosen in (lenses, lenses.with_generator("sersic"))]
        one, other = (simulate(scene, lenses.observation, method="torch").noiseless.data for scene in scenes)
        assert other.sum() == pytest.approx(one.sum(), rel=0.01)
        np.testing.assert_allclose(other, one, atol=0.03 * one.max())

    def test_wishes_can_be_changed_and_left_out(self):
        conditions = {"n": None, "radius": 0.15 * ARC}
        lenses = population("lens-benchmark").with_generator("sersic", options={"pixels": 48}, conditions=conditions)
        source, = lenses.draw(np.random.default_rng(1)).sources
        assert source.generator.conditions["radius"] == 0.15 * ARC and "n" not in source.generator.conditions
        image = generated(Scene(sources=[source])).sources[0].image
        assert image.data.shape == (48, 48) and image.meta["PIXSCALE"] == pytest.approx(16 * 0.15 / 48)
        assert "sources by sersic, options pixels=48, conditions n=None, radius=0.15 arcsec" in str(lenses)

    def test_yaml(self, tmp_path):
        options, conditions = {"psf": GaussianPSF(0.1 * ARC), "pixels": 64}, {"n": None, "radius": 0.2 * ARC}
        lenses = population("lens-benchmark").with_generator("vae-flow", options=options, conditions=conditions)
        assert population_from_yaml(population_to_yaml(lenses)) == lenses
        (tmp_path / "lenses.yaml").write_text(
            "population: lens-benchmark\npriors: {theta_E: {Fixed: 1.1}}\n"
            "generator: {method: sersic, options: {pixels: 64}, conditions: {radius: 0.2 arcsec, n: null}}\n"
        )
        read = read_population(tmp_path / "lenses.yaml")
        assert read.priors["theta_E"] == Fixed(1.1) and read.priors["gamma"] == lenses.priors["gamma"]
        assert read.generator == SourceGenerator("sersic", {"pixels": 64}, {"radius": 0.2 * ARC, "n": None})
        read.write(tmp_path / "again.yaml")
        assert read_population(tmp_path / "again.yaml") == read
        for name in ("blends", "deeplense-model-1-cdm-published", "deeplense-model-2-none"):
            assert population_from_yaml(population_to_yaml(population(name))).priors == population(name).priors

    @pytest.mark.parametrize("text, complaint", [
        ("generator: sersic", "needs either the name of a known one"),
        ("{population: lens-benchmrk}", "did you mean 'lens-benchmark'"),
        ("{population: blends, generators: sersic}", "has no 'generators'; did you mean 'generator'"),
        ("{population: blends, generator: {methods: sersic}}", "generator: a generator has no 'methods'; did you mean"),
        ("{population: blends, generator: {options: {pixels: 64}}}", "a generator needs its method"),
        ("{population: blends, generator: {method: sersic, conditions: [1]}}", "conditions must be a mapping"),
        ("{population: blends, priors: {count: 3}}", "priors: count must be one of Fixed"),
        ("{kind: BlendPopulation, name: mine}", "BlendPopulation needs 'summary'"),
        ("{kind: Blends}", "unknown kind of population 'Blends'; did you mean 'BlendPopulation'"),
        ("[1", "not valid YAML"),
    ])
    def test_bad_yaml(self, text, complaint):
        with pytest.raises(ValueError, match=complaint):
            population_from_yaml(text)

    def test_a_population_that_cannot_take_one(self):
        @dataclass(frozen=True)
        class Alone(Population):
            def draw(self, rng):
                return Scene(sources=[Sersic(1.0, 0.2 * ARC)])

        alone = Alone("alone", "one galaxy", OBSERVATION, {})
        with pytest.raises(ValueError, match="alone: a Alone takes no generator"):
            alone.with_generator("sersic")
        with pytest.raises(TypeError, match="cannot write a Alone as YAML"):
            population_to_yaml(alone)


class TestScenes:
    def test_a_galaxy_of_a_scene_in_yaml(self):
        scene = from_yaml(
            "Scene: {sources: [{GeneratedSource: {generator: {method: sersic, conditions: {radius: 0.3 arcsec, n: 1}}, "
            "flux: 20.0 mag(AB), seed: 3}}, {Galaxy: {components: [{GeneratedSource: {generator: sersic, flux: 5, "
            "center_x: 1 arcsec}}]}}], lens_light: [{GeneratedSource: {generator: sersic, flux: 2}}]}"
        )
        result = simulate(scene, OBSERVATION, method="torch")
        expected = OBSERVATION.flux(20 * u.ABmag)
        np.testing.assert_allclose(result.catalog["flux"].value, [expected, 5.0])
        assert all(isinstance(part, ImageSource) for part in result.scene.lens_light)
        assert isinstance(result.scene.sources[1], Galaxy)

    def test_without_a_flux_it_is_as_bright_as_the_generator_makes_it(self):
        wishes = SourceGenerator("sersic", conditions={"magnitude": 21.0, "radius": 0.2 * ARC, "n": 1.0})
        result = simulate(Scene(sources=[GeneratedSource(wishes)]), OBSERVATION, method="torch")
        assert result.catalog["magnitude"][0].value == pytest.approx(21.0)

    def test_a_scene_without_generators_is_left_as_it_is(self):
        scene = Scene(sources=[Sersic(1.0, 0.2 * ARC)])
        assert generated(scene) is scene

    @pytest.mark.parametrize("generator, error, complaint", [
        (SourceGenerator("sersik"), ValueError, "unknown generator 'sersik'; did you mean 'sersic'"),
        (SourceGenerator("sersic", {"pixel": 64}), TypeError, "has no option 'pixel'; did you mean"),
        (SourceGenerator("sersic", {"pixels": 3}), ValueError, "pixels must be a whole number"),
        (SourceGenerator("sersic", {}, {"radis": 1.0}), ValueError, "unknown condition 'radis'"),
        (SourceGenerator("vae-flow", {"bands": ("g", "r", "i")}), ValueError, "in the bands g, r, i, and a scene is"),
    ])
    def test_generators_that_cannot_be_used(self, generator, error, complaint):
        with pytest.raises(error, match=complaint):
            simulate(Scene(sources=[GeneratedSource(generator, 1.0)]), OBSERVATION)

    @pytest.mark.parametrize("arguments, error, complaint", [
        ((3,), TypeError, "must be the name of a generator"),
        (({"method": "sersic", "n": 1},), ValueError, "has no 'n'"),
        (("sersic", "bright"), TypeError, "flux must be"), (("sersic", 1.0, -1), ValueError, "seed must be"),
    ])
    def test_bad_records(self, arguments, error, complaint):
        with pytest.raises(error, match=complaint):
            GeneratedSource(*arguments)

    @pytest.mark.parametrize("simulator", [Torch(), Lenstronomy(), GalSim()], ids=SIMULATORS)
    def test_a_simulator_says_who_makes_it(self, simulator):
        with pytest.raises(ValueError, match="GeneratedSource, which has still to be made: call lensdeblend.simulate"):
            simulator.simulate(Scene(sources=[GeneratedSource("sersic", 1.0)]), OBSERVATION, np.random.default_rng(1))


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def own_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def test_a_population_with_a_generator(self):
        args = ["simulate", "--population", "lens-benchmark", "--method", "torch", "--seed", "1"]
        args += ["--generator", "sersic", "--generator-set", "pixels=48", "--condition", "n=1"]
        args += ["--condition", "e1=none"]
        assert main([*args, "-o", "one.fits"]) == 0 and main([*args, "-o", "two.fits"]) == 0
        one, two = (Simulation.read(name) for name in ("one.fits", "two.fits"))
        np.testing.assert_array_equal(one.image.data, two.image.data)
        image = one.scene.sources[0].image
        assert image.data.shape == (48, 48) and image.meta["wished n"] == 1.0 and "wished e1" not in image.meta

    def test_a_population_of_ones_own(self):
        mine = replace(population("blends").with_priors(count=Fixed(2)).with_generator("sersic"), name="mine")
        mine.write("mine.yaml")
        assert main(["simulate", "--population", "mine.yaml", "--method", "torch", "--n", "2", "-o", "out"]) == 0
        assert len(Simulation.read("out/mine_2_simulation.fits").sources) == 2

    @pytest.mark.parametrize("args, complaint", [
        (["--population", "blends", "--generator", "sersik"], "did you mean 'sersic'"),
        (["--population", "blends", "--generator", "sersic", "--generator-set", "pixel=8"], "has no option 'pixel'"),
        (["--population", "blends", "--generator", "sersic", "--generator-set", "pixels=.5"], "--generator-set pix"),
        (["--population", "blends", "--condition", "n=1"], "go with --generator"),
        (["scene.yaml", "--generator", "sersic"], "--generator goes with --population"),
        (["--population", "absent.yaml"], "absent.yaml"),
    ])
    def test_bad_usage(self, capsys, args, complaint):
        assert main(["simulate", *args]) == 2
        assert complaint in capsys.readouterr().err
