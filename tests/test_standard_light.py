"""Galaxies in the standard frame, against GalSim and finite differences; Sérsic profiles fitted back."""

import galsim
import numpy as np
import pytest
import torch

from lensdeblend.lensing.closest_profile import centred_on_profile
from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.sersic_fit import fit_sersics
from lensdeblend.lensing.standard_light import placed, sampled, squeezed, standard_light, unsqueezed, whole_flux

PIXELS, WIDTH = 64, 1.2
# The last is how closely pixels are drawn, of the brightest: cusps take most care.
PROFILES = [
    (1.0, 5.0, 0.3, 0.1, 32.2, 31.6, 0.001), (4.0, 5.0, 0.0, 0.3, 31.0, 31.5, 0.015),
    (4.0, 3.0, 0.3, 0.1, 32.3, 31.6, 0.015), (0.5, 2.0, 0.6, 0.0, 32.1, 31.8, 0.005),
    (2.5, 8.0, 0.4, 0.3, 32.1, 31.8, 0.005),
]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def place_of(radius, e1, e2, x, y, **more):
    return placed(tensor([x, y]), tensor(radius), tensor(e1), tensor(e2), **more)


def bumps(seed, channels=1, size=0.6):
    """Smooth departures (1, channels, 64, 64)."""
    coarse = torch.randn(1, channels, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return size * torch.nn.functional.interpolate(coarse, 64, mode="bicubic")


@pytest.mark.parametrize("n, radius, e1, e2, x, y, close", PROFILES)
def test_agrees_with_galsim_through_a_psf(n, radius, e1, e2, x, y, close):
    middle = (PIXELS - 1) / 2
    drawn = standard_light(place_of(radius, e1, e2, x, y), tensor(n), None, (PIXELS, PIXELS))[0][0, 0]
    steps = torch.arange(-12.0, 13.0, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (steps**2 + steps[:, None] ** 2) / WIDTH**2)
    blur = Convolution(kernel / kernel.sum(), (PIXELS, PIXELS))
    ours = blur(drawn).numpy()
    # A model is averaged over pixels, then it goes through the PSF.
    true = galsim.Sersic(n, half_light_radius=radius).shear(g1=e1, g2=e2).shift(x - middle, y - middle)
    true = torch.from_numpy(true.drawImage(nx=PIXELS, ny=PIXELS, scale=1.0, dtype=float).array)
    true = blur(true).numpy()
    inner = slice(12, -12)
    np.testing.assert_allclose(ours[inner, inner], true[inner, inner], atol=close * true.max())


def test_flux_is_1_whatever_the_departure():
    drawn = standard_light(place_of(3.0, 0.2, -0.1, 40.0, 41.0), tensor(1.0), bumps(1, 3), (80, 82))[0]
    plain = standard_light(place_of(3.0, 0.2, -0.1, 40.0, 41.0), tensor(1.0), None, (80, 82))[0]
    np.testing.assert_allclose(drawn.sum((2, 3)), 1.0, rtol=0.01)
    assert not np.allclose(drawn[0, 0], plain[0, 0], rtol=0.1)


def test_a_constant_departure_is_none():
    place, n = place_of(3.0, 0.2, -0.1, 30.0, 31.0), tensor(2.0)
    constant = torch.full((1, 1, 64, 64), 0.7, dtype=torch.float64)
    drawn, plain = (standard_light(place, n, one, (60, 60))[0] for one in (constant, None))
    np.testing.assert_allclose(drawn, plain, rtol=1e-9)


def test_derivatives_are_those_of_finite_differences():
    place, n, departure = place_of(4.0, 0.2, -0.1, 20.3, 19.8), tensor(2.0), bumps(1, 2)
    slopes = bumps(2, 6).unflatten(1, (2, 3))
    found = standard_light(place, n, departure, (40, 41), slopes=slopes)[1]
    for k in range(3):
        ahead, behind = (
            standard_light(place, n, departure + step * slopes[:, :, k], (40, 41))[0] for step in (1e-5, -1e-5)
        )
        np.testing.assert_allclose(found[:, :, k], (ahead - behind) / 2e-5, atol=1e-9)


def test_other_pixels_show_the_same_galaxy():
    """Half as large pixels, turned by a right angle: sums over two by two of them are the first image."""
    matrix, offset = tensor([0.0, -2.0], [2.0, 0.0]), tensor(78.5, 0.5)
    first = standard_light(place_of(4.0, 0.3, 0.1, 20.3, 18.8), tensor(1.0), bumps(3), (40, 40))[0][0, 0]
    fine = standard_light(
        place_of(4.0, 0.3, 0.1, 20.3, 18.8, matrix=matrix, offset=offset), tensor(1.0), bumps(3), (80, 80)
    )[0][0, 0]
    summed = fine.reshape(40, 2, 40, 2).sum((1, 3))
    np.testing.assert_allclose(summed.T.flip(0), first, atol=0.01 * float(first.max()))


def test_a_galaxy_off_the_image_leaves_its_light():
    drawn = standard_light(place_of(3.0, 0.0, 0.0, -1.6, 12.0), tensor(1.0), bumps(1), (30, 30))[0][0, 0]
    assert float(drawn[:, 10:].sum()) < float(drawn[:, :5].sum())
    assert 0.1 < float(drawn.sum()) < 0.5


def test_squeezed_and_back():
    u, v = torch.meshgrid(torch.linspace(-6, 6, 31), torch.linspace(-6, 6, 31), indexing="ij")
    for one, other in zip(unsqueezed(*squeezed(u, v)), (u, v)):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert float(squeezed(tensor(6.0), tensor(0.0))[0]) == pytest.approx(1.0)


def test_maps_are_sampled_where_they_are():
    """A map of its own coordinate gives that back."""
    steps = (torch.arange(64, dtype=torch.float64) + 0.5) / 32 - 1
    maps = steps.expand(64, 64)[None, None]
    u, v = tensor([1.5, -0.4, 0.02]), tensor([0.3, 2.0, -0.01])
    np.testing.assert_allclose(sampled(maps, u, v)[0, 0], squeezed(u, v)[0][0], atol=1e-6)


@pytest.mark.parametrize("n", [0.6, 1.0, 2.0])
def test_whole_flux_is_that_of_the_pixels(n):
    """The integral over rings against the sum over many fine pixels."""
    place, departure = place_of(40.0, 0.0, 0.0, 255.0, 256.0), bumps(4, size=0.4)
    light = standard_light(place, tensor(n), None, (512, 512))[0]
    y, x = torch.meshgrid(torch.arange(512.0), torch.arange(512.0), indexing="ij")
    factor = sampled(departure, *place.points(x.reshape(1, -1).double(), y.reshape(1, -1).double())).exp()
    summed = float((light.flatten(2) * factor).sum() / light.sum())
    assert float(whole_flux(tensor(n), departure)[0]) == pytest.approx(summed, rel=0.02)


class TestFit:
    @pytest.fixture
    def galaxies(self):
        rng, count = np.random.default_rng(1), 24
        drawn = {
            "radius": rng.uniform(2, 7, count), "n": rng.uniform(0.6, 5, count), "x": rng.uniform(22.5, 24.5, count),
            "y": rng.uniform(22.5, 24.5, count), "e1": rng.uniform(-0.4, 0.4, count),
            "e2": rng.uniform(-0.4, 0.4, count),
        }
        return {name: torch.as_tensor(values, dtype=torch.float32) for name, values in drawn.items()}

    def images(self, g):
        place = placed(torch.stack([g["x"], g["y"]], 1), g["radius"], g["e1"], g["e2"])
        return standard_light(place, g["n"], None, (48, 48))[0][:, 0]

    def test_finds_what_was_drawn(self, galaxies):
        found = fit_sersics(7.0 * self.images(galaxies))
        assert bool(found.converged.all())
        for name, true in galaxies.items():
            np.testing.assert_allclose(getattr(found, name), true, atol=0.01, rtol=0.01, err_msg=name)
        np.testing.assert_allclose(found.flux, 7.0, rtol=0.01)

    def test_through_a_psf_and_with_a_mask(self, galaxies):
        steps = torch.arange(-7.0, 8.0)
        psf = torch.exp(-0.5 * (steps**2 + steps[:, None] ** 2) / 1.3**2)
        psf = (psf / psf.sum()).expand(24, -1, -1)
        images = 100 * Convolution(psf, (48, 48))(self.images(galaxies))
        weight = torch.full_like(images, 10.0)
        images[:, 10:14, 5:40], weight[:, 10:14, 5:40] = 50.0, 0.0
        found = fit_sersics(images, weight, psf=psf)
        for name in ("radius", "e1", "e2", "n"):
            np.testing.assert_allclose(getattr(found, name), galaxies[name], atol=0.03, rtol=0.03, err_msg=name)


@pytest.mark.parametrize("n, radius, e1, e2", [(1.0, 6.0, 0.3, 0.1), (2.5, 5.0, -0.2, 0.4), (0.7, 6.0, 0.0, 0.0)])
def test_a_profile_fitted_to_a_centred_galaxy_is_its_own(n, radius, e1, e2):
    departure = bumps(3, channels=2)
    place = place_of(radius, e1, e2, 47.5, 47.5)

    steps = torch.arange(-8.0, 9.0, dtype=torch.float64)
    psf = torch.exp(-0.5 * (steps**2 + steps[:, None] ** 2) / (0.17 * radius) ** 2)[None]
    psf = psf / psf.sum()

    def fitted(departure):
        light = standard_light(place, tensor(n), departure, (96, 96))[0][:, 0]
        fit = fit_sersics(Convolution(psf, (96, 96))(light), psf=psf)
        return torch.stack([fit.radius.log(), fit.e1, fit.e2, fit.n.log()])[:, 0]

    true = tensor(np.log(radius), e1, e2, np.log(n))
    before = (fitted(departure) - true).abs().max()
    centred = centred_on_profile(tensor(n), departure)
    assert (fitted(centred) - true).abs().max() < 0.15 * before
    # What is taken off is the same in all bands.
    torch.testing.assert_close(centred[:, 0] - departure[:, 0], centred[:, 1] - departure[:, 1])
    assert (centred - departure.mean()).std() > 0.5 * departure.std()
