"""The members of a shard -> samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from slg_wds.errors import ShardError
from slg_wds.format.shards.names import IMAGE_EXTS, RECORD_EXT, TARGET_EXT, split_member
from slg_wds.format.shards.tar import Member


class SampleMembers(NamedTuple):
    """The members of one sample.

    Attributes:
        key: of its image.
        record: its record.
        record_crc32: the CRC-32 of the record.
        image: the embedded image, or None.
        image_crc32: its CRC-32; 0 without an image.
        target: the member with the target, or None.
    """

    key: str
    record: Member
    record_crc32: int
    image: Member | None = None
    image_crc32: int = 0
    target: Member | None = None


def gather(members: Iterable[tuple[Member, int]]) -> list[SampleMembers]:
    """Group the members of a shard into samples.

    Args:
        members: each member and the CRC-32 of its content, in order, without the trailer.

    Raises:
        ShardError: the members of a sample are apart, not sorted, or not what a sample has; or only some samples have
            an image.
    """
    groups: dict[str, dict[str, tuple[Member, int]]] = {}
    last = None
    for member, crc32 in members:
        key, extension = split_member(member.name)
        if key != last and key in groups:
            raise ShardError("a key occurs twice", key=key)
        group = groups.setdefault(key, {})
        if group and extension <= next(reversed(group)):
            raise ShardError("the members of a sample are not sorted", key=key)
        group[extension] = (member, crc32)
        last = key
    samples = [_sample(key, group) for key, group in groups.items()]
    if len({sample.image is None for sample in samples}) > 1:
        raise ShardError("some samples have an image and some have none")
    return samples


def _sample(key: str, group: dict[str, tuple[Member, int]]) -> SampleMembers:
    images = [extension for extension in group if extension in IMAGE_EXTS]
    allowed = {RECORD_EXT, TARGET_EXT, *images} if images else {RECORD_EXT}
    if RECORD_EXT not in group or len(images) > 1 or not allowed.issuperset(group):
        raise ShardError(f"the members {', '.join(group)} are not those of a sample", key=key)
    record, record_crc32 = group[RECORD_EXT]
    image, image_crc32 = group[images[0]] if images else (None, 0)
    target = group[TARGET_EXT][0] if TARGET_EXT in group else None
    return SampleMembers(key, record, record_crc32, image, image_crc32, target)
