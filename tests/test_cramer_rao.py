"""The Cramér-Rao bound against a Fisher matrix from finite differences of another code's images."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from lensdeblend import reconstruct, simulate
from lensdeblend.evaluation.cramer_rao import cramer_rao_bound
from lensdeblend.reconstructors.forward import Forward
from lensdeblend.scenes import EPL, NFW, Gaussian, GaussianPSF, Observation, Scene, Sersic, Shear
from lensdeblend.simulators.lenstronomy import Lenstronomy

LENS = EPL(1.0 * u.arcsec, gamma=2.1, e1=0.12, e2=-0.05, center_x=0.02 * u.arcsec, center_y=-0.03 * u.arcsec)
TIDE = Shear(0.04, -0.02)
SOURCE = Sersic(40, 0.25 * u.arcsec, n=1.2, e1=0.1, e2=0.05, center_x=0.06 * u.arcsec, center_y=0.03 * u.arcsec)
OBSERVATION = Observation(0.1 * u.arcsec, (36, 36), GaussianPSF(0.16 * u.arcsec), background_rms=0.05)


def scene(lens=LENS, tide=TIDE, source=SOURCE, lens_light=()):
    return Scene([lens, tide], lens_light=lens_light, sources=[source])


def moved(part, name, step):
    value = getattr(part, name)
    return replace(part, **{name: value + (step * u.arcsec if isinstance(value, u.Quantity) else step)})


def image(**parts):
    method = Lenstronomy(8, precision=None)
    return method.simulate(scene(**parts), OBSERVATION, np.random.default_rng(0)).noiseless.data


def slope(which, part, name, step=2e-4):
    up, down = (image(**{which: moved(part, name, sign * step)}) for sign in (1, -1))
    return ((up - down) / (2 * step)).ravel()


def test_equals_finite_differences_of_lenstronomys_images():
    rows = [slope("lens", LENS, name) for name in ("theta_E", "gamma", "e1", "e2", "center_x", "center_y")]
    rows += [slope("tide", TIDE, name) for name in ("gamma1", "gamma2")]
    rows += [slope("source", SOURCE, name) for name in ("flux", "radius", "n", "e1", "e2", "center_x", "center_y")]
    jacobian = np.array(rows) / OBSERVATION.background_rms
    expected = np.sqrt(np.diag(np.linalg.inv(jacobian @ jacobian.T)))[:8]
    bound = cramer_rao_bound(simulate(scene(), OBSERVATION, seed=1))
    found = [float(u.Quantity(bound[name][0]).value) for name in bound.colnames]
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_is_what_the_fit_claims():
    simulation = simulate(scene(), OBSERVATION, seed=1)
    method = Forward(lens_light=0, samples=0, gamma_prior=None, ellipticity_prior=None, shear_prior=None)
    fitted = reconstruct(simulation.image, method=method, seed=1).parameters
    bound = cramer_rao_bound(simulation)
    for name in bound.colnames:
        assert u.isclose(fitted[f"{name}_err"][0], bound[name][0], rtol=0.35), name


def test_unknown_lens_light_never_helps():
    light = Sersic(30, 0.5 * u.arcsec, n=3)
    without = cramer_rao_bound(simulate(scene(), OBSERVATION, seed=1))
    with_light = cramer_rao_bound(simulate(scene(lens_light=[light]), OBSERVATION, seed=1))
    for name in without.colnames:
        assert with_light[name][0] > without[name][0] * (1 - 1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Scene([NFW(1 * u.arcsec, 1 * u.arcsec)], sources=[SOURCE]), "one EPL or SIE"),
        (Scene([LENS]), "at least one source"),
        (Scene([LENS], sources=[Gaussian(40, 0.2 * u.arcsec)]), "Sersic components only"),
    ],
)
def test_refuses_what_the_forward_model_does_not_describe(wrong, message):
    with pytest.raises(ValueError, match=message):
        cramer_rao_bound(simulate(wrong, OBSERVATION, seed=1))


@pytest.mark.parametrize("sources, message", [
    ([SOURCE, SOURCE], "cannot be told apart"), ([SOURCE, replace(SOURCE, flux=0.0)], "does not show"),
])
def test_refuses_what_the_image_does_not_constrain(sources, message):
    with pytest.raises(ValueError, match=message):
        cramer_rao_bound(simulate(Scene([LENS, TIDE], sources=sources), OBSERVATION, seed=1))


def test_refuses_an_image_without_noise():
    with pytest.raises(ValueError, match="needs an image with noise"):
        cramer_rao_bound(simulate(scene(), replace(OBSERVATION, background_rms=0.0), seed=1))
