"""Numbers <-> columns: byte planes, the least significant first, each one zstd frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.frames import compress, decompress

MAX_NUMBERS = 1 << 25
MAX_PLANES = 4

# Measured on real labels: the most significant plane is worth a thorough search, the planes below it are
# noise that no level shrinks. Long planes (label kind "full") would take a thorough search too long.
_LEVEL_TOP = 12
_LEVEL_NOISE = 1
_LEVEL_LONG = 3
_LONG = 1 << 16


def encode_column(values: NDArray[Any]) -> list[bytes]:
    """Unsigned integers of any shape, in C order, as planes; planes of zeros at the top are left out."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    if not _count(little.shape):
        return []
    planes = little.reshape(-1).view(np.uint8).reshape(little.size, little.itemsize)
    count = (int(little.max()).bit_length() + 7) // 8
    top = _LEVEL_TOP if little.size <= _LONG else _LEVEL_LONG
    return [
        compress(np.ascontiguousarray(planes[:, i]).data, top if i == count - 1 else _LEVEL_NOISE)
        for i in range(count)
    ]


def decode_column(planes: Any, shape: tuple[int, ...], at: Any = ..., itemsize: int = 0) -> NDArray[Any]:
    """A column of `shape`, or its part [at], as unsigned integers, little-endian.

    `itemsize` is that of the result and bounds the number of planes; 0 for the smallest of 1, 2, 4 that serves.
    """
    count = _count(shape)
    most = itemsize or MAX_PLANES
    if type(planes) is not list or len(planes) > most:
        raise RecordError(f"a column is not a list of at most {most} planes")
    itemsize = itemsize or (1, 1, 2, 4, 4)[len(planes)]
    contents = [decompress(plane, count, RecordError) for plane in planes] or [bytes(count)]
    parts: list[NDArray[np.uint8]] = [np.frombuffer(plane, np.uint8).reshape(shape)[at] for plane in contents]
    if itemsize == 1:
        return parts[0]
    out = np.zeros((*parts[0].shape, itemsize), np.uint8)
    for i, part in enumerate(parts):
        out[..., i] = part
    numbers: NDArray[Any] = out.view(f"<u{itemsize}")[..., 0]
    return numbers


def _count(shape: tuple[int, ...]) -> int:
    # Not np.prod, which takes longer and overflows.
    count = 1
    for length in shape:
        count *= length
    if count > MAX_NUMBERS:
        raise RecordError(f"a column of {count} numbers is over the limit of {MAX_NUMBERS}")
    return count


def encode_ascending(classes: NDArray[np.int64]) -> list[bytes]:
    """Ascending classes [n] as a column of the first one and then the steps."""
    return encode_column(np.diff(classes, prepend=0).astype(np.uint32))


def decode_ascending(planes: Any, count: int, num_classes: int) -> NDArray[np.int64]:
    """Ascending classes, int64 [count]. Raises RecordError unless each is above the last, below num_classes."""
    steps = decode_column(planes, (count,))
    classes = steps.cumsum(dtype=np.int64)
    if count and (classes[-1] >= num_classes or not steps[1:].all()):
        raise RecordError(f"a list of classes does not ascend below {num_classes}")
    return classes
