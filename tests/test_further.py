"""Where a further galaxy would help a joint fit."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import NDData, StdDevUncertainty
from toy_methods import gaussian

from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.fitting import covariance_of, fit_blends
from lensdeblend.deblenders.departures import Departures
from lensdeblend.deblenders.further import further_places, star_gains
from lensdeblend.deblenders.worth import worth
from lensdeblend.images import prepare

SHAPE = 40, 36
POSITIONS = np.array([[12.0, 15.0], [22.0, 17.0]])
THIRD = 17.0, 27.0
PSF = gaussian((15, 15), 7, 7, 1.4)


@pytest.fixture(scope="module")
def fit():
    """Of two galaxies of three, in two bands of which one has masked pixels."""
    rng, images = np.random.default_rng(2), {}
    for name, colour in (("g", 1.0), ("r", 1.5)):
        data = rng.normal(size=SHAPE) + sum(
            colour * flux * gaussian(SHAPE, x, y, 1.9) for (x, y), flux in zip([*POSITIONS, THIRD], (900, 600, 150))
        )
        mask = np.zeros(SHAPE, bool)
        mask[20:24, 14:18] = name == "g"
        images[name] = prepare(NDData(
            data, uncertainty=StdDevUncertainty(np.ones(SHAPE)), mask=mask, unit=u.ct, psf=PSF, meta={"PIXSCALE": 0.2}
        ))
    with torch.no_grad():
        return fit_blends([Blend.of(images)], [POSITIONS], [[0.0, 0.0]])[0]


@torch.no_grad()
def test_is_highest_where_a_galaxy_is_left_out(fit):
    gains, bands = star_gains(fit)
    row, column = np.unravel_index(gains.argmax(), SHAPE)
    assert bands == 2 and np.hypot(column - THIRD[0], row - THIRD[1]) < 1.5
    assert further_places(fit, 4.0)[0].tolist() == [column, row]


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 7, 16])
def test_blocks_of_rows_give_what_the_whole_gives(fit, rows):
    whole, bands = star_gains(fit, rows=SHAPE[0])
    blocks, again = star_gains(fit, rows=rows)
    np.testing.assert_allclose(blocks, whole, rtol=1e-6, atol=1e-9 * whole.max())
    assert bands == again and np.array_equal(blocks > 0, whole > 0)


@torch.no_grad()
@pytest.mark.parametrize("x, y", [(17, 27), (16, 28), (15, 26)])
def test_is_the_score_test_of_a_star(fit, x, y):
    """By the formula, with all matrices written out."""
    grid, = fit.problem.grids
    drawn, = fit.problem.rendered(fit.solution.parameters)
    amplitudes, size = fit.solution.amplitudes.reshape(1, 2, -1), len(fit.parameters)
    count = amplitudes.shape[-1]
    slopes, basis = (part[0].double().numpy() for part in (drawn.derivatives(amplitudes), drawn.basis))
    weight, data = grid.weight[0].double().numpy(), grid.data[0].double().numpy()
    stars, model = np.zeros((2, 2, *SHAPE)), np.zeros((size + 2 * count, 2, *SHAPE))
    for band in range(2):
        stars[band, band, y - 7:y + 8, x - 7:x + 8] = PSF
        model[:size, band] = slopes[band]
        model[size + band * count:size + (band + 1) * count, band] = basis[band]
    residual = data - np.einsum("bk,bkyx->byx", amplitudes[0].double().numpy(), basis)
    stars, model, residual = (part * weight for part in (stars, model, residual))
    score, crossed = np.tensordot(stars, residual, 3), np.tensordot(stars, model, ([1, 2, 3], [1, 2, 3]))
    left = np.tensordot(stars, stars, ([1, 2, 3], [1, 2, 3])) - crossed @ covariance_of(fit.solution) @ crossed.T
    assert star_gains(fit)[0][y, x] == pytest.approx(score @ np.linalg.solve(left, score), rel=1e-4)


def fits_of(third, waves=0.0):
    """Of two galaxies, and of them with a third where it is: a little one of that flux and place.

    The first has waves of that height, a fraction of its light.
    """
    flux, (x, y) = third
    row, column = np.indices(SHAPE)
    arms = 1 + waves * np.sin((column - POSITIONS[0, 0]) / 1.4) * np.cos((row - POSITIONS[0, 1]) / 1.4)
    data = np.random.default_rng(4).normal(size=SHAPE) + 3000 * gaussian(SHAPE, *POSITIONS[0], 2.6) * arms
    data += 600 * gaussian(SHAPE, *POSITIONS[1], 2.6) + flux * gaussian(SHAPE, x, y, 1.5)
    blend = Blend.of(prepare(NDData(
        data, uncertainty=StdDevUncertainty(np.ones(SHAPE)), unit=u.ct, psf=PSF, meta={"PIXSCALE": 0.2},
    )))
    return fit_blends([blend] * 2, [POSITIONS, np.array([*POSITIONS, (x, y)])], [[0.0]] * 2)


def plain_fall(before, after):
    band = before.blend.first
    old, new = ((((band.data - fit.images[0].sum(0)) * band.weight) ** 2).sum() for fit in (before, after))
    return float(old - new)


@torch.no_grad()
def test_a_galaxy_apart_is_worth_what_noise_says():
    before, after = fits_of((150, THIRD))
    assert worth(before, after, [0.0], "cpu", structured=True) == pytest.approx(plain_fall(before, after), rel=0.25)


@torch.no_grad()
def test_a_knot_among_others_is_worth_little():
    before, after = fits_of((300, (14.0, 17.0)), 0.4)
    assert plain_fall(before, after) > 500
    # What a further galaxy must be worth is about 40.
    assert worth(before, after, [0.0], "cpu", structured=True) < 40
    assert worth(before, after, [0.0], "cpu", structured=False) > 100


@torch.no_grad()
def test_chi_square_with_departures_is_that_of_the_covariance(fit):
    """With all matrices written out, where galaxies are cut to windows."""
    blend = fit.blend
    positions = np.array([[fit.value("x", g)[0], fit.value("y", g)[0]] for g in range(len(fit))])
    found = Departures.of(blend, [0, 1], fit.images, positions, [0.0, 0.0], "cpu", unexplained=0.1)
    models = np.array([images.sum(0) for images in fit.images])
    weight = np.array([band.weight for band in blend.bands])
    total = weight / np.sqrt(1 + (0.1 * models * weight) ** 2)
    np.testing.assert_allclose(found.weight, total)
    np.testing.assert_allclose(found.residual, total * (np.array([b.data for b in blend.bands]) - models))
    row, column = (part.ravel() for part in np.indices(SHAPE))
    squares = (row[:, None] - row) ** 2 + (column[:, None] - column) ** 2
    covariance = np.eye(2 * row.size)
    for light, size in zip(np.moveaxis(found.windows.framed(found.galaxies).numpy(), 1, 0), found.sizes):
        kernel = 0.09 * np.exp(-0.5 * squares / float(size) ** 2)
        for a in range(2):
            for b in range(2):
                block = light[a].ravel()[:, None] * kernel * light[b].ravel()
                # Nine tenths of the variance are common to the bands.
                covariance[a * row.size:, b * row.size:][:row.size, :row.size] += (1.0 if a == b else 0.9) * block
    residual = found.residual.numpy().ravel()
    expected = residual @ np.linalg.solve(covariance, residual)
    chi2, = found.chi2(found.residual[None], found.sizes.new_full((2, 2), 0.09))
    assert float(chi2) == pytest.approx(expected, rel=1e-2)
    assert expected < 0.99 * residual @ residual
