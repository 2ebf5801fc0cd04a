"""Super-resolution by a fit: against the truth on finer pixels, lenstronomy's maps, and the scatter of the noise."""

from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.cosmology import Planck18
from astropy.nddata import CCDData, NDData, VarianceUncertainty
from astropy.wcs import WCS
from lenstronomy.Cosmo.lens_cosmo import LensCosmo
from lenstronomy.LensModel.lens_model import LensModel
from numpy.testing import assert_allclose

from lensdeblend import reconstruct, simulate, superresolve
from lensdeblend.interfaces import Reconstructor
from lensdeblend.lensing.epl import epl_convergence, epl_convergence_jacobian
from lensdeblend.reconstructors.forward import Forward as Fit
from lensdeblend.results import Reconstruction, SuperResolution
from lensdeblend.scenes import EPL, GaussianPSF, Observation, PointMass, Scene, Sersic, Shear
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.finer_psf import finer_psf
from lensdeblend.superresolvers.forward import Forward
from lensdeblend.superresolvers.interpolation import Interpolation
from lensdeblend.testing.common import require_same_result

NAMES = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y")
QUICK = Fit(sources=1, lens_light=0, start="blind", draws=64, starts=4, samples=0)
SCENE = Scene(
    mass=[EPL(1.0 * u.arcsec, 2.05, e1=0.1, e2=-0.05, center_x=0.02 * u.arcsec), Shear(0.03, -0.02)],
    sources=[Sersic(30.0, 0.2 * u.arcsec, 1.2, e1=0.1, e2=0.1, center_x=0.12 * u.arcsec, center_y=-0.08 * u.arcsec)],
)
OBSERVATION = Observation(0.1 * u.arcsec, (34, 36), GaussianPSF(0.2 * u.arcsec), background_rms=0.02)


def lens_image(seed=1, observation=OBSERVATION, scene=SCENE):
    image = simulate(scene, observation, seed=seed).image
    image.wcs = WCS({
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -0.1 / 3600, "CDELT2": 0.1 / 3600, "CRVAL1": 30.0,
        "CRVAL2": -20.0, "CRPIX1": 18.5, "CRPIX2": 17.5,
    })
    return image


def sharpened(image, factor=2, reconstructor=QUICK, **options):
    return superresolve(image, factor=factor, method=Forward(reconstructor, **options), seed=1)


def error(image):
    return np.sqrt(image.uncertainty.array)


def centres(shape, scale):
    y, x = (np.indices(shape) - (np.array(shape)[:, None, None] - 1) / 2) * scale
    return x, y


def lenstronomy_lens(parameters):
    values = {name: float(u.Quantity(parameters[name][0]).value) for name in (*NAMES, "gamma1", "gamma2")}
    return LensModel(["EPL", "SHEAR"]), [
        {name: values[name] for name in NAMES}, {"gamma1": values["gamma1"], "gamma2": values["gamma2"]},
    ]


TRUE_LENS = LensModel(["EPL", "SHEAR"]), [
    {"theta_E": 1.0, "gamma": 2.05, "e1": 0.1, "e2": -0.05, "center_x": 0.02, "center_y": 0.0},
    {"gamma1": 0.03, "gamma2": -0.02},
]


@dataclass(frozen=True)
class Told(Reconstructor):
    """Tells what was found before."""

    found: Reconstruction

    def reconstruct(self, image, rng):
        return self.found


@pytest.fixture(scope="module")
def image():
    return lens_image()


@pytest.fixture(scope="module")
def found(image):
    return reconstruct(image, method=QUICK, seed=1)


@pytest.fixture(scope="module")
def result(image, found):
    return sharpened(image, reconstructor=Told(found))


@pytest.fixture(scope="module")
def truth():
    return simulate(SCENE, OBSERVATION.refined(2), seed=1).noiseless.data


def test_it_is_far_closer_to_the_truth_than_an_interpolation(image, result, truth):
    def rms(fine):
        return np.sqrt(np.mean((fine.data - truth) ** 2))

    floor = min(rms(superresolve(image, method=Interpolation(kernel)).image) for kernel in ("bicubic", "lanczos"))
    assert rms(result.image) < 0.15 * floor
    assert result.flags == ()


@pytest.mark.parametrize("factor", [1, 1.7, 2, 5])
def test_fine_pixels_add_up_to_the_model_that_was_fitted(image, found, factor):
    result = sharpened(image, factor, Told(found))
    assert result.image.data.shape == tuple(round(n * factor) for n in (34, 36))
    apart = (FinePixels(image, factor).gathered(result.image.data) - found.model.data) / 0.02
    assert np.abs(apart).max() * 0.02 < 0.007 * found.model.data.max()
    assert result.meta["rebinned"] == pytest.approx(np.abs(apart).max(), rel=1e-6)
    assert result.chi2 == found.chi2
    assert result.image.data.sum() == pytest.approx(found.model.data.sum(), rel=2e-3)


def test_under_a_wide_psf_they_add_up_closer():
    result = sharpened(lens_image(observation=replace(OBSERVATION, psf=GaussianPSF(0.3 * u.arcsec))))
    assert result.meta["rebinned"] < 0.12


def test_without_a_psf_they_add_up_exactly():
    image = lens_image(observation=replace(OBSERVATION, psf=None))
    result = sharpened(image, 3)
    assert result.image.psf is None
    assert_allclose(result.image.data, result.intrinsic.data)
    assert result.meta["rebinned"] < 0.05


def test_the_psf_is_that_of_finer_pixels(image, result):
    expected = OBSERVATION.psf.kernel(0.05 * u.arcsec)
    size = min(len(expected), len(result.image.psf))
    rims = [(len(kernel) - size) // 2 for kernel in (expected, result.image.psf)]
    theirs, ours = (
        kernel[rim:rim + size, rim:rim + size] for kernel, rim in zip((expected, result.image.psf), rims)
    )
    assert_allclose(ours, theirs, atol=2e-4 * expected.max())
    assert result.image.psf.sum() == pytest.approx(1)


def middles(*kernels):
    side = min(map(len, kernels))
    rims = [(len(kernel) - side) // 2 for kernel in kernels]
    return [kernel[rim:rim + side, rim:rim + side] for kernel, rim in zip(kernels, rims)]


def elliptical_moffat(fwhm, exponent, scale, half):
    x, y = np.meshgrid(*2 * [np.arange(-half, half + 1) * scale])
    radius2 = 1.3 * x**2 + 0.8 * y**2 + 0.4 * x * y
    seen = (1 + 4 * radius2 / fwhm**2 * (2 ** (1 / exponent) - 1)) ** -exponent
    return seen / seen.sum()


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("fwhm", [1.0, 1.5, 2.5])
@pytest.mark.parametrize("exponent, error", [(2.5, 1e-6), (60.0, 2e-3)])
def test_a_psf_of_known_form_is_known_between_its_pixels(fwhm, factor, exponent, error):
    """Also one that is undersampled, where a spline is off by a tenth."""
    fine = finer_psf(elliptical_moffat(fwhm, exponent, 1.0, 10), factor)
    ours, theirs = middles(fine, elliptical_moffat(fwhm, exponent, 1 / factor, 10 * factor))
    assert fine.sum() == pytest.approx(1)
    assert_allclose(ours / ours.max(), theirs / theirs.max(), atol=error)


def test_what_is_no_moffat_profile_is_left_to_the_spline():
    """A PSF with a ring, three pixels wide, on noise that makes some pixels negative."""
    def ringed(scale, half):
        r = np.hypot(*np.meshgrid(*2 * [np.arange(-half, half + 1) * scale]))
        return np.exp(-0.5 * (r / 1.3) ** 2) + 0.05 * np.exp(-0.5 * ((r - 5) / 1.3) ** 2)

    fine = finer_psf(ringed(1.0, 10) - 1e-3, 2)
    ours, theirs = middles(fine, ringed(0.5, 20) - 1e-3)
    assert_allclose(ours / ours.max(), theirs / theirs.max(), atol=5e-3)


@pytest.mark.parametrize("psf", [np.ones((1, 1)), np.pad([[1.0]], 1)])
def test_psfs_of_hardly_any_pixels(psf):
    fine = finer_psf(psf, 2)
    assert fine.sum() == pytest.approx(1) and len(fine) % 2 == 1 and fine.argmax() == fine.size // 2


def test_the_intrinsic_image_is_before_the_psf(result):
    before = simulate(SCENE, replace(OBSERVATION.refined(2), psf=None), seed=1).noiseless.data
    assert np.abs(result.intrinsic.data - before).max() < 0.03 * before.max()
    assert np.abs(result.image.data - before).max() > 0.1 * before.max()


def test_an_undersampled_psf_is_flagged():
    sharp = replace(OBSERVATION, psf=GaussianPSF(0.1 * u.arcsec))
    result = sharpened(lens_image(observation=sharp))
    fine = simulate(SCENE, sharp.refined(2), seed=1).noiseless.data
    assert np.abs(result.image.data - fine).max() < 0.02 * fine.max()
    assert result.meta["rebinned"] > 1
    assert "finer pixels depart from the fit" in result.flags


@pytest.mark.parametrize("factor", [2, 2.3])
def test_the_sky_is_the_same(image, found, factor):
    fine = sharpened(image, factor, Told(found)).image
    ny, nx = fine.data.shape
    middle = fine.wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
    assert middle.separation(image.wcs.pixel_to_world(17.5, 16.5)) < 1e-6 * u.arcsec
    corner = fine.wcs.pixel_to_world(-0.5, -0.5).separation(image.wcs.pixel_to_world(-0.5, -0.5))
    assert corner < (1e-6 if factor == 2 else 0.36 * 0.1 / factor) * u.arcsec


def test_the_maps_are_those_of_lenstronomy(result):
    model, parameters = lenstronomy_lens(result.parameters)
    x, y = centres((68, 72), 0.05)
    for ours, theirs in zip(result.deflection, model.alpha(x.ravel(), y.ravel(), parameters)):
        assert ours.unit == u.arcsec
        assert_allclose(ours.data.ravel(), theirs, atol=1e-9)
    magnification = model.magnification(x.ravel(), y.ravel(), parameters).reshape(x.shape)
    assert_allclose(1 / result.magnification.data, 1 / magnification, atol=1e-8)
    convergence = model.kappa(x.ravel(), y.ravel(), parameters).reshape(x.shape)
    far = np.hypot(x, y) > 0.5
    assert_allclose(result.convergence.data[far], convergence[far], rtol=5e-3)


def test_slopes_of_the_convergence_are_finite_differences():
    x, y = torch.as_tensor(np.random.default_rng(1).normal(size=(2, 30)))
    lens = torch.tensor([1.1, 2.2, 0.1, -0.2, 0.03, 0.05], dtype=torch.float64)
    values, slopes = epl_convergence_jacobian(x, y, *lens)
    assert_allclose(values, epl_convergence(x, y, *lens))
    for slope, step in zip(slopes, 1e-6 * torch.eye(6, dtype=torch.float64)):
        change = epl_convergence(x, y, *(lens + step)) - epl_convergence(x, y, *(lens - step))
        assert_allclose(slope, change / 2e-6, rtol=1e-6, atol=1e-7)


def test_the_convergence_is_an_average_also_at_the_centre(result):
    # By the divergence theorem: the mean over a square is half the deflection out of it, over its area.
    model, parameters = lenstronomy_lens(result.parameters)
    along, half = np.linspace(-0.1, 0.1, 4001), np.full(4001, 0.1)
    right, left, top, bottom = (
        model.alpha(px, py, parameters)[axis]
        for px, py, axis in ((half, along, 0), (-half, along, 0), (along, half, 1), (along, -half, 1))
    )
    mean = (np.trapezoid(right - left, along) + np.trapezoid(top - bottom, along)) / (2 * 0.2**2)
    assert result.convergence.data[32:36, 34:38].mean() == pytest.approx(mean, rel=1e-3)


def test_deflection_and_convergence_are_the_true_ones_within_their_errors(result):
    x, y = centres((68, 72), 0.05)
    model, parameters = TRUE_LENS
    ring = np.abs(np.hypot(x, y) - 1) < 0.3
    for ours, theirs in zip(result.deflection, model.alpha(x.ravel(), y.ravel(), parameters)):
        assert (np.abs(ours.data - theirs.reshape(x.shape))[ring] < 4 * error(ours)[ring]).all()
        assert error(ours)[ring].max() < 0.05
    kappa = model.kappa(x.ravel(), y.ravel(), parameters).reshape(x.shape)
    assert (np.abs(result.convergence.data - kappa)[ring] < 4 * error(result.convergence)[ring]).all()


def test_errors_are_those_of_samples(found, result):
    """Against the deflection and convergence of lenses drawn from the covariance of the fit, by lenstronomy."""
    names = [name for name in found.parameters.colnames if not name.endswith("_err")]
    best = np.array([u.Quantity(found.parameters[name][0]).value for name in names])
    # So small that what is second order in the errors does not matter.
    draws = np.random.default_rng(1).multivariate_normal(best, 1e-4 * found.covariance, 400)
    rows, columns = np.array([10, 20, 33, 50]), np.array([60, 12, 55, 30])
    x, y = centres((68, 72), 0.05)
    x, y = x[rows, columns], y[rows, columns]
    told = []
    for draw in draws:
        values = dict(zip(names, draw))
        parameters = [{n: values[n] for n in NAMES}, {n: values[n] for n in ("gamma1", "gamma2")}]
        model = LensModel(["EPL", "SHEAR"])
        told.append([*model.alpha(x, y, parameters), model.kappa(x, y, parameters),
                     model.magnification(x, y, parameters)])
    scatter = 100 * np.std(told, axis=0)
    for ours, theirs in zip((*result.deflection, result.convergence, result.magnification), scatter):
        assert_allclose(error(ours)[rows, columns], theirs, rtol=0.15)


@pytest.mark.parametrize("name", ["gamma", "source_radius", "source_n", "source_flux"])
def test_errors_of_the_images_are_those_of_one_parameter_after_the_other(image, found, name):
    names = [one for one in found.parameters.colnames if not one.endswith("_err")]
    step = 1e-3
    covariance = np.zeros_like(found.covariance)
    covariance[names.index(name), names.index(name)] = step**2
    result = sharpened(image, 2, Told(replace(found, covariance=covariance)))

    def moved(by):
        parameters = found.parameters.copy()
        parameters[name] += by * (parameters[name].unit or 1)
        return sharpened(image, 2, Told(replace(found, parameters=parameters)))

    more, less = moved(step), moved(-step)
    for which in ("image", "intrinsic"):
        expected = np.abs(getattr(more, which).data - getattr(less, which).data) / 2
        assert_allclose(error(getattr(result, which)), expected, atol=0.02 * expected.max())


def test_errors_cover_the_scatter_of_the_noise(truth):
    before = simulate(SCENE, replace(OBSERVATION.refined(2), psf=None), seed=1).noiseless.data
    x, y = centres((68, 72), 0.05)
    deflection = TRUE_LENS[0].alpha(x.ravel(), y.ravel(), TRUE_LENS[1])[0].reshape(x.shape)
    shown = truth > 0.05 * truth.max()
    pulls = {"image": [], "intrinsic": [], "deflection": []}
    for seed in range(10, 16):
        result = sharpened(lens_image(seed))
        for name, ours, true in (
            ("image", result.image, truth), ("intrinsic", result.intrinsic, before),
            ("deflection", result.deflection[0], deflection),
        ):
            pulls[name].append(np.mean((((ours.data - true) / error(ours))[shown]) ** 2))
    spread = {name: np.sqrt(np.mean(values)) for name, values in pulls.items()}
    assert all(0.6 < value < 1.5 for value in spread.values()), spread


def test_a_turned_image_gives_the_turned_answer(image, result):
    turned = NDData(
        image.data[::-1, ::-1].copy(), uncertainty=VarianceUncertainty(image.uncertainty.array[::-1, ::-1].copy()),
        psf=image.psf, meta={"PIXSCALE": 0.1}, unit=image.unit,
    )
    other = sharpened(turned)
    assert_allclose(other.image.data[::-1, ::-1], result.image.data, atol=2e-3 * result.image.data.max())
    assert_allclose(other.deflection[0].data[::-1, ::-1], -result.deflection[0].data, atol=5e-3)


def test_unit_class_and_byte_order_are_kept(image, result):
    swapped = CCDData(
        image.data.astype(">f8"), uncertainty=VarianceUncertainty(image.uncertainty.array.astype(">f8")), psf=image.psf,
        wcs=image.wcs, unit=image.unit,
    )
    other = sharpened(swapped)
    assert type(other.image) is type(other.deflection[1]) is type(other.magnification) is CCDData
    assert other.image.unit == other.intrinsic.unit == image.unit
    assert_allclose(other.image.data, result.image.data, rtol=1e-9, atol=1e-12)


def test_masked_pixels_do_not_matter(image):
    mask = np.zeros(image.data.shape, bool)
    mask[5:8, 20] = mask[25, 10] = True
    data = np.where(mask, np.nan, image.data)

    def seen(data, **fields):
        return sharpened(NDData(data, uncertainty=VarianceUncertainty(image.uncertainty.array), psf=image.psf,
                                meta={"PIXSCALE": 0.1}, **fields)).image.data

    without = seen(data)
    assert np.isfinite(without).all()
    assert_allclose(seen(np.where(mask, 1e4, image.data), mask=mask), without)


def test_the_sky_level_of_the_data_is_in_the_images():
    image = lens_image(observation=replace(OBSERVATION, shape=(60, 60)))
    lifted = NDData(
        image.data + 0.5, uncertainty=VarianceUncertainty(image.uncertainty.array), psf=image.psf, unit=image.unit,
        meta={"PIXSCALE": 0.1},
    )
    result = sharpened(lifted, reconstructor=replace(QUICK, radius=1.8))
    assert result.meta["sky"] == pytest.approx(0.5, abs=0.02)
    assert result.image.data[:3, :3].mean() == pytest.approx(0.5 / 4, abs=0.01)
    assert result.intrinsic.data[:3, :3].mean() == pytest.approx(0.5 / 4, abs=0.01)
    assert result.meta["rebinned"] < 0.7


def test_a_source_of_pixels_is_drawn_too(image, found, result):
    columns = [name for name in found.parameters.colnames if not name.startswith("source")]
    lens_only = replace(found, parameters=found.parameters[columns], covariance=found.covariance[:8, :8])
    drawn = sharpened(image, reconstructor=Told(lens_only))
    assert_allclose(drawn.image.data, result.image.data, atol=0.01 * result.image.data.max())
    assert drawn.image.uncertainty is drawn.intrinsic.uncertainty is None
    assert_allclose(error(drawn.deflection[0]), error(result.deflection[0]))


def test_a_reconstruction_that_is_another_than_its_numbers_is_flagged(image, found):
    brighter = found.parameters.copy()
    brighter["source_flux"] *= 1.5
    other = sharpened(image, reconstructor=Told(replace(found, parameters=brighter)))
    assert other.flags == ("finer pixels depart from the fit",)


def test_samples_stand_in_for_a_covariance(image, result):
    sampled = reconstruct(image, method=replace(QUICK, samples=3000), seed=1)
    other = sharpened(image, reconstructor=Told(replace(sampled, covariance=None)))
    ratio = error(other.deflection[0]) / error(result.deflection[0])
    assert_allclose(ratio, 1, atol=0.15)


def test_without_either_there_are_no_errors(image, found):
    other = sharpened(image, reconstructor=Told(replace(found, covariance=None)))
    maps = (other.image, other.intrinsic, *other.deflection, other.convergence, other.magnification)
    assert all(item.uncertainty is None for item in maps)


def test_lens_light_without_numbers_is_refused(image, found):
    with pytest.raises(ValueError, match="lens light, but no parameters of it"):
        sharpened(image, reconstructor=Told(replace(found, lens_light=found.model)))


def test_a_lens_without_numbers_is_refused(image, found):
    bare = replace(found, parameters=found.parameters["theta_E", "theta_E_err"])
    with pytest.raises(ValueError, match="nothing of gamma, e1"):
        sharpened(image, reconstructor=Told(bare))


def test_flags_of_the_fit_pass_through(image, found, tmp_path):
    other = sharpened(image, reconstructor=Told(replace(found, flags=("poor fit", "no lens seen"))))
    assert other.flags == ("poor fit", "no lens seen")
    other.write(tmp_path / "fine.fits")
    read = SuperResolution.read(tmp_path / "fine.fits")
    assert read.flags == other.flags
    require_same_result(read, other, "after write and read")
    assert_allclose(read.magnification.data, other.magnification.data)
    assert_allclose(read.image.uncertainty.array, other.image.uncertainty.array)


def test_lens_light_is_drawn():
    scene = replace(SCENE, lens_light=[Sersic(40.0, 0.3 * u.arcsec, 1.5, e1=0.05)])
    result = sharpened(lens_image(scene=scene), reconstructor=replace(QUICK, lens_light=1))
    truth = simulate(scene, OBSERVATION.refined(2), seed=1).noiseless.data
    assert np.sqrt(np.mean((result.image.data - truth) ** 2)) < 0.005 * truth.max()


def test_bands_are_drawn_each_on_its_own_pixels(image, result):
    data, variance = image.data[::-1, ::-1][2:, :], image.uncertainty.array[2:]
    wcs = image.wcs.deepcopy()
    wcs.wcs.cdelt = -wcs.wcs.cdelt
    wcs.wcs.crpix = 18.5, 15.5
    turned = NDData(
        data.copy(), uncertainty=VarianceUncertainty(variance.copy()), psf=image.psf, wcs=wcs, unit=image.unit
    )
    both = sharpened({"g": image, "i": turned}, 2)
    assert both.image["i"].data.shape == (64, 72)
    same = both.image["g"].data[::-1, ::-1][4:]
    # Where both show the same sky, the second is the first upside down; so are its errors.
    assert_allclose(both.image["i"].data, same, atol=0.02 * same.max())
    shown = same > 0.1 * same.max()
    ratio = error(both.image["i"])[shown] / error(both.image["g"])[::-1, ::-1][4:][shown]
    assert_allclose(ratio, 1, atol=0.1)
    assert set(both.meta["rebinned"]) == {"g", "i"}
    assert both.deflection[0].data.shape == (68, 72)
    assert error(both.convergence)[34, 60] < 0.9 * error(result.convergence)[34, 60]


@pytest.mark.parametrize("lens, source", [(0.3, 1.2), (0.7, 2.5)])
def test_the_mass_within_the_einstein_radius(image, found, lens, source):
    parameters = sharpened(image, 1, Told(found), lens_redshift=lens, source_redshift=source).parameters
    theta_E, theta_E_err = (parameters[name][0].to_value(u.arcsec) for name in ("theta_E", "theta_E_err"))
    expected = LensCosmo(lens, source, cosmo=Planck18).mass_in_theta_E(theta_E)
    assert parameters["mass_E"].unit == parameters["mass_E_err"].unit == u.Msun
    assert parameters["mass_E"][0].value == pytest.approx(expected, rel=1e-3)
    relative = float(parameters["mass_E_err"][0] / parameters["mass_E"][0])
    assert relative == pytest.approx(2 * theta_E_err / theta_E)


@pytest.mark.parametrize("options, complaint", [
    ({"lens_redshift": 0.5}, "needs both redshifts"),
    ({"lens_redshift": 1.5, "source_redshift": 0.5}, "must lie behind the lens"),
    ({"lens_redshift": -0.5, "source_redshift": 0.5}, "lens_redshift must be a positive number"),
    ({"cosmology": "Plank18"}, "unknown cosmology 'Plank18'.*Planck18"),
    ({"reconstructor": 3}, "reconstructor must be the name of one"),
])
def test_bad_options_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        Forward(**options)


def test_an_unknown_reconstructor_is_refused(image):
    with pytest.raises(ValueError, match="unknown reconstructor 'forwrad'"):
        sharpened(image, reconstructor="forwrad")


def test_a_bad_factor_is_refused_before_the_fit(image):
    with pytest.raises(ValueError, match="factor must be from 1 to 5"):
        Forward(Told(None)).superresolve(image, 6, np.random.default_rng(1))


@pytest.fixture(scope="module")
def clumpy():
    massive = PointMass(0.07 * u.arcsec, 0.75 * u.arcsec, 0.7 * u.arcsec)
    scene = replace(SCENE, mass=[*SCENE.mass, massive], lens_light=[Sersic(20.0, 0.3 * u.arcsec, 1.5)])
    image = lens_image(scene=scene)
    smooth = reconstruct(image, method=replace(QUICK, lens_light=1), seed=1)
    truth = simulate(scene, OBSERVATION.refined(2), seed=1).noiseless.data
    return image, smooth, truth


class TestSubstructure:
    def test_it_is_found_beside_lens_light(self, clumpy, tmp_path):
        image, smooth, truth = clumpy
        both = sharpened(image, 2, Told(smooth), substructure=True)
        x, y = centres(both.substructure.data.shape, 0.05)
        row, column = np.unravel_index(both.substructure.data.argmax(), truth.shape)
        assert np.hypot(x[row, column] - 0.75, y[row, column] - 0.7) < 0.15
        mass = both.substructure.data[np.hypot(x - 0.75, y - 0.7) < 0.35].sum() * 0.05**2 / np.pi
        assert mass == pytest.approx(0.07**2, rel=0.4)
        assert "poor fit" in smooth.flags and "poor fit" not in both.flags
        assert both.meta["substructure_evidence"] > 30 and both.chi2 < 0.5 * smooth.chi2
        plain = sharpened(image, 2, Told(smooth), leftover=False)

        def rms(fine):
            return np.sqrt(np.mean((fine.image.data - truth) ** 2))

        assert rms(both) < 0.4 * rms(plain)
        # What the smooth model leaves of the data tells much, but not as much as the mass that it lacks.
        assert rms(both) < rms(sharpened(image, 2, Told(smooth))) < 0.8 * rms(plain)
        assert both.source.data.sum() == pytest.approx(float(both.parameters["source_flux"][0].value), rel=0.1)
        assert both.parameters["theta_E_err"][0] > plain.parameters["theta_E_err"][0]
        both.write(tmp_path / "both.fits")
        read = SuperResolution.read(tmp_path / "both.fits")
        assert_allclose(read.substructure.data, both.substructure.data)
        assert_allclose(read.substructure.uncertainty.array, both.substructure.uncertainty.array)

    def test_a_smooth_lens_has_none(self, image, found, result):
        both = sharpened(image, 2, Told(found), substructure=True)
        assert both.meta["substructure_evidence"] < 0
        assert (np.abs(both.substructure.data) <= 3 * error(both.substructure)).all()
        assert 0.005 < error(both.substructure).min() < error(both.substructure).max() < 0.07
        assert np.abs(both.image.data - result.image.data).max() < 0.01 * result.image.data.max()
        for ours, theirs in ((both.convergence, result.convergence), *zip(both.deflection, result.deflection)):
            assert np.abs(ours.data - theirs.data).max() < 0.02 * np.abs(theirs.data).max()
            assert np.median(error(ours)) > np.median(error(theirs))
        assert_allclose(1 / both.magnification.data, 1 / result.magnification.data, rtol=5e-3, atol=0.05)
        assert both.chi2 == pytest.approx(found.chi2, abs=0.02)
        assert both.flags == found.flags

    def test_bands_are_refused(self, image):
        with pytest.raises(ValueError, match="in one image, not in bands"):
            superresolve({"g": image}, method=Forward(QUICK, substructure=True))

    def test_a_source_of_pixels_is_refused(self, image, found):
        columns = [name for name in found.parameters.colnames if not name.startswith("source")]
        bare = replace(found, parameters=found.parameters[columns], covariance=found.covariance[:8, :8])
        with pytest.raises(ValueError, match="choose the reconstructor 'forward'"):
            sharpened(image, 2, Told(bare), substructure=True)

    def test_no_errors_are_refused(self, image, found):
        with pytest.raises(ValueError, match="within the errors of the lens"):
            sharpened(image, 2, Told(replace(found, covariance=None)), substructure=True)

    def test_the_option_is_checked(self):
        with pytest.raises(ValueError, match="substructure must be True or False"):
            Forward(substructure="yes")
