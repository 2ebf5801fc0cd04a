"""Methods whose networks make pixels half the size: untrained ones that know the lens, against the truth."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import CCDData, VarianceUncertainty
from numpy.testing import assert_allclose

from lensdeblend import simulate, superresolve
from lensdeblend.evaluation.metrics import psnr
from lensdeblend.networks import build
from lensdeblend.networks.weights import Card, save_weights
from lensdeblend.scenes import SIE, GaussianPSF, Observation, Scene, Sersic
from lensdeblend.simulators.torch import Torch
from lensdeblend.superresolvers.feature_gan import FeatureGan
from lensdeblend.superresolvers.interpolation import Interpolation
from lensdeblend.superresolvers.physics import Physics
from lensdeblend.superresolvers.physics_paper import PhysicsPaper
from lensdeblend.superresolvers.rcan import Rcan
from lensdeblend.superresolvers.rcan_supervised import RcanSupervised
from lensdeblend.superresolvers.srgan import Srgan
from lensdeblend.testing import check_superresolver

SCALE, SIZE, THETA_E = 0.12, 36, 1.2
OBSERVATION = Observation(
    SCALE * u.arcsec, (SIZE, SIZE), GaussianPSF(0.12 * u.arcsec), unit=u.electron / u.s, background_rms=0.02
)
RADIAL = [PhysicsPaper, Rcan, Srgan, FeatureGan]
ALL = [*RADIAL, RcanSupervised]
OPTIONS = {
    "super-paper": {"width": 4, "blocks": 1}, "super-rcan": {"width": 4, "groups": 1, "blocks": 1},
    "super-srgan": {"width": 4, "blocks": 1}, "super-feature-gan": {"width": 4, "blocks": 1},
    "super-rcan-supervised": {"width": 4, "groups": 1, "blocks": 1},
}
named = pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)


def scene(x=0.1, y=-0.05):
    return Scene([SIE(THETA_E * u.arcsec)], sources=[Sersic(40.0, 0.25 * u.arcsec, 1.0, center_x=x * u.arcsec,
                                                            center_y=y * u.arcsec)])


def seen(one=None, observation=OBSERVATION, seed=1):
    return simulate(one or scene(), observation, method=Torch(1e-3, device="cpu"), seed=seed)


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory):
    """Networks that answer with an isothermal sphere, and one that adds nothing to an interpolation."""
    folder = tmp_path_factory.mktemp("weights")
    domain = {
        "pixels": SIZE, "bands": 1, "pixel_scale": [SCALE, SCALE], "psf_fwhm": [1.0, 1.0], "psf_fwhm_arcsec": 0.12,
        "psf_truncation": 5.0, "peak_snr": [20.0, 500.0],
    }
    about = {key: "" for key in ("commit", "device", "licence", "data")}
    for architecture, options in OPTIONS.items():
        torch.manual_seed(1)
        network = build(architecture, options)
        if architecture == "super-rcan-supervised":
            network.features[-1][-1].weight.data.zero_()
        else:
            network.shares[0].weight.data.zero_()
            network.shares[0].bias.data[:] = torch.tensor([np.log((THETA_E - 0.5) / (1.6 - THETA_E)), 0.0])
        card = Card(f"toy-{architecture}", architecture, options, {}, {}, domain, {}, 1, **about)
        save_weights(network, card, folder, half=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENSDEBLEND_WEIGHTS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def image():
    return seen().image


@pytest.fixture(scope="module")
def result(image):
    return superresolve(image, factor=2, method=PhysicsPaper(device="cpu"))


@pytest.fixture(scope="module")
def other():
    return seen(observation=replace(OBSERVATION, pixel_scale=0.15 * u.arcsec)).image


@named
def test_it_keeps_the_contract(image, method):
    check_superresolver(method(device="cpu"), image=image)


class TestRadial:
    def test_finer_image_is_nearly_the_truth(self, result):
        truth = seen(observation=OBSERVATION.refined(2)).noiseless.data
        assert psnr(result.image.data / truth.max(), truth / truth.max(), data_range=1) > 25
        assert_allclose(result.image.data.sum(), truth.sum(), rtol=0.02)

    def test_maps_are_those_of_an_isothermal_sphere(self, result):
        y, x = (np.indices((2 * SIZE,) * 2) - SIZE + 0.5) * SCALE / 2
        radius = np.hypot(x, y)
        for found, axis in zip(result.deflection, (x, y)):
            assert found.unit == u.arcsec
            assert_allclose(found.data, THETA_E * axis / radius, atol=0.002)
        far = (radius > 0.5) & (np.abs(x) < 2) & (np.abs(y) < 2)
        assert_allclose(result.convergence.data[far], (THETA_E / 2 / radius)[far], rtol=0.02)
        assert result.intrinsic is None and result.parameters is None

    def test_source_is_the_disc_at_its_place(self, result):
        y, x = (np.indices((2 * SIZE,) * 2) - SIZE + 0.5) * SCALE / 2
        source = result.source.data
        assert_allclose([np.average(x, weights=source), np.average(y, weights=source)], [0.1, -0.05], atol=0.06)
        assert_allclose(source.sum(), 40, rtol=0.15)

    def test_chi2_is_held_against_the_data(self, image, result):
        left = image.data - result.image.data.reshape(SIZE, 2, SIZE, 2).sum((1, 3))
        expected = np.sum(left**2 / 0.02**2) / (SIZE**2 - 2)
        assert result.chi2 == pytest.approx(expected, rel=1e-6)
        assert result.flags == ("poor fit",) and result.meta["degrees_of_freedom"] == SIZE**2 - 2

    def test_slope_and_offset_are_those_of_the_unmasked_pixels(self, image):
        holes = CCDData(image.data.copy(), unit=image.unit, meta=dict(image.meta))
        holes.uncertainty, holes.psf = VarianceUncertainty(image.uncertainty.array), image.psf
        holes.mask = np.zeros(image.data.shape, bool)
        holes.mask[:SIZE // 2, :SIZE // 2] = True
        model = superresolve(holes, factor=2, method=PhysicsPaper(device="cpu")).image.data
        model = model.reshape(SIZE, 2, SIZE, 2).sum((1, 3))[~holes.mask]
        left = image.data[~holes.mask] - model
        assert abs(left.mean()) < 1e-3 * left.std()
        assert abs(np.corrcoef(left, model)[0, 1]) < 1e-3

    def test_sky_is_no_flux(self, image, result):
        """Scaled by minimum and maximum, an image is the same on a brighter sky; the data tell how bright that is."""
        bright = CCDData(image.data + 3.0, unit=image.unit, meta=dict(image.meta))
        bright.uncertainty, bright.psf = VarianceUncertainty(image.uncertainty.array), image.psf
        found = superresolve(bright, factor=2, method=PhysicsPaper(device="cpu"))
        assert_allclose(found.image.data, result.image.data + 3.0 / 4, atol=1e-3 * result.image.data.max())
        assert_allclose(found.source.data, result.source.data, atol=1e-3 * result.source.data.max())


class TestSupervised:
    def test_what_it_adds_to_is_the_interpolation(self, image):
        found = superresolve(image, factor=2, method=RcanSupervised(device="cpu"))
        bicubic = superresolve(image, factor=2, method=Interpolation()).image.data
        assert_allclose(found.image.data[4:-4, 4:-4], bicubic[4:-4, 4:-4], atol=1e-5 * bicubic.max())
        assert found.deflection is found.convergence is found.source is None
        left = image.data - found.image.data.reshape(SIZE, 2, SIZE, 2).sum((1, 3))
        assert found.chi2 == pytest.approx(np.mean(left**2) / 0.02**2, rel=1e-4)


@named
def test_units_scale_through(image, method):
    brighter = CCDData(image.data * 10, unit=image.unit, meta=dict(image.meta))
    brighter.uncertainty, brighter.psf = VarianceUncertainty(image.uncertainty.array * 100), image.psf
    found, before = (superresolve(one, factor=2, method=method(device="cpu")) for one in (brighter, image))
    assert_allclose(found.image.data, 10 * before.image.data, atol=1e-4 * found.image.data.max())
    assert found.chi2 == pytest.approx(before.chi2, rel=1e-3)


@pytest.fixture(scope="module")
def many():
    images = [seen(scene(x=x), seed=k).image for k, x in enumerate((0.0, 0.1, 0.2))]
    images.insert(1, seen(observation=replace(OBSERVATION, shape=(39, 36))).image)
    return images


@named
def test_many_at_once_are_as_each_alone(many, method):
    together = superresolve(many, factor=2, method=method(batch=2, device="cpu"))
    assert together[1].image.data.shape == (78, 72)
    for one, found in zip(many, together):
        alone = superresolve(one, factor=2, method=method(device="cpu"))
        assert_allclose(found.image.data, alone.image.data, atol=1e-4 * alone.image.data.max())


@named
def test_masked_pixels_do_not_matter(image, method):
    found = []
    for value in (1e4, np.nan):
        holes = CCDData(image.data.copy(), unit=image.unit, meta=dict(image.meta))
        holes.uncertainty, holes.psf = VarianceUncertainty(image.uncertainty.array.copy()), image.psf
        holes.data[1:4, 2:7] = value
        holes.mask = np.zeros(image.data.shape, bool)
        holes.mask[1:4, 2:7] = True
        found.append(superresolve(holes, factor=2, method=method(device="cpu")))
    assert_allclose(found[0].image.data, found[1].image.data)
    assert found[0].chi2 == pytest.approx(found[1].chi2)
    without = superresolve(image, factor=2, method=method(device="cpu"))
    assert_allclose(found[0].image.data, without.image.data, atol=0.05 * without.image.data.max())
    assert without.meta["degrees_of_freedom"] - found[0].meta["degrees_of_freedom"] == 15


class TestRefusals:
    @named
    @pytest.mark.parametrize("factor", [3, 1, 2.5])
    def test_other_factors(self, image, method, factor):
        with pytest.raises(ValueError, match="2 times smaller and nothing else.*'physics' take any factor"):
            superresolve(image, factor=factor, method=method(device="cpu"))

    def test_no_factors(self, image):
        with pytest.raises(TypeError, match="must be a number"):
            superresolve(image, factor="2", method=PhysicsPaper())
        with pytest.raises(ValueError, match="from 1 to 5"):
            superresolve(image, factor=7, method=PhysicsPaper())

    @named
    def test_bands(self, image, method):
        with pytest.raises(TypeError, match=f"{method.name} takes one image, not bands"):
            superresolve({"g": image}, method=method())

    @named
    def test_there_are_no_weights(self, image, method, monkeypatch):
        monkeypatch.setattr("lensdeblend.superresolvers.super_weights.cards", lambda: [])
        with pytest.raises(ValueError, match=f"no weights for {method.name}: train .*'lensdeblend train {method.name}"):
            superresolve(image, method=method())

    @named
    def test_no_weights_fit(self, other, method):
        option = rf"{method.__name__}\(weights='toy-{method.architecture}'\)"
        with pytest.raises(ValueError, match=f"(?s)of 0.15 arcsec.*there are toy-.*{option}.*method='forward'"):
            superresolve(other, method=method())

    def test_named_weights_are_taken_none_the_less(self, other):
        found = superresolve(other, method=PhysicsPaper(weights="toy-super-paper", device="cpu"))
        assert any("pixel scale 0.15" in flag for flag in found.flags)
        assert found.image.meta["PIXSCALE"] == pytest.approx(0.075)

    def test_faint_ones_are_out_of_the_domain(self):
        noisy = seen(observation=replace(OBSERVATION, background_rms=0.8)).image
        flags = superresolve(noisy, method=RcanSupervised(device="cpu")).flags
        assert any(flag.startswith("out_of_domain: peak") for flag in flags)

    @pytest.mark.parametrize("method, of", [(PhysicsPaper, "super-rcan"), (Physics, "super-paper")])
    def test_weights_of_another_method(self, image, method, of):
        with pytest.raises(ValueError, match=f"of another method: {of}"):
            superresolve(image, method=method(weights=f"toy-{of}"))

    def test_weights_of_something_else(self, image):
        with pytest.raises(ValueError, match="not for super-resolution: unlens"):
            superresolve(image, method=Rcan(weights="unet"))

    @pytest.mark.parametrize("options, said", [({"batch": 0}, "batch"), ({"device": "tpu9"}, "device")])
    def test_options(self, options, said):
        with pytest.raises(ValueError, match=said):
            PhysicsPaper(**options)
