"""Find the number of a planned image by its key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class KeyNumbers:
    """Finds keys in a plan. Takes 16 bytes of memory for each image.

    Args:
        keys: the keys of the plan, in order.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        hashes = np.fromiter((hash(key) for key in keys), np.int64, len(keys))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyNumbers, (self._keys,)  # each process has its own hashes of strings

    def find(self, key: str, near: int = -1) -> int | None:
        """Return the number of the image with this key; None if it is not planned. `near` is tried first."""
        if 0 <= near < len(self._keys) and self._keys[near] == key:
            return near
        wanted = hash(key)
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            number = int(self._order[at])
            if self._keys[number] == key:
                return number
            at += 1
        return None
