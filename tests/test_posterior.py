"""Neural posterior estimation: the density, its samples, what is made of them."""

import numpy as np
import pytest
import torch
from scipy import stats

from lensdeblend.networks import build
from lensdeblend.networks.orientations import ORIENTATIONS, turned
from lensdeblend.networks.posterior import NAMES, Oriented, standardisation, to_line, turned_theta
from lensdeblend.networks.unlensing import Seen
from lensdeblend.scenes.populations import population
from lensdeblend.training.lens_pairs import LensPairs
from lensdeblend.training.recipe import read_recipe
from lensdeblend.training.sources import Parametric
from lensdeblend.training.tasks.posterior import Posterior as PosteriorTask
from lensdeblend.training.tasks.posterior import coverage

SMALL = {"size": 16, "width": 4, "context": 4, "hidden": 16, "transforms": 4, "bins": 4}
CENTER = [2.7, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
SPREAD = [0.3, 0.1, 0.1, 0.1, 1.0, 1.0, 0.1, 0.1, 2.0, 2.0, 0.4]


def network(seed=1, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = build("lens-posterior", {**SMALL, "center": CENTER, "spread": SPREAD, **options})
        for parameter in made.parameters():
            # The flow of an untrained network is nearly the identity, which would let its errors pass.
            parameter.data += 0.08 * torch.randn_like(parameter)
    return made.eval()


def seen(count=2, side=16, seed=1):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(count, side, side, generator=generator)
    used = torch.ones_like(image, dtype=torch.bool)
    return Seen(image, 0.05 * torch.ones_like(image), used, 1.0 + torch.rand(count, generator=generator))


class TestDensity:
    def test_samples_and_density_agree(self):
        """Weighing samples by q'/q of another density whose integral is known must give 1."""
        net, images = network(), seen(1)
        with torch.no_grad():
            read = net(images)
            theta = net.sample_given(read, 4000, torch.Generator().manual_seed(2))[:, 0]
            own = net.log_prob_given(read, theta[:, None])[:, 0].double()
        line, slope = to_line(theta.double())
        around = stats.multivariate_normal(line.mean(0), 0.7 * np.cov(line.T.numpy()))
        weights = np.exp(around.logpdf(line.numpy()) + slope.sum(1).numpy() - own.numpy())
        error = weights.std() / np.sqrt(len(weights))
        assert error < 0.05
        assert weights.mean() == pytest.approx(1, abs=4 * error)

    def test_density_is_the_change_of_variables(self):
        net, images = network().double(), seen(1)
        images = Seen(images.image.double(), images.sigma.double(), images.used, images.psf_fwhm.double())
        theta = torch.tensor([[14.0, 2.1, 0.1, -0.05, 0.3, -0.2, 0.05, 0.02, 1.0, -2.0, 3.0]], dtype=torch.float64)
        mean, root, context = (part.detach().double() for part in net(images))

        def white(theta):
            return net.flow(context).transform(
                torch.einsum("bij,bj->bi", root, net.standardise(theta[None])[0] - mean)
            )[0]

        jacobian = torch.autograd.functional.jacobian(white, theta[0])
        expected = -0.5 * white(theta[0]).square().sum() - 5.5 * np.log(2 * np.pi) + torch.linalg.slogdet(jacobian)[1]
        found = net.log_prob_given((mean, root, context), theta).detach()
        assert float(found) == pytest.approx(float(expected.detach()), abs=1e-6)

    def test_samples_follow_from_the_generator_alone(self):
        net, images = network(), seen(2)
        with torch.no_grad():
            before = torch.random.get_rng_state()
            one = net.sample(images, 5, torch.Generator().manual_seed(3))
            assert torch.equal(torch.random.get_rng_state(), before)
            torch.manual_seed(99)
            again = net.sample(images, 5, torch.Generator().manual_seed(3))
            other = net.sample(images, 5, torch.Generator().manual_seed(4))
        assert torch.equal(one, again) and not torch.equal(one, other)
        assert one.shape == (5, 2, len(NAMES))

    @pytest.mark.parametrize("change", [
        lambda s: Seen(s.image.flip(-1), s.sigma, s.used, s.psf_fwhm),
        lambda s: Seen(s.image, 3 * s.sigma, s.used, s.psf_fwhm),
        lambda s: Seen(s.image, s.sigma, s.used, 2 * s.psf_fwhm),
    ], ids=["image", "noise", "PSF"])
    def test_conditions_matter(self, change):
        net, images = network(), seen(1)
        theta = torch.tensor([[14.0, 2.1, 0.1, -0.05, 0.3, -0.2, 0.05, 0.02, 1.0, -2.0, 3.0]])
        with torch.no_grad():
            assert abs(float(net.log_prob(images, theta) - net.log_prob(change(images), theta))) > 1e-3

    def test_every_sample_is_a_lens(self):
        net = network(spread=[5.0] * 11)
        with torch.no_grad():
            theta = net.sample(seen(1), 2000, torch.Generator().manual_seed(1))[:, 0]
        assert bool(torch.isfinite(theta).all())
        assert bool((theta[:, [0, 10]] > 0).all())
        assert 1 < float(theta[:, 1].min()) and float(theta[:, 1].max()) < 3
        for pair in ([2, 3], [6, 7]):
            assert float(theta[:, pair].norm(dim=1).max()) < 1

    def test_standard_units_there_and_back(self):
        net = network().double()
        theta = torch.tensor([[14.0, 2.1, 0.1, -0.05, 0.3, -0.2, 0.05, 0.02, 1.0, -2.0, 3.0]], dtype=torch.float64)
        torch.testing.assert_close(net.unstandardise(net.standardise(theta)[0]), theta)

    def test_standardisation_of_a_population(self):
        pairs = LensPairs(
            {**population("lens-benchmark").priors, **{
                name: Parametric().n.__class__(*span) for name, span in
                {"pixel_scale": (0.07, 0.1), "psf_fwhm": (0.1, 0.2)}.items()
            }}, Parametric(),
        )
        center, spread = standardisation(pairs.parameters())
        standard = (to_line(pairs.parameters())[0] - torch.tensor(center)) / torch.tensor(spread)
        assert float(standard.mean(0).abs().max()) < 1e-6
        assert float((standard.std(0) - 1).abs().max()) < 1e-6

    @pytest.mark.parametrize("options, said", [({"center": [0.0]}, "11 numbers"), ({"spread": [0.0] * 11}, "positive")])
    def test_bad_options(self, options, said):
        with pytest.raises(ValueError, match=said):
            build("lens-posterior", {**SMALL, **options})


class TestOrientations:
    def test_parameters_turn_with_the_image(self):
        """The lens equation in a turned frame is the turned lens equation."""
        from lensdeblend.lensing.delensing import source_positions
        from lensdeblend.lensing.epl import series_terms

        theta = torch.tensor([[10.0, 2.1, 0.1, -0.15, 0.7, -0.4, 0.05, 0.02, 1.0, -2.0, 3.0]])
        at = torch.tensor([[3.0, 7.0]])
        terms = series_terms(0.5, torch.float32)
        for orientation in ORIENTATIONS:
            there = turned_theta(theta, orientation)
            marker = torch.zeros(1, 21, 21)
            marker[0, 10 + 7, 10 + 3] = 1
            row, column = torch.nonzero(turned(marker, orientation)[0])[0] - 10
            moved = torch.stack([column, row]).float()[None]
            here = torch.stack(source_positions(theta[:, :8], at[:, 0], at[:, 1], terms), -1)[0]
            seen_there = torch.stack(source_positions(there[:, :8], moved[:, 0], moved[:, 1], terms), -1)[0]
            distance = (here - theta[:, 8:10]).norm()
            torch.testing.assert_close((seen_there - there[:, 8:10]).norm(), distance, atol=1e-4, rtol=0)
            torch.testing.assert_close(turned_theta(there, orientation, back=True), theta)

    def test_mixture_is_that_of_the_turned_image_turned(self):
        net, images = network(), seen(1)
        with torch.no_grad():
            both = Oriented(net, images), Oriented(net, turned(images, ORIENTATIONS[3]))
            theta = both[0].sample(50, torch.Generator().manual_seed(1))
            assert theta.shape == (50, 11)
            torch.testing.assert_close(
                both[0].log_prob(theta), both[1].log_prob(turned_theta(theta, ORIENTATIONS[3])), atol=1e-3, rtol=1e-4,
            )


class TestTask:
    def recipe(self, **changes):
        return read_recipe("posterior").changed({
            "network": {"options": {"width": 4, "hidden": 8, "transforms": 2, "context": 2}},
            "data": {"pixels": 16, "priors": {"pixel_scale": {"Fixed": 0.3}, "psf_fwhm": {"Fixed": 0.4}}, "sources": {
                "parametric": 1.0, "procedural": None,
            }}, **changes,
        })

    def test_learns(self):
        learned = PosteriorTask(self.recipe())
        with torch.random.fork_rng():
            torch.manual_seed(1)
            net, options = learned.network()
        assert options["size"] == 16
        batch = learned.draw(32, (1, 1), torch.device("cpu"), "train")
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        losses = []
        for _ in range(25):
            loss, parts = learned.loss(net, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(parts["likelihood"].detach()))
        assert losses[-1] < losses[0] - 0.2
        figures = learned.measure(net.eval(), batch)
        assert {"nll", "within_68", "within_95", "mse_gamma", "mse_source_radius"} <= figures.keys()

    def test_panels(self, tmp_path):
        learned = PosteriorTask(self.recipe())
        net, _ = learned.network()
        with torch.no_grad():
            learned.panels(net.eval(), learned.draw(2, (1, 1), torch.device("cpu"), "test"), tmp_path / "panels.png")
        assert (tmp_path / "panels.png").stat().st_size > 0

    @pytest.mark.parametrize("loss, said", [({"psnr": 1}, "unknown key 'psnr'"), ({"likelihood": None}, "likelihood")])
    def test_refuses(self, loss, said):
        with pytest.raises(ValueError, match=said):
            PosteriorTask(self.recipe(loss=loss))

    def test_coverage_of_a_known_gaussian(self):
        generator = torch.Generator().manual_seed(1)
        truth = torch.randn(4000, 2, generator=generator)
        samples = torch.randn(400, 4000, 2, generator=generator)
        # The second is told half as wide as it is: erf(0.9945 / 2 / sqrt 2) of the truths lie within.
        samples[..., 1] *= 0.5
        held = coverage(samples, truth, 0.68)
        assert float(held[0]) == pytest.approx(0.68, abs=0.025)
        assert float(held[1]) == pytest.approx(2 * stats.norm.cdf(0.9945 / 2) - 1, abs=0.025)
