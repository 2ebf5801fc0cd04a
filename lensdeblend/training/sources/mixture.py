"""Several kinds of sources in one batch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lensdeblend.training.sources.base import Brightness, Sources, checked_radius
from lensdeblend.training.sources.registry import sources

__all__ = ["Mixture"]


class Mixture(Sources):
    """Each galaxy is of one of several kinds, at random.

    Parameters
    ----------
    weights : mapping
        How often each kind is drawn, up to a common factor: ``{Procedural(): 0.6, Parametric(): 0.4}``. Kinds are
        `Sources`, or names that `lensdeblend.training.sources.sources` makes without options.

    Examples
    --------
    >>> import torch
    >>> from lensdeblend.training.sources import Mixture, Parametric, Procedural
    >>> mixture = Mixture({Procedural(): 0.6, Parametric(): 0.4})
    >>> brightness = mixture.draw(torch.full((8,), 0.3), torch.Generator().manual_seed(1))
    >>> x = torch.zeros(8, 3)
    >>> brightness(x, x + 0.1).shape
    torch.Size([8, 3])
    """

    def __init__(self, weights: Mapping[Sources | str, float]):
        self.kinds = [sources(kind) if isinstance(kind, str) else kind for kind in weights]
        self.weights = [float(weight) for weight in weights.values()]
        wrong = [kind for kind in self.kinds if not isinstance(kind, Sources)]
        if wrong:
            raise TypeError(f"a mixture is of Sources or their names, not {type(wrong[0]).__name__}")
        if not self.weights or min(self.weights) < 0 or not 0 < sum(self.weights) < math.inf:
            raise ValueError(f"weights of a mixture are non-negative and sum to more than 0, not {self.weights}")

    def __repr__(self) -> str:
        return f"Mixture({dict(zip(self.kinds, self.weights))})"

    def draw(self, radius: Tensor, generator: torch.Generator) -> Brightness:
        checked_radius(radius)
        weights = torch.tensor(self.weights, device=generator.device)
        chosen = torch.multinomial(weights, len(radius), replacement=True, generator=generator).to(radius.device)
        parts = []
        for place, kind in enumerate(self.kinds):
            rows = torch.nonzero(chosen == place).squeeze(1)
            if len(rows):
                parts.append((rows, kind.draw(radius[rows], generator)))

        def brightness(x: Tensor, y: Tensor) -> Tensor:
            light = torch.cat([part(x[rows], y[rows]) for rows, part in parts])
            return light[torch.argsort(torch.cat([rows for rows, _ in parts]))]

        return brightness
