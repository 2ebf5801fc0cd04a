"""Our physics against lenstronomy, closed forms, brute force and finite differences."""

import numpy as np
import pytest
import torch
from lenstronomy.LensModel.Profiles.epl import EPL
from lenstronomy.LensModel.Profiles.nfw import NFW
from lenstronomy.LensModel.Profiles.tnfw import TNFW
from lenstronomy.LensModel.Solver.epl_shear_solver import caustics_epl_shear
from scipy.integrate import quad
from scipy.optimize import nnls
from scipy.signal import fftconvolve

from lensdeblend.lensing.convolution import Convolution
from lensdeblend.lensing.critical import critical_curves, inverse_magnification
from lensdeblend.lensing.epl import epl, epl_convergence, epl_jacobian, sie
from lensdeblend.lensing.halos import nfw, point_mass, point_masses, shear, truncated_nfw, vortex
from lensdeblend.lensing.imaging import LensImager
from lensdeblend.lensing.least_squares import Linearisation, levenberg_marquardt, nonnegative_amplitudes
from lensdeblend.lensing.parametric import ParametricLens, SersicLens
from lensdeblend.lensing.pixels import interpolate
from lensdeblend.lensing.sersic import gaussian, sersic, sersic_b, sersic_jacobian
from lensdeblend.lensing.subdivision import PixelGrid, Subdivision, refine


def tensors(*values, dtype=torch.float64):
    return [torch.as_tensor(v, dtype=dtype) for v in values]


def points(count=300, reach=3.0, seed=1):
    return np.random.default_rng(seed).uniform(-reach, reach, (2, count))


def over_the_prior(count=60, seed=2):
    """theta_E, gamma, e1, e2, center_x, center_y: columns (count, 1); the corners of the range are among them."""
    rng = np.random.default_rng(seed)
    modulus, angle = 0.5 * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    modulus[:20], modulus[20:24] = 0.5, 0.0
    gamma = rng.uniform(1.5, 2.8, count)
    gamma[:10], gamma[10:20] = 1.5, 2.8
    columns = [
        rng.uniform(0.3, 3, count), gamma, modulus * np.cos(angle), modulus * np.sin(angle),
        *rng.normal(0, 0.1, (2, count)),
    ]
    return [column[:, None] for column in columns]


# Deflections --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, relative", [("float64", 1e-13), ("float32", 2e-6)])
def test_power_law_is_lenstronomys(dtype, relative):
    """Relative to the length of the deflection, which for the steepest lenses reaches tens of arcsec here."""
    # Both are to see the same numbers, those that single precision can hold.
    x, y, *lenses = (np.float32(v).astype(float) for v in (*points(), *over_the_prior()))
    ours = epl(*tensors(x, y, *lenses, dtype=getattr(torch, dtype)))
    theirs = np.stack([EPL().derivatives(x, y, *lens) for lens in np.concatenate(lenses, 1)], 1)
    apart = np.hypot(*(np.stack([mine.numpy() for mine in ours]) - theirs))
    assert (apart / np.hypot(*theirs)).max() < relative
    assert apart.max() < {"float64": 1e-11, "float32": 2e-5}[dtype]


def test_power_law_close_to_its_centre():
    radius = np.geomspace(1e-6, 0.01, 50)
    angle = np.linspace(0, 40, 50)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    for gamma in (1.5, 2.0, 2.8):
        lens = (1.2, gamma, 0.3, -0.25, 0.0, 0.0)
        ours = epl(*tensors(x, y, *lens))
        for mine, other in zip(ours, EPL().derivatives(x, y, *lens)):
            np.testing.assert_allclose(mine.numpy(), other, rtol=1e-7)


def test_isothermal_ellipsoid_is_the_power_law_of_slope_two():
    x, y = points()
    theta_E, _, e1, e2, cx, cy = tensors(*over_the_prior())
    x, y = tensors(x, y)
    for one, other in zip(sie(x, y, theta_E, e1, e2, cx, cy), epl(x, y, theta_E, 0 * e1 + 2, e1, e2, cx, cy)):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_convergence_is_lenstronomys():
    x, y = points()
    lenses = over_the_prior()
    ours = epl_convergence(*tensors(x, y, *lenses)).numpy()
    for mine, lens in zip(ours, np.concatenate(lenses, 1)):
        xx, _, _, yy = EPL().hessian(x, y, *lens)
        np.testing.assert_allclose(mine, (xx + yy) / 2, rtol=1e-9)


def test_convergence_is_half_the_divergence_of_the_deflection():
    x, y = (t.requires_grad_() for t in tensors(*points(40)))
    lens = tensors(1.3, 2.4, 0.2, -0.3, 0.1, 0.0)
    ax, ay = epl(x, y, *lens)
    divergence = torch.autograd.grad(ax.sum(), x, retain_graph=True)[0] + torch.autograd.grad(ay.sum(), y)[0]
    torch.testing.assert_close(divergence / 2, epl_convergence(x, y, *lens).detach(), rtol=1e-9, atol=1e-9)


def test_mean_convergence_within_theta_E_is_one():
    """Of a round lens; whatever the slope."""
    for gamma in (1.5, 2.0, 2.8):
        zero = torch.zeros((), dtype=torch.float64)

        def kappa_times_r(r):
            at = torch.tensor(r, dtype=torch.float64)
            return 2 * r * float(epl_convergence(at, zero, *tensors(1.2, gamma, 0, 0, 0, 0)))

        assert quad(kappa_times_r, 0, 1.2)[0] / 1.2**2 == pytest.approx(1, rel=1e-4)


def test_turning_lens_and_sky_turns_the_deflection():
    x, y = tensors(*points())
    e1, e2, turn = 0.3, -0.2, 0.7
    cosine, sine = np.cos(turn), np.sin(turn)
    ax, ay = epl(x, y, *tensors(1.2, 2.3, e1, e2, 0, 0))
    e = (e1 + 1j * e2) * np.exp(2j * turn)
    bx, by = epl(cosine * x - sine * y, sine * x + cosine * y, *tensors(1.2, 2.3, e.real, e.imag, 0, 0))
    torch.testing.assert_close(bx, cosine * ax - sine * ay, atol=1e-12, rtol=0)
    torch.testing.assert_close(by, sine * ax + cosine * ay, atol=1e-12, rtol=0)


def test_mirroring_lens_and_sky_mirrors_the_deflection():
    x, y = tensors(*points())
    ax, ay = epl(x, y, *tensors(1.2, 1.7, 0.3, -0.2, 0.1, 0.2))
    bx, by = epl(-x, y, *tensors(1.2, 1.7, 0.3, 0.2, -0.1, 0.2))
    torch.testing.assert_close(bx, -ax, atol=1e-12, rtol=0)
    torch.testing.assert_close(by, ay, atol=1e-12, rtol=0)


def test_a_batch_is_its_members():
    x, y = tensors(*points())
    lenses = tensors(*over_the_prior())
    together, kappa = epl(x, y, *lenses), epl_convergence(x, y, *lenses)
    for index in range(0, 60, 7):
        member = [column[index] for column in lenses]
        for one, other in zip(epl(x, y, *member), together):
            torch.testing.assert_close(one, other[index], atol=1e-11, rtol=0)
        torch.testing.assert_close(epl_convergence(x, y, *member), kappa[index], atol=1e-11, rtol=0)


def test_parameters_broadcast_whichever_of_them_is_the_batch():
    x, y = tensors(*points(20))
    single = tensors(1.2, 2.2, 0.2, -0.1, 0.1, 0.0)
    for index in range(6):
        lens = list(single)
        lens[index] = single[index] * torch.tensor([[0.9], [1.0], [1.1]], dtype=torch.float64)
        full = [value.expand(3, 1) for value in lens]
        for record in (False, True):
            with torch.set_grad_enabled(record):
                for one, other in zip(epl(x, y, *lens), epl(x, y, *full)):
                    torch.testing.assert_close(one, other, atol=1e-14, rtol=0)


def test_shear():
    from lenstronomy.LensModel.Profiles.shear import Shear

    x, y = points()
    for one, other in zip(shear(*tensors(x, y, 0.1, -0.2)), Shear().derivatives(x, y, 0.1, -0.2)):
        np.testing.assert_allclose(one, other, atol=1e-15)


def halo_points(Rs):
    """From deep inside to far outside, and on both sides of the scale radius, where the closed forms are 0/0."""
    offsets = np.array([0, 1e-9, 1e-6, 1e-4, 9.99e-4, 1.001e-3, 0.01])
    radius = Rs * np.concatenate([np.geomspace(1e-4, 50, 80), 1 + offsets, 1 - offsets])
    angle = np.arange(len(radius))
    return radius * np.cos(angle), radius * np.sin(angle)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize("Rs", [0.05, 1.0])
def test_nfw_is_lenstronomys(Rs, dtype, tolerance):
    """Relative to the deflection at the scale radius."""
    x, y = halo_points(Rs)
    ours = nfw(*tensors(x, y, Rs, 0.2, 0, 0, dtype=dtype))
    for mine, other in zip(ours, NFW().derivatives(x, y, Rs, 0.2)):
        np.testing.assert_allclose(mine.numpy(), other, atol=0.2 * tolerance, rtol=0)


def test_nfw_is_smooth_through_its_scale_radius():
    """Its second difference does not jump where closed form and series meet."""
    radius = torch.linspace(0.99, 1.01, 2001, dtype=torch.float64)
    alpha = nfw(radius, torch.zeros_like(radius), *tensors(1.0, 1.0, 0, 0))[0].numpy()
    second = np.diff(alpha, 2) / 1e-10
    assert np.ptp(second) < 0.02 * np.abs(second).mean() + 0.02
    assert alpha[1000] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize("tau", [0.5, 1.0, 5.0, 30.0])
def test_truncated_nfw_is_lenstronomys(tau, dtype, tolerance):
    x, y = halo_points(0.1)
    # lenstronomy holds the deflection fixed further in.
    x, y = (axis[np.hypot(x, y) > 1.01e-4] for axis in (x, y))
    ours = truncated_nfw(*tensors(x, y, 0.1, 0.2, tau * 0.1, 0, 0, dtype=dtype))
    for mine, other in zip(ours, TNFW().derivatives(x, y, 0.1, 0.2, tau * 0.1)):
        np.testing.assert_allclose(mine.numpy(), other, atol=0.2 * tolerance, rtol=0)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 3e-8), (torch.float32, 1e-5)])
def test_haloes_deep_inside(dtype, tolerance):
    """There the mass within s is s^2 (ln(2/s) - 1/2) / 2 to lowest order, also with a truncation at infinity."""
    s = np.geomspace(1e-5, 1e-4, 30)
    zero = np.zeros(30)
    expected = 0.2 / (1 - np.log(2)) * s / 2 * (np.log(2 / s) - 0.5)
    plain = nfw(*tensors(s, zero, 1, 0.2, 0, 0, dtype=dtype))[0].numpy()
    np.testing.assert_allclose(plain, expected, rtol=tolerance)
    wide = truncated_nfw(*tensors(s, zero, 1, 0.2, 1e3, 0, 0, dtype=dtype))[0].numpy()
    np.testing.assert_allclose(wide, expected, rtol=max(tolerance, 2e-5))


def test_point_masses():
    from lenstronomy.LensModel.Profiles.point_mass import PointMass

    x, y = points()
    rng = np.random.default_rng(4)
    theta_E, cx, cy = rng.uniform(0.01, 0.1, 7), *rng.uniform(-2, 2, (2, 7))
    theirs = np.sum([PointMass().derivatives(x, y, t, a, b) for t, a, b in zip(theta_E, cx, cy)], axis=0)
    for one, other in zip(point_masses(*tensors(x, y, theta_E, cx, cy)), theirs):
        np.testing.assert_allclose(one, other, atol=1e-12)
    for one, other in zip(point_mass(*tensors(x, y, 0.5, 0.1, -0.2)), PointMass().derivatives(x, y, 0.5, 0.1, -0.2)):
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_point_masses_of_a_batch():
    x, y = tensors(*points())
    theta_E, cx, cy = torch.rand(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = point_masses(x[None], y[None], theta_E, cx, cy)
    for index in range(4):
        for one, other in zip(point_masses(x, y, theta_E[index], cx[index], cy[index]), together):
            torch.testing.assert_close(one, other[index], atol=1e-12, rtol=1e-12)


def test_no_point_masses_deflect_nothing():
    x, y = tensors(*points(5))
    none = torch.zeros(2, 0, dtype=torch.float64)
    for alpha in point_masses(x, y, none, none, none):
        torch.testing.assert_close(alpha, torch.zeros(2, 5, dtype=torch.float64))


def test_vortex_of_one_point_is_a_point_mass_at_its_centre():
    x, y = tensors(*points(20))
    parameters = tensors([0.3], [0.5], [0.6], [0.1], [-0.1])
    for one, other in zip(vortex(x, y, *parameters, n=1), point_mass(x, y, *tensors(0.3, 0.1, -0.1))):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_vortex_is_a_line_of_point_masses():
    x, y = tensors(*points())
    parameters = tensors([0.3], [0.5], [0.6], [0.1], [-0.1])
    step = np.linspace(-0.5, 0.5, 100)
    line = tensors(np.full(100, 0.03), 0.1 + step * np.cos(0.6), -0.1 + step * np.sin(0.6))
    for one, other in zip(vortex(x, y, *parameters), point_masses(x, y, *line)):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


# Derivatives --------------------------------------------------------------------------


def finite_difference(function, parameters, index, step=1e-6):
    up, down = parameters.clone(), parameters.clone()
    up[..., index] += step
    down[..., index] -= step
    return (function(up) - function(down)) / (2 * step)


@pytest.mark.parametrize("lens", [
    (1.2, 2.0, 0.0, 0.0, 0.0, 0.0), (1.2, 1.5, 0.5, 0.0, 0.05, -0.03), (0.8, 2.8, -0.2, 0.4, 0.0, 0.1),
    (1.0, 2.1, 0.05, -0.01, 0, 0),
])
def test_slopes_of_the_power_law(lens):
    x, y = tensors(*points(100))
    z = torch.complex(x, y)
    parameters = torch.tensor(lens, dtype=torch.float64)

    def deflection(p):
        return torch.complex(*epl(x, y, *p))

    alpha, slopes = epl_jacobian(z, *parameters[:4], torch.complex(parameters[4], parameters[5]))
    torch.testing.assert_close(alpha, deflection(parameters), atol=1e-11, rtol=0)
    for index, slope in enumerate(slopes):
        expected = finite_difference(deflection, parameters, index)
        torch.testing.assert_close(slope, expected, atol=1e-7, rtol=1e-6, msg=lambda m: f"parameter {index}: {m}")


@pytest.mark.parametrize("shape", [(0.3, 1.0, 0.0, 0.0), (0.15, 4.0, 0.3, -0.4), (0.5, 0.5, -0.6, 0.1)])
def test_slopes_of_the_sersic(shape):
    x, y = tensors(*points(100, 0.8))
    zero = torch.zeros((), dtype=torch.float64)
    parameters = torch.tensor((0.03, -0.02, *shape), dtype=torch.float64)

    def light(p):
        return sersic(x + p[0], y + p[1], *p[2:], zero, zero)

    value, slopes = sersic_jacobian(x + parameters[0], y + parameters[1], *parameters[2:])
    torch.testing.assert_close(value, light(parameters), atol=1e-12, rtol=1e-12)
    for index, slope in enumerate(slopes):
        expected = finite_difference(light, parameters, index)
        scale = float(expected.abs().max())
        torch.testing.assert_close(
            slope, expected, atol=1e-7 * scale, rtol=1e-5, msg=lambda m: f"parameter {index}: {m}"
        )


def small_parametric_lens(sources=1, lens_lights=1):
    model = SersicLens(sources, lens_lights)
    grid = PixelGrid((17, 19), 0.15, 2, (0.1, -0.05))
    kernel = torch.rand(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight = torch.rand(17, 19, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.5
    weight[3:5, 7] = 0
    convolution = Convolution(kernel / kernel.sum(), grid.shape, 2)
    lens = ParametricLens(model, Subdivision.uniform(grid, 3), convolution, weight)
    source = 0.05, -0.03, np.log(0.2), np.log(1.3), 0.1, 0.2
    light = 0.02, 0.01, np.log(0.5), np.log(3.0), -0.1, 0.1
    values = [1.0, 2.1, 0.1, -0.15, 0.02, 0.03, 0.04, -0.05, *(source * sources), *(light * lens_lights)]
    other = [value + 0.013 * (-1) ** k for k, value in enumerate(values)]
    return lens, torch.tensor([values, other], dtype=torch.float64)


def every_slope(model, size):
    """(starts, components, parameters, pixels), zeros too."""
    starts, components, pixels = model.basis.shape
    slopes = torch.zeros(starts, components, size, pixels, dtype=model.basis.dtype)
    slopes[:, model.components, model.columns] = model.slopes
    return slopes


@pytest.mark.parametrize("sources, lens_lights", [(1, 0), (2, 1), (0, 1), (1, 2)])
def test_slopes_of_the_whole_model(sources, lens_lights):
    lens, parameters = small_parametric_lens(sources, lens_lights)
    model = lens.linearise(parameters)
    torch.testing.assert_close(model.basis, lens.linearise(parameters, False).basis, rtol=1e-10, atol=1e-12)
    assert model.basis.shape[-1] == 17 * 19 - 2
    slopes = every_slope(model, len(lens.model.names))
    for index, name in enumerate(lens.model.names):
        expected = finite_difference(lambda p: lens.linearise(p, False).basis, parameters, index)
        scale = float(model.basis.abs().max())
        torch.testing.assert_close(
            slopes[:, :, index], expected, atol=1e-6 * scale, rtol=1e-5, msg=lambda m: f"{name}: {m}"
        )
    amplitudes = torch.tensor([[2.0, 0.0, 1.5], [0.3, 1.0, 0.7]], dtype=torch.float64)[:, :lens.model.components]
    torch.testing.assert_close(
        model.combined_slopes(amplitudes, len(lens.model.names)), torch.einsum("sk,skpm->spm", amplitudes, slopes)
    )


def test_starts_do_not_see_each_other():
    lens, parameters = small_parametric_lens(2, 1)
    together = lens.linearise(parameters)
    for index in range(2):
        alone = lens.linearise(parameters[index:index + 1])
        torch.testing.assert_close(alone.basis[0], together.basis[index], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(alone.slopes[0], together.slopes[index], rtol=1e-9, atol=1e-9)


def test_autograd_through_the_power_law():
    x, y = tensors(*points(12))
    lens = [t.requires_grad_() for t in tensors(1.2, 2.2, 0.2, -0.3, 0.1, 0.05)]
    assert torch.autograd.gradcheck(lambda *p: epl(x, y, *p, terms=30), lens)
    x.requires_grad_(), y.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: epl(a, b, *(p.detach() for p in lens)), (x, y))


def test_recording_gradients_does_not_change_the_deflection():
    x, y = tensors(*points())
    lens = tensors(1.2, 2.2, 0.2, -0.3, 0.1, 0.05)
    with torch.no_grad():
        plain = epl(x, y, *lens)
    for one, other in zip(plain, epl(x, y, *(p.requires_grad_() for p in lens))):
        torch.testing.assert_close(one, other.detach(), atol=1e-14, rtol=0)


def test_autograd_through_interpolation():
    image = torch.rand(6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    x, y = (t.requires_grad_() for t in tensors(*points(20, 0.45)))
    assert torch.autograd.gradcheck(lambda i, a, b: interpolate(i, a, b, 0.1), (image, x, y), eps=1e-8, atol=1e-5)


def imager(**options):
    kernel = torch.tensor(np.outer(*2 * [np.exp(-0.5 * (np.arange(-3, 4) / 1.1) ** 2)]))
    return LensImager((12, 14), 0.2, kernel / kernel.sum(), **{"dtype": torch.float64, **options})


LENSES = torch.tensor([
    (1.0, 2.1, 0.1, -0.15, 0.02, 0.03, 0.04, -0.05), (0.7, 1.8, 0.3, 0.1, -0.04, 0.0, 0.0, 0.03),
    (0.9, 2.0, 0, 0, 0, 0, 0, 0),
], dtype=torch.float64)
SOURCES = torch.tensor([
    (10.0, 0.3, 1.5, 0.1, 0.1, 0.05, -0.03), (3.0, 0.2, 1.0, -0.3, 0.0, 0.0, 0.1), (1.0, 0.4, 2.5, 0, 0, 0.1, 0.1),
], dtype=torch.float64)


def test_autograd_through_the_imager():
    draw = imager()
    lens, source = LENSES[:1].clone().requires_grad_(), SOURCES[:1].clone().requires_grad_()
    weight = torch.rand(12, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert torch.autograd.gradcheck(lambda a, b: (weight * draw(a, b)).sum((-2, -1)), (lens, source), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_forward_mode_through_the_imager():
    """Where no gradient is recorded buffers are used again, which forward mode must survive."""
    draw = imager()
    lens, source = LENSES[:1], SOURCES[:1]
    slopes = torch.func.jacfwd(draw, argnums=(0, 1))(lens, source)
    for which, (values, slope) in enumerate(zip((lens, source), slopes)):
        for index in range(values.shape[1]):
            step = torch.zeros_like(values)
            step[0, index] = 1e-6
            up, down = ([lens, source] for _ in range(2))
            up[which], down[which] = values + step, values - step
            expected = (draw(*up) - draw(*down)) / 2e-6
            torch.testing.assert_close(slope[..., 0, index], expected, atol=1e-6 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("gamma", [1.6, 2.0, 2.8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_with_lens_and_source_on_a_point(gamma, dtype):
    draw = LensImager((15, 15), 0.1, supersampling=1, dtype=dtype)
    lens = torch.tensor([[1.0, gamma, 0, 0, 0, 0, 0, 0]], dtype=dtype, requires_grad=True)
    source = torch.tensor([[1.0, 0.3, 4.0, 0, 0, 0, 0]], dtype=dtype, requires_grad=True)
    draw(lens, source).sum().backward()
    assert torch.isfinite(lens.grad).all() and torch.isfinite(source.grad).all()


def test_imager_gives_the_same_alone_in_a_batch_and_recording():
    draw = imager()
    together = draw(LENSES, SOURCES)
    for index in range(3):
        torch.testing.assert_close(draw(LENSES[index:index + 1], SOURCES[index:index + 1])[0], together[index])
    torch.testing.assert_close(draw(LENSES.clone().requires_grad_(), SOURCES).detach(), together)
    single = imager(dtype=torch.float32)(LENSES.float(), SOURCES.float())
    assert float((single - together).abs().amax() / together.amax()) < 1e-5


def test_imager_is_the_parametric_lens_at_midpoints():
    """Two code paths, one image."""
    draw = imager(supersampling=3)
    model = SersicLens(1, 0)
    kernel = torch.tensor(np.outer(*2 * [np.exp(-0.5 * (np.arange(-3, 4) / 1.1) ** 2)]))
    grid = PixelGrid((12, 14), 0.2, 3)
    lens = ParametricLens(
        model, Subdivision.uniform(grid, 3, rule="midpoint"), Convolution(kernel / kernel.sum(), (12, 14), 3),
        torch.ones(12, 14, dtype=torch.float64),
    )
    source = SOURCES[:, [5, 6, 1, 2, 3, 4]].clone()
    source[:, 2:4] = source[:, 2:4].log()
    images = lens.images(torch.cat([LENSES, source], 1))[:, 0] * SOURCES[:, :1, None]
    torch.testing.assert_close(images, draw(LENSES, SOURCES), rtol=1e-9, atol=1e-12)


# Light --------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0.5, 0.7, 1.0, 2.5, 4.0, 6.0])
def test_sersic_has_flux_one_and_half_of_it_within_its_radius(n):
    zero = torch.zeros((), dtype=torch.float64)

    def integrand(r):
        return 2 * np.pi * r * float(sersic(torch.tensor(r, dtype=torch.float64), zero, *tensors(0.3, n, 0, 0, 0, 0)))

    within = quad(integrand, 0, 0.3, limit=200)[0]
    beyond = quad(lambda s: integrand(0.3 * np.exp(s)) * 0.3 * np.exp(s), 0, 18, limit=400)[0]
    assert within == pytest.approx(0.5, abs=1e-6)
    assert within + beyond == pytest.approx(1, abs=2e-6)


def test_sersic_b_halves_the_light():
    """The incomplete gamma function of 2n at b is one half."""
    from scipy.special import gammaincinv

    n = np.geomspace(0.25, 12, 200)
    np.testing.assert_allclose(sersic_b(torch.tensor(n)), gammaincinv(2 * n, 0.5), rtol=5e-8)


@pytest.mark.parametrize("profile, shape", [(sersic, (0.3, 0.5)), (sersic, (0.3, 1.0)), (gaussian, (0.3,))])
def test_flux_axis_ratio_and_position_angle(profile, shape):
    """e1, e2 are (1-q)/(1+q) in the direction of the major axis, at the flux of the round profile."""
    q, angle = 0.5, 0.4
    modulus = (1 - q) / (1 + q)
    e = tensors(modulus * np.cos(2 * angle), modulus * np.sin(2 * angle))
    axis = np.linspace(-6, 6, 801)
    x, y = np.meshgrid(axis, axis)
    light = profile(*tensors(x, y), *tensors(*shape), *e, *tensors(0.01, -0.02)).numpy()
    area = (axis[1] - axis[0]) ** 2
    assert light.sum() * area == pytest.approx(1, rel=2e-3)
    x, y = x - 0.01, y + 0.02
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    ratio = np.sqrt((light * across**2).sum() / (light * along**2).sum())
    assert ratio == pytest.approx(q, rel=1e-3)
    assert abs((light * along * across).sum() / (light * along**2).sum()) < 1e-3


def test_interpolation_is_exact_at_pixels_and_on_planes_and_zero_outside():
    row, column = np.mgrid[:9, :11]
    plane = 2.0 + 0.3 * column - 0.7 * row
    image = torch.tensor(plane)
    x, y = (column - 5) * 0.1, (row - 4) * 0.1
    np.testing.assert_allclose(interpolate(image, *tensors(x.ravel(), y.ravel()), 0.1), plane.ravel(), atol=1e-12)
    u, v = np.random.default_rng(1).uniform(-0.39, 0.39, (2, 100))
    expected = 2.0 + 0.3 * (u / 0.1 + 5) - 0.7 * (v / 0.1 + 4)
    np.testing.assert_allclose(interpolate(image, *tensors(u, v), 0.1), expected, atol=1e-10)
    assert torch.all(interpolate(image, *tensors([0.61, -0.61, 0, 0, 50], [0, 0, 0.51, -0.51, 0]), 0.1) == 0)


def test_interpolation_of_a_batch():
    images = torch.rand(3, 8, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x, y = torch.rand(2, 3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) - 0.5
    together = interpolate(images, x, y, 0.1)
    for index in range(3):
        torch.testing.assert_close(together[index], interpolate(images[index], x[index], y[index], 0.1))


# Pixels --------------------------------------------------------------------------


@pytest.mark.parametrize("shape, kernel_shape", [
    ((20, 23), (5, 7)), ((16, 16), (15, 15)), ((8, 9), (21, 19)), ((5, 5), (1, 1)), ((9, 6), (3, 31)),
])
@pytest.mark.parametrize("border", [0, 2, 12])
def test_convolution_is_scipys(shape, kernel_shape, border):
    rng = np.random.default_rng(1)
    kernel = rng.random(kernel_shape)
    images = rng.random((2, shape[0] + 2 * border, shape[1] + 2 * border))
    ours = Convolution(torch.tensor(kernel), shape, border)(torch.tensor(images)).numpy()
    inside = slice(border, border + shape[0]), slice(border, border + shape[1])
    full = np.stack([fftconvolve(image, kernel) for image in images])
    rows, columns = (slice(k // 2, k // 2 + n) for k, n in zip(kernel_shape, images.shape[1:]))
    same = full[:, rows, columns]
    np.testing.assert_allclose(ours, same[:, *inside], atol=1e-12)


def test_convolution_with_one_kernel_an_image():
    rng = np.random.default_rng(1)
    kernels, images = torch.tensor(rng.random((3, 5, 5))), torch.tensor(rng.random((3, 14, 15)))
    together = Convolution(kernels, (10, 11), 2)(images)
    for kernel, image, result in zip(kernels, images, together):
        torch.testing.assert_close(Convolution(kernel, (10, 11), 2)(image), result)


def test_light_does_not_wrap_around():
    image = torch.zeros(10, 10, dtype=torch.float64)
    image[0, 0] = 1
    kernel = torch.full((7, 7), 1.0, dtype=torch.float64)
    blurred = Convolution(kernel, (10, 10))(image)
    assert float(blurred[4:].abs().max()) < 1e-14 and float(blurred[:, 4:].abs().max()) < 1e-14
    torch.testing.assert_close(blurred[:4, :4], torch.ones(4, 4, dtype=torch.float64))


@pytest.mark.parametrize("points_a_side, rule", [(1, "gauss"), (2, "gauss"), (3, "midpoint")])
def test_even_division_keeps_flux_and_place(points_a_side, rule):
    grid = PixelGrid((5, 6), 0.2, 1, (0.3, -0.1))
    even = Subdivision.uniform(grid, points_a_side, rule=rule)
    linear = even.render(lambda x, y: 1 + 2 * x - 3 * y)
    x, y = (axis.reshape(grid.padded_shape) for axis in grid.centres())
    torch.testing.assert_close(linear, 1 + 2 * x - 3 * y)
    assert float(x.mean()) == pytest.approx(0.3) and float(y.mean()) == pytest.approx(-0.1)
    assert x[0, 1] - x[0, 0] == pytest.approx(0.2) and y[1, 0] - y[0, 0] == pytest.approx(0.2)


def brute_force(brightness, grid, count):
    """Midpoints, count by count a pixel."""
    fine = PixelGrid(tuple(n * count for n in grid.shape), grid.scale / count, 0, grid.centre)
    values = brightness(*fine.centres()).reshape(1, *fine.shape)
    return torch.nn.functional.avg_pool2d(values[None], count)[0, 0]


@pytest.mark.parametrize("n, tolerance", [(4.0, 1e-4), (1.0, 1e-5)])
def test_refinement_against_brute_force_on_a_cusp(n, tolerance):
    grid = PixelGrid((9, 9), 0.1)

    def brightness(x, y):
        return sersic(x, y, *tensors(0.15, n, 0.2, -0.1, 0.013, -0.037))

    truth = brute_force(brightness, grid, 200)
    peak = float(truth.max())
    limit = torch.full((grid.size,), tolerance * peak, dtype=torch.float64)
    adaptive = refine(grid, brightness, limit)
    image = adaptive.render(brightness)
    assert float((image - truth).abs().max()) < 5 * tolerance * peak
    assert len(adaptive.cells) * 4 < 0.05 * 200**2 * grid.size
    coarse = Subdivision.uniform(grid, 2).render(brightness)
    assert float((coarse - truth).abs().max()) > 20 * tolerance * peak


@pytest.mark.parametrize("n", [0.8, 2.0, 2.9, 4.0])
def test_refinement_keeps_its_promise_wherever_the_cusp_lies(n):
    """Of the brightest pixel of lensed images, whose cusps fall anywhere within a pixel."""
    grid = PixelGrid((40, 40), 0.08)
    rng = np.random.default_rng(8)
    for _ in range(6):
        lens = tensors(1.2, rng.normal(2, 0.1), *rng.uniform(-0.2, 0.2, 2), *rng.normal(0, 0.05, 2))
        source = tensors(rng.uniform(0.1, 0.4), n, *rng.uniform(-0.2, 0.2, 2), *rng.normal(0, 0.15, 2))

        def brightness(x, y):
            ax, ay = epl(x, y, *lens)
            return sersic(x - ax, y - ay, *source)

        peak = float(Subdivision.uniform(grid, 4).render(brightness).max())

        def divided(share, points, shared):
            limit = torch.full((grid.size,), share * peak, dtype=torch.float64)
            return refine(grid, brightness, limit, points=points, shared=shared).render(brightness)

        truth = divided(1e-8, 4, True)
        assert float((divided(1e-5, 2, True) - truth).abs().max()) < 3e-5 * peak
        assert float((divided(1e-5, 2, False) - truth).abs().max()) < 2e-4 * peak


def test_refined_cells_cover_each_pixel_once():
    grid = PixelGrid((9, 9), 0.1, 1)
    used = torch.ones(grid.size, dtype=torch.bool)
    used[30:40] = False

    def brightness(x, y):
        return sersic(x, y, *tensors(0.1, 4.0, 0.2, -0.1, 0.013, -0.037))

    adaptive = refine(grid, brightness, torch.full((grid.size,), 1e-3, dtype=torch.float64), used=used)
    area = torch.zeros(grid.size, dtype=torch.float64).index_add(0, adaptive.cells.pixel, adaptive.cells.side**2)
    torch.testing.assert_close(area, used.double(), atol=1e-12, rtol=0)
    assert float(adaptive.cells.side.min()) < 1 / 16
    constant = adaptive.render(lambda x, y: torch.ones_like(x)).reshape(-1)
    torch.testing.assert_close(constant, used.double(), atol=1e-12, rtol=0)


def test_the_most_demanding_image_of_a_batch_decides():
    grid = PixelGrid((9, 9), 0.1)
    cx = torch.tensor([[0.2], [-0.2]], dtype=torch.float64)

    def brightness(x, y):
        return sersic(x, y, *tensors(0.1, 4.0, 0, 0), cx, torch.zeros_like(cx))

    limit = torch.full((grid.size,), 0.1, dtype=torch.float64)
    together = refine(grid, brightness, limit)
    image = together.render(brightness)
    torch.testing.assert_close(image[0], image[1].flip(-1), atol=1e-9, rtol=1e-9)
    alone = refine(grid, lambda x, y: brightness(x, y)[0], limit)
    assert len(alone.cells) < len(together.cells)


# Least squares --------------------------------------------------------------------------


def test_amplitudes_are_those_of_nnls():
    rng = np.random.default_rng(5)
    negative = 0
    for _ in range(40):
        basis, data = rng.normal(size=(2, 4, 12)), rng.normal(size=12)
        ours = nonnegative_amplitudes(torch.tensor(basis), torch.tensor(data)).numpy()
        assert (ours >= 0).all()
        for mine, columns in zip(ours, basis):
            best, norm = nnls(columns.T, data)
            negative += (best == 0).any()
            assert np.linalg.norm(data - mine @ columns) <= norm * (1 + 1e-9)
    assert negative > 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_equal_components_share_the_amplitude(dtype):
    one = torch.rand(50, dtype=dtype, generator=torch.Generator().manual_seed(1))
    amplitudes = nonnegative_amplitudes(torch.stack([one, one])[None], 3 * one)
    torch.testing.assert_close(amplitudes.sum(), torch.tensor(3.0, dtype=dtype), rtol=1e-5, atol=0)


def test_an_empty_component_gets_no_amplitude():
    basis = torch.zeros(1, 2, 5, dtype=torch.float64)
    basis[0, 0] = torch.arange(5)
    amplitudes = nonnegative_amplitudes(basis, 3 * torch.arange(5, dtype=torch.float64))
    torch.testing.assert_close(amplitudes, torch.tensor([[3.0, 0.0]], dtype=torch.float64))


TIME = torch.linspace(0, 5, 60, dtype=torch.float64)


def decays(parameters, with_slopes=True):
    """Two exponentials: rates nonlinear, amplitudes linear."""
    basis = torch.exp(-parameters[:, :, None] * TIME)
    return Linearisation(basis, -TIME * basis, torch.arange(2), torch.arange(2))


def decay(parameters, with_slopes=True):
    basis = torch.exp(-parameters[:, :, None] * TIME)
    return Linearisation(basis, -TIME * basis, torch.tensor([0]), torch.tensor([0]))


def test_levenberg_marquardt_finds_the_known_answer_from_every_start():
    data = (torch.tensor([3.0, 5.0], dtype=torch.float64) @ decays(torch.tensor([[0.4, 2.0]]).double()).basis[0]) * 100
    start = torch.tensor([[0.2, 1.0], [0.1, 4.0], [0.6, 0.9]], dtype=torch.float64)
    fit = levenberg_marquardt(
        decays, data, start, *tensors([0.01, 0.01], [10.0, 10.0]), iterations=100, tolerance=1e-12
    )
    assert bool(fit.converged.all())
    torch.testing.assert_close(fit.parameters, torch.tensor([[0.4, 2.0]]).double().expand(3, 2), rtol=1e-6, atol=0)
    torch.testing.assert_close(fit.amplitudes, torch.tensor([[300.0, 500.0]]).double().expand(3, 2), rtol=1e-6, atol=0)
    best = fit.keep(torch.tensor([1]))
    model = decays(best.parameters)
    joint = torch.cat([best.amplitudes[:, :, None] * model.slopes, model.basis], 1)
    torch.testing.assert_close(best.normal, joint @ joint.transpose(1, 2))


def test_levenberg_marquardt_does_not_converge_where_the_model_is_not_finite():
    def broken(parameters, with_slopes=True):
        nothing = torch.zeros(len(parameters), 1, 60, dtype=torch.float64)
        return Linearisation(nothing + torch.nan, nothing, torch.tensor([0]), torch.tensor([0]))

    one = torch.ones(1, dtype=torch.float64)
    fit = levenberg_marquardt(broken, torch.ones(60, dtype=torch.float64), one[None], 0 * one, 2 * one)
    assert not fit.converged.any()


def test_levenberg_marquardt_ends_where_only_roughness_is_left():
    """A model that jumps, as one with a cusp does when the cusp passes a sample point."""
    rng = np.random.default_rng(5)
    data = 100 * torch.exp(-0.4 * TIME) + torch.tensor(rng.normal(size=60))
    calls = []

    def rough(parameters, with_slopes=True):
        calls.append(len(parameters))
        exact = decay(parameters)
        jump = 1e-4 * torch.sign(torch.sin(1e5 * parameters[:, :, None] + 7 * TIME))
        return Linearisation(exact.basis + jump, exact.slopes, exact.components, exact.columns)

    begin = tensors([[2.0]], [0.01], [5.0])
    smooth = levenberg_marquardt(decay, data, *begin)
    levenberg_marquardt(rough, data, *begin, iterations=60)
    on, _ = len(calls), calls.clear()
    fit = levenberg_marquardt(rough, data, *begin, iterations=60, roughness=0.2)
    assert bool(fit.converged[0]) and len(calls) < on
    assert float(fit.objective[0]) == pytest.approx(float(smooth.objective[0]), abs=0.2)


def test_levenberg_marquardt_goes_on_past_a_rejected_step_that_promised_much():
    data = (torch.tensor([3.0, 5.0], dtype=torch.float64) @ decays(torch.tensor([[0.4, 2.0]]).double()).basis[0]) * 100
    misfits = []

    def watched(parameters, with_slopes=True):
        model = decays(parameters)
        amplitudes = nonnegative_amplitudes(model.basis, data)
        misfits.append(float(((data - (amplitudes[..., None] * model.basis).sum(1)) ** 2).sum()))
        return model

    fit = levenberg_marquardt(
        watched, data, *tensors([[0.2, 1.0]], [0.01, 0.01], [10.0, 10.0]), iterations=100, roughness=0.2, damping=1e-8
    )
    assert misfits[1] > misfits[0]
    torch.testing.assert_close(fit.parameters, torch.tensor([[0.4, 2.0]]).double(), rtol=1e-5, atol=0)


def test_levenberg_marquardt_stays_within_bounds():
    data = 100 * torch.exp(-0.4 * TIME)
    fit = levenberg_marquardt(decay, data, *tensors([[2.0]], [1.0], [5.0]), iterations=50)
    assert float(fit.parameters[0, 0]) == 1.0 and bool(fit.converged[0])


def test_levenberg_marquardt_weighs_data_against_a_prior():
    """A straight line: without a prior the best one, with a tight prior on its relative slope that."""
    rng = np.random.default_rng(3)
    data = torch.tensor(3 + 0.7 * TIME.numpy() + rng.normal(size=60))
    fixed = torch.ones(60, dtype=torch.float64)

    def line(p, with_slopes):
        zero = torch.tensor([0])
        return Linearisation((fixed + 1e-3 * p * TIME)[:, None], (1e-3 * TIME).expand(len(p), 1, 60), zero, zero)

    free = levenberg_marquardt(line, data, *tensors([[0.0]], [-1e6], [1e6]), iterations=60, tolerance=1e-10)
    tight = levenberg_marquardt(
        line, data, *tensors([[0.0]], [-1e6], [1e6]), prior_mean=torch.tensor([4.0]).double(),
        prior_weight=torch.tensor([1e8]).double(), iterations=60, tolerance=1e-10,
    )
    assert float(tight.parameters[0, 0]) == pytest.approx(4, abs=1e-3)
    ratio = free.amplitudes[0, 0] * 1e-3 * free.parameters[0, 0], free.amplitudes[0, 0]
    slope, level = np.polyfit(TIME.numpy(), data.numpy(), 1)
    assert (float(ratio[0]), float(ratio[1])) == (pytest.approx(slope, rel=1e-4), pytest.approx(level, rel=1e-4))


# Critical curves --------------------------------------------------------------------------


def test_critical_curve_of_an_isothermal_sphere_is_its_einstein_ring():
    curves = critical_curves(*tensors([1.3, 2.0, 0, 0, 0.1, -0.2, 0, 0]))
    assert len(curves) == 1
    x, y, source_x, source_y = curves[0].T
    np.testing.assert_allclose(np.hypot(x - 0.1, y + 0.2), 1.3, rtol=2e-4)
    np.testing.assert_allclose([source_x, source_y], np.array([[0.1], [-0.2]]) * np.ones(len(x)), atol=3e-4)


@pytest.mark.parametrize("lens", [
    (1.2, 2.0, 0.2, -0.1, 0.1, 0.0, 0.05, -0.03), (1.0, 1.8, 0.3, 0.1, 0.0, 0.0, 0.0, 0.0),
    (0.9, 2.2, 0.1, 0.0, 0.0, 0.1, 0.0, 0.1),
])
def test_the_determinant_is_zero_on_critical_curves(lens):
    curves = critical_curves(*tensors(lens))
    assert len(curves) == (2 if lens[1] < 2 else 1)
    for x, y, *_ in (curve.T for curve in curves):
        determinant = inverse_magnification(*tensors(x, y, lens)).numpy()
        stretch = 1.01
        further = lens[4] + (x - lens[4]) * stretch, lens[5] + (y - lens[5]) * stretch
        outward = inverse_magnification(*tensors(*further, lens)).numpy()
        # By Newton's rule: how far from the zero, as a share of the radius.
        assert np.abs(determinant / (outward - determinant)).max() * 0.01 < 2e-3


def test_determinant_is_that_of_the_deflection():
    lens = (1.2, 2.3, 0.2, -0.1, 0.1, 0.0, 0.05, -0.03)
    x, y = tensors(*points(50))

    def source(p):
        ax, ay = epl(p[0], p[1], *tensors(*lens[:6]))
        sx, sy = shear(p[0], p[1], *tensors(*lens[6:]))
        return torch.stack([p[0] - ax - sx, p[1] - ay - sy])

    slopes = torch.stack([torch.func.jacrev(source)(p) for p in torch.stack([x, y], 1)])
    expected = slopes[:, 0, 0] * slopes[:, 1, 1] - slopes[:, 0, 1] * slopes[:, 1, 0]
    torch.testing.assert_close(inverse_magnification(*tensors(x, y, lens)), expected, atol=1e-8, rtol=1e-8)


def test_caustic_is_lenstronomys():
    lens = {"theta_E": 1.2, "gamma": 2.0, "e1": 0.15, "e2": -0.1, "center_x": 0.0, "center_y": 0.0}
    outer = {"gamma1": 0.04, "gamma2": 0.03}
    theirs = np.asarray(caustics_epl_shear([lens, outer], num_th=2000, return_which="caustic"))
    mine = critical_curves(*tensors([*lens.values(), *outer.values()]), angles=721)[0][:, 2:]
    apart = np.hypot(*(mine[:, :, None] - theirs[None]).transpose(1, 0, 2))
    assert np.ptp(theirs) > 0.1
    assert apart.min(1).max() < 2e-3
    assert apart.min(0).max() < 5e-3


def test_refining_stops_at_the_most_cells():
    grid = PixelGrid((8, 8), 0.1)
    tolerance = torch.full((grid.size,), 1e-12, dtype=torch.float64)

    def cusp(x, y):
        return torch.exp(-10 * (x * x + y * y) ** 0.1)

    capped = refine(grid, cusp, tolerance, most=1000)
    assert grid.size < len(capped.cells) <= 1000
    whole = Subdivision.uniform(grid, 64).render(cusp)
    assert (capped.render(cusp) - whole).abs().max() < 0.02 * whole.max()
