"""Numbers of a plan's images by their keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class KeyNumbers:
    """Finds keys in a plan. Memory: 16 bytes an image beside the plan's own."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        hashes = np.fromiter((hash(key) for key in keys), np.int64, len(keys))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyNumbers, (self._keys,)  # hashes of texts are another process's own

    def find(self, key: str, near: int = -1) -> int | None:
        """The number of an image, looked for first at `near`; None where it is not planned."""
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
