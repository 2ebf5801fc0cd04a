"""A flow on latent vectors, learned from many encoded galaxies once the auto-encoder stands.

While the auto-encoder learns, its latent vectors move, and a batch of images has few galaxies. Afterwards galaxies are
encoded once, and each step sees many of them, each time another sample of what the encoder says. Images of little noise
are best: of what noise hides the encoder says nothing, and the samples are as wild as white noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lensdeblend.networks.galaxies import GalaxyAutoencoder, GalaxyImages

__all__ = ["FlowLength", "learn_flow"]

_ENCODED_AT_ONCE = 128
_WARM_UP = 0.03
_WEIGHT_DECAY = 1e-3
# Of the mean of the weights over steps, which is what is kept: the share that each step adds.
_SHARE = 2e-3


@dataclass(frozen=True)
class FlowLength:
    """How long a flow learns, and from what: ``images`` encoded, ``priors`` to replace for these, ``steps`` of
    ``batch`` latent vectors, the highest ``learning_rate``."""

    images: int = 20000
    steps: int = 6000
    batch: int = 256
    learning_rate: float = 1e-3
    priors: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("images", "steps", "batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"the recipe: data: flow: {name} must be a whole number above 0; got {value!r}")
        if not self.learning_rate > 0:
            raise ValueError(f"the recipe: data: flow: learning_rate must be positive; got {self.learning_rate!r}")


def learn_flow(
    network: GalaxyAutoencoder, drawn: Callable[[int, int], GalaxyImages], length: FlowLength, seed: int,
    *, progress: bool = True,
) -> None:
    """Train ``network.flow`` and leave all else of the network as it is.

    Parameters
    ----------
    network : GalaxyAutoencoder
    drawn : callable
        Of a count and a number: that many images, the same for the same number.
    length : FlowLength
    seed : int
        The same seed gives the same flow.
    progress : bool
    """
    was_training = network.training
    network.eval()
    mean, spread, kind = _encoded(network, drawn, length.images)
    generator = torch.Generator(mean.device).manual_seed(seed)
    flow = network.flow.train()
    optimizer = torch.optim.AdamW(flow.parameters(), length.learning_rate, weight_decay=_WEIGHT_DECAY)
    kept = deepcopy(flow)
    for step in tqdm(range(length.steps), desc="flow", disable=not progress):
        for group in optimizer.param_groups:
            group["lr"] = length.learning_rate * _rate(step / length.steps)
        some = torch.randint(len(mean), (length.batch,), generator=generator, device=mean.device)
        white = torch.randn(
            length.batch, network.latent + flow.noise, generator=generator, device=mean.device, dtype=mean.dtype
        )
        own, rest = white.tensor_split((network.latent,), 1)
        optimizer.zero_grad()
        loss = flow.loss(mean[some] + spread[some] * own, kind[some], rest).mean()
        if not bool(torch.isfinite(loss)):
            raise RuntimeError(f"the flow's loss is not finite at step {step}: try a smaller learning_rate")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            # The first weights are soon forgotten.
            share = max(_SHARE, 1 / (step + 1))
            for one, other in zip(kept.parameters(), flow.parameters()):
                one.lerp_(other, share)
    flow.load_state_dict(kept.state_dict())
    flow.requires_grad_(True)
    network.train(was_training)


def _encoded(network: GalaxyAutoencoder, drawn, count: int) -> tuple[Tensor, Tensor, Tensor]:
    parts = []
    with torch.no_grad():
        for number in range(math.ceil(count / _ENCODED_AT_ONCE)):
            seen = drawn(_ENCODED_AT_ONCE, number)
            mean, log_sd = network.encode(seen)
            parts.append((mean, log_sd.exp(), network.told(seen)))
    return tuple(torch.cat(part)[:count].float() for part in zip(*parts))


def _rate(done: float) -> float:
    return min(1.0, (done + 1e-3) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))
