"""Numbers <-> columns: planes of bytes, the least significant first, each plane a zstd frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import I64, U8
from slg_wds.errors import RecordError
from slg_wds.format.frames import compress, compress_noise, decompress
from slg_wds.format.packed import MAX_LIST

MAX_NUMBERS = 1 << 25
MAX_PLANES = 4

# Measured on real labels: a high level pays for the most significant plane; the planes below it are noise that no
# level shrinks. For long planes (full labels) a high level would take too long.
_LEVEL_TOP = 12
_LEVEL_NOISE = 1
_LEVEL_LONG = 3
_LONG = 1 << 16
# Planes of embeddings are noise in which few bytes repeat others. In short ones it does not matter how they are coded.
_SHORT = 1 << 10
# Entropy coding takes a twelfth off dense embeddings, and makes readers eight times as slow. So planes of them that
# shrink by less than a tenth are stored as they are, which zstd does at negative levels.
_LEVEL_STORED = -1000
_LEAST_GAIN = 0.1

PIECE = 16  # rows of a column in pieces that are compressed together


def encode_column(values: NDArray[Any], level: int | None = None) -> list[bytes]:
    """Encode unsigned integers of any shape, in C order. The most significant planes are left out if they are zeros.

    Args:
        values: the numbers.
        level: of zstd for the most significant plane; None for one that suits the number of values.
    """
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    if not _count(little.shape):
        return []
    planes = little.reshape(-1).view(np.uint8).reshape(little.size, little.itemsize)
    count = (int(little.max()).bit_length() + 7) // 8
    top = level or (_LEVEL_TOP if little.size <= _LONG else _LEVEL_LONG)
    return [
        compress(np.ascontiguousarray(planes[:, i]).data, top if i == count - 1 else _LEVEL_NOISE)
        for i in range(count)
    ]


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
    parts: list[U8] = [np.frombuffer(plane, np.uint8).reshape(shape)[at] for plane in contents]
    if itemsize == 1:
        return parts[0]
    out = np.zeros((*parts[0].shape, itemsize), np.uint8)
    for i, part in enumerate(parts):
        out[..., i] = part
    numbers: NDArray[Any] = out.view(f"<u{itemsize}")[..., 0]
    return numbers


def encode_pieces(numbers: NDArray[Any]) -> list[bytes]:
    """Encode unsigned integers [M, D] as a column in pieces: some rows can be decoded without most others.

    Returns:
        For every PIECE rows, of which the last ones may be fewer, a frame for each byte of the numbers, the least
        significant first.

    Raises:
        RecordError: these are more frames than a record's list may have.
    """
    little = np.ascontiguousarray(numbers, dtype=numbers.dtype.newbyteorder("<"))
    if -(-len(little) // PIECE) * little.itemsize > MAX_LIST:
        most = MAX_LIST // little.itemsize * PIECE
        raise RecordError(
            f"{len(little)} crops of embeddings are over the limit of {most}",
            hint="make fewer crops an image",
        )
    planes = little.view(np.uint8).reshape(*little.shape, little.itemsize)
    return [
        _shrunk(np.ascontiguousarray(planes[first : first + PIECE, :, p]).data)
        for first in range(0, len(planes), PIECE)
        for p in range(little.itemsize)
    ]


def _shrunk(plane: memoryview) -> bytes:
    frame = compress(plane, _LEVEL_LONG) if plane.nbytes < _SHORT else compress_noise(plane)
    return frame if len(frame) <= (1 - _LEAST_GAIN) * plane.nbytes else compress(plane, _LEVEL_STORED)


def decode_pieces(frames: Any, shape: tuple[int, int], rows: I64, itemsize: int) -> U8:
    """Decode some rows of a column in pieces.

    Args:
        frames: of the column.
        shape: (M, D) of its numbers.
        rows: int64 [...], which rows.
        itemsize: bytes of each number.

    Returns:
        The bytes of the numbers, uint8 [..., D, itemsize], the least significant first.

    Raises:
        RecordError: a frame is damaged, or there are not as many as belong.
    """
    M, D = shape
    check_pieces(frames, M, itemsize)
    out = np.zeros((*rows.shape, D, itemsize), np.uint8)
    pieces = rows // PIECE
    for piece in np.unique(pieces).tolist():
        first, here = piece * PIECE, pieces == piece
        count, inside = min(PIECE, M - first), rows[here] - first
        for p in range(itemsize):
            content = decompress(frames[piece * itemsize + p], count * D, RecordError)
            out[here, :, p] = np.frombuffer(content, np.uint8).reshape(count, D)[inside]
    return out


def check_pieces(frames: Any, M: int, itemsize: int) -> None:
    """Check that a column in pieces has as many frames as belong to M rows. Raises RecordError."""
    if type(frames) is not list or len(frames) != -(-M // PIECE) * itemsize:
        raise RecordError(f"a column is not a list of {itemsize} frames for every {PIECE} of {M} crops")


def _count(shape: tuple[int, ...]) -> int:
    # np.prod would take longer and could overflow.
    count = 1
    for length in shape:
        count *= length
    if count > MAX_NUMBERS:
        raise RecordError(f"a column of {count} numbers is over the limit of {MAX_NUMBERS}")
    return count


def encode_ascending(classes: I64) -> list[bytes]:
    """Encode ascending classes, int64 [n], as a column: the first one, then the step to each next one."""
    return encode_column(np.diff(classes, prepend=0).astype(np.uint32))


def decode_ascending(planes: Any, count: int, num_classes: int) -> I64:
    """Decode ascending classes, int64 [count]. Raises RecordError if they do not ascend or reach `num_classes`."""
    steps = decode_column(planes, (count,))
    classes = steps.cumsum(dtype=np.int64)
    if count and (classes[-1] >= num_classes or not steps[1:].all()):
        raise RecordError(f"a list of classes does not ascend below {num_classes}")
    return classes
