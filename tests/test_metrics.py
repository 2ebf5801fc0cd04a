import numpy as np
import pytest
from astropy.nddata import NDData
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lensdeblend.evaluation import metrics


@pytest.fixture
def pair():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:64, :48]
    truth = 7 * np.exp(-np.hypot((x - 25) / 6, (y - 30) / 4) ** 2)
    return truth + rng.normal(scale=0.3, size=truth.shape), truth


@pytest.mark.parametrize("shape", [(11, 11), (11, 40), (64, 64), (33, 57)])
@pytest.mark.parametrize("data_range", [1.0, 255.0, 3e-19])
def test_ssim_equals_scikit_image(shape, data_range):
    rng = np.random.default_rng(1)
    truth = data_range * rng.random(shape)
    image = truth + data_range * rng.normal(scale=0.2, size=shape)
    theirs = structural_similarity(
        image, truth, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=data_range
    )
    assert metrics.ssim(image, truth, data_range=data_range) == pytest.approx(theirs, abs=1e-9)


def test_ssim_over_some_pixels_averages_the_map_of_scikit_image(pair):
    image, truth = pair
    where = truth > 1
    _, their_map = structural_similarity(
        image, truth, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=7, full=True
    )
    assert metrics.ssim(image, truth, data_range=7, where=where) == pytest.approx(their_map[where].mean(), abs=1e-9)


def test_ssim_ignores_the_centres_where_the_window_does_not_fit():
    constant, stepped = np.ones((21, 21)), np.ones((21, 21))
    stepped[:, -1] = 0
    assert metrics.ssim(stepped, constant, data_range=1) < 1
    only_first_inner_column = np.zeros((21, 21), dtype=bool)
    only_first_inner_column[:, :6] = True
    assert metrics.ssim(stepped, constant, data_range=1, where=only_first_inner_column) == pytest.approx(1)


def test_ssim_of_two_constants_is_the_luminance_term():
    low, high = np.full((16, 16), 0.2), np.full((16, 16), 0.6)
    assert metrics.ssim(low, high, data_range=1) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4))


def test_psnr_equals_scikit_image(pair):
    image, truth = pair
    theirs = peak_signal_noise_ratio(truth, image, data_range=7)
    assert metrics.psnr(image, truth, data_range=7) == pytest.approx(theirs)


def test_psnr_and_mse_by_hand():
    truth = np.array([[0.0, 1.0], [0.0, 0.0]])
    image = np.array([[0.1, 0.9], [0.1, -0.1]])
    assert metrics.mse(image, truth) == pytest.approx(0.01)
    assert metrics.psnr(image, truth, data_range=1) == pytest.approx(20)
    assert metrics.psnr(image, truth, data_range=10) == pytest.approx(40)
    assert metrics.psnr(truth, truth, data_range=1) == np.inf
    assert metrics.mse([[5.0, 0.0]], [[0.0, 0.0]], where=[[False, True]]) == 0


def test_nddata_and_arrays_give_the_same(pair):
    image, truth = pair
    assert metrics.compare(NDData(image), NDData(truth)) == metrics.compare(image, truth)


def test_footprint_is_one_percent_dilated_by_two():
    truth = np.zeros((9, 9))
    truth[4, 4] = 100
    truth[0, 0] = 1.0
    truth[8, 8] = 1.1
    region = metrics.footprint(truth)
    y, x = np.mgrid[:9, :9]
    near_peak = abs(x - 4) + abs(y - 4) <= 2
    near_second = abs(x - 8) + abs(y - 8) <= 2
    assert np.array_equal(region, near_peak | near_second)
    assert np.array_equal(metrics.footprint(truth, dilation=0), truth > 1)
    assert metrics.footprint(truth, threshold=0.5).sum() == 13


def test_comparison_is_on_the_scale_of_the_truth(pair):
    image, truth = pair
    result = metrics.compare(image, truth)
    scaled = metrics.compare(1e-17 * image, 1e-17 * truth)
    assert scaled.asdict() == pytest.approx(result.asdict())
    peak = truth.max()
    where = metrics.footprint(truth)
    assert result.mse == pytest.approx(metrics.mse(image, truth) / peak**2)
    assert result.psnr == pytest.approx(metrics.psnr(image, truth, data_range=peak))
    assert result.footprint_psnr == pytest.approx(metrics.psnr(image, truth, data_range=peak, where=where))
    assert result.footprint_ssim == pytest.approx(metrics.ssim(image, truth, data_range=peak, where=where))


def test_an_offset_is_not_forgiven(pair):
    _, truth = pair
    assert metrics.compare(truth + 0.7, truth).mse == pytest.approx((0.7 / truth.max()) ** 2)


def test_empty_sky_flatters_the_frame_but_not_the_footprint():
    y, x = np.mgrid[:64, :64] - 31.5
    galaxy = np.exp(-0.5 * (x**2 + y**2) / 1.5**2)
    nothing = metrics.compare(np.zeros_like(galaxy), galaxy)
    assert nothing.psnr > 25
    assert nothing.footprint_psnr < 12
    assert nothing.footprint_ssim < 0.5 < nothing.ssim


def test_footprint_at_the_border_has_no_ssim():
    truth = np.zeros((32, 32))
    truth[0, 0] = 1
    result = metrics.compare(truth, truth)
    assert np.isnan(result.footprint_ssim)
    assert result.ssim == pytest.approx(1)


def test_reduced_chi_square_of_pure_noise_lies_within_the_limits():
    rng = np.random.default_rng(8)
    variance = rng.uniform(0.5, 4, size=(60, 60))
    data = rng.normal(scale=np.sqrt(variance))
    mask = rng.random((60, 60)) < 0.1
    data[mask] = np.nan
    value = metrics.reduced_chi_square(data, np.zeros_like(data), variance, mask=mask)
    low, high = metrics.reduced_chi_square_limits((~mask).sum())
    assert low < value < high
    assert not low < metrics.reduced_chi_square(data, np.zeros_like(data), 1.2 * variance, mask=mask) < high


def test_reduced_chi_square_counts_parameters():
    data, model, variance = np.array([[2.0, 0, 0, 0]]), np.zeros((1, 4)), np.ones((1, 4))
    assert metrics.reduced_chi_square(data, model, variance) == 1
    assert metrics.reduced_chi_square(data, model, variance, n_parameters=2) == 2


def test_limits_scale_with_the_number_of_pixels():
    assert metrics.reduced_chi_square_limits(200) == pytest.approx((0.7, 1.3))
    assert metrics.reduced_chi_square_limits(200, n_sigma=1) == pytest.approx((0.9, 1.1))
    assert metrics.reduced_chi_square_limits(2) == pytest.approx((0, 4))


def test_coverage_of_calibrated_errors_is_the_level():
    rng = np.random.default_rng(5)
    truth = rng.normal(size=(20_000, 2))
    error = rng.uniform(0.1, 2, size=truth.shape)
    estimate = rng.normal(truth, error)
    found = metrics.coverage(truth, estimate, error, levels=[0.5, 0.68, 0.95])
    assert found.shape == (3, 2)
    assert found == pytest.approx(np.array([[0.5] * 2, [0.68] * 2, [0.95] * 2]), abs=0.012)
    assert (metrics.coverage(truth, estimate, error / 2) < [[0.68] * 2, [0.95] * 2]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.mse(np.ones((2, 3)), np.ones((3, 2))), r"image \(2, 3\), truth \(3, 2\)"),
        (lambda: metrics.mse([[np.nan]], [[1.0]]), "image has values that are not finite"),
        (lambda: metrics.mse([], []), "image is empty"),
        (lambda: metrics.mse([[1.0]], [[1.0]], where=[[False]]), "selects no pixel"),
        (lambda: metrics.mse([[1.0]], [[1.0]], where=[True]), "where"),
        (lambda: metrics.mse([[1.0]], [[1.0]], where=[[1]]), "where must be an array of bool"),
        (lambda: metrics.psnr([[1.0]], [[1.0]], data_range=0), "data_range"),
        (lambda: metrics.ssim(np.ones((16, 16)), np.ones((16, 16)), data_range=np.nan), "data_range"),
        (lambda: metrics.ssim(np.ones((10, 16)), np.ones((10, 16)), data_range=1), "at least 11x11"),
        (lambda: metrics.ssim(np.ones(16), np.ones(16), data_range=1), "two-dimensional"),
        (lambda: metrics.footprint(np.zeros((3, 3))), "nowhere positive"),
        (lambda: metrics.compare(np.ones((16, 16)), -np.ones((16, 16))), "nowhere positive"),
        (lambda: metrics.reduced_chi_square([1.0], [1.0], [0.0]), "variance must be positive"),
        (lambda: metrics.reduced_chi_square([1.0], [np.inf], [1.0]), "model has values that are not finite"),
        (lambda: metrics.reduced_chi_square([1.0], [1.0], [1.0], n_parameters=1), "no degree of freedom"),
        (lambda: metrics.reduced_chi_square([1.0], [1.0], [1.0], mask=[0]), "mask must be an array of bool"),
        (lambda: metrics.reduced_chi_square([1.0], [1.0], [1.0], mask=[True]), "every pixel is masked"),
        (lambda: metrics.reduced_chi_square([1.0], [1.0], [1.0], mask=[True, False]), r"mask \(2,\)"),
        (lambda: metrics.reduced_chi_square([1.0], [1.0], [1.0], n_parameters=-1), "n_parameters must be 0 or more"),
        (lambda: metrics.reduced_chi_square_limits(0), "at least 1"),
        (lambda: metrics.reduced_chi_square_limits(10, n_sigma=-3), "n_sigma must be positive"),
        (lambda: metrics.footprint(np.eye(3), threshold=1), "threshold must be"),
        (lambda: metrics.footprint(np.eye(3), dilation=-1), "dilation must be"),
        (lambda: metrics.coverage([1.0], [1.0], [0.0]), "error must be positive"),
        (lambda: metrics.coverage([1.0], [1.0], [1.0], levels=[68]), "between 0 and 1"),
        (lambda: metrics.coverage(1.0, 1.0, 1.0), "at least one object"),
        (lambda: metrics.coverage([1.0], [np.nan], [1.0]), "estimate has values that are not finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_data_range_is_required():
    with pytest.raises(TypeError, match="data_range"):
        metrics.psnr([[1.0]], [[1.0]])
