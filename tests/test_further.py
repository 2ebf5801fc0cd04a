"""Where a further galaxy would help a joint fit."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import NDData, StdDevUncertainty
from toy_methods import gaussian

from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.fitting import covariance_of, fit_blends
from lensdeblend.deblenders.further import further_places, star_gains
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
