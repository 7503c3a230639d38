"""Numbers <-> columns: byte planes, least significant first, each one zstd frame with content size and checksum."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from slg_wds.errors import RecordError

MAX_COLUMN_BYTES = 1 << 28
MAX_PLANES = 4

# Measured on real labels: the most significant plane is worth a thorough search, the planes below it are noise
# that no level shrinks. Long planes (label kind "full") would take a thorough search too long.
LEVEL_TOP = 12
LEVEL_NOISE = 1
LEVEL_LONG = 3
LONG = 1 << 16

_local = threading.local()


def compress(data: bytes | memoryview, level: int) -> bytes:
    """One zstd frame with content size and checksum; (de)compressors are kept per thread."""
    compressors: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in compressors:
        compressors[level] = zstandard.ZstdCompressor(level, write_checksum=True, write_content_size=True)
    return compressors[level].compress(data)


def decompress(frame: Any, size: int) -> bytes:
    """The content of one zstd frame, which must declare exactly `size` bytes and carry a checksum.

    Nothing is allocated before the declared size has been compared. Raises RecordError.
    """
    if not isinstance(frame, bytes):
        raise RecordError(f"a column's plane is {type(frame).__name__}, not bytes")
    decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    try:
        parameters = zstandard.get_frame_parameters(frame)
        if parameters.content_size != size:
            raise RecordError(f"a column's plane declares {parameters.content_size} bytes, not {size}")
        if not parameters.has_checksum:
            raise RecordError("a column's plane has no checksum")
        return decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise RecordError(f"a column's plane is not a whole zstd frame: {error}") from None


def encode_column(values: NDArray[Any]) -> list[bytes]:
    """Unsigned integers of any shape, in C order, as planes; all-zero planes at the top are left out."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    planes = little.reshape(-1).view(np.uint8).reshape(little.size, little.itemsize)
    if len(planes) > MAX_COLUMN_BYTES // little.itemsize:
        raise RecordError(f"a column of {little.nbytes} bytes is over the limit of {MAX_COLUMN_BYTES}")
    used = np.flatnonzero(planes.any(axis=0))
    count = int(used[-1]) + 1 if len(used) else 0
    top = LEVEL_TOP if len(planes) <= LONG else LEVEL_LONG
    return [
        compress(np.ascontiguousarray(planes[:, i]).tobytes(), top if i == count - 1 else LEVEL_NOISE)
        for i in range(count)
    ]


def decode_column(planes: Any, itemsize: int, count: int) -> NDArray[Any]:
    """The `count` numbers of a column as unsigned integers of `itemsize` (1, 2 or 4) bytes, [count]."""
    if not isinstance(planes, list) or len(planes) > itemsize:
        raise RecordError(f"a column is not a list of at most {itemsize} planes")
    if count * itemsize > MAX_COLUMN_BYTES:
        raise RecordError(f"a column of {count * itemsize} bytes is over the limit of {MAX_COLUMN_BYTES}")
    if itemsize == 1 and planes:
        return np.frombuffer(decompress(planes[0], count), np.uint8)
    out = np.zeros((count, itemsize), np.uint8)
    for i, plane in enumerate(planes):
        out[:, i] = np.frombuffer(decompress(plane, count), np.uint8)
    return out.reshape(-1).view(np.dtype(f"<u{itemsize}"))
