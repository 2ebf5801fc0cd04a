"""Reports on deblenders: a fake whose errors are known, sets of blends, detection, failures, bad input."""

import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from fake_packages import packages, toys  # noqa: F401
from photutils.segmentation import SegmentationImage
from toy_methods import gaussian

from lensdeblend.cli import main
from lensdeblend.evaluation import BlendSet, DeblendingReport, blend_set, blend_sets, evaluate_deblenders
from lensdeblend.evaluation.blend_judging import matched
from lensdeblend.evaluation.blend_summaries import band_table, galaxy_table
from lensdeblend.evaluation.detectors import default_detectors, summed
from lensdeblend.evaluation.metrics import compare
from lensdeblend.evaluation.shapes import adaptive_ellipticity, adaptive_moments
from lensdeblend.images import like
from lensdeblend.interfaces import Deblender
from lensdeblend.results import Deblending
from lensdeblend.scenes.populations import Normal
from lensdeblend.training.sources import GalaxyStamps

N = 2


@pytest.fixture(scope="module")
def two_bands():
    hsc = blend_set("hsc")
    return replace(hsc, bands={band: hsc.bands[band] for band in "ri"}, colours=(Normal(0.3, 0.15),))


@pytest.fixture(scope="module")
def blends(two_bands):
    return two_bands.draw(N, seed=3)


@pytest.fixture
def canned(blends, monkeypatch):
    """The set is simulated once; the fakes look the truth up."""
    monkeypatch.setattr(BlendSet, "draw", lambda self, n, seed, **options: blends[:n])
    monkeypatch.setattr(Oracle, "truths", blends)


@dataclass(frozen=True)
class Oracle(Deblender):
    """Knows the truth, and departs from it as asked for."""

    scale: float = 1.0
    shifted: float = 0.0
    claimed: float = 0.0
    missed: int = 0
    false: int = 0
    fails_on: tuple[int, ...] = ()
    drops_given: bool = False
    drops_band: bool = False
    flags: tuple[str, ...] = ()

    truths: ClassVar[list] = []

    def deblend(self, image, segmentation, positions, rng):
        index, = (k for k, truth in enumerate(self.truths) if np.array_equal(truth.image["i"].data, image["i"].data))
        if index in self.fails_on:
            raise RuntimeError(f"no luck with {index}")
        truth = self.truths[index]
        left_out = self.missed if positions is None else int(self.drops_given)
        true = truth.catalog[left_out:]
        shown = [{band: self.scale * one[band] for band in one} for one in truth.sources[left_out:]]
        false = self.false if positions is None else 0
        shown += [{band: np.zeros_like(image[band].data) for band in image}] * false
        catalog = QTable({"id": np.arange(1, len(shown) + 1)})
        catalog["x"] = np.concatenate([true["x"] + self.shifted, np.zeros(false)])
        catalog["y"] = np.concatenate([true["y"], np.arange(false) * 2.0])
        for band in image:
            catalog[f"flux_{band}"] = np.concatenate([self.scale * true[f"flux_{band}"], np.zeros(false)])
            catalog[f"flux_err_{band}"] = np.full(len(shown), self.claimed)
        for name in ("e1", "e2"):
            catalog[name] = np.concatenate([true[name], np.zeros(false)])
        for name in ("radius", "blendedness"):
            catalog[name] = np.zeros(len(shown))
        catalog["flags"] = [""] * len(shown)
        model = {band: sum(one[band] for one in truth.sources) for band in image}
        if self.drops_band:
            shown = [{"i": one["i"]} for one in shown]
        images = [{band: like(image[band], one[band]) for band in one} for one in shown]
        return Deblending(
            sources=images, shares=images, catalog=catalog,
            segmentation=SegmentationImage(np.zeros(image["i"].data.shape, int)),
            model={band: like(image[band], model[band]) for band in image},
            residual={
                band: like(
                    image[band], (image[band].data - model[band]) / np.sqrt(image[band].uncertainty.array),
                    unit=u.dimensionless_unscaled,
                ) for band in image
            }, chi2=1.0, meta={"flags": self.flags},
        )


def evaluate(two_bands, methods, n=N, seed=3, **options):
    return evaluate_deblenders(methods, two_bands, n, seed, progress=False, **options)


def row_of(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    row, = table
    return row


@pytest.mark.usefixtures("canned")
class TestReport:
    """What comes out where the errors are known."""

    def test_the_truth_has_no_error(self, two_bands, blends):
        report = evaluate(two_bands, {"perfect": Oracle()})
        count = sum(len(blend.sources) for blend in blends)
        row = row_of(report.summaries["galaxies"], galaxies="all")
        assert row["n"] == count and row["psnr_mean"] == row["footprint_psnr_mean"] == np.inf
        assert row["ssim_mean"] == pytest.approx(1)
        for name in ("flux_bias", "flux_scatter", "e_scatter", "image_e_scatter"):
            assert row[name] == pytest.approx(0, abs=1e-12), name
        # No errors were claimed.
        assert np.isnan([row[name] for name in ("pull_flux", "pull_position", "pull_e")]).all()
        found = row_of(report.summaries["detections"], method="perfect")
        assert (found["recall"], found["precision"], found["flux_bias"]) == (1, 1, 0)
        fits = report.summaries["fits"]
        assert list(fits["positions"]) == ["given", "found"] and not fits["failures"].any()
        chi2 = [
            np.mean([
                (blend.image[b].data - sum(one[b] for one in blend.sources)) ** 2 / blend.image[b].uncertainty.array
                for b in "ri"
            ]) for blend in blends
        ]
        assert fits["chi2_median"] == pytest.approx(np.median(chi2))

    def test_a_flux_that_is_off(self, two_bands, blends):
        report = evaluate(two_bands, {"dim": Oracle(scale=0.9, claimed=1.0)})
        row = row_of(report.summaries["galaxies"], galaxies="all")
        assert row["flux_bias"] == pytest.approx(-0.1) and row["flux_scatter"] == pytest.approx(0, abs=1e-12)
        # Ellipticities do not change with the flux.
        assert row["image_e_scatter"] == pytest.approx(0, abs=1e-9)
        expected = [
            np.mean([compare(0.9 * one[band], one[band]).footprint_psnr for band in one])
            for blend in blends for one in blend.sources
        ]
        assert row["footprint_psnr_mean"] == pytest.approx(np.mean(expected))
        for band in "ri":
            fluxes = np.concatenate([blend.catalog[f"flux_{band}"] for blend in blends])
            own = row_of(report.summaries["bands"], band=band)
            assert own["flux_bias"] == pytest.approx(-0.1)
            assert own["pull_median"] == pytest.approx(np.median(-0.1 * fluxes))

    def test_recall_precision_and_the_flux_of_what_was_found(self, two_bands, blends):
        report = evaluate(two_bands, {"half": Oracle(scale=1.05, missed=1, false=2)})
        row = row_of(report.summaries["detections"], method="half")
        count = sum(len(blend.sources) for blend in blends)
        assert (row["galaxies"], row["detections"]) == (count, count + N)
        assert row["recall"] == pytest.approx((count - N) / count)
        assert row["precision"] == pytest.approx((count - N) / (count + N))
        assert row["bright"] == sum(int((blend.catalog["snr"][1:] > 20).sum()) for blend in blends)
        assert row["flux_bias"] == pytest.approx(0.05)
        # With the positions given nothing is missed.
        assert row_of(report.summaries["galaxies"], method="half", galaxies="all")["n"] == count

    def test_a_detection_too_far_off_is_none(self, two_bands, blends):
        radius = blends[0].match_radius
        assert radius == pytest.approx(0.3 / 0.168)
        near, far = ({"shifted": Oracle(shifted=factor * radius)} for factor in (0.9, 1.1))
        assert row_of(evaluate(two_bands, near).summaries["detections"], method="shifted")["recall"] == 1
        far = row_of(evaluate(two_bands, far).summaries["detections"], method="shifted")
        assert far["recall"] < 1 and far["precision"] == pytest.approx(far["recall"])

    def test_bins_share_the_galaxies_out(self, two_bands, blends):
        table = evaluate(two_bands, {"perfect": Oracle()}).summaries["galaxies"]
        count = {row["galaxies"]: row["n"] for row in table}
        truth = np.concatenate([blend.catalog["blendedness"] for blend in blends])
        assert count["blendedness < 0.1"] == np.count_nonzero(truth < 0.1)
        for start in ("blendedness", "S/N"):
            assert sum(n for label, n in count.items() if label.startswith(start)) == count["all"] == len(truth)

    @pytest.mark.parametrize("batch", [1, 8])
    def test_one_failure_does_not_stop_the_others(self, two_bands, batch):
        methods = {"unlucky": Oracle(fails_on=(1,)), "wary": Oracle(flags=("poor fit",))}
        report = evaluate(two_bands, methods, batch=batch)
        assert report.failures == 2
        failures = report.summaries["failures"]
        assert [tuple(row) for row in failures] == [
            ("unlucky", mode, 1, "RuntimeError: no luck with 1") for mode in ("given", "found")
        ]
        assert row_of(report.summaries["detections"], method="unlucky")["blends"] == 1
        assert [tuple(row) for row in report.summaries["flags"]] == [
            ("wary", mode, "poor fit", N) for mode in ("given", "found")
        ]

    @pytest.mark.parametrize("broken, modes, message", [
        (Oracle(drops_given=True), ["given"], "positions were given"),
        (Oracle(drops_band=True), ["given", "found"], "source 1 has the bands i, the image r, i"),
    ])
    def test_what_cannot_be_compared_is_a_failure(self, two_bands, broken, modes, message):
        report = evaluate(two_bands, {"broken": broken}, n=1)
        failures = report.summaries["failures"]
        assert list(failures["positions"]) == modes
        assert all("cannot be judged: ValueError" in reason and message in reason for reason in failures["reason"])

    def test_a_method_that_fails_everywhere_is_reported(self, two_bands):
        report = evaluate(two_bands, {"broken": Oracle(fails_on=(0, 1))})
        assert report.failures == 2 * N and report.cases == ()
        assert np.isnan(report.summaries["galaxies"]["psnr_mean"]).all()
        assert row_of(report.summaries["detections"], method="broken")["blends"] == 0

    def test_the_report_is_written(self, two_bands, tmp_path):
        report = evaluate(two_bands, {"dim": Oracle(scale=0.9)})
        report.write(tmp_path / "out")
        assert sorted((tmp_path / "out").iterdir()) == sorted(DeblendingReport.files(tmp_path / "out"))
        for name, table in {**report.summaries, **report.details}.items():
            assert len(Table.read(tmp_path / "out" / f"{name}.ecsv", format="ascii.ecsv")) == len(table)
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert page.count("<img") == 2 and "dim, best: blend" in page

    def test_the_default_detectors_stand_beside(self, two_bands, blends, monkeypatch):
        pytest.importorskip("sep")
        report = evaluate(two_bands, {"perfect": Oracle()})
        for label, detect in default_detectors().items():
            row = row_of(report.summaries["detections"], method=label)
            assert row["detections"] == sum(len(detect(*summed(blend.image))[0]) for blend in blends)
            assert 0 < row["recall"] <= 1
        assert not any("pip install sep" in note for note in report.notes)
        monkeypatch.setitem(sys.modules, "sep", None)
        report = evaluate(two_bands, {"perfect": Oracle()}, n=1)
        assert "SEP, default settings" not in report.summaries["detections"]["method"]
        assert any("pip install sep" in note for note in report.notes)


def test_pulls_and_widths_of_errors_of_known_size():
    rng, n = np.random.default_rng(1), 8000
    truths = Table({"blend": np.arange(n), "galaxy": np.zeros(n, int), "flux_i": np.full(n, 50.0)})
    for name in ("x", "y", "e1", "e2", "image_e1", "image_e2"):
        truths[name] = rng.normal(size=n)
    truths["snr"], truths["blendedness"] = rng.uniform(5, 100, n), rng.uniform(0, 1, n)
    found = truths[rng.permutation(n)]
    shape, place = (0.1, 0.2), (0.2, 0.1)
    errors = {"flux_i": (5.0, 5.0), "x": place, "y": place, "e1": shape, "e2": shape}
    for name, (scatter, claimed) in errors.items():
        found[name] = found[name] + scatter * rng.normal(size=n)
        found[f"{name}_err"] = claimed
    for name in ("psnr", "ssim", "footprint_psnr", "footprint_ssim"):
        found[name] = 1.0
    found["method"] = "known"
    row = row_of(galaxy_table(found, truths, ["known"], ["i"]), galaxies="all")
    # Standard deviations of these widths are 1 to 1.5 per cent.
    assert row["flux_scatter"] == pytest.approx(0.1, rel=0.06) and row["e_scatter"] == pytest.approx(0.1, rel=0.06)
    widths = [row[name] for name in ("pull_flux", "pull_position", "pull_e")]
    assert widths == pytest.approx([1, 2, 0.5], rel=0.06)
    assert row_of(band_table(found, truths, ["known"], ["i"]))["pull_width"] == row["pull_flux"]


def test_matching_takes_the_closest_first_and_each_once():
    true = np.array([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
    found = np.array([[1.2, 0.0], [0.9, 0.0], [20.0, 0.0]])
    assert list(matched(found, true, 1.5)) == [1, 0, -1]
    assert list(matched(found[:1], true, 1.5)) == [-1, 0, -1]
    assert list(matched(np.zeros((0, 2)), true, 1.5)) == [-1, -1, -1]


def test_detectors_find_two_galaxies_with_their_flux():
    data = 500 * gaussian((48, 48), 14, 20, 2.5) + 800 * gaussian((48, 48), 34.5, 25, 2.5)
    sigma = np.full(data.shape, 0.05)
    data = data + np.random.default_rng(1).normal(0, sigma)
    for label, detect in default_detectors().items():
        positions, fluxes = detect(data, sigma)
        order = np.argsort(positions[:, 0])
        assert positions[order] == pytest.approx(np.array([[14, 20], [34.5, 25]]), abs=0.1), label
        assert fluxes[order] == pytest.approx([500, 800], rel=0.03), label
        nothing, _ = detect(np.zeros((48, 48)), sigma)
        assert nothing.shape == (0, 2)


@pytest.mark.parametrize("e1, e2", [(0.0, 0.0), (0.3, 0.0), (-0.2, 0.25), (0.0, -0.5)])
def test_adaptive_moments_give_the_shape_of_the_isophotes(e1, e2):
    row, column = np.indices((81, 81)) - 40.0
    modulus, angle = np.hypot(e1, e2), 0.5 * np.arctan2(e2, e1)
    q = (1 - modulus) / (1 + modulus)
    along, across = column * np.cos(angle) + row * np.sin(angle), row * np.cos(angle) - column * np.sin(angle)
    distance = np.hypot(along * np.sqrt(q), across / np.sqrt(q))
    for profile in (np.exp(-distance / 4), np.exp(-0.5 * (distance / 5) ** 2)):
        assert adaptive_ellipticity(profile) == pytest.approx((e1, e2), abs=0.01)


def test_no_light_has_no_shape():
    assert np.isnan(adaptive_ellipticity(np.zeros((9, 9)))).all()
    assert np.isnan(adaptive_ellipticity(np.full((9, 9), np.nan))).all()


class TestSets:
    """The sets themselves."""

    def test_names_and_instruments(self):
        assert blend_sets() == ["hsc", "lsst", "euclid", "cosmos", "cosmos-lsst", "cosmos-euclid", "des-sky"]
        for name, bands, scale, widths in (
            ("hsc", "gri", 0.168, [0.6] * 3), ("cosmos", "gri", 0.168, [0.6] * 3),
            ("lsst", "gri", 0.2, [0.77, 0.73, 0.71]), ("cosmos-euclid", ["VIS"], 0.101, [0.16]),
        ):
            chosen = blend_set(name)
            seen, real = chosen.bands, name.startswith("cosmos")
            assert chosen.name == name and chosen.real_sources == real
            assert chosen.summary.startswith("real galaxies" if real else "bulge and disc galaxies")
            assert list(seen) == list(bands) and {one.shape for one in seen.values()} == {(60, 60)}
            assert {one.pixel_scale.value for one in seen.values()} == {scale}
            assert [one.psf.fwhm.value for one in seen.values()] == widths
        assert "Gaussian PSF of 0.6 arcsec" in blend_set("hsc").summary
        with pytest.raises(ValueError, match="unknown set of blends 'hcs'; did you mean 'hsc'"):
            blend_set("hcs")

    def test_the_first_blends_do_not_depend_on_how_many(self, two_bands, blends):
        again, other = two_bands.draw(1, seed=3)[0], two_bands.draw(1, seed=4)[0]
        assert np.array_equal(again.image["r"].data, blends[0].image["r"].data)
        assert not np.array_equal(other.image["r"].data, blends[0].image["r"].data)

    def test_images_are_the_galaxies_and_noise(self, two_bands, blends):
        for blend in blends:
            assert 2 <= len(blend.sources) <= 6
            assert (np.abs(blend.positions - 29.5) <= 24.5).all()
            apart = np.hypot(*(blend.positions[:, None] - blend.positions).transpose(2, 0, 1))
            apart += 1e9 * np.eye(len(apart))
            assert apart.min() * 0.168 >= 0.5 - 1e-9 and apart.min(1).max() * 0.168 <= 3
            for band, image in blend.image.items():
                noise = image.data - sum(one[band] for one in blend.sources)
                assert np.std(noise) == pytest.approx(1, rel=0.05) and (image.uncertainty.array == 1).all()
                assert image.psf.sum() == pytest.approx(1)
        noises = [blends[0].image[b].data - sum(one[b] for one in blends[0].sources) for b in "ri"]
        assert abs(np.corrcoef(*(noise.ravel() for noise in noises))[0, 1]) < 0.06

    def test_the_truth(self, blends):
        for blend in blends:
            images = np.array([[one[band] for band in "ri"] for one in blend.sources])
            own, whole = (images**2).sum((1, 2, 3)), (images * images.sum(0)).sum((1, 2, 3))
            assert blend.catalog["blendedness"] == pytest.approx(1 - own / whole)
            assert blend.catalog["snr"] == pytest.approx(np.sqrt(own))
            for k, one in enumerate(blend.sources):
                for band in "ri":
                    assert 0.6 < one[band].sum() / blend.catalog[f"flux_{band}"][k] <= 1.001
                assert one["r"] / one["r"].sum() == pytest.approx(one["i"] / one["i"].sum(), abs=1e-9)
            # The colours are the galaxies' own.
            assert len(set(np.round(blend.catalog["flux_r"] / blend.catalog["flux_i"], 6))) == len(blend.sources)

    def test_colours_are_magnitudes_between_bands(self, two_bands):
        zero_points = {"g": 28.0, "r": 27.5, "i": 27.9}
        seen = two_bands.bands["i"]
        three = replace(
            two_bands, bands={band: replace(seen, zero_point=zero) for band, zero in zero_points.items()},
            colours=(Normal(0.5, 0.0), Normal(0.25, 0.0)),
        )
        found = three._brightness(2, np.random.default_rng(1))
        for band, magnitude in (("g", 0.75), ("r", 0.25), ("i", 0.0)):
            zero = zero_points[band] - zero_points["i"]
            assert -2.5 * np.log10(found[band]) + zero == pytest.approx(magnitude)

    def test_real_sources_are_turned_with_their_ellipticity(self, monkeypatch):
        row, column = np.indices((96, 96)) - 47.5
        stamp = np.exp(-0.5 * ((column / 12) ** 2 + (row / 5) ** 2))
        galaxies = GalaxyStamps(["a"], stamp[None] / stamp.sum(), np.array([9.0]), {})
        monkeypatch.setattr("lensdeblend.training.sources.read_galaxies", lambda path, progress: galaxies)
        cosmos = blend_set("cosmos-euclid")
        blend, = cosmos.draw(1, 2, images="folder", split="all")
        true = blend.catalog["e1"] + 1j * blend.catalog["e2"]
        assert np.abs(true) == pytest.approx((12 - 5) / (12 + 5), abs=0.01)
        for k, one in enumerate(blend.sources):
            seen = complex(*adaptive_ellipticity(one["VIS"]))
            assert np.angle(seen / true[k]) == pytest.approx(0, abs=0.1) and abs(seen) < abs(true[k])
            assert 0.8 < one["VIS"].sum() / blend.catalog["flux_VIS"][k] < 1.001
        assert any("real galaxies" in note for note in cosmos.notes)

    def test_real_sources_lie_where_their_light_is(self, monkeypatch):
        """Not where the barycentre is, which light far out moves."""
        row, column = np.indices((96, 96)) - 47.5
        core = np.exp(-0.5 * (((column + 5) / 6) ** 2 + ((row - 3) / 6) ** 2))
        stamp = core / core.sum() + 0.2 * (np.hypot(column - 25, row + 15) < 4) / 49
        galaxies = GalaxyStamps(["a"], stamp[None] / stamp.sum(), np.array([7.0]), {})
        monkeypatch.setattr("lensdeblend.training.sources.read_galaxies", lambda path, progress: galaxies)
        blend, = blend_set("cosmos-euclid").draw(1, 2, images="folder", split="all")
        seen = np.array([adaptive_moments(one["VIS"])[:2] for one in blend.sources])
        np.testing.assert_allclose(blend.positions, seen, atol=0.15)
        row, column = np.indices(blend.image["VIS"].data.shape)
        light = np.array([one["VIS"] / one["VIS"].sum() for one in blend.sources])
        barycentres = np.column_stack([(light * column).sum((1, 2)), (light * row).sum((1, 2))])
        assert np.hypot(*(barycentres - seen).T).min() > 0.5

    def test_bad_sets_and_draws(self, tmp_path, two_bands, monkeypatch):
        with pytest.raises(ValueError, match="needs galaxies: name their folder or catalogue .--images FOLDER."):
            blend_set("cosmos").draw(1, 1)
        with pytest.raises(ValueError, match="has no real sources: leave the folder"):
            blend_set("hsc").draw(1, 1, images=tmp_path)
        with pytest.raises(ValueError, match="n must be at least 1; got 0"):
            blend_set("hsc").draw(0, 1)
        with pytest.raises(ValueError, match="one colour fewer than bands is needed; got 2 bands, 0 colours"):
            replace(two_bands, colours=())
        # The function of the module's name hides it.
        monkeypatch.setattr(sys.modules[BlendSet.__module__], "_TRIES", 20)
        tiny = {band: replace(seen, shape=(12, 12)) for band, seen in two_bands.bands.items()}
        with pytest.raises(ValueError, match="galaxies of the population fits into 12 pixels of 0.168 arcsec"):
            replace(two_bands, bands=tiny).draw(1, 1)
        wide = replace(two_bands.bands["r"], pixel_scale=0.2 * u.arcsec)
        with pytest.raises(ValueError, match="one shape and one pixel scale"):
            replace(two_bands, bands={**two_bands.bands, "r": wide})


class TestRealSky:
    """Galaxies put into patches of sky."""

    STAR = 20, 33

    @pytest.fixture
    def sky(self, tmp_path, rng):
        folder = tmp_path / "sky"
        folder.mkdir()
        for number, band in enumerate("gri", start=1):
            cube = rng.normal(0, number, (3, 60, 60)) + 900 * number * gaussian((60, 60), *self.STAR, 1.6)
            fits.PrimaryHDU(cube.astype(">f4")).writeto(folder / f"{band}.fits")
        return folder

    def cubes(self, sky):
        return {band: fits.getdata(sky / f"{band}.fits").astype(float) for band in "gri"}

    def test_noise_and_neighbours_stay_as_they_are(self, sky):
        cubes = self.cubes(sky)
        first, second = blend_set("des-sky").draw(2, 5, sky=sky)
        for blend in (first, second):
            below = {band: image.data - sum(one[band] for one in blend.sources) for band, image in blend.image.items()}
            which, = (k for k, patch in enumerate(cubes["g"]) if np.allclose(below["g"], patch))
            for number, band in enumerate("gri", start=1):
                np.testing.assert_allclose(below[band], cubes[band][which], atol=1e-9)
                assert blend.image[band].uncertainty.array == pytest.approx(np.full((60, 60), number**2), rel=0.1)
                assert blend.image[band].psf is not None
            assert blend.neighbours == pytest.approx(np.array([self.STAR]), abs=0.1)
            assert (blend.all_positions[:-1] == blend.positions).all()
        # The same seed, the same blend.
        again, = blend_set("des-sky").draw(1, 5, sky=sky)
        np.testing.assert_array_equal(again.image["r"].data, first.image["r"].data)
        np.testing.assert_array_equal(again.catalog["flux_i"], first.catalog["flux_i"])

    def test_images_are_pieces_of_larger_patches(self, sky):
        small = blend_set("des-sky")
        small = replace(small, bands={band: replace(seen, shape=(48, 50)) for band, seen in small.bands.items()})
        blend, = small.draw(1, 3, sky=sky)
        cubes, found = self.cubes(sky), []
        below = {band: image.data - sum(one[band] for one in blend.sources) for band, image in blend.image.items()}
        for k in range(3):
            windows = {band: np.lib.stride_tricks.sliding_window_view(cubes[band][k], (48, 50)) for band in "gri"}
            same = np.all([np.isclose(windows[b], below[b]).all((2, 3)) for b in "gri"], axis=0)
            found += [(k, *place) for place in np.argwhere(same)]
        assert len(found) == 1

    def test_only_what_was_put_there_is_judged(self, sky):
        report = evaluate_deblenders("photutils", "des-sky", 2, 5, sky=sky, progress=False)
        truths = report.details["truths"]
        row = row_of(report.summaries["galaxies"], galaxies="all")
        assert row["n"] == len(truths) and not report.failures
        assert np.isnan(report.summaries["detections"]["precision"]).all()
        assert (report.summaries["detections"]["galaxies"] == len(truths)).all()
        assert any("precision is not told" in note for note in report.notes)

    def test_of_the_survey(self, shared_data):
        blend, = blend_set("des-sky").draw(1, 1, sky=shared_data / "des_sky")
        assert [image.meta["PIXSCALE"] for image in blend.image.values()] == pytest.approx([0.263] * 3)
        # What is above the sky is the galaxies and a few neighbours.
        above = blend.image["i"].data - sum(one["i"] for one in blend.sources)
        assert 0.5 < np.std(above[above < 0]) / np.sqrt(blend.image["i"].uncertainty.array[0, 0]) < 1

    def test_bad_skies(self, sky, tmp_path):
        des = blend_set("des-sky")
        with pytest.raises(ValueError, match="needs real sky: name its folder .--sky FOLDER."):
            des.draw(1, 1)
        with pytest.raises(ValueError, match="'hsc' has no real sky: leave the folder of sky out"):
            blend_set("hsc").draw(1, 1, sky=sky)
        with pytest.raises(FileNotFoundError, match="there is no folder .*; name that of the sky's g.fits, r.fits, i"):
            des.draw(1, 1, sky=tmp_path / "nowhere")
        wide = replace(des, bands={band: replace(seen, shape=(61, 60)) for band, seen in des.bands.items()})
        with pytest.raises(ValueError, match=r"have \(60, 60\) pixels, fewer than the \(61, 60\) of the images"):
            wide.draw(1, 1, sky=sky)
        cube = fits.getdata(sky / "g.fits")
        fits.writeto(sky / "g.fits", cube[:2], overwrite=True)
        with pytest.raises(ValueError, match=r"must have the same patches; their shapes are g \(2, 60, 60\), r"):
            des.draw(1, 1, sky=sky)
        fits.writeto(sky / "g.fits", np.full_like(cube, np.nan), overwrite=True)
        with pytest.raises(ValueError, match="every patch in .* has pixels that are not finite"):
            des.draw(1, 1, sky=sky)
        fits.HDUList([fits.PrimaryHDU()]).writeto(sky / "g.fits", overwrite=True)
        with pytest.raises(ValueError, match="g.fits must hold one patch of sky or a cube"):
            des.draw(1, 1, sky=sky)
        (sky / "g.fits").unlink()
        with pytest.raises(FileNotFoundError, match="there is no file .*g.fits"):
            des.draw(1, 1, sky=sky)


@pytest.mark.usefixtures("canned")
@pytest.mark.parametrize(
    "methods, options, message",
    [
        ("joind", {}, "unknown deblender 'joind'; did you mean 'joint'"),
        ([Oracle(), Oracle()], {}, "two methods are called"),
        ("joint", {"batch": 0}, "batch must be at least 1"),
    ],
)
def test_bad_input_is_refused(two_bands, methods, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(two_bands, methods, **options)
    with pytest.raises(TypeError, match="test_set must be a BlendSet"):
        evaluate_deblenders("joint", 3)


def test_the_command_line_judges_methods_of_other_packages(capsys, toys, tmp_path):  # noqa: F811
    args = ["evaluate", "deblend", "--test-set", "euclid", "-n", "1", "--methods", "toy", "--no-pictures"]
    assert main([*args, "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    assert "1 blend of the set 'euclid'" in printed
    row, = (line for line in printed.splitlines() if line.startswith("toy") and "toys" in line)
    assert row.split()[1:] == ["toy", "toys", "1.0", "defaults"]
    assert main(["evaluate", "deblend", "--methods", "joind"]) == 2
    assert "unknown deblender 'joind'" in capsys.readouterr().err
