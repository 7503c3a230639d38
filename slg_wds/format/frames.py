"""Bytes <-> one zstd frame with content size and checksum, as everything compressed in a label set is."""

from __future__ import annotations

import threading
from typing import Any

import zstandard

from slg_wds.errors import FormatError

_local = threading.local()


def compress(data: bytes | memoryview, level: int) -> bytes:
    """One frame; compressors are kept per thread, since making one takes longer than using it."""
    compressors: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in compressors:
        compressors[level] = zstandard.ZstdCompressor(level, write_checksum=True, write_content_size=True)
    return compressors[level].compress(data)


def decompress(frame: Any, size: int, error: type[FormatError]) -> bytes:
    """The content of one frame, which must declare exactly `size` bytes and carry a checksum, or raise `error`.

    Nothing is allocated before the declared size has been compared.
    """
    if not isinstance(frame, bytes):
        raise error(f"a zstd frame is {type(frame).__name__}, not bytes")
    decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    try:
        parameters = zstandard.get_frame_parameters(frame)
        if parameters.content_size != size:
            raise error(f"a zstd frame declares {parameters.content_size} bytes where {size} belong")
        if not parameters.has_checksum:
            raise error("a zstd frame has no checksum")
        return decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as cause:
        raise error(f"a zstd frame is damaged: {cause}") from None
