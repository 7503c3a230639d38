"""The plan: round trips, and every kind of malformed file."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import ManifestError, SlgWdsError, UnsupportedFeatureError
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.plan_codec import decode_plan, encode_plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.format.shards.names import key_of
from support.format.manifests import make_plan
from support.format.records import NAMES

PATHS = st.lists(NAMES.filter(lambda name: name.strip("./") == name), max_size=20)


@settings(max_examples=150, deadline=None)
@given(PATHS, st.integers(1, 7), st.booleans(), st.booleans())
def test_plans(names: list[str], size: int, keep: bool, tars: bool) -> None:
    paths = list({key_of(path.replace("/", "-"), keep): path.replace("/", "-") for path in names}.values())
    plan = make_plan(paths, size, keep=keep, tars=tars)
    data = encode_plan(plan)
    decoded = decode_plan(data)
    assert decoded == plan
    assert encode_plan(decoded) == data
    assert decoded.paths[:] == list(decoded.paths) == paths
    assert [decoded.keys[i] for i in range(len(paths))] == list(plan.keys)
    parts = [decoded.shard(number) for number in range(decoded.num_shards)]
    assert [key for part in parts for key in part.keys] == list(plan.keys)
    assert [number for part in parts for number in range(part.start, part.stop)] == list(range(len(paths)))
    assert all(part.image_shard == (f"images-{part.number}.tar" if tars else None) for part in parts)
    assert not tars or all(
        (part.image_offset == np.arange(part.start, part.stop) << 33).all() for part in parts
    )  # type: ignore[operator]


def test_every_image_has_its_place_in_a_shard() -> None:
    plan = make_plan([f"{i}.jpg" for i in range(6)])
    plan = replace(plan, shard_sizes=np.array([0, 3, 0, 0, 2, 1]), shard_names=list("abcdef"))
    assert plan.starts.tolist() == [0, 0, 3, 3, 3, 5, 6]
    assert [plan.place(number) for number in range(6)] == [(1, 0), (1, 1), (1, 2), (4, 0), (4, 1), (5, 0)]
    for number in range(6):
        shard, position = plan.place(number)
        assert plan.shard(shard).keys[position] == plan.keys[number]


def test_plans_differ() -> None:
    plan = make_plan(["a.jpg", "b.jpg", "c.jpg"])
    assert plan == decode_plan(encode_plan(plan))
    for other in (
        make_plan(["a.jpg", "b.jpg", "d.jpg"]),
        make_plan(["a.jpg", "b.jpg"]),
        make_plan(["a.jpg", "b.jpg", "c.jpg"], 3),
        make_plan(["a.jpg", "b.jpg", "c.jpg"], keep=True),
        make_plan(["a.jpg", "b.jpg", "c.jpg"], tars=True),
        replace(plan, targets=np.array([0, 0, 1], np.int32)),
        replace(plan, shard_names=["val-000000", "val-000001"]),
    ):
        assert plan != other
        assert encode_plan(plan) != encode_plan(other)
    assert plan != "plan"


def test_a_plan_of_imagenet_is_read_in_a_second() -> None:
    count = 1_281_167
    numbers = np.random.default_rng(0).permutation(count).tolist()
    keys = [f"n{1440764 + i % 1000:08d}/n{1440764 + i % 1000:08d}_{i}" for i in numbers]
    plan = Plan(
        shard_names=[f"train-{i:06d}" for i in range(-(-count // 256))],
        shard_sizes=np.append(np.full(count // 256, 256), count % 256),
        paths=StringColumn.of(f"{key}.JPEG" for key in keys),
        keys=StringColumn.of(keys),
        targets=np.arange(count, dtype=np.int32) % 1000,
    )
    data = encode_plan(plan)
    started = time.process_time()
    decoded = decode_plan(data)
    assert time.process_time() - started < 1.0
    assert len(data) < 12e6
    assert decoded.keys[count - 1] == plan.keys[count - 1]
    assert decoded.paths[777_777] == plan.paths[777_777]


PLAN = make_plan(["a.jpg", "b/ü.x.jpg", "c.jpg"], tars=True)


UNFIT: dict[str, tuple[Plan, str]] = {
    "targets": (replace(PLAN, targets=np.zeros(2, np.int32)), "number"),
    "sizes": (replace(PLAN, shard_sizes=np.array([2, 2])), "number"),
    "names": (replace(PLAN, shard_names=["a", "a"]), "not distinct plain names"),
    "slash": (replace(PLAN, shard_names=["a", "b/c"]), "not distinct plain names"),
    "brace": (replace(PLAN, shard_names=["a", "{0..9}"]), "not distinct plain names"),
    "dot": (replace(PLAN, shard_names=["a", "..b"]), "not distinct plain names"),
    "newline": (replace(PLAN, shard_names=["a", "b\n"]), "not distinct plain names"),
    "no name": (replace(PLAN, shard_names=["a", ""]), "not distinct plain names"),
    "negative size": (replace(PLAN, shard_sizes=np.array([4, -1])), "is negative"),
    "negative target": (replace(PLAN, targets=np.array([0, -2, 0], np.int32)), "is negative"),
    "one key": (replace(PLAN, keys=StringColumn.of(["a", "b", "a"])), "have one key"),
    "no key": (replace(PLAN, keys=StringColumn.of(["a", "b", ""])), "is empty"),
    "parent": (
        replace(PLAN, paths=StringColumn.of(["a", "b/../../c", "d"])),
        "'b/../../c' is not a path below",
    ),
    "absolute": (replace(PLAN, paths=StringColumn.of(["a", "/etc/passwd", "d"])), "is not a path below"),
    "here": (replace(PLAN, paths=StringColumn.of(["./a", "b", "c"])), "is not a path below"),
    "folder path": (replace(PLAN, paths=StringColumn.of(["a", "b", "c/"])), "is not a path below"),
    "last dots": (replace(PLAN, paths=StringColumn.of(["a", "b", "c/.."])), "is not a path below"),
    "last dot": (replace(PLAN, paths=StringColumn.of(["a", "b", "c/."])), "is not a path below"),
    "inner dot": (replace(PLAN, paths=StringColumn.of(["a", "b/./d", "c"])), "is not a path below"),
    "NUL": (replace(PLAN, paths=StringColumn.of(["a", "b\0", "c"])), "is not a path below"),
    "tar above": (replace(PLAN, image_shards=["a.tar", "../b.tar"]), "is not a path below"),
    "source": (replace(PLAN, source="tape"), "the source 'tape'"),
    "folder": (replace(PLAN, source="folder"), "does not match where the images lie"),
    "no tars": (replace(PLAN, image_shards=None), "does not match where the images lie"),
    "one tar": (replace(PLAN, image_shards=["a"]), "do not match the samples"),
    "negative place": (replace(PLAN, image_offset=np.array([0, -1, 0])), "the place of an image is negative"),
    "wide target": (replace(PLAN, targets=np.array([0, 1 << 40, 0])), "do not fit <i4"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", UNFIT)
def test_plans_that_cannot_be_written(case: str) -> None:
    plan, message = UNFIT[case]
    with pytest.raises(ManifestError, match=message):
        encode_plan(plan)


def test_names_that_are_not_text() -> None:
    with pytest.raises(ManifestError, match="is not UTF-8"):
        StringColumn.of(["a", "b\udcff"])


def frame(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=options.pop("checksum", True), **options).compress(data)


def u4(*numbers: int) -> bytes:
    return frame(np.array(numbers, "<u4").view(np.uint8).reshape(-1, 4).T.tobytes())


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"version": 9}, "the version of the plan is 9, this reader knows 1"),
    "no version": ({"version": "1"}, "not a map with a version"),
    "samples": ({"num_samples": -1}, "num_samples is -1"),
    "many samples": ({"num_samples": 1 << 40}, "are over"),
    "more samples": ({"num_samples": 4}, "declares 12 bytes where 16 belong"),
    "shards": ({"num_shards": 1.0}, "num_shards is 1.0"),
    "source": ({"source": 1}, "source is 1"),
    "no paths": ({"paths": None}, "not a pair of lengths and text"),
    "one part": ({"paths": [b""]}, "not a pair of lengths and text"),
    "paths text": ({"paths": ["", ""]}, r"Expected `bytes`, got `str` - at `\$.paths\[0\]`"),
    "long path": ({"paths": [u4(5, 11, 1 << 31), frame(b"")]}, "declares 0 bytes where 2147483664 belong"),
    "huge paths": ({"paths": [u4(*[(1 << 32) - 1] * 3), frame(b"")], "num_samples": 3}, "declares 0 bytes|over"),
    "no UTF-8": ({"paths": [u4(1, 1, 1), frame(b"a\xffc")]}, "a name is not UTF-8"),
    "cut character": ({"paths": [u4(1, 1, 1), frame("aé".encode())]}, "a name is not UTF-8"),
    "cut by a key": ({"paths": [u4(6, 10, 5), frame("éa.jpb/ü.x.jpgc.jpg".encode())]}, "a name is not UTF-8"),
    "long key": ({"key_lengths": u4(6, 11, 1), "other_keys": frame(b"")}, "a key is longer than the path|belong"),
    "no other keys": ({"other_keys": None}, "a zstd frame is NoneType"),
    "no checksum": ({"targets": frame(bytes(12), checksum=False)}, "has no checksum"),
    "two frames": ({"targets": frame(bytes(12)) * 2}, "is damaged"),
    "targets": ({"targets": frame(b"\xfe" * 12)}, "is negative"),
    "far image": ({"image_offset": frame(b"\xff" * 24)}, "the place of an image is negative"),
    "names": ({"shard_names": [u4(1, 1), frame(b"aa")]}, "not distinct plain names"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_each_malformed_plan_has_its_error(case: str) -> None:
    change, message = WRONG[case]
    fields = {**msgpack.unpackb(encode_plan(PLAN)), **change}
    kind = UnsupportedFeatureError if case == "version" else ManifestError
    with pytest.raises(kind, match=message):
        decode_plan(msgpack.packb(fields))
    with pytest.raises(kind, match=message):  # at once, or when the first name is asked for
        decode_plan(msgpack.packb(fields), names_later=True).keys[0]


@pytest.mark.parametrize("case", ["no UTF-8", "no other keys", "one part"])
def test_names_may_wait_until_one_is_asked_for(case: str) -> None:
    whole = decode_plan(encode_plan(PLAN), names_later=True)
    assert whole == PLAN and (len(whole.keys), whole.paths[1]) == (3, "b/ü.x.jpg")
    fields = {**msgpack.unpackb(encode_plan(PLAN)), **WRONG[case][0]}
    later = decode_plan(msgpack.packb(fields), names_later=True)
    assert (later.num_samples, len(later.keys), later.shard_names) == (3, 3, PLAN.shard_names)
    for column in (later.paths, later.keys):
        with pytest.raises(ManifestError, match=WRONG[case][1]):
            column[0]


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\xdd\xff\xff\xff\xff", b"\x81\x90\x01"]
)
def test_bytes_that_are_no_plan(data: bytes) -> None:
    with pytest.raises(ManifestError, match="the plan is not"):
        decode_plan(data)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255), st.none() | st.integers(0, 600))
def test_a_damaged_plan_is_refused_or_gives_one_that_may_be_stored(
    at: int, change: int, end: int | None
) -> None:
    bad = bytearray(encode_plan(PLAN))
    bad[at % len(bad)] ^= change
    try:
        found = decode_plan(bytes(bad[:end]))
    except SlgWdsError:
        return
    found.check()
    assert decode_plan(encode_plan(found)) == found


def test_strings_are_taken_by_number_by_range_and_by_numbers() -> None:
    names = ["a", "", "猫/三毛猫", "b" * 300, "é"]
    column = StringColumn.of(names)
    assert [column[i] for i in range(5)] == names and column[1:4] == names[1:4]
    for numbers in ([4, 0, 4, 2], [], [1]):
        assert column[np.array(numbers, np.int64)] == [names[i] for i in numbers]
