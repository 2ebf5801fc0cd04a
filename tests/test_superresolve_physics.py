"""Super-resolution by a network: an untrained one that knows the population, moved by the fit, against the truth."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import CCDData, VarianceUncertainty
from numpy.testing import assert_allclose

from lensdeblend import prepare, simulate, superresolve
from lensdeblend.evaluation.metrics import psnr
from lensdeblend.lensing.imaging import LensImager
from lensdeblend.networks import build
from lensdeblend.networks.super_lens import SuperLens
from lensdeblend.networks.weights import Card, save_weights
from lensdeblend.scenes import SIE, GaussianPSF, Observation, PointMass, Scene, Sersic, Shear
from lensdeblend.simulators.lenstronomy import deflection
from lensdeblend.simulators.torch import Torch
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.physics import Physics, moved
from lensdeblend.superresolvers.super_weights import NetworkView, candidates
from lensdeblend.testing import check_superresolver

SCALE, SIZE, CELLS = 0.1, 48, 24
PSF = GaussianPSF(0.2 * u.arcsec)
OBSERVATION = Observation(SCALE * u.arcsec, (SIZE, SIZE), PSF, unit=u.electron / u.s, background_rms=0.02)
CENTER = [1.1, 2.0, 0.1, 0.0, 0.0, 0.0, 0.05, 0.0, 0.3, 1.0, -0.1, 0.1, 0.05, -0.1]
SPREAD = [0.05, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.03, 0.05, 0.05, 0.05, 0.2, 0.2]
QUICK = Physics(refine=5, device="cpu")


def scene(x=0.1, y=-0.05, theta_E=1.12):
    arcsec = u.arcsec
    return Scene(
        [SIE(theta_E * arcsec, 0.09, 0.01, 0.01 * arcsec), Shear(0.04, 0.01)],
        sources=[Sersic(40.0, 0.28 * arcsec, 1.05, -0.08, 0.1, x * arcsec, y * arcsec)],
    )


def seen(one=None, observation=OBSERVATION, seed=1):
    return simulate(one or scene(), observation, method=Torch(1e-3, device="cpu"), seed=seed)


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory):
    """A network that answers with the middle of the population and hardly any clumps."""
    folder = tmp_path_factory.mktemp("weights")
    options = {"size": SIZE, "width": 4, "cells": CELLS, "hidden": 8, "center": CENTER, "spread": SPREAD}
    torch.manual_seed(1)
    network = build("super-lens", options)
    network.head[-1].weight.data.zero_()
    network.clumps[-1].weight.data.zero_()
    network.clumps[-1].bias.data.fill_(-8)
    domain = {
        "pixels": SIZE, "bands": 1, "pixel_scale": [SCALE, SCALE], "psf_fwhm": [2.0, 2.0], "psf_fwhm_arcsec": 0.2,
        "psf_truncation": 5.0, "peak_snr": [20.0, 200.0],
    }
    about = {key: "" for key in ("commit", "device", "licence", "data")}
    card = Card("physics-toy", "super-lens", options, {}, {}, domain, {}, 1, **about)
    save_weights(network, card, folder, half=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENSDEBLEND_WEIGHTS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def image():
    return seen().image


@pytest.fixture(scope="module")
def result(image):
    return superresolve(image, factor=2, method=QUICK)


def test_it_keeps_the_contract(image):
    check_superresolver(Physics(device="cpu"), image=image, factor=2.5)


def test_finer_image_and_maps_are_the_truth(image, result):
    truth = seen(observation=OBSERVATION.refined(2))
    peak = truth.noiseless.data.max()
    assert psnr(result.image.data / peak, truth.noiseless.data / peak, data_range=1) > 45
    assert result.flags == () and result.chi2 == pytest.approx(1, abs=0.1)
    assert_allclose(result.image.psf, OBSERVATION.refined(2).kernel, atol=1e-7)
    bare = seen(observation=replace(OBSERVATION.refined(2), psf=None)).noiseless.data
    assert psnr(result.intrinsic.data / bare.max(), bare / bare.max(), data_range=1) > 40
    x, y = (np.indices((2 * SIZE,) * 2)[::-1] - SIZE + 0.5) * SCALE / 2
    assert result.deflection[0].unit == u.arcsec
    true = np.stack(deflection(scene().mass, x.ravel(), y.ravel())).reshape(2, *x.shape)
    off = np.hypot(*(axis.data - one for axis, one in zip(result.deflection, true)))
    assert np.sqrt(np.mean(off**2)) < 0.02 * 1.12
    far = np.hypot(x, y) > 2
    total = (result.convergence.data * (SCALE / 2) ** 2)[np.hypot(x, y) < 1.1].sum() / np.pi
    assert np.sqrt(total) == pytest.approx(1.12, abs=0.05)
    axes = [np.gradient(axis.data, SCALE / 2) for axis in result.deflection]
    trace = axes[0][1] + axes[1][0]
    assert_allclose(trace[far][::7], 2 * result.convergence.data[far][::7], atol=0.02)
    inner = (np.hypot(x, y) > 3) & (np.abs(x) < 2.3) & (np.abs(y) < 2.3)
    assert (result.magnification.data[inner] > 1).all()


def test_parameters_are_true_within_their_errors(result):
    truth = {
        "theta_E": 1.12, "e1": 0.09, "center_x": 0.01, "gamma1": 0.04, "source_radius": 0.28, "source_n": 1.05,
        "source_x": 0.1, "source_y": -0.05, "source_flux": 40.0,
    }
    for name, value in truth.items():
        found, error = (float(u.Quantity(result.parameters[key][0]).value) for key in (name, f"{name}_err"))
        assert abs(found - value) < 4 * error, name
    assert result.parameters["theta_E"].unit == u.arcsec
    assert result.parameters["source_flux"].unit == u.electron / u.s


def test_source_is_that_of_the_parameters(result):
    total = float(result.parameters["source_flux"][0].value)
    # A hundredth of an exponential disc lies beyond five half-light radii.
    assert result.source.data.sum() == pytest.approx(total, rel=0.01)


def test_without_steps_it_is_the_network_alone(image):
    result = superresolve(image, factor=2, method=Physics(refine=0, device="cpu"))
    assert_allclose(result.parameters["theta_E"].value, 1.1, rtol=1e-6)
    assert np.isnan(result.parameters["theta_E_err"]).all()
    assert result.flags == ("poor fit",) and result.chi2 > 3


@pytest.mark.parametrize("shape", [(48, 49), (51, 48), (53, 60)])
def test_frames_of_other_sizes(shape):
    """The network's frame lies half a pixel beside the middle of an odd one, and so do lens, source and clumps."""
    observation = replace(OBSERVATION, shape=shape)
    found = superresolve(seen(observation=observation).image, factor=2, method=QUICK)
    truth = seen(observation=observation.refined(2)).noiseless.data
    assert found.image.data.shape == tuple(2 * n for n in shape)
    assert psnr(found.image.data / truth.max(), truth / truth.max(), data_range=1) > 44
    assert found.flags == ()


def test_clumps_lie_where_the_network_sees_them(monkeypatch):
    odd = seen(observation=replace(OBSERVATION, shape=(48, 49))).image
    forward = SuperLens.forward

    def found(mass):
        def clumpy(self, images):
            told = forward(self, images)
            told.clumps[:, 3, 20] = mass
            return told

        monkeypatch.setattr(SuperLens, "forward", clumpy)
        return superresolve(odd, factor=2, method=Physics(refine=0, device="cpu"))

    clumpy, smooth = found(0.5), found(0.0)
    clump = clumpy.convergence.data - smooth.convergence.data
    assert_allclose(clumpy.substructure.data - smooth.substructure.data, clump, atol=1e-6)
    assert clumpy.substructure.uncertainty is None
    y, x = (np.indices(clump.shape) - np.array([[[47.5]], [[48.5]]])) * SCALE / 2
    # Cells of 0.2 arcsec about the middle of the network's frame, which is half a pixel to the right.
    assert np.average(x, weights=clump) == pytest.approx((20 - 11.5) * 0.2 + 0.05, abs=1e-3)
    assert np.average(y, weights=clump) == pytest.approx((3 - 11.5) * 0.2, abs=1e-3)


@pytest.fixture(scope="module")
def fitted_clumps():
    """A lens as the network tells of it with a point mass, and one without."""
    massive = PointMass(0.07 * u.arcsec, 0.8 * u.arcsec, 0.8 * u.arcsec)
    lens = [SIE(1.1 * u.arcsec, 0.1, 0.0), Shear(0.05, 0.0)]
    scenes = [replace(scene(), mass=mass) for mass in ([*lens, massive], lens)]
    images = [seen(one).image for one in scenes]
    truths = [seen(one, OBSERVATION.refined(2)).noiseless.data for one in scenes]
    return truths, superresolve(images, factor=2, method=replace(QUICK, clumps="fit"), seed=1)


def test_fitted_clumps_are_where_the_mass_is(fitted_clumps):
    (truth, _), (found, _) = fitted_clumps
    y, x = (np.indices(truth.shape) - SIZE + 0.5) * SCALE / 2
    row, column = np.unravel_index(found.substructure.data.argmax(), truth.shape)
    assert np.hypot(x[row, column] - 0.8, y[row, column] - 0.8) < 0.25
    near = np.hypot(x - 0.8, y - 0.8) < 0.4
    total = found.substructure.data[near].sum() * (SCALE / 2) ** 2 / np.pi
    assert total == pytest.approx(0.07**2, rel=0.4)
    assert found.meta["substructure_evidence"] > 30
    error = np.sqrt(found.substructure.uncertainty.array)
    assert found.substructure.data[row, column] > 4 * error[row, column]
    assert psnr(found.image.data / truth.max(), truth / truth.max(), data_range=1) > 43
    assert found.chi2 == pytest.approx(1, abs=0.3)


def test_a_smooth_lens_is_left_as_it_is(fitted_clumps):
    (_, truth), (_, found) = fitted_clumps
    assert found.meta["substructure_evidence"] < 0
    assert (found.substructure.data == 0).all()
    # Cells of 0.18 arcsec cover twice the Einstein radius.
    assert (found.substructure.uncertainty.array > 0)[8:-8, 8:-8].all()
    assert psnr(found.image.data / truth.max(), truth / truth.max(), data_range=1) > 45
    assert found.flags == () and found.chi2 == pytest.approx(1, abs=0.1)
    shown = truth > 0.05 * truth.max()
    pulls = ((found.image.data - truth) / np.sqrt(found.image.uncertainty.array))[shown]
    assert np.sqrt(np.mean(pulls**2)) < 2
    for name, value in {"theta_E": 1.1, "source_radius": 0.28, "source_flux": 40.0, "source_n": 1.05}.items():
        best, error = (float(u.Quantity(found.parameters[key][0]).value) for key in (name, f"{name}_err"))
        assert 0 < abs(best - value) < 4 * error, name


def test_a_frame_that_is_moved_sees_the_same():
    parameters = torch.tensor([CENTER], dtype=torch.float64)
    other = moved(parameters, (0.3, -0.2))
    draw = LensImager((40, 40), 0.1, dtype=torch.float64)

    def drawn(p):
        return draw(p[:, :8], torch.cat([torch.ones_like(p[:, :1]), p[:, 8:]], 1))[0]

    assert_allclose(drawn(other)[:-2, 3:], drawn(parameters)[2:, :-3], atol=1e-9)


def test_masked_pixels_do_not_matter(image):
    holes = image.copy() if hasattr(image, "copy") else CCDData(image)
    holes.data = image.data.copy()
    holes.data[10:14, 20:25] = 1e4
    holes.data[30, 30] = np.nan
    mask = np.zeros(image.data.shape, bool)
    mask[10:14, 20:25] = True
    holes.mask = mask
    found = superresolve(holes, factor=2, method=QUICK)
    truth = seen(observation=OBSERVATION.refined(2)).noiseless.data
    assert psnr(found.image.data / truth.max(), truth / truth.max(), data_range=1) > 44
    assert found.flags == () and found.meta["degrees_of_freedom"] == SIZE**2 - 21 - 15


def test_the_network_is_shown_no_holes(image):
    small = CCDData(image.data[2:], unit=image.unit, meta=dict(image.meta))
    small.uncertainty = VarianceUncertainty(image.uncertainty.array[2:])
    small = prepare(small)
    small.psf = image.psf
    small.data[20:23, 10] = 1e5
    small.mask[20:23, 10] = True
    shown = NetworkView.of(small, candidates("auto", "cpu", "super-lens"), named=False, method="physics").stamp
    assert shown.used.all() and np.median(shown.sigma) == pytest.approx(shown.sigma[0, 0], rel=0.2)
    assert (shown.data[[0, -1]] == 0).all()
    around = image.data[19:30, 6:15]
    assert (shown.data[21:24, 10] > around.min()).all() and (shown.data[21:24, 10] < around.max()).all()


def test_many_at_once_are_as_each_alone():
    images = [seen(scene(x=x), seed=k).image for k, x in enumerate((0.0, 0.1, 0.2))]
    images.insert(1, seen(observation=replace(OBSERVATION, shape=(50, 48))).image)
    together = superresolve(images, factor=1.5, method=replace(QUICK, batch=2))
    for one, found in zip(images, together):
        alone = superresolve(one, factor=1.5, method=QUICK)
        assert_allclose(found.image.data, alone.image.data, atol=1e-3 * alone.image.data.max())


def test_units_scale_through(image, result):
    brighter = CCDData(image.data * 1e6, unit=image.unit, meta=dict(image.meta))
    brighter.uncertainty = VarianceUncertainty(image.uncertainty.array * 1e12)
    brighter.psf = image.psf
    found = superresolve(brighter, factor=2, method=QUICK)
    assert_allclose(found.image.data / 1e6, result.image.data, atol=1e-4 * result.image.data.max())


class TestFlags:
    def test_no_lens(self):
        dark = seen(Scene([SIE(1.1 * u.arcsec)], sources=[Sersic(1e-3, 0.3 * u.arcsec)])).image
        found = superresolve(dark, factor=2, method=Physics(refine=0, device="cpu"))
        assert "no lens seen" in found.flags

    def test_faint_ones_are_out_of_the_domain(self):
        noisy = seen(observation=replace(OBSERVATION, background_rms=0.5)).image
        flags = superresolve(noisy, factor=2, method=Physics(device="cpu")).flags
        assert any(flag.startswith("out_of_domain: peak") for flag in flags)

    def test_named_weights_are_taken_none_the_less(self):
        other = replace(OBSERVATION, pixel_scale=0.12 * u.arcsec)
        found = superresolve(seen(observation=other).image, factor=2, method=replace(QUICK, weights="physics-toy"))
        assert any("pixel scale 0.12" in flag for flag in found.flags)
        truth = seen(observation=other.refined(2)).noiseless.data
        assert psnr(found.image.data / truth.max(), truth / truth.max(), data_range=1) > 40

    def test_another_psf_is_interpolated(self):
        other = replace(OBSERVATION, psf=GaussianPSF(0.207 * u.arcsec))
        found = superresolve(seen(observation=other).image, factor=2, method=QUICK)
        assert_allclose(found.image.psf, FinePixels(seen(observation=other).image, 2).psf(), atol=1e-9)

    def test_the_nearest_weights_are_taken_where_none_fit(self, weights):
        other = replace(OBSERVATION, psf=GaussianPSF(0.4 * u.arcsec))
        found = superresolve(seen(observation=other).image, factor=2, method=Physics(device="cpu"))
        assert any("PSF FWHM of 4 pixels" in flag for flag in found.flags)
        # The toy knows an image of 0.1 arcsec a pixel, the shipped ones coarser and finer ones of narrower PSFs.
        assert found.meta["weights"] == "physics-toy"
        truth = seen(observation=other.refined(2)).noiseless.data
        assert psnr(found.image.data / truth.max(), truth / truth.max(), data_range=1) > 40


class TestRefusals:
    def test_there_are_none(self, image, monkeypatch):
        monkeypatch.setattr("lensdeblend.superresolvers.super_weights.cards", lambda: [])
        with pytest.raises(ValueError, match="train some"):
            superresolve(image, method=QUICK)

    def test_weights_of_something_else(self, image):
        with pytest.raises(ValueError, match="not for super-resolution: unlens"):
            superresolve(image, method=Physics(weights="unet"))

    def test_bands(self, image):
        with pytest.raises(TypeError, match="not bands"):
            superresolve({"g": image}, method=QUICK)

    @pytest.mark.parametrize("options, said", [
        ({"refine": -1}, "refine"), ({"clumps": "more"}, "'network', 'fit'"),
        ({"batch": 0}, "batch"), ({"device": "tpu9"}, "device"),
    ])
    def test_options(self, options, said):
        with pytest.raises(ValueError, match=said):
            Physics(**options)
