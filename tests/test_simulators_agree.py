"""The torch simulator against lenstronomy for lenses and GalSim for blends."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import NDData

from lensdeblend import simulate
from lensdeblend.scenes import (
    EPL, NFW, SIE, Galaxy, Gaussian, GaussianPSF, ImageSource, Knots, Observation, PointMass, PointSource,
    PointSubhalos, Scene, Sersic, Shear, TruncatedNFW, Vortex,
)
from lensdeblend.scenes.populations import population
from lensdeblend.simulators.galsim import GalSim
from lensdeblend.simulators.lenstronomy import Lenstronomy, deflection
from lensdeblend.simulators.torch import Torch

ARC = u.arcsec
REFERENCE = Lenstronomy(8, 1e-5)
OBSERVATION = Observation(0.1 * ARC, (31, 37), GaussianPSF(0.25 * ARC), zero_point=25.0)


def draw(method, scene, observation=OBSERVATION, seed=1):
    return method.simulate(scene, observation, np.random.default_rng(seed))


def assert_agree(one, other, tolerance):
    """All images of two simulations, to ``tolerance`` of each one's peak."""
    pairs = [(one.noiseless, other.noiseless), *zip(one.sources, other.sources, strict=True)]
    if one.unlensed is not None:
        pairs += [(one.unlensed, other.unlensed), (one.source, other.source)]
    for mine, theirs in pairs:
        np.testing.assert_allclose(mine.data, theirs.data, atol=tolerance * np.abs(theirs.data).max(), rtol=0)


@pytest.mark.parametrize("name, seed", [
    ("lens-benchmark", 1), ("lens-benchmark", 2), ("lens-benchmark-light", 3), ("lens-published", 4),
])
def test_lenses_are_lenstronomys(name, seed):
    lenses = population(name)
    scene = lenses.draw(np.random.default_rng(seed))
    observation = replace(lenses.observation, shape=(50, 46))
    assert_agree(draw(Torch(), scene, observation), draw(REFERENCE, scene, observation), 1e-4)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_blends_are_galsims(seed):
    blends = population("blends")
    scene = blends.draw(np.random.default_rng(seed))
    assert_agree(draw(Torch(), scene, blends.observation), draw(GalSim(), scene, blends.observation), 1e-3)


def image_source(**options):
    y, x = np.mgrid[-12:13, -12:13]
    pixels = np.exp(-0.5 * ((x / 2.8) ** 2 + (y / 1.5) ** 2))
    return ImageSource(NDData(pixels, meta={"PIXSCALE": 0.06}), **options)


RNG = np.random.default_rng(7)
MASSES = {
    "SIE": [SIE(1.1 * ARC, 0.2, -0.1, 0.05 * ARC, -0.1 * ARC)],
    "EPL at the edge of the range": [EPL(1 * ARC, 2.8, 0.3, -0.4), Shear(0.1, -0.05)],
    "NFW": [SIE(0.8 * ARC), NFW(1 * ARC, 0.3 * ARC, 0.4 * ARC, -0.3 * ARC)],
    "truncated NFW": [SIE(0.8 * ARC), TruncatedNFW(0.2 * ARC, 0.05 * ARC, 0.5 * ARC, 0.7 * ARC, -0.3 * ARC)],
    "point mass": [SIE(0.8 * ARC), PointMass(0.2 * ARC, 0.72 * ARC, 0.41 * ARC)],
    "subhaloes": [SIE(1 * ARC), PointSubhalos(RNG.uniform(0.01, 0.05, 6) * ARC, *RNG.uniform(-1.5, 1.5, (2, 6)) * ARC)],
    "vortex": [SIE(1 * ARC), Vortex(0.2 * ARC, 0.4 * ARC, 35 * u.deg, center_x=0.3 * ARC, n=12)],
    "vortex of one point": [SIE(1 * ARC), Vortex(0.2 * ARC, 0.4 * ARC, center_x=0.7 * ARC, n=1)],
    "no subhaloes": [SIE(1 * ARC), PointSubhalos([] * ARC, [] * ARC, [] * ARC)],
}


@pytest.mark.parametrize("kind", MASSES)
def test_every_kind_of_mass(kind):
    """A smooth source; beside point masses lie images too small for either code, so there the deflections count."""
    x, y = np.random.default_rng(3).uniform(-2, 2, (2, 500))
    deflect = Torch()._deflection([MASSES[kind]])
    beta = [axis[0].cpu().numpy() for axis in deflect(*(torch.as_tensor(axis, **Torch()._kind) for axis in (x, y)))]
    for mine, at, theirs in zip(beta, (x, y), deflection(MASSES[kind], x, y)):
        np.testing.assert_allclose(at - mine, theirs, atol=1e-6)
    scene = Scene(MASSES[kind], sources=[Gaussian(10.0, 0.3 * ARC, 0.1, 0.05, 0.1 * ARC, -0.05 * ARC)])
    tolerance = 5e-4 if kind in ("point mass", "subhaloes", "vortex", "vortex of one point") else 1e-4
    assert_agree(draw(Torch(), scene), draw(REFERENCE, scene), tolerance)


@pytest.mark.parametrize("light", [
    Sersic(100.0, 0.3 * ARC, 1.0, 0.2, -0.1, 0.13 * ARC, -0.22 * ARC), Gaussian(100.0, 0.25 * ARC, 0.1, 0.2),
    PointSource(100.0, 0.33 * ARC, -0.41 * ARC), image_source(flux=50.0, angle=35 * u.deg, center_x=0.1 * ARC),
    image_source(), Galaxy((Sersic(20 * u.ABmag, 0.4 * ARC, 1.0), Gaussian(21 * u.ABmag, 0.1 * ARC)), "pair"),
], ids=["sersic", "gaussian", "point", "turned image", "image", "galaxy"])
def test_every_kind_of_light(light):
    scene = Scene(sources=[light])
    mine = draw(Torch(), scene)
    assert_agree(mine, draw(REFERENCE, scene), 1e-4)
    assert_agree(mine, draw(GalSim(), scene), 1e-3)


@pytest.mark.parametrize("observation", [
    replace(OBSERVATION, psf=None), replace(OBSERVATION, shape=(30, 40)),
    replace(OBSERVATION, psf=np.pad(GaussianPSF(0.3 * ARC).kernel(0.1 * ARC), ((0, 4), (2, 0)))),
], ids=["no PSF", "oblong", "PSF off centre"])
def test_observations(observation):
    scene = Scene([EPL(1.1 * ARC, 2.1, 0.1, 0.1)], [Sersic(30.0, 0.6 * ARC, 2.0)], [Sersic(5.0, 0.2 * ARC, 1.0)])
    assert_agree(draw(Torch(), scene, observation), draw(REFERENCE, scene, observation), 1e-4)


def test_a_batch_is_its_members():
    """Scenes of two structures, mixed; each with its own noise."""
    lenses, rng = population("lens-benchmark-light"), np.random.default_rng(1)
    plain = population("lens-benchmark")
    scenes = [(plain if k % 3 == 1 else lenses).draw(rng) for k in range(6)]
    observation = replace(lenses.observation, shape=(40, 40), background_rms=0.01)
    together = Torch().simulate_batch(scenes, observation, np.random.default_rng(5))
    assert [result.scene for result in together] == scenes
    for scene, result in zip(scenes, together):
        # Cells are those that the most demanding of the batch needs, so a member alone is cut a little less finely.
        assert_agree(draw(Torch(), scene, observation), result, 5e-5)
    noise = np.array([(result.image.data - result.noiseless.data).ravel() for result in together])
    assert np.abs(np.corrcoef(noise) - np.eye(6)).max() < 0.15
    np.testing.assert_allclose(noise.std(), 0.01, rtol=0.05)


def test_single_precision():
    for name in ("lens-benchmark-light", "lens-published"):
        lenses = population(name)
        scene = lenses.draw(np.random.default_rng(4))
        single, double = (draw(Torch(dtype=dtype), scene, lenses.observation) for dtype in ("float32", "float64"))
        assert_agree(single, double, 1e-4)


def test_a_finer_division_changes_nothing():
    """The precision that was promised, against one ten times better."""
    lenses = population("lens-benchmark")
    scene = lenses.draw(np.random.default_rng(6))
    fine = draw(Torch(precision=1e-6, points=3), scene, lenses.observation)
    assert_agree(draw(Torch(), scene, lenses.observation), fine, 5e-5)


def test_by_name_and_by_seed():
    scene = population("lens-benchmark").draw(np.random.default_rng(1))
    observation = replace(OBSERVATION, background_rms=0.1)
    one, again, other = (simulate(scene, observation, method="torch", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.image.data, again.image.data)
    np.testing.assert_array_equal(one.noiseless.data, other.noiseless.data)
    assert not np.array_equal(one.image.data, other.image.data)
    assert one.image.data.dtype == np.float64


def test_an_empty_scene_is_noise():
    result = draw(Torch(), Scene(), replace(OBSERVATION, background_rms=2.0))
    assert result.image.data.std() == pytest.approx(2, rel=0.1)
    assert not result.noiseless.data.any()


@pytest.mark.parametrize("scene, message", [
    (Scene(sources=[Knots(1.0, 0.1 * ARC)]), "does not draw Knots"),
    (Scene([SIE(1 * ARC)], sources=[PointSource(1.0)]), "PointSource behind a lens is not supported"),
])
def test_what_it_cannot_draw(scene, message):
    with pytest.raises(ValueError, match=message):
        draw(Torch(), scene)


@pytest.mark.parametrize("options, message", [
    ({"precision": 0}, "precision must be positive; got 0"),
    ({"points": 1.5}, "points must be a whole positive number"),
    ({"points": 0}, "points must be a whole positive number; got 0"), ({"dtype": "float16"}, "dtype must be"),
    ({"points": "two"}, "points must be a whole positive number; got 'two'"),
    ({"device": "gpu"}, "device must be 'auto', 'cpu', 'cuda' or 'cuda:N'; got 'gpu'"),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Torch(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="torch sees no GPU"):
        draw(Torch(device="cuda"), Scene(sources=[Gaussian(1.0, 0.3 * ARC)]))


class DressedEPL(EPL):
    """A kind of mass that no simulator has heard of."""


@pytest.mark.parametrize("simulator", [Torch(), REFERENCE], ids=["torch", "lenstronomy"])
def test_unknown_kinds_are_named(simulator):
    with pytest.raises(ValueError, match="knows no deflection of DressedEPL"):
        draw(simulator, Scene([DressedEPL(1 * ARC)], sources=[Gaussian(1.0, 0.3 * ARC)]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 1e-4)])
def test_gpu_agrees_with_cpu(dtype, tolerance):
    lenses, rng = population("lens-benchmark-light"), np.random.default_rng(1)
    scenes = [lenses.draw(rng) for _ in range(3)]
    on = [Torch(device=device, dtype=dtype).simulate_batch(scenes, lenses.observation, np.random.default_rng(2))
          for device in ("cuda", "cpu")]
    for one, other in zip(*on):
        assert_agree(one, other, tolerance)
        np.testing.assert_allclose(
            one.image.data - one.noiseless.data, other.image.data - other.noiseless.data,
            atol=10 * tolerance * other.noiseless.data.max(),
        )
