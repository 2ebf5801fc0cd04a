"""The plug-in keeps the contract and agrees with the simulators of lensdeblend."""

import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest
import torch
from lensdeblend import methods, simulate
from lensdeblend.scenes import EPL, NFW, SIE, Gaussian, GaussianPSF, Observation, Scene, Sersic, Shear
from lensdeblend.testing import check_simulator
from lensdeblend_caustics import Caustics
from lensdeblend_caustics.simulator import deflection
from lenstronomy.LensModel.lens_model import LensModel

OBSERVATION = Observation(0.08 * u.arcsec, (64, 64), GaussianPSF(0.16 * u.arcsec), background_rms=0.01)


def arcsec(x, y):
    return {"center_x": x * u.arcsec, "center_y": y * u.arcsec}


SCENES = {
    "power law": Scene(
        mass=[EPL(1.2 * u.arcsec, 2.2, 0.15, -0.1, **arcsec(0.05, -0.03)), Shear(0.05, -0.04)],
        sources=[Sersic(20.0, 0.25 * u.arcsec, 1.0, 0.1, 0.2, **arcsec(0.1, 0.05))],
    ),
    "isothermal, with lens light": Scene(
        mass=[SIE(1.0 * u.arcsec, -0.2, 0.1)],
        lens_light=[Sersic(80.0, 0.6 * u.arcsec, 2.0, 0.1, 0.1)],
        sources=[Sersic(10.0, 0.3 * u.arcsec, 1.5, **arcsec(-0.1, 0.1))],
    ),
    "blend": Scene(
        sources=[Sersic(30.0, 0.4 * u.arcsec, 1.0, 0.3, -0.2), Sersic(9.0, 0.3 * u.arcsec, 2.0, **arcsec(0.8, 0.5))],
    ),
}


def test_the_method_is_listed():
    row = next(row for row in methods("simulator") if row["name"] == "caustics")
    assert (row["distribution"], bool(row["available"])) == ("lensdeblend-caustics", True)


def test_listing_does_not_import_caustics():
    code = "import sys, lensdeblend; lensdeblend.methods(); print('caustics' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_method_keeps_the_contract():
    check_simulator(Caustics(supersampling=4))


@pytest.mark.parametrize("gamma", [1.5, 2.0, 2.8])
@pytest.mark.parametrize("e1, e2", [(0.0, 0.0), (0.3, 0.0), (-0.3, 0.4)])
def test_deflections_agree_with_lenstronomy(gamma, e1, e2):
    x, y = np.random.default_rng(1).uniform(-2, 2, (2, 500))
    mass = [EPL(1.3 * u.arcsec, gamma, e1, e2, **arcsec(0.1, -0.2)), Shear(0.1, -0.05)]
    ours = deflection(mass, torch.tensor(x), torch.tensor(y))
    epl = dict(theta_E=1.3, gamma=gamma, e1=e1, e2=e2, center_x=0.1, center_y=-0.2)
    theirs = LensModel(["EPL", "SHEAR"]).alpha(x, y, [epl, dict(gamma1=0.1, gamma2=-0.05)])
    assert np.abs(np.array([part.numpy() for part in ours]) - theirs).max() < 1e-8


@pytest.mark.parametrize(
    "name, psf", [*((name, OBSERVATION.psf) for name in SCENES), ("power law", OBSERVATION.kernel), ("power law", None)]
)
def test_images_agree_with_ours(name, psf):
    scene = SCENES[name]
    observation = Observation(0.08 * u.arcsec, (64, 64), psf, background_rms=0.01)
    by_caustics = simulate(scene, observation, method="caustics", seed=1)
    # What is left is the division of the pixels: fixed here, adaptive there; the PSF smooths it.
    tolerance = 1.5e-3 if psf is None else 5e-4
    for method in ("lenstronomy", "torch"):
        ours = simulate(scene, observation, method=method, seed=1)
        for image in ("noiseless", "unlensed") if scene.is_lens else ("noiseless",):
            one, other = getattr(by_caustics, image).data, getattr(ours, image).data
            assert np.abs(one - other).max() < tolerance * other.max(), (method, image)


def test_finer_pixels_come_closer():
    scene = SCENES["power law"]
    exact = simulate(scene, OBSERVATION, seed=1).noiseless.data
    coarse, fine = (simulate(scene, OBSERVATION, method=Caustics(cut), seed=1).noiseless.data for cut in (1, 6))
    assert np.abs(fine - exact).max() < np.abs(coarse - exact).max() / 5


def test_the_source_holds_its_flux():
    result = simulate(SCENES["power law"], OBSERVATION, method="caustics", seed=1)
    assert result.source.data.sum() == pytest.approx(20, rel=1e-3)
    assert result.unlensed.data.sum() == pytest.approx(20, rel=1e-3)


def test_other_components_are_refused():
    with pytest.raises(ValueError, match="bends light by EPL, SIE and Shear; got NFW"):
        simulate(Scene(mass=[NFW(1 * u.arcsec, 1 * u.arcsec)]), OBSERVATION, method="caustics")
    with pytest.raises(ValueError, match="draws Sersic; got Gaussian"):
        simulate(Scene(sources=[Gaussian(1.0, 1 * u.arcsec)]), OBSERVATION, method="caustics")
    with pytest.raises(ValueError, match="whole positive number"):
        Caustics(0)
