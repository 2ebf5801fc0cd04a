"""Flows of latent vectors: a distribution that is known, learned and drawn from."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from lensdeblend.networks.latent_flows import MatchedFlow, SplineFlow  # noqa: E402

_STEPS = 400
FLOWS = {
    "spline": lambda: SplineFlow(4, 1, transforms=3, hidden=24, bins=6),
    "matched": lambda: MatchedFlow(4, 1, blocks=2, hidden=64),
}


def drawn(count, generator):
    """Two clumps of the first number, the second as large as it, the third led by the kind, the last white."""
    kind = torch.randn(count, 1, generator=generator)
    rest = torch.randn(count, 4, generator=generator)
    first = 1.5 * torch.sign(rest[:, 0]) + 0.2 * rest[:, 1]
    return torch.stack([first, first.abs() - 1.5, kind[:, 0] + 0.3 * rest[:, 2], rest[:, 3]], 1), kind


@pytest.fixture(scope="module", params=FLOWS)
def learned(request):
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        flow = FLOWS[request.param]()
    optimizer = torch.optim.Adam(flow.parameters(), 5e-3)
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, _STEPS)
    for _ in range(_STEPS):
        z, kind = drawn(128, generator)
        optimizer.zero_grad()
        flow.loss(z, kind, torch.randn(128, 8 * flow.noise, generator=generator)).mean().backward()
        optimizer.step()
        rate.step()
    return flow


def test_draws_what_it_learned(learned):
    generator = torch.Generator().manual_seed(2)
    kind = torch.randn(4000, 1, generator=generator)
    with torch.no_grad():
        z = learned.from_white(torch.randn(4000, 4, generator=generator), kind)
    true, _ = drawn(4000, generator)
    torch.testing.assert_close(z.mean(0), true.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(z.std(0), true.std(0), atol=0.15, rtol=0)
    # Between the two clumps there is nothing.
    assert float((z[:, 0].abs() < 0.6).float().mean()) < 0.05
    assert float(torch.corrcoef(torch.stack([z[:, 2], kind[:, 0]]))[0, 1]) > 0.8
    if isinstance(learned, MatchedFlow):
        assert float(torch.corrcoef(torch.stack([z[:, 0].abs(), z[:, 1]]))[0, 1]) > 0.8


def test_follows_white_noise_smoothly(learned):
    white = torch.randn(3, 4, generator=torch.Generator().manual_seed(3)).double()
    kind = torch.zeros(3, 1).double()
    flow = learned.double()
    jacobian = torch.autograd.functional.jacobian(lambda own: flow.from_white(own, kind).sum(0), white)
    for place in range(4):
        step = torch.zeros_like(white)
        step[:, place] = 1e-5
        with torch.no_grad():
            slope = (flow.from_white(white + step, kind) - flow.from_white(white - step, kind)) / 2e-5
        torch.testing.assert_close(jacobian[:, :, place].T, slope, atol=1e-4, rtol=1e-4)
    flow.float()


@pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)
def test_a_loss_a_galaxy(make):
    flow, (z, kind) = make(), drawn(6, torch.Generator().manual_seed(4))
    noise = torch.randn(6, flow.noise, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        alone = torch.cat([flow.loss(z[i:i + 1], kind[i:i + 1], noise[i:i + 1]) for i in range(6)])
        torch.testing.assert_close(flow.loss(z, kind, noise), alone, atol=1e-5, rtol=1e-5)
