"""The trailer, the last member of a shard <-> bytes: whose shard it is, and checksums of all other members."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from slg_wds.errors import ChecksumError, ManifestError, ShardError
from slg_wds.format.canonical import canonical_json, check_version, seal, typed, unseal
from slg_wds.format.shards.names import TRAILER

VERSION = 1


@dataclass(frozen=True)
class ShardHeader:
    """Whose shard this is, and how it was made.

    Attributes:
        set_digest: the digest of its label set, hex.
        shard: its number.
        name: its name, without ".tar".
        left_out: "key", "path" and "reason" of each planned image that has no sample.
        provenance: JSON values: what could change the last bits of a probability.
    """

    set_digest: str
    shard: int
    name: str
    left_out: list[dict[str, str]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sums:
    """The checksums of the members before the trailer.

    Attributes:
        num_samples: how many samples they make.
        members_crc32: the CRC-32 of each member's content, in order.
        names_crc32: the CRC-32 of all names; see `names_crc32`.
    """

    num_samples: int
    members_crc32: list[int]
    names_crc32: int


def names_crc32(names: Sequence[str]) -> int:
    """Return the CRC-32 of the names of all members in order, a newline after each."""
    return zlib.crc32("".join(f"{name}\n" for name in names).encode("utf-8"))


def encode_header(header: ShardHeader, sums: Sums) -> bytes:
    """Encode a trailer. Raises ManifestError for provenance that is not JSON."""
    return canonical_json(seal({"version": VERSION, **asdict(header), **asdict(sums)}))


def decode_header(data: bytes | memoryview, name: str = TRAILER) -> tuple[ShardHeader, Sums]:
    """Decode a trailer.

    Args:
        data: its bytes.
        name: the name of the member, for messages.

    Raises:
        ChecksumError: the bytes were changed.
        ShardError: a field is missing or has the wrong type.
        UnsupportedFeatureError: a newer version.
    """
    try:
        fields = unseal(data)
    except ManifestError as error:
        raise ChecksumError(f"{name}: {error.message}") from None
    try:
        check_version(name, fields, VERSION)
        header = ShardHeader(
            set_digest=typed(fields, "set_digest", str),
            shard=typed(fields, "shard", int),
            name=typed(fields, "name", str),
            left_out=[_left_out(entry) for entry in typed(fields, "left_out", list)],
            provenance=typed(fields, "provenance", dict),
        )
        sums = (typed(fields, field, kind) for field, kind in _SUMS.items())
        return header, Sums(*sums)
    except ManifestError as error:
        raise ShardError(f"{name}: {error.message}") from None


_SUMS = {"num_samples": int, "members_crc32": list, "names_crc32": int}


def _left_out(entry: Any) -> dict[str, str]:
    if not isinstance(entry, dict):
        raise ManifestError("an image left out is not an object")
    return {name: typed(entry, name, str) for name in ("key", "path", "reason")}
