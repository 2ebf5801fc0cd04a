"""Published networks of super-resolution: their sizes, their decoder, and that they learn what they are to learn."""

import csv
from dataclasses import replace

import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn.functional import mse_loss

from lensdeblend.lensing.finer_images import binned
from lensdeblend.lensing.imaging import LensImager
from lensdeblend.lensing.radial_decoder import RadialDecoder, brought_to, resized, unit_range, variation
from lensdeblend.networks import build
from lensdeblend.networks.srgan import Critics, LensClassifier
from lensdeblend.networks.unlensing import Seen
from lensdeblend.networks.weights import Card, load_weights, save_weights
from lensdeblend.training.loop import train
from lensdeblend.training.recipe import read_recipe
from lensdeblend.training.tasks import task

CPU = torch.device("cpu")
THETA_E, RADIUS = 1.28, 0.25
TINY = {
    "super-paper": {"width": 4, "blocks": 1},
    "super-rcan": {"width": 4, "groups": 1, "blocks": 1, "reduction": 1},
    "super-srgan": {"width": 4, "blocks": 1},
    "super-feature-gan": {"width": 4, "blocks": 1},
    "super-rcan-supervised": {"width": 4, "groups": 1, "blocks": 1, "reduction": 1},
}
DEFLECTORS = [name for name in TINY if name != "super-rcan-supervised"]


def seen(count=2, size=20):
    rng = torch.Generator().manual_seed(1)
    at = torch.linspace(-1, 1, size)
    ring = torch.exp(-((torch.hypot(at + 0.1, at[:, None]) - 0.5) ** 2) / 0.02)
    image = ring * (1 + torch.arange(count)[:, None, None]) + 0.02 * torch.randn(count, size, size, generator=rng)
    return Seen(image, torch.full_like(image, 0.02), image > -9, torch.full((count,), 1.5))


def tiny(name):
    torch.manual_seed(1)
    return build(name, TINY[name]).eval()


def isothermal(decoder, count=1):
    """What a network would say of an isothermal sphere."""
    low, high = decoder.radial
    radial = torch.full((count, *decoder.frames[0].shape), (THETA_E - low) / (high - low))
    return torch.stack([radial, torch.full_like(radial, 0.5)], 1)


def lensed(x, y, shape=(64, 64), scale=0.08):
    lens = torch.tensor([[THETA_E, 2.0, *[0.0] * 6]])
    source = torch.tensor([[10.0, RADIUS, 1.0, 0.0, 0.0, x, y]])
    return unit_range(LensImager(shape, scale, supersampling=6)(lens, source))


class TestNetworks:
    @pytest.mark.parametrize("name, millions", [
        ("super-paper", 0.9), ("super-rcan", 2.3), ("super-srgan", 1.2), ("super-feature-gan", 1.2),
        ("super-rcan-supervised", 2.3),
    ])
    def test_as_large_as_published(self, name, millions):
        count = sum(p.numel() for p in build(name).parameters())
        assert round(count / 1e6, 1) == millions

    @pytest.mark.parametrize("name", DEFLECTORS)
    def test_numbers_from_0_to_1_that_brightness_does_not_change(self, name):
        network, images = tiny(name), seen()
        shares = network(images)
        assert shares.shape == (2, 2, 40, 40) and 0 < float(shares.detach().min())
        assert float(shares.detach().max()) < 1
        other = replace(images, image=7 * images.image + 3)
        assert_allclose(network(other).detach(), shares.detach(), atol=1e-5)
        assert not torch.allclose(network(replace(images, image=images.image.square())), shares, atol=1e-5)

    @pytest.mark.parametrize("name", TINY)
    def test_every_parameter_learns(self, name):
        network = tiny(name).train()
        (network(seen()) - 0.3).pow(3).sum().backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0, key

    def test_flux_comes_through_and_goes_along(self):
        network, images = tiny("super-rcan-supervised"), seen()
        fine = network(images)
        assert fine.shape == (2, 40, 40)
        brighter = Seen(10 * images.image, 10 * images.sigma, images.used, images.psf_fwhm)
        assert_allclose(network(brighter).detach(), 10 * fine.detach(), rtol=1e-4, atol=1e-5)
        network.features[-1][-1].weight.data.zero_()
        assert_allclose(network(images).detach().sum((1, 2)), images.image.sum((1, 2)), rtol=1e-3)
        assert_allclose(network(images).detach(), resized(images.image, (40, 40)) / 4, atol=1e-6)

    def test_a_critic_a_scale(self):
        torch.manual_seed(1)
        critics = Critics(3, widths=(4, 8))
        images = [torch.rand(2, n, n, requires_grad=True) for n in (32, 16, 8)]
        verdicts = critics(images)
        assert [verdict.shape for verdict in verdicts] == [(2,)] * 3
        verdicts[1].sum().backward()
        assert [image.grad is not None for image in images] == [False, True, False]
        with pytest.raises(ValueError):
            critics(images[:2])

    def test_the_classifier_has_the_latent_maps_it_judges_by(self):
        torch.manual_seed(1)
        classifier = LensClassifier(widths=(4, 8))
        maps = classifier.features(torch.rand(2, 16, 16))
        assert maps.shape == (2, 8, 4, 4) and classifier(torch.rand(2, 16, 16)).shape == (2, 3)

    @pytest.mark.parametrize("name", ["super-paper", "super-rcan-supervised"])
    def test_half_precision_weights_are_as_good(self, name, tmp_path):
        network, images = tiny(name), seen()
        about = {key: "" for key in ("commit", "device", "licence", "data")}
        save_weights(network, Card("half", name, TINY[name], {}, {}, {}, {}, 1, **about), tmp_path)
        stored = load_weights(tmp_path / "half.safetensors")[0]
        change = (stored(images) - network(images)).abs().max()
        assert 0 < float(change.detach()) < 0.1 * 0.02


class TestDecoder:
    @pytest.mark.parametrize("shape, scale", [((64, 64), 0.08), ((75, 70), 0.07)])
    @pytest.mark.parametrize("x, y", [(0.1, -0.05), (-0.3, 0.2)])
    def test_exact_for_an_isothermal_sphere(self, shape, scale, x, y):
        decoder, image = RadialDecoder(shape, scale), lensed(x, y, shape, scale)
        found = decoder(image, isothermal(decoder))
        brightest = decoder.frames[0].points.flatten(1)[:, int(found.sources[0].flatten().argmax())]
        assert_allclose(brightest, [x, y], atol=0.75 * scale)
        assert float(mse_loss(found.sources[0], found.profiles[0])) < 2e-4
        finer = unit_range(resized(image, decoder.frames[0].shape))
        assert float(mse_loss(found.images[0], finer)) < 1.5e-3
        for level, (traced, disc) in enumerate(zip(found.sources, found.profiles)):
            assert traced.shape == disc.shape == found.images[level].shape

    def test_another_lens_is_worse(self):
        decoder, image = RadialDecoder((64, 64), 0.08), lensed(0.1, -0.05)
        right = isothermal(decoder)
        for change in (-0.1, 0.1):
            off = right + torch.tensor([change, 0.0])[:, None, None]
            good, bad = decoder(image, right), decoder(image, off)
            finer = unit_range(resized(image, (128, 128)))
            assert mse_loss(bad.images[0], finer) > 3 * mse_loss(good.images[0], finer)
            assert mse_loss(bad.sources[0], bad.profiles[0]) > 2 * mse_loss(good.sources[0], good.profiles[0])

    def test_scales_of_the_deflection(self):
        decoder = RadialDecoder((8, 8), 0.5)
        ends = torch.stack([torch.zeros(2, 16, 16), torch.ones(2, 16, 16)])
        polar = decoder.polar(ends)
        assert_allclose(polar[:, :, 0, 0], [[0.5, -0.001375], [1.6, 0.001375]], rtol=1e-6)
        deflection = decoder(torch.rand(2, 8, 8), ends).deflection
        x, y = decoder.frames[0].points
        assert_allclose(torch.hypot(*deflection[1]), torch.hypot(torch.tensor(1.6), torch.tensor(0.001375)), rtol=1e-5)
        # Radial outwards, tangential counter-clockwise.
        assert_allclose((deflection[1, 0] * x + deflection[1, 1] * y) / torch.hypot(x, y), 1.6, rtol=1e-5)
        assert_allclose((deflection[1, 1] * x - deflection[1, 0] * y) / torch.hypot(x, y), 0.001375, rtol=1e-2)

    def test_beyond_the_frame_it_is_as_at_the_edge(self):
        decoder, sky = RadialDecoder((16, 16), 0.3), torch.linspace(0, 1, 16).expand(1, 16, 16)
        rays = decoder.frames[1].points + torch.tensor([10.0, 0.0])[:, None, None]
        assert (decoder._traced(sky, rays[None]) == 1).all()

    def test_gradients_reach_the_deflection(self):
        decoder = RadialDecoder((16, 16), 0.3)
        shares = torch.full((1, 2, 32, 32), 0.4, requires_grad=True)
        found = decoder(lensed(0.1, 0.0, (16, 16), 0.3), shares)
        for one in (found.images[0], found.sources[0], found.images[2], found.sources[1]):
            gradient, = torch.autograd.grad(one.square().sum(), shares, retain_graph=True)
            assert torch.isfinite(gradient).all() and (gradient != 0).any()

    def test_flux_is_found_again(self):
        torch.manual_seed(1)
        model, weight = torch.rand(2, 6, 6), torch.rand(2, 6, 6)
        slope, offset = brought_to(3 * model + 0.5, model, weight)
        assert_allclose(slope, 3.0, rtol=1e-4)
        assert_allclose(offset, 0.5, rtol=1e-4)
        weight[:, 2, 2] = 0
        spoiled = 3 * model + 0.5
        spoiled[:, 2, 2] = 1e3
        assert_allclose(brought_to(spoiled, model, weight)[0], 3.0, rtol=1e-3)
        assert (brought_to(-model, model, weight)[0] == 0).all()

    def test_variation_is_that_of_neighbours(self):
        ramp = torch.zeros(1, 2, 5, 9)
        ramp[0, 1] = 0.25 * torch.arange(9.0)
        assert float(variation(ramp)) == pytest.approx(0.25)
        assert float(variation(ramp + 4)) == pytest.approx(0.25)
        assert float(variation(ramp.transpose(2, 3) + ramp[:, :, :, :5].new_zeros(()))) == pytest.approx(0.25)

    def test_an_even_image_has_no_scale(self):
        assert (unit_range(torch.full((1, 4, 4), 7.0)) == 0).all()


def small(name, **changes):
    architecture = read_recipe(name).network.architecture
    known = {
        "name": "tiny", "network": {"options": TINY[architecture]},
        "data": {"shares": {"none": 1.0, "cdm": 0.0, "axion": 0.0}},
        "length": {
            "steps": 8, "batch": 2, "validate_every": 4, "validation": 2, "learning_rate": 2e-2, "clip": 1.0,
            "schedule": "cosine",
        },
    }
    if name.startswith("feature-gan"):
        known["data"]["classifier"] = {"steps": 2, "batch": 2}
    return read_recipe(name).changed(known).changed(changes)


class TestTask:
    @pytest.mark.parametrize("model, weight", [(1, 0.5), (2, 0.75), (3, 0.5)])
    def test_published_losses(self, model, weight):
        recipe = read_recipe(f"physics-paper-{model}")
        assert recipe.loss == {"source": 1.0, "image": 1.0, "variation": weight}
        assert recipe.length.learning_rate == 1e-5 and recipe.length.batch == 5
        assert recipe.length.schedule == "constant" and recipe.length.weight_decay == 0

    def test_the_loss_is_the_sum_of_its_parts(self):
        learned = task("superresolve-radial")(small("physics-paper-3"))
        batch = learned.draw(2, (1, 1), CPU, "train")
        network = learned.network()[0].eval()
        loss, parts = learned.loss(network, batch)
        found = RadialDecoder((64, 64), 0.08)(unit_range(batch.image), network(learned.seen(batch)))
        expected = {
            "source": sum(mse_loss(*pair) for pair in zip(found.sources, found.profiles)),
            "image": mse_loss(found.images[0], unit_range(resized(unit_range(batch.image), (128, 128)))),
            "variation": variation(found.polar).mean(),
        }
        assert set(parts) == set(expected)
        for name, value in expected.items():
            assert float(parts[name].detach()) == pytest.approx(float(value.detach()), rel=1e-5)
        total = parts["source"] + parts["image"] + 0.5 * parts["variation"]
        assert float(loss.detach()) == pytest.approx(float(total.detach()))

    def test_the_truth_is_no_part_of_the_loss(self):
        learned = task("superresolve-radial")(small("physics-paper-3"))
        batch, network = learned.draw(2, (1, 1), CPU, "train"), learned.network()[0].eval()
        hidden = ("sigma", "clean", "lens", "source")
        blind = replace(batch, **{name: torch.full_like(getattr(batch, name), torch.nan) for name in hidden})
        values = [float(learned.loss(network, one)[0].detach()) for one in (batch, blind)]
        assert values[0] == values[1] and batch.fine is None

    def test_critics_learn_from_one_side_and_the_network_from_the_other(self):
        learned = task("superresolve-radial")(small("feature-gan-3"))
        learned.begin(CPU, progress=False)
        network, critics = learned.network()[0], learned.adversary()
        loss, parts, adverse = learned.contest(network, critics, learned.draw(2, (1, 1), CPU, "train"))
        assert set(parts) == {"source", "image", "variation", "adversarial", "features"}
        loss.backward(retain_graph=True)
        assert all(p.grad is None for p in critics.parameters())
        network.zero_grad()
        adverse.backward()
        assert all(p.grad is not None for p in critics.parameters())
        assert all(p.grad is None for p in network.parameters())

    def test_the_classifier_is_the_same_each_time(self):
        def taught(steps):
            length = {"steps": steps, "batch": 2, "learning_rate": 1e-2}
            learned = task("superresolve-radial")(small("feature-gan-3", data={"classifier": length}))
            learned.begin(CPU)
            return learned._classifier

        images, once = torch.rand(2, 64, 64), taught(1)
        assert torch.equal(once.features(images), taught(1).features(images))
        assert not torch.equal(once.features(images), taught(2).features(images))
        assert not any(p.requires_grad for p in once.parameters())

    def test_features_are_told_apart_whatever_their_size(self):
        learned = task("superresolve-radial")(small("feature-gan-3"))
        learned.begin(CPU)
        batch, network = learned.draw(2, (1, 1), CPU, "train"), learned.network()[0].eval()
        before = float(learned.loss(network, batch)[1]["features"].detach())
        last = learned._classifier.layers[-2]
        last.weight.data.mul_(10)
        last.bias.data.mul_(10)
        assert 0 < before == pytest.approx(float(learned.loss(network, batch)[1]["features"].detach()), rel=1e-4)

    def test_measures_are_those_of_the_flux(self):
        learned = task("superresolve-radial")(small("physics-paper-3"))
        batch = learned.draw(2, (1, 2), CPU, "test")
        decoder = RadialDecoder((64, 64), 0.08)
        with torch.no_grad():
            figures = learned.measure(lambda images: isothermal(decoder, 2), batch)
        assert figures["radial"] == pytest.approx(THETA_E) and figures["variation"] == pytest.approx(0, abs=1e-6)
        assert 20 < figures["psnr"] < 45 and figures["chi2"] > 1 and figures["deflection"] < 0.1
        found = decoder(unit_range(batch.image), isothermal(decoder, 2))
        fine = learned._in_flux(found, batch)
        assert_allclose(binned(fine, 2).sum((1, 2)), batch.clean.sum((1, 2)), rtol=0.05)

    @pytest.mark.parametrize("name, change, said", [
        ("physics-paper-3", {"loss": {"psnr": 1.0}}, "unknown key 'psnr'"),
        ("physics-paper-3", {"loss": {"features": 1.0}}, "needs data: classifier"),
        ("rcan-supervised-3", {"data": {"models": 1}}, "did you mean 'model'"),
        ("physics-paper-3", {"length": {"schedule": "linear"}}, "schedule must be"),
    ])
    def test_what_it_refuses(self, name, change, said):
        with pytest.raises(ValueError, match=said):
            recipe = small(name, **change)
            task(recipe.task)(recipe)

    def test_folders_are_of_no_use_to_it(self, tmp_path):
        with pytest.raises(ValueError, match="'superresolve-pairs' makes its own images"):
            task("superresolve-pairs")(small("rcan-supervised-3"), pairs=tmp_path)


@pytest.mark.parametrize("name", ["physics-paper-3", "feature-gan-3", "rcan-supervised-3"])
def test_trains_and_is_read_back(name, tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    monkeypatch.setattr("lensdeblend.training.loop.draw_curves", lambda *args: None)
    monkeypatch.setattr("lensdeblend.training.loop._PANELS", 2)
    monkeypatch.setattr("lensdeblend.training.tasks.deeplense_task._DRAWS", 4)
    if name == "feature-gan-3":
        monkeypatch.setattr("lensdeblend.training.pictures.draw_rows", lambda *args: None)
    path = train(small(name), tmp_path, progress=False)
    network, card = load_weights(path)
    assert card.domain["pixel_scale"] == [0.08, 0.08] and card.domain["pixels"] == 64
    assert ("low resolution alone" in card.data) == (name != "rcan-supervised-3")
    with (tmp_path / "log.csv").open() as file:
        first, last = (float(row["loss"]) for row in csv.DictReader(file))
    assert last < first
    assert ("classified" in card.metrics) == (name == "feature-gan-3")
    if name != "feature-gan-3":
        assert (tmp_path / "panels.png").read_bytes().startswith(b"\x89PNG")
