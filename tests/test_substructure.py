"""Substructure beside a smooth lens: what cells do to rays, and what a fit of them finds in images that are known."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.ndimage import uniform_filter

from lensdeblend import prepare, simulate
from lensdeblend.lensing.cells import Cells
from lensdeblend.lensing.parametric import SersicLens
from lensdeblend.lensing.subdivision import PixelGrid
from lensdeblend.lensing.substructure import LensPrior, SeenLens, _View, most_likely_substructure
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.scenes import EPL, GaussianPSF, Observation, PointMass, Scene, Sersic, Shear
from lensdeblend.superresolvers.clumpy import ClumpyLens
from lensdeblend.superresolvers.finer import FinePixels

SCALE, SHAPE, NOISE = 0.1, (30, 32), 0.02
MODEL = SersicLens(1, 1)
LENS = [1.0, 2.05, 0.1, -0.05, 0.02, 0.0, 0.03, -0.02]
PARAMETERS = torch.tensor([
    *LENS, 0.12, -0.08, np.log(0.2), np.log(1.2), 0.1, 0.1, 0.0, 0.0, np.log(0.3), np.log(1.5), 0.05, 0.0,
], dtype=torch.float64)
FLUXES = torch.tensor([60.0, 20.0], dtype=torch.float64)
SPREAD = torch.cat([torch.full((8,), 0.003), torch.full((12,), 0.02)]).double()
MASSIVE, PLACE = 0.07, (0.75, 0.7)


def scene(*clumps):
    arcsec = u.arcsec
    return Scene(
        mass=[EPL(1.0 * arcsec, 2.05, 0.1, -0.05, 0.02 * arcsec), Shear(0.03, -0.02), *clumps],
        sources=[Sersic(60.0, 0.2 * arcsec, 1.2, 0.1, 0.1, 0.12 * arcsec, -0.08 * arcsec)],
        lens_light=[Sersic(20.0, 0.3 * arcsec, 1.5, 0.05)],
    )


OBSERVATION = Observation(SCALE * u.arcsec, SHAPE, GaussianPSF(0.2 * u.arcsec), background_rms=NOISE)
CLUMP = PointMass(MASSIVE * u.arcsec, *(at * u.arcsec for at in PLACE))


def seen(image):
    frame = Frame.of(prepare(image))
    return SeenLens(frame.data, frame.weight, frame.kernel, frame.grid, 0.03 * NOISE)


def fitted(image, count=20):
    data = seen(image)
    cells = Cells.over(data.grid, (0.02, 0.0), 1.5, count)
    prior = LensPrior(PARAMETERS, SPREAD, 0.05)
    with torch.no_grad():
        return cells, most_likely_substructure(MODEL, cells, data, PARAMETERS, FLUXES, prior)


def drawn(seed, count=8):
    """Cells, lens and image as the prior has them."""
    data = seen(simulate(scene(), OBSERVATION, seed=1).image)
    cells = Cells.over(data.grid, (0.02, 0.0), 1.5, count)
    rng = np.random.default_rng(seed)
    kappa = torch.as_tensor(rng.normal(0, 0.05, (count, count)))
    parameters = PARAMETERS + SPREAD * torch.as_tensor(rng.normal(size=len(SPREAD)))
    view = _View(MODEL, cells, data, LensPrior(PARAMETERS, SPREAD, 0.05), parameters, FLUXES)
    clean = (FLUXES @ view.at(parameters, kappa).basis).reshape(SHAPE) / data.weight
    noisy = clean + torch.as_tensor(rng.normal(0, NOISE, SHAPE))
    return cells, kappa, parameters, replace(data, data=noisy)


@pytest.fixture(scope="module")
def clumpy_image():
    return simulate(scene(CLUMP), OBSERVATION, seed=1).image


@pytest.fixture(scope="module")
def found(clumpy_image):
    return fitted(clumpy_image)


class TestCells:
    grid = PixelGrid((21, 23), 0.05, 0, (0.3, -0.1))
    cells = Cells.over(grid, (0.25, -0.05), 0.5, 6)
    kappa = torch.as_tensor(np.random.default_rng(1).normal(size=(6, 6)))

    def test_rays_anywhere_are_those_of_the_grid(self):
        x, y = self.grid.centres()
        expected = self.cells.rays(self.grid)(self.kappa[None])
        mixed = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
        for ours, theirs in zip(self.cells.bend(self.kappa)(x[mixed], y[mixed]), expected):
            assert_allclose(ours, theirs[0, mixed], atol=1e-12)

    def test_what_leaves_a_square_is_the_mass_within(self):
        """By the divergence theorem, around all cells."""
        half = 0.9
        along, edge = torch.linspace(-half, half, 4001, dtype=torch.float64), torch.full((4001,), half).double()
        wide = replace(self.cells, reach=2.0)
        bend, (x, y) = wide.bend(self.kappa), wide.middle
        right, left = (bend(x + sign * edge, y + along)[0] for sign in (1, -1))
        top, bottom = (bend(x + along, y + sign * edge)[1] for sign in (1, -1))
        flux = torch.trapezoid(right - left + top - bottom, along)
        # Read off linearly between the cells' centres.
        assert float(flux) == pytest.approx(2 * float(self.kappa.sum()) * wide.side**2, rel=0.05)

    def test_none_is_smaller_than_a_pixel(self):
        assert Cells.over(self.grid, (0.0, 0.0), 0.2, 24).count == 8


def test_slopes_are_finite_differences():
    cells, kappa, parameters, data = drawn(2)
    view = _View(MODEL, cells, data, LensPrior(PARAMETERS, SPREAD, 0.05), parameters, FLUXES)
    state = view.at(parameters, kappa)
    view.choose(state)
    lean, by_cells = view._linearised(state)

    def model(parameters, kappa):
        return state.fluxes @ view.at(parameters, kappa).basis

    step = 1e-4
    for k in range(len(parameters)):
        shift = step * SPREAD[k] * torch.eye(len(parameters), dtype=torch.float64)[k]
        change = (model(parameters + shift, kappa) - model(parameters - shift, kappa)) / (2 * step)
        assert_allclose(lean[k], change, atol=1e-4 * float(change.abs().max()))
    for row, column in ((1, 2), (4, 6), (7, 0)):
        shift = torch.zeros_like(kappa)
        shift[row, column] = step * 0.05
        change = ((model(parameters, kappa + shift) - model(parameters, kappa - shift)) / (2 * step))[view._lit]
        slope = by_cells[8 * row + column].double()
        # The deflection by a cell is taken at the middle of each pixel.
        assert float((slope - change).norm() / change.norm()) < 0.05


def test_a_point_mass_is_found_where_it_is(found):
    cells, fit = found
    at = (np.arange(cells.count) - (cells.count - 1) / 2) * cells.side
    row, column = np.unravel_index(fit.cells.numpy().argmax(), tuple(fit.cells.shape))
    assert np.hypot(cells.middle[0] + at[column] - PLACE[0], at[row] - PLACE[1]) < cells.side
    x, y = np.meshgrid(cells.middle[0] + at, at)
    near = np.hypot(x - PLACE[0], y - PLACE[1]) < 0.35
    within = near.ravel() * cells.side**2 / np.pi
    mass = within @ fit.cells.numpy().ravel()
    error = np.sqrt(within @ fit.covariance.numpy()[-len(within):, -len(within):] @ within)
    assert abs(mass - MASSIVE**2) < 2.5 * error and error < 0.2 * MASSIVE**2
    assert abs(float(fit.cells.numpy()[~near].sum()) * cells.side**2 / np.pi) < 0.25 * MASSIVE**2
    assert fit.evidence > 100 and fit.chi2 / fit.freedom < 2


def test_without_it_there_is_none(clumpy_image):
    data = seen(clumpy_image)
    image = simulate(scene(), OBSERVATION, seed=1).image
    cells, fit = fitted(image)
    assert fit.evidence < 0 and not fit.cells.any()
    assert fit.chi2 / fit.freedom == pytest.approx(1, abs=4 * np.sqrt(2 / data.weight.numel()))
    errors = fit.covariance.diagonal()[-cells.count**2:].sqrt().reshape(cells.count, cells.count)
    # Where no arc is, the prior; where one is, less, but the data do not tell neighbours apart.
    assert float(errors.max()) == pytest.approx(0.05, rel=0.02)
    assert 0.005 < float(errors.min()) < 0.04
    assert (fit.parameters[:8] - PARAMETERS[:8]).abs().max() < 0.003


def test_errors_are_those_of_cells_from_the_prior():
    pulls, lens = [], []
    for seed in range(3):
        cells, kappa, parameters, data = drawn(seed)
        with torch.no_grad():
            fit = most_likely_substructure(
                MODEL, cells, data, PARAMETERS, FLUXES, LensPrior(PARAMETERS, SPREAD, 0.05)
            )
        assert fit.evidence > 0
        assert fit.chi2 / fit.freedom == pytest.approx(1, abs=4 * np.sqrt(2 / data.weight.numel()))
        errors = fit.covariance.diagonal().sqrt()
        pulls.append((fit.cells - kappa).flatten() / errors[-64:])
        lens.append((fit.parameters - parameters) / errors[:len(parameters)])
    assert float(torch.stack(pulls).square().mean().sqrt()) == pytest.approx(1, abs=0.2)
    assert float(torch.stack(lens).square().mean().sqrt()) == pytest.approx(1, abs=0.35)


def test_draws_are_those_of_the_covariance(found):
    _, fit = found
    drawn = torch.cat([part.flatten(1) for part in fit.draws(4000, np.random.default_rng(1))], 1)
    expected = fit.covariance
    norm = expected.diagonal().sqrt()
    assert float(((drawn.T @ drawn / 4000 - expected) / norm / norm[:, None]).abs().max()) < 0.12


def test_maps_belong_together(clumpy_image, found):
    cells, fit = found
    image = prepare(clumpy_image)
    pixels = FinePixels(image, 2)
    with torch.no_grad():
        maps = ClumpyLens(MODEL, cells, fit).maps(pixels, pixels.psf(), np.random.default_rng(1))
    values, errors = maps.values, {name: np.sqrt(each) for name, each in maps.variances.items()}
    y, x = (np.indices(pixels.shape) - (np.array(pixels.shape)[:, None, None] - 1) / 2) * pixels.scale
    inside = (np.abs(x) < 1.2) & (np.abs(y) < 1.2) & (np.hypot(x, y) > 0.4)
    ax, ay = values["deflection_x"], values["deflection_y"]
    trace = np.gradient(ax, pixels.scale, axis=1) + np.gradient(ay, pixels.scale, axis=0)
    # Over the cells, since the one is read off between their centres, and the other is the slope of what is.
    trace, kappa = (uniform_filter(each, 8) for each in (trace, values["convergence"]))
    assert np.sqrt(np.mean((trace / 2 - kappa)[inside] ** 2)) < 0.02
    truth = simulate(scene(CLUMP), OBSERVATION.refined(2), seed=1).noiseless.data
    shown = truth > 0.05 * truth.max()
    smooth = simulate(scene(), OBSERVATION.refined(2), seed=1).noiseless.data

    def rms(fine):
        return np.sqrt(np.mean((fine - truth) ** 2))

    assert rms(values["image"]) < 0.2 * rms(smooth)
    pull = np.sqrt(np.mean(((values["image"] - truth) / errors["image"])[shown] ** 2))
    assert 0.5 < pull < 2
    assert_allclose(errors["substructure"].max(), 0.05, rtol=0.3)
    assert (errors["convergence"] > 0).all() and (errors["magnification"] > 0).all()
