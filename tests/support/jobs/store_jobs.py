"""Functions that other processes run on a store; a spawned process imports them by name."""

from __future__ import annotations

import time

from slg_wds.store import Store


def create_all(store: Store, start: float, count: int) -> list[bool]:
    """Wait until `start`, then create `count` objects; True for each that this process created first."""
    while time.time() < start:
        pass
    return [store.create(f"race-{number:03d}", b"x" * 1000) for number in range(count)]


def create_names(store: Store, names: list[str]) -> bool:
    """Create empty objects; True if all are new."""
    return all(store.create(name, b"") for name in names)


def read_from(store: Store, name: str) -> bytes:
    """Return one object."""
    return store.read(name)
