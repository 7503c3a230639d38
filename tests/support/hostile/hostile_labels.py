"""Records and plans that exhaust memory: small files that decompress to a lot."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import numpy as np
import zstandard

Hostile = dict[
    str, tuple[str, Callable[[], bytes], str | None]
]  # name -> reader, bytes, what its refusal says (None: it is read)


def frame(size: int, byte: bytes = b"\0") -> bytes:
    """One zstd frame of `size` equal bytes."""
    compressor = zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True)
    stream = compressor.compressobj(size)
    piece = byte * (1 << 20)
    parts = [stream.compress(piece[: min(len(piece), size - at)]) for at in range(0, size, len(piece))]
    return b"".join([*parts, stream.flush()])


def record(**new: object) -> bytes:
    fields = {
        "version": 1, "key": "a", "path": "a.jpg", "target": None, "height": 1, "width": 1, "num_crops": 1, "k": 1,
        "num_classes": 1 << 24, "coding": "float32", "full": False, "num_palette": 1, "num_tail": 0,
        "tail_scale": 0.0, "tail_rest": 0.0, **new,
    }  # fmt: skip
    return msgpack.packb(fields, use_single_float=True)


def columns(M: int, width: int, **more: object) -> dict[str, object]:
    """Whole columns of M crops: boxes of one pixel, values of 0."""
    ones = bytes(2 * M) + b"\1" * (2 * M)
    boxes = zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(ones)
    values = [frame(M * width)] * 4
    return {"columns": {"boxes": [boxes], "flips": [], "values": values, **more}}


def full_record() -> bytes:
    M, C = 32, 1 << 20
    new = {"num_crops": M, "k": C, "num_classes": C, "full": True, "num_palette": 0}
    return record(**new, **columns(M, C))


def many_crops() -> bytes:
    """2^20 crops, the most that a record may have, of the same 16 classes."""
    M, k = 1 << 20, 16
    codes = zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(
        bytes(range(k)) * M
    )
    palette = zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(
        b"\0" + b"\1" * (k - 1)
    )
    new = {"num_crops": M, "k": k, "num_palette": k}
    return record(**new, **columns(M, k, palette=[palette], codes=[codes, *[frame(k * M)] * 3]))


def many_classes() -> bytes:
    """A palette and a tail of as many classes as the format allows."""
    M, P, m = 1 << 10, 1 << 20, 1 << 18
    steps, tail = frame(P, b"\1"), frame(m, b"\1")
    codes = zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(
        np.arange(P, dtype="<u4").view(np.uint8).reshape(-1, 4)[:, 0].tobytes()
    )
    planes = [
        zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(
            np.ascontiguousarray(np.arange(P, dtype="<u4").view(np.uint8).reshape(-1, 4)[:, at]).tobytes()
        )
        for at in range(3)
    ]
    assert codes == planes[0]
    more = {"palette": [steps], "codes": planes, "tail_classes": [tail], "tail_codes": [frame(m)]}
    new = {"num_crops": M, "k": P // M, "num_palette": P, "num_tail": m, "tail_scale": 1.0}
    return record(**new, **columns(M, P // M, **more))


def outside() -> bytes:
    return record(**columns(1, 1, palette=[], codes=[], outside=[frame(1 << 25)] * 4))


def plan(**new: object) -> bytes:
    empty = frame(0)
    fields = {
        "version": 1, "source": "folder", "num_shards": 0, "num_samples": 0, "shard_names": [empty, empty],
        "shard_sizes": empty, "paths": [empty, empty], "key_begins_path": empty, "key_lengths": empty,
        "other_keys": empty, "targets": empty, **new,
    }  # fmt: skip
    return msgpack.packb(fields)


def vector(value: int, count: int) -> bytes:
    return zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(
        b"".join(bytes([value >> 8 * at & 255]) * count for at in range(4))
    )


def large_plan(text: Callable[[int], bytes]) -> bytes:
    """A small plan of 2^20 images, with paths of 127 bytes that are the keys too."""
    N, length = 1 << 20, 127
    return plan(
        num_samples=N, num_shards=1, shard_names=[vector(1, 1), text(1)], shard_sizes=vector(N, 1),
        paths=[vector(length, N), text(N * length)], key_begins_path=frame(N // 8, b"\xff"),
        key_lengths=vector(length, N), targets=vector(0, N),
    )  # fmt: skip


def one_long_path() -> bytes:
    size = 120 << 20
    return plan(
        num_samples=1, num_shards=1, shard_names=[vector(1, 1), frame(1, b"a")], shard_sizes=vector(1, 1),
        paths=[vector(size, 1), frame(size, b"/")], key_begins_path=frame(1, b"\1"), key_lengths=vector(size, 1),
        targets=vector(0, 1),
    )  # fmt: skip


def embeddings(count: int, dim: int) -> bytes:
    """A record of one crop with `count` embeddings of `dim` zeros."""
    names = [[str(number), dim, "int8"] for number in range(count)]
    frames = {"embedding": [frame(dim)], "scales": []}
    zeros = {f"{part}_{number}": frames[part] for number in range(count) for part in frames}
    boxes = zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(b"\0\0\1\1")
    return record(
        k=0, num_classes=0, num_palette=0, coding="embedding", embeddings=names,
        columns={"boxes": [boxes], "flips": [], **zeros},
    )  # fmt: skip


RECORDS_AND_PLANS: Hostile = {
    "frame of 1 GiB for one number": (
        "record",
        lambda: record(
            columns={"boxes": [frame(1 << 30)], "flips": [], "palette": [], "codes": [], "values": []}
        ),
        "declares",
    ),
    "full record": ("record", full_record, None),
    "full record of too many classes": (
        "record",
        lambda: record(k=1 << 24, num_classes=1 << 24, full=True, num_palette=0, columns={}),
        "over the limit",
    ),
    "many crops": ("record", many_crops, None),
    "many classes": ("record", many_classes, None),
    "crops times k": ("record", lambda: record(num_crops=1 << 20, k=1 << 23, columns={}), "over the limit"),
    "outside": ("record", outside, None),
    "embeddings": ("record", lambda: embeddings(16, 1 << 16), None),
    "embeddings of too many numbers": ("record", lambda: embeddings(16, 1 << 24), "is unknown"),
    "array of 2^32": ("record", lambda: b"\xdd\xff\xff\xff\xff", "not a map"),
    "field of 2^32": ("record", lambda: b"\x81\xa5views\xdd\xff\xff\xff\xff", "not msgpack"),
    "map of 2^32": ("record", lambda: b"\xdf\xff\xff\xff\xff", "not msgpack"),
    "bytes of 2^32": ("record", lambda: b"\x81\xa1a\xc6\xff\xff\xff\xff", "not msgpack"),
    "a million arrays": (
        "record",
        lambda: b"\x81\xa7lowrank\xdd\0\x01\0\0" + (b"\xdc\0\x40" + b"\x90" * 64) * (1 << 16),
        "not a map",
    ),
    "arrays in arrays": ("record", lambda: b"\x91" * (1 << 20) + b"\x90", "not a map"),
    "arrays in a field": ("record", lambda: b"\x81\xa6colour" + b"\x91" * (1 << 20) + b"\x90", "not msgpack"),
    "plan of long paths": ("plan", lambda: large_plan(lambda size: frame(size, b"a")), None),
    "plan of 2^34 bytes": (
        "plan",
        lambda: plan(num_samples=1, paths=[vector((1 << 32) - 1, 1), frame(1 << 28)]),
        "more than there can be|declares|over",
    ),
    "plan of 2^28 images": ("plan", lambda: plan(num_samples=1 << 28), "more than there can be"),
    "plan of 2^24 shards": ("plan", lambda: plan(num_shards=1 << 24), "more than there can be"),
    "plan of one long path": ("plan", one_long_path, "over 4096 bytes"),
    "plan of arrays": (
        "plan",
        lambda: b"\x81\xa5paths\xdd\0\x01\0\0" + (b"\xdc\0\x40" + b"\x90" * 64) * (1 << 16),
        "not a map",
    ),
}
