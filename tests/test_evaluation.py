"""Reports on reconstructors: fakes whose errors are known, failures, files, bad input."""

import base64
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from io import BytesIO
from typing import ClassVar

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData
from astropy.table import MaskedColumn, QTable, Table
from fake_packages import packages, toys  # noqa: F401

from lensdeblend.cli import main
from lensdeblend.cli.evaluations import chosen_methods
from lensdeblend.evaluation import LensSet, evaluate_reconstructors, lens_set, lens_sets
from lensdeblend.evaluation import reconstructors as running
from lensdeblend.evaluation.cramer_rao import cramer_rao_bound
from lensdeblend.evaluation.judging import LENS_UNITS, judge
from lensdeblend.images import like
from lensdeblend.interfaces import Reconstructor
from lensdeblend.plugins import create
from lensdeblend.results import Reconstruction
from lensdeblend.scenes import ImageSource
from lensdeblend.scenes.populations import Fixed, population
from lensdeblend.simulators.sampling import sample
from lensdeblend.simulators.torch import Torch
from lensdeblend.training.sources import GalaxyStamps

N = 5


@pytest.fixture(scope="module")
def simulations():
    return lens_set("varied").draw(N, seed=3)


@pytest.fixture(scope="module")
def bounds(simulations):
    return {id(simulation): cramer_rao_bound(simulation) for simulation in simulations}


@pytest.fixture(autouse=True)
def drawn_once(simulations, bounds, monkeypatch):
    """The set is simulated once; the fakes look the truth up."""
    monkeypatch.setattr(running, "_bound", lambda simulation: bounds[id(simulation)])
    monkeypatch.setattr(LensSet, "draw", lambda self, n, seed, **options: simulations[:n])
    monkeypatch.setattr(Oracle, "truths", simulations)


@dataclass(frozen=True)
class Oracle(Reconstructor):
    """Knows the truth, and departs from it as asked for."""

    bias: float = 0.0
    claimed: float = 0.1
    scale: float = 1.0
    scatter: float = 0.0
    fails_on: tuple[int, ...] = ()
    shape_off: bool = False
    flags: tuple[str, ...] = ()

    truths: ClassVar[list] = []

    def reconstruct(self, image, rng):
        index, = (i for i, s in enumerate(self.truths) if np.array_equal(s.image.data, image.data))
        if index in self.fails_on:
            raise RuntimeError(f"no luck with <b>{index}</b> & co")
        truth = self.truths[index]
        true = truth.scene.lens_parameters
        parameters = QTable()
        for name, unit in LENS_UNITS.items():
            off = self.bias + self.scatter * self.claimed * rng.standard_normal()
            parameters[name] = [u.Quantity(true[name][0]).to_value(unit) + off] * unit
            parameters[f"{name}_err"] = [self.claimed] * unit
        unlensed = self.scale * truth.unlensed.data
        residual = (image.data - truth.noiseless.data) / np.sqrt(image.uncertainty.array)
        return Reconstruction(
            source=truth.source, unlensed=NDData(unlensed[1:]) if self.shape_off else like(image, unlensed),
            parameters=parameters, covariance=None, samples=None, model=like(image, truth.noiseless.data),
            residual=like(image, residual, unit=u.one), lens_light=None, chi2=1.0, flags=self.flags,
        )


def evaluate(methods, n=N, seed=3, **options):
    return evaluate_reconstructors(methods, "varied", n, seed, progress=False, **options)


def row_of(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    row, = table
    return row


def test_the_truth_has_no_error(simulations):
    report = evaluate({"perfect": Oracle()})
    for row in report.summaries["sources"]:
        assert (row["mse_mean"], row["psnr_mean"], row["psnr_median"]) == (0, np.inf, np.inf)
        assert row["ssim_mean"] == pytest.approx(1)
    for row in report.summaries["parameters"]:
        assert (row["bias"], row["rmse"], row["median_over_bound"], row["holds_68"]) == (0, 0, 0, 1)
    fits, = report.summaries["fits"]
    chi2 = [np.mean((s.image.data - s.noiseless.data) ** 2 / s.image.uncertainty.array) for s in simulations]
    assert fits["chi2_median"] == pytest.approx(np.median(chi2)) and fits["failures"] == 0
    limit = 3 * np.sqrt(2 / simulations[0].image.data.size)
    assert fits["within_3_sigma"] == np.mean(np.abs(np.subtract(chi2, 1)) <= limit)
    assert "inf" in report.text


def test_a_bias_is_found_and_held_against_the_bound(bounds):
    table = evaluate({"biased": Oracle(bias=0.02, claimed=0.015)}).summaries["parameters"]
    for name in LENS_UNITS:
        row = row_of(table, parameter=name)
        assert row["bias"] == pytest.approx(0.02) and row["rmse"] == pytest.approx(0.02)
        # 0.02 is 1.33 times the claimed 0.015: outside of the 68% interval, inside of the 95% one.
        assert (row["holds_68"], row["holds_95"]) == (0, 1)
        ratio = 0.02 / np.array([float(u.Quantity(bound[name][0]).value) for bound in bounds.values()])
        assert row["median_over_bound"] == pytest.approx(np.median(ratio))
        assert row["rms_over_bound"] == pytest.approx(np.sqrt(np.mean(ratio**2)))


def test_errors_of_the_claimed_size_are_covered(monkeypatch, simulations):
    monkeypatch.setattr(LensSet, "draw", lambda self, n, seed, **options: simulations[:1] * n)
    monkeypatch.setattr(running, "judge", lambda result, simulation: {**CANNED, **judge_parameters(result)})
    report = evaluate({"honest": Oracle(scatter=1), "too sure": Oracle(scatter=2)}, n=150, batch=50)
    table = report.summaries["parameters"]
    # 1200 draws: standard deviations of 1.4 and 0.7 points.
    for method, within_68, within_95 in (("honest", 0.68, 0.95), ("too sure", 0.381, 0.673)):
        own = table[table["method"] == method]
        assert np.mean(own["holds_68"]) == pytest.approx(within_68, abs=0.045)
        assert np.mean(own["holds_95"]) == pytest.approx(within_95, abs=0.045 if method == "too sure" else 0.02)


CANNED = {
    "mse": 1.0, "psnr": 1.0, "ssim": 1.0, "footprint_mse": 1.0, "footprint_psnr": 1.0, "footprint_ssim": 1.0,
    "chi2": 1.0, "degrees_of_freedom": 100, "flags": "",
}


def judge_parameters(result):
    return {name: float(u.Quantity(result.parameters[name][0]).value) for name in result.parameters.colnames}


def test_a_source_of_known_error(simulations):
    table = evaluate({"dim": Oracle(scale=0.9)}).summaries["sources"]
    squares = [np.mean((0.1 * s.unlensed.data / s.unlensed.data.max()) ** 2) for s in simulations]
    row = row_of(table, region="frame")
    assert row["mse_mean"] == pytest.approx(np.mean(squares))
    assert row["psnr_median"] == pytest.approx(np.median(-10 * np.log10(squares)))
    assert row_of(table, region="footprint")["psnr_mean"] < row["psnr_mean"]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_one_failure_does_not_stop_the_others(batch):
    report = evaluate({"unlucky": Oracle(fails_on=(1, 4)), "perfect": Oracle()}, batch=batch)
    assert report.failures == 2
    failures = report.summaries["failures"]
    assert list(failures["lens"]) == [1, 4] and set(failures["method"]) == {"unlucky"}
    assert failures["reason"][0] == "RuntimeError: no luck with <b>1</b> & co"
    fits = row_of(report.summaries["fits"], method="unlucky")
    assert (fits["images"], fits["failures"]) == (N, 2)
    assert row_of(report.summaries["sources"], method="unlucky", region="frame")["images"] == 3
    assert row_of(report.summaries["fits"], method="perfect")["failures"] == 0
    images = report.details["images"]
    assert list(images["lens"][images["method"] == "unlucky"]) == list(range(N))


def test_a_method_that_fails_everywhere_is_reported():
    report = evaluate({"broken": Oracle(fails_on=tuple(range(N)))})
    assert report.failures == N and report.cases == ()
    assert np.isnan(report.summaries["sources"]["psnr_mean"]).all()
    assert "none: no method gave an answer" in report.html() and "RuntimeError" in report.text


def test_a_result_that_cannot_be_compared_is_a_failure():
    report = evaluate({"cut": Oracle(shape_off=True)}, n=2)
    reasons = report.summaries["failures"]["reason"]
    assert len(reasons) == 2 and "cannot be judged: ValueError: the shapes must be equal" in reasons[0]


def test_flags_are_counted():
    table = evaluate({"wary": Oracle(flags=("poor fit", "not converged")), "sure": Oracle()}).summaries["flags"]
    assert [tuple(row) for row in table] == [("wary", "poor fit", N), ("wary", "not converged", N)]


def test_the_model_is_held_against_the_data_with_the_parameters_counted(simulations):
    simulation = simulations[0]
    result = Oracle().reconstruct(simulation.image, np.random.default_rng(1))
    pixels = simulation.image.data.size
    plain, counted = judge(result, simulation), judge(
        replace(result, meta={"degrees_of_freedom": pixels - 96}), simulation
    )
    assert (plain["degrees_of_freedom"], counted["degrees_of_freedom"]) == (pixels, pixels - 96)
    assert counted["chi2"] == pytest.approx(plain["chi2"] * pixels / (pixels - 96))


def test_the_same_seed_gives_the_same_results():
    first, again, other = (evaluate({"a": Oracle(scatter=1)}, seed=seed).details["images"] for seed in (3, 3, 4))
    assert np.array_equal(first["gamma"], again["gamma"])
    assert not np.array_equal(first["gamma"], other["gamma"])


def test_best_median_and_worst_are_chosen_by_the_footprint():
    report = evaluate({"dim": Oracle(scale=0.9)})
    images = report.details["images"]
    order = np.argsort(-images["footprint_psnr"], kind="stable")
    ranked = {case.rank: case.index for case in report.cases}
    assert ranked == {"best": order[0], "median": order[N // 2], "worst": order[-1]}
    assert [case.rank for case in report.cases] == ["best", "median", "worst"]
    assert [case.rank for case in evaluate({"dim": Oracle()}, n=2).cases] == ["best", "worst"]
    assert [case.rank for case in evaluate({"dim": Oracle()}, n=1).cases] == ["best"]


class Outline(HTMLParser):
    """Opens and closes tags as they come, and keeps the pictures."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self):
        super().__init__()
        self.open, self.pictures, self.seen, self.text = [], [], set(), []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_is_written_and_read_back(tmp_path):
    from matplotlib.image import imread

    report = evaluate({"<dim> & co": Oracle(scale=0.9, fails_on=(2,)), "perfect": Oracle(flags=("a < b",))})
    report.write(tmp_path / "out")
    assert sorted((tmp_path / "out").iterdir()) == sorted(report.files(tmp_path / "out"))
    for name, table in {**report.summaries, **report.details}.items():
        exact = Table.read(tmp_path / "out" / f"{name}.ecsv", format="ascii.ecsv")
        assert exact.colnames == table.colnames and len(exact) == len(table)
        for column in table.colnames:
            numbers = table[column].dtype.kind == "f"
            # Empty text comes back masked.
            back = exact[column].filled("") if isinstance(exact[column], MaskedColumn) else exact[column]
            assert np.array_equal(back, table[column], equal_nan=numbers), (name, column)
            assert exact[column].unit == table[column].unit
        plain = Table.read(tmp_path / "out" / f"{name}.csv", format="ascii.csv")
        assert plain.colnames == table.colnames and len(plain) == len(table)
    images = Table.read(tmp_path / "out" / "images.csv", format="ascii.csv")
    assert np.array_equal(images["psnr"], report.details["images"]["psnr"], equal_nan=True)
    assert (tmp_path / "out" / "report.txt").read_text(encoding="utf-8") == report.text + "\n"
    page = Outline()
    page.feed((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    page.close()
    assert page.open == [] and not {"script", "link", "b", "dim"} & page.seen
    assert any("no luck with <b>2</b> & co" in text for text in page.text)
    assert len(page.pictures) == 6 and all(picture["alt"] for picture in page.pictures)
    for picture in page.pictures:
        kind, _, content = picture["src"].partition(",")
        assert kind == "data:image/png;base64"
        pixels = imread(BytesIO(base64.b64decode(content)))
        assert np.ptp(pixels[..., :3]) > 0.5


def test_nothing_is_replaced_unasked(tmp_path):
    report = evaluate({"perfect": Oracle()}, n=1)
    report.write(tmp_path, pictures=False)
    (tmp_path / "report.txt").unlink()
    with pytest.raises(FileExistsError, match="exists; to replace it"):
        report.write(tmp_path, pictures=False)
    assert not (tmp_path / "report.txt").exists()
    report.write(tmp_path, overwrite=True, pictures=False)
    assert "<img" not in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "methods, options, message",
    [
        ("forwrad", {}, "unknown reconstructor 'forwrad'; did you mean 'forward'"),
        ([Oracle(), Oracle()], {}, "two methods are called"),
        ([], {}, "there is no method to evaluate"),
        ("forward", {"batch": 0}, "batch must be at least 1"),
    ],
)
def test_bad_input_is_refused(methods, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(methods, **options)
    with pytest.raises(ValueError, match="unknown set of lenses 'publisht'; did you mean 'published'"):
        evaluate_reconstructors("forward", "publisht")
    with pytest.raises(TypeError, match="test_set must be a LensSet"):
        evaluate_reconstructors("forward", 3)
    with pytest.raises(TypeError, match="must be the name or an instance of a Reconstructor"):
        evaluate({"simulator": Torch()})


def test_methods_and_options_of_the_command_line():
    chosen = chosen_methods("reconstructor", "forward, quick=forward", ["quick.starts=3", "quick.gamma_prior=2,0.1"])
    assert list(chosen) == ["forward", "quick"]
    assert (chosen["quick"].starts, chosen["quick"].gamma_prior) == (3, (2.0, 0.1))
    assert chosen["forward"] == create("reconstructor", "forward")


@pytest.mark.parametrize(
    "args, message",
    [
        (["--methods", "forward,forward"], "--methods names 'forward' twice"),
        (["--methods", ","], "--methods names no method"),
        (["--methods", "forwrad"], "unknown reconstructor 'forwrad'"),
        (["--set", "starts=3"], "--set takes METHOD.OPTION=VALUE"),
        (["--set", "unet.starts=3"], "'unet' is none of the methods forward"),
        (["--set", "forward.stars=3"], "has no option 'stars'"),
        (["--set", "forward.starts=few"], "starts must be a whole number"),
        (["--test-set", "publisht"], "unknown set of lenses 'publisht'"),
    ],
)
def test_bad_usage_is_told_in_one_line(capsys, args, message):
    assert main(["evaluate", "reconstruct", *args]) == 2
    line, = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("lensdeblend: error: ") and message in line


def test_the_command_line(capsys, tmp_path, monkeypatch):
    unlucky = {"perfect": Oracle(), "unlucky": Oracle(fails_on=(0,))}
    monkeypatch.setattr("lensdeblend.cli.evaluate_reconstruct.chosen_methods", lambda *args: unlucky)
    args = ["evaluate", "reconstruct", "--test-set", "varied", "-n", "2", "--no-pictures", "-o", str(tmp_path / "out")]
    assert main(args) == 1
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    assert "no luck" in printed and "2 lenses of the set 'varied'" in printed
    monkeypatch.setattr("lensdeblend.evaluation.sets.LensSet.draw", None)
    assert main(args) == 2
    assert "exists; add --overwrite" in capsys.readouterr().err
    monkeypatch.setattr("lensdeblend.evaluation.sets.LensSet.draw", lambda *args, **options: Oracle.truths[:2])
    monkeypatch.delitem(unlucky, "unlucky")
    assert main([*args, "--overwrite"]) == 0


def test_methods_of_other_packages_are_judged(capsys, toys, simulations):  # noqa: F811
    args = ["evaluate", "reconstruct", "--test-set", "varied", "-n", "2", "--methods", "toy,wide=toys::toy"]
    assert main([*args, "--set", "wide.theta_E=1.5"]) == 0
    printed = capsys.readouterr().out
    true = np.array([s.scene.mass[0].theta_E.to_value(u.arcsec) for s in simulations[:2]])
    for label, theta_E in (("toy", 1.0), ("wide", 1.5)):
        assert f"{np.mean(theta_E - true):+.2g}" in next(
            line for line in printed.splitlines() if line.split()[:2] == [label, "theta_E"]
        )
    row, = (line for line in printed.splitlines() if line.startswith("wide") and "toys" in line)
    assert row.split()[1:] == ["toy", "toys", "1.0", "theta_E=1.5"]


class TestSets:
    """The sets themselves."""

    @pytest.fixture(autouse=True)
    def drawn_once(self):
        """Simulated in earnest here."""

    def test_names(self):
        assert lens_sets() == ["published", "varied", "benchmark", "cosmos"]
        assert [lens_set(name).name for name in lens_sets()] == lens_sets()

    def test_the_first_lenses_do_not_depend_on_how_many(self):
        varied = lens_set("varied")
        short, long, other = varied.draw(2, 5), varied.draw(3, 5), varied.draw(2, 6)
        for one, two, three in zip(short, long, other):
            assert np.array_equal(one.image.data, two.image.data)
            assert repr(one.scene) == repr(two.scene) != repr(three.scene)

    def test_varied_has_pixels_psf_and_noise_that_vary(self, simulations):
        scales = [s.observation.pixel_scale.to_value(u.arcsec) for s in simulations]
        widths = [s.observation.psf.fwhm.to_value(u.arcsec) for s in simulations]
        assert all(0.06 <= scale <= 0.11 for scale in scales) and len(set(scales)) == N
        assert all(0.08 <= width <= 0.2 for width in widths) and len(set(widths)) == N
        for simulation in simulations:
            noise = simulation.image.data - simulation.noiseless.data
            assert np.std(noise) == pytest.approx(simulation.observation.background_rms, rel=0.05)
            assert simulation.image.meta["PIXSCALE"] == simulation.observation.pixel_scale.to_value(u.arcsec)
            peak = simulation.noiseless.data.max() / simulation.observation.background_rms
            assert 10 < peak * 1.0001 and peak < 300.1

    def test_published_has_no_noise_but_a_declared_one(self):
        published = lens_set("published")
        simulation, = published.draw(1, 2)
        assert np.array_equal(simulation.image.data, simulation.noiseless.data)
        assert np.allclose(np.sqrt(simulation.image.uncertainty.array), 1e-3 * simulation.image.data.max())
        assert "no noise" in published.notes[0]
        lenses = running._lens_table([simulation], bounded=False)
        assert np.isnan(lenses["theta_E_bound"][0]) and lenses["peak_snr"][0] == np.inf

    def test_benchmark_is_that_of_the_population(self):
        simulation, = lens_set("benchmark").draw(1, 1)
        rng = np.random.default_rng(1).spawn(1)[0].spawn(1)[0]
        same, = sample(population("lens-benchmark"), 1, create("simulator", "lenstronomy"), rng)
        assert np.array_equal(simulation.image.data, same.image.data)

    def test_real_galaxies_are_sources_of_the_wished_radius(self, monkeypatch):
        y, x = np.mgrid[:96, :96] - 47.5
        radius = np.array([6.0, 8.0, 10.0])
        stamps = np.stack([np.exp(-np.hypot(x, y) * 1.678 / r) for r in radius]).astype(np.float32)
        galaxies = GalaxyStamps(["a", "b", "c"], stamps / stamps.sum((1, 2), keepdims=True), radius, {})
        monkeypatch.setattr("lensdeblend.training.sources.read_galaxies", lambda path, progress: galaxies)
        cosmos = lens_set("cosmos")
        simulations = cosmos.draw(6, 1, images="folder", split="all")
        used = [float(s.scene.sources[0].image.data.max()) for s in simulations]
        assert len(set(used[:3])) == 3 and sorted(used[:3]) == sorted(used[3:])
        for simulation in simulations:
            source, = simulation.scene.sources
            assert isinstance(source, ImageSource)
            which = int(np.argmin(np.abs(stamps.max((1, 2)) / stamps.sum((1, 2)) - source.image.data.max())))
            assert 0.1 <= radius[which] * source.image.meta["PIXSCALE"] <= 0.4
            peak = simulation.noiseless.data.max()
            assert peak / simulation.observation.background_rms == pytest.approx(30)
        angles = {s.scene.sources[0].angle.value for s in simulations}
        assert len(angles) == 6

    def test_galaxies_where_they_belong(self, tmp_path):
        with pytest.raises(ValueError, match="needs galaxies: name their folder or catalogue .--images FOLDER."):
            lens_set("cosmos").draw(1, 1)
        with pytest.raises(ValueError, match="has no real sources: leave the folder"):
            lens_set("varied").draw(1, 1, images=tmp_path)
        with pytest.raises(FileNotFoundError, match="no folder or catalogue of galaxies"):
            lens_set("cosmos").draw(1, 1, images=tmp_path / "nowhere")

    def test_counts_and_seeds_are_checked(self):
        with pytest.raises(ValueError, match="n must be at least 1; got 0"):
            lens_set("varied").draw(0, 1)
        with pytest.raises(ValueError, match="seed must not be negative; got -1"):
            lens_set("varied").draw(1, -1)

    def test_real_cosmos_galaxies(self, shared_data):
        with pytest.warns(UserWarning, match="are left out"):
            first, _ = lens_set("cosmos").draw(2, 1, images=shared_data / "cosmos_galaxies", split="all")
        assert 0.1 < first.unlensed.data.max() / first.noiseless.data.max() < 10

    def test_a_set_of_ones_own(self):
        lenses = population("lens-benchmark").with_priors(theta_E=Fixed(1.0))
        small = replace(lenses, observation=replace(lenses.observation, shape=(40, 40)))
        report = evaluate_reconstructors("forward", LensSet("mine", "small", small), 1, 2, progress=False)
        assert "1 lens of the set 'mine' (small), seed 2" in report.text
        row, = report.details["images"]
        assert abs(row["theta_E"] - 1) < 5 * row["theta_E_err"]
        truth, = report.details["lenses"]
        assert truth["theta_E"] == 1 and 0.3 < row["theta_E_err"] / truth["theta_E_bound"] < 1.5
