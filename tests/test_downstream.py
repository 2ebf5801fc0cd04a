"""Classes told apart on images and on what superresolvers make of them: fakes that leak the class, or only noise."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import NDData, VarianceUncertainty
from astropy.table import QTable, Table

from lensdeblend.cli import main
from lensdeblend.evaluation import evaluate_downstream, pair_set
from lensdeblend.evaluation.classifier import class_probabilities
from lensdeblend.evaluation.downstream import LOW
from lensdeblend.evaluation.downstream_features import of_finer, of_image
from lensdeblend.evaluation.downstream_images import DeepLenseImages, downstream_sets
from lensdeblend.evaluation.downstream_summaries import areas, roc
from lensdeblend.evaluation.judging import LENS_UNITS
from lensdeblend.images import on_grid
from lensdeblend.interfaces import SuperResolver
from lensdeblend.lensing.finer_images import FinerLens
from lensdeblend.results import SuperResolution
from lensdeblend.scenes.populations.deeplense import CLASSES

SIDE = 16


def toy_images(count, seed):
    """Nothing but noise: the class is told by a number that is not in the pixels."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(3, size=count)
    images = [
        NDData(
            rng.standard_normal((SIDE, SIDE)), uncertainty=VarianceUncertainty(np.ones((SIDE, SIDE))),
            meta={"PIXSCALE": 0.1, "KIND": int(kind)},
        ) for kind in kinds
    ]
    return images, [CLASSES[kind] for kind in kinds]


@dataclass(frozen=True)
class Fake(SuperResolver):
    """Draws a bar for ``cdm`` and a dot for ``axion``, if it is to leak the class, on noise of its own."""

    leaks: bool = True
    fails: bool = False
    shape_off: bool = False

    def superresolve(self, image, factor, rng):
        if self.fails:
            raise RuntimeError("no luck")
        fine = 0.01 * rng.standard_normal([factor * n - self.shape_off for n in image.data.shape])
        if self.leaks and KINDS[image.data.tobytes()] == 1:
            fine[:, SIDE] += 3
        if self.leaks and KINDS[image.data.tobytes()] == 2:
            fine[SIDE - 4:SIDE + 4, SIDE - 4:SIDE + 4] += 3
        return SuperResolution(
            image=on_grid(image, fine, pixel_scale=0.05 * u.arcsec), intrinsic=None, source=None, deflection=None,
            convergence=None, parameters=None, chi2=1.0,
        )


#: The class by the pixels: the door passes on no ``meta`` of its own.
KINDS = {}


def draw(count, seed):
    images, kinds = toy_images(count, seed)
    KINDS.update({image.data.tobytes(): CLASSES.index(kind) for image, kind in zip(images, kinds)})
    return images, kinds


@pytest.fixture(scope="module")
def report():
    methods = {"leaky": Fake(), "noisy": Fake(leaks=False)}
    return evaluate_downstream(methods, draw, 90, 1, learned=120, networks=1, progress=False)


def row_of(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    row, = table
    return row


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_that_a_method_leaks_is_told_and_noise_is_not(report, kind):
    areas_found = report.summaries["areas"]
    rows = {label: row_of(areas_found, method=label, **{"class": kind}) for label in (LOW, "leaky", "noisy")}
    assert rows["leaky"]["auc"] > 0.99
    for label in (LOW, "noisy"):
        assert abs(rows[label]["auc"] - 0.5) < 4 * rows[label]["auc_error"] < 0.3
    gain = rows["leaky"]
    assert gain["gain"] == pytest.approx(gain["auc"] - rows[LOW]["auc"]) and gain["gain"] > 4 * gain["gain_error"] > 0
    assert np.isnan(rows[LOW]["gain"])


def test_accuracy_counts_what_was_taken_for_what(report):
    leaky, low = (row_of(report.summaries["accuracy"], method=label) for label in ("leaky", LOW))
    counted = np.array([[leaky[f"{kind}_as_{taken}"] for taken in CLASSES] for kind in CLASSES])
    assert counted.sum() == 90 and leaky["accuracy"] == pytest.approx(np.trace(counted) / 90)
    assert leaky["accuracy"] > 0.95
    areas_found = report.summaries["areas"]
    assert list(counted.sum(1)) == list(areas_found["of_class"][areas_found["method"] == LOW])
    assert abs(low["accuracy"] - 1 / 3) < 5 * low["accuracy_error"]


def test_the_curves_enclose_the_areas(report):
    curves = report.details["curves"]
    for row in report.summaries["areas"]:
        own = curves[(curves["method"] == row["method"]) & (curves["class"] == row["class"])]
        area = np.trapezoid(own["true_positive_rate"], own["false_positive_rate"])
        assert area == pytest.approx(row["auc"], abs=0.02)


def test_the_same_seed_gives_the_same_report():
    one, again, other = (
        list(evaluate_downstream(
            Fake(leaks=False), draw, 20, seed, learned=20, networks=1, progress=False
        ).details["curves"]["true_positive_rate"]) for seed in (1, 1, 2)
    )
    assert one == again != other


def test_failures_are_counted_and_leave_the_images_alone():
    report = evaluate_downstream(Fake(fails=True), draw, 12, 2, learned=12, networks=1, progress=False)
    assert report.failures == 24
    assert "no luck" in report.summaries["failures"]["reason"][0]
    assert set(report.summaries["areas"]["images"]) == {12}


def test_a_result_on_other_pixels_is_a_failure():
    report = evaluate_downstream(Fake(shape_off=True), draw, 12, 2, learned=12, networks=1, progress=False)
    assert report.failures == 24 and "(31, 31)" in report.summaries["failures"]["reason"][0]


def test_the_report_is_written_with_its_curves(report, tmp_path):
    report.write(tmp_path)
    assert len(Table.read(tmp_path / "curves.ecsv")) == 3 * 3 * 101
    html = (tmp_path / "report.html").read_text()
    assert html.count("data:image/png") == 1 and "<h2>ROC curves</h2>" in html


def test_areas_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.4, 0.4])
    truth = np.array([0, 0, 1, 0, 1, 1, 0, 1])
    pairs = [(a > b) + (a == b) / 2 for a in scores[truth == 0] for b in scores[truth == 1]]
    first, second = areas({"one": np.stack([scores, 1 - scores], 1)}, truth, ("none", "cdm"), "one", 1)
    assert first["auc"] == pytest.approx(np.mean(pairs)) and second["auc"] == pytest.approx(np.mean(pairs))
    false, true = roc(scores, truth == 0)
    assert np.trapezoid(true, false) == pytest.approx(np.mean(pairs))


def test_the_bootstrap_of_a_difference_has_the_same_images_in_both():
    rng = np.random.default_rng(1)
    truth = rng.integers(2, size=200)
    scores = truth + 1.5 * rng.standard_normal(200)
    both = {name: np.stack([-scores, scores], 1) for name in ("one", "two")}
    row = areas(both, truth, ("none", "cdm"), "one", 1)[-1]
    assert row["auc_error"] > 0.01 and row["gain_error"] == 0


def test_finer_pixels_are_channels_of_the_coarse_ones():
    rng = np.random.default_rng(1)
    coarse, fine = rng.standard_normal((60, 1, 8, 8)), rng.standard_normal((60, 1, 16, 16))
    truth = np.arange(60) % 2
    fine[truth == 1] += 2
    told = class_probabilities([coarse, fine], truth, [coarse, fine], 2, 1, networks=1)
    assert told.shape == (60, 2) and np.allclose(told.sum(1), 1, atol=1e-5)
    assert ((told.argmax(1) == truth).mean()) > 0.95
    with pytest.raises(ValueError, match="not a whole number"):
        class_probabilities([coarse, fine[..., :15, :15]], truth, [coarse, fine], 2, 1)


def test_what_the_network_is_shown_of_a_result():
    (image,), _ = DeepLenseImages(3)(1, (1, 0))
    shape, lens = (128, 128), [1.2, 2.0, 0.1, 0.0, 0.0, 0.0, 0.05, 0.0]
    smooth = FinerLens(shape, 0.04, supersampling=1).convergence(torch.tensor([lens]))[0].double().numpy()
    more = np.zeros(shape)
    more[40:42, 60:62] = 0.3
    finer = np.kron(image.data, np.ones((2, 2))) / 4
    sigma = np.sqrt(image.uncertainty.array)
    finer[20:22, 30:32] -= 5 * sigma[10, 15] / 4
    result = SuperResolution(
        image=on_grid(image, finer, pixel_scale=0.04 * u.arcsec), intrinsic=None, source=None, deflection=None,
        convergence=on_grid(image, smooth + more, pixel_scale=0.04 * u.arcsec, unit=u.dimensionless_unscaled),
        parameters=QTable({name: [value] * unit for (name, unit), value in zip(LENS_UNITS.items(), lens)}), chi2=1.0,
    )
    with_result, without = of_finer([image, image], [result, None], 2)
    light, compressed, detail, left, mass = with_result.coarse
    assert np.allclose(light, image.data / image.data.max(), atol=1e-6)
    assert np.allclose(np.sinh(3 * compressed) / 10, light, atol=1e-5)
    assert np.array_equal(with_result.coarse[:3], of_image(image).coarse) and np.abs(detail).max() > 3
    expected = np.zeros_like(left)
    expected[10, 15] = np.arcsinh(5)
    assert np.allclose(left, expected, atol=1e-4)
    expected = np.zeros_like(mass)
    expected[20, 30] = np.arcsinh(3)
    assert np.allclose(mass, expected, atol=1e-3)
    assert np.allclose(with_result.fine[0], np.arcsinh(finer * 4 / image.data.max() * 10) / 3, atol=1e-5)
    assert np.array_equal(without.coarse[:3], with_result.coarse[:3]) and not without.coarse[3:].any()
    assert not without.fine.any() and without.fine.shape == with_result.fine.shape


def test_images_of_the_models():
    images, kinds = DeepLenseImages(1, noise=2.0)(40, (3, 1))
    same, _ = DeepLenseImages(1)(40, (3, 1))
    others, _ = DeepLenseImages(1)(40, (3, 0))
    assert len(images) == 40 and images[0].data.shape == (75, 75) and set(kinds) == set(CLASSES)
    assert np.allclose(images[0].uncertainty.array, 4 * same[0].uncertainty.array)
    corner = np.array([image.data[:8, :8] / np.sqrt(image.uncertainty.array[:8, :8]) for image in images])
    assert corner.std() == pytest.approx(1, abs=0.1)
    assert not np.allclose(others[0].data, same[0].data)
    assert not np.allclose(same[0].data, same[32].data)


def test_names_of_sets():
    assert list(downstream_sets("deeplense", 1.0)) == ["1", "2", "3"]
    assert downstream_sets("deeplense-2-corrected", 3.0) == {"2": DeepLenseImages(2, published=False, noise=3.0)}
    with pytest.raises(ValueError, match="deeplense-3"):
        downstream_sets("deeplense-4", 1.0)


@pytest.mark.parametrize(("options", "message"), [
    ({"learned": 0}, "learned"), ({"networks": 0}, "networks"), ({"batch": 1.5}, "batch"), ({"factor": 6}, "1 to 5"),
    ({"factor": 1.5}, "1 to 5"), ({"noise": 0.0}, "noise"),
])
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_downstream("interpolation", "deeplense-3", 3, progress=False, **options)


def test_a_set_that_is_none_is_refused():
    with pytest.raises(TypeError, match="PairSet"):
        evaluate_downstream("interpolation", pair_set("deeplense-3"), 3, progress=False)


def test_labels_of_the_report_are_taken():
    with pytest.raises(ValueError, match="own"):
        evaluate_downstream({LOW: "interpolation"}, "deeplense-3", 3, progress=False)


def test_command_line(tmp_path, capsys):
    assert main([
        "evaluate", "superresolve", "--downstream", "12", "-n", "9", "--methods", "interpolation", "--no-pictures",
        "--output", str(tmp_path / "report"),
    ]) == 0
    told = capsys.readouterr().out
    assert "9 images of the set 'deeplense-3', after learning from 12 others" in told
    assert len(Table.read(tmp_path / "report" / "areas.ecsv")) == 6
