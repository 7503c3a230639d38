"""msgpack bytes -> maps of a known shape: everything large in a label set is one string of bytes.

An empty list takes one byte of msgpack and sixty of memory, so a shape bounds how many lists and entries there can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import msgspec

from slg_wds.errors import FormatError

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
        what: "record" or "plan", for messages.
        error: the error to raise.
    """

    def __init__(self, shape: Any, version: int, what: str, error: type[FormatError]) -> None:
        self._decode, self._version = msgspec.msgpack.Decoder(shape).decode, version
        self._what, self._error = what, error

    def __call__(self, data: bytes | memoryview) -> dict[str, Any]:
        """Return the one map in `data`: of another version, which may have another shape, the field `version` alone.

        Raises:
            FormatError, of the kind that was asked for: the bytes are not msgpack, are no map with an integer as its
                version, or are a map of this version and of another shape.
        """
        what = self._what
        try:
            fields = self._fields(data)
        except msgspec.ValidationError as error:
            raise self._error(
                f"the {what} is not a map with a version and fields of a {what}: {error}"
            ) from None
        except Exception as error:  # there are many kinds for bytes that are not msgpack
            raise self._error(f"the {what} is not msgpack: {type(error).__name__} {error}") from None
        if type(fields.get("version")) is not int:
            raise self._error(f"the {what} is not a map with a version")
        return fields

    def _fields(self, data: bytes | memoryview) -> dict[str, Any]:
        try:
            fields: dict[str, Any] = self._decode(data)
        except msgspec.ValidationError:
            fields = _version_alone(data)
            if fields.get("version") == self._version:
                raise
        return fields
