"""Recipes, data streams and the training loop, on networks small enough to learn in seconds."""

import csv

import numpy as np
import pytest
import torch
import yaml

from lensdeblend.cli import main
from lensdeblend.lensing.delensing import relens
from lensdeblend.lensing.imaging import LensImager
from lensdeblend.networks.weights import load_weights
from lensdeblend.scenes.populations import Fixed, Normal, population
from lensdeblend.simulators.sampling import sample
from lensdeblend.simulators.torch import Torch
from lensdeblend.training.ahead import DrawnAhead
from lensdeblend.training.folder_pairs import FolderPairs, SkippedPairsWarning
from lensdeblend.training.lens_pairs import LensPairs
from lensdeblend.training.loop import train
from lensdeblend.training.recipe import read_recipe, recipes
from lensdeblend.training.sources import Parametric
from lensdeblend.training.tasks import task, tasks

pytest.importorskip("lightning")

SMALL = {
    "name": "small",
    "data": {"pixels": 16, "priors": {"pixel_scale": {"Fixed": 0.3}, "psf_fwhm": {"Fixed": 0.4}}, "sources": {
        "parametric": 1.0, "procedural": None, "real": None,
    }},
    "length": {"steps": 6, "batch": 4, "validate_every": 3, "validation": 8},
    "budget": {"cpu": {"length": {"steps": 3}}},
}


def small(name="unet", **changes):
    options = {"width": 4, "widths": [4, 8]} if name == "unet" else {}
    recipe = read_recipe(name).changed({**SMALL, "network": {"options": options}})
    return recipe.changed(changes) if changes else recipe


def log(folder):
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of small trainings, pictures and all; nothing may be written there."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("unet", "unet-paper")}
    for name, folder in folders.items():
        train(small(name), folder, progress=False)
    return folders


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch):
    """To draw takes longer than to train these networks: the pictures of ``trained`` are the ones to look at."""
    monkeypatch.setattr("lensdeblend.training.loop.draw_curves", lambda *args: None)
    monkeypatch.setattr("lensdeblend.training.pictures.draw_rows", lambda *args: None)


class TestRecipe:
    @pytest.mark.parametrize("name", recipes())
    def test_shipped_recipes_can_be_read(self, name):
        recipe = read_recipe(name)
        assert recipe.name == name and recipe.task in tasks()
        assert recipe.within("cpu").length.steps < recipe.length.steps

    @pytest.mark.parametrize("change, said", [
        ({"lenght": {}}, "did you mean 'length'"), ({"length": {"step": 3}}, "did you mean 'steps'"),
        ({"length": {"steps": 0}}, "at least 1"), ({"length": {"batch": 2.5}}, "whole number"),
        ({"length": {"learning_rate": -1}}, "positive"), ({"network": {"architectures": "x"}}, "unknown key"),
    ])
    def test_unknown_keys_and_bad_values(self, change, said):
        with pytest.raises(ValueError, match=said):
            read_recipe("unet").changed(change)

    @pytest.mark.parametrize("change, said", [
        ({"data": {"populations": "x"}}, "did you mean 'population'"), ({"data": {"population": "x"}}, "unknown pop"),
        ({"loss": {"psnr": 1}}, "unknown key 'psnr'"), ({"data": {"priors": {"theta_E": 1}}}, "must be one of"),
        ({"data": {"priors": {"theta_E": {"Uniform": [1, 2, 3]}}}}, "does not take"),
        ({"data": {"sources": {"parametrics": 1}}}, "unknown kind"), ({"task": "unlenz"}, "did you mean 'unlens'"),
        ({"network": {"options": {"depth": 1}}}, "no option 'depth'"), ({"data": {"noise_free": 1.2}}, "share"),
        ({"data": {"sources": {"real": 0.5}}}, "--images FOLDER"),
    ])
    def test_what_the_task_refuses(self, change, said, tmp_path):
        with pytest.raises(ValueError, match=said):
            train(small(**change), tmp_path / "out", progress=False)
        assert not (tmp_path / "out" / "checkpoints").exists()

    @pytest.mark.parametrize("text, said", [("a: [", "not YAML"), ("- 1", "must be a mapping"), ("name: x", "lacks")])
    def test_files_that_are_no_recipe(self, text, said, tmp_path):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(ValueError, match=said):
            read_recipe(tmp_path / "r.yaml")
        with pytest.raises(ValueError, match="no recipe of the package"):
            read_recipe("nothing")

    def test_budgets_change_it(self):
        assert small().within("cpu").length.steps == 3
        assert small().within(None).length.steps == 6
        with pytest.raises(ValueError, match="no budget 'gpu'"):
            small().within("gpu")


class TestLensPairs:
    def pairs(self, n=1.0, **priors):
        known = {**population("lens-benchmark").priors, "pixel_scale": Fixed(0.08), "psf_fwhm": Fixed(0.1)}
        return LensPairs({**known, **priors}, Parametric(n=Fixed(n), e1=Fixed(0.1), e2=Fixed(0.0)))

    def test_seeds(self):
        pairs = self.pairs()
        one, again, other = pairs.draw(3, (1, 2)), pairs.draw(3, (1, 2)), pairs.draw(3, (1, 3))
        assert torch.equal(one.seen.image, again.seen.image) and torch.equal(one.lens, again.lens)
        assert not torch.equal(one.seen.image, other.seen.image)

    @pytest.mark.parametrize("n, share", [(1.0, 0.01), (2.5, 0.03)])
    def test_images_are_those_of_finely_divided_pixels(self, n, share):
        batch = self.pairs(n, source_radius=Fixed(0.2)).draw(4, 1)
        lens = batch.lens.clone()
        lens[:, [0, 4, 5]] *= 0.08
        place = batch.place * 0.08
        one = torch.ones(4)
        source = torch.stack([one, 0.2 * one, n * one, 0.1 * one, 0 * one, place[:, 0], place[:, 1]], 1)
        sigma = 0.1 / 0.08 / np.sqrt(8 * np.log(2))
        steps = torch.arange(-3, 4)
        line = torch.exp(-0.5 * (steps / sigma) ** 2)
        kernel = line[:, None] * line / line.sum() ** 2
        expected = LensImager((64, 64), 0.08, kernel, supersampling=12)(lens, source)
        # At two points a side alone, a cusp of n = 2.5 is off by 0.1 to 0.3 of the peak.
        torch.testing.assert_close(batch.clean, expected, atol=float(expected.max()) * share, rtol=0)

    def test_source_lensed_again_is_the_image(self):
        batch = self.pairs(source_radius=Fixed(0.4), psf_fwhm=Fixed(0.001)).draw(3, 1)
        again = relens(batch.source, batch.lens, (64, 64), pixel=0.5, supersampling=4)
        peak = batch.clean.flatten(1).amax(1)[:, None, None]
        assert float(((again - batch.clean) / peak).square().mean().sqrt()) < 0.01

    def test_flux_of_the_unlensed_galaxy(self):
        batch = self.pairs(source_radius=Fixed(0.2), center_x=Fixed(0.0), center_y=Fixed(0.0)).draw(8, 1)
        # Of flux 1, an exponential disc leaves 1e-4 beyond the frame; the core is averaged, the rest is sampled.
        torch.testing.assert_close(batch.unlensed.sum((1, 2)), torch.ones(8), atol=5e-3, rtol=0)
        torch.testing.assert_close(batch.source.sum((1, 2)) / 4, torch.ones(8), atol=5e-3, rtol=0)

    def test_noise_is_what_it_says(self):
        batch = self.pairs(peak_snr=Fixed(20.0)).draw(8, 1)
        left = (batch.seen.image - batch.clean) / batch.seen.sigma
        assert float(left.std()) == pytest.approx(1, abs=0.02)
        ratio = batch.clean.flatten(1).amax(1) / batch.seen.sigma[:, 0, 0]
        torch.testing.assert_close(ratio, torch.full((8,), 20.0))

    def test_statistics_are_the_priors(self):
        center, spread = self.pairs(gamma1=Normal(0.1, 0.05)).statistics()
        assert center[0] == pytest.approx(1.2 / 0.08, rel=0.01)
        assert spread[0] == pytest.approx(0.8 / np.sqrt(12) / 0.08, rel=0.02)
        assert (center[6], spread[6]) == pytest.approx((0.1, 0.05), rel=0.05)

    def test_missing_priors(self):
        known = dict(population("lens-published").priors)
        with pytest.raises(ValueError, match="pixel_scale, psf_fwhm, peak_snr"):
            LensPairs(known, Parametric())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    drawn = sample(population("lens-benchmark"), 12, Torch(1e-4), np.random.default_rng(1))
    for number, simulation in enumerate(drawn):
        simulation.write(folder / f"{number:02}.fits")
    return folder


class TestFolderPairs:
    def test_what_is_read_is_what_was_simulated(self, folder):
        pairs = FolderPairs(folder, pixels=64, split="train")
        assert 4 < len(pairs) < 12
        batch = pairs.draw(16, 1)
        peak = batch.clean.flatten(1).amax(1)[:, None, None]
        again = relens(batch.source, batch.lens, (64, 64), pixel=0.5, supersampling=3)
        noise = (batch.seen.sigma / peak).mean((1, 2))
        off = ((again - batch.clean) / peak).square().mean((1, 2)).sqrt()
        # No PSF was applied, so compact sources differ; a wrong orientation or lens would differ by far more.
        assert float((off - noise).median()) < 0.03
        assert torch.equal(batch.seen.image, pairs.draw(16, 1).seen.image)

    def test_bad_files_are_counted(self, folder, tmp_path):
        for path in folder.glob("*.fits"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        damaged = [p for p in sorted(tmp_path.glob("*.fits"))][:6]
        for path in damaged:
            path.write_bytes(path.read_bytes()[:5000])
        with pytest.warns(SkippedPairsWarning, match="were left out"):
            left = FolderPairs(tmp_path, pixels=64, split="train")
        assert len(left) < len(FolderPairs(folder, pixels=64, split="train"))

    def test_nothing_of_use(self, folder, tmp_path):
        with pytest.raises(ValueError, match="no FITS files"):
            FolderPairs(tmp_path, pixels=64, split="train")
        with pytest.warns(SkippedPairsWarning), pytest.raises(ValueError, match="none is of use"):
            FolderPairs(folder, pixels=32, split="train")

    def test_trains(self, folder, tmp_path):
        recipe = small(data={"pixels": 64}, length={"steps": 2, "validate_every": 1, "validation": 4})
        path = train(recipe, tmp_path / "out", pairs=folder, progress=False)
        assert "simulations in the folder" in load_weights(path)[1].data


class TestDrawnAhead:
    def test_every_step_once_whatever_the_order(self):
        drawn = []
        with DrawnAhead(lambda step: drawn.append(step) or 10 * step, 8) as batches:
            assert [batches.at(step) for step in (0, 1, 5, 6, 7)] == [0, 10, 50, 60, 70]
        # After 1 came 2, which nobody asked for.
        assert sorted(drawn) == [0, 1, 2, 5, 6, 7]

    def test_raises_what_the_drawing_raised(self):
        def draw(step):
            if step == 1:
                raise ValueError("no galaxy")
            return step

        with DrawnAhead(draw, 3) as batches:
            assert batches.at(0) == 0
            with pytest.raises(ValueError, match="no galaxy"):
                batches.at(1)
            assert batches.at(2) == 2


class TestLoop:
    @pytest.mark.parametrize("name", ["unet", "unet-paper"])
    def test_what_comes_out(self, name, trained):
        folder = trained[name]
        network, card = load_weights(folder / "small.safetensors")
        assert card.name == "small" and card.recipe["length"]["steps"] == 6 and card.length["images"] == 24
        assert card.domain["pixel_scale"] == [0.3, 0.3] and card.priors["psf_fwhm"] == "Fixed(value=0.4)"
        assert {"psnr", "footprint_psnr", "mse_theta_E"} <= card.metrics.keys()
        assert [row["step"] for row in log(folder)] == ["3", "6"]
        for picture in ("curves.png", "panels.png"):
            assert (folder / picture).read_bytes().startswith(b"\x89PNG")
        assert read_recipe(folder / "recipe.yaml") == small(name)
        # The card's own figures, from the file in half precision.
        learned = task("unlens")(small(name))
        with torch.no_grad():
            batches = [learned.draw(4, (1, 3, number), torch.device("cpu"), "test") for number in range(2)]
            measured = np.mean([learned.measure(network, batch)["psnr"] for batch in batches])
        assert measured == pytest.approx(card.metrics["psnr"], abs=0.05)

    def test_same_seed_same_weights(self, trained, tmp_path):
        paths = trained["unet"] / "small.safetensors", train(small(), tmp_path, progress=False)
        one, two = (load_weights(path)[0] for path in paths)
        for a, b in zip(one.parameters(), two.parameters()):
            assert torch.equal(a, b)

    def test_learns(self, tmp_path):
        recipe = small(length={"steps": 60, "batch": 8, "validate_every": 30, "validation": 16})
        train(recipe, tmp_path, progress=False)
        first, last = (float(row["loss"]) for row in log(tmp_path))
        assert last < first

    def test_resumed_after_a_kill_gives_the_same_curve(self, trained, tmp_path, monkeypatch):
        whole = trained["unet"]
        draw = LensPairs.draw

        def killed(self, count, seed, device="cpu"):
            if seed[:3] == (1, 1, 4):
                raise SystemExit("killed")
            return draw(self, count, seed, device)

        with monkeypatch.context() as patch:
            patch.setattr(LensPairs, "draw", killed)
            with pytest.raises(SystemExit):
                train(small(), tmp_path / "killed", progress=False)
        with pytest.raises(ValueError, match="--resume"):
            train(small(), tmp_path / "killed", progress=False)
        resumed = train(small(), tmp_path / "killed", progress=False, resume=True)
        assert log(tmp_path / "killed") == log(whole)
        assert resumed.read_bytes() == (whole / "small.safetensors").read_bytes()

    def test_resume_refuses(self, trained, tmp_path):
        with pytest.raises(ValueError, match="nothing to resume"):
            train(small(), tmp_path / "new", progress=False, resume=True)
        with pytest.raises(ValueError, match="another recipe"):
            train(small(seed=2), trained["unet"], progress=False, resume=True)

    def test_stops_early(self, tmp_path):
        recipe = small(length={"steps": 40, "validate_every": 1, "patience": 1, "learning_rate": 1e-12})
        path = train(recipe, tmp_path, progress=False)
        assert load_weights(path)[1].length["steps"] < 40

    def test_a_loss_that_is_not_finite(self, tmp_path):
        with pytest.raises(RuntimeError, match="not finite"):
            train(small(length={"learning_rate": 1e30, "clip": 1e30, "steps": 40}), tmp_path, progress=False)

    def test_a_gpu_out_of_memory_says_what_to_try(self, tmp_path, monkeypatch):
        def full(*args):
            raise torch.cuda.OutOfMemoryError("out of memory")

        monkeypatch.setattr(LensPairs, "draw", full)
        with pytest.raises(RuntimeError, match="length.batch=2"):
            train(small(), tmp_path, progress=False)

    def test_devices(self, tmp_path):
        with pytest.raises(ValueError, match="device"):
            train(small(), tmp_path, device="tpu", progress=False)
        if not torch.cuda.is_available():
            with pytest.raises(ValueError, match="no GPU"):
                train(small(), tmp_path, device="cuda", progress=False)


def test_command_line(tmp_path, capsys):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(_as_yaml(small())), "name": "mine"}))
    out = tmp_path / "out"
    options = ["--budget", "cpu", "--set", "length.batch=2", "--seed", "5"]
    assert main(["train", str(recipe), "-o", str(out), *options]) == 0
    assert capsys.readouterr().out.strip() == str(out / "mine.safetensors")
    card = load_weights(out / "mine.safetensors")[1]
    assert (card.seed, card.length["images"]) == (5, 6)
    assert main(["train", str(recipe), "-o", str(out)]) == 2
    assert "--resume" in capsys.readouterr().err
    for wrong, said in ((["--set", "length"], "KEY=VALUE"), (["--set", "lenght.steps=1"], "did you mean 'length'")):
        assert main(["train", str(recipe), "-o", str(tmp_path / "other"), *wrong]) == 2
        assert said in capsys.readouterr().err


def _as_yaml(recipe):
    from dataclasses import asdict

    return yaml.safe_dump(asdict(recipe))
