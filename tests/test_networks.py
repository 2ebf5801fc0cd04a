"""Architectures and losses: equivariances, agreement with the metrics, gradients."""

import numpy as np
import pytest
import torch

from lensdeblend.evaluation.metrics import psnr, ssim
from lensdeblend.networks import architectures, build
from lensdeblend.networks.losses import dissimilarity, log_squared_error, spread_loss, squared_error
from lensdeblend.networks.orientations import ORIENTATIONS, turned, turned_lens
from lensdeblend.networks.unlenser import brightness_scale, views
from lensdeblend.networks.unlensing import Seen

SIZE = 32


def seen(count=2, noise=0.05, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(-1, 1, SIZE)
    ring = torch.exp(-((torch.hypot(x, x[:, None]) - 0.5) ** 2) / 0.02).expand(count, -1, -1)
    grain = noise * torch.randn(count, SIZE, SIZE, generator=generator)
    image = ring * (1 + torch.arange(count)[:, None, None]) + grain
    used = torch.ones_like(image, dtype=torch.bool)
    return Seen(image, torch.full_like(image, noise), used, torch.full((count,), 1.5))


@pytest.mark.parametrize("name", [name for name in architectures() if name.startswith("unlens")])
class TestUnlensers:
    def network(self, name, **options):
        torch.manual_seed(1)
        center, spread = [8.0, 2.0, *[0.0] * 6], [1.0, 0.1, 0.05, 0.05, 1.0, 1.0, 0.05, 0.05]
        return build(name, {"size": SIZE, "center": center, "spread": spread, **options}).eval()

    def test_brightness_scales_through(self, name):
        network, images = self.network(name), seen()
        found = network(images)
        brighter = network(Seen(images.image * 1e3, images.sigma * 1e3, images.used, images.psf_fwhm))
        torch.testing.assert_close(brighter.parameters, found.parameters, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(brighter.unlensed, found.unlensed * 1e3, rtol=1e-3, atol=1e-1)

    def test_one_image_does_not_see_the_others(self, name):
        network, images = self.network(name), seen(3)
        together, alone = network(images), network(images[1:2])
        torch.testing.assert_close(alone.parameters[0], together.parameters[1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(alone.unlensed[0], together.unlensed[1], rtol=1e-3, atol=1e-4)

    def test_parameters_are_in_units_of_the_population(self, name):
        network = self.network(name)
        found = network(seen())
        torch.testing.assert_close(network.center + network.spread * found.standard, found.parameters)

    def test_all_weights_learn(self, name):
        network = self.network(name).train()
        found = network(seen(4))
        total = found.standard.square().sum() + found.unlensed.square().sum()
        for extra in (found.log_spread, found.source):
            total = total + (0 if extra is None else extra.square().sum())
        total.backward()
        dead = [n for n, p in network.named_parameters() if p.grad is None or not bool(torch.isfinite(p.grad).all())]
        assert not dead


def test_masked_pixels_do_not_matter():
    network = build("unlens", {"size": SIZE}).eval()
    images = seen()
    images.used[:, 3:6, 3:6] = False
    before = network(images)
    images.image[:, 3:6, 3:6] = 1e4
    after = network(images)
    torch.testing.assert_close(after.parameters, before.parameters)
    torch.testing.assert_close(after.unlensed, before.unlensed)


def test_source_is_drawn_behind_the_given_lens():
    network, images = build("unlens", {"size": SIZE}).eval(), seen()
    lens = torch.tensor([[8.0, 2.0, 0.1, 0.0, 0.5, 0.0, 0.0, 0.0]]).expand(2, -1)
    read = network(images)
    torch.testing.assert_close(read.unlensed, network.draw(images, read.parameters)[0])
    assert not torch.allclose(read.unlensed, network.draw(images, lens)[0], atol=1e-4)


def test_the_published_network_draws_no_more_than_is_seen():
    network, images = build("unlens-paper", {"size": SIZE}).eval(), seen()
    network.unet.out[1].bias.data += 3
    drawn = network(images).unlensed
    highest = images.image.flatten(1).amax(1)[:, None, None].expand_as(drawn)
    torch.testing.assert_close(drawn, highest)
    network.unet.out[1].bias.data -= 6
    assert (network(images).unlensed == 0).all()


def test_scale_is_that_of_the_bright_pixels():
    images = seen(1, noise=1e-4)
    bright = images.image[images.image > 3e-4]
    torch.testing.assert_close(brightness_scale(images), (bright.square().sum() / bright.sum())[None])
    dark = Seen(-images.image, images.sigma, images.used, images.psf_fwhm)
    assert float(brightness_scale(dark)) > 0
    assert bool(torch.isfinite(views(dark, brightness_scale(dark))).all())


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientations_come_back(orientation):
    image, lens = torch.rand(2, 5, 5), torch.rand(2, 8)
    torch.testing.assert_close(turned(turned(image, orientation), orientation, back=True), image)
    torch.testing.assert_close(turned_lens(turned_lens(lens, orientation), orientation, back=True), lens)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientations_of_image_and_lens_agree(orientation):
    from lensdeblend.lensing.delensing import relens

    source = torch.zeros(1, 31, 31)
    source[0, 15:19, 14:17] = 1
    lens = torch.tensor([[9.0, 2.1, 0.1, -0.15, 0.7, -0.4, 0.06, -0.03]])
    image = relens(source, lens, (SIZE, SIZE), supersampling=4)
    other = relens(turned(source, orientation), turned_lens(lens, orientation), (SIZE, SIZE), supersampling=4)
    torch.testing.assert_close(other, turned(image, orientation), atol=2e-5, rtol=0)


def test_losses_are_the_metrics():
    rng = np.random.default_rng(1)
    truth = np.hypot(*np.mgrid[-16:16, -16:16]) < 8
    truth = 3.0 * truth + 0.1 * rng.random(truth.shape)
    image = truth + rng.normal(0, 0.2, truth.shape)
    batch = [torch.as_tensor(a)[None] for a in (image, truth)]
    peak = batch[1].flatten(1).amax(1)
    measured = psnr(image / truth.max(), truth / truth.max(), data_range=1)
    assert float(-10 * squared_error(*batch, peak).log10()) == pytest.approx(measured, rel=1e-9)
    assert float(log_squared_error(*batch, peak, floor=0)) == pytest.approx(-measured * np.log(10) / 10, rel=1e-9)
    similar = ssim(image / truth.max(), truth / truth.max(), data_range=1)
    assert 1 - float(dissimilarity(*batch, peak)) == pytest.approx(similar, rel=1e-7)


def test_spread_loss_finds_the_scatter():
    error = 0.3 * torch.randn(20000, 1, generator=torch.Generator().manual_seed(1))
    trial = torch.tensor([0.2, 0.25, 0.3, 0.35, 0.4])
    losses = torch.stack([spread_loss(error, one.log().expand_as(error)) for one in trial])
    assert float(trial[losses.argmin()]) == pytest.approx(0.3)
    error.requires_grad_(True)
    log_spread = torch.zeros_like(error, requires_grad=True)
    spread_loss(error, log_spread).backward()
    assert error.grad is None and log_spread.grad is not None


@pytest.mark.parametrize("name, options, said", [
    ("unlenz", {}, "did you mean 'unlens'"), ("unlens", {"depth": 3}, "no option 'depth'"),
    ("unlens", {"spread": [1.0] * 7}, "eight positive"), ("unlens", {"spread": [0.0] * 8}, "eight positive"),
])
def test_wrong_architectures(name, options, said):
    with pytest.raises(ValueError, match=said):
        build(name, options)
