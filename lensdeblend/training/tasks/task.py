"""What the training loop asks of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lensdeblend.training.recipe import Recipe

__all__ = ["Task"]


class Task(ABC):
    """What is learned: data, losses, measures.

    Parameters
    ----------
    recipe : Recipe
    images : sequence of Path
        Folders of real galaxies, where the recipe wants some.
    pairs : Path, optional
        Folder of simulations to learn from, instead of simulating.
    """

    #: What to watch: a name of `measure`, and whether more is better.
    watched: tuple[str, bool] = ("loss", False)
    #: How the network lies in memory on a CPU: what is faster there depends on its layers.
    memory_format: torch.memory_format = torch.channels_last

    @abstractmethod
    def __init__(self, recipe: Recipe, *, images: Sequence[Path] = (), pairs: Path | None = None):
        ...

    @abstractmethod
    def network(self) -> tuple[nn.Module, dict[str, Any]]:
        """The network to train, and all options that build it again."""

    @abstractmethod
    def draw(self, count: int, seed: tuple[int, ...], device: torch.device, split: str) -> Any:
        """A batch of the ``"train"``, ``"validation"`` or ``"test"`` split; the same seed gives the same."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """What is made small, and its parts for the log."""

    def adversary(self) -> nn.Module | None:
        """A network that is trained against the first and not kept; None, as here, for none."""
        return None

    def contest(
        self, network: nn.Module, adversary: nn.Module, batch: Any
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """What the network makes small, its parts for the log, and what the adversary makes small.

        Called instead of `loss` where there is an adversary. The first must leave no gradient in the adversary, the
        last none in the network.
        """
        raise NotImplementedError

    def begin(self, device: torch.device, *, progress: bool = True) -> None:
        """What is to be learned before the first step; nothing, as here."""

    def finish(self, network: nn.Module, *, progress: bool = True) -> None:
        """What is left to learn after the last step; nothing, as here."""

    @abstractmethod
    def measure(self, network: nn.Module, batch: Any) -> dict[str, float]:
        """Figures of merit of one batch, to be averaged over batches."""

    @abstractmethod
    def panels(self, network: nn.Module, batch: Any, path: Path) -> None:
        """Draw samples of what the network makes of a batch."""

    @abstractmethod
    def domain(self) -> dict[str, Any]:
        """What the network is for, as its card says it."""

    @abstractmethod
    def priors(self) -> dict[str, str]:
        """The population's priors as text."""

    @property
    @abstractmethod
    def learned_from(self) -> str:
        """The galaxies, in words for the card."""
