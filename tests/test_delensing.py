"""Tracing pixels to the source plane and back."""

import numpy as np
import pytest
import torch

from lensdeblend.lensing.delensing import delens, relens, source_positions
from lensdeblend.lensing.subdivision import PixelGrid

LENS = torch.tensor([[10.0, 2.0, 0.1, -0.05, 0.5, -0.3, 0.05, 0.02]], dtype=torch.float64)
SHAPE = (48, 48)


def gaussian(x, y, width=4.0, at=(1.0, -2.0)):
    return torch.exp(-0.5 * ((x - at[0]) ** 2 + (y - at[1]) ** 2) / width**2)


def plane(shape=SHAPE, pixel=1.0, **kwargs):
    x, y = PixelGrid(shape, pixel).centres()
    return gaussian(x, y, **kwargs).reshape(1, *shape)


def test_positions_are_lenstronomys():
    lenstronomy = pytest.importorskip("lenstronomy.LensModel.lens_model")
    x, y = PixelGrid((5, 5), 3.3).centres()
    theta_E, gamma, e1, e2, cx, cy, g1, g2 = LENS[0].tolist()
    model = lenstronomy.LensModel(["EPL", "SHEAR"])
    expected = model.ray_shooting(x.numpy(), y.numpy(), [
        {"theta_E": theta_E, "gamma": gamma, "e1": e1, "e2": e2, "center_x": cx, "center_y": cy},
        {"gamma1": g1, "gamma2": g2, "ra_0": 0, "dec_0": 0},
    ])
    np.testing.assert_allclose(torch.stack(source_positions(LENS, x, y))[:, 0].numpy(), expected, atol=1e-9)


def test_without_a_lens_nothing_changes():
    nothing = LENS.clone()
    nothing[:, [0, 2, 3, 6, 7]] = 0
    image = plane()
    mean, scatter, weight = delens(image, nothing, supersampling=1)
    torch.testing.assert_close(mean, image, atol=1e-9, rtol=0)
    torch.testing.assert_close(weight, torch.ones_like(weight))
    assert float(scatter.max()) < 1e-5
    torch.testing.assert_close(relens(image, nothing, SHAPE, supersampling=1), image, atol=1e-9, rtol=0)


def test_relens_is_the_source_where_the_rays_end():
    fine = plane((193, 193), 0.25)
    x, y = PixelGrid(SHAPE, 1.0).centres()
    expected = gaussian(*source_positions(LENS, x, y)).reshape(1, *SHAPE)
    found = relens(fine, LENS, SHAPE, pixel=0.25, supersampling=1)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_delens_measures_the_source():
    source = plane()
    image = relens(plane((385, 385), 0.125), LENS, SHAPE, pixel=0.125, supersampling=4)
    mean, scatter, weight = delens(image, LENS, supersampling=4)
    seen = weight > 0.5
    assert int(seen.sum()) > 300
    error = (mean - source)[seen]
    assert float(error.abs().max()) < 0.06
    assert float(error.square().mean().sqrt()) < 0.01
    assert bool((mean[weight == 0] == 0).all())
    wrong = LENS.clone()
    wrong[:, 0] *= 1.2
    _, torn, _ = delens(image, wrong, supersampling=4)
    # Images of one place disagree where the lens is wrong.
    assert float(torn[seen].mean()) > 2 * float(scatter[seen].mean())


def test_border_and_center_only_move_the_frame():
    source = plane((97, 97), 0.5)
    wide = relens(source, LENS, SHAPE, pixel=0.5, border=3)
    torch.testing.assert_close(wide[:, 3:-3, 3:-3], relens(source, LENS, SHAPE, pixel=0.5))
    moved = plane((97, 97), 0.5, at=(3.0, -1.0))
    again = relens(moved, LENS, SHAPE, pixel=0.5, center=torch.tensor([-2.0, -1.0], dtype=torch.float64))
    torch.testing.assert_close(again, relens(source, LENS, SHAPE, pixel=0.5), atol=1e-6, rtol=0)


def test_relens_has_gradients():
    source = plane((97, 97), 0.5)
    weight = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def total(lens):
        return (relens(source, lens, SHAPE, pixel=0.5, supersampling=1) * weight).sum()

    lens = LENS.clone().requires_grad_(True)
    total(lens).backward()
    for column in range(8):
        step = torch.zeros_like(LENS)
        step[0, column] = 1e-6
        slope = (total(LENS + step) - total(LENS - step)) / 2e-6
        assert float(lens.grad[0, column]) == pytest.approx(float(slope), rel=1e-3, abs=1e-4)
