"""Procedural galaxies: what flux and radius mean, and that every kind is what its name says."""

import pytest
import torch

from lensdeblend.lensing.procedural import KINDS, draw_procedural


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def polar(radii=240, angles=120, edge=40.0):
    """Points in a plane and their areas, denser towards the centre."""
    log_r = torch.linspace(-6.5, float(torch.log(torch.tensor(edge))), radii, dtype=torch.float64)
    theta = torch.arange(angles, dtype=torch.float64) * (2 * torch.pi / angles) + 0.01
    r = log_r.exp()[:, None].expand(-1, angles)
    area = r**2 * (log_r[1] - log_r[0]) * (theta[1] - theta[0])
    return [part.reshape(1, -1) for part in (r * theta.cos(), r * theta.sin(), area, r)]


@pytest.mark.parametrize("kind", KINDS)
def test_flux_and_half_light_radius_are_one(kind):
    galaxies = draw_procedural(16, seeded(), mix={kind: 1}, dtype=torch.float64)
    along, across, area, r = polar()
    light = galaxies.brightness(*galaxies.to_sky(along, across)) * area
    assert torch.allclose(light.sum(1), torch.ones(16, dtype=torch.float64), atol=0.02)
    assert torch.allclose((light * (r < 1)).sum(1), torch.full((16,), 0.5, dtype=torch.float64), atol=0.02)


def test_inclination_keeps_areas_and_comes_back():
    galaxies = draw_procedural(20, seeded(), dtype=torch.float64)
    x, y = torch.randn(2, 20, 30, generator=seeded(), dtype=torch.float64)
    for there, expected in zip(galaxies.to_sky(*galaxies.to_plane(x, y)), (x, y)):
        assert torch.allclose(there, expected)
    unit = torch.eye(2, dtype=torch.float64)
    columns = [torch.stack(galaxies.to_plane(unit[0, k].expand(20, 1), unit[1, k].expand(20, 1))) for k in (0, 1)]
    matrix = torch.stack(columns).squeeze(-1).permute(2, 1, 0)
    assert torch.allclose(torch.linalg.det(matrix), torch.ones(20, dtype=torch.float64))


def test_light_is_finite_and_never_negative():
    galaxies = draw_procedural(200, seeded(3))
    x, y = 4 * torch.randn(2, 200, 2000, generator=seeded(4))
    x[:, 0] = y[:, 0] = 0
    light = galaxies.brightness(x, y)
    assert torch.isfinite(light).all() and (light >= 0).all() and (light > 0).any(dim=1).all()


def test_the_seed_makes_the_galaxies_whatever_their_number():
    x, y = torch.randn(2, 12, 50, generator=seeded(9))
    many, few = draw_procedural(12, seeded(5)), draw_procedural(4, seeded(5))
    light = many.brightness(x, y)
    assert torch.equal(light, draw_procedural(12, seeded(5)).brightness(x, y))
    assert torch.allclose(few.brightness(x[:4], y[:4]), light[:4], rtol=1e-5)
    assert torch.allclose(many[2:5].brightness(x[2:5], y[2:5]), light[2:5], rtol=1e-5)
    assert not torch.allclose(draw_procedural(12, seeded(6)).brightness(x, y), light, rtol=0.1)


def test_pieces_of_a_large_batch_are_the_whole():
    galaxies = draw_procedural(5, seeded(), dtype=torch.float64)
    x, y = torch.randn(2, 5, 40_000, generator=seeded(), dtype=torch.float64)
    light = galaxies.brightness(x, y)
    assert torch.allclose(light[3:, :100], galaxies[3:].brightness(x[3:, :100], y[3:, :100]))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    galaxies = draw_procedural(6, seeded(2), mix={kind: 1}, dtype=torch.float64)
    x, y = torch.randn(2, 6, 3, generator=seeded(7), dtype=torch.float64)
    assert torch.autograd.gradcheck(galaxies.brightness, (x.requires_grad_(), y.requires_grad_()))


def test_ellipticals_are_symmetric_and_irregulars_are_not():
    def asymmetry(kind):
        galaxies = draw_procedural(40, seeded(), mix={kind: 1})
        x, y = torch.randn(2, 40, 500, generator=seeded())
        light, opposite = galaxies.brightness(x, y), galaxies.brightness(-x, -y)
        return ((light - opposite).abs().sum(1) / (light + opposite).sum(1)).median()

    assert asymmetry("elliptical") < 0.03 < 0.1 < asymmetry("irregular")


def test_arms_wind_as_their_pitch_says():
    galaxies = draw_procedural(10, seeded(8), mix={"spiral": 1}, dtype=torch.float64)
    radius = torch.linspace(0.8, 1.5, 8, dtype=torch.float64).expand(10, -1)
    angle = (galaxies.arm_winding * radius.log() - galaxies.arm_phase) / galaxies.arm_number
    phase = galaxies._arm_phase(radius * angle.cos(), radius * angle.sin(), radius**2)
    off = phase - galaxies.jitter * torch.sin(
        galaxies.jitter_phase + galaxies.jitter_number * torch.atan2(angle.sin(), angle.cos())
        + galaxies.jitter_winding * radius.log()
    )
    assert torch.allclose(torch.cos(off), torch.ones_like(off), atol=1e-9)


def test_the_mix_is_kept():
    galaxies = draw_procedural(400, seeded(), mix={"elliptical": 1, "spiral": 3})
    ellipticals = (galaxies.disc == 0).double().mean()
    assert abs(ellipticals - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5


@pytest.mark.parametrize("mix, message", [
    ({"quasar": 1}, "unknown kinds"), ({"spiral": -1}, "non-negative"), ({"spiral": 0}, "more than 0"),
    ({}, "more than 0"),
])
def test_bad_mixes(mix, message):
    with pytest.raises(ValueError, match=message):
        draw_procedural(2, seeded(), mix=mix)


def test_no_galaxy():
    with pytest.raises(ValueError, match="at least one"):
        draw_procedural(0, seeded())
