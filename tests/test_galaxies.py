"""The auto-encoder of galaxies, its images and its training; networks made here, which know nothing."""

import numpy as np
import pytest
import torch

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.sersic_fit import fit_sersics
from lensdeblend.networks import build
from lensdeblend.networks.weights import load_weights
from lensdeblend.scenes.populations import Fixed
from lensdeblend.training import galaxy_library
from lensdeblend.training.galaxy_draws import PRIORS, GalaxyDraws
from lensdeblend.training.galaxy_library import GalaxyLibrary, library
from lensdeblend.training.recipe import read_recipe
from lensdeblend.training.tasks import task

OPTIONS = {"latent": 4, "widths": [8, 8, 8, 4], "transforms": 2, "hidden": 8, "bins": 4}


@pytest.fixture(autouse=True)
def few_galaxies(monkeypatch):
    monkeypatch.setattr(galaxy_library, "_MADE", dict.fromkeys(("train", "validation", "test"), 12))


@pytest.fixture
def stream():
    return GalaxyDraws(library({"parametric": 1.0}, "train", bands=3), pixels=48)


def network(bands=3, **options):
    torch.manual_seed(1)
    made = build("galaxy-autoencoder", {**OPTIONS, "bands": bands, **options}).eval()
    torch.nn.init.normal_(made.out.weight, std=0.1)
    return made


class TestLibrary:
    def test_profiles_are_those_of_the_galaxies(self):
        galaxies = library({"parametric": 1.0}, "train")
        assert galaxies.stamps.shape[1:] == (1, 96, 96)
        images = galaxies.stamps[:, 0]
        found = fit_sersics(images, 1 / (0.005 * images.amax((1, 2))[:, None, None] + 0.3 * images))
        middle = (96 - 1) / 2
        np.testing.assert_allclose(found.radius, galaxies.radius, rtol=0.1)
        np.testing.assert_allclose(found.e1, galaxies.e1, atol=0.02)
        np.testing.assert_allclose(found.x - middle, galaxies.center[:, 0], atol=0.1)

    def test_radii_hold_half_of_the_light(self):
        """Galaxies are made with radii of 6 to 9 pixels; profiles of their bulges would be much smaller or larger."""
        galaxies = library({"parametric": 1.0}, "train")
        assert len(galaxies) == 12
        assert 5 < float(galaxies.radius.min()) < float(galaxies.radius.max()) < 11

    def test_splits_share_no_galaxy(self):
        one, other = (library({"procedural": 1.0}, split).stamps for split in ("train", "test"))
        assert not torch.isclose(one[:, None], other[None], rtol=1e-3).flatten(2).all(2).any()

    def test_shares(self):
        galaxies = library({"procedural": 3.0, "parametric": 1.0}, "train")
        assert float(galaxies.weights.sum()) == pytest.approx(1.0)
        assert float(galaxies.weights[:10].sum()) > float(galaxies.weights[-10:].sum()) * 2

    def test_bulges_are_redder(self):
        galaxies = library({"parametric": 1.0}, "train", bands=3)
        assert float(galaxies.colours.mean()) < 0
        red, blue = galaxies.stamps[:, 0], galaxies.stamps[:, 2]
        middle = slice(46, 50)
        nearer = (red[:, middle, middle].sum((1, 2)) / red.sum((1, 2))) / (
            blue[:, middle, middle].sum((1, 2)) / blue.sum((1, 2))
        )
        assert float(nearer.median()) > 1.02

    def test_what_is_no_galaxy_is_left_out(self):
        galaxies = library({"parametric": 1.0}, "train")
        empty = torch.cat([galaxies.stamps[:2], torch.zeros(1, 1, 96, 96)])
        assert len(GalaxyLibrary.measured(empty)) == 2

    @pytest.mark.parametrize("shares, more, message", [
        ({}, {}, "positive share"), ({"procedural": -1}, {}, "positive share"), ({"nebular": 1}, {}, "nebular"),
        ({"procedural": 1}, {"bands": 2}, "1 or 3 bands"), ({"procedural": 1}, {"split": "exam"}, "exam"),
    ])
    def test_bad_input(self, shares, more, message):
        with pytest.raises(ValueError, match=message):
            library(shares, more.pop("split", "train"), **more)


class TestDraws:
    def test_the_same_seed_gives_the_same(self, stream):
        one, same, other = (stream.draw(4, seed) for seed in (1, 1, 2))
        assert torch.equal(one.seen.data, same.seen.data)
        assert not torch.equal(one.seen.data, other.seen.data)

    def test_shapes_turn_with_the_galaxies(self, stream):
        """What is told of each image is what a fit to it finds."""
        drawn = GalaxyDraws(stream.galaxies, {**PRIORS, "snr": Fixed(2000.0), "radius": Fixed(5.0)}, pixels=64)
        seen = drawn.draw(12, 3).seen
        clean = drawn.draw(12, 3).clean.mean(1)
        found = fit_sersics(
            clean, 1 / (0.005 * clean.amax((1, 2))[:, None, None] + 0.3 * clean.clamp_min(0)), psf=seen.psf.mean(1)
        )
        np.testing.assert_allclose(found.e1, seen.e1, atol=0.05)
        np.testing.assert_allclose(found.e2, seen.e2, atol=0.05)
        np.testing.assert_allclose(found.radius, 5.0, rtol=0.15)
        np.testing.assert_allclose(torch.stack([found.x, found.y], 1), seen.center, atol=0.1)

    def test_signal_to_noise_is_the_one_asked_for(self, stream):
        drawn = GalaxyDraws(stream.galaxies, {**PRIORS, "snr": Fixed(50.0)}, pixels=64).draw(24, 1)
        total = drawn.clean.mean(1).square().sum((1, 2)).sqrt()
        assert 30 < float(total.median()) < 80

    def test_noise_masks_and_missing_bands(self, stream):
        drawn = stream.draw(64, 1)
        used = drawn.seen.weight > 0
        assert float(((drawn.seen.data - drawn.clean)[used]).std()) == pytest.approx(1.0, rel=0.02)
        assert not drawn.seen.data[~used].any()
        missing = (~used).flatten(2).all(2)
        assert 0 < int(missing.sum()) < 30
        assert int(missing.sum(1).max()) == 1

    def test_missing_priors(self, stream):
        with pytest.raises(ValueError, match="psf_fwhm"):
            GalaxyDraws(stream.galaxies, {"radius": Fixed(4.0), "snr": Fixed(10.0)})


class TestNetwork:
    def test_begins_as_sersics(self, stream):
        torch.manual_seed(1)
        fresh = build("galaxy-autoencoder", {**OPTIONS, "bands": 3})
        assert not fresh.decode(torch.randn(2, 4)).any()

    def test_departures_are_bounded(self):
        made = network()
        torch.nn.init.normal_(made.out.weight, std=100.0)
        assert float(made.decode(torch.randn(8, 4)).detach().abs().max()) <= 3.5

    def test_amplitudes_are_those_of_the_data(self, stream):
        seen = stream.draw(6, 1).seen
        drawn = seen.drawn()
        there = (seen.weight > 0).flatten(2).any(2)
        seen.data.copy_(7.0 * drawn * seen.weight)
        np.testing.assert_allclose(seen.amplitudes(drawn)[there], 7.0, rtol=1e-4)
        np.testing.assert_allclose(seen.chi_square(drawn), 0.0, atol=1e-3)

    def test_images_go_through_their_psf(self, stream):
        """Drawn on wide frames and blurred here, they are the same."""
        seen, departure = stream.draw(3, 1).seen, network().decode(torch.randn(3, 4))
        from lensdeblend.lensing.standard_light import placed, standard_light

        wide = standard_light(
            placed(seen.center + 30, seen.radius, seen.e1, seen.e2), seen.n, departure, (108, 108)
        )[0]
        blurred = Convolution(seen.psf, (108, 108))(wide)[..., 30:78, 30:78]
        np.testing.assert_allclose(
            seen.drawn(departure).detach(), blurred.detach(), atol=2e-3 * float(blurred.max().detach())
        )

    def test_views_do_not_depend_on_size_and_place(self, stream):
        """In the standard frame, a galaxy and the same twice as large show the same departures."""
        galaxies, made = stream.galaxies, network()
        views = []
        for radius in (4.0, 8.0):
            priors = {**PRIORS, "radius": Fixed(radius), "psf_fwhm": Fixed(1.5), "snr": Fixed(3000.0)}
            views.append(made.views(GalaxyDraws(galaxies, priors, pixels=96).draw(8, 5).seen)[:, :3])
        inner = (slice(None), slice(None), slice(16, 48), slice(16, 48))
        one, other = (view[inner].flatten() for view in views)
        assert float(torch.corrcoef(torch.stack([one, other]))[0, 1]) > 0.5

    @pytest.mark.parametrize("options", [{}, {"latent": 64, "mapped": True}, {"flow": "matched"}])
    def test_every_weight_learns(self, stream, options):
        made = network(**options).train()
        torch.nn.init.normal_(made.out.weight, std=0.1)
        seen = stream.draw(8, 1).seen
        sum(part.mean() for part in made.loss(seen, torch.randn(8, made.noise))).backward()
        idle = [name for name, weight in made.named_parameters() if weight.grad is None or not weight.grad.any()]
        assert not idle

    @pytest.mark.parametrize("flow", ["spline", "matched"])
    def test_the_flow_leaves_the_encoder_alone(self, stream, flow):
        made = network(flow=flow).train()
        made.loss(stream.draw(8, 1).seen, torch.randn(8, made.noise))[2].mean().backward()
        assert all(weight.grad is None for weight in made.encoder.parameters())

    def test_numbers_of_a_map_tell_of_their_place(self):
        made = network(latent=128, mapped=True)
        with torch.no_grad():
            white = torch.zeros(1, 128)
            plain = made.decode(white)
            # Of the second plane, the third row and the seventh column of eight.
            white[0, 64 + 2 * 8 + 6] = 1.0
            changed = (made.decode(white) - plain)[0].abs().sum(0)
        row, column = np.unravel_index(int(changed.argmax()), changed.shape)
        assert abs(row - 20) < 12 and abs(column - 52) < 12
        assert float(changed[40:, :20].sum()) < 0.01 * float(changed.sum())

    def test_a_map_needs_as_many_numbers_as_cells(self):
        with pytest.raises(ValueError, match="multiple of 64.*32"):
            network(latent=32, mapped=True)

    def test_unknown_flow(self):
        with pytest.raises(ValueError, match="flow must be 'spline' or 'matched'; got 'lines'"):
            network(flow="lines")

    @pytest.mark.parametrize("name", ["center", "spread"])
    def test_bad_options(self, name):
        with pytest.raises(ValueError, match=name):
            build("galaxy-autoencoder", {**OPTIONS, "bands": 3, name: [1.0]})


class TestTask:
    @pytest.fixture(autouse=True)
    def fewer_galaxies(self, monkeypatch):
        """To learn from: to make 1,500 takes longer than all else here."""
        monkeypatch.setitem(galaxy_library._MADE, "train", 150)

    def recipe(self, **changes):
        made = read_recipe("galaxies-colour").within("cpu").changed({
            "network": {"options": OPTIONS}, "data": {"sources": {"real": None, "parametric": 1.0, "procedural": 1.0}},
            "length": {"steps": 40, "batch": 16, "validate_every": 20, "validation": 16, "learning_rate": 0.01},
        })
        return made.changed(changes)

    def test_trains_and_is_read_back(self, tmp_path):
        pytest.importorskip("lightning")
        from lensdeblend.training.loop import train

        flow = {"images": 32, "steps": 2, "batch": 8}
        path = train(self.recipe(data={"flow": flow}), tmp_path / "made", device="cpu", progress=False)
        made, card = load_weights(path)
        assert (made.bands, card.domain["bands"]) == (3, 3)
        assert card.metrics["bound"] < 2
        assert (tmp_path / "made" / "panels.png").stat().st_size > 10000
        lines = (tmp_path / "made" / "log.csv").read_text().splitlines()
        assert len(lines) == 3

    def test_learning_helps(self):
        """Galaxies of one departure: a few steps bring chi-square down."""
        learned = task("galaxies")(self.recipe(data={"priors": {"snr": {"Fixed": 2000.0}}}))
        torch.manual_seed(1)
        made = learned.network()[0].train()
        optimizer = torch.optim.Adam(made.parameters(), 0.01)
        batch, losses = learned.draw(16, (1,), torch.device("cpu"), "train"), []
        for _ in range(40):
            loss, parts = learned.loss(made, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(parts["likelihood"].detach()))
        assert np.mean(losses[-5:]) < 0.9 * losses[0]

    @pytest.mark.parametrize("flow", ["spline", "matched"])
    def test_the_flow_learns_on_alone(self, flow):
        """Latent vectors led by the ellipticity: as drawn afterwards, they follow it; the auto-encoder stays."""
        length = {
            "images": 256, "steps": 150, "batch": 64, "learning_rate": 0.01, "priors": {"snr": {"Fixed": 5000.0}},
        }
        learned = task("galaxies")(self.recipe(
            data={"flow": length}, network={"options": {"flow": flow, "hidden": 32}}
        ))
        with torch.random.fork_rng():
            torch.manual_seed(1)
            made = learned.network()[0].train()

        peaks = []

        def encode(seen):
            peaks.append(float(seen.data.flatten(1).amax(1).min()))
            mean = torch.zeros(len(seen.e1), made.latent)
            mean[:, 0] = 5 * seen.e1
            return mean, torch.full_like(mean, -2.0)

        made.encode = encode
        before = {name: weight.clone() for name, weight in made.state_dict().items()}
        learned.finish(made, progress=False)
        after = made.state_dict()
        changed = {name.split(".")[0] for name, weight in before.items() if not torch.equal(weight, after[name])}
        assert changed == {"flow"} and made.training
        # Of a signal-to-noise that the recipe asks for these images only.
        assert min(peaks) > 50
        seen = learned.draw(64, (9,), torch.device("cpu"), "train").seen
        with torch.no_grad():
            z = made.latents(torch.randn(64, made.latent, generator=torch.Generator().manual_seed(1)), seen.kind)
        assert float(torch.corrcoef(torch.stack([z[:, 0], seen.e1]))[0, 1]) > 0.8
        assert float(z[:, 1].std()) < 0.6

    def test_the_flow_is_the_same_for_a_seed(self):
        flows = []
        for _ in range(2):
            learned = task("galaxies")(self.recipe(data={"flow": {"images": 32, "steps": 3, "batch": 8}}))
            with torch.random.fork_rng():
                torch.manual_seed(1)
                made = learned.network()[0]
            learned.finish(made, progress=False)
            flows.append(torch.cat([weight.flatten() for weight in made.flow.state_dict().values()]))
        assert torch.equal(*flows)

    @pytest.mark.parametrize("changes, message", [
        ({"loss": {"beauty": 1.0}}, "beauty"), ({"data": {"priors": {"mood": {"Fixed": 1}}}}, "mood"),
        ({"data": {"hue": 1}}, "hue"), ({"data": {"sources": {"real": 1.0}}}, "--images"),
        ({"data": {"flow": {"steps": 0}}}, "flow: steps must be a whole number above 0; got 0"),
        ({"data": {"flow": {"learning_rate": 0}}}, "flow: learning_rate must be positive"),
        ({"data": {"flow": {"rate": 1}}}, "data: flow has the unknown key 'rate'"),
        ({"data": {"flow": {"priors": {"mood": {"Fixed": 1}}}}}, "mood"),
    ])
    def test_bad_recipes(self, changes, message):
        with pytest.raises(ValueError, match=message):
            learned = task("galaxies")(self.recipe(**changes))
            learned.network()

    def test_pairs_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="--pairs"):
            task("galaxies")(self.recipe(), pairs=tmp_path)
