"""Mutations of values instead of bytes: most bytes that are changed blindly make no msgpack and no JSON at all.

An input that unpacks is changed in one place of its tree and packed again. libFuzzer changes all others itself.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import msgpack

Bytes = Callable[[bytes, int], bytes]
BOUNDS = (0, 1, -1, 255, 256, 65535, 1 << 24, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, -(1 << 63))
ODD = (None, True, "", b"", [], {}, 0.5, float("nan"), float("inf"), "../x", "\x00", "k" * 5000)


def mutate(data: bytes, longest: int, seed: int, blindly: Bytes) -> bytes:
    """Change the input in one place. Half of all inputs, and those that do not unpack, are left to `blindly`."""
    chance = random.Random(seed)
    if chance.random() < 0.5:
        return blindly(data, longest)
    for unpack, pack in ((_unpack_msgpack, msgpack.packb), (json.loads, _pack_json)):
        try:
            changed: bytes = pack(_changed(unpack(data), chance, longest, blindly))
        except Exception:  # of many kinds; libFuzzer changes what does not fit
            continue
        return changed if len(changed) <= longest else blindly(data, longest)
    return blindly(data, longest)


def _unpack_msgpack(data: bytes) -> Any:
    return msgpack.unpackb(data, strict_map_key=False)


def _pack_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _changed(value: Any, chance: random.Random, longest: int, blindly: Bytes) -> Any:
    """Change the tree in one place; each child is as likely as the value itself."""
    children = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    if not children or chance.random() < 0.2:
        return _other(value, chance, longest, blindly)
    at = chance.choice(children)
    copy = value.copy()
    copy[at] = _changed(value[at], chance, longest, blindly)
    return copy


def _other(value: Any, chance: random.Random, longest: int, blindly: Bytes) -> Any:
    """Return another value, mostly of the same type."""
    if chance.random() < 0.15:
        return chance.choice((*ODD, *BOUNDS))
    if isinstance(value, bytes):
        return blindly(value, max(1, min(longest, 2 * len(value) + 8)))
    if isinstance(value, str):
        return blindly(value.encode(), 2 * len(value) + 8).decode("utf-8", "replace")
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice((value + 1, value - 1, -value, value ^ 1 << chance.randrange(32), *BOUNDS))
    if isinstance(value, list) and value:
        return chance.choice((value[1:], value[:-1], [*value, value[0]], value[::-1], value * 2))
    if isinstance(value, dict) and value:
        gone = chance.choice(list(value))
        return {name: content for name, content in value.items() if name != gone}
    return chance.choice((*ODD, *BOUNDS))
