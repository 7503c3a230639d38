"""Work begun ahead of its use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def window(items: Iterable[T], ahead: int) -> Iterator[T]:
    """Yield the items in order, always having taken `ahead` more from the iterable: what they began runs meanwhile."""
    taken: deque[T] = deque()
    for item in items:
        taken.append(item)
        if len(taken) > ahead:
            yield taken.popleft()
    yield from taken
