"""One column of numbers <-> one zstd frame: little-endian, byte-shuffled, with content size and checksum."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import zstandard
from numpy.typing import DTypeLike, NDArray

from slg_wds.errors import RecordError

LEVEL = 3
MAX_COLUMN_BYTES = 1 << 28

_local = threading.local()


def compress(data: bytes | memoryview, level: int = LEVEL) -> bytes:
    """One zstd frame with content size and checksum, as every column is stored."""
    compressors: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in compressors:
        compressors[level] = zstandard.ZstdCompressor(level, write_checksum=True, write_content_size=True)
    return compressors[level].compress(data)


def decompress(frame: Any, size: int) -> bytes:
    """The content of one zstd frame, which must declare exactly `size` bytes and carry a checksum.

    Raises RecordError; nothing is allocated before the declared size has been compared.
    """
    if not isinstance(frame, (bytes, memoryview)):
        raise RecordError(f"a column is {type(frame).__name__}, not bytes")
    if not 0 <= size <= MAX_COLUMN_BYTES:
        raise RecordError(f"a column of {size} bytes is over the limit of {MAX_COLUMN_BYTES}")
    try:
        parameters = zstandard.get_frame_parameters(frame)
    except zstandard.ZstdError as error:
        raise RecordError(f"a column is not a zstd frame: {error}") from None
    if parameters.content_size != size:
        raise RecordError(f"a column declares {parameters.content_size} bytes where {size} are needed")
    if not parameters.has_checksum:
        raise RecordError("a column has no checksum")
    decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    try:
        content = decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise RecordError(f"a column does not decompress: {error}") from None
    if len(content) != size:
        raise RecordError(f"a column holds {len(content)} bytes where {size} are needed")
    return content


def encode_column(values: NDArray[Any], dtype: DTypeLike) -> bytes:
    """Numbers of any shape, in C order, as one frame of `dtype`; the caller has checked that they fit."""
    little = np.dtype(dtype).newbyteorder("<")
    flat = np.ascontiguousarray(values, dtype=little).reshape(-1)
    if flat.nbytes > MAX_COLUMN_BYTES:
        raise RecordError(f"a column of {flat.nbytes} bytes is over the limit of {MAX_COLUMN_BYTES}")
    planes = flat.view(np.uint8).reshape(-1, little.itemsize)
    return compress(np.ascontiguousarray(planes.T).tobytes())


def decode_column(frame: Any, dtype: DTypeLike, count: int) -> NDArray[Any]:
    """The `count` numbers of one frame, [count] of `dtype`."""
    little = np.dtype(dtype).newbyteorder("<")
    content = np.frombuffer(decompress(frame, count * little.itemsize), np.uint8)
    if little.itemsize == 1:
        return content.view(little)
    planes = content.reshape(little.itemsize, count)
    return np.ascontiguousarray(planes.T).view(little).reshape(count)
