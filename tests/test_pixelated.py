"""The pixelated reconstructor, and the inversion under it, against brute force and against what was simulated."""

from dataclasses import replace
from functools import cache

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import NDData
from scipy.optimize import nnls

from lensdeblend import prepare, reconstruct, simulate
from lensdeblend.evaluation.metrics import compare
from lensdeblend.lensing.inversion import Inversion, trace_back
from lensdeblend.lensing.regularisation import precision_matrix
from lensdeblend.lensing.sersic import sersic
from lensdeblend.lensing.source_grids import DelaunayGrid, RegularGrid
from lensdeblend.lensing.subdivision import Subdivision
from lensdeblend.reconstructors.forward import Forward
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.reconstructors.inverting import evaluate, with_evidence_gradient
from lensdeblend.reconstructors.pixel_start import start_from_parameters
from lensdeblend.reconstructors.pixelated import Pixelated
from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic, Shear

ARC = u.arcsec
NAMES = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
TRUTH = np.array([1.0, 2.05, 0.12, -0.08, 0.03, -0.02, 0.03, 0.02])
NEAR = dict(zip(NAMES, TRUTH + [0.003, -0.02, 0.006, 0.005, 0.002, -0.003, 0.004, -0.003]))
QUICK = Pixelated(start=NEAR, lens_light=0, side=24, samples=0)


@cache
def simulation(lens_light=False, rms=0.025, seed=11):
    """A lensed pair of clumps, which is no Sérsic profile."""
    theta_E, gamma, e1, e2, cx, cy, gamma1, gamma2 = TRUTH
    light = [Sersic(60.0, 0.5 * ARC, 3.0, 0.1, -0.05, cx * ARC, cy * ARC)] if lens_light else []
    scene = Scene(
        mass=[EPL(theta_E * ARC, gamma, e1, e2, cx * ARC, cy * ARC), Shear(gamma1, gamma2)], lens_light=light,
        sources=[
            Sersic(6.0, 0.12 * ARC, 1.0, 0.1, 0.1, 0.12 * ARC, -0.08 * ARC),
            Sersic(4.0, 0.08 * ARC, 1.0, -0.1, 0.0, -0.15 * ARC, 0.10 * ARC),
        ],
    )
    observation = Observation(0.08 * ARC, (40, 42), GaussianPSF(0.15 * ARC), background_rms=rms)
    return simulate(scene, observation, method="torch", seed=seed)


@cache
def reference():
    return reconstruct(simulation().image, method=QUICK, seed=1)


def changed(image, **new):
    fields = {name: getattr(image, name) for name in ("data", "uncertainty", "mask", "psf", "unit")} | new
    return NDData(fields.pop("data"), meta=dict(image.meta), **fields)


def values(result, suffix=""):
    return np.array([u.Quantity(result.parameters[name + suffix][0]).value for name in NAMES])


def errors(result):
    return values(result, "_err")


def problem(method, lens_light=False):
    """The tensors of a fit and where it begins."""
    image = prepare(simulation(lens_light).image)
    start = start_from_parameters(image, NEAR, method.lens_light, None)
    frame = Frame.of(start.image)
    return frame, method._problem(frame, start), start.parameters


GRIDS = {
    "regular": RegularGrid((0.1, -0.2), 0.05, (31, 33)),
    "adaptive": DelaunayGrid(*np.random.default_rng(1).uniform(-1, 1, (2, 300))),
}

# The source in pixels --------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_plane_is_read_off_exactly(grid):
    x, y = torch.as_tensor(np.random.default_rng(2).uniform(-0.5, 0.5, (2, 200)))
    points = grid.interpolate(x, y)
    plane = 1 + 2 * grid.x - 3 * grid.y
    torch.testing.assert_close(points.values(plane), 1 + 2 * x - 3 * y)
    by_x, by_y = points.slopes(plane)
    torch.testing.assert_close(by_x, torch.full_like(x, 2.0))
    torch.testing.assert_close(by_y, torch.full_like(x, -3.0))
    torch.testing.assert_close(torch.as_tensor(points.matrix(len(grid)) @ plane.numpy()), points.values(plane))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_slopes_are_those_of_the_light(grid):
    x, y = torch.as_tensor(np.random.default_rng(3).uniform(-0.5, 0.5, (2, 200)))
    light = torch.cos(3 * grid.x) + grid.y**2 * grid.x
    by_x, by_y = grid.interpolate(x, y).slopes(light)
    step = 1e-7

    def differences(dx, dy):
        ahead, behind = (grid.interpolate(x + s * dx, y + s * dy).values(light) for s in (step, -step))
        return (ahead - behind) / (2 * step)

    torch.testing.assert_close(by_x, differences(1, 0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(by_y, differences(0, 1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_there_is_no_light_beyond_the_grid(grid):
    far = torch.tensor([5.0, -5.0])
    points = grid.interpolate(far, far)
    assert not points.weight.any() and not points.by_x.any()


@pytest.mark.parametrize("kind", ["gradient", "curvature"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_regularisation_is_the_same_integral_on_any_grid(grid, kind):
    """Of a bump that has fallen to zero at the edge."""
    width = 0.25
    bump = torch.exp(-0.5 * ((grid.x - 0.05) ** 2 + (grid.y + 0.05) ** 2) / width**2)
    matrix, log_determinant = precision_matrix(grid, kind)
    # The integrals of the squared gradient and of the squared Laplacian of a Gaussian.
    exact = {"gradient": np.pi, "curvature": 2 * np.pi / width**2}[kind]
    rough = {"gradient": 0.1, "curvature": 0.5 if isinstance(grid, DelaunayGrid) else 0.1}[kind]
    assert float(bump @ matrix @ bump) == pytest.approx(exact, rel=rough)
    assert log_determinant == pytest.approx(float(torch.logdet(matrix)))


# The mapping --------------------------------------------------------------------------


@pytest.mark.parametrize("grid", ["regular", "adaptive"])
def test_mapping_is_rendering(grid):
    frame, fitted, parameters = problem(replace(QUICK, grid=grid))
    mapping = fitted.mapping
    mapped = mapping(parameters[:8])
    unknown = torch.as_tensor(np.random.default_rng(4).normal(size=len(mapping.grid)))
    source = unknown * mapping.scaling

    def brightness(x, y):
        px, py, _ = mapping.frame(*trace_back(x, y, parameters[:8]), parameters[:8])
        return mapping.grid.interpolate(px, py).values(source)

    pixels = Subdivision.uniform(frame.grid, 3).render(brightness) * frame.grid.scale**2
    expected = (frame.convolution(pixels) * frame.weight).reshape(-1)
    found = torch.zeros_like(expected)
    found[mapped.rows] = mapped.matrix @ unknown
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


def test_mapping_conserves_surface_brightness():
    frame, fitted, parameters = problem(QUICK)
    mapping = fitted.mapping
    mapped = mapping(parameters[:8])
    seen = torch.zeros(frame.data.numel(), dtype=torch.float64)
    seen[mapped.rows] = mapped.matrix @ (1 / mapping.scaling)
    seen = (seen.reshape(frame.data.shape) * frame.sigma)
    area = frame.grid.scale**2
    assert float(seen.max()) <= area * (1 + 1e-9)
    assert int((seen > area * (1 - 1e-9)).sum()) > 100


# The linear problem --------------------------------------------------------------------------


def small_inversion():
    rng = np.random.default_rng(5)
    grid = RegularGrid((0, 0), 0.1, (6, 7))
    matrix = torch.as_tensor(rng.normal(size=(90, 42)) * (rng.random((90, 42)) < 0.2))
    precision, log_determinant = precision_matrix(grid, "curvature")
    return Inversion(matrix, precision, log_determinant), torch.as_tensor(rng.normal(size=90) * 2)


def test_inversion_is_the_dense_solution():
    inversion, data = small_inversion()
    solution = inversion.solve(data, 0.02)
    root = torch.linalg.cholesky(inversion.precision).T * np.sqrt(0.02)
    both = torch.cat([inversion.matrix, root])
    expected = torch.linalg.lstsq(both, torch.cat([data, data.new_zeros(42)])[:, None]).solution[:, 0]
    torch.testing.assert_close(solution.source, expected)
    torch.testing.assert_close(solution.covariance, torch.linalg.inv(both.T @ both))
    residual = data - inversion.matrix @ expected
    assert solution.chi2 == pytest.approx(float(residual @ residual))


def test_evidence_is_the_density_of_the_data():
    inversion, data = small_inversion()
    for strength in (0.001, 0.1, 10):
        spread = torch.eye(90, dtype=torch.float64)
        spread += inversion.matrix @ torch.linalg.inv(strength * inversion.precision) @ inversion.matrix.T
        direct = torch.distributions.MultivariateNormal(torch.zeros(90, dtype=torch.float64), spread).log_prob(data)
        objective = inversion.solve(data, strength).objective
        assert -0.5 * (objective + 90 * np.log(2 * np.pi)) == pytest.approx(float(direct))


def test_best_strength_has_the_most_evidence():
    inversion, data = small_inversion()
    best = inversion.best_strength(data, 1e-2, 3.0)
    assert 1e-5 < best.strength < 10
    for factor in (0.5, 2):
        assert inversion.solve(data, best.strength * factor).objective > best.objective


def test_nonnegative_source_is_that_of_nnls():
    inversion, data = small_inversion()
    free = inversion.solve(data, 0.02)
    assert (free.source < 0).any()
    root = torch.linalg.cholesky(inversion.precision).T * np.sqrt(0.02)
    expected, _ = nnls(torch.cat([inversion.matrix, root]).numpy(), np.concatenate([data.numpy(), np.zeros(42)]))
    np.testing.assert_allclose(inversion.solve_nonnegative(data, free).source, expected, atol=1e-8)


# Evidence as a function of the lens --------------------------------------------------------------------------


@pytest.mark.parametrize("grid, lens_light", [("regular", False), ("adaptive", False), ("regular", True)])
def test_gradient_of_the_evidence(grid, lens_light):
    """Of minus twice the logarithm of the evidence, half with the sign turned, against finite differences."""
    _, fitted, parameters = problem(replace(QUICK, grid=grid, lens_light=int(lens_light), side=14), lens_light)
    # The vertices of triangles are traced pixel centres, where light has an edge: away from them.
    parameters = parameters + 1e-3
    fit = with_evidence_gradient(evaluate(fitted, parameters, 0.1))
    step, tolerance = (1e-5, 1e-3) if grid == "regular" else (1e-7, 0.01)
    for index in range(len(parameters)):
        ahead, behind = parameters.clone(), parameters.clone()
        ahead[index] += step
        behind[index] -= step
        slope = (evaluate(fitted, ahead, 0.1).objective - evaluate(fitted, behind, 0.1).objective) / (2 * step)
        scale = float(fit.normal[index, index]) ** 0.5
        assert -0.5 * slope == pytest.approx(float(fit.gradient[index]), rel=tolerance, abs=tolerance * scale)


# Truth --------------------------------------------------------------------------


def test_finds_a_source_that_no_sersic_fits():
    result, truth = reference(), simulation()
    freedom = result.meta["degrees_of_freedom"]
    assert result.flags == ()
    assert abs(result.chi2 - 1) < 3 * np.sqrt(2 / freedom)
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 5
    parametric = reconstruct(truth.image, method=Forward(sources=1, lens_light=0, samples=0, rounds=1), seed=1)
    gain = (
        compare(result.unlensed.data, truth.unlensed.data).footprint_psnr
        - compare(parametric.unlensed.data, truth.unlensed.data).footprint_psnr
    )
    assert gain > 2
    assert "poor fit" in parametric.flags


def test_residual_is_white_noise():
    residual = reference().residual.data
    assert residual.mean() == pytest.approx(0, abs=5 / 40)
    assert abs(reference().meta["colour"]) < 3
    neighbours = np.mean(residual[1:] * residual[:-1]), np.mean(residual[:, 1:] * residual[:, :-1])
    # The fitted source takes from neighbours a part of their common noise.
    assert -0.15 < min(neighbours) and max(neighbours) < 0.1


def test_flux_is_kept():
    truth = simulation().unlensed.data.sum()
    result = reference()
    assert result.source.data.sum() == pytest.approx(truth, rel=0.1)
    assert result.unlensed.data.sum() == pytest.approx(result.source.data.sum(), rel=0.02)


@pytest.mark.parametrize("grid", ["regular", "adaptive"])
def test_errors_of_the_source_hold_the_truth(grid):
    held = replace(QUICK, grid=grid, lens="fixed", start=dict(zip(NAMES, TRUTH)))
    result = reconstruct(simulation().image, method=held)
    source = result.source
    scale = source.meta["PIXSCALE"]
    ny, nx = source.data.shape
    y, x = np.mgrid[:ny, :nx]
    x = (x - (nx - 1) / 2) * scale + source.meta["CENTER_X"]
    y = (y - (ny - 1) / 2) * scale + source.meta["CENTER_Y"]
    truth = 0
    for galaxy in simulation().scene.galaxies:
        for part in galaxy.components:
            numbers = [u.Quantity(getattr(part, n)).value for n in ("radius", "n", "e1", "e2", "center_x", "center_y")]
            light = sersic(torch.as_tensor(x), torch.as_tensor(y), *map(torch.as_tensor, map(float, numbers)))
            truth = truth + float(u.Quantity(part.flux).value) * light.numpy() * scale**2
    shown = truth > 0.03 * truth.max()
    pull = (source.data - truth)[shown] / np.sqrt(source.uncertainty.array[shown])
    assert np.mean(np.abs(pull) < 3) > 0.95
    assert 0.3 < np.mean(np.abs(pull) < 1) < 0.95


# What must not matter --------------------------------------------------------------------------


def test_what_is_masked_is_not_looked_at():
    image = simulation().image
    mask = np.zeros(image.data.shape, bool)
    mask[5:8, 30:34] = True
    mask[20, 8] = True
    bad = np.where(mask, [[1e4]], image.data)
    bad[6, 31] = np.nan
    clean, poisoned = changed(image, mask=mask), changed(image, data=bad, mask=mask)
    one, other = (reconstruct(i, method=QUICK) for i in (clean, poisoned))
    np.testing.assert_array_equal(values(one), values(other))
    assert np.all(other.residual.data[mask] == 0)
    assert np.abs((values(one) - values(reference())) / errors(reference())).max() < 1.5


FLIP_X = np.array([1, 1, 1, -1, -1, 1, 1, -1])
HALF_TURN = np.array([1, 1, 1, 1, -1, -1, 1, 1])


@pytest.mark.parametrize("operation, signs", [
    (lambda a: np.rot90(a, 2), HALF_TURN), (lambda a: a[:, ::-1], FLIP_X),
], ids=["half turn", "flip"])
def test_turning_the_image_turns_the_lens(operation, signs):
    image = simulation().image
    moved = changed(
        image, data=operation(image.data), uncertainty=type(image.uncertainty)(operation(image.uncertainty.array)),
        psf=operation(np.asarray(image.psf)),
    )
    start = dict(zip(NAMES, np.array(list(NEAR.values())) * signs))
    result = reconstruct(moved, method=replace(QUICK, start=start))
    assert np.abs((values(result) * signs - values(reference())) / errors(reference())).max() < 0.2
    peak = reference().unlensed.data.max()
    np.testing.assert_allclose(operation(result.unlensed.data), reference().unlensed.data, atol=0.02 * peak)


def test_units_do_not_matter():
    image = simulation().image
    scaled = changed(
        image, data=image.data * 1e-20, uncertainty=type(image.uncertainty)(image.uncertainty.array * 1e-40)
    )
    result = reconstruct(scaled, method=QUICK)
    assert np.abs((values(result) - values(reference())) / errors(reference())).max() < 0.1
    np.testing.assert_allclose(result.unlensed.data * 1e20, reference().unlensed.data, atol=1e-3)


def test_the_same_seed_gives_the_same():
    method = replace(QUICK, samples=50)
    one, other = (reconstruct(simulation().image, method=method, seed=3) for _ in range(2))
    np.testing.assert_array_equal(values(one), values(other))
    np.testing.assert_array_equal(one.samples["theta_E"], other.samples["theta_E"])
    scatter = np.std(one.samples["theta_E"].value)
    assert scatter == pytest.approx(one.parameters["theta_E_err"][0].value, rel=0.5)


# Options --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {"grid": "adaptive"}, {"regularisation": "gradient"}, {"regularisation": "curvature"}, {"nonnegative": True},
    {"strength": 5e-5},
], ids=lambda options: "-".join(map(str, options.values())))
def test_options_lead_to_the_same_galaxy(options):
    result = reconstruct(simulation().image, method=replace(QUICK, **options))
    assert abs(result.chi2 - 1) < 4 * np.sqrt(2 / result.meta["degrees_of_freedom"])
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 5
    assert compare(result.unlensed.data, simulation().unlensed.data).footprint_psnr > 25
    if "nonnegative" in options:
        assert result.source.data.min() >= 0
    if "strength" in options:
        assert result.meta["strength"] == 5e-5


def test_a_fixed_lens_stays():
    result = reconstruct(simulation().image, method=replace(QUICK, lens="fixed", start=dict(zip(NAMES, TRUTH))))
    np.testing.assert_array_equal(values(result), TRUTH)
    assert np.isnan(errors(result)).all()
    assert result.meta["log_evidence"] < reference().meta["log_evidence"] + 1


def test_lens_light_is_solved_along():
    simulated = simulation(lens_light=True)
    result = reconstruct(simulated.image, method=replace(QUICK, lens_light=1))
    assert abs(result.chi2 - 1) < 3 * np.sqrt(2 / result.meta["degrees_of_freedom"])
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 5
    light = simulated.noiseless.data - sum(source.data for source in simulated.sources)
    np.testing.assert_allclose(result.lens_light.data, light, atol=0.05 * light.max())
    flux, error = (u.Quantity(result.parameters[name][0]).value for name in ("light_flux", "light_flux_err"))
    assert abs(flux - 60) < 5 * error


def test_another_method_may_find_the_start():
    result = reconstruct(simulation().image, method=replace(QUICK, start=replace(QUICK, regularisation="curvature")))
    assert np.abs((values(result) - values(reference())) / errors(reference())).max() < 0.5


# Bad input --------------------------------------------------------------------------


def test_noise_alone_is_flagged():
    noise = np.random.default_rng(6).normal(0, 0.025, (40, 42))
    result = reconstruct(changed(simulation().image, data=noise), method=Pixelated(side=12), seed=1)
    assert "no lens seen" in result.flags
    assert np.isfinite(result.model.data).all() and np.isfinite(result.source.data).all()


def test_a_wrong_lens_that_is_held_is_flagged():
    wrong = dict(zip(NAMES, TRUTH)) | {"theta_E": 0.8}
    result = reconstruct(simulation().image, method=replace(QUICK, start=wrong, lens="fixed"))
    assert "poor fit" in result.flags


def test_several_bands_and_too_few_pixels_are_refused():
    image = simulation().image
    with pytest.raises(ValueError, match=r"one band at a time; got the bands g, r.*image\['g'\]"):
        reconstruct({"g": image, "r": image}, method=QUICK)
    mask = np.ones(image.data.shape, bool)
    mask[20, 10:30] = False
    with pytest.raises(ValueError, match="at least 30 unmasked pixels; the image has 20"):
        reconstruct(changed(image, mask=mask), method=QUICK)


@pytest.mark.parametrize("options, message", [
    ({"grid": "square"}, "grid must be one of 'regular', 'adaptive'; got 'square'"),
    ({"side": 4}, "side must be a whole number of at least 8; got 4"),
    ({"regularisation": "none"}, "regularisation must be one of 'gradient', 'curvature', 'adaptive'; got 'none'"),
    ({"strength": 0}, "strength must be a positive number, or None; got 0"),
    ({"nonnegative": 1}, "nonnegative must be True or False; got 1"),
    ({"lens": "held"}, "lens must be one of 'free', 'fixed'; got 'held'"),
    ({"start": {"theta_E": 1.0}}, "start must have all lens parameters; it lacks gamma, e1"),
    ({"start": 3}, "start must be the name or an instance of a reconstructor"),
    ({"start": {**NEAR, "theta_E": "wide"}}, "start: theta_E must be a number or an angle; got 'wide'"),
    ({"lens_light": 3}, "lens_light must be one of 'auto', 0, 1, 2; got 3"),
    ({"radius": -1.0}, "radius must be a positive number of arcsec, or None; got -1.0"),
    ({"gamma_prior": (2.0, 0.0)}, r"gamma_prior must be \(mean, standard deviation\)"),
    ({"shear_prior": 0}, "shear_prior must be a positive standard deviation, or None; got 0"),
    ({"samples": -1}, "samples must be a whole number of at least 0; got -1"),
    ({"device": "abacus"}, "device must be 'auto' or a torch device such as 'cpu' or 'cuda'; got 'abacus'"),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Pixelated(**options)


def test_an_unknown_start_is_named():
    with pytest.raises(ValueError, match="unknown reconstructor 'forwrad'; did you mean 'forward'"):
        reconstruct(simulation().image, method=Pixelated(start="forwrad"))
