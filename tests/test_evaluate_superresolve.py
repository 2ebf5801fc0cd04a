"""Reports on superresolvers: a fake whose errors are known, pairs of coarse and fine, published numbers, bad input."""

from dataclasses import dataclass, replace
from typing import ClassVar

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData, VarianceUncertainty
from astropy.table import Table
from scipy.ndimage import gaussian_filter

from lensdeblend.cli import main
from lensdeblend.evaluation import PairSet, SuperResolutionReport, evaluate_superresolvers, pair_set, pair_sets
from lensdeblend.evaluation import superresolvers as running
from lensdeblend.evaluation.metrics import compare, footprint, ssim
from lensdeblend.evaluation.published import published_table
from lensdeblend.evaluation.super_judging import judge_finer
from lensdeblend.images import on_grid
from lensdeblend.interfaces import SuperResolver
from lensdeblend.results import SuperResolution
from lensdeblend.scenes import SIE, GaussianPSF, Observation, PointSubhalos, Scene, Sersic, Shear
from lensdeblend.scenes.populations.deeplense import CLASSES
from lensdeblend.simulators.lenstronomy import Lenstronomy, deflection
from lensdeblend.simulators.torch import Torch

N = 4


def small():
    """Model 3 on few, wide pixels."""
    cells = {}
    for key, population in pair_set("deeplense-3").populations.items():
        seen = replace(
            population.observation, pixel_scale=0.16 * u.arcsec, shape=(24, 24), psf=GaussianPSF(0.2 * u.arcsec, 3.0)
        )
        cells[key] = replace(population, observation=seen)
    return PairSet("small", "few pixels", cells, Lenstronomy(supersampling=2, precision=1e-3), published=True)


@pytest.fixture(scope="module")
def pairs():
    return small().draw(N, seed=3)


@pytest.fixture(scope="module")
def references(pairs):
    return {id(pair): running._references(pair) for pair in pairs}


@pytest.fixture
def canned(pairs, references, monkeypatch):
    """The set is simulated once; the fakes look the truth up."""
    monkeypatch.setattr(PairSet, "draw", lambda self, n, seed, **options: pairs[:n])
    monkeypatch.setattr(running, "_references", lambda pair: references[id(pair)])
    monkeypatch.setattr(Oracle, "truths", pairs)


@dataclass(frozen=True)
class Oracle(SuperResolver):
    """Knows the truth, and departs from it as asked for."""

    scale: float = 1.0
    claimed: float | None = None
    off_by: float = 0.0
    shifted: tuple[float, float] | None = (0.0, 0.0)
    shifted_in_the_dark: float = 0.0
    heavier: float | None = 0.0
    fails_on: tuple[int, ...] = ()
    shape_off: bool = False
    flags: tuple[str, ...] = ()

    truths: ClassVar[list] = []

    def superresolve(self, image, factor, rng):
        index, = (k for k, pair in enumerate(self.truths) if np.array_equal(pair.image.data, image.data))
        if index in self.fails_on:
            raise RuntimeError(f"no luck with {index}")
        pair = self.truths[index]
        assert factor == pair.factor

        def dressed(data, **fields):
            return on_grid(image, data, pixel_scale=pair.scale * u.arcsec, **fields)

        found, errors = self.scale * pair.fine.data, None
        if self.claimed is not None:
            found = found + self.off_by * self.claimed
            errors = VarianceUncertainty(np.full(found.shape, self.claimed**2))
        maps, dark = None, self.shifted_in_the_dark * ~footprint(pair.fine)
        if self.shifted is not None:
            maps = tuple(
                dressed(axis + more + dark, unit=u.arcsec) for axis, more in zip(pair.deflection, self.shifted)
            )
        mass = None
        if self.heavier is not None:
            mass = dressed((1 + self.heavier) * pair.convergence, unit=u.dimensionless_unscaled)
        return SuperResolution(
            image=dressed(found[1:] if self.shape_off else found, uncertainty=errors), intrinsic=None, source=None,
            deflection=maps, convergence=mass, parameters=None, chi2=1.2, flags=self.flags,
            meta={"degrees_of_freedom": 500},
        )


def evaluate(methods, n=N, seed=3, **options):
    return evaluate_superresolvers(methods, small(), n, seed, progress=False, **options)


def rows_of(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    return table


def row_of(table, **where):
    row, = rows_of(table, **where)
    return row


@pytest.mark.usefixtures("canned")
class TestReport:
    """What comes out where the errors are known."""

    def test_the_truth_scores_at_the_ceiling(self):
        report = evaluate({"perfect": Oracle()})
        table = report.summaries["comparison"]
        for kind in (*CLASSES, "all"):
            found, ceiling = (row_of(table, method=name, **{"class": kind}) for name in ("perfect", running.CEILING))
            assert list(found)[1:] == list(ceiling)[1:]
            assert found["mse_mean"] == 0 and found["psnr_mean"] == found["footprint_psnr_mean"] == np.inf
            assert found["ssim_mean"] == pytest.approx(1) and found["noisy_psnr_mean"] < 80
        maps = row_of(report.summaries["maps"], **{"class": "all"})
        assert maps["maps"] == N
        assert maps["deflection_rmse_median"] == maps["mass_rmse"] == maps["convergence_rmse_median"] == 0
        assert [row["images"] for row in rows_of(table, method="perfect")] == [2, 1, 1, N]

    def test_the_ceiling_is_what_noise_alone_costs(self, pairs):
        images = rows_of(evaluate({"perfect": Oracle()}).details["images"], method=running.CEILING)
        for row, pair in zip(images, pairs):
            noisy, clean = (np.asarray(image.data) / pair.noisy.data.max() for image in (pair.noisy, pair.fine))
            assert row["noisy_mse"] == pytest.approx(np.mean((noisy - clean) ** 2))
            assert row["noisy_psnr"] == pytest.approx(-10 * np.log10(np.mean((noisy - clean) ** 2)))
            assert row["noisy_ssim"] == pytest.approx(ssim(clean, noisy, data_range=1))

    def test_nothing_scores_what_the_light_left_out_does(self, pairs):
        report = evaluate({"dark": Oracle(scale=0.0)})
        images = rows_of(report.details["images"], method="dark")
        squares = [np.mean((pair.fine.data / pair.fine.data.max()) ** 2) for pair in pairs]
        assert np.allclose(images["mse"], squares)
        noisy = [np.mean((pair.noisy.data / pair.noisy.data.max()) ** 2) for pair in pairs]
        assert np.allclose(images["noisy_psnr"], -10 * np.log10(noisy))
        row = row_of(report.summaries["comparison"], method="dark", **{"class": "all"})
        assert row["mse_mean"] == pytest.approx(np.mean(squares)) and row["footprint_psnr_mean"] < row["psnr_mean"]

    def test_between_floor_and_limit(self, pairs, references):
        report = evaluate({"bicubic too": "interpolation"})
        table = rows_of(report.summaries["comparison"], **{"class": "all"})
        floor, limit, own = (row_of(table, method=name) for name in (running.FLOOR, running.LIMIT, "bicubic too"))
        assert list(own)[1:] == list(floor)[1:]
        # Another code drew the truth: what is left is how well both keep to the mean of a pixel.
        assert limit["psnr_mean"] > 70 > floor["psnr_mean"]
        assert limit["noisy_psnr_mean"] > floor["noisy_psnr_mean"]
        maps = row_of(report.summaries["maps"], **{"class": "all"})
        assert maps["maps"] == 0 and np.isnan([maps["deflection_rmse_median"], maps["mass_bias"]]).all()
        assert compare(references[id(pairs[0])][running.FLOOR], pairs[0].fine).psnr == pytest.approx(
            report.details["images"]["psnr"][-N]
        )

    def test_maps_of_known_error(self, pairs):
        report = evaluate({"off": Oracle(shifted=(0.03, -0.04), heavier=0.1)})
        row = row_of(report.summaries["maps"], **{"class": "all"})
        assert row["deflection_rmse_median"] == pytest.approx(0.05 / 1.2815, rel=1e-3)
        assert row["footprint_deflection_rmse_median"] == pytest.approx(row["deflection_rmse_median"])
        assert row["mass_bias"] == pytest.approx(0.1) and row["mass_rmse"] == pytest.approx(0.1)
        pair, own = pairs[0], rows_of(report.details["images"], method="off")[0]
        smooth = gaussian_filter(0.1 * pair.convergence, 0.1 * pair.theta_E / 0.08, mode="nearest")
        y, x = (np.indices(smooth.shape) - (smooth.shape[0] - 1) / 2) * 0.08
        ring = np.abs(np.hypot(x, y) / pair.theta_E - 1) <= 0.5
        assert own["convergence_rmse"] == pytest.approx(np.sqrt(np.mean(smooth[ring] ** 2)), rel=1e-6)

    def test_a_deflection_may_be_off_where_there_is_no_light(self, pairs):
        report = evaluate({"off": Oracle(shifted_in_the_dark=0.1)}, n=1)
        row = rows_of(report.details["images"], method="off")[0]
        assert row["footprint_deflection_rmse"] == pytest.approx(0, abs=1e-15)
        dark = np.mean(~footprint(pairs[0].fine))
        assert row["deflection_rmse"] == pytest.approx(0.1 * np.sqrt(2 * dark) / pairs[0].theta_E)

    def test_mass_far_out_is_no_mass_within_the_einstein_radius(self, pairs):
        pair = pairs[1]
        result = Oracle().superresolve(pair.image, 2, None)
        more = np.where(pair.distance > pair.theta_E, 0.2, 0.0)
        heavier = replace(result, convergence=NDData(pair.convergence + more))
        numbers = judge_finer(heavier, pair)
        assert numbers["mass_error"] == pytest.approx(0, abs=1e-12) and 0.1 < numbers["convergence_rmse"] < 0.2

    def test_models_are_told_apart(self, pairs, references, monkeypatch):
        mixed = [replace(pair, model="ab"[index % 2]) for index, pair in enumerate(pairs)]
        monkeypatch.setattr(PairSet, "draw", lambda *args, **options: mixed)
        monkeypatch.setattr(running, "_references", lambda pair: references[id(pairs[mixed.index(pair)])])
        report = evaluate({"unlucky": Oracle(fails_on=(1,))}, batch=2)
        assert tuple(report.summaries["failures"][0])[1:3] == ("b", 1)
        assert [(row["model"], row["images"]) for row in report.summaries["fits"]] == [("a", 2), ("b", 2)]
        images = rows_of(report.details["images"], method="unlucky")
        assert dict(zip(images["lens"], images["mse"] == 0)) == {0: True, 1: False, 2: True, 3: True}
        table = rows_of(report.summaries["comparison"], method="unlucky")
        assert [(row["model"], row["class"], row["images"]) for row in table] == [
            ("a", "none", 1), ("a", "axion", 1), ("a", "all", 2), ("b", "cdm", 0), ("b", "none", 1), ("b", "all", 1),
        ]

    @pytest.mark.parametrize("off_by, held", [(0.5, 1.0), (2.0, 0.0)])
    def test_error_maps_are_held_against_the_error(self, off_by, held):
        report = evaluate({"sure": Oracle(claimed=0.01, off_by=off_by), "mute": Oracle()})
        row, mute = (row_of(report.summaries["errors"], method=name, **{"class": "all"}) for name in ("sure", "mute"))
        assert (row["error_maps"], row["within_1_sigma"]) == (N, held)
        assert row["pull_rms"] == pytest.approx(off_by)
        assert mute["error_maps"] == 0 and np.isnan(mute["within_1_sigma"])

    @pytest.mark.parametrize("batch", [1, 8])
    def test_one_failure_does_not_stop_the_others(self, batch):
        report = evaluate({"unlucky": Oracle(fails_on=(1,)), "perfect": Oracle()}, batch=batch)
        failure, = report.summaries["failures"]
        assert tuple(failure) == ("unlucky", "3", 1, "RuntimeError: no luck with 1")
        fits = row_of(report.summaries["fits"], method="unlucky")
        assert (fits["images"], fits["failures"], report.failures) == (N, 1, 1)
        assert row_of(report.summaries["comparison"], method="unlucky", **{"class": "all"})["images"] == N - 1
        assert row_of(report.summaries["comparison"], method="unlucky", **{"class": "cdm"})["images"] == 0

    def test_a_result_on_other_pixels_is_a_failure(self):
        reasons = evaluate({"cut": Oracle(shape_off=True)}, n=1).summaries["failures"]["reason"]
        assert "cannot be judged: ValueError: the shapes must be equal" in reasons[0]

    def test_fits_flags_and_methods(self):
        report = evaluate({"wary": Oracle(flags=("poor fit",))})
        row, = report.summaries["fits"]
        # Of 500 degrees of freedom three sigma are 0.19.
        assert (row["chi2_median"], row["within_3_sigma"], row["flagged"]) == (1.2, 0, N)
        assert row["images_per_second"] == pytest.approx(1 / row["seconds_mean"])
        assert [tuple(row) for row in report.summaries["flags"]] == [("wary", "poor fit", N)]
        assert report.summaries["methods"]["label"][0] == "wary"

    def test_the_report_is_written_and_read_back(self, tmp_path):
        report = evaluate({"dim": Oracle(scale=0.9), "blind": Oracle(scale=0.9, shifted=None, heavier=None)}, n=1)
        report.write(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted(report.files(tmp_path))
        images = Table.read(tmp_path / "images.csv", format="ascii.csv")
        assert np.array_equal(images["noisy_psnr"], report.details["images"]["noisy_psnr"])
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert page.count("<img") == 2 and "lens 0 (model 3, class none)" in page
        assert ["deflection error" in case.pictures for case in report.cases] == [True, False]
        case = report.cases[0]
        assert case.pictures["error"].min() == pytest.approx(-10, rel=1e-3)
        assert case.pictures["data"].sum() == pytest.approx(Oracle.truths[case.index].image.data.sum(), rel=1e-4)

    def test_published_numbers_stand_beside_what_they_are_of(self):
        report = evaluate({"perfect": Oracle()}, n=1)
        assert set(report.summaries["published"]["model"]) == {"3"} and "Summer of Code 2024" in report.text
        for options in ({"factor": 3}, {"noise": 2}):
            assert len(evaluate({"perfect": Oracle()}, n=1, **options).summaries["published"]) == 0
        assert "factor 2, noise times 2, seed 3" in evaluate({"perfect": Oracle()}, n=1, noise=2).title

    def test_the_command_line(self, capsys, tmp_path, monkeypatch):
        unlucky = {"perfect": Oracle(), "unlucky": Oracle(fails_on=(0,))}
        monkeypatch.setattr("lensdeblend.cli.evaluate_superresolve.chosen_methods", lambda *args: unlucky)
        drawn = []
        monkeypatch.setattr(
            PairSet, "draw", lambda self, n, seed, **options: drawn.append(options) or Oracle.truths[:n]
        )
        args = ["evaluate", "superresolve", "--test-set", "deeplense-3", "-n", "2", "--factor", "2", "--noise", "4"]
        assert main([*args, "--no-pictures", "-o", str(tmp_path / "out")]) == 1
        assert capsys.readouterr().out == (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
        assert drawn[0]["factor"] == 2 and drawn[0]["noise"] == 4
        assert main([*args, "-o", str(tmp_path / "out")]) == 2
        assert "exists; add --overwrite" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "methods, options, message",
        [
            ("interpolaton", {}, "unknown superresolver 'interpolaton'; did you mean 'interpolation'"),
            ({"(bicubic)": Oracle()}, {}, "the label '.bicubic.' is one of the report's own"),
            ([], {}, "there is no method to evaluate"),
            ("interpolation", {"batch": 0}, "batch must be at least 1"),
        ],
    )
    def test_bad_input_is_refused(self, methods, options, message):
        with pytest.raises(ValueError, match=message):
            evaluate(methods, **options)
        with pytest.raises(ValueError, match="unknown set of lenses 'deeplens-3'; did you mean 'deeplense-3'"):
            evaluate_superresolvers("interpolation", "deeplens-3")
        with pytest.raises(TypeError, match="test_set must be a PairSet"):
            evaluate_superresolvers("interpolation", 3)
        with pytest.raises(TypeError, match="must be the name or an instance of a SuperResolver"):
            evaluate({"simulator": Torch()})


class TestPairs:
    """Images and truth."""

    def test_classes_share_the_lenses_evenly(self, pairs):
        assert [pair.kind for pair in pairs] == ["none", "cdm", "axion", "none"]
        kinds = [[type(part).__name__ for part in pair.scene.mass[2:]] for pair in pairs[:3]]
        assert kinds == [[], ["PointSubhalos"], ["Vortex"]]

    def test_the_first_lenses_do_not_depend_on_how_many(self, pairs):
        first, = small().draw(1, seed=3)
        assert np.array_equal(first.image.data, pairs[0].image.data)
        assert np.array_equal(first.noisy.data, pairs[0].noisy.data)
        assert not np.array_equal(first.image.data, small().draw(1, seed=4)[0].image.data)

    def test_the_factor_changes_the_truth_alone(self, pairs):
        finest, = small().draw(1, seed=3, factor=5)
        assert finest.fine.data.shape == (120, 120) and finest.scale == pytest.approx(0.032)
        assert finest.fine.meta["PIXSCALE"] == pytest.approx(0.032)
        assert np.array_equal(finest.image.data, pairs[0].image.data)
        # Of the light in the frame the PSF scatters some out, more on coarse pixels, which know it less well.
        total = [pair.data.sum() for pair in (finest.fine, pairs[0].fine, pairs[0].clean)]
        assert np.ptp(total) < 2e-3 * total[0]

    def test_noise_is_multiplied(self, pairs):
        one, (four,) = pairs[0], small().draw(1, seed=3, noise=4)
        assert np.array_equal(one.clean.data, four.clean.data) and np.array_equal(one.noisy.data, four.noisy.data)
        assert np.allclose(four.image.data - four.clean.data, 4 * (one.image.data - one.clean.data), rtol=1e-6)
        assert np.allclose(four.image.uncertainty.array, 16 * one.image.uncertainty.array)
        assert four.peak_snr == pytest.approx(one.peak_snr / 4)
        noise = (one.image.data - one.clean.data) / np.sqrt(one.image.uncertainty.array)
        assert np.std(noise) == pytest.approx(1, abs=0.1)

    def test_the_noisy_truth_has_the_noise_of_the_instrument_in_each_finer_pixel(self, pairs):
        for pair in pairs:
            seen = pair.observation
            variance = seen.background_rms**2 + pair.fine.data / (seen.exposure_time.to_value(u.s) * seen.gain)
            assert np.allclose(pair.noisy.uncertainty.array, variance)
            assert np.std((pair.noisy.data - pair.fine.data) / np.sqrt(variance)) == pytest.approx(1, abs=0.05)

    def test_what_methods_see_is_a_proper_image(self, pairs):
        image, seen = pairs[0].image, pairs[0].observation
        assert image.unit == seen.unit and image.meta["PIXSCALE"] == pytest.approx(0.16)
        assert image.psf.sum() == pytest.approx(1) and image.uncertainty.uncertainty_type == "var"

    def test_the_deflection_is_that_of_all_the_mass(self):
        mass = [
            SIE(0.9 * u.arcsec), Shear(0.05, -0.02), PointSubhalos([0.1] * u.arcsec, [0.5] * u.arcsec, [0.3] * u.arcsec)
        ]
        pair = drawn(mass)
        y, x = (np.indices((20, 20)) - 9.5) * 0.1
        r, near = np.hypot(x, y), (x - 0.5) ** 2 + (y - 0.3) ** 2
        expected = [
            0.9 * x / r + 0.05 * x - 0.02 * y + 0.01 * (x - 0.5) / near,
            0.9 * y / r - 0.02 * x - 0.05 * y + 0.01 * (y - 0.3) / near,
        ]
        assert np.allclose(pair.deflection, expected, atol=1e-6)

    def test_the_convergence_has_the_mass_that_bends_the_light(self):
        x, y = [0.2, -0.6, 0.5] * u.arcsec, [0.3, 0.1, -0.2] * u.arcsec
        mass = [SIE(0.7 * u.arcsec, 0.15, -0.1), Shear(0.05, 0.0), PointSubhalos([0.1, 0.2, 0.15] * u.arcsec, x, y)]
        pair = drawn(mass, shape=(40, 40))
        angle, radius = np.linspace(0, 2 * np.pi, 2000, endpoint=False), 0.9
        by = deflection(mass, radius * np.cos(angle), radius * np.sin(angle))
        # By Gauss's theorem, the mass within a circle is half of what flows out of it.
        flow = np.mean(by[0] * np.cos(angle) + by[1] * np.sin(angle)) * np.pi * radius
        within = pair.convergence[pair.distance <= radius].sum() * pair.scale**2
        assert within == pytest.approx(flow, rel=5e-3)
        alone = drawn([SIE(0.7 * u.arcsec), Shear(0.05, 0.0)], shape=(40, 40))
        far = alone.distance > 0.5
        assert np.allclose(alone.convergence[far], 0.35 / alone.distance[far], rtol=2e-3)
        assert alone.convergence[alone.distance < 1].sum() * 0.01 == pytest.approx(0.7 * np.pi, rel=5e-3)

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"factor": 2.5}, "factor must be a whole number of 1 to 5"), ({"factor": 6}, "factor must be a whole"),
            ({"noise": 0}, "noise must be positive"), ({"seed": -1}, "seed must not be negative"),
            ({"n": 0}, "n must be at least 1"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            small().draw(**{"n": 1, "seed": 1, **options})


def drawn(mass, shape=(20, 20)):
    """A pair whose finer pixels are those of the image."""

    class One:
        observation = Observation(0.1 * u.arcsec, shape, GaussianPSF(0.2 * u.arcsec), background_rms=0.1)

        def draw(self, rng):
            return Scene(mass, sources=[Sersic(10, 0.2 * u.arcsec)])

        def observe(self, rng, peak):
            return self.observation

    pair, = PairSet("one", "one", {("a", "b"): One()}, Torch(device="cpu")).draw(1, 1, factor=1)
    return pair


class TestNamedSets:
    """The models of the published study."""

    def test_names(self):
        assert pair_sets() == [
            f"deeplense{model}{variant}" for variant in ("", "-corrected") for model in ("", "-1", "-2", "-3")
        ]
        assert [pair_set(name).name for name in pair_sets()] == pair_sets()

    def test_pixels_are_those_of_the_study(self):
        everything = pair_set("deeplense")
        assert list(everything.populations) == [(model, kind) for model in "123" for kind in CLASSES]
        pixels = {
            model: (one.observation.pixel_scale.to_value(u.arcsec), one.observation.shape[0])
            for (model, _), one in everything.populations.items()
        }
        assert pixels == {"1": (0.05, 75), "2": (0.101, 64), "3": (0.08, 64)}

    def test_corrected_lenses_are_not_the_published_ones(self):
        for name, theta_E in (("deeplense-2", 1.2815), ("deeplense-2-corrected", 1.6645)):
            chosen = pair_set(name)
            scene = chosen.populations["2", "none"].draw(np.random.default_rng(1))
            assert scene.mass[0].theta_E.to_value(u.arcsec) == pytest.approx(theta_E, abs=1e-4)
            assert chosen.published is not name.endswith("corrected")


def test_published_numbers():
    table = published_table(["1", "2", "3"])
    assert len(table) == 14 * 3
    cells = {(row["method"], row["model"], row["class"]): (row["mse"], row["ssim"], row["psnr"]) for row in table}
    assert cells["residual CNN", "3", "cdm"] == (0.001684, 0.809, 28.636)
    assert cells["RCAN", "2", "axion"] == (0.003159, 0.216, 25.299)
    assert cells["feature-GAN", "1", "none"] == (0.004442, 0.745, 24.305)
    assert cells["20% of the training set", "3", "axion"] == (0.003884, 0.790, 26.537)
    assert ("GAN", "2", "none") not in cells
    # An error and its decibels are means over the same images: they cannot be far from each other.
    assert np.abs(table["psnr"] + 10 * np.log10(table["mse"])).max() < 2.6


def test_the_report_names_its_files():
    names = {path.name for path in SuperResolutionReport.files("folder")}
    assert {"comparison.csv", "published.csv", "maps.csv", "errors.csv", "images.csv", "lenses.csv"} <= names
