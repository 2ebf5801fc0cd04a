"""The stream of the DeepLense models: against the simulators, and what its fields say of each other."""

import astropy.units as u
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from lensdeblend.scenes.populations.deeplense import CLASSES, einstein_radius
from lensdeblend.simulators.lenstronomy import Lenstronomy, deflection
from lensdeblend.simulators.torch import Torch
from lensdeblend.training.deeplense_pairs import DeepLensePairs


def only(model, kind, **options):
    return DeepLensePairs(model, shares={kind: 1.0}, **options)


def scene_of(pairs, seed):
    """The first scene of a batch, drawn once more."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, 1, p=pairs.shares)
    return pairs._scene(CLASSES[int(kind[0])], rng)


# Of the peak: the largest error, beside a point mass, and that of the whole image.
LARGEST = {"none": (0.005, 2e-4), "cdm": (0.06, 2e-3), "axion": (0.005, 2e-4)}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("model", [1, 2, 3])
def test_images_are_those_of_the_simulator(model, kind):
    pairs = only(model, kind)
    batch = pairs.draw(1, 3)
    scene, observation = scene_of(pairs, 3)
    for found, seen in ((batch.clean, observation), (batch.fine, observation.refined(2))):
        truth = Torch(1e-3).simulate(scene, seen, np.random.default_rng(1)).noiseless.data
        off = (found[0].numpy() - truth) / truth.max()
        worst, rms = LARGEST[kind]
        assert np.abs(off).max() < worst
        assert np.sqrt(np.mean(off**2)) < rms


def test_another_simulator_says_the_same():
    pairs = only(2, "axion")
    scene, observation = scene_of(pairs, 5)
    truth = Lenstronomy(supersampling=2, precision=None).simulate(scene, observation, np.random.default_rng(1))
    batch = pairs.draw(1, 5, fine=False)
    assert batch.fine is None and batch.deflection is None
    assert_allclose(batch.clean[0], truth.noiseless.data, atol=2e-4 * truth.noiseless.data.max())


@pytest.mark.parametrize("kind", CLASSES)
def test_deflection_is_that_of_everything(kind):
    pairs = only(3, kind)
    scene, observation = scene_of(pairs, 4)
    x, y = (np.indices((64, 64))[::-1] - 31.5) * 0.08
    expected = np.stack(deflection(scene.mass, x.ravel(), y.ravel())).reshape(2, 64, 64)
    assert_allclose(pairs.draw(1, 4).deflection[0], expected, atol=2e-4)


def test_noise_is_that_of_the_observation():
    pairs = DeepLensePairs(1)
    batch = pairs.draw(6, 1, fine=False)
    left = (batch.image - batch.clean) / batch.sigma
    assert float(left.std()) == pytest.approx(1, abs=0.02)
    assert float(left.mean()) == pytest.approx(0, abs=0.02)
    # Exposures differ, and so do the photons of the same flux.
    photons = (batch.sigma**2 - 0.01**2).flatten(1).sum(1) / batch.clean.flatten(1).sum(1)
    assert 1 / photons.max() >= 10**3.0 and 1 / photons.min() <= 10**3.5 and float(photons.std()) > 0


def test_seeds_and_classes():
    pairs = DeepLensePairs(3, shares={"none": 1, "axion": 3})
    one, again, other = pairs.draw(12, (1, 2)), pairs.draw(12, (1, 2)), pairs.draw(12, (1, 3), fine=False)
    for name in ("image", "fine", "kind", "lens", "source"):
        assert torch.equal(getattr(one, name), getattr(again, name))
    assert not torch.equal(one.image, other.image)
    kinds = torch.cat([one.kind, other.kind])
    assert set(kinds.tolist()) == {0, 2} and int((kinds == 2).sum()) > 12


def test_flux_and_lens():
    pairs = only(2, "none")
    batch = pairs.draw(3, 1)
    assert_allclose(batch.fine.sum((1, 2)), batch.clean.sum((1, 2)), rtol=1e-3)
    assert_allclose(batch.source[:, 0], 10 ** (0.4 * (24.0 - 20.0)), rtol=1e-5)
    published = einstein_radius(1e12 * u.Msun, published=True).to_value(u.arcsec)
    assert_allclose(batch.lens, [[published, 2, 0.1, 0, 0, 0, 0.05, 0]] * 3, rtol=1e-6)
    corrected = only(2, "none", published=False).draw(1, 1, fine=False)
    assert float(corrected.lens[0, 0]) == pytest.approx(1.6645, abs=1e-4)


@pytest.mark.parametrize("model, shape, scale", [(1, (75, 75), 0.05), (2, (64, 64), 0.101), (3, (64, 64), 0.08)])
def test_pixels_are_those_of_the_study(model, shape, scale):
    pairs = DeepLensePairs(model, factor=3)
    batch = pairs.draw(1, 1)
    assert batch.image.shape[1:] == shape and batch.fine.shape[1:] == tuple(3 * n for n in shape)
    assert pairs.observation.pixel_scale == scale * u.arcsec


@pytest.mark.parametrize("model, options, said", [
    (4, {}, "model must be"), (1, {"shares": {"wdm": 1}}, "unknown class 'wdm'"), (1, {"factor": 1.5}, "whole number"),
    (1, {"shares": {"cdm": 0}}, "not all"), (1, {"shares": {"cdm": -1, "none": 2}}, "positive"),
])
def test_what_there_is_not(model, options, said):
    with pytest.raises(ValueError, match=said):
        DeepLensePairs(model, **options)
