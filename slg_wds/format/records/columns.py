"""Numbers <-> columns: planes of bytes, the least significant first, each plane a zstd frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.frames import compress, decompress

MAX_NUMBERS = 1 << 25
MAX_PLANES = 4

# Measured on real labels: a high level pays for the most significant plane; the planes below it are noise that no
# level shrinks. For long planes (full labels) a high level would take too long.
_LEVEL_TOP = 12
_LEVEL_NOISE = 1
_LEVEL_LONG = 3
_LONG = 1 << 16
# Embeddings are long and dense: entropy coding takes a twelfth off them, and makes readers eight times as slow. So long
# planes that shrink by less than a tenth are stored as they are, which zstd does at negative levels.
_LEVEL_STORED = -1000
_LEAST_GAIN = 0.1


def encode_column(values: NDArray[Any], stores: bool = False, level: int | None = None) -> list[bytes]:
    """Encode unsigned integers of any shape, in C order. The most significant planes are left out if they are zeros.

    Args:
        values: the numbers.
        stores: whether long planes that hardly shrink stay as they are, inside their frames.
        level: of zstd for the most significant plane; None for one that suits the number of values.
    """
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    if not _count(little.shape):
        return []
    planes = little.reshape(-1).view(np.uint8).reshape(little.size, little.itemsize)
    count = (int(little.max()).bit_length() + 7) // 8
    top = level or (_LEVEL_TOP if little.size <= _LONG else _LEVEL_LONG)
    stores = stores and little.size > _LONG
    return [
        _frame(np.ascontiguousarray(planes[:, i]).data, top if i == count - 1 else _LEVEL_NOISE, stores)
        for i in range(count)
    ]


def _frame(plane: memoryview, level: int, stores: bool) -> bytes:
    frame = compress(plane, level)
    if stores and len(frame) > (1 - _LEAST_GAIN) * plane.nbytes:
        return compress(plane, _LEVEL_STORED)
    return frame


def decode_column(planes: Any, shape: tuple[int, ...], at: Any = ..., itemsize: int = 0) -> NDArray[Any]:
    """Decode a column.

    Args:
        planes: its frames.
        shape: the shape of the numbers.
        at: an index into that shape, to get a part only.
        itemsize: bytes of each number of the result, and the most planes; 0 for the least of 1, 2, 4 that holds them.

    Returns:
        Unsigned integers, little-endian.

    Raises:
        RecordError: a frame is damaged, or there are too many.
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
    # np.prod would take longer and could overflow.
    count = 1
    for length in shape:
        count *= length
    if count > MAX_NUMBERS:
        raise RecordError(f"a column of {count} numbers is over the limit of {MAX_NUMBERS}")
    return count


def encode_ascending(classes: NDArray[np.int64]) -> list[bytes]:
    """Encode ascending classes, int64 [n], as a column: the first one, then the step to each next one."""
    return encode_column(np.diff(classes, prepend=0).astype(np.uint32))


def decode_ascending(planes: Any, count: int, num_classes: int) -> NDArray[np.int64]:
    """Decode ascending classes, int64 [count]. Raises RecordError if they do not ascend or reach `num_classes`."""
    steps = decode_column(planes, (count,))
    classes = steps.cumsum(dtype=np.int64)
    if count and (classes[-1] >= num_classes or not steps[1:].all()):
        raise RecordError(f"a list of classes does not ascend below {num_classes}")
    return classes
