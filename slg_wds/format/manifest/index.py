"""index/NAME <-> bytes: where the parts of one shard lie, for readers of single records."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slg_wds.errors import ManifestError
from slg_wds.format.canonical import canonical_json, check_version, seal, strings, typed, unseal
from slg_wds.format.manifest.plan import Plan, PlannedShard
from slg_wds.format.shards.shard import Shard, read_shard

VERSION = 1
MAX_SHARD_BYTES = 1 << 31
_MAX_PLACE = (1 << 63) - 1


@dataclass(frozen=True)
class ShardIndex:
    """The index part of one shard: a pure function of the shard and the plan.

    Attributes:
        name: the shard's name, without ".tar".
        shard: its number.
        set_digest: the digest of its label set, hex.
        bytes: the size of the shard.
        sha256: SHA-256 of the shard, hex.
        records: [offset, size, crc32] of each record, in bytes of the shard, in order.
        images: the same for each embedded image; [offset, size] within the tar `image_shard` if the images lie in
            tars; None if they are single files.
        image_shard: that tar, or None.
        left_out: keys of the planned images that have no sample.
        version: of the file.
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

    def positions(self, keys: Sequence[str]) -> dict[str, int]:
        """Return the position of each image's record in the shard, by key; images that were left out have none.

        Args:
            keys: the keys of the images planned for the shard, in order.
        """
        left_out = set(self.left_out)
        kept = (key for key in keys if key not in left_out)
        return {key: position for position, key in enumerate(kept)}


def encode_index(index: ShardIndex) -> bytes:
    """Encode an index part."""
    return canonical_json(seal(vars(index)))


def decode_index(data: bytes | memoryview) -> ShardIndex:
    """Decode an index part. Raises ManifestError if it is damaged, UnsupportedFeatureError for another version."""
    fields = unseal(data)
    check_version("the index", fields, VERSION)
    size = typed(fields, "bytes", int)
    if size > MAX_SHARD_BYTES:
        raise ManifestError(f"the shard of the index has {size} bytes, over the limit of {MAX_SHARD_BYTES}")
    tar = None if fields.get("image_shard") is None else typed(fields, "image_shard", str)
    images = fields.get("images")
    index = ShardIndex(
        name=typed(fields, "name", str),
        shard=typed(fields, "shard", int),
        set_digest=typed(fields, "set_digest", str),
        bytes=size,
        sha256=typed(fields, "sha256", str),
        records=_places(fields.get("records"), 3, size),
        images=None
        if images is None
        else _places(images, 3 if tar is None else 2, size if tar is None else None),
        image_shard=tar,
        left_out=strings(fields, "left_out"),
    )
    if index.images is not None and len(index.images) != len(index.records):
        raise ManifestError(f"the index places {len(index.images)} images and {len(index.records)} records")
    return index


def _places(rows: Any, width: int, size: int | None) -> list[list[int]]:
    """Check rows of `width` numbers; the first two are an offset and a size within `size` bytes (None: no limit)."""
    if not isinstance(rows, list):
        raise ManifestError("the index has no list of places")
    for row in rows:
        if (
            not isinstance(row, list)
            or len(row) != width
            or any(type(n) is not int or not 0 <= n <= _MAX_PLACE for n in row)
        ):
            raise ManifestError(f"the index has a place that is not {width} numbers")
        if size is not None and row[0] + row[1] > size:
            raise ManifestError(f"the index has a place outside the shard's {size} bytes")
    return rows


def build_index(shard: Shard | bytes | memoryview, plan: Plan, number: int) -> ShardIndex:
    """Make the index part of a shard, after a check that the shard holds what is planned.

    Args:
        shard: the shard, or its bytes.
        plan: the plan of its label set.
        number: the number of the shard.

    Raises:
        FormatError: the bytes are damaged; see `read_shard`.
        ShardError: it is another shard.
    """
    part = plan.shard(number)
    if not isinstance(shard, Shard):
        shard = read_shard(shard, shard=part.name)
    shard.check(shard.header.set_digest, number, part.name, part.keys)
    return index_of(shard, part)


def index_of(shard: Shard, part: PlannedShard) -> ShardIndex:
    """Make the index part of a shard that is known to be the planned one, `part`."""
    header = shard.header
    return ShardIndex(
        name=part.name,
        shard=part.number,
        set_digest=header.set_digest,
        bytes=len(shard.data),
        sha256=hashlib.sha256(shard.data).hexdigest(),
        records=[[s.record.offset, s.record.size, s.record_crc32] for s in shard.samples],
        images=_images(shard, part),
        image_shard=part.image_shard,
        left_out=[entry["key"] for entry in header.left_out],
    )


def _images(shard: Shard, part: PlannedShard) -> list[list[int]] | None:
    if part.image_offset is not None and part.image_size is not None:
        present = {sample.key for sample in shard.samples}
        places = zip(part.keys, part.image_offset.tolist(), part.image_size.tolist(), strict=True)
        return [[offset, size] for key, offset, size in places if key in present]
    images = [[s.image.offset, s.image.size, s.image_crc32] for s in shard.samples if s.image]
    return images or None
