"""msgpack bytes -> values, of few parts: everything large in a label set is one string of bytes."""

from __future__ import annotations

from typing import Any

import msgpack

MAX_PARTS = 256  # lists and maps, so also the most within each other; a record has a dozen
MAX_LIST, MAX_MAP = 64, 256  # entries of one


def unpack(data: bytes | memoryview) -> Any:
    """The one value in `data`. Raises an Exception of any kind for bytes that are not msgpack, or of very many parts.

    An empty list takes one byte there and fifty here; that is bounded before it is taken.
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
