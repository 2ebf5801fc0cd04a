"""Images that can be worked on together."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

__all__ = ["batches"]


def batches(keys: Sequence[Hashable], most: int) -> Iterator[list[int]]:
    """Places of equal keys, at most so many at a time."""
    groups: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    for members in groups.values():
        for start in range(0, len(members), most):
            yield members[start:start + most]
