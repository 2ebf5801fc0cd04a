"""Galaxies as numbers: each a point, a Sérsic, or several Sérsics with one centre and one shape."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

__all__ = ["GalaxyLayout"]

# The logarithm of a point's half-light radius.
_POINT = float(np.log(1e-2))


@dataclass(frozen=True)
class GalaxyLayout:
    """Which numbers describe which galaxy.

    Parameters
    ----------
    indices : sequence of tuples
        For each galaxy the Sérsic indices of its components; None for one that is free. An empty tuple is a point.

    The parameters are, galaxy by galaxy, ``x``, ``y`` (pixels of the reference band) and, unless it is a point,
    ``e1``, ``e2``, then for each component the logarithm of its half-light radius and, where it is free, of its index.
    """

    indices: tuple[tuple[float | None, ...], ...]
    names: tuple[str, ...] = field(init=False)
    galaxy: tuple[int, ...] = field(init=False)
    #: Of ``x``, ``y``, ``e1``, ``e2`` of each galaxy and ``log_radius``, ``log_n`` of each component, where they stand
    #: among the parameters with `constants` behind them.
    places: dict[str, list[int]] = field(init=False, compare=False)
    constants: tuple[float, ...] = field(init=False, compare=False)

    def __post_init__(self):
        names, galaxy, constants = [], [], [0.0, _POINT]
        places: dict[str, list] = {key: [] for key in ("x", "y", "e1", "e2", "log_radius", "log_n")}

        def free(key: str, name: str) -> None:
            places[key].append(len(names))
            names.append(name)

        for g, components in enumerate(self.indices):
            free("x", f"x{g}")
            free("y", f"y{g}")
            galaxy += [g] * max(1, len(components))
            if not components:
                for key, value in (("e1", 0.0), ("e2", 0.0), ("log_radius", _POINT), ("log_n", 0.0)):
                    places[key].append(-1 - constants.index(value))
                continue
            free("e1", f"e1_{g}")
            free("e2", f"e2_{g}")
            for c, n in enumerate(components):
                free("log_radius", f"log_radius{g}_{c}")
                if n is None:
                    free("log_n", f"log_n{g}_{c}")
                else:
                    if float(np.log(n)) not in constants:
                        constants.append(float(np.log(n)))
                    places["log_n"].append(-1 - constants.index(float(np.log(n))))
        places = {key: [p if p >= 0 else len(names) - 1 - p for p in found] for key, found in places.items()}
        for name, value in (
            ("names", tuple(names)), ("galaxy", tuple(galaxy)), ("places", places), ("constants", tuple(constants)),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """How many galaxies."""
        return len(self.indices)

    def owner(self, device: str | torch.device) -> Tensor:
        """The galaxy of each component."""
        return torch.as_tensor(self.galaxy, device=device)
