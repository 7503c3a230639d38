"""msgpack bytes -> values with few lists and maps: everything large in a label set is one string of bytes."""

from __future__ import annotations

from typing import Any

import msgpack

MAX_PARTS = 256  # lists and maps of a value, and so the deepest nesting; a record has a dozen
MAX_LIST, MAX_MAP = 4096, 256  # entries of one list, of one map


def unpack(data: bytes | memoryview) -> Any:
    """Unpack the one value in `data`.

    An empty list takes one byte of msgpack and fifty bytes of memory, so the number of parts is bounded first.

    Raises:
        Exception: of any kind, for bytes that are not msgpack or that have more than MAX_PARTS lists and maps.
    """
    count = 0

    def counted(value: Any) -> Any:
        nonlocal count
        count += 1
        if count > MAX_PARTS:
            raise ValueError(f"over {MAX_PARTS} lists and maps")
        return value

    return msgpack.unpackb(
        data,
        max_array_len=MAX_LIST,
        max_map_len=MAX_MAP,
        max_ext_len=0,
        object_hook=counted,
        list_hook=counted,
    )
