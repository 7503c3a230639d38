"""_info.json <-> bytes: the shards of a complete label set, as timm's WebDataset reader expects them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from slg_wds.errors import ManifestError
from slg_wds.format.canonical import parse_json, pretty_json, strings, typed
from slg_wds.format.manifest.plan_codec import MAX_SAMPLES

MAX_INFO_BYTES = 1 << 25  # some 800,000 shards


@dataclass(frozen=True)
class Info:
    """The only split that _info.json describes.

    Attributes:
        name: of the split.
        filenames: the shards' files, with ".tar", in order.
        shard_lengths: samples of each shard, those left out not counted.
    """

    name: str
    filenames: list[str]
    shard_lengths: list[int]

    @property
    def num_samples(self) -> int:
        """Samples of all shards."""
        return sum(self.shard_lengths)


def encode_info(info: Info) -> bytes:
    """Encode _info.json."""
    return pretty_json({"splits": {info.name: {**asdict(info), "num_samples": info.num_samples}}})


def decode_info(data: bytes | memoryview) -> Info:
    """Decode _info.json. Raises ManifestError if it is damaged or its numbers disagree."""
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
