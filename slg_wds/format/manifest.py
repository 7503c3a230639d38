"""Plan, slg.json, index/NAME and _info.json <-> bytes."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

from slg_wds.errors import ManifestError, UnsupportedFeatureError
from slg_wds.format.canonical import canonical_json, parse_json, pretty_json, seal, unseal
from slg_wds.format.plan import Plan, PlannedShard, StringColumn, decode_plan, encode_plan
from slg_wds.format.shard import Shard, read_shard

__all__ = [
    "Description",
    "Info",
    "Plan",
    "PlannedShard",
    "ShardIndex",
    "StringColumn",
    "build_index",
    "canonical_json",
    "decode_description",
    "decode_index",
    "decode_info",
    "decode_plan",
    "differences",
    "digest",
    "encode_description",
    "encode_index",
    "encode_info",
    "encode_plan",
]

VERSION = 1

# What `requires` of slg.json may name; version 1 itself needs no name.
FEATURES: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Description:
    """What slg.json says: how the labels are made.

    identity: compared on every later run, part of the set's digest. provenance: only noted. plan_sha256: hex.
    """

    num_samples: int
    num_shards: int
    plan_sha256: str
    identity: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] | None = None
    requires: list[str] = field(default_factory=list)
    version: int = VERSION


@dataclass(frozen=True)
class ShardIndex:
    """What index/NAME says of one shard: a pure function of shard and plan.

    bytes, sha256: of the whole shard. records: [offset, size, crc32] of each record within the shard.
    images: [offset, size, crc32] within the shard where they are embedded, [offset, size] within the tar
    `image_shard` where they lie in one, else None. left_out: keys of the planned images without a sample.
    """

    name: str
    shard: int
    set_digest: str
    bytes: int
    sha256: str
    records: list[list[int]]
    images: list[list[int]] | None
    image_shard: str | None
    left_out: list[str]
    version: int = VERSION


@dataclass(frozen=True)
class Info:
    """What _info.json says of one split, as timm's WebDataset reader expects it; samples per shard are actual."""

    name: str
    filenames: list[str]
    shard_lengths: list[int]

    @property
    def num_samples(self) -> int:
        return sum(self.shard_lengths)


def digest(plan: bytes, identity: dict[str, Any]) -> str:
    """A label set's digest: hex SHA-256 of the SHA-256 of the plan's bytes and that of the identity's JSON."""
    parts = (hashlib.sha256(plan).digest(), hashlib.sha256(canonical_json(identity)).digest())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """Lines "name: a != b" for every field in which two identities differ, nested ones by dotted name."""
    if isinstance(a, dict) and isinstance(b, dict):
        lines = []
        for key in sorted({*a, *b}):
            inner = f"{name}.{key}" if name else str(key)
            lines += differences(a.get(key, _Absent()), b.get(key, _Absent()), inner)
        return lines
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) == len(b):
            pairs = enumerate(zip(a, b, strict=True))
            return [line for i, (x, y) in pairs for line in differences(x, y, f"{name}[{i}]")]
    elif isinstance(a, bool) == isinstance(b, bool) and a == b:
        return []
    return [f"{name}: {_shown(a)} != {_shown(b)}"]


class _Absent:
    """A field that one side does not have; equal to nothing but its like."""


def _shown(value: Any) -> str:
    return "absent" if isinstance(value, _Absent) else repr(value)


def encode_description(description: Description) -> bytes:
    """The bytes of slg.json, laid out for people, sealed by a CRC-32."""
    return pretty_json(seal(asdict(description)))


def decode_description(data: bytes | memoryview) -> Description:
    """slg.json from its bytes. Raises ManifestError, or UnsupportedFeatureError naming what a reader must know."""
    fields = unseal(data, pretty_json)
    _check_version("slg.json", fields)
    requires = _strings(fields, "requires")
    unknown = [name for name in requires if name not in FEATURES]
    if unknown:
        raise UnsupportedFeatureError(f"the label set requires {', '.join(unknown)}", hint="update slg-wds")
    names = None if fields.get("class_names") is None else _strings(fields, "class_names")
    return Description(
        num_samples=_typed(fields, "num_samples", int),
        num_shards=_typed(fields, "num_shards", int),
        plan_sha256=_typed(fields, "plan_sha256", str),
        identity=_typed(fields, "identity", dict),
        provenance=_typed(fields, "provenance", dict),
        class_names=names,
        requires=requires,
    )


def encode_index(index: ShardIndex) -> bytes:
    """The bytes of index/NAME: canonical JSON sealed by a CRC-32."""
    return canonical_json(seal(asdict(index)))


def decode_index(data: bytes | memoryview) -> ShardIndex:
    """index/NAME from its bytes. Raises ManifestError, or UnsupportedFeatureError for a newer version."""
    fields = unseal(data)
    _check_version("the index", fields)
    size = _typed(fields, "bytes", int)
    image_shard = None if fields.get("image_shard") is None else _typed(fields, "image_shard", str)
    images = fields.get("images")
    index = ShardIndex(
        name=_typed(fields, "name", str),
        shard=_typed(fields, "shard", int),
        set_digest=_typed(fields, "set_digest", str),
        bytes=size,
        sha256=_typed(fields, "sha256", str),
        records=_places(fields.get("records"), 3, size),
        images=None
        if images is None
        else _places(images, 2 if image_shard else 3, None if image_shard else size),
        image_shard=image_shard,
        left_out=_strings(fields, "left_out"),
    )
    if index.images is not None and len(index.images) != len(index.records):
        raise ManifestError(f"the index places {len(index.images)} images and {len(index.records)} records")
    return index


def build_index(shard: Shard | bytes | memoryview, plan: Plan, number: int) -> ShardIndex:
    """The index of shard `number`, after checking that it holds what the plan says.

    Raises the errors of read_shard, and ShardError for a shard of other images.
    """
    part = plan.shard(number)
    if not isinstance(shard, Shard):
        shard = read_shard(shard, shard=part.name)
    header = shard.header
    shard.check(header.set_digest, number, part.name, part.keys)
    left_out = [entry["key"] for entry in header.left_out]
    return ShardIndex(
        name=part.name,
        shard=number,
        set_digest=header.set_digest,
        bytes=len(shard.data),
        sha256=hashlib.sha256(shard.data).hexdigest(),
        records=[[s.record.offset, s.record.size, s.record_crc32] for s in shard.samples],
        images=_image_places(shard, part, set(left_out)),
        image_shard=part.image_shard,
        left_out=left_out,
    )


def _image_places(shard: Shard, part: PlannedShard, left_out: set[str]) -> list[list[int]] | None:
    if part.image_offset is not None and part.image_size is not None:
        places = zip(part.keys, part.image_offset.tolist(), part.image_size.tolist(), strict=True)
        return [[offset, size] for key, offset, size in places if key not in left_out]
    if not any(sample.image for sample in shard.samples):
        return None
    return [
        [sample.image.offset, sample.image.size, sample.image_crc32]
        for sample in shard.samples
        if sample.image
    ]


def encode_info(info: Info) -> bytes:
    """The bytes of _info.json."""
    return pretty_json({"splits": {info.name: {**asdict(info), "num_samples": info.num_samples}}})


def decode_info(data: bytes | memoryview) -> Info:
    """_info.json from its bytes: its only split. Raises ManifestError."""
    splits = _typed(parse_json(data), "splits", dict)
    if len(splits) != 1:
        raise ManifestError(f"_info.json has {len(splits)} splits, not one")
    (fields,) = splits.values()
    if not isinstance(fields, dict):
        raise ManifestError("_info.json's split is not an object")
    lengths = _typed(fields, "shard_lengths", list)
    if not all(type(length) is int and length >= 0 for length in lengths):
        raise ManifestError("_info.json's shard_lengths are not numbers of samples")
    info = Info(_typed(fields, "name", str), _strings(fields, "filenames"), lengths)
    if len(info.filenames) != len(lengths) or fields.get("num_samples") != info.num_samples:
        raise ManifestError("_info.json's numbers do not add up")
    return info


def _check_version(what: str, fields: dict[str, Any]) -> None:
    if type(fields.get("version")) is not int:
        raise ManifestError(f"{what} has no version")
    if fields["version"] != VERSION:
        raise UnsupportedFeatureError(
            f"{what}'s version is {fields['version']}, this reader knows {VERSION}", hint="update slg-wds"
        )


def _typed(fields: dict[str, Any], name: str, kind: type) -> Any:
    value = fields.get(name)
    if type(value) is not kind or (kind is int and value < 0):
        raise ManifestError(f"{name} is {value!r}, not of type {kind.__name__}")
    return value


def _strings(fields: dict[str, Any], name: str) -> list[str]:
    values = _typed(fields, name, list)
    if not all(isinstance(value, str) for value in values):
        raise ManifestError(f"{name} does not hold strings alone")
    return list(values)


def _places(rows: Any, width: int, size: int | None) -> list[list[int]]:
    """Rows of [offset, size] or [offset, size, crc32] that lie within `size` bytes."""
    if not isinstance(rows, list):
        raise ManifestError("the index has no list of places")
    for row in rows:
        if not isinstance(row, list) or len(row) != width or any(type(n) is not int or n < 0 for n in row):
            raise ManifestError(f"{row!r} is not a place of {width} numbers")
        if size is not None and row[0] + row[1] > size:
            raise ManifestError(f"{row!r} is not within the shard's {size} bytes")
    return rows
