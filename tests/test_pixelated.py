"""The pixelated reconstructor, and the inversion under it, against brute force and against what was simulated."""

from dataclasses import replace
from functools import cache

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import VarianceUncertainty
from scipy.optimize import nnls
from skies import TURNED, changed, on_sky

from lensdeblend import prepare, reconstruct, simulate
from lensdeblend.evaluation.metrics import compare
from lensdeblend.lensing.inversion import Inversion, trace_back
from lensdeblend.lensing.parametric import SersicLens
from lensdeblend.lensing.placement import Placement, carried
from lensdeblend.lensing.regularisation import precision_matrix
from lensdeblend.lensing.sersic import sersic
from lensdeblend.lensing.source_grids import DelaunayGrid, RegularGrid
from lensdeblend.lensing.subdivision import Subdivision
from lensdeblend.reconstructors.forward import Forward
from lensdeblend.reconstructors.inverting import evaluate, with_evidence_gradient
from lensdeblend.reconstructors.pixel_dressing import parameter_covariance
from lensdeblend.reconstructors.pixel_search import searched
from lensdeblend.reconstructors.pixel_start import start_from_parameters, start_from_result
from lensdeblend.reconstructors.pixelated import Pixelated
from lensdeblend.results import Reconstruction
from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic, Shear

ARC = u.arcsec
NAMES = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
TRUTH = np.array([1.0, 2.05, 0.12, -0.08, 0.03, -0.02, 0.03, 0.02])
NEAR = dict(zip(NAMES, TRUTH + [0.003, -0.02, 0.006, 0.005, 0.002, -0.003, 0.004, -0.003]))
QUICK = Pixelated(start=NEAR, lens_light=0, side=24, samples=0)


OBSERVED = {
    "g": Observation(0.08 * ARC, (40, 42), GaussianPSF(0.15 * ARC), background_rms=0.025),
    "i": Observation(0.1 * ARC, (34, 38), GaussianPSF(0.22 * ARC), background_rms=0.03),
}
# Two clumps, which are no Sérsic profile, of different colours.
FLUX = {"g": (6.0, 4.0), "i": (5.0, 9.0)}
CLUMPS = [0.12, -0.08, np.log(0.12), 0.0, 0.1, 0.1, -0.15, 0.10, np.log(0.08), 0.0, -0.1, 0.0]


def placed(placement, lensed=True):
    """The true lens and its clumps as told from where ``placement`` leads to where they are told from."""
    truth = torch.as_tensor(np.array([*TRUTH, *CLUMPS]))
    return carried(truth, SersicLens(2, 0), placement.inverse, lensed=lensed).numpy()


@cache
def simulation(lens_light=False, band="g", placement=Placement(), seed=11):
    """A lensed pair of clumps."""
    theta_E, gamma, e1, e2, cx, cy, gamma1, gamma2, *clumps = placed(placement)
    light = [Sersic(60.0, 0.5 * ARC, 3.0, 0.1, -0.05, cx * ARC, cy * ARC)] if lens_light else []
    sources = [
        Sersic(flux, np.exp(size) * ARC, np.exp(n), f1, f2, x * ARC, y * ARC)
        for flux, (x, y, size, n, f1, f2) in zip(FLUX[band], np.reshape(clumps, (2, 6)))
    ]
    mass = [EPL(theta_E * ARC, gamma, e1, e2, cx * ARC, cy * ARC), Shear(gamma1, gamma2)]
    scene = Scene(mass=mass, lens_light=light, sources=sources)
    return simulate(scene, OBSERVED[band], method="torch", seed=seed)


@cache
def reference():
    return reconstruct(simulation().image, method=QUICK, seed=1)


def values(result, suffix=""):
    return np.array([u.Quantity(result.parameters[name + suffix][0]).value for name in NAMES])


def errors(result):
    return values(result, "_err")


def problem(method, lens_light=False, image=None):
    """The tensors of a fit and where it begins."""
    image = prepare(simulation(lens_light).image if image is None else image)
    start = start_from_parameters(image, method.start, method.lens_light, None)
    return start.bands[0].frame, method._problem(start), start.parameters


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
    mapping = fitted.bands[0].mapping
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
    mapping = fitted.bands[0].mapping
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


def check_gradient(fitted, parameters, strengths, step, tolerance):
    fit = with_evidence_gradient(evaluate(fitted, parameters, strengths))
    for index in range(len(parameters)):
        ahead, behind = parameters.clone(), parameters.clone()
        ahead[index] += step
        behind[index] -= step
        slope = evaluate(fitted, ahead, strengths).objective - evaluate(fitted, behind, strengths).objective
        slope /= 2 * step
        scale = float(fit.normal[index, index]) ** 0.5
        assert -0.5 * slope == pytest.approx(float(fit.gradient[index]), rel=tolerance, abs=tolerance * scale)


@pytest.mark.parametrize("grid, lens_light", [("regular", False), ("adaptive", False), ("regular", True)])
def test_gradient_of_the_evidence(grid, lens_light):
    """Of minus twice the logarithm of the evidence, half with the sign turned, against finite differences."""
    _, fitted, parameters = problem(replace(QUICK, grid=grid, lens_light=int(lens_light), side=14), lens_light)
    # The vertices of triangles are traced pixel centres, where light has an edge: away from them.
    parameters = parameters + 1e-3
    step, tolerance = (1e-5, 1e-3) if grid == "regular" else (1e-7, 0.01)
    check_gradient(fitted, parameters, [0.1], step, tolerance)


def test_light_that_is_not_there_has_no_error():
    """Nor does its shape, which moves nothing, spoil the errors of the rest."""
    _, fitted, parameters = problem(replace(QUICK, lens_light=1, side=14), True)
    fit = evaluate(fitted, parameters, [0.1])
    normal = fit.normal.clone()
    normal[8:] = normal[:, 8:] = 0
    dark = replace(fit, normal=normal, bands=[replace(fit.bands[0], amplitudes=torch.zeros(1).double())])
    covariance = parameter_covariance(dark)
    assert not covariance[8:].any() and not covariance[:, 8:].any()
    np.testing.assert_allclose(covariance[:8, :8], np.linalg.inv(fit.normal[:8, :8]), rtol=1e-6)


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


def knots():
    """A lens of five knots, to which one Sérsic profile fits best behind a wrong lens."""
    rng = np.random.default_rng(16)
    x, y = rng.normal(0.05, 0.22, (2, 5))
    sources = [
        Sersic(flux, radius * ARC, 1.0, center_x=a * ARC, center_y=b * ARC)
        for flux, radius, a, b in zip(rng.uniform(2, 6, 5), rng.uniform(0.04, 0.1, 5), x, y)
    ]
    return simulate(replace(simulation().scene, sources=sources), OBSERVED["g"], method="torch", seed=16)


@cache
def misled():
    return reconstruct(knots().image, method=Forward(sources=1, lens_light=0, samples=0, rounds=1), seed=1)


def test_finds_the_lens_where_a_sersic_does_not():
    assert np.abs((values(misled()) - TRUTH) / errors(misled())).max() > 20
    result = reconstruct(knots().image, method=Pixelated(lens_light=0, side=24, samples=0), seed=1)
    assert result.flags == ()
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 5


def test_a_lens_that_is_held_is_not_sought():
    held = Pixelated(lens_light=0, side=16, samples=0, lens="fixed")
    result = reconstruct(knots().image, method=held, seed=1)
    np.testing.assert_allclose(values(result), values(misled()))
    assert "poor fit" in result.flags


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


# Bands --------------------------------------------------------------------------


def images(lens_light=False):
    """Two bands that differ in pixels, PSF and noise."""
    return {band: simulation(lens_light, band, seed=seed).image for band, seed in (("g", 11), ("i", 12))}


@cache
def together():
    return reconstruct(images(), method=replace(QUICK, samples=200), seed=1)


@cache
def apart():
    """Bands whose images do not share centre and axes."""
    return {"g": on_sky(simulation().image), "i": on_sky(simulation(band="i", placement=TURNED).image, TURNED)}


@cache
def fit_apart():
    return reconstruct(apart(), method=QUICK, seed=1)


@cache
def alone(band):
    return reconstruct(images()[band], method=QUICK, seed=1)


def is_within_noise(chi2, freedom):
    return abs(chi2 - 1) < 3 * np.sqrt(2 / freedom)


def test_bands_together_know_the_mass_better_than_each_alone():
    result = together()
    assert result.flags == ()
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 4
    assert is_within_noise(result.chi2, result.meta["degrees_of_freedom"])
    for band in OBSERVED:
        assert (errors(result) < errors(alone(band))).all()
        assert is_within_noise(result.meta["chi2_by_band"][band], alone(band).meta["degrees_of_freedom"])
    scatter = np.array([np.std(u.Quantity(result.samples[name]).value) for name in NAMES])
    np.testing.assert_allclose(scatter, errors(result), rtol=0.25)


def test_errors_add_up_as_those_of_independent_data():
    """The bands share nothing but the mass: its normal matrices add up, the priors counted once."""
    priors = np.diag([0, 0.3**-2, 0.3**-2, 0.3**-2, 0, 0, 0.15**-2, 0.15**-2])
    held = replace(QUICK, start=dict(zip(NAMES, values(together()))))
    each = []
    for band, image in images().items():
        _, fitted, parameters = problem(held, image=image)
        strength = together().meta["strength"][band]
        each.append(evaluate(fitted, parameters, [strength]).normal.numpy() - priors)
    _, fitted, parameters = problem(held, image=images())
    both = evaluate(fitted, parameters, list(together().meta["strength"].values())).normal.numpy()
    np.testing.assert_allclose(both, sum(each) + priors, rtol=1e-9, atol=1e-9 * np.abs(both).max())
    expected = np.linalg.inv(sum(np.linalg.inv(alone(band).covariance) for band in OBSERVED) - priors)
    np.testing.assert_allclose(errors(together()), np.sqrt(np.diag(expected)), rtol=0.2)


def test_evidence_is_that_of_all_bands():
    """At the best lens of both, neither band has more evidence than at its own."""
    own = [alone(band).meta["log_evidence"] for band in OBSERVED]
    assert together().meta["log_evidence"] < sum(own) + 1
    assert together().meta["log_evidence"] > sum(own) - 50


def test_each_band_on_its_own_pixels():
    result = together()
    for seed, band in enumerate(OBSERVED, 11):
        truth = simulation(band=band, seed=seed)
        assert result.model[band].data.shape == truth.image.data.shape
        noise = OBSERVED[band].background_rms
        np.testing.assert_allclose(result.model[band].data, truth.noiseless.data, atol=4 * noise)
        assert result.residual[band].data.std() == pytest.approx(1, abs=0.1)
        assert compare(result.unlensed[band].data, truth.unlensed.data).footprint_psnr > 25
    # How much the lens magnifies is common to both.
    colour = result.source["i"].data.sum() / result.source["g"].data.sum()
    assert colour == pytest.approx(sum(FLUX["i"]) / sum(FLUX["g"]), rel=0.03)
    assert result.lens_light is None
    assert result.source["g"].meta["PIXSCALE"] < result.source["i"].meta["PIXSCALE"]


@pytest.mark.parametrize("lens_light", [0, 1])
def test_one_band_is_an_image(lens_light):
    image = simulation(bool(lens_light)).image
    method = replace(QUICK, lens_light=lens_light, samples=20)
    one, plain = (reconstruct(given, method=method, seed=1) for given in ({"g": image}, image))
    assert [name.replace("_g", "") for name in one.parameters.colnames] == plain.parameters.colnames
    np.testing.assert_array_equal(one.covariance, plain.covariance)
    np.testing.assert_array_equal(values(one), values(plain))
    np.testing.assert_array_equal(one.samples["theta_E"], plain.samples["theta_E"])
    for field in ("source", "unlensed", "model", "residual", "image"):
        np.testing.assert_array_equal(getattr(one, field)["g"].data, getattr(plain, field).data)
    np.testing.assert_array_equal(one.source["g"].uncertainty.array, plain.source.uncertainty.array)
    assert one.chi2 == plain.chi2 == one.meta["chi2_by_band"]["g"]
    assert one.meta["log_evidence"] == plain.meta["log_evidence"] and one.flags == plain.flags == ()


@pytest.mark.parametrize("grid", ["regular", "adaptive"])
def test_gradient_of_the_evidence_of_bands(grid):
    given = {
        "g": on_sky(simulation(True).image), "i": on_sky(simulation(True, "i", TURNED).image, TURNED),
    }
    _, fitted, parameters = problem(replace(QUICK, grid=grid, lens_light=1, side=12), image=given)
    step, tolerance = (1e-5, 1e-3) if grid == "regular" else (1e-7, 0.01)
    assert len(parameters) == 8 + 2 + 2 * 4
    check_gradient(fitted, parameters + 1e-3, [0.1, 0.3], step, tolerance)


def test_bands_with_other_centres_and_axes():
    result = fit_apart()
    assert result.flags == () and result.meta["told_from"] == "g"
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 4
    np.testing.assert_allclose(errors(result), errors(together()), rtol=0.2)


def test_told_from_the_first_band():
    start = dict(zip(NAMES, carried(torch.tensor(list(NEAR.values())), SersicLens(0, 0), TURNED.inverse).tolist()))
    given = apart()
    result = reconstruct({"i": given["i"], "g": given["g"]}, method=replace(QUICK, start=start), seed=1)
    assert result.meta["told_from"] == "i"
    back = carried(torch.as_tensor(values(result)), SersicLens(0, 0), TURNED).numpy()
    assert np.abs((back - values(fit_apart())) / errors(fit_apart())).max() < 0.3
    assert result.chi2 == pytest.approx(fit_apart().chi2, rel=1e-3)


@pytest.mark.parametrize("order", ["gi", "ig"])
def test_search_in_the_band_that_shows_most(order):
    """Its lenses are told from the first band, whichever of the two that is."""
    given = {band: prepare(apart()[band]) for band in order}
    placement = TURNED.inverse if order == "ig" else Placement()
    truth = carried(torch.as_tensor(TRUTH), SersicLens(0, 0), placement)
    wrong = dict(zip(NAMES, [1.2, 1.6, -0.3, 0.3, 0.2, -0.2, -0.2, 0.2]))
    start = start_from_parameters(given, wrong, 0, None)
    coarse = replace(QUICK, side=14, regularisation="curvature")
    found = searched(start, coarse._problem, np.random.default_rng(2))
    off = (found.parameters - truth).abs().numpy()
    # On coarse pixels the slope is known least.
    assert off[1] < 0.2
    assert np.delete(off, 1).max() < 0.03


def test_sources_lie_on_the_sky_where_the_first_band_has_them():
    held = replace(QUICK, lens="fixed", start=dict(zip(NAMES, TRUTH)))
    both = reconstruct(apart(), method=held).source["i"]
    assert both.data.sum() == pytest.approx(sum(FLUX["i"]), rel=0.05)
    one = reconstruct(apart()["i"], method=replace(held, start=dict(zip(NAMES, placed(TURNED)[:8])))).source
    np.testing.assert_allclose(both.data, one.data, atol=1e-6 * one.data.max())
    np.testing.assert_allclose(both.uncertainty.array, one.uncertainty.array, rtol=1e-6)
    pixels = [apart()["i"].wcs.world_to_pixel(source.wcs.pixel_to_world(3, 5)) for source in (both, one)]
    expected = (placed(TURNED, lensed=False) - placed(TURNED))[8:10]
    np.testing.assert_allclose(np.subtract(*pixels) * 0.1, expected, atol=1e-5)
    assert np.hypot(*expected) > 0.005


def test_light_of_all_bands():
    result = reconstruct(images(True), method=replace(QUICK, lens_light=1, side=20), seed=1)
    assert result.flags == () and result.meta["lens_lights"] == 1
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 5
    assert {"light_x", "light_radius_g", "light_radius_i", "light_flux_g"} < set(result.parameters.colnames)
    for band, seed in (("g", 11), ("i", 12)):
        simulated = simulation(True, band, seed=seed)
        light = simulated.noiseless.data - sum(source.data for source in simulated.sources)
        np.testing.assert_allclose(result.lens_light[band].data, light, atol=0.05 * light.max())
        flux, error = (u.Quantity(result.parameters[f"light_flux_{band}{e}"][0]).value for e in ("", "_err"))
        assert abs(flux - 60) < 5 * error


def test_bands_begin_where_forward_ends():
    """It gives the lens light one shape; from there each band has its own."""
    given = {}
    for band, observation in OBSERVED.items():
        scene = simulation(True, band).scene
        one = replace(scene, sources=scene.sources[:1])
        given[band] = simulate(one, observation, method="torch", seed=11).image
    start = Forward(sources=1, lens_light=1, draws=64, starts=4, rounds=1, samples=0, start="blind")
    found = reconstruct(given, method=start, seed=1)
    begin = start_from_result({band: prepare(image) for band, image in given.items()}, found)
    assert begin.model.names[8:] == (
        "light0_x", "light0_y", "light0_log_radius_g", "light0_log_radius_i", "light0_log_n_g", "light0_log_n_i",
        "light0_e1_g", "light0_e1_i", "light0_e2_g", "light0_e2_i",
    )
    np.testing.assert_array_equal(begin.parameters[:8], values(found))
    for number, band in enumerate(given):
        columns = [f"light_{name}" for name in ("x", "y", "radius", "n", "e1", "e2")]
        shape = [u.Quantity(found.parameters[column][0]).value for column in columns]
        expected = [*shape[:2], *np.log(shape[2:4]), *shape[4:]]
        np.testing.assert_allclose(begin.parameters[begin.model.columns(number)][8:], expected)
        np.testing.assert_array_equal(begin.lights[number], found.lens_light[band].data)
    result = reconstruct(given, method=Pixelated(start=start, side=16, samples=0), seed=1)
    assert result.flags == ()
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 4


def test_light_that_shows_in_the_fainter_band():
    result = reconstruct(images() | {"i": images(True)["i"]}, method=replace(QUICK, lens_light="auto"), seed=1)
    assert result.meta["lens_lights"] == 1
    # The shape of what is hardly there is anything.
    assert all(flag.startswith("at a bound: light_") and flag.endswith("_g") for flag in result.flags)
    assert np.abs((values(result) - TRUTH) / errors(result)).max() < 5
    flux, error = (u.Quantity(result.parameters[f"light_flux_i{e}"][0]).value for e in ("", "_err"))
    assert abs(flux - 60) < 5 * error
    assert u.Quantity(result.parameters["light_flux_g"][0]).value < 3
    assert np.isfinite(result.source["g"].uncertainty.array).all()


def test_a_noise_map_made_from_the_data_in_one_band():
    given, clean = images(), simulation(band="i").noiseless.data
    exposure, background = 500.0, 0.0009
    rng = np.random.default_rng(5)
    data = rng.poisson(clean * exposure) / exposure + rng.normal(0, np.sqrt(background), clean.shape)
    variance = VarianceUncertainty(np.clip(background + data / exposure, 1e-5, None))
    result = reconstruct(given | {"i": changed(given["i"], data=data, uncertainty=variance)}, method=QUICK, seed=1)
    assert result.meta["variance"]["g"] == "as given" and "* model" in result.meta["variance"]["i"]
    np.testing.assert_allclose(result.image["i"].uncertainty.array, background + clean / exposure, rtol=0.1)
    assert result.flags == () and np.abs((values(result) - TRUTH) / errors(result)).max() < 5


def test_a_band_that_does_not_fit_is_named():
    given = images()
    wrong = on_sky(given["i"], Placement(offset=(0.4, 0.0)))
    held = replace(QUICK, lens="fixed", start=dict(zip(NAMES, TRUTH)))
    result = reconstruct({"g": on_sky(given["g"]), "i": wrong}, method=held)
    assert "poor fit (band i)" in result.flags and "poor fit (band g)" not in result.flags


def test_a_result_of_bands_is_read_back_equal(tmp_path):
    result = together()
    result.write(tmp_path / "bands.fits")
    back = Reconstruction.read(tmp_path / "bands.fits")
    for field in ("source", "unlensed", "model", "residual", "image"):
        for band, image in getattr(result, field).items():
            np.testing.assert_array_equal(getattr(back, field)[band].data, image.data)
    assert dict(back.meta) == dict(result.meta) and back.flags == result.flags and back.chi2 == result.chi2


def test_bad_bands():
    given = images()
    mask = np.ones(given["i"].data.shape, bool)
    mask[15, 10:30] = False
    with pytest.raises(ValueError, match="band 'i': an inversion needs at least 30 unmasked pixels; the image has 20"):
        reconstruct(given | {"i": changed(given["i"], mask=mask)}, method=QUICK)
    with pytest.raises(ValueError, match="a band named 'err' makes columns that look like errors"):
        reconstruct({"g": given["g"], "err": given["i"]}, method=QUICK)
    elsewhere = on_sky(given["i"], Placement(offset=(30.0, 0.0)))
    with pytest.raises(ValueError, match="band 'i' does not reach the centre of band 'g': .* 30 arcsec apart; cut all"):
        reconstruct(apart() | {"i": elsewhere}, method=QUICK)


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


def test_too_few_pixels_are_refused():
    image = simulation().image
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
