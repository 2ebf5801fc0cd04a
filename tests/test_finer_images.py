"""Clumps of convergence and images on finer pixels: against point masses, closed forms, finite differences."""

import math

import pytest
import torch
from numpy.testing import assert_allclose

from lensdeblend.lensing.clumps import Clumps
from lensdeblend.lensing.epl import epl, epl_convergence
from lensdeblend.lensing.finer_images import FinerLens, binned
from lensdeblend.lensing.halos import point_mass
from lensdeblend.lensing.imaging import LensImager

LENS = torch.tensor([[1.1, 2.0, 0.1, 0.03, 0.02, -0.01, 0.04, 0.02]], dtype=torch.float64)
SOURCE = torch.tensor([[10.0, 0.3, 1.0, -0.1, 0.1, 0.08, -0.05]], dtype=torch.float64)


def rays(n, side):
    return (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * (side / n)


def gaussian_psf(fwhm, size=9):
    steps = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-0.5 * (steps * 2.3548 / fwhm) ** 2)
    return torch.outer(line, line) / line.sum() ** 2


class TestClumps:
    def test_far_away_a_cell_is_a_point_mass(self):
        x, y = rays(30, 6.0), rays(24, 6.0)
        cells = torch.zeros(1, 20, 26, dtype=torch.float64)
        cells[0, 4, 17] = 2.0
        found = torch.stack(Clumps((20, 26), 0.1, x, y)(cells)).reshape(2, 24, 30)
        at_x, at_y = 0.1 * (17 - 12.5), 0.1 * (4 - 9.5)
        radius = torch.tensor(math.sqrt(2 * 0.1**2 / math.pi))
        expected = torch.stack(point_mass(x[None], y[:, None], radius, at_x, at_y))
        far = torch.hypot(x - at_x, y[:, None] - at_y) > 1
        # Between cells it is read off linearly: at ten cells' distance that is good to a fraction of a per cent.
        assert_allclose(found[:, far], expected[:, far], atol=0.004 * float(expected[:, far].abs().max()))

    def test_a_lens_drawn_as_cells_deflects_as_the_lens(self):
        n, side = 200, 16.0
        at = rays(n, side)
        one, zero = torch.tensor([0.5]).double(), torch.zeros(1).double()
        half = (torch.arange(8) - 3.5) * (side / n / 8)
        fine = (at[:, None] + half).flatten()
        steep = one + 1.5
        shape = (steep, 0.1 * one, 0.05 * one, 0.2 * one, zero)
        drawn = epl_convergence(fine[None], fine[:, None], one, *shape).unflatten(0, (n, 8)).unflatten(2, (n, 8))
        ring = at[torch.abs(at) < 1.5]
        found = torch.stack(Clumps((n, n), side / n, ring, ring)(drawn.mean((1, 3))[None])).reshape(2, -1)
        x, y = (a.flatten() for a in torch.meshgrid(ring, ring, indexing="xy"))
        expected = torch.stack(epl(x, y, one, *shape))
        away = torch.hypot(x - 0.1, y) > 0.4
        assert_allclose(found[:, away], expected[:, away], atol=0.01)

    def test_divergence_is_twice_the_convergence_and_there_is_no_curl(self):
        n, cell = 64, 0.1
        at = rays(n, n * cell)
        mass = 0.4 * torch.exp(-((at - 0.3) ** 2 + (at[:, None] / 0.8) ** 2) / 0.5)
        bend_x, bend_y = (b.reshape(n, n) for b in Clumps((n, n), cell, at, at)(mass[None]))

        def slope(b, axis):
            return ((b.roll(-1, axis) - b.roll(1, axis)) / (2 * cell))[2:-2, 2:-2]

        assert_allclose(slope(bend_x, 1) + slope(bend_y, 0), 2 * mass[2:-2, 2:-2], atol=0.02)
        assert_allclose(slope(bend_x, 0), slope(bend_y, 1), atol=1e-3)

    def test_cells_of_the_edge_act_beyond_them(self):
        x = torch.tensor([-2.0, 2.0]).double()
        both, _ = Clumps((3, 3), 0.1, x, torch.zeros(1).double())(torch.ones(1, 3, 3).double())
        assert_allclose(both, torch.tensor([[-1.0, 1.0]]) * 0.09 / math.pi / 2, rtol=2e-3)


class TestFinerLens:
    def drawn(self, shape=(33, 36), factor=1.0, **options):
        return FinerLens(shape, 0.1, factor=factor, clumps=(16, 18), dtype=torch.float64, **options)

    def clumps(self, peak=0.3):
        cells = torch.zeros(1, 16, 18, dtype=torch.float64)
        cells[0, 3, 9], cells[0, 9, 15] = peak, peak / 2
        return cells

    @pytest.mark.parametrize("factor", [0.5, 1, 1.7, 2, 5])
    def test_shape_and_flux_at_any_factor(self, factor):
        kernel = gaussian_psf(1.8 * factor, 2 * math.ceil(4 * factor) + 1)
        draw = self.drawn(factor=factor, kernel=kernel, supersampling=4)
        image = draw(LENS, SOURCE, draw.bend(self.clumps()))
        assert image.shape == (1, round(33 * factor), round(36 * factor))
        exact = self.drawn(supersampling=24)
        expected = exact(LENS, SOURCE, exact.bend(self.clumps())).sum()
        assert float(image.sum()) == pytest.approx(float(expected), rel=6e-3)

    def test_without_clumps_it_is_the_imager(self):
        kernel = gaussian_psf(3.0)
        expected = LensImager((66, 72), 0.05, kernel, dtype=torch.float64)(LENS, SOURCE)
        assert_allclose(FinerLens((33, 36), 0.1, kernel, factor=2, dtype=torch.float64)(LENS, SOURCE), expected)

    def test_before_the_psf_finer_pixels_add_up(self):
        coarse, fine = self.drawn(supersampling=4, border=2), self.drawn(factor=2, supersampling=2, border=4)
        bends = coarse.bend(self.clumps()), fine.bend(self.clumps())
        expected = coarse.unseen(LENS, SOURCE, bends[0])
        assert_allclose(binned(fine.unseen(LENS, SOURCE, bends[1]), 2), expected, atol=1e-12)

    def test_clumps_move_the_light_as_their_deflection_says(self):
        draw = self.drawn()
        x, y = draw.points
        source = SOURCE.clone()
        source[:, 1] = 1.0
        # A sheet deflects as a lens that is nothing but magnification: here, all the same.
        bend = 0.05 * torch.ones_like(x), -0.02 * torch.ones_like(y)
        moved = source.clone()
        moved[:, 5:] += torch.tensor([0.05, -0.02])
        assert_allclose(draw(LENS, source, bend), draw(LENS, moved))

    def test_gradients_are_those_of_finite_differences(self):
        draw = FinerLens((14, 15), 0.25, gaussian_psf(1.5), clumps=(7, 8), dtype=torch.float64)
        cells = torch.full((1, 7, 8), 0.02, dtype=torch.float64)
        cells[0, 2, 2] = 0.2
        values = [each.clone().requires_grad_(True) for each in (LENS, SOURCE, cells)]
        aim = torch.rand(1, 14, 15, generator=torch.Generator().manual_seed(1)).double()

        def loss(lens, source, clumps):
            return (draw(lens, source, draw.bend(clumps)) * aim).sum()

        slopes = torch.autograd.grad(loss(*values), values)
        for which, slope in enumerate(slopes):
            direction = torch.rand(slope.shape, generator=torch.Generator().manual_seed(2)).double()
            step = 1e-6

            def at(sign):
                with torch.no_grad():
                    return loss(*(v + sign * step * direction if i == which else v for i, v in enumerate(values)))

            expected = float(at(1) - at(-1)) / (2 * step)
            assert float((slope * direction).sum()) == pytest.approx(expected, rel=1e-5)

    def test_maps_are_the_lens_and_its_clumps(self):
        draw = self.drawn((64, 64), kernel=gaussian_psf(1.5), factor=1.5)
        cells = torch.full((1, 16, 18), 0.03, dtype=torch.float64)
        deflection, convergence = draw.deflection(LENS, cells)[0], draw.convergence(LENS, cells)[0]
        alone = draw.convergence(LENS)[0]
        step = 0.1 / 1.5
        along_x, along_y = deflection[0].diff(dim=1), deflection[1].diff(dim=0)
        divergence = torch.zeros(96, 96).double()
        divergence[:, 1:-1] += (along_x[:, 1:] + along_x[:, :-1]) / (2 * step)
        divergence[1:-1] += (along_y[1:] + along_y[:-1]) / (2 * step)
        at = rays(96, 6.4)
        away = (torch.hypot(at, at[:, None]) > 1) & (at.abs() < 2) & (at[:, None].abs() < 2)
        # Read off linearly between cells, the deflection of an even sheet is exact, and so is its divergence.
        assert_allclose(divergence[away], 2 * convergence[away], atol=0.01)
        assert_allclose((convergence - alone)[away], 0.03, atol=1e-12)

    def test_factors_too_small(self):
        with pytest.raises(ValueError, match="at least 0.5"):
            self.drawn(factor=0.4)


def test_binned_sums_and_cuts():
    image = torch.arange(25.0).reshape(1, 5, 5)
    assert binned(image, 2).tolist() == [[[12.0, 20.0], [52.0, 60.0]]]
