"""Start work ahead of its use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def window(items: Iterable[T], ahead: int | Callable[[], int]) -> Iterator[T]:
    """Yield the items in order, but take them from the iterable up to `ahead` items early.

    An item that starts work when it is made, such as a Future, then runs before its turn comes.

    Args:
        items: what to yield.
        ahead: the number of items; a function that is asked again and again for one that changes.
    """
    limit = ahead if callable(ahead) else lambda: ahead
    taken: deque[T] = deque()
    for item in items:
        taken.append(item)
        while len(taken) > limit():
            yield taken.popleft()
    yield from taken
