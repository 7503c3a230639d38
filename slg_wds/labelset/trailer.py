"""The trailer of a shard that exists: read by range, without the rest of the shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slg_wds.format.manifest.index import ShardIndex
from slg_wds.format.shards.header import ShardHeader, decode_header
from slg_wds.format.shards.tar import members, padded

if TYPE_CHECKING:
    from slg_wds.labelset.labelset import LabelSet


def read_trailer(labels: LabelSet, number: int, index: ShardIndex) -> ShardHeader:
    """Read which images a shard leaves out and how it was made, from its last member alone.

    Args:
        labels: the set.
        number: the number of the shard.
        index: the shard's index.

    Raises:
        FormatError, StoreError: the member cannot be read.
    """
    embedded = index.images if index.images and index.image_shard is None else []
    end = padded(max((place[0] + place[1] for place in [*index.records, *embedded]), default=0))
    tail = memoryview(labels.store.read_range(labels.shard_name(number), end, index.bytes - end))
    member = next(iter(members(tail)))
    header, _ = decode_header(tail[member.offset : member.offset + member.size], member.name)
    return header
