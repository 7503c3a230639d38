"""A plan <-> bytes: a msgpack map of zstd frames."""

from __future__ import annotations

import functools
from typing import Any, TypedDict

import msgpack
import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import ManifestError
from slg_wds.format.canonical import check_version, typed
from slg_wds.format.frames import compress, content_size, decompress
from slg_wds.format.manifest.plan import FOLDER, Plan
from slg_wds.format.manifest.strings import LaterColumn, StringColumn
from slg_wds.format.packed import Frames, Single, Unpacker

VERSION = 1
MAX_SAMPLES = 1 << 28
MAX_SHARDS = 1 << 24
MAX_TEXT_BYTES = 1 << 34
# What a small file may unpack to: a number, and so many more for each byte of the file. Shuffled images take at least
# two bytes each, and texts that repeat compress a hundred times at most.
_SAMPLES, _SHARDS, _TEXT = (1 << 20, 4), (1 << 18, 1), (1 << 27, 128)
_LEVEL = 6


class _PlanShape(TypedDict, total=False):
    version: Single
    source: Single
    num_shards: Single
    num_samples: Single
    shard_names: Frames
    shard_sizes: Frames
    paths: Frames
    key_begins_path: Frames
    key_lengths: Frames
    other_keys: Frames
    targets: Frames
    image_shards: Frames
    image_offset: Frames
    image_size: Frames


_unpack_fields = Unpacker(_PlanShape, VERSION, "plan", ManifestError)


def encode_plan(plan: Plan) -> bytes:
    """Encode a plan. Raises ManifestError if its parts do not agree or two keys are the same."""
    plan.check()
    fields = {
        "version": VERSION,
        "source": plan.source,
        "num_shards": plan.num_shards,
        "num_samples": plan.num_samples,
        "shard_names": _pack_strings(StringColumn.of(plan.shard_names)),
        "shard_sizes": _pack(plan.shard_sizes, "<u4"),
        **_pack_names(plan.paths[:], plan.keys[:]),
        "targets": _pack(plan.targets, "<i4"),
    }
    if plan.source != FOLDER:
        fields["image_shards"] = _pack_strings(StringColumn.of(plan.image_shards or []))
        fields["image_offset"] = _pack(plan.image_offset, "<u8")
        fields["image_size"] = _pack(plan.image_size, "<u8")
    data: bytes = msgpack.packb(fields)
    _check_sizes(fields, len(data))
    return data


def _check_sizes(fields: dict[str, Any], size: int) -> None:
    """Check that a plan of `size` bytes does not unpack to far more, before any of it is unpacked."""
    n, N = typed(fields, "num_shards", int), typed(fields, "num_samples", int)
    if n > MAX_SHARDS or N > MAX_SAMPLES:
        raise ManifestError(f"{n} shards of {N} samples are over {MAX_SHARDS} or {MAX_SAMPLES}")
    pairs = [fields.get(name) for name in ("paths", "shard_names", "image_shards")]
    frames = [pair[1] for pair in pairs if isinstance(pair, list) and len(pair) == 2] + [
        fields.get("other_keys")
    ]
    text = sum(content_size(frame) for frame in frames)
    for what, number, (free, each) in (
        ("samples", N, _SAMPLES),
        ("shards", n, _SHARDS),
        ("bytes of names", text, _TEXT),
    ):
        if number > free + each * size:
            raise ManifestError(f"{number} {what} in a plan of {size} bytes are more than there can be")


def _pack_names(paths: list[str], keys: list[str]) -> dict[str, Any]:
    if len(set(keys)) != len(keys):
        raise ManifestError("two images of the plan have one key")
    # Nearly every key is the beginning of its path: then only its length is stored.
    begins = np.fromiter(map(str.startswith, paths, keys), bool, len(keys))
    lengths = np.fromiter((len(key.encode("utf-8")) for key in keys), np.int64, len(keys))
    others = StringColumn.of(key for key, simple in zip(keys, begins.tolist(), strict=True) if not simple)
    return {
        "paths": _pack_strings(StringColumn.of(paths)),
        "key_begins_path": _pack(np.packbits(begins, bitorder="little"), "u1"),
        "key_lengths": _pack(lengths, "<u4"),
        "other_keys": compress(others.blob, _LEVEL),
    }


def _pack_strings(column: StringColumn) -> list[bytes]:
    return [_pack(column.lengths, "<u4"), compress(column.blob, _LEVEL)]


def _pack(values: Any, dtype: str) -> bytes:
    numbers = np.ascontiguousarray(values).astype(dtype)
    if not np.array_equal(numbers, values):
        raise ManifestError(f"numbers of the plan do not fit {dtype}")
    return compress(numbers.view(np.uint8).reshape(-1, numbers.itemsize).T.tobytes(), _LEVEL)


def decode_plan(data: bytes | memoryview, names_later: bool = False) -> Plan:
    """Decode a plan.

    Args:
        data: the bytes of the file.
        names_later: unpack and check the paths and keys only when the first of them is used, and raise then. For
            very many images they take most of the time.

    Raises:
        ManifestError: the bytes are no plan.
        UnsupportedFeatureError: a newer version.
    """
    fields = _unpack_fields(data)
    check_version("the plan", fields, VERSION)
    _check_sizes(fields, len(data))
    n, N = fields["num_shards"], fields["num_samples"]
    paths, keys = _names_later(data, N) if names_later else _unpack_names(fields, N)
    plan = Plan(
        shard_names=_unpack_strings(fields.get("shard_names"), n)[:],
        shard_sizes=_unpack(fields.get("shard_sizes"), "<u4", n).astype(np.int64),
        paths=paths,
        keys=keys,
        targets=_unpack(fields.get("targets"), "<i4", N),
        source=typed(fields, "source", str),
        **_unpack_places(fields, n, N),
    )
    plan.check_shards() if names_later else plan.check()
    return plan


def _names_later(data: bytes | memoryview, N: int) -> tuple[StringColumn, StringColumn]:
    whole = functools.cache(lambda: decode_plan(data))
    return LaterColumn(N, lambda: whole().paths), LaterColumn(N, lambda: whole().keys)


def _unpack_names(fields: dict[str, Any], N: int) -> tuple[StringColumn, StringColumn]:
    paths = _unpack_strings(fields.get("paths"), N)
    return paths, _unpack_keys(fields, paths)


def _unpack_places(fields: dict[str, Any], n: int, N: int) -> dict[str, Any]:
    if fields["source"] == FOLDER:
        return {}
    return {
        "image_shards": _unpack_strings(fields.get("image_shards"), n)[:],
        "image_offset": _unpack(fields.get("image_offset"), "<u8", N).astype(np.int64),
        "image_size": _unpack(fields.get("image_size"), "<u8", N).astype(np.int64),
    }


def _unpack_keys(fields: dict[str, Any], paths: StringColumn) -> StringColumn:
    N = len(paths)
    lengths = _unpack(fields.get("key_lengths"), "<u4", N).astype(np.int64)
    bits = _unpack(fields.get("key_begins_path"), "u1", (N + 7) // 8)
    begins = np.unpackbits(bits, count=N, bitorder="little").view(np.bool_)
    if (lengths[begins] > paths.lengths[begins]).any():
        raise ManifestError("a key is longer than the path that it begins")
    after = np.where(begins, 0, lengths).cumsum() + len(paths.blob)
    others = _text(fields.get("other_keys"), int(after[-1]) - len(paths.blob) if N else 0)
    starts = np.where(begins, paths.starts, after - lengths)
    keys = StringColumn(paths.blob + others if others else paths.blob, starts, starts + lengths)
    keys.check()
    return keys


def _unpack_strings(parts: Any, count: int) -> StringColumn:
    if not isinstance(parts, list) or len(parts) != 2:
        raise ManifestError("strings of the plan are not a pair of lengths and text")
    lengths = _unpack(parts[0], "<u4", count).astype(np.int64)
    column = StringColumn.joined(_text(parts[1], int(lengths.sum())), lengths)
    column.check()
    return column


def _text(frame: Any, size: int) -> bytes:
    if size > MAX_TEXT_BYTES:
        raise ManifestError(f"{size} bytes of names are over the limit of {MAX_TEXT_BYTES}")
    return decompress(frame, size, ManifestError)


def _unpack(frame: Any, kind: str, count: int) -> NDArray[Any]:
    dtype = np.dtype(kind)
    planes = np.frombuffer(decompress(frame, count * dtype.itemsize, ManifestError), np.uint8)
    out = np.empty((count, dtype.itemsize), np.uint8)
    for byte, plane in enumerate(planes.reshape(dtype.itemsize, count)):
        out[:, byte] = plane  # takes a third of the time of a transposed copy
    return out.view(dtype).reshape(count)
