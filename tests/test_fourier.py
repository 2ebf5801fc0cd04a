"""Galaxies drawn in Fourier space, held against other codes and their own finite differences."""

import astropy.units as u
import galsim
import numpy as np
import pytest
import torch

from lensdeblend import simulate
from lensdeblend.lensing import blend, fourier_frames
from lensdeblend.lensing.fourier import Rendered, render
from lensdeblend.lensing.fourier_frames import FourierFrame
from lensdeblend.lensing.galaxy_layout import GalaxyLayout
from lensdeblend.lensing.hankel import sersic_transform
from lensdeblend.scenes import GaussianPSF, Observation, Scene, Sersic


def psf(fwhm=3.5, size=31):
    axis = np.arange(size) - size // 2
    line = np.exp(-0.5 * (axis / (fwhm / 2.3548)) ** 2)
    kernel = line[:, None] * line
    return kernel / kernel.sum()


def drawn(layout, numbers, *frames):
    return render(torch.as_tensor(np.array([numbers], float)), layout, frames)


@pytest.mark.parametrize("n", [0.5, 1.0, 1.7, 2.5, 4.0, 6.0])
def test_transform_is_galsims(n):
    table = sersic_transform()
    k = np.geomspace(0.01, 100, 40)
    precise = galsim.GSParams(kvalue_accuracy=1e-7, integration_relerr=1e-8, integration_abserr=1e-9)
    exact = [galsim.Sersic(n, half_light_radius=1.0, gsparams=precise).kValue(x, 0).real for x in k]
    value, slope, _ = table.rows(torch.tensor(np.log(n), dtype=torch.float64))
    found, = table.at((value,), torch.as_tensor(np.log(k)))
    np.testing.assert_allclose(found, exact, atol=2e-5)


def test_slopes_by_index():
    table = sersic_transform()
    log_n = torch.tensor([np.log(1.3), np.log(3.3)])
    *_, by_index = table.rows(log_n)
    above, below = (table.rows(log_n + step)[0] for step in (1e-4, -1e-4))
    torch.testing.assert_close((above - below) / 2e-4, by_index, atol=1e-6, rtol=1e-4)


def test_images_are_those_of_the_simulators():
    scale = 0.2 * u.arcsec
    galaxy = Sersic(40.0, 0.6 * u.arcsec, 1.0, e1=0.2, e2=-0.1, center_x=0.5 * u.arcsec, center_y=-0.3 * u.arcsec)
    observation = Observation(scale, (48, 52), GaussianPSF(0.7 * u.arcsec), background_rms=0.1)
    truth = simulate(Scene(sources=[galaxy]), observation, method="galsim", seed=1)
    frame = FourierFrame.of((48, 52), [np.asarray(truth.image.psf)])
    numbers = [25.5 + 2.5, 23.5 - 1.5, 0.2, -0.1, np.log(3.0)]
    found, = drawn(GalaxyLayout(((1.0,),)), numbers, frame)
    difference = 40.0 * found.basis[0, 0, 0].numpy() - truth.noiseless.data
    assert np.abs(difference).max() < 1e-3 * truth.noiseless.data.max()


def test_derivatives_are_finite_differences():
    layout = GalaxyLayout(((1.0, 4.0), (None,), ()))
    frame = FourierFrame.of((40, 44), [psf()])
    numbers = np.array(
        [20.3, 18.7, 0.2, 0.1, np.log(3.0), np.log(1.5), 28.2, 21.1, -0.1, 0.3, np.log(2.0), np.log(2.3), 10.0, 30.0]
    )
    assert len(layout.names) == len(numbers)
    fluxes = torch.tensor([[[3.0, 2.0, 1.0, 5.0]]], dtype=torch.float64)
    found, = drawn(layout, numbers, frame)
    slopes = found.derivatives(fluxes)[0, 0]
    for column, name in enumerate(layout.names):
        step = 1e-3 * np.eye(len(numbers))[column]
        above, below = (
            (drawn(layout, numbers + sign * step, frame)[0].basis * fluxes[..., None, None]).sum(2)[0, 0]
            for sign in (1, -1)
        )
        numeric = (above - below) / 2e-3
        assert float((numeric - slopes[column]).abs().max()) < 2e-3 * float(numeric.abs().max()), name


def test_flux_is_kept_where_the_frame_is_wide():
    frame = FourierFrame.of((80, 80), [psf()])
    found, = drawn(GalaxyLayout(((1.0,), ())), [40.2, 39.1, 0.3, 0.1, np.log(4.0), 20.0, 60.5], frame)
    np.testing.assert_allclose(found.basis.sum((-1, -2))[0, 0], 1.0, atol=2e-4)


def test_bands_on_other_pixels_show_the_same_galaxy():
    layout, numbers = GalaxyLayout(((1.0,),)), [22.0, 18.0, 0.3, -0.2, np.log(3.0)]
    plain = FourierFrame.of((40, 40), [psf()])
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    turned = FourierFrame.of((40, 40), [psf()], matrix=quarter, offset=np.array([39.0, 0.0]))
    halved = FourierFrame.of((20, 20), [None], matrix=0.5 * np.eye(2), offset=np.array([-0.25, -0.25]))
    sharp = FourierFrame.of((40, 40), [None])
    bands = drawn(layout, numbers, plain, turned, halved, sharp)
    first, second, coarse, fine = (band.basis[0, 0, 0].numpy() for band in bands)
    np.testing.assert_allclose(second, np.rot90(first, -1), atol=1e-9)
    np.testing.assert_allclose(coarse, fine.reshape(20, 2, 20, 2).sum((1, 3)), atol=2e-3 * coarse.max())


@pytest.mark.parametrize("n, tolerance", [(1.0, 2e-3), (4.0, 6e-3)])
@pytest.mark.parametrize("place", [0.0, 0.15, 0.35])
def test_cusps_are_averaged_over_pixels_before_the_psf(n, tolerance, place):
    """Without the folded images of the transform, 2e-2 of the peak is left of the steeper one."""
    observation = Observation(0.2 * u.arcsec, (41, 41), GaussianPSF(0.7 * u.arcsec), background_rms=0.1)
    galaxy = Sersic(10.0, 0.2 * u.arcsec, n, e1=0.2, center_x=0.2 * place * u.arcsec)
    truth = simulate(Scene(sources=[galaxy]), observation, method="galsim", seed=1)
    layout, frame = GalaxyLayout(((n,),)), FourierFrame.of((41, 41), [np.asarray(truth.image.psf)])
    found, = drawn(layout, [20 + place, 20.0, 0.2, 0.0, 0.0], frame)
    difference = 10 * found.basis[0, 0, 0].numpy() - truth.noiseless.data
    assert np.abs(difference).max() < tolerance * truth.noiseless.data.max()


@pytest.mark.parametrize("fwhm", [None, 1.2])
def test_pixels_too_large_for_the_light_are_averages_all_the_same(fwhm):
    """As the simulators draw it: the mean over each pixel, then the PSF, however coarse the pixels."""
    observation = Observation(
        0.2 * u.arcsec, (32, 32), None if fwhm is None else GaussianPSF(0.2 * fwhm * u.arcsec), background_rms=0.1
    )
    galaxy = Sersic(10.0, 0.16 * u.arcsec, 1.0, e1=0.3, center_x=0.05 * u.arcsec)
    truth = simulate(Scene(sources=[galaxy]), observation, method="torch", seed=1)
    kernel = None if truth.image.psf is None else np.asarray(truth.image.psf)
    found, = drawn(GalaxyLayout(((1.0,),)), [15.75, 15.5, 0.3, 0.0, np.log(0.8)], FourierFrame.of((32, 32), [kernel]))
    difference = 10 * found.basis[0, 0, 0].numpy() - truth.noiseless.data
    assert np.abs(difference).max() < 0.02 * truth.noiseless.data.max()


@pytest.mark.parametrize("held", [1, 5000, 10**9])
def test_how_many_images_are_drawn_at_once_does_not_matter(held, monkeypatch):
    layout = GalaxyLayout(((1.0, 4.0), (1.0,)))
    frame = FourierFrame.of((40, 44), [psf(), psf(3.0)])
    numbers = [20.3, 18.7, 0.2, 0.1, np.log(3.0), np.log(1.5), 28.2, 21.1, -0.1, 0.3, np.log(2.0)]
    usual, = drawn(layout, numbers, frame)
    monkeypatch.setattr(fourier_frames, "_CACHED", held)
    other, = drawn(layout, numbers, frame)
    torch.testing.assert_close(other.basis, usual.basis, rtol=1e-12, atol=1e-14)
    assert other.basis.shape == (1, 2, 3, 40, 44) and float(other.basis.sum((-2, -1)).min()) > 0.8


def test_half_of_the_products_are_all_of_them():
    parts = torch.as_tensor(np.random.default_rng(1).normal(size=(2, 3, blend._FEW + 101, 7)))
    found = blend._products(parts)
    assert found.shape == (2, 3, blend._FEW + 100, blend._FEW + 101)
    torch.testing.assert_close(found, torch.einsum("bgpm,bgqm->bgpq", parts[:, :, :-1], parts))


def test_the_normal_matrix_of_a_failed_step_is_not_computed(monkeypatch):
    layout, asked = GalaxyLayout(((1.0,), (1.0,))), []
    frame = FourierFrame.of((40, 44), [psf()])
    truth = torch.tensor([[20.3, 18.7, 0.2, 0.1, np.log(3.0), 28.2, 21.1, -0.1, 0.3, np.log(2.0)]])
    data = 30 * render(truth, layout, [frame])[0].basis.sum(2)
    problem = blend.BlendProblem(
        layout, [blend.BandData(frame, (0,), data, torch.ones_like(data))], truth, torch.zeros(10, dtype=truth.dtype)
    )
    derivatives = Rendered.derivatives
    monkeypatch.setattr(
        Rendered, "derivatives", lambda self, amplitudes: asked.append(1) or derivatives(self, amplitudes)
    )
    now, worse = problem(truth), problem(truth + 0.1)
    assert bool(worse.objective > now.objective) and not asked
    assert now.normal.shape == (1, 12, 12) and now.gradient.shape == (1, 12) and len(asked) == 1
    kept = now.replaced(worse, worse.objective < now.objective)
    assert torch.equal(kept.normal, now.normal) and len(asked) == 1
    moved = now.replaced(worse, worse.objective > now.objective)
    assert torch.equal(moved.normal, worse.normal) and len(asked) == 2
