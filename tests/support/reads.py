"""Faults at a chosen read."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest


def before_read(
    number: int, reader: type, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]
) -> None:
    """Call `act` once, before read `number` (from 0) of any instance of a class with a method `read(name)`.

    Reads of other threads wait until it is done, so that none of them slips by.
    """
    left, read, one = [number], reader.read, threading.Lock()

    def counted(self: object, name: str) -> bytes:
        with one:
            left[0] -= 1
            if left[0] == -1:
                act()
        return read(self, name)

    monkeypatch.setattr(reader, "read", counted)
