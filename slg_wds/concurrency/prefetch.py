"""Start work ahead of its use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def window(items: Iterable[T], ahead: int) -> Iterator[T]:
    """Yield the items in order, but take them from the iterable up to `ahead` items early.

    An item that starts work when it is made, such as a Future, then runs before its turn comes.
    """
    taken: deque[T] = deque()
    for item in items:
        taken.append(item)
        if len(taken) > ahead:
            yield taken.popleft()
    yield from taken
