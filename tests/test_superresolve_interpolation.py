"""The floor of super-resolution: flux, sky and kernels of the interpolation."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS
from numpy.testing import assert_allclose
from PIL import Image
from scipy.ndimage import zoom

from lensdeblend import prepare, superresolve
from lensdeblend.cli import main
from lensdeblend.images import pixel_scale
from lensdeblend.io import write_image
from lensdeblend.results import SuperResolution
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.interpolation import Interpolation

KERNELS = ["bicubic", "lanczos", "spline"]
SHAPE = (22, 26)


def turned_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (150.0, 2.0), (3.0, 9.0)
    angle = np.deg2rad(25)
    wcs.wcs.cd = 0.1 / 3600 * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return wcs


def field(seed=1):
    y, x = np.indices(SHAPE)
    smooth = 5 * np.exp(-((x - 11) ** 2 + (y - 12.3) ** 2) / 18)
    return smooth + np.random.default_rng(seed).normal(0, 0.1, SHAPE)


def given(data=None, kind=CCDData, **fields):
    data = field() if data is None else data
    fields = {"wcs": turned_wcs(), "unit": u.nJy, "uncertainty": StdDevUncertainty(np.full(data.shape, 0.1))} | fields
    return kind(data, **fields)


def finer(image, factor=2, **options):
    return superresolve(image, factor=factor, method=Interpolation(**options), seed=1)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factor, tolerance", [(2, 1e-12), (3, 1e-12), (5, 1e-12), (2.5, 2e-4), (1.37, 2e-3)])
def test_flux_is_kept(kernel, factor, tolerance):
    image = given()
    fine = finer(image, factor, kernel=kernel).image
    assert fine.data.shape == tuple(round(n * factor) for n in SHAPE)
    assert fine.data.sum() == pytest.approx(image.data.sum(), rel=tolerance)


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_even_sky_stays_even(kernel):
    fine = finer(given(np.full(SHAPE, 3.0)), 2.3, kernel=kernel).image
    assert_allclose(fine.data, 3.0 / 2.3**2, rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_factor_of_one_changes_nothing(kernel):
    assert_allclose(finer(given(), 1, kernel=kernel).image.data, field(), atol=1e-12)


@pytest.mark.parametrize(
    "kernel, filter", [("bicubic", Image.Resampling.BICUBIC), ("lanczos", Image.Resampling.LANCZOS)]
)
@pytest.mark.parametrize("factor", [2, 2.5])
def test_kernels_are_those_of_pillow(kernel, filter, factor):
    data = field().astype(np.float32)
    fine = finer(given(data.astype(float)), factor, kernel=kernel).image.data * factor**2
    theirs = np.asarray(Image.fromarray(data).resize(fine.shape[::-1], filter))
    inner = slice(int(3 * factor), -int(3 * factor))
    # Pillow mirrors nothing at the edges.
    assert_allclose(fine[inner, inner], theirs[inner, inner], atol=3e-6)


def test_the_spline_is_that_of_scipy():
    fine = finer(given(), 3, kernel="spline").image.data
    assert_allclose(fine, zoom(field(), 3, order=3, mode="reflect", grid_mode=True) / 9, atol=1e-12)


@pytest.mark.parametrize("factor, margin", [(2, 1e-6), (3, 1e-6), (2.5, 1e-6), (2.3, 0.25)])
def test_the_sky_is_the_same(factor, margin):
    image = given()
    fine = finer(image, factor).image
    assert pixel_scale(fine).to_value(u.arcsec) == pytest.approx(0.1 / factor, rel=1e-6)

    def corners(shape):
        ny, nx = shape
        return np.array([-0.5, nx - 0.5, nx - 0.5, (nx - 1) / 2]), np.array([-0.5, -0.5, ny - 0.5, (ny - 1) / 2])

    apart = fine.wcs.pixel_to_world(*corners(fine.data.shape)).separation(
        image.wcs.pixel_to_world(*corners(SHAPE))
    )
    assert (apart[:3] <= 1.5 * margin * pixel_scale(fine)).all()
    assert apart[3] < 1e-6 * u.arcsec


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, np.transpose, np.rot90], ids=lambda turn: turn.__name__)
def test_a_turned_image_gives_the_turned_answer(kernel, turn):
    straight = finer(given(), 2.3, kernel=kernel).image.data
    assert_allclose(finer(given(turn(field())), 2.3, kernel=kernel).image.data, turn(straight), atol=1e-13)


def test_unit_class_and_byte_order_do_not_matter():
    native = finer(given(), kernel="lanczos")
    assert type(native.image) is CCDData and native.image.unit == u.nJy
    swapped = finer(given(field().astype(">f8")), kernel="lanczos")
    assert_allclose(swapped.image.data, native.image.data)
    plain = finer(given(kind=NDData, unit=None), kernel="lanczos").image
    assert type(plain) is NDData and plain.unit is None


def test_it_claims_to_know_nothing_else():
    result = finer(given())
    assert result.intrinsic is result.source is result.deflection is result.convergence is result.parameters is None
    assert result.magnification is result.image.uncertainty is None
    assert result.flags == ()


@pytest.mark.parametrize("hole", [(slice(11, 12), slice(11, 12)), (slice(8, 15), slice(3, 10))], ids=["pixel", "patch"])
@pytest.mark.parametrize("poison", [np.nan, 1e6])
def test_masked_pixels_are_filled_from_their_neighbours(hole, poison):
    data, mask = np.full(SHAPE, 2.0), np.zeros(SHAPE, bool)
    data[hole], mask[hole] = poison, np.isfinite(poison)
    result = finer(given(data, mask=mask), kernel="spline")
    assert_allclose(result.image.data, 0.5, rtol=1e-12)
    assert result.meta["filled"] == data[hole].size


def test_narrow_holes_are_filled_from_nearby():
    y, x = np.indices(SHAPE)
    data, mask = 1.0 + x, np.zeros(SHAPE, bool)
    mask[10, 8] = True
    data[10, 8] = -50
    fine = finer(given(data, mask=mask), 1).image.data
    assert fine[10, 8] == pytest.approx(9.0, abs=0.05)


def test_an_image_without_pixels_is_refused():
    image = prepare(given())
    image.mask = np.ones(SHAPE, bool)
    with pytest.raises(ValueError, match="every pixel of the image is masked"):
        Interpolation().superresolve(image, 2, np.random.default_rng(1))


@pytest.mark.parametrize("factor", [0.5, 0, -2, 5.01, np.inf, np.nan])
def test_factors_out_of_range_are_refused(factor):
    with pytest.raises(ValueError, match="factor must be from 1 to 5"):
        finer(given(), factor)
    with pytest.raises(ValueError, match="factor must be from 1 to 5"):
        Interpolation().superresolve(prepare(given()), factor, np.random.default_rng(1))


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel must be one of 'bicubic', 'lanczos', 'spline'"):
        Interpolation(kernel="nearest")


@pytest.mark.parametrize("factor", [2, 2.4])
def test_chi_square_is_of_the_input_pixels(factor):
    mask = np.zeros(SHAPE, bool)
    mask[4, 5] = True
    image = given(mask=mask)
    result = finer(image, factor)
    gathered = FinePixels(prepare(image), factor).gathered(result.image.data)
    assert result.chi2 == pytest.approx(np.mean(((field() - gathered)[~mask] / 0.1) ** 2))


def test_gathered_pixels_are_sums():
    data = np.random.default_rng(2).normal(size=(44, 52))
    sums = data.reshape(22, 2, 26, 2).sum((1, 3))
    assert_allclose(FinePixels(given(), 2).gathered(data), sums, atol=1e-10)


def test_gathering_by_a_broken_factor_keeps_a_smooth_image():
    def light(shape, factor):
        y, x = (np.indices(shape) - (np.array(shape)[:, None, None] - 1) / 2) / factor
        return np.exp(-(x**2 + y**2) / 18) / factor**2

    pixels = FinePixels(given(), 3.4)
    # A pixel of the input averages the light, which is a little less than its middle.
    expected = np.mean([
        np.exp(-((x + dx) ** 2 + (y + dy) ** 2) / 18)
        for y, x in [np.indices(SHAPE) - (np.array(SHAPE)[:, None, None] - 1) / 2]
        for dx in (np.arange(17) - 8) / 17 for dy in (np.arange(17) - 8) / 17
    ], axis=0)
    assert_allclose(pixels.gathered(light(pixels.shape, 3.4)), expected, atol=1.5e-3)


def test_each_band_has_its_own_pixels():
    bands = {"g": given(), "i": given(field(2)[:20, :20], unit=u.Jy)}
    result = finer(bands, 2.5)
    assert {band: image.data.shape for band, image in result.image.items()} == {"g": (55, 65), "i": (50, 50)}
    assert result.image["i"].unit == u.Jy
    assert_allclose(result.image["i"].data, finer(bands["i"], 2.5).image.data)
    assert result.meta["filled"] == {"g": 0, "i": 0}


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = given()
    image.uncertainty = VarianceUncertainty(np.full(SHAPE, 0.01))
    write_image(image, "lens.fits")
    options = ["--method", "interpolation", "--set", "kernel=spline"]
    assert main(["superresolve", "lens.fits", *options, "--factor", "2.5", "--plot", "lens.png"]) == 0
    read = SuperResolution.read("lens_superresolution.fits")
    assert_allclose(read.image.data, finer(image, 2.5, kernel="spline").image.data)
    assert read.intrinsic is None
    assert main(["superresolve", "lens.fits", *options, "--factor", "7", "-o", "other.fits"]) == 1
