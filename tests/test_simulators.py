"""Simulators against analytic results, against each other, and against the noise they promise."""

import warnings
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData
from photutils.aperture import CircularAperture

from lensdeblend.scenes import (
    EPL, NFW, SIE, Galaxy, Gaussian, GaussianPSF, ImageSource, Knots, Observation, PointMass, PointSource,
    PointSubhalos, RealGalaxy, Scene, Sersic, Shear, TruncatedNFW, Vortex,
)
from lensdeblend.scenes.presets import preset, presets
from lensdeblend.simulators.galsim import GalSim
from lensdeblend.simulators.lenstronomy import Lenstronomy, deflection

ARC = u.arcsec
DATA = Path(__file__).parents[1].parent / "shared" / "data"
OBSERVATION = Observation(0.1 * ARC, (61, 71), GaussianPSF(0.25 * ARC), zero_point=25.0)
SIMULATORS = [Lenstronomy(), GalSim()]
LIGHT = [
    Sersic(20 * u.ABmag, 0.3 * ARC, 1.0, 0.2, -0.1, 0.13 * ARC, -0.22 * ARC),
    Sersic(100.0, 0.2 * ARC, 2.5, 0.0, 0.3, 0.05 * ARC, 0.05 * ARC),
    Gaussian(100.0, 0.25 * ARC, 0.1, 0.2, 0.05 * ARC, 0.0 * ARC),
    PointSource(100.0, 0.33 * ARC, -0.41 * ARC),
]


def image_source(flux=None, angle=0 * u.deg):
    y, x = np.mgrid[-12:13, -12:13]
    pixels = np.exp(-0.5 * ((x / 2.8) ** 2 + (y / 1.5) ** 2))
    return ImageSource(NDData(pixels, meta={"PIXSCALE": 0.06}), flux, angle, 0.1 * ARC, -0.2 * ARC)


def seen(simulator, *sources, mass=(), lens_light=(), observation=OBSERVATION, seed=1):
    return simulator.simulate(Scene(mass, lens_light, sources), observation, np.random.default_rng(seed))


def moments(image, scale=0.1):
    """Centre and second moments, arcsec from the image's centre."""
    ny, nx = image.shape
    y, x = np.mgrid[:ny, :nx]
    x, y = (x - (nx - 1) / 2) * scale, (y - (ny - 1) / 2) * scale
    total = image.sum()
    cx, cy = (image * x).sum() / total, (image * y).sum() / total
    xx, yy, xy = (((image * a * b).sum() / total) for a, b in ((x - cx, x - cx), (y - cy, y - cy), (x - cx, y - cy)))
    return cx, cy, xx, yy, xy


@pytest.mark.parametrize("simulator", SIMULATORS, ids=["lenstronomy", "galsim"])
@pytest.mark.parametrize("light", [*LIGHT, image_source(100.0)], ids=lambda part: type(part).__name__)
def test_flux_is_conserved_and_centred(simulator, light):
    observation = replace(OBSERVATION, shape=(121, 131))
    simulation = seen(simulator, light, observation=observation)
    assert simulation.noiseless.data.sum() == pytest.approx(100, rel=2e-3)
    assert simulation.catalog["flux"][0].value == pytest.approx(100)
    assert simulation.catalog["magnitude"][0].value == pytest.approx(20)
    cx, cy, *_ = moments(simulation.noiseless.data)
    tolerance = 2e-3 if isinstance(light, Sersic) else 2e-4
    assert cx == pytest.approx(light.center_x.value, abs=tolerance)
    assert cy == pytest.approx(light.center_y.value, abs=tolerance)
    assert simulation.catalog["x"][0].value == pytest.approx(65 + light.center_x.value / 0.1)
    assert simulation.catalog["y"][0].value == pytest.approx(60 + light.center_y.value / 0.1)


@pytest.mark.parametrize("light", [
    *LIGHT, image_source(), image_source(3.0, 35 * u.deg), Sersic(100.0, 0.3 * ARC, 4.0, 0.1, 0.1),
    Galaxy((LIGHT[0], LIGHT[1])),
], ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("psf", [GaussianPSF(0.25 * ARC), GaussianPSF(0.3 * ARC).kernel(0.1 * ARC), None])
def test_lenstronomy_and_galsim_draw_the_same(light, psf):
    observation = replace(OBSERVATION, psf=psf)
    one, other = (seen(simulator, light, observation=observation).noiseless.data for simulator in SIMULATORS)
    np.testing.assert_allclose(one, other, atol=2e-4 * one.max(), rtol=0)


@pytest.mark.parametrize("simulator", SIMULATORS, ids=["lenstronomy", "galsim"])
def test_light_from_outside_the_frame_is_scattered_in(simulator):
    outside = Gaussian(100.0, 0.1 * ARC, center_x=3.8 * ARC)
    observation = replace(OBSERVATION, psf=GaussianPSF(0.8 * ARC))
    wide = replace(observation, shape=(61, 131))
    part = seen(simulator, outside, observation=observation).noiseless.data
    whole = seen(simulator, outside, observation=wide).noiseless.data
    np.testing.assert_allclose(part, whole[:, 30:-30], atol=1e-10)
    assert part.sum() > 1


@pytest.mark.parametrize("simulator", SIMULATORS, ids=["lenstronomy", "galsim"])
def test_ellipticity_is_reduced_shear(simulator):
    e1, e2, sigma = 0.2, -0.3, 0.5
    light = Gaussian(1.0, sigma * ARC, e1, e2)
    *_, xx, yy, xy = moments(seen(simulator, light, observation=replace(OBSERVATION, psf=None)).noiseless.data)
    pixel = 0.1**2 / 12
    xx, yy = xx - pixel, yy - pixel
    norm = xx + yy + 2 * np.sqrt(xx * yy - xy**2)
    assert ((xx - yy) / norm, 2 * xy / norm) == (pytest.approx(e1, abs=1e-3), pytest.approx(e2, abs=1e-3))
    assert np.sqrt(np.sqrt(xx * yy - xy**2)) == pytest.approx(sigma, rel=1e-3)


@pytest.mark.parametrize("simulator", SIMULATORS, ids=["lenstronomy", "galsim"])
@pytest.mark.parametrize("n", [0.7, 1.0, 2.0, 4.0])
def test_half_of_a_sersics_light_is_within_its_radius(simulator, n):
    observation = Observation(0.05 * ARC, (161, 161))
    image = seen(simulator, Sersic(1.0, 1 * ARC, n), observation=observation).noiseless.data
    assert CircularAperture((80, 80), 20).do_photometry(image)[0][0] == pytest.approx(0.5, abs=5e-4)


@pytest.mark.parametrize("theta_E", [0.8, 1.6])
def test_einstein_ring_lies_at_theta_E(theta_E):
    simulation = seen(Lenstronomy(), Gaussian(1.0, 0.03 * ARC), mass=[SIE(theta_E * ARC)])
    image = simulation.noiseless.data
    y, x = np.mgrid[-30:31, -35:36] * 0.1
    assert (image * np.hypot(x, y)).sum() / image.sum() == pytest.approx(theta_E, abs=0.02)
    assert image[30, 35] < 0.01 * image.max()


def test_magnification_of_an_isothermal_sphere():
    """A source at distance b inside theta_E is magnified by 2 theta_E / b, its two images together."""
    source = Gaussian(1.0, 0.02 * ARC, center_x=0.3 * ARC)
    simulation = seen(Lenstronomy(8, 1e-5), source, mass=[SIE(1 * ARC)])
    assert simulation.noiseless.data.sum() == pytest.approx(2 / 0.3, rel=5e-3)
    assert simulation.unlensed.data.sum() == pytest.approx(1, rel=1e-3)
    assert simulation.catalog["flux_seen"][0].value == pytest.approx(2 / 0.3, rel=5e-3)


def test_image_is_point_symmetric_for_centred_parts():
    simulation = seen(
        Lenstronomy(), Sersic(1.0, 0.2 * ARC, 1.0, 0.1, 0.2), mass=[EPL(1 * ARC, 2.1, 0.1, -0.1), Shear(0.05, 0.02)]
    )
    image = simulation.noiseless.data
    np.testing.assert_allclose(image, image[::-1, ::-1], atol=1e-9 * image.max())


def test_a_turned_scene_is_a_turned_image():
    """A quarter turn sends (x, y) to (-y, x), and every spin-2 component to its negative."""
    mass = [EPL(1 * ARC, 2.1, 0.1, -0.1, 0.05 * ARC, 0.1 * ARC), Shear(0.05, 0.02)]
    turned = [EPL(1 * ARC, 2.1, -0.1, 0.1, -0.1 * ARC, 0.05 * ARC), Shear(-0.05, -0.02)]
    observation = replace(OBSERVATION, shape=(61, 61))
    source = Gaussian(1.0, 0.2 * ARC, 0.2, 0.1, 0.1 * ARC, 0.2 * ARC)
    turned_source = Gaussian(1.0, 0.2 * ARC, -0.2, -0.1, -0.2 * ARC, 0.1 * ARC)
    one = seen(Lenstronomy(), source, mass=mass, observation=observation)
    other = seen(Lenstronomy(), turned_source, mass=turned, observation=observation)
    np.testing.assert_allclose(np.rot90(one.noiseless.data, -1), other.noiseless.data, atol=1e-8)


@pytest.mark.parametrize("mass, expected", [
    (Shear(0.1, -0.2), lambda x, y: (0.1 * x - 0.2 * y, -0.2 * x - 0.1 * y)),
    (SIE(1.2 * ARC), lambda x, y: (1.2 * x / np.hypot(x, y), 1.2 * y / np.hypot(x, y))),
    (EPL(1.2 * ARC, 2.5), lambda x, y: (1.2**1.5 * x / np.hypot(x, y) ** 1.5, 1.2**1.5 * y / np.hypot(x, y) ** 1.5)),
    (PointMass(0.5 * ARC, 0.1 * ARC), lambda x, y: tuple(
        0.25 * d / ((x - 0.1) ** 2 + y**2) for d in (x - 0.1, y)
    )),
])
def test_deflections_known_in_closed_form(mass, expected):
    x, y = np.random.default_rng(1).uniform(-2, 2, (2, 50))
    np.testing.assert_allclose(deflection([mass], x, y), expected(x, y), atol=1e-9)


def test_point_masses_add_up():
    x, y = np.random.default_rng(1).uniform(-2, 2, (2, 50))
    parts = [PointMass(0.1 * ARC, 1 * ARC), PointMass(0.2 * ARC, -1 * ARC, 0.5 * ARC)]
    together = PointSubhalos([0.1, 0.2] * ARC, [1, -1] * ARC, [0, 0.5] * ARC)
    np.testing.assert_allclose(deflection([together], x, y), deflection(parts, x, y), atol=1e-14)
    far = deflection([Vortex(0.3 * ARC, 0.1 * ARC, 30 * u.deg)], np.array([100.0]), np.array([0.0]))
    assert far[0][0] == pytest.approx(0.09 / 100, rel=1e-5)
    two_the_same = deflection([together, together], x, y)
    np.testing.assert_allclose(two_the_same, 2 * np.array(deflection([together], x, y)))


def test_haloes():
    at_Rs = deflection([NFW(0.5 * ARC, 0.2 * ARC)], np.array([0.5]), np.array([0.0]))
    assert at_Rs[0][0] == pytest.approx(0.2, rel=1e-4)
    x, y = np.array([0.3, 2.0]), np.array([0.1, -1.0])
    wide = deflection([TruncatedNFW(0.5 * ARC, 0.2 * ARC, 1e4 * ARC)], x, y)
    np.testing.assert_allclose(wide, deflection([NFW(0.5 * ARC, 0.2 * ARC)], x, y), rtol=1e-3)


def test_refinement_resolves_what_a_fixed_division_does_not():
    observation = replace(OBSERVATION, shape=(29, 29))
    mass, source = [SIE(1 * ARC, 0.2)], Sersic(1.0, 0.05 * ARC, 1.0, center_x=0.1 * ARC)
    truth, coarse, refined = (
        seen(simulator, source, mass=mass, observation=observation).noiseless.data
        for simulator in (Lenstronomy(32, None), Lenstronomy(2, None), Lenstronomy(2, 1e-4))
    )
    assert np.abs(coarse - truth).max() > 0.01 * truth.max()
    assert np.abs(refined - truth).max() < 3e-4 * truth.max()


def test_images_are_those_of_lenstronomys_image_model():
    from lenstronomy.Data.pixel_grid import PixelGrid
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    scene = Scene(
        mass=[EPL(1.2 * ARC, 2.2, 0.1, -0.1, 0.03 * ARC, -0.05 * ARC), Shear(0.05, 0.02)],
        sources=[Gaussian(10.0, 0.2 * ARC, 0.1, 0.05, 0.1 * ARC, -0.05 * ARC)],
    )
    observation = Observation(0.1 * ARC, (40, 40))
    ours = Lenstronomy(4, None).simulate(scene, observation, np.random.default_rng(1)).noiseless.data
    grid = PixelGrid(nx=40, ny=40, transform_pix2angle=0.1 * np.eye(2), ra_at_xy_0=-1.95, dec_at_xy_0=-1.95)
    lens, light = LensModel(["EPL", "SHEAR"]), LightModel(["GAUSSIAN_ELLIPSE"])
    model = ImageModel(grid, PSF("NONE"), lens, light, kwargs_numerics={"supersampling_factor": 4})
    theirs = model.image(
        [{"theta_E": 1.2, "gamma": 2.2, "e1": 0.1, "e2": -0.1, "center_x": 0.03, "center_y": -0.05},
         {"gamma1": 0.05, "gamma2": 0.02}],
        [{"amp": 10.0, "sigma": 0.2, "e1": 0.1, "e2": 0.05, "center_x": 0.1, "center_y": -0.05}],
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-10 * theirs.max())


def test_all_of_a_lens_simulation_is_there():
    lens_light = [Sersic(50.0, 0.5 * ARC, 4.0)]
    sources = Galaxy((Sersic(4.0, 0.1 * ARC, 1.0), Sersic(6.0, 0.3 * ARC, 1.0)), "pair"), Gaussian(3.0, 0.1 * ARC)
    one = seen(Lenstronomy(), *sources, mass=[SIE(1 * ARC)], lens_light=lens_light)
    alone = np.sum([source.data for source in one.sources], axis=0)
    light = seen(Lenstronomy(), lens_light=lens_light).noiseless.data
    np.testing.assert_allclose(one.noiseless.data, alone + light, atol=1e-10)
    assert one.image.uncertainty is None
    for image in (one.image, one.noiseless, one.unlensed, *one.sources):
        assert image.data.shape == (61, 71)
        assert image.meta["PIXSCALE"] == pytest.approx(0.1)
        assert image.unit == u.electron / u.s
        np.testing.assert_allclose(image.psf, OBSERVATION.kernel)
    assert one.source.meta["PIXSCALE"] < 0.05
    assert one.source.data.sum() == pytest.approx(13, rel=0.05)
    assert one.source.psf is None
    assert list(one.catalog["name"]) == ["pair", ""]
    radius = one.catalog["radius"][0].to_value(ARC)
    assert 0.1 < radius < 0.3


def test_source_plane_shows_where_the_source_is():
    source = Gaussian(5.0, 0.1 * ARC, center_x=0.4 * ARC, center_y=-0.3 * ARC)
    plane = seen(Lenstronomy(), source, mass=[SIE(1 * ARC)]).source
    cx, cy, xx, *_ = moments(plane.data, plane.meta["PIXSCALE"])
    assert plane.meta["CENTER_X"] + cx == pytest.approx(0.4, abs=1e-6)
    assert plane.meta["CENTER_Y"] + cy == pytest.approx(-0.3, abs=1e-6)
    assert np.sqrt(xx) == pytest.approx(0.1, rel=0.02)


def test_blends_have_no_source_plane():
    simulation = seen(GalSim(), *LIGHT)
    assert simulation.source is None and simulation.unlensed is None
    assert len(simulation.sources) == len(LIGHT) == len(simulation.catalog)
    assert np.all((simulation.catalog["blendedness"] > 0) & (simulation.catalog["blendedness"] < 1))


def test_an_empty_scene_is_noise():
    simulation = seen(Lenstronomy(), observation=replace(OBSERVATION, background_rms=2.0))
    assert simulation.image.data.std() == pytest.approx(2, rel=0.05)
    assert len(simulation.catalog) == 0


@pytest.mark.parametrize("simulator", SIMULATORS, ids=["lenstronomy", "galsim"])
def test_seeds(simulator):
    observation = replace(OBSERVATION, background_rms=1.0, exposure_time=100 * u.s)
    one, again, other = (seen(simulator, LIGHT[0], observation=observation, seed=seed).image.data for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


# Of every table, and of both kinds of PSF.
CHOSEN = ["des-g", "euclid-vis", "hst-wfc3-f160w", "jwst-nircam-f150w", "lsst-i", "roman-f106", "roman-galsim-h158"]


@pytest.mark.parametrize("name", CHOSEN)
def test_measured_noise_is_what_the_preset_promises(name):
    observation = preset(name, shape=(200, 200))
    galaxy = Sersic(15 * u.ABmag, 20 * observation.pixel_scale.to_value(ARC) * ARC, 1.0)
    simulation = Lenstronomy(1, None).simulate(Scene(sources=[galaxy]), observation, np.random.default_rng(7))
    noise = simulation.image.data - simulation.noiseless.data
    variance = simulation.image.uncertainty.array
    bright = simulation.noiseless.data > 0.3 * simulation.noiseless.data.max()
    assert variance[bright].mean() > 2 * observation.background_rms**2
    for where in (bright, ~bright):
        pulls = noise[where] ** 2 / variance[where]
        assert pulls.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / where.sum()))
    exposure = observation.exposure_time.to_value(u.s)
    electrons = simulation.noiseless.data * exposure
    np.testing.assert_allclose(
        variance * exposure**2, (observation.background_rms * exposure) ** 2 + electrons, rtol=1e-10
    )


def test_presets_are_lenstronomys_own_noise():
    from lenstronomy.SimulationAPI.ObservationConfig.Euclid import Euclid
    from lenstronomy.SimulationAPI.observation_api import SingleBand

    configuration = Euclid(band="VIS").kwargs_single_band()
    theirs, ours = SingleBand(**configuration), preset("euclid-vis", shape=(8, 8))
    flux = np.linspace(0, 5, 64).reshape(8, 8)
    np.testing.assert_allclose(np.sqrt(ours.variance(flux)), theirs.estimate_noise(flux))
    assert ours.flux(21 * u.ABmag) == pytest.approx(theirs.magnitude2cps(21))
    assert ours.zero_point == configuration["magnitude_zero_point"]
    assert ours.psf.fwhm.value == configuration["seeing"]
    assert "lenstronomy 1." in ours.provenance


def test_presets_are_listed():
    table = presets()
    assert set(CHOSEN) <= set(table["name"])
    assert np.all(table["background_rms"] > 0) and np.all(np.isfinite(table["zero_point"]))
    with pytest.raises(ValueError, match="did you mean 'euclid-vis'"):
        preset("euclid-viz", shape=(8, 8))
    with pytest.raises(ValueError, match="has no PSF"):
        preset("jwst-nircam-f200w", shape=(8, 8))
    given = preset("jwst-nircam-f200w", shape=(8, 8), psf=GaussianPSF(0.07 * ARC))
    assert given.psf.fwhm == 0.07 * ARC


def test_knots():
    knots = Knots(60.0, 0.3 * ARC, 12, seed=3)
    one, again, other = (seen(GalSim(), part).noiseless.data for part in (knots, knots, replace(knots, seed=4)))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)
    assert one.sum() == pytest.approx(60, rel=1e-3)


def test_a_star_has_the_shape_of_the_psf():
    star = seen(GalSim(), PointSource(7.0)).noiseless.data
    kernel = OBSERVATION.kernel
    half = len(kernel) // 2
    np.testing.assert_allclose(star[30 - half:31 + half, 35 - half:36 + half], 7 * kernel, atol=1e-12)
    array = replace(OBSERVATION, psf=kernel)
    moved = PointSource(7.0, 0.034 * ARC, -0.068 * ARC)
    np.testing.assert_allclose(
        seen(GalSim(), moved, observation=array).noiseless.data, seen(GalSim(), moved).noiseless.data, atol=0.03
    )


@pytest.mark.skipif(not (DATA / "cosmos_galaxies").is_dir(), reason="needs ../shared/data/cosmos_galaxies")
def test_real_galaxies():
    catalog = str(DATA / "cosmos_galaxies" / "cosmos_catalog.fits")
    observation = Observation(0.168 * ARC, (61, 61), GaussianPSF(0.7 * ARC), zero_point=25.0)
    galaxy = RealGalaxy(catalog, index=2, flux=100.0)
    one = seen(GalSim(), galaxy, observation=observation)
    assert one.noiseless.data.sum() == pytest.approx(100, rel=0.03)
    turned = seen(GalSim(), replace(galaxy, angle=90 * u.deg), observation=observation)
    np.testing.assert_allclose(
        np.rot90(one.noiseless.data, -1), turned.noiseless.data, atol=0.01 * one.noiseless.data.max()
    )
    moved = seen(GalSim(), replace(galaxy, center_x=3 * 0.168 * ARC), observation=observation)
    np.testing.assert_allclose(
        moved.noiseless.data[:, 3:], one.noiseless.data[:, :-3], atol=2e-3 * one.noiseless.data.max()
    )
    with pytest.raises(ValueError, match="narrower"):
        seen(GalSim(), galaxy, observation=Observation(0.02 * ARC, (61, 61), GaussianPSF(0.03 * ARC)))
    with pytest.raises(ValueError, match="needs an observation with a PSF"):
        seen(GalSim(), galaxy, observation=Observation(0.1 * ARC, (61, 61)))
    with pytest.raises(ValueError, match="60 galaxies"):
        seen(GalSim(), RealGalaxy(catalog, index=60), observation=observation)
    with pytest.raises(ValueError, match="no galaxy with IDENT"):
        seen(GalSim(), RealGalaxy(catalog, id=-4), observation=observation)


@pytest.mark.parametrize("simulator, sources, mass, message", [
    (GalSim(), [LIGHT[0]], [SIE(1 * ARC)], "draws no lenses"),
    (GalSim(), [Sersic(1.0, 0.1 * ARC, 8.0)], [], "index 8"),
    (Lenstronomy(), [Knots(1.0, 0.1 * ARC)], [], "does not draw Knots"),
    (Lenstronomy(), [PointSource(1.0)], [SIE(1 * ARC)], "behind a lens"),
])
def test_what_a_simulator_cannot_do(simulator, sources, mass, message):
    with pytest.raises(ValueError, match=message):
        seen(simulator, *sources, mass=mass)


@pytest.mark.parametrize("make", [
    lambda: Lenstronomy(supersampling=0), lambda: Lenstronomy(precision=0), lambda: GalSim(relative_error=2),
    lambda: GalSim(supersampling=1.5), lambda: Lenstronomy(supersampling="fine"), lambda: GalSim(supersampling=True),
    lambda: Lenstronomy(supersampling=float("inf")),
])
def test_bad_options(make):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_missing_catalogue():
    with pytest.raises(FileNotFoundError, match="no galaxy catalogue at nowhere.fits"):
        seen(GalSim(), RealGalaxy("nowhere.fits", index=0))


def test_images_are_ready_for_the_door():
    from lensdeblend import prepare

    simulation = seen(Lenstronomy(), LIGHT[1], observation=replace(OBSERVATION, background_rms=0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared = prepare(simulation.image)
    assert not prepared.mask.any()
    np.testing.assert_allclose(prepared.uncertainty.array, 0.01)
