"""index/NAME: where the parts of one shard lie, for readers of single records."""

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
    """What the index says of one shard: a pure function of shard and plan.

    bytes, sha256: of the whole shard. records: [offset, size, crc32] of each record, in the shard's order.
    images: the same of each embedded image; [offset, size] within the tar `image_shard` where images lie in one;
    else None. left_out: keys of the planned images that have no sample.
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
    """The bytes of index/NAME."""
    return canonical_json(seal(vars(index)))


def decode_index(data: bytes | memoryview) -> ShardIndex:
    """index/NAME from its bytes. Raises ManifestError, or UnsupportedFeatureError for another version."""
    fields = unseal(data)
    check_version("the index", fields, VERSION)
    size = typed(fields, "bytes", int)
    if size > MAX_SHARD_BYTES:
        raise ManifestError(f"the index is of a shard of {size} bytes, over {MAX_SHARD_BYTES}")
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
    """Rows of `width` numbers, the first two an offset and a size within `size` bytes."""
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
    """The index of shard `number`, after checking that it holds what is planned.

    Raises the errors of read_shard, and ShardError for another shard.
    """
    part = plan.shard(number)
    if not isinstance(shard, Shard):
        shard = read_shard(shard, shard=part.name)
    shard.check(shard.header.set_digest, number, part.name, part.keys)
    return index_of(shard, part)


def index_of(shard: Shard, part: PlannedShard) -> ShardIndex:
    """The index of a shard that is known to be the planned one."""
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
