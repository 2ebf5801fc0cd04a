"""The generator as a deblender, its streams of blends and its training; with weights made here, which know nothing."""

import csv
import warnings

import numpy as np
import pytest
import torch
from astropy.nddata import NDData, StdDevUncertainty
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend import deblend
from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.gan import Gan, GanPaper
from lensdeblend.deblenders.gan_frames import channels
from lensdeblend.networks import build
from lensdeblend.networks.deblending import Generator, Overlap, PatchCritic, symmetric_templates
from lensdeblend.networks.weights import Card, load_weights, save_weights
from lensdeblend.scenes.populations import Fixed, Integer
from lensdeblend.testing import check_deblender
from lensdeblend.training.blend_pairs import PublishedPairs, read_pictures
from lensdeblend.training.blend_sums import PRIORS, BlendSums, stamps
from lensdeblend.training.recipe import read_recipe
from lensdeblend.training.sources import split_of
from lensdeblend.training.tasks import task

POSITIONS = np.array([[24.0, 30.0], [38.0, 33.0]])
OPTIONS = {"widths": [4, 8], "fine": 4}


def gaussian(shape, x, y, flux, width=3.0):
    row, column = np.indices(shape)
    return flux * np.exp(-0.5 * ((column - x) ** 2 + (row - y) ** 2) / width**2) / (2 * np.pi * width**2)


def blend(shape=(64, 64), colours=(1.0, 1.5, 2.0), unit=1.0, noise=0.1, width=1.5):
    rng, images = np.random.default_rng(1), {}
    for name, colour in zip("gri", colours):
        data = sum(gaussian(shape, x, y, flux * colour) for (x, y), flux in zip(POSITIONS, (300, 200)))
        images[name] = NDData(
            unit * (data + rng.normal(0, noise, shape)), uncertainty=StdDevUncertainty(np.full(shape, unit * noise)),
            psf=gaussian((15, 15), 7, 7, 1.0, width), meta={"PIXSCALE": 0.2},
        )
    return images


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    domains = {
        "sum": {
            "pixels": 64, "smallest": 44, "bands": 3, "alone": True, "galaxies": [2, 6], "psf_fwhm": [2.0, 5.0],
        },
        "maximum": {"pixels": 80, "bands": 3, "galaxies": [2, 2]},
    }
    for rule, domain in domains.items():
        torch.manual_seed(1)
        options = {**OPTIONS, "rule": rule}
        network = build("deblend-generator", options)
        torch.nn.init.normal_(network.fine[-1].weight, std=0.02)
        card = Card(rule, "deblend-generator", options, {}, {}, domain, {}, 1, "", "", "", "")
        paths[rule] = str(save_weights(network, card, folder))
    return paths


@pytest.fixture(params=["sum", "maximum"])
def method(request, weights):
    return (Gan if request.param == "sum" else GanPaper)(weights=weights[request.param])


class TestMethod:
    def test_contract(self, method):
        check_deblender(method)

    def test_parts_sum_up(self, method):
        images = blend()
        found = deblend(images, positions=POSITIONS, method=method)
        for name, image in images.items():
            np.testing.assert_allclose(sum(share[name].data for share in found.shares), image.data, rtol=1e-9)
            whole = sum(source[name].data for source in found.sources) + found.meta["background"][name]
            np.testing.assert_allclose(whole, found.model[name].data, atol=1e-9)

    @pytest.mark.parametrize("unit", [1e-20, 1e12])
    def test_units_scale_through(self, method, unit):
        one, other = (deblend(blend(unit=u), positions=POSITIONS, method=method) for u in (1.0, unit))
        for name in ("flux_g", "flux_i"):
            np.testing.assert_allclose(other.catalog[name] / unit, one.catalog[name], rtol=1e-3)
        assert other.chi2 == pytest.approx(one.chi2, rel=1e-3)

    def test_galaxies_turn_with_the_image(self, method):
        images = blend()
        turned = {
            name: NDData(
                image.data.T.copy(), uncertainty=StdDevUncertainty(image.uncertainty.array.T.copy()), psf=image.psf,
                meta=image.meta,
            ) for name, image in images.items()
        }
        one = deblend(images, positions=POSITIONS, method=method)
        other = deblend(turned, positions=POSITIONS[:, ::-1], method=method)
        peak = one.sources[0]["r"].data.max()
        np.testing.assert_allclose(other.sources[0]["r"].data.T, one.sources[0]["r"].data, atol=1e-4 * peak)

    def test_amplitudes_are_those_of_the_data(self, weights):
        drawn, solved = (
            deblend(blend(), positions=POSITIONS, method=Gan(weights=weights["sum"], solve=solve))
            for solve in (False, True)
        )
        assert solved.chi2 < drawn.chi2
        for i in range(2):
            ratio = solved.sources[i]["g"].data / np.maximum(drawn.sources[i]["g"].data, 1e-12)
            lit = drawn.sources[i]["g"].data > 0.1 * drawn.sources[i]["g"].data.max()
            np.testing.assert_allclose(ratio[lit], ratio[lit].mean(), rtol=1e-6)

    def test_no_error_is_told(self, method):
        assert np.isnan(deblend(blend(), positions=POSITIONS, method=method).catalog["flux_err_g"].value).all()

    def test_larger_images_are_cut_about_each_galaxy(self, weights):
        method = Gan(weights=weights["sum"], background="none")
        small, large = blend(), blend((150, 170))
        moved = {}
        for name, image in small.items():
            data, sigma = np.zeros((150, 170)), np.full((150, 170), 0.1)
            data[40:104, 50:114] = image.data
            moved[name] = NDData(data, uncertainty=StdDevUncertainty(sigma), psf=image.psf, meta=image.meta)
        found = deblend(moved, positions=POSITIONS + [50, 40], method=method)
        assert len(found.sources) == 2 and found.sources[0]["g"].data.shape == (150, 170)
        x, y = POSITIONS[0].astype(int) + [50, 40]
        assert found.sources[0]["g"].data[y, x] > 0 and not found.sources[0]["g"].data[:, 130:].any()
        deblend(large, method=method)

    def test_galaxies_off_the_image_and_masked_ones(self, method):
        images = blend()
        found = deblend(images, positions=[*POSITIONS, (200.0, 10.0)], method=method)
        assert "off the image" in found.catalog["flags"][2] and "no flux" in found.catalog["flags"][2]
        images["r"].data[20:40, 15:30] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyUserWarning)
            found = deblend(images, positions=POSITIONS, method=method)
        assert np.isfinite(found.model["r"].data).all() and found.catalog["flux_g"][0] > 0

    def test_bands_on_different_grids(self, method):
        images = blend()
        images["z"] = NDData(
            gaussian((32, 32), 11.75, 14.75, 300, 1.5) + gaussian((32, 32), 18.75, 16.25, 200, 1.5),
            uncertainty=StdDevUncertainty(np.full((32, 32), 0.1)), meta={"PIXSCALE": 0.4},
        )
        found = deblend(images, positions=POSITIONS, method=method)
        assert found.sources[0]["z"].data.shape == (32, 32)
        assert [shown.numbers for shown in channels(Blend.of(images_prepared(images)), 3)] == [(0, 1, 2), (3, 3, 3)]


def images_prepared(images):
    from lensdeblend import prepare

    return {name: prepare(image) for name, image in images.items()}


class TestDomain:
    def flags(self, weights, images, positions=POSITIONS, kind=Gan):
        method = kind(weights=weights["sum" if kind is Gan else "maximum"])
        flags = deblend(images, positions=positions, method=method).meta["flags"]
        return [flag for flag in flags if "out_of_domain" in flag]

    def test_within(self, weights):
        assert not self.flags(weights, blend()) and not self.flags(weights, blend()["g"])
        assert not self.flags(weights, blend((80, 80)), kind=GanPaper)

    @pytest.mark.parametrize("images, said", [
        (blend(width=4.0), "PSF FWHM of 8.4"), (blend((39, 50)), "50 x 39 pixels, trained on 64"),
        ({**blend(), "z": blend()["i"]}, "groups of 3"),
    ])
    def test_beyond(self, weights, images, said):
        flag, = self.flags(weights, images)
        assert said in flag

    def test_numbers_of_galaxies(self, weights):
        seven = [(10.0 + 6 * i, 30.0) for i in range(7)]
        assert "7 galaxies in 64 pixels, trained on 2 to 6" in self.flags(weights, blend(), seven)[0]
        assert "1 galaxies in 80 pixels" in self.flags(weights, blend((80, 80)), POSITIONS[:1], GanPaper)[0]

    def test_larger_pictures(self, weights):
        assert "100 x 100 pixels" in self.flags(weights, blend((100, 100)), kind=GanPaper)[0]
        assert not self.flags(weights, blend((100, 100)))


@pytest.mark.parametrize("options, said", [
    ({"symmetrise": 1}, "symmetrise"), ({"solve": None}, "solve"), ({"threshold": 0}, "threshold"),
    ({"threshold": None}, "threshold"), ({"background": "some"}, "background"), ({"batch": 0}, "batch"),
    ({"device": "tpu"}, "device"),
])
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        Gan(**options)


@pytest.mark.parametrize("kind", [Gan, GanPaper])
def test_without_weights(kind):
    with pytest.raises(ValueError, match="there are no weights called 'nothing'"):
        deblend(blend(), method=kind(weights="nothing"))


class TestNetworks:
    def overlap(self, n=32):
        row, column = torch.meshgrid(torch.arange(1.0 * n), torch.arange(1.0 * n), indexing="ij")

        def disc(x, y):
            return (torch.hypot(column - x, row - y) < 5).float()

        image = (disc(10, 12) + disc(22, 18)).expand(1, 3, n, n)
        nowhere = torch.full((1, 1, 2), torch.nan)
        others = torch.cat([torch.tensor([[[22.0, 18.0]]]), nowhere], 1)
        return Overlap(image, torch.full((1, 3), 1e-3), torch.ones(1), torch.tensor([[10.0, 12.0]]), others), disc

    def test_symmetry_takes_two_discs_apart(self):
        seen, disc = self.overlap()
        templates, opposite = symmetric_templates(seen, smooth=False)
        torch.testing.assert_close(templates[0, 0, 0], disc(10, 12), atol=5e-3, rtol=0)
        torch.testing.assert_close(templates[0, 1, 0], disc(22, 18), atol=5e-3, rtol=0)
        assert not templates[0, 2].any()
        torch.testing.assert_close(opposite[0, 0, 10:15, 8:13], torch.ones(5, 5))

    @pytest.mark.parametrize("rule", ["sum", "maximum"])
    def test_an_untrained_network_draws_what_symmetry_says(self, rule):
        seen, disc = self.overlap()
        drawn = Generator(**OPTIONS, rule=rule).eval()(seen)[0, 0].detach()
        assert float((drawn - disc(10, 12)).abs()[disc(10, 12) > 0].mean()) < 0.1
        assert float(drawn[disc(22, 18) > 0].mean()) < 0.1

    def test_under_the_maximum_no_galaxy_is_brighter_than_the_blend(self):
        network = Generator(**OPTIONS, rule="maximum").eval()
        torch.nn.init.normal_(network.fine[-1].weight)
        seen = Overlap(torch.rand(2, 3, 32, 32), torch.zeros(2, 3), torch.zeros(2), torch.full((2, 2), 12.0),
                       torch.full((2, 1, 2), 20.0))
        drawn = network(seen)
        assert bool((drawn >= 0).all()) and bool((drawn <= seen.image).all())

    def test_critic(self):
        *maps, verdict = PatchCritic()(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))
        assert [part.shape[-1] for part in maps] == [16, 8, 4] and verdict.shape == (2, 1, 4, 4)

    def test_unknown_rule(self):
        with pytest.raises(ValueError, match="rule"):
            Generator(rule="mean")


@pytest.fixture(scope="module")
def pairs():
    shapes = torch.zeros(3, 3, 212, 212, dtype=torch.uint8)
    for number, width in enumerate((12, 20, 30)):
        picture = gaussian((212, 212), 105.5, 105.5, 1.0, width)
        shapes[number] = torch.as_tensor(255 * picture / picture.max()).to(torch.uint8)
    return PublishedPairs(shapes)


class TestPublishedPairs:
    def test_the_brighter_of_two_pixels(self, pairs):
        batch = pairs.draw(6, 1)
        for first in (0, 2, 4):
            brighter = batch.truth[first].maximum(batch.truth[first + 1])
            assert torch.equal(batch.seen.image[first], brighter) and torch.equal(batch.seen.image[first + 1], brighter)

    def test_galaxies_are_where_it_says(self, pairs):
        batch = pairs.draw(8, 2)
        steps = torch.arange(80.0)
        for image, centre, other in zip(batch.truth[:, 0], batch.seen.center, batch.seen.others[:, 0]):
            weight = image**4
            x, y = (weight.sum(0) * steps).sum() / weight.sum(), (weight.sum(1) * steps).sum() / weight.sum()
            torch.testing.assert_close(torch.stack([x, y]), centre, atol=0.15, rtol=0)
            apart = (centre - other).abs() * 424 / 80
            assert bool((apart > 9.9).all()) and bool((apart < 50.1).all())

    def test_the_second_is_magnified(self, pairs):
        one, other = (PublishedPairs(pairs.pictures, scale=(s, s)).draw(12, 2).truth for s in (1.0, 2.0))
        torch.testing.assert_close(other[::2], one[::2])
        areas = [(image[1::2, 0] > 0.5).sum((1, 2)) for image in (one, other)]
        assert 3 < float((areas[1] / areas[0]).median()) < 5

    def test_seeds(self, pairs):
        one, again, other = pairs.draw(3, (1, 2)), pairs.draw(3, (1, 2)), pairs.draw(3, (1, 3))
        assert len(one.truth) == 3 and torch.equal(one.truth, again.truth)
        assert not torch.equal(one.truth, other.truth)

    @pytest.mark.parametrize("options, said", [
        ({"crop": (0.0, 1.0)}, "crop"), ({"crop": (0.9, 0.5)}, "crop"), ({"offset": (0.2, 0.6)}, "offset"),
        ({"scale": (0.0, 1.0)}, "scale"),
    ])
    def test_bad_options(self, pairs, options, said):
        with pytest.raises(ValueError, match=said):
            PublishedPairs(pairs.pictures, **options)
        with pytest.raises(ValueError, match="two pictures"):
            PublishedPairs(pairs.pictures[:1])

    def test_no_galaxy_is_in_two_splits(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
        for number in range(30):
            image.new("RGB", (16, 12), (8 * number, 0, 0)).save(tmp_path / f"{number}.png")
        for name in ("train", "test"):
            own = sorted(str(number) for number in range(30) if split_of(str(number)) == name)
            found = read_pictures([tmp_path], name)
            assert found[:, 0, 0, 0].tolist() == [8 * int(number) for number in own]
        with pytest.raises(ValueError, match="unknown split"):
            read_pictures([tmp_path], "all")
        with pytest.raises(ValueError, match="no picture"):
            read_pictures([tmp_path / "none"], "test")


@pytest.fixture(scope="module")
def galaxies():
    return stamps({"parametric": 1.0}, "train")


class TestBlendSums:
    def test_galaxies_sum_to_the_blend(self, galaxies):
        batch = BlendSums(galaxies, {**PRIORS, "count": Integer(2, 2)}).draw(6, 1)
        both = batch.truth.unflatten(0, (3, 2)).sum(1)
        peak = float(both.max())
        torch.testing.assert_close(both, batch.clean[::2], atol=1e-5 * peak, rtol=0)
        left = batch.seen.image - batch.clean
        assert float(left[left != 0].std()) == pytest.approx(1, abs=0.02) and float(batch.truth.min()) > -1e-5 * peak

    def test_galaxies_are_where_it_says_and_as_bright(self, galaxies):
        known = {"count": Fixed(2), "radius": Fixed(2.0), "psf_fwhm": Fixed(3.0), "snr": Fixed(50.0),
                 "colour": Fixed(0.0)}
        batch = BlendSums(galaxies, {**PRIORS, **known, "count": Integer(2, 2)}).draw(16, 3)
        variance = 9 / (8 * np.log(2)) + 4 / (2 * np.log(2))
        flux = batch.truth.sum((1, 2, 3)) / 3
        inner = ((batch.seen.center > 14) & (batch.seen.center < 50)).all(1)
        expected = torch.full_like(flux, 50 * np.sqrt(4 * np.pi * variance))
        # What a Moffat PSF and a Sérsic have in their wings lies beyond the frame.
        torch.testing.assert_close(flux[inner], expected[inner], rtol=0.08, atol=0)
        steps = torch.arange(64.0)
        light = batch.truth.sum(1) ** 2
        x, y = (light.sum(1) @ steps / light.sum((1, 2))), (light.sum(2) @ steps / light.sum((1, 2)))
        off = torch.hypot(x - batch.seen.center[:, 0], y - batch.seen.center[:, 1])
        # Told positions are off by 0.3 pixels along each axis.
        assert float(off.max()) < 1.5

    def test_bands_alone_and_frames_that_are_not_full(self, galaxies):
        batch = BlendSums(galaxies).draw(80, 4)
        alone = (batch.seen.image[:, 0] == batch.seen.image[:, 2]).flatten(1).all(1)
        empty = (batch.seen.image == 0).flatten(1).any(1)
        assert 4 < int(alone.sum()) < 40 and 12 < int(empty.sum()) < 56
        assert torch.equal(batch.truth[alone][:, 0], batch.truth[alone][:, 1])
        assert not batch.truth[batch.seen.image == 0].any() and not batch.clean[batch.seen.image == 0].any()

    def test_neighbours_and_seeds(self, galaxies):
        stream = BlendSums(galaxies)
        one, again = stream.draw(9, (1, 2)), stream.draw(9, (1, 2))
        assert torch.equal(one.seen.image, again.seen.image) and torch.equal(one.truth, again.truth)
        number = torch.isfinite(one.seen.others).all(-1).sum(1)
        assert int(number.min()) >= 1 and int(number.max()) <= 5 and len(number) == 9

    def test_splits_differ(self, galaxies):
        assert not torch.equal(stamps({"parametric": 1.0}, "test").images, galaxies.images)

    def test_what_is_refused(self, galaxies):
        with pytest.raises(ValueError, match="priors on snr"):
            BlendSums(galaxies, {name: prior for name, prior in PRIORS.items() if name != "snr"})
        with pytest.raises(ValueError, match="at least 2"):
            BlendSums(galaxies, {**PRIORS, "count": Integer(1, 2)})
        with pytest.raises(ValueError, match="positive share"):
            stamps({"parametric": 0.0}, "train")


SMALL = {
    "name": "small", "network": {"options": OPTIONS},
    "data": {"pixels": 32, "sources": {"parametric": 1.0, "procedural": None, "real": None}},
    "length": {"steps": 4, "batch": 4, "validate_every": 2, "validation": 4},
}


def rows_of_log(folder):
    return list(csv.DictReader((folder / "log.csv").read_text().splitlines()))


class TestTraining:
    @pytest.fixture(autouse=True)
    def _without_pictures(self, monkeypatch):
        pytest.importorskip("lightning")
        monkeypatch.setattr("lensdeblend.training.loop.draw_curves", lambda *args: None)
        monkeypatch.setattr("lensdeblend.training.pictures.draw_rows", lambda *args: None)

    def small(self, **changes):
        return read_recipe("gan").changed(SMALL).changed(changes)

    def train(self, folder, recipe=None, **options):
        from lensdeblend.training.loop import train

        return train(self.small() if recipe is None else recipe, folder, progress=False, **options)

    def test_what_comes_out_and_a_kill(self, tmp_path, monkeypatch):
        whole = self.train(tmp_path / "whole")
        network, card = load_weights(whole)
        assert isinstance(network, Generator) and network.rule == "sum"
        assert card.length["steps"] == 4 and card.domain["galaxies"] == [2, 6] and {"psnr", "ssim"} <= set(card.metrics)
        draw = BlendSums.draw

        def killed(self, count, seed, device="cpu"):
            if seed[:3] == (1, 1, 3):
                raise SystemExit("killed")
            return draw(self, count, seed, device)

        with monkeypatch.context() as patch:
            patch.setattr(BlendSums, "draw", killed)
            with pytest.raises(SystemExit):
                self.train(tmp_path / "killed")
        resumed = self.train(tmp_path / "killed", resume=True)
        logs = [rows_of_log(tmp_path / name) for name in ("whole", "killed")]
        assert logs[0] == logs[1] and [row["step"] for row in logs[0]] == ["2", "4"]
        assert resumed.read_bytes() == whole.read_bytes()

    def test_both_learn(self, tmp_path):
        learned = task("deblend")(self.small())
        network, critic = learned.network()[0], learned.adversary()
        batch = learned.draw(4, (1,), torch.device("cpu"), "train")
        loss, parts, adverse = learned.contest(network, critic, batch)
        loss.backward()
        assert all(p.grad is None for p in critic.parameters())
        assert any(p.grad is not None for p in network.parameters())
        kept = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
        adverse.backward()
        assert all(p.grad is not None for p in critic.parameters())
        for before, p in zip(kept, network.parameters()):
            assert before is None and p.grad is None or torch.equal(before, p.grad)
        weighed = sum(learned.recipe.loss[name] * float(value.detach()) for name, value in parts.items())
        assert float(loss.detach()) == pytest.approx(weighed, rel=1e-5)

    def test_without_a_critic(self, tmp_path):
        recipe = self.small(loss={"features": None, "adversarial": None})
        assert task("deblend")(recipe).adversary() is None
        self.train(tmp_path / "out", recipe)
        row = rows_of_log(tmp_path / "out")[0]
        assert "adversary" not in row and "absolute" in row

    @pytest.mark.parametrize("changes, said", [
        ({"loss": {"psnr": 1}}, "unknown key 'psnr'"), ({"data": {"rule": "mean"}}, "sum or maximum"),
        ({"data": {"pixels": 40}}, "multiple of 16"), ({"data": {"priors": {"size": {"Fixed": 1}}}}, "unknown 'size'"),
        ({"data": {"sources": {"real": 0.5}}}, "--images FOLDER"), ({"data": {"rule": "maximum"}}, "--images FOLDER"),
        ({"data": {"galaxies": 3}}, "unknown key 'galaxies'"),
    ])
    def test_what_the_task_refuses(self, changes, said, tmp_path):
        with pytest.raises(ValueError, match=said):
            self.train(tmp_path / "out", self.small(**changes))

    def test_folders_that_are_of_no_use(self, tmp_path):
        with pytest.raises(ValueError, match="leave --pairs out"):
            self.train(tmp_path / "out", pairs=tmp_path)
        with pytest.raises(ValueError, match="leave --images out"):
            self.train(tmp_path / "out", images=[tmp_path])
