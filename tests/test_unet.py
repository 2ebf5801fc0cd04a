"""The networks as a reconstructor: pixels, units, frames, flags; with weights made here, which know nothing."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import NDData, StdDevUncertainty
from astropy.wcs import WCS

from lensdeblend import prepare, reconstruct, simulate
from lensdeblend.images import pixel_scale
from lensdeblend.networks import build
from lensdeblend.networks.weights import Card, save_weights
from lensdeblend.reconstructors.network_grid import NetworkGrid, Stamp, gaussian_width
from lensdeblend.reconstructors.unet import UNet, UNetPaper, _dressed, _View
from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic, Shear
from lensdeblend.testing import check_reconstructor

DOMAIN = {"pixels": 64, "pixel_scale": [0.07, 0.1], "psf_fwhm": [0.8, 2.2], "peak_snr": [10.0, 300.0]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    for name, options in (("unlens", {"width": 4, "widths": [4, 8]}), ("unlens-paper", {})):
        torch.manual_seed(1)
        options = {**options, "center": [12.0, 2.0, *[0.0] * 6], "spread": [1.0, 0.1, 0.1, 0.1, 1.0, 1.0, 0.1, 0.1]}
        card = Card(name, name, options, {}, {}, DOMAIN, {}, 1, "", "", "", "")
        paths[name] = str(save_weights(build(name, options), card, folder))
    return paths


@pytest.fixture(params=["unlens", "unlens-paper"])
def method(request, weights):
    kind = UNet if request.param == "unlens" else UNetPaper
    return kind(weights=weights[request.param])


def lens(shape=(64, 64), scale=0.08, fwhm=0.12, noise=0.02, seed=1):
    scene = Scene(
        mass=[EPL(1.0 * u.arcsec, 2.1, 0.05, -0.08, 0.1 * u.arcsec, -0.05 * u.arcsec), Shear(0.04, -0.02)],
        sources=[Sersic(50, 0.3 * u.arcsec, 1.0, 0.1, 0.05, 0.15 * u.arcsec, 0.1 * u.arcsec)],
    )
    observation = Observation(scale * u.arcsec, shape, GaussianPSF(fwhm * u.arcsec), background_rms=noise)
    return simulate(scene, observation, method="torch", seed=seed)


def test_contract(method):
    check_reconstructor(method)


def test_batch_is_the_images_one_by_one(method):
    images = [lens(seed=1).image, lens((61, 70), seed=2).image, lens((50, 50), 0.1).image]
    together = reconstruct(images, method=method)
    for image, result in zip(images, together):
        alone = reconstruct(image, method=method)
        np.testing.assert_allclose(alone.model.data, result.model.data, atol=1e-4 * np.abs(result.model.data).max())


@pytest.mark.parametrize("unit", [1e-20, 1e12])
def test_units_scale_through(method, unit):
    image = lens().image
    brighter = NDData(
        image.data * unit, uncertainty=StdDevUncertainty(np.sqrt(image.uncertainty.array) * unit), psf=image.psf,
        meta=image.meta,
    )
    one, other = reconstruct([image, brighter], method=method)
    np.testing.assert_allclose(other.model.data / unit, one.model.data, atol=1e-3 * np.abs(one.model.data).max())
    assert other.chi2 == pytest.approx(one.chi2, rel=1e-3)


def test_symmetrised_answers_turn_with_the_image(weights):
    method, image = UNet(weights=weights["unlens"]), lens().image
    turned = NDData(
        image.data.T.copy(), uncertainty=StdDevUncertainty(np.sqrt(image.uncertainty.array.T)), psf=image.psf.T,
        meta=image.meta,
    )
    one, other = reconstruct([image, turned], method=method)
    np.testing.assert_allclose(other.unlensed.data.T, one.unlensed.data, atol=1e-4 * np.abs(one.unlensed.data).max())
    for mine, its in (("center_x", "center_y"), ("e2", "e2"), ("theta_E", "theta_E")):
        assert u.Quantity(one.parameters[mine][0]).value == pytest.approx(
            u.Quantity(other.parameters[its][0]).value, abs=1e-4
        )
    assert float(one.parameters["e1"][0]) == pytest.approx(-float(other.parameters["e1"][0]), abs=1e-4)


class TestGrid:
    def image(self, shape, scale):
        return NDData(np.random.default_rng(1).random(shape), uncertainty=StdDevUncertainty(np.ones(shape)), meta={
            "PIXSCALE": scale,
        })

    @pytest.mark.parametrize("shape, scale, factor", [
        ((64, 64), 0.08, 1), ((61, 70), 0.08, 1), ((100, 100), 0.1, 1), ((128, 128), 0.04, 2), ((300, 300), 0.03, 3),
        ((32, 32), 0.2, 0.5), ((64, 64), 0.069, 0.07 / 0.069),
    ])
    def test_scales(self, shape, scale, factor):
        grid = NetworkGrid.for_image(self.image(shape, scale), 64, (0.07, 0.1))
        assert grid.factor == pytest.approx(factor)
        assert 0.07 - 1e-9 <= grid.scale <= 0.1 + 1e-9

    def test_pixels_stay_whole(self):
        image = prepare(self.image((70, 61), 0.08))
        stamp = Stamp.of(image, NetworkGrid.for_image(image, 64, (0.07, 0.1)))
        assert set(np.round(stamp.data[stamp.used], 9)) <= set(np.round(image.data.ravel(), 9))
        assert stamp.used.sum() == 64 * 61

    @pytest.mark.parametrize("shape, scale", [((50, 50), 0.035), ((40, 40), 0.15), ((31, 44), 0.069)])
    def test_flux_is_conserved_there_and_back(self, shape, scale):
        image = prepare(self.image(shape, scale))
        # A network pixel that reaches over the edge takes its share of the light with it.
        image.data[[0, 1, 2, -3, -2, -1]] = image.data[:, [0, 1, 2, -3, -2, -1]] = 0
        grid = NetworkGrid.for_image(image, 96, (0.07, 0.1))
        there = grid.from_image(image.data)
        assert there.sum() == pytest.approx(image.data.sum(), rel=1e-9)
        assert grid.to_image(there).sum() == pytest.approx(image.data.sum(), rel=1e-9)

    def test_noise_of_rebinned_pixels(self):
        image = prepare(self.image((128, 128), 0.04))
        stamp = Stamp.of(image, NetworkGrid.for_image(image, 64, (0.07, 0.1)))
        np.testing.assert_allclose(stamp.sigma, 2.0)

    @pytest.mark.parametrize("fwhm", [0.8, 1.25, 3.0, 7.0])
    def test_width_of_a_gaussian(self, fwhm):
        kernel = GaussianPSF(fwhm * u.arcsec).kernel(1 * u.arcsec)
        assert gaussian_width(kernel) == pytest.approx(fwhm, rel=1e-3)


@pytest.mark.parametrize("shape, scale", [((64, 64), 0.08), ((61, 70), 0.08), ((101, 99), 0.1), ((140, 131), 0.04)])
def test_the_truth_lensed_again_fits(weights, shape, scale):
    """Given the true lens and source, the model must be the image, whatever the frame."""
    simulation = lens(shape, scale)
    card = Card("x", "unlens", {}, {}, {}, DOMAIN, {}, 1, "", "", "", "")
    view = _View.of(prepare(simulation.image), card)
    true = np.array([u.Quantity(c[0]).value for c in simulation.scene.lens_parameters.itercols()])
    own = true.copy()
    own[4:6] -= np.array(view.grid.offset) * view.grid.image_scale
    own[[0, 4, 5]] /= view.grid.scale
    view.lens, view.error = torch.as_tensor(own), torch.full((8,), torch.nan)
    np.testing.assert_allclose(view.lens_on_image, true)
    n = 4 * view.grid.pixels
    at = (np.arange(n) - (n - 1) / 2) * view.grid.scale / 4
    x, y = np.meshgrid(at + view.source_center[0], at + view.source_center[1])
    from lensdeblend.lensing.sersic import sersic

    values = [torch.as_tensor(v, dtype=torch.float64) for v in (0.3, 1.0, 0.1, 0.05, 0.15, 0.1)]
    light = 50 * sersic(torch.as_tensor(x), torch.as_tensor(y), *values) * view.grid.scale**2
    view.source, view.unlensed = light, light[::4, ::4]
    result = _dressed(prepare(simulation.image), [""], [view], card)
    peak = simulation.noiseless.data.max()
    inside = view.grid.to_image(np.ones((64, 64))) > 0
    np.testing.assert_allclose(result.model.data[inside], simulation.noiseless.data[inside], atol=0.01 * peak)
    assert pixel_scale(result.source).to_value("arcsec") == pytest.approx(view.grid.scale / 4)


class TestFlags:
    def flags(self, weights, **changes):
        return reconstruct(lens(**changes).image, method=UNet(weights=weights["unlens"])).flags

    def test_inside_the_domain_only_the_fit_is_poor(self, weights):
        assert self.flags(weights) == ("poor fit",)

    @pytest.mark.parametrize("changes, said", [
        ({"scale": 0.2, "fwhm": 0.3}, "pixel scale 0.2"), ({"fwhm": 0.4}, "PSF FWHM of 5"),
        ({"noise": 1.0}, "the noise"), ({"shape": (40, 40)}, "40 pixels a side"),
    ])
    def test_outside(self, weights, changes, said):
        flags = self.flags(weights, **changes)
        assert any(flag.startswith("out_of_domain") and said in flag for flag in flags), flags


def test_wcs_of_the_source_points_at_it(weights):
    image = lens((61, 70)).image
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [35.5, 31.0]
    wcs.wcs.cdelt = [-0.08 / 3600, 0.08 / 3600]
    sky = NDData(image.data, uncertainty=image.uncertainty, psf=image.psf, wcs=wcs)
    result = reconstruct(sky, method=UNet(weights=weights["unlens"]))
    middle = [(n - 1) / 2 for n in reversed(result.source.data.shape)]
    there = result.source.wcs.pixel_to_world(*middle)
    center = image.data.shape[1] / 2 - 0.5, image.data.shape[0] / 2 - 0.5
    assert there.separation(wcs.pixel_to_world(*center)).to_value("arcsec") < 0.08


def test_bands_share_the_lens(weights):
    bands = {"g": lens().image, "r": lens((70, 70), 0.1, fwhm=0.15, seed=3).image}
    result = reconstruct(bands, method=UNet(weights=weights["unlens"]))
    assert list(result.source) == list(result.unlensed) == list(result.model) == ["g", "r"]
    for band, image in bands.items():
        assert result.model[band].data.shape == image.data.shape
    alone = [reconstruct(image, method=UNet(weights=weights["unlens"])) for image in bands.values()]
    values = [r.parameters["theta_E"][0].value for r in alone]
    assert min(values) - 1e-6 <= result.parameters["theta_E"][0].value <= max(values) + 1e-6


@pytest.mark.parametrize("options, said", [
    ({"batch": 0}, "at least 1"), ({"batch": True}, "whole number"), ({"symmetrise": 1}, "True or False"),
])
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        UNet(**options)


def test_unknown_weights():
    with pytest.raises(ValueError, match="there are no weights called 'nothing'"):
        reconstruct(lens().image, method=UNet(weights="nothing"))
