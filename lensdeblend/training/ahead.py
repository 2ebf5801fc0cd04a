"""Batches that are drawn while the network learns from the one before."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

__all__ = ["DrawnAhead"]


class DrawnAhead:
    """Batches by the number of their step; where steps follow each other, the next is drawn by another thread.

    Parameters
    ----------
    draw : callable
        From the number of a step to its batch.
    steps : int
        How many there are.

    Examples
    --------
    >>> from lensdeblend.training.ahead import DrawnAhead
    >>> with DrawnAhead(lambda step: step**2, 3) as batches:
    ...     [batches.at(step) for step in range(3)]
    [0, 1, 4]
    """

    def __init__(self, draw: Callable[[int], Any], steps: int):
        self._draw, self._steps = draw, steps
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._coming: tuple[int, Future] | None = None

    def __enter__(self) -> DrawnAhead:
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown(cancel_futures=True)

    def at(self, step: int) -> Any:
        """The batch of a step; what its drawing raised is raised here."""
        coming, self._coming = self._coming, None
        batch = coming[1].result() if coming is not None and coming[0] == step else self._draw(step)
        if step + 1 < self._steps:
            self._coming = step + 1, self._thread.submit(self._draw, step + 1)
        return batch
