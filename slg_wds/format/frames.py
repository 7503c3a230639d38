"""Bytes <-> one zstd frame with content size and checksum, as everything compressed in a label set is."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import zstandard

from slg_wds.errors import FormatError

_local = threading.local()


def compress(data: bytes | memoryview, level: int) -> bytes:
    """One frame; compressors are kept per thread, since making one takes longer than using it."""
    compressors: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in compressors:
        compressors[level] = zstandard.ZstdCompressor(level, write_checksum=True, write_content_size=True)
    return compressors[level].compress(data)


def content_size(frame: Any) -> int:
    """The bytes that a frame declares, 0 for what is no frame."""
    try:
        return max(0, int(zstandard.frame_content_size(frame))) if isinstance(frame, bytes) else 0
    except zstandard.ZstdError:
        return 0


def decompress(frame: Any, size: int, error: type[FormatError]) -> bytes:
    """The content of one frame, which must declare exactly `size` bytes and carry a checksum, or raise `error`.

    Nothing is allocated before the declared size has been compared.
    """
    if not isinstance(frame, bytes):
        raise error(f"a zstd frame is {type(frame).__name__}, not bytes")
    decompressor = _decompressor()
    try:
        parameters = zstandard.get_frame_parameters(frame)
        if parameters.content_size != size:
            raise error(f"a zstd frame declares {parameters.content_size} bytes where {size} belong")
        if not parameters.has_checksum:
            raise error("a zstd frame has no checksum")
        return decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as cause:
        raise error(f"a zstd frame is damaged: {cause}") from None


def decompress_all(
    frames: Sequence[Any], sizes: Sequence[int], error: type[FormatError]
) -> bytes | memoryview:
    """The contents of frames one after the other, each checked as by `decompress`, in one call of the library."""
    decompressor = _decompressor()
    if not frames or not hasattr(
        decompressor, "multi_decompress_to_buffer"
    ):  # zstandard without its C backend
        return b"".join(decompress(frame, size, error) for frame, size in zip(frames, sizes, strict=True))
    try:
        for frame, size in zip(frames, sizes, strict=True):
            # Magic number, then the descriptor: bit 2 says that a checksum follows (RFC 8878, 3.1.1.1).
            if type(frame) is not bytes or len(frame) < 6 or not frame[4] & 4:
                raise error("a zstd frame is not bytes, too short, or has no checksum")
            if zstandard.frame_content_size(frame) != size:
                raise error(f"a zstd frame does not declare the {size} bytes that belong")
            if _end(frame) != len(frame):
                raise error("a zstd frame is damaged: it ends before its bytes do, or after")
        found: Any = decompressor.multi_decompress_to_buffer(
            list(frames), np.array(sizes, "<u8").tobytes(), threads=0
        )
    except (zstandard.ZstdError, ValueError) as cause:
        raise error(f"a zstd frame is damaged: {cause}") from None
    return b"".join([found[i] for i in range(len(found))])  # without a copy of each


def _end(frame: bytes) -> int:
    """Where a frame with a checksum ends: its blocks say how long they are (RFC 8878, 3.1.1.2)."""
    at = zstandard.frame_header_size(frame)
    while True:
        block = int.from_bytes(frame[at : at + 3], "little")
        at += 4 if block & 6 == 2 else 3 + (block >> 3)  # one byte stands for a run of it
        if block & 1 or at >= len(frame):
            return at + 4


def _decompressor() -> zstandard.ZstdDecompressor:
    found: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if found is None:
        found = _local.decompressor = zstandard.ZstdDecompressor()
    return found
