"""msgpack bytes -> maps of a known shape: everything large in a label set is one string of bytes.

An empty list takes one byte of msgpack and sixty of memory, so a shape bounds how many lists and entries there can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import msgspec

MAX_LIST, MAX_MAP = 4096, 256  # entries of one list, of one map

# What is wrong in another way than by its lists, maps and bytes is left to the caller, who can say more about it.
Single = int | float | str | bool | None
Flat = Single | Annotated[list[Single], msgspec.Meta(max_length=MAX_LIST)]
Frames = bytes | None | Annotated[list[bytes], msgspec.Meta(max_length=MAX_LIST)]  # of zstd


class _Versioned(TypedDict, total=False):
    version: Single


_version_alone: Callable[[bytes | memoryview], Any] = msgspec.msgpack.Decoder(_Versioned).decode


class Unpacker:
    """Reads maps of one shape. Fields that the shape does not name are passed over.

    Args:
        shape: a type that msgspec knows; its lists and maps have limits.
        version: what the field `version` of such maps is.
    """

    def __init__(self, shape: Any, version: int) -> None:
        self._decode, self._version = msgspec.msgpack.Decoder(shape).decode, version

    def __call__(self, data: bytes | memoryview) -> dict[str, Any]:
        """Return the one map in `data`: of another version, which may have another shape, the field `version` alone.

        Raises:
            msgspec.ValidationError: it is no map, or is of this version and of another shape.
            Exception: of any kind, for bytes that are not msgpack.
        """
        try:
            fields: dict[str, Any] = self._decode(data)
        except msgspec.ValidationError:
            versioned: dict[str, Any] = _version_alone(data)
            if versioned.get("version") == self._version:
                raise
            return versioned
        return fields
