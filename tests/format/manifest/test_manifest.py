"""slg.json, index/NAME and _info.json: round trips, and every kind of malformed file."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from slg_wds.errors import ManifestError, ShardError, SlgWdsError, UnsupportedFeatureError
from slg_wds.format.canonical import canonical_json, pretty_json, seal
from slg_wds.format.manifest.description import Description, decode_description, encode_description
from slg_wds.format.manifest.index import ShardIndex, build_index, decode_index, encode_index
from slg_wds.format.manifest.info import Info, decode_info, encode_info
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.shards.header import ShardHeader
from slg_wds.format.shards.shard import Shard, encode_shard, read_shard
from support.format.manifests import IDENTITY, make_plan
from support.format.records import make_samples

DESCRIPTION = Description(3, 1, "ab" * 32, IDENTITY, {"date": "2026"}, ["tench", "Ente"])


def test_description() -> None:
    data = encode_description(DESCRIPTION)
    assert decode_description(data) == DESCRIPTION
    assert data.decode().splitlines()[:3] == ["{", '  "class_names": [', '    "tench",']
    assert data.endswith(b"}\n")
    assert json.loads(data)["identity"] == IDENTITY
    assert decode_description(encode_description(replace(DESCRIPTION, class_names=None))).class_names is None


def index_of(embed: bool) -> tuple[Shard, Plan, ShardIndex]:
    samples = make_samples(4, embed=embed)
    paths = [sample.record.path for sample in samples]
    plan = make_plan([*paths[:2], "bad.jpg", *paths[2:]], 5, tars=not embed)
    left_out = [{"key": "bad", "path": "bad.jpg", "reason": "no image"}]
    data = encode_shard(samples, ShardHeader("cd" * 32, 0, "train-000000", left_out))
    return read_shard(data), plan, build_index(data, plan, 0)


@pytest.mark.parametrize("embed", [False, True])
def test_index(embed: bool) -> None:
    shard, plan, index = index_of(embed)
    assert decode_index(encode_index(index)) == index == build_index(shard, plan, 0)
    data = bytes(shard.data)
    assert (index.bytes, index.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (index.set_digest, index.left_out) == ("cd" * 32, ["bad"])
    for (offset, size, crc32), sample in zip(index.records, shard.samples, strict=True):
        assert zlib.crc32(data[offset : offset + size]) == crc32
        assert msgpack.unpackb(data[offset : offset + size])["key"] == sample.key
    if embed:
        assert index.images is not None
        for i, (offset, size, crc32) in enumerate(index.images):
            assert data[offset : offset + size] == bytes([i]) * (100 + i)
            assert zlib.crc32(data[offset : offset + size]) == crc32
    else:
        assert (index.image_shard, index.images) == ("images-0.tar", [[i << 33, i + 1] for i in (0, 1, 3, 4)])


def test_index_of_images_elsewhere_has_no_images() -> None:
    samples = make_samples(2)
    plan = make_plan([sample.record.path for sample in samples])
    data = encode_shard(samples, ShardHeader("cd" * 32, 0, "train-000000"))
    assert build_index(data, plan, 0).images is None


def test_no_index_of_another_shard() -> None:
    shard, plan, _ = index_of(embed=True)
    with pytest.raises(ShardError, match="its samples are not the planned ones"):
        build_index(shard, make_plan(["a.jpg"]), 0)
    with pytest.raises(ShardError, match="its name is train-000000, not val-0"):
        build_index(shard, replace(plan, shard_names=["val-0"]), 0)


def test_info_is_what_timm_reads() -> None:
    info = Info("train", ["train-000000.tar", "train-000001.tar"], [256, 3])
    data = encode_info(info)
    assert decode_info(data) == info
    split = json.loads(data)["splits"]["train"]
    assert (split["name"], split["num_samples"], split["shard_lengths"]) == ("train", 259, [256, 3])
    reader = pytest.importorskip("timm.data.readers.reader_wds")
    parsed = reader._parse_split_info("train", json.loads(data))
    assert (parsed.num_samples, list(parsed.filenames)) == (259, info.filenames)


def changed(data: bytes, encode: Any, **new: Any) -> bytes:
    """Sealed JSON with some fields changed and sealed again; a field that is ... is left out."""
    fields = {**json.loads(data), **new}
    del fields["crc32"]
    return bytes(encode(seal({name: value for name, value in fields.items() if value is not ...})))


@pytest.mark.parametrize(
    ("new", "kind", "message"),
    [
        (
            {"version": 2},
            UnsupportedFeatureError,
            "the version of slg.json is 2, this reader knows 1; update slg-wds",
        ),
        ({"version": ...}, ManifestError, "slg.json is not a map with a version"),
        ({"requires": ["log4", "x"]}, UnsupportedFeatureError, "the label set requires log4, x"),
        ({"requires": "log4"}, ManifestError, "requires is 'log4'"),
        ({"num_samples": -1}, ManifestError, "num_samples is -1"),
        ({"num_shards": True}, ManifestError, "num_shards is True"),
        ({"plan_sha256": ...}, ManifestError, "plan_sha256 is None"),
        ({"identity": []}, ManifestError, r"identity is \[\], not of type dict"),
        ({"class_names": [1]}, ManifestError, "class_names does not hold strings alone"),
    ],
)
def test_each_malformed_description_has_its_error(
    new: dict[str, Any], kind: type[SlgWdsError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        decode_description(changed(encode_description(DESCRIPTION), pretty_json, **new))


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"records": None}, "no list of places"),
        ({"records": [[1, 2]]}, "a place that is not 3 numbers"),
        ({"records": [[1, 2, -3]]}, "a place that is not 3 numbers"),
        ({"records": [[1, 2, True]]}, "a place that is not 3 numbers"),
        ({"records": [[10**9, 1, 3]]}, "a place outside the shard's"),
        ({"images": [[0, 1, 2]]}, "places 1 images and 4 records"),
        ({"bytes": "10"}, "bytes is '10'"),
        ({"image_shard": 3}, "image_shard is 3"),
        ({"left_out": [None]}, "left_out does not hold strings alone"),
    ],
)
def test_each_malformed_index_has_its_error(new: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        decode_index(changed(encode_index(index_of(embed=True)[2]), canonical_json, **new))


@pytest.mark.parametrize(
    "data",
    [b"{}", b'{"splits":{}}', b'{"splits":{"a":1}}', b'{"splits":{"a":{"shard_lengths":[-1]}}}',
     b'{"splits":{"a":{"shard_lengths":[1],"name":"a","filenames":["a"],"num_samples":2}}}', b"\xff", b"", b"[1]"],
)  # fmt: skip
def test_each_malformed_info_has_its_error(data: bytes) -> None:
    with pytest.raises(ManifestError):
        decode_info(data)


def test_every_changed_byte_and_truncation_of_sealed_json_is_found() -> None:
    index = encode_index(index_of(embed=True)[2])
    for data, decode in ((encode_description(DESCRIPTION), decode_description), (index, decode_index)):
        for at in range(len(data)):
            for change in (1, 0x20, 0x80):
                bad = bytearray(data)
                bad[at] ^= change
                with pytest.raises(ManifestError):
                    decode(bytes(bad))
            with pytest.raises(ManifestError):
                decode(data[:at])
        with pytest.raises(ManifestError):
            decode(data + b"\n")
