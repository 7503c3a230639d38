"""What a label set says of itself: plan, slg.json, index/NAME and _info.json <-> bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from slg_wds.errors import ManifestError, UnsupportedFeatureError
from slg_wds.format.canonical import (
    canonical_json,
    check_version,
    parse_json,
    pretty_json,
    seal,
    strings,
    typed,
    unseal,
)
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.manifest.index import ShardIndex, build_index, decode_index, encode_index, index_of
from slg_wds.format.manifest.plan import Plan, PlannedShard
from slg_wds.format.manifest.plan_codec import MAX_SAMPLES, decode_plan, encode_plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.format.shards.names import OLD_TRAILER, TRAILER

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
    "digest",
    "digest_of",
    "encode_description",
    "encode_index",
    "encode_info",
    "encode_plan",
    "index_of",
    "numbers_classes",
]

VERSION = 1

MAX_INFO_BYTES = 1 << 25  # some 800,000 shards

# What `requires` of slg.json may name. What version 1 has from its beginning needs no name.
EXTENDS = "extends"  # the set holds only the crops that another one lacks
TRAILER_FEATURE = "trailer"  # the last member of each shard is named TRAILER, not OLD_TRAILER
FEATURES = frozenset({EXTENDS, TRAILER_FEATURE})


@dataclass(frozen=True)
class Description:
    """What slg.json says: how the labels are made.

    identity: compared on every later run, and part of the set's digest. provenance: only noted.
    plan_sha256: hex. requires: features that a reader must know. image_checksums: whether every record has the
    checksum of its image. targets_are_classes: whether the targets number the classes of the labels; None where the
    set does not say it, as older ones do not.
    """

    num_samples: int
    num_shards: int
    plan_sha256: str
    identity: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] | None = None
    requires: list[str] = field(default_factory=list)
    image_checksums: bool = False
    targets_are_classes: bool | None = None
    version: int = VERSION

    @property
    def form(self) -> tuple[str, bool]:
        """What of the form of records and shards is open to a writer."""
        return self.trailer, self.image_checksums

    @property
    def trailer(self) -> str:
        """The name of the last member of the set's shards."""
        return TRAILER if TRAILER_FEATURE in self.requires else OLD_TRAILER


def numbers_classes(description: Description, identity: Identity) -> bool:
    """Whether the targets number the classes of the labels: as slg.json says, or of an older set by its class names.

    Where those leave it open, no.
    """
    if description.targets_are_classes is not None:
        return description.targets_are_classes
    names, subset = description.class_names, identity.class_subset
    if names is None:  # no class folders
        return subset is None
    if len(names) != identity.num_classes:
        return False
    if all(name.isascii() and name.isdigit() for name in names):  # were sorted as text: 0, 1, 10, 100
        return all(int(name) == number for number, name in enumerate(names))
    by_name = names == sorted(names) and not all(re.fullmatch(r"n\d{8}", name) for name in names)
    return subset is None or not by_name


@dataclass(frozen=True)
class Info:
    """What _info.json says of the only split, as timm's WebDataset reader expects it.

    filenames: with ".tar". shard_lengths: the samples that each shard really has.
    """

    name: str
    filenames: list[str]
    shard_lengths: list[int]

    @property
    def num_samples(self) -> int:
        return sum(self.shard_lengths)


def digest(plan: bytes, identity: Mapping[str, Any]) -> str:
    """A set's digest, hex: SHA-256 of the SHA-256 of the plan's bytes and that of the identity's canonical JSON."""
    return digest_of(hashlib.sha256(plan).hexdigest(), identity)


def digest_of(plan_sha256: str, identity: Mapping[str, Any]) -> str:
    """`digest` by the plan's SHA-256, hex."""
    parts = (bytes.fromhex(plan_sha256), hashlib.sha256(canonical_json(dict(identity))).digest())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def encode_description(description: Description) -> bytes:
    """The bytes of slg.json, laid out for people."""
    fields = asdict(description)
    if not description.image_checksums:  # as sets say that were made before there were any
        del fields["image_checksums"]
    if description.targets_are_classes is None:
        del fields["targets_are_classes"]
    return pretty_json(seal(fields))


def decode_description(data: bytes | memoryview) -> Description:
    """slg.json from its bytes. Raises ManifestError, or UnsupportedFeatureError naming what a reader must know."""
    fields = unseal(data, pretty_json)
    check_version("slg.json", fields, VERSION)
    requires = strings(fields, "requires")
    unknown = [name for name in requires if name not in FEATURES]
    if unknown:
        raise UnsupportedFeatureError(f"the label set requires {', '.join(unknown)}", hint="update slg-wds")
    return Description(
        num_samples=typed(fields, "num_samples", int),
        num_shards=typed(fields, "num_shards", int),
        plan_sha256=typed(fields, "plan_sha256", str),
        identity=typed(fields, "identity", dict),
        provenance=typed(fields, "provenance", dict),
        class_names=None if fields.get("class_names") is None else strings(fields, "class_names"),
        requires=requires,
        image_checksums=typed({"image_checksums": False, **fields}, "image_checksums", bool),
        targets_are_classes=(
            typed(fields, "targets_are_classes", bool) if "targets_are_classes" in fields else None
        ),
    )


def encode_info(info: Info) -> bytes:
    """The bytes of _info.json."""
    return pretty_json({"splits": {info.name: {**asdict(info), "num_samples": info.num_samples}}})


def decode_info(data: bytes | memoryview) -> Info:
    """_info.json from its bytes. Raises ManifestError."""
    splits = typed(parse_json(data, MAX_INFO_BYTES), "splits", dict)
    fields = next(iter(splits.values()), None)
    if len(splits) != 1 or not isinstance(fields, dict):
        raise ManifestError(f"_info.json has {len(splits)} splits, not one")
    lengths = typed(fields, "shard_lengths", list)
    if not all(type(length) is int and 0 <= length <= MAX_SAMPLES for length in lengths):
        raise ManifestError("shard_lengths of _info.json are not numbers of samples")
    info = Info(typed(fields, "name", str), strings(fields, "filenames"), lengths)
    if len(info.filenames) != len(lengths) or fields.get("num_samples") != info.num_samples:
        raise ManifestError("the numbers of _info.json do not add up")
    return info
