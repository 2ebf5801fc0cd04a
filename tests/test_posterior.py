"""Neural posterior estimation: the density, its samples, what is made of them."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
import torch
from scipy import stats

from lensdeblend import prepare, reconstruct, simulate
from lensdeblend.lensing.epl import epl
from lensdeblend.lensing.halos import shear
from lensdeblend.lensing.parametric import SersicLens
from lensdeblend.networks import build
from lensdeblend.networks.orientations import ORIENTATIONS, turned
from lensdeblend.networks.posterior import NAMES, Oriented, standardisation, to_line, turned_theta
from lensdeblend.networks.unlensing import Seen
from lensdeblend.networks.weights import Card, save_weights
from lensdeblend.reconstructors import fitting
from lensdeblend.reconstructors.fitting import sharpen
from lensdeblend.reconstructors.forward import Forward
from lensdeblend.reconstructors.network_posterior import NetworkPosterior, as_starts, moved
from lensdeblend.reconstructors.population_prior import PopulationPrior
from lensdeblend.reconstructors.posterior import Posterior
from lensdeblend.reconstructors.proposals import proposed_starts
from lensdeblend.reconstructors.reweighting import Weighted, effective_samples, log_likelihood, reweight, weigh
from lensdeblend.reconstructors.view import View
from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic, Shear
from lensdeblend.scenes.populations import Fixed, Normal, Uniform, population
from lensdeblend.testing import check_reconstructor
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


DOMAIN = {"pixels": 64, "pixel_scale": [0.07, 0.1], "psf_fwhm": [0.8, 2.6], "peak_snr": [8.0, 150.0]}
RECIPE = {"data": {"population": "lens-benchmark", "priors": {"theta_E": {"Uniform": [0.7, 1.7]}}}}
# An untrained network that knows where the lenses of `lens` lie, and little more.
ABOUT = {
    "center": [np.log(12.5), 0.0, 0.05, -0.08, 0.6, -0.3, 0.04, -0.02, 1.9, 1.2, np.log(3.7)],
    "spread": [0.03, 0.03, 0.03, 0.03, 0.3, 0.3, 0.02, 0.02, 0.4, 0.4, 0.2],
}


PRIOR = PopulationPrior.of(Card("x", "x", {}, RECIPE, {}, DOMAIN, {}, 1, "", "", "", ""))


def saved(folder, name="posterior", **options):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        options = {**SMALL, "size": 64, **ABOUT, **options}
        card = Card(name, "lens-posterior", options, RECIPE, {}, DOMAIN, {}, 1, "", "", "", "")
        return str(save_weights(build("lens-posterior", options), card, folder))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("weights"))


def lens(shape=(64, 64), noise=0.05, seed=1):
    scene = Scene(
        mass=[EPL(1.0 * u.arcsec, 2.0, 0.05, -0.08, 0.05 * u.arcsec, -0.02 * u.arcsec), Shear(0.04, -0.02)],
        sources=[Sersic(50, 0.3 * u.arcsec, 1.0, 0.1, 0.05, 0.15 * u.arcsec, 0.1 * u.arcsec)],
    )
    observation = Observation(0.08 * u.arcsec, shape, GaussianPSF(0.12 * u.arcsec), background_rms=noise)
    return simulate(scene, observation, method="torch", seed=seed)


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
        with torch.no_grad():
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


class TestReconstructor:
    def test_contract(self, weights):
        check_reconstructor(Posterior(weights=weights, samples=100))

    def test_samples_are_told_from_the_centre_of_the_image(self):
        """An odd image is seen half a pixel off: its samples must move back by it."""
        values = np.array([[1.0, 2.0, 0.1, 0.1, 0.2, -0.1, 0.05, 0.02, 0.1, 0.3, 0.2]])
        offset = np.array([0.4, -0.3])
        there = moved(values, offset)
        np.testing.assert_allclose(moved(there, -offset), values)

        def source_of(x, y, row):
            ax, ay = epl(x, y, *row[:6])
            sx, sy = shear(x, y, *row[6:8])
            return x - ax - sx - row[8], y - ay - sy - row[9]

        at = torch.tensor([0.9, -1.1, 0.3], dtype=torch.float64), torch.tensor([0.2, 0.8, -1.4], dtype=torch.float64)
        one = source_of(*at, torch.as_tensor(values[0]))
        other = source_of(at[0] + offset[0], at[1] + offset[1], torch.as_tensor(there[0]))
        for here, away in zip(one, other):
            torch.testing.assert_close(here, away)

    def test_density_is_that_of_the_samples(self, weights):
        """In arcsec as the samples are: the mean logarithm of the density must be minus their entropy."""
        read = NetworkPosterior.of(prepare(lens((63, 65)).image), weights, symmetrise=False)
        values = read.sample(3000, np.random.default_rng(1))
        logarithm = values.copy()
        logarithm[:, [0, 10]] = np.log(values[:, [0, 10]])
        slope = logarithm[:, 0] + logarithm[:, 10]
        entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(logarithm.T))[1]
        # No density of that covariance has more, and one that is nearly Gaussian has little less.
        assert -2 < -np.mean(read.log_prob(values) + slope) - entropy < 0.1

    def test_result(self, weights):
        simulation = lens()
        result = reconstruct(simulation.image, method=Posterior(weights=weights, samples=300), seed=1)
        assert len(result.samples) == 300 and result.chi2 < 1.1 and not result.flags
        for name in ("theta_E", "gamma1", "source_radius"):
            samples = u.Quantity(result.samples[name]).value
            assert u.Quantity(result.parameters[name][0]).value == pytest.approx(samples.mean())
            assert u.Quantity(result.parameters[f"{name}_err"][0]).value == pytest.approx(samples.std(ddof=1))
        assert result.meta["weights"] == "posterior"

    def test_flags(self, weights):
        method, rng = Posterior(weights=weights), np.random.default_rng(1)
        assert not method.propose(prepare(lens().image), 5, rng).flags
        flag, = method.propose(prepare(lens(noise=3.0).image), 5, rng).flags
        assert flag.startswith("out_of_domain: peak")

    @pytest.mark.parametrize("options, said", [
        ({"samples": 1}, "samples"), ({"reweight": 1}, "True or False"), ({"device": "nothing"}, "device"),
    ])
    def test_bad_options(self, options, said):
        with pytest.raises(ValueError, match=said):
            Posterior(**options)

    def test_bands_and_weights_of_something_else(self, weights, tmp_path):
        image = lens().image
        with pytest.raises(ValueError, match="one band at a time"):
            reconstruct({"g": image, "r": image}, method=Posterior(weights=weights))
        with torch.random.fork_rng():
            network = build("unlens", {"width": 4, "widths": [4, 8]})
        card = Card("other", "unlens", {"width": 4, "widths": [4, 8]}, {}, {}, DOMAIN, {}, 1, "", "", "", "")
        with pytest.raises(ValueError, match="not of a posterior"):
            reconstruct(image, method=Posterior(weights=str(save_weights(network, card, tmp_path))))


@pytest.fixture(scope="module")
def fit():
    view = View.of(prepare(lens().image))
    truth = np.array([[1.0, 2.0, 0.05, -0.08, 0.05, -0.02, 0.04, -0.02, 0.15, 0.1, 0.3]])
    begin = torch.as_tensor(as_starts(truth, np.random.default_rng(1)))
    return view, sharpen(view.frame, SersicLens(1, 0), begin, PRIOR.gaussian)


class TestReweighting:
    def test_recovers_a_known_posterior(self):
        rng = np.random.default_rng(1)
        points = rng.normal(0.5, 1.5, (20000, 1))
        target = stats.norm(1.0, 0.8)
        found = Weighted(points, weigh(target.logpdf(points[:, 0]) + 7.0, stats.norm(0.5, 1.5).logpdf(points[:, 0])))
        assert found.mean[0] == pytest.approx(1.0, abs=0.03)
        assert found.covariance[0, 0] == pytest.approx(0.64, abs=0.04)
        samples = found.resampled(5000, rng)
        assert stats.kstest(samples[:, 0], target.cdf).statistic < 0.03

    def test_effective_samples(self):
        assert effective_samples(np.ones(50)) == pytest.approx(50)
        assert effective_samples(np.array([3.0, 0, 0])) == pytest.approx(1)
        assert effective_samples(np.zeros(3)) == 0
        # Of a Gaussian proposed by one k times as wide the share is sqrt(2 k^2 - 1) / k^2.
        x = np.random.default_rng(1).normal(0, 2, 200000)
        weights = weigh(stats.norm(0, 1).logpdf(x), stats.norm(0, 2).logpdf(x))
        assert effective_samples(weights) / len(x) == pytest.approx(np.sqrt(7) / 4, rel=0.02)

    def test_no_sample_possible(self):
        assert not weigh(np.full(3, -np.inf), np.zeros(3)).any()

    def test_likelihood_integrates_out_the_amplitude(self, fit):
        view, fit = fit
        data = view.frame.weighted_data
        point = fit.parameters[None]
        basis = fit.lens.linearise(point, False).basis[0, 0]
        amplitude = float(fit.amplitudes[0])
        grid = np.linspace(0.5, 1.5, 20001) * amplitude
        chi2 = float(data @ data) - 2 * grid * float(basis @ data) + grid**2 * float(basis @ basis)
        numeric = np.log(np.sum(np.exp(-0.5 * (chi2 - chi2.min()))) * (grid[1] - grid[0])) - 0.5 * chi2.min()
        known = log_likelihood(fit.lens, data, point.numpy())[0] + 0.5 * np.log(2 * np.pi)
        assert known == pytest.approx(numeric, abs=1e-4)

    def test_finds_the_posterior_whatever_the_network_says(self, fit, tmp_path):
        """A network off by a sigma or two must not move the answer: it is the likelihood's."""
        view, fit = fit
        found = []
        for shift in (0.0, 0.02):
            center = [ABOUT["center"][0] + shift, *ABOUT["center"][1:]]
            read = NetworkPosterior.of(view.image, saved(tmp_path, f"p{shift}", center=center), symmetrise=False)
            found.append(reweight(
                read, fit, view.frame.weighted_data, PRIOR, 600, np.random.default_rng(1)
            )[0])
        for each in found:
            assert each.effective > 60
            error = np.sqrt(np.diag(each.covariance) / each.effective)
            assert (np.abs(each.mean - found[0].mean) < 5 * np.hypot(error, error)).all()
        assert abs(found[0].mean[0] - float(fit.parameters[0])) < 2 * np.sqrt(found[0].covariance[0, 0])

    def test_result_says_what_the_samples_are_worth(self, weights):
        method = Posterior(weights=weights, samples=200, reweight=True)
        result = reconstruct(lens().image, method=method, seed=1)
        assert 1 <= result.meta["effective_samples"] <= 200
        assert 0 <= result.meta["effective_samples_network"] <= 100
        few = result.meta["effective_samples"] < 10
        assert any(flag.startswith("few effective samples") for flag in result.flags) == few
        assert len(result.samples) == 200


class TestPrior:
    def prior(self, **priors):
        return PopulationPrior(priors)

    def test_densities(self):
        points = np.zeros((2, 14))
        points[:, 0], points[:, 10] = [1.0, 2.0], np.log(0.2)
        inside, outside = self.prior(theta_E=Uniform(0.5, 1.5)).log_density(points)
        assert np.isfinite(inside) and outside == -np.inf
        narrow, wide = (self.prior(theta_E=Normal(1.0, sd)).log_density(points) for sd in (0.5, 1.0))
        assert narrow[0] - narrow[1] == pytest.approx(2.0) and wide[0] - wide[1] == pytest.approx(0.5)

    def test_place_of_the_source(self):
        points = np.zeros((2, 14))
        points[:, 4:8] = 0.5, -0.2, 0.1, 0.05
        points[:, 8:10] = [[0.5 - 0.05 + 0.01, -0.2 - 0.025 - 0.02], [0.9, 0.3]]
        near, far = self.prior(source_offset=Fixed(0.1)).log_density(points)
        assert np.isfinite(near) and far == -np.inf

    def test_card(self):
        assert PRIOR.priors["theta_E"] == Uniform(0.7, 1.7)
        assert PRIOR.priors["gamma"] == population("lens-benchmark").priors["gamma"]


class TestForward:
    """The fit that starts from the posterior."""

    QUICK = Forward(lens_light=0, sources=1, samples=0)

    @pytest.fixture
    def shipped(self, tmp_path, monkeypatch):
        """A folder of weights, and no other."""
        monkeypatch.setenv("LENSDEBLEND_WEIGHTS", str(tmp_path))
        monkeypatch.setattr("lensdeblend.networks.weights._SHIPPED", tmp_path / "none")
        return tmp_path

    def fit(self, start, image=None):
        return reconstruct(lens().image if image is None else image, method=replace(self.QUICK, start=start), seed=1)

    @pytest.mark.parametrize("start", ["auto", "posterior"])
    def test_starts_from_the_posterior(self, start, shipped, monkeypatch):
        saved(shipped)
        blind = self.fit("blind")

        def no_draws(*args, **kwargs):
            raise AssertionError("blind starts were drawn")

        monkeypatch.setattr("lensdeblend.reconstructors.fitting.draw_starts", no_draws)
        found = self.fit(start)
        assert found.chi2 == pytest.approx(blind.chi2, abs=1e-3)
        np.testing.assert_allclose(found.parameters["theta_E"].value, blind.parameters["theta_E"].value, atol=1e-3)

    def test_falls_back_on_blind_starts(self, monkeypatch):
        """From proposals that lead nowhere, the answer must be that of the blind starts, to the last digit."""
        astray = np.tile([0.1, 2.0, 0, 0, 2.0, 2.0, 0, 0, -2.0, -2.0, np.log(0.05), 0.5, 0, 0], (8, 1))
        asked = []
        monkeypatch.setattr(
            "lensdeblend.reconstructors.forward.proposed_starts",
            lambda frame, rng, anywhere: (asked.append(rng.spawn(1)[0].random()), astray)[1],
        )
        found, blind = self.fit("posterior"), self.fit("blind")
        assert len(asked) == 1
        assert found.chi2 == blind.chi2 < 1.1
        np.testing.assert_array_equal(found.covariance, blind.covariance)

    def test_auto_without_weights(self, shipped):
        assert self.fit("auto").chi2 == self.fit("blind").chi2
        with pytest.raises(ValueError, match="no weights called 'posterior'"):
            self.fit("posterior")

    def test_auto_does_not_ask_of_what_was_not_learned(self, shipped, monkeypatch):
        saved(shipped)
        asked = []
        monkeypatch.setattr(
            "lensdeblend.reconstructors.fitting._search",
            lambda frame, drawn, keep, before=fitting._search: asked.append(len(drawn)) or before(frame, drawn, keep),
        )
        image = lens((48, 48)).image
        self.fit("auto", image)
        assert asked == [256]
        asked.clear()
        self.fit("posterior", image)
        assert asked[0] == 64

    def test_starts_are_told_from_the_centre_of_the_image(self, shipped):
        """A frame that is cut off-centre has its own centre; starts are wanted about that of the whole image."""
        saved(shipped)
        image = prepare(lens((90, 90)).image)
        image.mask[:, 70:] = image.mask[75:] = True
        frame = View.of(image).frame
        assert frame.grid.centre != (0, 0)
        starts = proposed_starts(frame, np.random.default_rng(1), anywhere=True)
        # The untrained network puts the lens at the centre of what it is shown.
        np.testing.assert_allclose(np.median(starts[:, 4:6], 0), frame.grid.centre, atol=0.05)

    def test_bad_option(self):
        with pytest.raises(ValueError, match="start must be one of 'auto', 'blind', 'posterior'"):
            Forward(start="random")
