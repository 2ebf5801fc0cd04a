"""Reports on generators: fakes whose faults are known, statistics against cases worked by hand, bad input."""

from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData
from astropy.table import QTable, Table

from lensdeblend.cli import main
from lensdeblend.evaluation import GalaxySet, GenerationReport, evaluate_generators, galaxy_set, galaxy_sets
from lensdeblend.evaluation.galaxy_morphology import morphologies, radial_power
from lensdeblend.evaluation.galaxy_neighbours import GalaxyShapes, nearest_distances
from lensdeblend.evaluation.galaxy_summaries import (
    distribution_table, neighbour_table, spectrum_table, wish_table,
)
from lensdeblend.evaluation.two_sample import area_under_curve, two_sample_auc
from lensdeblend.generators.sersic import Sersic
from lensdeblend.interfaces import Generator
from lensdeblend.results import Generation
from lensdeblend.scenes import GaussianPSF, Observation

N = 40


@pytest.fixture(scope="module")
def smooth_set():
    """Bulges and discs alone, which take the least to make."""
    return replace(galaxy_set("made"), name="smooth", shares={"parametric": 1.0})


@pytest.fixture(scope="module")
def sample(smooth_set):
    return smooth_set.draw(N, seed=1)


@pytest.fixture
def canned(sample, monkeypatch):
    monkeypatch.setattr(GalaxySet, "draw", lambda self, n, seed, **options: replace(
        sample, images=sample.images[:n], galaxy=sample.galaxy[:n]
    ))


@dataclass(frozen=True, kw_only=True)
class Fake(Generator):
    """Sérsic galaxies with a fault: ``"round"``, ``"blurred"``, ``"raises"``, ``"nan"``."""

    fault: str = ""
    pixel_scale: u.Quantity | float = 0.1
    pixels: int = 64
    psf: GaussianPSF | None = None
    measure: bool = True

    def generate(self, n, conditions, rng):
        if self.fault == "raises":
            raise ValueError("out of order")
        wished = {**conditions}
        if self.fault == "round":
            wished |= {"e1": 0.0, "e2": 0.0}
        if self.fault == "blurred":
            wished["radius"] = 1.3 * wished["radius"]
        seen = Sersic(
            pixel_scale=self.pixel_scale, pixels=self.pixels, psf=self.psf, measure=self.measure, outside="flag"
        ).generate(n, wished, rng)
        if self.fault == "nan":
            seen.images[0].data[0, 0] = np.nan
        return seen


class TestSets:
    def test_names(self):
        assert set(galaxy_sets()) == {"learned", "made", "real", *(f"{n}-colour" for n in ("learned", "made", "real"))}
        with pytest.raises(ValueError, match="did you mean 'made'"):
            galaxy_set("mad")

    def test_draws_the_same_with_the_same_seed(self, smooth_set, sample):
        again = smooth_set.draw(N, seed=1)
        np.testing.assert_array_equal(again.images, sample.images)
        other = smooth_set.draw(N, seed=2)
        assert not np.allclose(other.images, sample.images)

    def test_fluxes_and_places_are_as_told(self, smooth_set, sample):
        fluxes = sample.images[:, 0].sum((1, 2))
        assert smooth_set.flux[0] <= fluxes.min() < 30 and 300 < fluxes.max() <= smooth_set.flux[1]
        y, x = np.indices((64, 64)) - 31.5
        window = np.exp(-0.5 * (x**2 + y**2) / 4**2)
        for axis in (x, y):
            off = (sample.images[:, 0] * window * axis).sum((1, 2)) / (sample.images[:, 0] * window).sum((1, 2))
            assert np.abs(off).max() < 0.3

    @pytest.mark.parametrize("options, message", [
        ({"n": 0}, "n must be"), ({"seed": -1}, "seed"), ({"images": ["there"]}, "no real galaxies"),
    ])
    def test_bad_input(self, smooth_set, options, message):
        with pytest.raises(ValueError, match=message):
            smooth_set.draw(**{"n": 2, "seed": 1, **options})

    def test_real_galaxies_must_be_named(self, tmp_path):
        with pytest.raises(ValueError, match="--images"):
            galaxy_set("real").draw(2, seed=1)
        with pytest.raises(FileNotFoundError):
            galaxy_set("real").draw(2, seed=1, images=[tmp_path / "nowhere"])


class TestReport:
    def test_what_grants_wishes_and_what_makes_round_galaxies(self, smooth_set, canned):
        report = evaluate_generators(
            {"good": Fake(), "round": Fake(fault="round")}, smooth_set, N, morphology=0, progress=False
        )
        wishes = {(row["method"], row["property"]): row for row in report.summaries["wishes"]}
        for name, most in (("flux", 0.02), ("radius", 0.02), ("e1", 0.02), ("e2", 0.02), ("n", 0.06)):
            assert wishes["good", name]["slope"] == pytest.approx(1, abs=most), name
            assert wishes["good", name]["correlation"] > 0.99, name
        assert abs(wishes["round", "e1"]["slope"]) < 0.05
        assert wishes["round", "flux"]["slope"] == pytest.approx(1, abs=0.02)
        shapes = {row["method"]: row for row in report.summaries["distributions"] if row["property"] == "e"}
        assert shapes["good"]["distance"] < 0.01
        assert shapes["round"]["distance"] == pytest.approx(shapes["round"]["mean_reference"], rel=0.1)
        told = {row["method"]: row["auc"] for row in report.summaries["classifier"]}
        assert told["round"] > told["good"]
        assert report.failures == 0 and not len(report.summaries["neighbours"])
        assert not len(report.summaries["reconstructions"])

    def test_what_blurs_lacks_power(self, smooth_set, canned):
        report = evaluate_generators(
            {"good": Fake(), "blurred": Fake(fault="blurred")}, smooth_set, 12, morphology=0, progress=False
        )
        power = report.summaries["spectra"]
        last = power["cycles_to"] == power["cycles_to"].max()
        ratio = dict(zip(power["method"][last], power["power_ratio"][last]))
        assert ratio["blurred"] < 0.8 * ratio["good"]

    @pytest.mark.parametrize("method, message", [
        (Fake(fault="raises"), "out of order"), (Fake(fault="nan"), "finite stamps"), ("toy", "lacks the option"),
    ])
    def test_failures_are_counted(self, smooth_set, canned, method, message):
        @dataclass(frozen=True)
        class Toy(Generator):
            def generate(self, n, conditions, rng):
                return Generation([NDData(np.ones((8, 8)))] * n, QTable({"id": range(n)}))

        method = Toy() if method == "toy" else method
        report = evaluate_generators({"bad": method, "good": Fake()}, smooth_set, 6, morphology=0, progress=False)
        (row,) = report.summaries["failures"]
        assert row["method"] == "bad" and message in row["reason"]
        assert set(report.summaries["wishes"]["method"]) == {"good"}

    def test_all_fail(self, smooth_set, canned):
        report = evaluate_generators(Fake(fault="raises"), smooth_set, 6, morphology=0, progress=False)
        assert report.failures == 1 and "out of order" in report.text and not report.cases

    def test_a_network_draws_again(self, smooth_set, canned):
        report = evaluate_generators("vae-flow", smooth_set, 8, morphology=0, progress=False)
        (row,) = report.summaries["reconstructions"]
        assert 0.7 < row["chi2_per_pixel"] < 1.3 and row["psnr_mean"] > 35
        assert len(report.cases[0].pictures) == 4

    def test_in_colour(self, monkeypatch, sample):
        colours = replace(galaxy_set("made-colour"), shares={"parametric": 1.0})
        redder = 10 ** (-0.4 * np.linspace(0, 1, 8))[:, None, None, None] * sample.images[:8]
        three = replace(
            sample, images=np.concatenate([sample.images[:8], redder, 0.7 * redder], 1), galaxy=sample.galaxy[:8]
        )
        monkeypatch.setattr(GalaxySet, "draw", lambda self, n, seed, **options: three)
        report = evaluate_generators(["vae-flow", "sersic"], colours, 8, morphology=0, progress=False)
        wished = {row["property"]: row for row in report.summaries["wishes"]}
        assert wished["r-i"]["slope"] == pytest.approx(1, abs=0.05)
        assert report.details["reference"]["r-i"][-1] == pytest.approx(1)
        assert "bands" in report.summaries["failures"]["reason"][0]

    @pytest.mark.parametrize("options, error, message", [
        ({"n": 3}, ValueError, "n must be"), ({"peak_snr": 0}, ValueError, "peak_snr"),
        ({"morphology": -1}, ValueError, "morphology"), ({"test_set": "nope"}, ValueError, "unknown set"),
        ({"test_set": 3}, TypeError, "test_set"), ({"methods": "nope"}, ValueError, "nope"),
        ({"methods": "joint"}, ValueError, "joint"),
    ])
    def test_bad_input(self, options, error, message):
        with pytest.raises(error, match=message):
            evaluate_generators(**{"methods": "sersic", "progress": False, **options})

    def test_files_and_command_line(self, canned, tmp_path, capsys):
        pytest.importorskip("matplotlib")
        out = tmp_path / "report"
        arguments = ["evaluate", "generate", "--methods", "sersic", "-n", "6", "--morphology", "0", "-o", str(out)]
        assert main(arguments) == 0
        assert "Wished against measured" in capsys.readouterr().out
        assert {path.name for path in GenerationReport.files(out)} == {path.name for path in out.iterdir()}
        assert (out / "report.html").read_text().count("data:image/png") == 1
        assert len(Table.read(out / "galaxies.ecsv")) == 6
        assert main(arguments) == 2


class TestStatistics:
    def test_wishes_on_a_straight_line(self):
        wished = np.linspace(1, 3, 50)
        table = Table({"method": ["a"] * 50, "x_wished": wished, "x": 0.5 * wished + 1})
        (row,) = wish_table(table, ["a"], ["x"])
        assert (row["slope"], row["correlation"]) == pytest.approx((0.5, 1))
        assert row["bias"] == pytest.approx(0) and row["scatter"] == pytest.approx(0, abs=1e-12)

    def test_distances(self):
        rng = np.random.default_rng(1)
        reference, same = rng.normal(size=(2, 2000))
        found = Table({"method": ["same"] * 2000 + ["off"] * 2000, "x": np.concatenate([same, reference + 0.5])})
        one, other = distribution_table(Table({"x": reference}), found, ["same", "off"], ["x"], 1)
        assert other["distance"] == pytest.approx(0.5)
        assert 0.3 < one["distance"] / one["by_chance"] < 3

    def test_spectra(self):
        rng = np.random.default_rng(1)
        power = rng.uniform(1, 2, (500, 2))
        table = spectrum_table(power, {"a": power * [1, 0.5]}, np.array([0.1, 0.2, 0.3]), np.array([0.9, 0.4]))
        np.testing.assert_allclose(table["power_ratio"], [1, 0.5])
        assert list(table["through_psf"]) == [0.9, 0.4]

    def test_power_of_a_gaussian(self):
        y, x = np.indices((64, 64)) - 32
        image = np.exp(-0.5 * (x**2 + y**2) / 2**2)
        edges = np.array([0.05, 0.06, 0.1, 0.11])
        found = radial_power(7 * image[None], edges)[0, [0, 2]]
        expected = np.exp(-((2 * np.pi * np.array([0.055, 0.105]) * 2) ** 2))
        np.testing.assert_allclose(found, expected, rtol=0.05)

    def test_area_under_curve(self):
        rng = np.random.default_rng(1)
        scores = np.concatenate([rng.normal(size=4000), rng.normal(1, 1, 4000)])
        area, error = area_under_curve(scores, np.repeat([0.0, 1.0], 4000))
        # Of two Gaussians one standard deviation apart: the normal distribution at one over the root of 2.
        assert area == pytest.approx(0.7602, abs=3 * error) and 0.002 < error < 0.01

    def test_a_network_tells_wide_galaxies_from_narrow_ones(self):
        rng = np.random.default_rng(1)
        y, x = np.indices((32, 32)) - 15.5

        def galaxies(width):
            return np.exp(-0.5 * (x**2 + y**2) / width**2)[None, None] + 0.05 * rng.normal(size=(80, 1, 32, 32))

        groups = np.arange(80) // 2
        told, _ = two_sample_auc(galaxies(3.0), galaxies(4.0), groups, 1)
        same, error = two_sample_auc(galaxies(3.0), galaxies(3.0), groups, 1)
        assert told > 0.95 and abs(same - 0.5) < 4 * error

    def test_neighbours(self):
        y, x = np.indices((41, 41)) - 20
        galaxies = np.array([
            np.exp(-np.hypot(x, y) / r) * (1 + 0.5 * np.tanh(x / r) + 0.2 * np.tanh(y / r)) for r in (3.0, 4.0)
        ])
        shapes = Table({"radius": [5.0, 6.7], "e1": [0.0, 0.0], "e2": [0.0, np.nan]})
        standard = GalaxyShapes.of(galaxies, shapes, 1.0).standard()
        assert standard.shape == (1, 20, 20)
        (near,) = nearest_distances(np.rot90(standard, 1, (1, 2)), standard)
        (far,) = nearest_distances(standard, np.exp(-np.hypot(*np.indices((20, 20))) / 3)[None])
        assert near == pytest.approx(0, abs=1e-6) and far > 0.5
        held_out, copies = np.linspace(0.1, 0.2, 200), np.full(50, 0.01)
        one, other = neighbour_table(held_out, {"fresh": held_out, "copies": copies})
        assert one["nearest_share"] == pytest.approx(0.01, abs=0.006) and other["nearest_share"] == 1

    def test_sheared_galaxies_are_round_in_the_standard_frame(self):
        y, x = np.indices((81, 81)) - 40
        e1, e2 = 0.2, -0.3
        stretch = np.array([[1 + e1, e2], [e2, 1 - e1]]) / np.sqrt(1 - e1**2 - e2**2)
        u_, v = np.einsum("ij,jyx->iyx", np.linalg.inv(stretch), np.stack([x, y]))
        image = np.exp(-np.sqrt(u_**2 + v**2 + 1) / 5)
        table = Table({"radius": [8.0], "e1": [e1], "e2": [e2]})
        (stamp,) = GalaxyShapes.of(image[None], table, 1.0).standard()
        np.testing.assert_allclose(stamp, stamp.T, atol=0.01 * stamp.max())
        np.testing.assert_allclose(stamp, stamp[::-1], atol=0.01 * stamp.max())

    def test_morphology(self):
        pytest.importorskip("statmorph")
        y, x = np.indices((96, 96)) - 48
        r = np.hypot(x, y) + 0.3
        disc, spheroid = np.exp(-r / 6), np.exp(-7.67 * ((r / 10) ** 0.25 - 1))
        knotty = disc + 0.5 * np.exp(-0.5 * ((x - 10) ** 2 + (y - 6) ** 2) / 1.5**2)
        images = np.array([disc, spheroid / spheroid.max() * 5, knotty, 0 * disc])
        noise = np.full(4, 0.005)
        images = images + noise[:, None, None] * np.random.default_rng(1).normal(size=images.shape)
        found = morphologies(images, noise, None)
        assert found["concentration"][1] > found["concentration"][0] + 0.5
        assert found["gini"][1] > found["gini"][0]
        assert found["asymmetry"][2] > found["asymmetry"][0] + 0.05
        assert all(np.isnan(values[3]) for values in found.values())

    def test_without_statmorph(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "statmorph", None)
        with pytest.raises(ImportError, match=r"lensdeblend\[evaluate\]"):
            morphologies(np.ones((1, 64, 64)), np.ones(1), None)


@pytest.mark.parametrize("changes, message", [
    ({"bands": ("g", "r")}, "1 or 3 bands"),
    ({"observation": Observation(0.1 * u.arcsec, (64, 64), unit=u.ct / u.s)}, "needs a PSF"),
    ({"observation": Observation(0.1 * u.arcsec, (64, 60), GaussianPSF(0.3 * u.arcsec), unit=u.ct / u.s)}, "square"),
])
def test_sets_that_cannot_be_drawn(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(galaxy_set("made"), **changes)


def test_a_set_of_ones_own():
    seen = Observation(0.2 * u.arcsec, (48, 48), GaussianPSF(0.5 * u.arcsec), unit=u.ct / u.s)
    own = GalaxySet("own", "discs", {"parametric": 1.0}, ("r",), seen, radius=(0.6, 0.8))
    drawn = own.draw(2, seed=1)
    assert drawn.images.shape == (2, 1, 48, 48) and len(drawn) == 2
