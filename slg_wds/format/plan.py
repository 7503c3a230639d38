"""The plan: which image is which sample of which shard <-> bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast, overload

import msgpack
import numpy as np
import zstandard
from numpy.typing import NDArray

from slg_wds.errors import ManifestError, UnsupportedFeatureError

VERSION = 1
KINDS = ("folder", "shards")
MAX_SAMPLES = 1 << 28
MAX_SHARDS = 1 << 24
MAX_TEXT_BYTES = 1 << 33
_LEVEL = 6


class StringColumn(Sequence[str]):
    """Many strings in one blob of UTF-8: [i] decodes one, [a:b] gives a list."""

    def __init__(self, blob: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self.blob, self.starts, self.ends = blob, starts, ends

    @classmethod
    def of(cls, strings: Iterable[str]) -> StringColumn:
        """A column of these strings. Raises ManifestError for text that is not UTF-8."""
        try:
            parts = [text.encode("utf-8") for text in strings]
        except UnicodeEncodeError as error:
            raise ManifestError(f"a name is not UTF-8: {error.object!r}") from None
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(b"".join(parts), np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(parts)], ends)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            spans = zip(self.starts[i].tolist(), self.ends[i].tolist(), strict=True)
            return [self.blob[a:b].decode("utf-8") for a, b in spans]
        return self.blob[self.starts[i] : self.ends[i]].decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), 4096):
            yield from self[first : first + 4096]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StringColumn):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class PlannedShard:
    """One shard of a plan: its number, its name, and its samples [start, stop) in the plan's order.

    targets: int32 [n], -1 for none. image_shard, image_offset, image_size: the tar of images that its images lie in
    and where, None unless the source is image shards.
    """

    number: int
    name: str
    start: int
    stop: int
    keys: list[str]
    paths: list[str]
    targets: NDArray[np.int32]
    image_shard: str | None
    image_offset: NDArray[np.int64] | None
    image_size: NDArray[np.int64] | None

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Plan:
    """Which image is which sample of which shard, N samples in n shards, in shard order.

    shard_names: [n], without ".tar". shard_sizes: int64 [n], samples of each. paths, keys: [N].
    targets: int32 [N], -1 for none. source: "folder" or "shards" (tars of images).
    image_shards: [n] file names of the tars of images, image_offset, image_size: int64 [N], where each image's bytes
    lie within its tar; all None for a folder.
    """

    shard_names: list[str]
    shard_sizes: NDArray[np.int64]
    paths: StringColumn
    keys: StringColumn
    targets: NDArray[np.int32]
    source: str = "folder"
    image_shards: list[str] | None = None
    image_offset: NDArray[np.int64] | None = None
    image_size: NDArray[np.int64] | None = None

    @property
    def num_samples(self) -> int:
        return len(self.paths)

    @property
    def num_shards(self) -> int:
        return len(self.shard_names)

    def shard(self, number: int) -> PlannedShard:
        """The samples of shard `number`."""
        start = int(self.shard_sizes[:number].sum())
        stop = start + int(self.shard_sizes[number])
        part = slice(start, stop)
        return PlannedShard(
            number=number,
            name=self.shard_names[number],
            start=start,
            stop=stop,
            keys=self.keys[part],
            paths=self.paths[part],
            targets=self.targets[part],
            image_shard=self.image_shards[number] if self.image_shards is not None else None,
            image_offset=self.image_offset[part] if self.image_offset is not None else None,
            image_size=self.image_size[part] if self.image_size is not None else None,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return (
            (self.source, self.shard_names, self.image_shards)
            == (other.source, other.shard_names, other.image_shards)
            and all(
                (a is None) == (b is None) and (a is None or np.array_equal(a, cast(Any, b)))
                for a, b in zip(self._arrays(), other._arrays(), strict=True)
            )
            and self.paths == other.paths
            and self.keys == other.keys
        )

    __hash__ = None  # type: ignore[assignment]

    def _arrays(self) -> list[NDArray[Any] | None]:
        return [self.shard_sizes, self.targets, self.image_offset, self.image_size]


def encode_plan(plan: Plan) -> bytes:
    """The bytes of a plan, the same for the same plan. Raises ManifestError for one that does not fit together."""
    _check_plan(plan)
    paths, keys = plan.paths[:], plan.keys[:]
    if len(set(keys)) != len(keys):
        raise ManifestError("two images of a plan have one key")
    # Most keys are their path's beginning: only the length of those is stored.
    begins = np.fromiter((p.startswith(k) for p, k in zip(paths, keys, strict=True)), bool, len(keys))
    other = StringColumn.of(key for key, simple in zip(keys, begins, strict=True) if not simple)
    column = StringColumn.of(paths)
    fields = {
        "version": VERSION,
        "source": plan.source,
        "num_shards": plan.num_shards,
        "num_samples": plan.num_samples,
        "shard_names": _pack_texts(StringColumn.of(plan.shard_names)),
        "shard_sizes": _pack(plan.shard_sizes, "<u4"),
        "paths": _pack_texts(column),
        "key_begins_path": _pack(np.packbits(begins, bitorder="little"), "u1"),
        "key_lengths": _pack(np.array([len(key.encode("utf-8")) for key in keys], np.int64), "<u4"),
        "other_keys": _frame(other.blob),
        "targets": _pack(plan.targets, "<i4"),
        "image_shards": None,
    }
    if plan.image_shards is not None:
        fields["image_shards"] = _pack_texts(StringColumn.of(plan.image_shards))
        fields["image_offset"] = _pack(cast(Any, plan.image_offset), "<u8")
        fields["image_size"] = _pack(cast(Any, plan.image_size), "<u8")
    return cast(bytes, msgpack.packb(fields))


def _check_plan(plan: Plan) -> None:
    N, n = plan.num_samples, plan.num_shards
    lengths = (len(plan.keys), len(plan.targets), len(plan.shard_sizes), int(plan.shard_sizes.sum()))
    if lengths != (N, N, n, N):
        raise ManifestError(f"keys, targets, shards and their samples number {lengths}, not {(N, N, n, N)}")
    if len(set(plan.shard_names)) != n or any(not name or "\n" in name for name in plan.shard_names):
        raise ManifestError("the names of shards are not distinct single lines")
    if N and (plan.shard_sizes.min() < 0 or plan.targets.min() < -1):
        raise ManifestError("a shard's size or a target is negative")
    external = (plan.image_shards, plan.image_offset, plan.image_size)
    if plan.source not in KINDS or any((part is not None) != (plan.source == "shards") for part in external):
        raise ManifestError(f"the source {plan.source!r} does not go with where images lie")
    if plan.image_shards is not None:
        found = (len(plan.image_shards), len(cast(Any, plan.image_offset)), len(cast(Any, plan.image_size)))
        if found != (n, N, N):
            raise ManifestError(f"tars of images, offsets and sizes number {found}, not {(n, N, N)}")


def _frame(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor(_LEVEL, write_checksum=True, write_content_size=True)
    return compressor.compress(data)


def _pack(values: NDArray[Any], kind: str) -> bytes:
    numbers = np.ascontiguousarray(values).astype(kind)
    if not np.array_equal(numbers, values):
        raise ManifestError(f"numbers of a plan do not fit {kind}")
    return _frame(numbers.view(np.uint8).reshape(-1, numbers.itemsize).T.tobytes())


def _pack_texts(column: StringColumn) -> list[bytes]:
    return [_pack(column.ends - column.starts, "<u4"), _frame(column.blob)]


def decode_plan(data: bytes | memoryview) -> Plan:
    """A plan from its bytes. Raises ManifestError for every malformation, UnsupportedFeatureError if newer."""
    fields = _unpack(data)
    n, N = (_count(fields, *what) for what in (("num_shards", MAX_SHARDS), ("num_samples", MAX_SAMPLES)))
    paths = _unpack_texts(fields.get("paths"), N)
    external = fields.get("image_shards") is not None
    plan = Plan(
        shard_names=_unpack_texts(fields.get("shard_names"), n)[:],
        shard_sizes=_numbers(fields.get("shard_sizes"), "<u4", n).astype(np.int64),
        paths=paths,
        keys=_unpack_keys(fields, paths, N),
        targets=_numbers(fields.get("targets"), "<i4", N),
        source=fields.get("source", ""),
        image_shards=_unpack_texts(fields["image_shards"], n)[:] if external else None,
        image_offset=_numbers(fields.get("image_offset"), "<u8", N).astype(np.int64) if external else None,
        image_size=_numbers(fields.get("image_size"), "<u8", N).astype(np.int64) if external else None,
    )
    _check_plan(plan)
    return plan


def _unpack(data: bytes | memoryview) -> dict[str, Any]:
    try:
        fields = msgpack.unpackb(data, max_array_len=64, max_map_len=256, max_ext_len=0)
    except Exception as error:  # msgpack raises many kinds for bytes that are not msgpack
        raise ManifestError(f"the plan is not msgpack: {type(error).__name__} {error}") from None
    if not isinstance(fields, dict) or type(fields.get("version")) is not int:
        raise ManifestError("the plan is not a map with a version")
    if fields["version"] != VERSION:
        raise UnsupportedFeatureError(
            f"the plan's version is {fields['version']}, this reader knows {VERSION}", hint="update slg-wds"
        )
    return fields


def _count(fields: dict[str, Any], name: str, limit: int) -> int:
    number = fields.get(name)
    if type(number) is not int or not 0 <= number <= limit:
        raise ManifestError(f"the plan's {name} is {number!r}, not a whole number up to {limit}")
    return number


def _content(frame: Any, size: int) -> bytes:
    if not isinstance(frame, bytes):
        raise ManifestError("a column of the plan is not bytes")
    if size > MAX_TEXT_BYTES:
        raise ManifestError(f"a column of {size} bytes is over the limit of {MAX_TEXT_BYTES}")
    try:
        parameters = zstandard.get_frame_parameters(frame)
        if parameters.content_size != size or not parameters.has_checksum:
            raise ManifestError(f"a column of the plan is not a checksummed frame of {size} bytes")
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ManifestError(f"a column of the plan is not a whole zstd frame: {error}") from None


def _numbers(frame: Any, kind: str, count: int) -> NDArray[Any]:
    dtype = np.dtype(kind)
    planes = np.frombuffer(_content(frame, count * dtype.itemsize), np.uint8).reshape(dtype.itemsize, count)
    return np.ascontiguousarray(planes.T).view(dtype).reshape(count)


def _unpack_texts(parts: Any, count: int) -> StringColumn:
    if not isinstance(parts, list) or len(parts) != 2:
        raise ManifestError("a column of names is not a pair of lengths and text")
    ends = np.cumsum(_numbers(parts[0], "<u4", count), dtype=np.int64)
    starts = ends - np.diff(ends, prepend=0)
    blob = _content(parts[1], int(ends[-1]) if count else 0)
    _check_text(blob, starts, ends)
    return StringColumn(blob, starts, ends)


def _unpack_keys(fields: dict[str, Any], paths: StringColumn, count: int) -> StringColumn:
    lengths = _numbers(fields.get("key_lengths"), "<u4", count).astype(np.int64)
    bits = _numbers(fields.get("key_begins_path"), "u1", (count + 7) // 8)
    begins = np.unpackbits(bits, count=count, bitorder="little").view(np.bool_)
    if (lengths[begins] > (paths.ends - paths.starts)[begins]).any():
        raise ManifestError("a key is longer than the path it begins")
    others = np.cumsum(np.where(begins, 0, lengths))
    text = _content(fields.get("other_keys"), int(others[-1]) if count else 0)
    starts = np.where(begins, paths.starts, len(paths.blob) + others - lengths)
    column = StringColumn(paths.blob + text, starts, starts + lengths)
    _check_text(text, column.starts[~begins] - len(paths.blob), column.ends[~begins] - len(paths.blob))
    _check_edges(np.frombuffer(column.blob, np.uint8), column.ends[begins])
    return column


def _check_text(blob: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
    try:
        blob.decode("utf-8")
    except UnicodeDecodeError:
        raise ManifestError("a name in the plan is not UTF-8") from None
    _check_edges(np.frombuffer(blob, np.uint8), starts)


def _check_edges(blob: NDArray[np.uint8], edges: NDArray[np.int64]) -> None:
    """That no edge lies within a character: bytes 10xxxxxx continue one."""
    inner = edges[edges < len(blob)]
    if ((blob[inner] & 0xC0) == 0x80).any():
        raise ManifestError("a name in the plan is not UTF-8")
