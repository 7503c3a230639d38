"""Bytes <-> one zstd frame with content size and checksum: how everything in a label set is compressed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from slg_wds.errors import FormatError
from slg_wds.format.counting import before

_local = threading.local()

# Repetitions of fewer bytes are not looked for in noise: they save little, and are slow to read.
_LEAST_MATCH, _HASH_LOG = 7, 6


def compress(data: bytes | memoryview, level: int) -> bytes:
    """Compress bytes into one frame, at a level of zstd."""
    return _compressor(level).compress(data)


def compress_noise(data: bytes | memoryview) -> bytes:
    """Compress bytes of which some values are more frequent than others, but few follow from those before them."""
    return _compressor(None).compress(data)


def _compressor(level: int | None) -> zstandard.ZstdCompressor:
    """Return this thread's compressor of a level, or, for None, of noise: making one takes longer than using it."""
    kept: dict[int | None, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in kept:
        kept[level] = _new_compressor(level)
    return kept[level]


def _new_compressor(level: int | None) -> zstandard.ZstdCompressor:
    if level is not None:
        return zstandard.ZstdCompressor(level, write_checksum=True, write_content_size=True)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        1, min_match=_LEAST_MATCH, hash_log=_HASH_LOG, write_checksum=True, write_content_size=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def content_size(frame: Any) -> int:
    """Return the size in bytes that a frame declares for its content; 0 if it is no frame."""
    try:
        return max(0, int(zstandard.frame_content_size(frame))) if isinstance(frame, bytes) else 0
    except zstandard.ZstdError:
        return 0


def decompress(frame: Any, size: int, error: type[FormatError]) -> bytes:
    """Decompress one frame.

    No memory is taken before the declared size has been compared with `size`.

    Args:
        frame: the frame.
        size: the size of the content in bytes, which the frame must declare.
        error: the error to raise.

    Raises:
        error: the frame is damaged, has no checksum, or declares another size.
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
    frames: Sequence[Any], sizes: Sequence[int] | NDArray[np.int64], error: type[FormatError]
) -> bytes | memoryview:
    """Decompress several frames in one call of the library, each checked as `decompress` checks it.

    Args:
        frames: the frames.
        sizes: the size of each content in bytes.
        error: the error to raise.

    Returns:
        The contents, joined.
    """
    decompressor, declared = _decompressor(), np.array(sizes, "<u8")
    # The library frees its memory twice if all contents are empty. Without its C backend it lacks this call.
    if not frames or not declared.all() or not hasattr(decompressor, "multi_decompress_to_buffer"):
        pairs = zip(frames, declared.tolist(), strict=True)
        return b"".join(decompress(frame, size, error) for frame, size in pairs)
    if set(map(type, frames)) != {bytes}:
        raise error("a zstd frame is not bytes")
    if (wrong := _wrong(frames, declared)) is not None:
        raise error(f"a zstd frame {wrong}")
    try:
        found: Any = decompressor.multi_decompress_to_buffer(list(frames), declared.tobytes(), threads=0)
    except (zstandard.ZstdError, ValueError) as cause:
        raise error(f"a zstd frame is damaged: {cause}") from None
    return b"".join(found)


# A frame begins with its magic number and a descriptor; a window, a dictionary's number and the content's size may
# follow. Then come blocks, each after its length (RFC 8878, 3.1.1).
_MAGIC = 0xFD2FB528
_HEAD_BYTES = 4 + 1 + 1 + 4 + 8 + 8  # at most, and the eight bytes that are read from there on
_DICTIONARY_BYTES = np.array([0, 1, 2, 4])  # by the last two bits of the descriptor
_SIZE_BYTES = np.array([0, 2, 4, 8])  # by its first two
_MASK = np.array([(1 << 8 * width) - 1 for width in range(9)], np.uint64)


def _wrong(frames: Sequence[bytes], sizes: NDArray[np.uint64]) -> str | None:
    """Say what is wrong with the headers or lengths of any of the frames; None for nothing. All are checked at once."""
    lengths = np.fromiter(map(len, frames), np.int64, len(frames))
    heads = [frame[:_HEAD_BYTES] for frame in frames]  # what is read beyond a short frame is not its own
    joined = b"".join([*heads, bytes(_HEAD_BYTES)])
    # At every byte, the number that its eight bytes from there on make.
    numbers = np.ndarray(len(joined) - 7, "<u8", joined, strides=(1,))
    at = before(np.minimum(lengths, _HEAD_BYTES))
    first = numbers[at]
    descriptor = (first >> 32 & 255).astype(np.int64)
    if (first & _MASK[4] != _MAGIC).any() or not (descriptor & 4).all():
        return "is none, or has no checksum"
    single = descriptor >> 5 & 1
    width = np.where(descriptor < 64, single, _SIZE_BYTES[descriptor >> 6])
    header = 6 - single + _DICTIONARY_BYTES[descriptor & 3]
    declared = (numbers[at + header] & _MASK[width]) + np.where(width == 2, 256, 0).astype(np.uint64)
    if not width.all() or (declared != sizes).any():
        return "does not declare the bytes that belong"
    header += width
    block = (numbers[at + header] & _MASK[3]).astype(np.int64)
    ends = np.where(block & 1, header + _block_bytes(block) + 4, 0)
    for i in np.flatnonzero(ends == 0).tolist():  # of several blocks
        ends[i] = _end(frames[i], int(header[i]))
    if (ends != lengths).any():
        return "is damaged: it ends before its bytes do, or after"
    return None


def _block_bytes(block: Any) -> Any:
    """Return the bytes of a block (or of each) by its header. A block of the kind "run" always stores one byte."""
    run = block & 6 == 2
    return 4 * run + (1 - run) * (3 + (block >> 3))


def _end(frame: bytes, at: int) -> int:
    """Return where a frame with a checksum ends, if its first block begins at byte `at`."""
    while True:
        block = int.from_bytes(frame[at : at + 3], "little")
        at += _block_bytes(block)
        if block & 1 or at >= len(frame):
            return at + 4


def _decompressor() -> zstandard.ZstdDecompressor:
    found: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if found is None:
        found = _local.decompressor = zstandard.ZstdDecompressor()
    return found
