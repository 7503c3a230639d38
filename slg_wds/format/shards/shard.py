"""Samples <-> the bytes of one shard."""

from __future__ import annotations

import importlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from isal.isal_zlib import crc32 as crc32_of
from isal.isal_zlib import crc32_combine

from slg_wds.errors import ChecksumError, RecordError, ShardError, SlgWdsError
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.record import Record
from slg_wds.format.shards.header import ShardHeader, Sums, decode_header, encode_header, names_crc32
from slg_wds.format.shards.members import SampleMembers, gather
from slg_wds.format.shards.names import (
    IMAGE_EXTS,
    RECORD_EXT,
    TARGET_EXT,
    TRAILER,
    TRAILERS,
    check_key,
    split_member,
)
from slg_wds.format.shards.tar import BLOCK, Member, members, padded


@dataclass(frozen=True)
class Sample:
    """One image's labels, and the image itself where the set embeds images.

    Attributes:
        record: the labels.
        image: the bytes of the image file, or None.
        image_ext: its extension, one of IMAGE_EXTS, or None.
    """

    record: Record
    image: bytes | None = None
    image_ext: str | None = None


@dataclass(frozen=True)
class EncodedSample:
    """A sample as the tar holds it.

    Attributes:
        key: of its image.
        fields: the content of each member, by its extension.
    """

    key: str
    fields: dict[str, bytes]

    @property
    def tar_bytes(self) -> int:
        """Bytes that the sample takes in the tar, with headers and padding."""
        return sum(BLOCK + padded(len(data)) for data in self.fields.values())

    @property
    def image_bytes(self) -> int:
        """Bytes that its image takes in the tar; 0 without one."""
        return sum(BLOCK + padded(len(data)) for name, data in self.fields.items() if name in IMAGE_EXTS)


@dataclass(frozen=True)
class Shard:
    """A shard of which every byte has been checked. Its length is its number of samples; iterating decodes them.

    Attributes:
        header: whose shard it is.
        samples: the members of each sample, in order.
        members: all members, the trailer last.
        data: the bytes of the shard, never copied as a whole.
        url: the label set that it came from, for messages.
    """

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
        """Return the content of a member, without a copy."""
        return self.data[member.offset : member.offset + member.size]

    def record(self, i: int, rows: Any = None) -> Record:
        """Decode the record of a sample.

        Args:
            i: the position of the sample.
            rows: int [R], numbers of the crops to decode; None for all.

        Raises:
            RecordError: the record is damaged, or does not belong to the sample's key, target or image.
        """
        sample = self.samples[i]
        place = {"url": self.url, "shard": self.header.name, "key": sample.key}
        record = decode_record(self.content(sample.record), rows=rows, **place)
        if record.key != sample.key:
            raise RecordError(f"it holds the record of {record.key!r}", **place)
        wanted = _target_text(record) if sample.image else None
        if wanted != (bytes(self.content(sample.target)) if sample.target else None):
            raise RecordError(
                f"its {TARGET_EXT} member does not agree with its target, {record.target}", **place
            )
        if sample.image and record.image_crc32 not in (None, sample.image_crc32):
            raise RecordError("the image beside it is not the one that was labelled", **place)
        return record

    def sample(self, i: int) -> Sample:
        """Return sample `i`, with a copy of its image if there is one."""
        image = self.samples[i].image
        if image is None:
            return Sample(self.record(i))
        return Sample(self.record(i), bytes(self.content(image)), split_member(image.name)[1])

    def check(self, set_digest: str, shard: int, name: str, keys: Sequence[str]) -> None:
        """Check that this is the planned shard.

        Args:
            set_digest: the digest of the label set, hex.
            shard: the planned number.
            name: the planned name.
            keys: the keys of the planned images, in order.

        Raises:
            ShardError: it is another shard or another set's, or its samples and the images left out are not `keys`.
        """
        place = {"url": self.url, "shard": name}
        header = self.header
        mine = {"set digest": header.set_digest, "number": header.shard, "name": header.name}
        for (what, found), wanted in zip(mine.items(), (set_digest, shard, name), strict=True):
            if found != wanted:
                raise ShardError(f"it is another shard: its {what} is {found}, not {wanted}", **place)
        left_out = {entry["key"] for entry in header.left_out}
        if [key for key in keys if key not in left_out] != [sample.key for sample in self.samples]:
            raise ShardError("its samples are not the planned ones in their order", **place)
        if not left_out.issubset(keys):
            raise ShardError("it left out images that were not planned", **place)


def encode_sample(sample: Sample) -> EncodedSample:
    """Encode the members of one sample. Several threads may do so at once, before one calls `encode_shard`.

    Raises:
        RecordError: the format cannot hold the labels.
        ShardError: the key cannot come from a path, the extension is unknown, or the image is not the labelled one.
    """
    record = sample.record
    check_key(record.key)
    fields = {RECORD_EXT: encode_record(record)}
    if sample.image is not None:
        if sample.image_ext not in IMAGE_EXTS:
            what = f"images are not embedded as {sample.image_ext!r}"
            raise ShardError(what, key=record.key, hint="make it a JPEG or PNG under the same name")
        if record.image_crc32 not in (None, crc32_of(sample.image)):
            raise ShardError("the image to embed is not the one that was labelled", key=record.key)
        fields[sample.image_ext] = sample.image
        target = _target_text(record)
        if target is not None:
            fields[TARGET_EXT] = target
    return EncodedSample(record.key, {extension: fields[extension] for extension in sorted(fields)})


def _target_text(record: Record) -> bytes | None:
    return None if record.target is None else str(record.target).encode("ascii")


def load_writer() -> None:
    """Import WebDataset, which only writing needs, before the first `encode_shard` has to wait 1.5 s for it."""
    importlib.import_module("webdataset.writer")


def encode_shard(
    samples: Iterable[Sample | EncodedSample], header: ShardHeader, trailer: str = TRAILER
) -> bytes:
    """Encode one shard: the members of the samples in order, then the trailer.

    Args:
        samples: the samples, in the order of the plan.
        header: whose shard it is.
        trailer: the name of the last member, one of TRAILERS; `LabelSet.encode_shard` uses that of its set.

    Raises:
        RecordError: the format cannot hold the labels of a sample.
        ShardError: a key occurs twice, or only some samples have an image.
        ManifestError: the provenance of the header is not JSON.
    """
    from webdataset.writer import TarWriter

    stream = io.BytesIO()
    written: list[tuple[Member, int]] = []
    with TarWriter(stream, encoder=False, format="PAX_FORMAT", mtime=0, user="", group="") as writer:
        for sample in samples:
            encoded = sample if isinstance(sample, EncodedSample) else encode_sample(sample)
            writer.write({"__key__": encoded.key, **encoded.fields})
            for extension, content in sorted(encoded.fields.items()):
                written.append((Member(f"{encoded.key}.{extension}", 0, len(content)), crc32_of(content)))
        try:
            num_samples = len(gather(written))
        except ShardError as error:
            raise error.located(shard=header.name) from None
        sums = Sums(num_samples, [crc32 for _, crc32 in written], names_crc32([m.name for m, _ in written]))
        _add_trailer(writer.tarstream, trailer, encode_header(header, sums))
    return stream.getvalue()


def _add_trailer(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add the last member as TarWriter adds the others. TarWriter itself refuses a name without an extension."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o444
    tar.addfile(member, io.BytesIO(content))


def read_shard(data: bytes | memoryview, *, url: str | None = None, shard: str | None = None) -> Shard:
    """Read a shard and check every byte: the form of the tar, each member's CRC-32, their order and number.

    The content of a record is checked when it is decoded.

    Args:
        data: the bytes of the shard.
        url: the label set that it is from, for messages.
        shard: its name, for messages.

    Raises:
        ShardTruncatedError: bytes are missing at the end.
        ChecksumError: a member or name was changed.
        ShardError: the tar has another form, or its members make no samples.
        UnsupportedFeatureError: a newer version.
    """
    try:
        return _read(memoryview(data), url)
    except SlgWdsError as error:
        raise error.located(url=url, shard=shard) from None


def _read(data: memoryview, url: str | None) -> Shard:
    found = list(members(data))
    if not found or found[-1].name not in TRAILERS:
        raise ShardError(f"its last member is not {TRAILER}")
    *rest, last = found
    header, sums = decode_header(data[last.offset : last.offset + last.size], last.name)
    crc32s = [crc32_of(data[member.offset : member.offset + member.size]) for member in rest]
    if len(crc32s) != len(sums.members_crc32):
        raise ShardError(f"{len(crc32s)} members, where {len(sums.members_crc32)} were written")
    for member, crc32, wanted in zip(rest, crc32s, sums.members_crc32, strict=True):
        if crc32 != wanted:
            raise ChecksumError(f"the CRC-32 of member {member.name!r} does not match")
    if names_crc32([member.name for member in rest]) != sums.names_crc32:
        raise ChecksumError("the CRC-32 of the members' names does not match")
    samples = gather(zip(rest, crc32s, strict=True))
    if len(samples) != sums.num_samples:
        raise ShardError(f"{len(samples)} samples, where {sums.num_samples} were written")
    return Shard(header, samples, found, data, url)


def check_payload(data: bytes | memoryview, size: int, crc32: int, **place: str | None) -> None:
    """Check the bytes of a member that were read by range.

    Args:
        data: the bytes.
        size: how many the index says.
        crc32: their CRC-32 by the index.
        place: url, shard and key, for messages.

    Raises:
        ChecksumError: they are others.
    """
    if len(data) != size or crc32_of(data) != crc32:
        raise ChecksumError(
            f"{len(data)} bytes are not the {size} of CRC-32 {crc32:08x} in the index", **place
        )


def check_payloads(
    memory: memoryview, parts: Sequence[memoryview], expected: Sequence[tuple[int, int]]
) -> None:
    """Check the bytes of several members that were read by range.

    The CRC-32 of all together follows from theirs, so it is computed in one call. Each call gives the interpreter to
    another thread, and having it back takes longer than a CRC-32.

    Args:
        memory: all bytes.
        parts: those of each member, one after the other in `memory`.
        expected: size and CRC-32 of each, by the index.

    Raises:
        ChecksumError: they are others.
    """
    crc32 = 0
    for size, each in expected:
        crc32 = crc32_combine(crc32, each, size)
    if crc32_of(memory) != crc32 or sum(map(len, parts)) != len(memory):
        for part, (size, each) in zip(parts, expected, strict=True):
            check_payload(part, size, each)
