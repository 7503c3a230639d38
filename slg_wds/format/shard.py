"""Records and images <-> the bytes of one tar shard."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from slg_wds.errors import ChecksumError, ManifestError, RecordError, ShardError, UnsupportedFeatureError
from slg_wds.format.canonical import canonical_json, seal, unseal
from slg_wds.format.names import IMAGE_EXTS, RECORD_EXT, SHARD_JSON, TARGET_EXT, key_of, split_member
from slg_wds.format.record import Record, decode_record, encode_record
from slg_wds.format.tar import Member, members

__all__ = [
    "IMAGE_EXTS",
    "EncodedSample",
    "Member",
    "Sample",
    "SampleMembers",
    "Shard",
    "ShardHeader",
    "check_payload",
    "encode_sample",
    "encode_shard",
    "key_of",
    "read_shard",
]

VERSION = 1


@dataclass(frozen=True)
class Sample:
    """One image's labels and, where the set embeds images, its file's bytes and extension (one of IMAGE_EXTS)."""

    record: Record
    image: bytes | None = None
    image_ext: str | None = None


@dataclass(frozen=True)
class EncodedSample:
    """A sample as it goes into the tar: its key and its members' bytes by extension; made by `encode_sample`."""

    key: str
    fields: dict[str, bytes]


@dataclass(frozen=True)
class ShardHeader:
    """What `__slg__/shard.json` says of a shard.

    set_digest: hex SHA-256 of the label set. shard: its number. name: without ".tar".
    left_out: {"key", "path", "reason"} of each planned image that has no sample. provenance: JSON-able.
    """

    set_digest: str
    shard: int
    name: str
    left_out: list[dict[str, str]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleMembers:
    """The members of one sample; a CRC-32 for each."""

    key: str
    record: Member
    record_crc32: int
    image: Member | None = None
    image_crc32: int = 0
    target: Member | None = None


@dataclass(frozen=True)
class Shard:
    """A shard whose every byte has been checked. `data` is shared, not copied."""

    header: ShardHeader
    samples: list[SampleMembers]
    members: list[Member]
    data: memoryview
    url: str | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return (self.sample(i) for i in range(len(self.samples)))

    def content(self, member: Member) -> memoryview:
        return self.data[member.offset : member.offset + member.size]

    def record(self, i: int, rows: Any = None) -> Record:
        """Sample i's record, with `rows` only those crops. Raises RecordError, also for another sample's record."""
        sample = self.samples[i]
        place = {"url": self.url, "shard": self.header.name, "key": sample.key}
        record = decode_record(self.content(sample.record), rows=rows, **place)
        if record.key != sample.key:
            raise RecordError(f"the record says it is of {record.key!r}", **place)
        if sample.target and bytes(self.content(sample.target)) != _target_text(record):
            raise RecordError(f"the {TARGET_EXT} member does not hold the record's target", **place)
        return record

    def sample(self, i: int) -> Sample:
        """Sample i, its image copied out where there is one."""
        image = self.samples[i].image
        if image is None:
            return Sample(self.record(i))
        return Sample(self.record(i), bytes(self.content(image)), split_member(image.name)[1])

    def check(self, set_digest: str, shard: int, name: str, keys: Sequence[str]) -> None:
        """That this is shard `name` of that label set and holds `keys`, in order, but for those left out."""
        found = (self.header.set_digest, self.header.shard, self.header.name)
        for what, mine, wanted in zip(
            ("set digest", "number", "name"), found, (set_digest, shard, name), strict=True
        ):
            if mine != wanted:
                raise ShardError(
                    f"the shard belongs elsewhere: its {what} is {mine!r}, not {wanted!r}",
                    url=self.url,
                    shard=name,
                )
        left_out = {entry["key"] for entry in self.header.left_out}
        if [key for key in keys if key not in left_out] != [sample.key for sample in self.samples]:
            raise ShardError(
                "the shard does not hold the planned images in their order", url=self.url, shard=name
            )
        if not left_out.issubset(keys):
            raise ShardError(
                "the shard left out images that the plan does not have", url=self.url, shard=name
            )


def encode_sample(sample: Sample) -> EncodedSample:
    """The members of one sample. Threads may encode samples at once; `encode_shard` takes them ready-made."""
    return EncodedSample(sample.record.key, _sample_fields(sample))


def encode_shard(samples: Iterable[Sample | EncodedSample], header: ShardHeader) -> bytes:
    """The bytes of one shard: the samples' members in order, then `__slg__/shard.json`.

    Raises ShardError for a key that occurs twice, embedded images for some samples only, or an unknown extension.
    """
    # WebDataset takes 1.5 s to import, which only writers should pay.
    from webdataset.writer import TarWriter

    stream = io.BytesIO()
    names: list[str] = []
    sums: list[int] = []
    keys: set[str] = set()
    with TarWriter(stream, encoder=False, format=tarfile.PAX_FORMAT, mtime=0, user="", group="") as writer:
        for sample in samples:
            encoded = sample if isinstance(sample, EncodedSample) else encode_sample(sample)
            key, fields = encoded.key, encoded.fields
            if key in keys:
                raise ShardError("a key occurs twice", shard=header.name, key=key)
            keys.add(key)
            names += [f"{key}.{extension}" for extension in sorted(fields)]
            sums += [zlib.crc32(fields[extension]) for extension in sorted(fields)]
            writer.write({"__key__": key, **fields})
        key, extension = split_member(SHARD_JSON)
        writer.write({"__key__": key, extension: _header_json(header, len(keys), names, sums)})
    return stream.getvalue()


def _sample_fields(sample: Sample) -> dict[str, bytes]:
    fields = {RECORD_EXT: encode_record(sample.record)}
    if sample.image is not None:
        if sample.image_ext not in IMAGE_EXTS:
            raise ShardError(f"an image cannot be embedded as {sample.image_ext!r}", key=sample.record.key)
        fields[sample.image_ext] = sample.image
        if sample.record.target is not None:
            fields[TARGET_EXT] = _target_text(sample.record)
    return fields


def _target_text(record: Record) -> bytes:
    return str(record.target).encode("ascii")


def _header_json(header: ShardHeader, num_samples: int, names: list[str], sums: list[int]) -> bytes:
    fields = {
        **asdict(header),
        "version": VERSION,
        "num_samples": num_samples,
        "members_crc32": sums,
        "names_crc32": zlib.crc32("\n".join(names).encode("utf-8")),
    }
    return canonical_json(seal(fields))


def read_shard(data: bytes | memoryview, *, url: str | None = None, shard: str | None = None) -> Shard:
    """The shard in `data`, after checking every byte: tar structure, order of members, CRC-32 of each, counts.

    What the records' bytes mean is checked as they are decoded. Raises ShardTruncatedError, ChecksumError,
    ShardError or UnsupportedFeatureError, naming url and shard.
    """
    view = memoryview(data)
    try:
        found = list(members(view))
        fields = _read_header(found, view)
        header = ShardHeader(**{name: fields[name] for name in ShardHeader.__dataclass_fields__})
        sums = _check_members(found[:-1], fields, view)
        samples = _group(found[:-1], sums)
        if len(samples) != fields["num_samples"]:
            raise ShardError(f"{len(samples)} samples, where {fields['num_samples']} were written")
    except (ShardError, UnsupportedFeatureError) as error:
        raise error.located(url=url, shard=shard) from None
    return Shard(header, samples, found, view, url)


def check_payload(data: bytes | memoryview, size: int, crc32: int, **where: Any) -> None:
    """That bytes of one member, read as a range, are the ones written. Raises ShardTruncatedError, ChecksumError."""
    if len(data) != size or zlib.crc32(data) != crc32:
        raise ChecksumError(
            f"{len(data)} bytes do not match the index: {size} bytes of CRC-32 {crc32:08x}", **where
        )


_HEADER_TYPES = {
    "set_digest": str,
    "shard": int,
    "name": str,
    "left_out": list,
    "provenance": dict,
    "num_samples": int,
    "members_crc32": list,
    "names_crc32": int,
}


def _read_header(found: list[Member], view: memoryview) -> dict[str, Any]:
    if not found or found[-1].name != SHARD_JSON:
        raise ShardError(f"the last member is not {SHARD_JSON}")
    last = found[-1]
    try:
        fields = unseal(view[last.offset : last.offset + last.size])
    except ManifestError as error:
        raise ChecksumError(f"{SHARD_JSON}: {error.message}") from None
    if fields.get("version") != VERSION:
        raise UnsupportedFeatureError(f"the shard's version is {fields.get('version')}, not {VERSION}")
    for name, kind in _HEADER_TYPES.items():
        if type(fields.get(name)) is not kind:
            raise ShardError(f"{SHARD_JSON} has no {name} of type {kind.__name__}")
    for entry in fields["left_out"]:
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(name), str) for name in ("key", "path", "reason")
        ):
            raise ShardError(f"{SHARD_JSON} lists an image left out without key, path and reason")
    return fields


def _check_members(found: list[Member], fields: dict[str, Any], view: memoryview) -> list[int]:
    sums = [zlib.crc32(view[member.offset : member.offset + member.size]) for member in found]
    if len(sums) != len(fields["members_crc32"]):
        raise ShardError(f"{len(sums)} members, where {len(fields['members_crc32'])} were written")
    for member, mine, wanted in zip(found, sums, fields["members_crc32"], strict=True):
        if mine != wanted:
            raise ChecksumError(f"the CRC-32 of member {member.name!r} does not match")
    if zlib.crc32("\n".join(member.name for member in found).encode("utf-8")) != fields["names_crc32"]:
        raise ChecksumError("the CRC-32 of the members' names does not match")
    return sums


def _group(found: list[Member], sums: list[int]) -> list[SampleMembers]:
    groups: dict[str, dict[str, tuple[Member, int]]] = {}
    for member, crc32 in zip(found, sums, strict=True):
        key, extension = split_member(member.name)
        if key in groups and key != next(reversed(groups)):
            raise ShardError("the members of a sample are not together", key=key)
        group = groups.setdefault(key, {})
        if group and extension <= next(reversed(group)):
            raise ShardError("the members of a sample are not in order", key=key)
        group[extension] = (member, crc32)
    return [_sample_members(key, group) for key, group in groups.items()]


def _sample_members(key: str, group: dict[str, tuple[Member, int]]) -> SampleMembers:
    images = [extension for extension in group if extension in IMAGE_EXTS]
    known = {RECORD_EXT, TARGET_EXT, *images} if images else {RECORD_EXT}
    if RECORD_EXT not in group or len(images) > 1 or not known.issuperset(group):
        raise ShardError(f"a sample has the members {sorted(group)}", key=key)
    record, record_crc32 = group[RECORD_EXT]
    image, image_crc32 = group[images[0]] if images else (None, 0)
    target = group[TARGET_EXT][0] if TARGET_EXT in group else None
    return SampleMembers(key, record, record_crc32, image, image_crc32, target)
