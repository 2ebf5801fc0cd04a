"""Gauss-Newton steps of lens and source: slopes against finite differences, a fit against the truth."""

import pytest
import torch
from numpy.testing import assert_allclose

from lensdeblend.lensing.finer_fit import descend, with_slopes
from lensdeblend.lensing.finer_images import FinerLens, amplitudes

TRUTH = torch.tensor([1.1, 2.0, 0.1, 0.03, 0.02, -0.01, 0.04, 0.02, 0.3, 1.1, -0.1, 0.1, 0.08, -0.05]).double()
SPREAD = torch.tensor([0.05, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.03, 0.05, 0.05, 0.05, 0.2, 0.2]).double()
FLUX = 12.0


def parts(parameters):
    return parameters[:, :8], torch.cat([torch.ones_like(parameters[:, :1]), parameters[:, 8:]], 1)


@pytest.fixture(scope="module")
def imager():
    line = torch.exp(-0.5 * (torch.arange(-2, 3) / 0.8) ** 2).double()
    return FinerLens((30, 32), 0.12, torch.outer(line, line) / line.sum() ** 2, clumps=(15, 16), dtype=torch.float64)


@pytest.fixture(scope="module")
def bend(imager):
    cells = torch.zeros(1, 15, 16, dtype=torch.float64)
    cells[0, 4, 11] = 0.2
    return imager.bend(cells)


def test_slopes_are_those_of_finite_differences(imager, bend):
    at = TRUTH[None]
    image, slopes = with_slopes(imager, *parts(at), bend)
    assert_allclose(image, imager(*parts(at), bend), atol=1e-9)
    assert slopes.shape == (1, 14, 30, 32)
    for which in range(14):
        step = torch.zeros(14).double()
        step[which] = 1e-6
        expected = (imager(*parts(at + step), bend) - imager(*parts(at - step), bend)) / 2e-6
        assert_allclose(slopes[:, which], expected, atol=2e-6 * float(expected.abs().max()) + 1e-9)


def observed(imager, bend, noise, count=6, seed=1):
    rng = torch.Generator().manual_seed(seed)
    clean = FLUX * imager(*parts(TRUTH[None]), bend)
    image = clean + noise * torch.randn(count, 30, 32, generator=rng).double()
    start = TRUTH + 0.3 * SPREAD * torch.randn(count, 14, generator=rng).double()
    weight = torch.full_like(image, 1 / noise)
    return image, weight, start, tuple(b.expand(count, -1) for b in bend)


@pytest.mark.parametrize("fewer_rays", [False, True])
def test_it_finds_the_truth_within_its_errors(imager, bend, fewer_rays):
    image, weight, start, bends = observed(imager, bend, 0.002)
    image[:, 10:13, 10:13], weight[:, 10:13, 10:13] = 50.0, 0.0
    rough = None
    if fewer_rays:
        one = FinerLens((30, 32), 0.12, clumps=(15, 16), supersampling=1, border=2, dtype=torch.float64)
        one.convolution = imager.convolution
        rough = one, tuple(b.expand(6, -1) for b in one.bend(_cells()))
    found = descend(imager, image, weight, start, bends, center=TRUTH, spread=SPREAD, steps=6, rough=rough)
    assert_allclose(found.chi2, 1, atol=0.15)
    errors = found.covariance.diagonal(dim1=1, dim2=2).sqrt()
    off = torch.cat([found.parameters - TRUTH, found.flux[:, None] - FLUX], 1) / errors
    assert float(off.abs().max()) < 4.5 and 0.4 < float(off.square().mean().sqrt()) < 1.5
    assert float((errors[:, :14] / SPREAD).max()) < 1.01


def _cells():
    cells = torch.zeros(1, 15, 16, dtype=torch.float64)
    cells[0, 4, 11] = 0.2
    return cells


def test_prior_holds_what_the_data_do_not_tell(imager, bend):
    image, weight, start, bends = observed(imager, bend, 0.01)
    image[:] = 0
    found = descend(imager, image, weight, start, bends, center=TRUTH, spread=SPREAD, steps=3)
    assert_allclose((found.parameters - TRUTH) / SPREAD, 0, atol=1e-6)


def test_never_worse_and_one_image_does_not_see_the_others(imager, bend):
    image, weight, start, bends = observed(imager, bend, 0.01)
    start[0] += 6 * SPREAD
    options = {"center": TRUTH, "spread": SPREAD}
    before = descend(imager, image, weight, start, bends, steps=0, **options)
    assert before.covariance is None
    model = imager(*parts(start), bends)
    assert_allclose(before.flux, amplitudes(image, model, weight))
    after = descend(imager, image, weight, start, bends, steps=5, **options)
    assert bool((after.chi2 <= before.chi2).all()) and float(after.chi2[1:].max()) < 1.3
    alone = descend(imager, image[2:3], weight[2:3], start[2:3], tuple(b[2:3] for b in bends), steps=5, **options)
    assert_allclose(alone.parameters[0], after.parameters[2], atol=1e-8)


def test_steps_that_lead_astray_are_not_taken(imager, bend):
    image, weight, start, bends = observed(imager, bend, 0.01, count=24)
    start += 1.5 * (start - TRUTH)
    # With so wide a prior, what the steps make small is chi-square itself.
    options = {"center": TRUTH, "spread": 30 * SPREAD}
    before = descend(imager, image, weight, start, bends, steps=0, **options)
    after = descend(imager, image, weight, start, bends, steps=1, **options)
    assert bool((after.chi2 <= before.chi2 * 1.001).all())
    kept = (after.parameters == start).all(1)
    assert 0 < int(kept.sum()) < 20
