"""The network of unsupervised super-resolution, what trains it, and that the truth does not."""

import csv
from dataclasses import replace

import pytest
import torch
from numpy.testing import assert_allclose

from lensdeblend.networks import build
from lensdeblend.networks.super_lens import NAMES, SuperLens
from lensdeblend.networks.unlensing import Seen
from lensdeblend.networks.weights import load_weights
from lensdeblend.training.loop import train
from lensdeblend.training.recipe import read_recipe
from lensdeblend.training.tasks import task

CPU = torch.device("cpu")


def recipe(**changes):
    tiny = {"name": "tiny", "network": {"options": {"width": 4, "hidden": 16, "cells": 16}}, "data": {"shares": {
        "none": 1.0, "cdm": 0.0, "axion": 0.0,
    }}, "length": {"steps": 12, "batch": 4, "validate_every": 6, "validation": 4}}
    return read_recipe("physics-3").changed(tiny).changed(changes)


@pytest.fixture(scope="module")
def learned():
    return task("superresolve")(recipe())


@pytest.fixture(scope="module")
def network(learned):
    torch.manual_seed(1)
    return learned.network()[0].eval()


@pytest.fixture(scope="module")
def batch(learned):
    return learned.draw(3, (1, 2), CPU, "test")


class TestNetwork:
    def seen(self, size=30, count=3):
        rng = torch.Generator().manual_seed(1)
        at = torch.linspace(-1, 1, size)
        ring = torch.exp(-((torch.hypot(at, at[:, None]) - 0.5) ** 2) / 0.02)
        image = ring * (1 + torch.arange(count)[:, None, None]) + 0.05 * torch.randn(count, size, size, generator=rng)
        return Seen(image, torch.full_like(image, 0.05), image > -9, torch.full((count,), 1.5))

    def test_what_it_tells(self):
        torch.manual_seed(1)
        center, spread = [float(k) for k in range(14)], [0.5] * 14
        network = build("super-lens", {"size": 30, "width": 4, "cells": 15, "center": center, "spread": spread}).eval()
        found = network(self.seen())
        assert found.lens.shape == (3, 8) and found.source.shape == (3, 7) and found.clumps.shape == (3, 15, 15)
        assert (found.source[:, 0] == 1).all() and (found.clumps >= 0).all()
        assert float(found.clumps.detach().max()) < 0.01
        told = torch.cat([found.lens, found.source[:, 1:]], 1)
        assert_allclose(told.detach(), (network.center + 0.5 * found.standard).detach())
        assert float(found.standard.detach().abs().max()) < 1
        network.head[-1].bias.data += 1e3
        assert float(network(self.seen()).standard.detach().min()) == 4.0

    def test_brightness_and_the_other_images_do_not_matter(self):
        network, seen = SuperLens(30, 4).eval(), self.seen()
        found = network(seen)
        other = network(Seen(seen.image[1:2] * 50, seen.sigma[1:2] * 50, seen.used[1:2], seen.psf_fwhm[1:2]))
        assert_allclose(other.standard.detach()[0], found.standard.detach()[1], atol=1e-5)
        assert_allclose(other.clumps.detach()[0], found.clumps.detach()[1], rtol=1e-4)

    def test_small_enough(self):
        for size in (64, 75):
            assert sum(p.numel() for p in SuperLens(size).parameters()) < 1.5e6

    @pytest.mark.parametrize("options, said", [
        ({"center": [1.0] * 13}, "center"), ({"spread": [0.0] * 14}, "positive"),
    ])
    def test_wrong_options(self, options, said):
        with pytest.raises(ValueError, match=said):
            SuperLens(**options)


class TestTask:
    def test_the_truth_is_no_part_of_the_loss(self, learned, network, batch):
        hidden = ("clean", "fine", "lens", "source", "deflection")
        blind = replace(batch, **{name: torch.full_like(getattr(batch, name), torch.nan) for name in hidden})
        (seen, parts), (unseen, _) = learned.loss(network, batch), learned.loss(network, blind)
        assert float(seen.detach()) == float(unseen.detach())
        assert set(parts) == set(learned.losses)

    def test_the_true_lens_is_as_good_as_the_noise(self, learned, network, batch):
        def told(parameters):
            standard = (parameters - network.center) / network.spread
            found = network(learned.seen(batch))
            found.lens, found.source = network.parts(parameters)
            found.clumps, found.standard = torch.zeros_like(found.clumps), standard
            return found

        truth = torch.cat([batch.lens, batch.source[:, 1:]], 1)
        seen = learned.seen(batch)
        best = learned._parts(told(truth), seen)
        # With one ray a finer pixel chi-square is 1 but for a few per cent of a thousand sigma of the peak.
        assert 0.5 * torch.log(torch.tensor(2.0)) < best["likelihood"] < 1.2
        assert best["mass"] == 0 and best["smoothness"] == 0
        for which in (0, 2, 6, 8, 12):
            moved = truth.clone()
            moved[:, which] += 0.2 * network.spread[which]
            parts = learned._parts(told(moved), seen)
            assert parts["likelihood"] > best["likelihood"], NAMES[which]

    def test_measures_of_the_truth(self, learned, network, batch, monkeypatch):
        truth = torch.cat([batch.lens, batch.source[:, 1:]], 1)

        def exact(self, seen):
            found = SuperLens.forward(self, seen)
            found.lens, found.source = self.parts(truth)
            found.clumps, found.standard = torch.zeros_like(found.clumps), (truth - self.center) / self.spread
            return found

        with torch.no_grad():
            before = learned.measure(network, batch)
            monkeypatch.setattr(type(network), "__call__", exact)
            figures = learned.measure(network, batch)
        assert figures["psnr"] > 60 and figures["ssim"] > 0.9999 and figures["deflection"] < 1e-4
        assert figures["chi2"] == pytest.approx(1, abs=0.1) and figures["parameters"] < 1e-4
        assert before["psnr"] < 35 and before["chi2"] > 10

    def test_clumps_are_charged_for(self, learned, network, batch):
        seen = learned.seen(batch)
        found = network(seen)
        found.clumps = torch.zeros_like(found.clumps)
        found.clumps[:, 5, 7] = 0.4
        parts = learned._parts(found, seen)
        assert float(parts["mass"]) == pytest.approx(0.4 / 16**2, rel=1e-5) and parts["smoothness"] > 0

    @pytest.mark.parametrize("change, said", [
        ({"loss": {"psnr": 1.0}}, "unknown key 'psnr'"), ({"data": {"models": 1}}, "did you mean 'model'"),
        ({"data": {"model": 4}}, "model must be"),
    ])
    def test_what_it_refuses(self, change, said):
        with pytest.raises(ValueError, match=said):
            task("superresolve")(recipe(**change))

    def test_folders_are_of_no_use_to_it(self, tmp_path):
        with pytest.raises(ValueError, match="its own images"):
            task("superresolve")(recipe(), pairs=tmp_path)


def test_trains_and_is_read_back(tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    monkeypatch.setattr("lensdeblend.training.loop.draw_curves", lambda *args: None)
    path = train(recipe(length={"learning_rate": 5e-3, "steps": 20, "validate_every": 10}), tmp_path, progress=False)
    network, card = load_weights(path)
    assert card.domain["pixel_scale"] == [0.08, 0.08] and card.domain["pixels"] == 64
    assert card.domain["psf_fwhm"] == [pytest.approx(1.0)] * 2 and card.domain["psf_fwhm_arcsec"] == 0.08
    assert 500 < card.domain["peak_snr"][0] < card.domain["peak_snr"][1] < 3000
    assert "low resolution alone" in card.data and network.cells == 16
    with (tmp_path / "log.csv").open() as file:
        first, last = (float(row["loss"]) for row in csv.DictReader(file))
    assert last < first
    assert (tmp_path / "panels.png").read_bytes().startswith(b"\x89PNG")
