"""Every decoder on structurally changed real bytes: a value or an error of slg_wds, no other exception.

The functions are those that `tools/fuzz/fuzz.py` calls. They also assert that all readers agree on a value, and that
it is the same once it is encoded and decoded again.
"""

from __future__ import annotations

import copy
import json
import pickle
import pickletools
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import SlgWdsError
from slg_wds.format.canonical import canonical_json, pretty_json
from slg_wds.format.frames import compress, decompress
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.manifest.index import ShardIndex
from slg_wds.format.manifest.info import Info
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.records.record import Record
from slg_wds.format.shards.header import ShardHeader
from slg_wds.format.shards.shard import Shard
from slg_wds.format.shards.tar import members
from slg_wds.interop.fkd.files import FkdLabels
from support.paths import MALFORMED
from support.programs import tool

FUZZ, SEEDS = tool("fuzz_targets"), tool("fuzz_seeds")
FOUND = sorted(path for path in MALFORMED.glob("*/*") if path.is_file())

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 255, 256, 65535, 65536, 2**20, 2**20 + 1, 2**24, 2**24 + 1, 2**31 - 1, 2**31,
    2**32, 2**53, 2**63 - 1, 0.0, -0.0, 0.5, 1e308, "", "a", "/", "..", "é\U0001f600", "x" * 5000, [], {}, [[]], [1],
    ["a", "b"], {"a": 1}, [[0, 1, 2]], [[[[[[]]]]]],
]  # fmt: skip
IN_RECORDS = [
    *ODD,
    b"",
    b"\0",
    bytes(64),
    float("nan"),
    float("inf"),
    2**64 - 1,
    "log8",
    "none",
    "float32",
    "full",
]
RECORDS = {path.name: path.read_bytes() for path in sorted(SEEDS.RECORDS.glob("*.slg.msgpack"))}
JSONS = {
    **SEEDS.descriptions(),
    **{name: (SEEDS.SET / name).read_bytes() for name in ("slg.json", "_info.json", "index")},
}


VALUES: dict[str, tuple[type, ...]] = {
    "record": (Record,),
    "shard": (Shard,),
    "plan": (Plan,),
    "index": (ShardIndex,),
    "manifest": (Identity, ShardHeader, Info),
    "label_file": (FkdLabels,),
}


def read_or_refused(name: str, data: bytes) -> bool:
    """Whether each try of a decoder gave a value of its kind or an error of slg_wds; a wrong value raises."""
    outcomes = FUZZ.TARGETS[name](data)
    return bool(outcomes) and all(isinstance(one, (SlgWdsError, *VALUES[name])) for one in outcomes)


def set_at(value: Any, place: list[int], new: Any) -> Any:
    """`value` with what lies at a path of numbers (each modulo what there is) replaced; `...` takes it out."""
    if not place or not isinstance(value, dict | list) or not value:
        return value if new is ... else new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[place[0] % len(keys)]
    changed = copy.copy(value)
    if new is ... and len(place) == 1:
        del changed[key]
    else:
        changed[key] = set_at(value[key], place[1:], new)
    return changed


def changes(pool: list[Any]) -> st.SearchStrategy[list[tuple[list[int], Any]]]:
    place = st.lists(st.integers(0, 40), min_size=1, max_size=4)
    return st.lists(st.tuples(place, st.sampled_from([..., *pool])), min_size=1, max_size=3)


def changed(value: Any, by: list[tuple[list[int], Any]]) -> Any:
    for place, new in by:
        value = set_at(value, place, new)
    return value


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(RECORDS)), changes(IN_RECORDS))
def test_fields_of_records(name, by):
    assert read_or_refused("record", msgpack.packb(changed(msgpack.unpackb(RECORDS[name]), by)))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(RECORDS)), st.data())
def test_contents_of_columns(name, data):
    """Bytes within the frames, so that no checksum is in the way: boxes, classes and probabilities of all kinds."""
    fields = msgpack.unpackb(RECORDS[name])
    columns = fields["columns"]
    column = data.draw(st.sampled_from([column for column in columns if columns[column]]))
    stored = columns[column]
    if isinstance(stored, bytes):  # the integers of low-rank labels, which are in no frame
        columns[column] = damaged(stored, data)
    else:
        at = data.draw(st.integers(0, len(stored) - 1))
        stored[at] = compress(damaged(opened(stored[at]), data), 1)
    assert read_or_refused("record", msgpack.packb(fields))


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """The same with some bytes changed, perhaps cut off."""
    changing = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        changing[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    return bytes(changing[: data.draw(st.sampled_from([len(content)] * 8 + [0, len(content) - 1]))])


def unfolded(value: Any) -> Any:
    """The same with each frame's content in its place."""
    if isinstance(value, dict):
        return {name: unfolded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [unfolded(one) for one in value]
    return opened(value) if isinstance(value, bytes) else value


def opened(frame: bytes) -> bytes:
    import zstandard

    return decompress(frame, zstandard.frame_content_size(frame), Exception)


@settings(max_examples=300, deadline=None)
@given(changes(IN_RECORDS), st.data())
def test_fields_and_vectors_of_plans(by, data):
    fields = unfolded(msgpack.unpackb((SEEDS.SET / "plan").read_bytes()))
    name = data.draw(
        st.sampled_from([name for name, value in fields.items() if isinstance(value, bytes) and value])
    )
    vector = bytearray(fields[name])
    vector[data.draw(st.integers(0, len(vector) - 1))] = data.draw(st.integers(0, 255))
    assert read_or_refused("plan", msgpack.packb({**fields, name: bytes(vector)}))
    assert read_or_refused("plan", msgpack.packb(changed(fields, by)))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(JSONS)), changes([*ODD, 2**70, 10**400, "\ud800"]))
def test_fields_of_json(name, by):
    value = changed(json.loads(JSONS[name]), by)
    data = json.dumps(value).encode()
    decoder = "index" if name == "index" else "manifest"
    assert read_or_refused(decoder, data)
    for encode in (canonical_json, pretty_json):
        assert read_or_refused(decoder, FUZZ.resealed(data, encode))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["plain.tar", "embedded.tar"]), st.data())
def test_members_of_shards(name, data):
    found = members(memoryview((SEEDS.SET / name).read_bytes()))
    whole = (SEEDS.SET / name).read_bytes()
    parts = [[m.name, whole[m.offset : m.offset + m.size]] for m in found]
    index = st.integers(0, len(parts) - 1)
    for _ in range(data.draw(st.integers(1, 3))):
        a, b = data.draw(index), data.draw(index)
        what = data.draw(st.sampled_from(["swap", "double", "remove", "rename", "content", "byte"]))
        if what == "swap":
            parts[a], parts[b] = parts[b], parts[a]
        elif what == "double":
            parts.insert(b, list(parts[a]))
        elif what == "remove" and len(parts) > 1:
            del parts[a % len(parts)]
        elif what == "rename":
            parts[a] = [data.draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)), parts[a][1]]
        elif what == "content":
            parts[a] = [parts[a][0], data.draw(st.binary(max_size=600))]
        elif parts[a][1]:
            at = data.draw(st.integers(0, len(parts[a][1]) - 1))
            parts[a] = [parts[a][0], parts[a][1][:at] + b"\xff" + parts[a][1][at + 1 :]]
        index = st.integers(0, len(parts) - 1)
    assert read_or_refused("shard", msgpack.packb(parts))
    assert read_or_refused("shard", FUZZ.shard_of([(name, content) for name, content in parts]))


COORDS = np.array([[0.0, 0.25, 0.5, 0.5], [0.125, 0.0, 0.75, 1.0]], np.float32)
LABELS = np.array([[[3, 1], [0.5, 0.25]], [[7, 2], [0.75, 0.125]]], np.float32)
PICKLES = [pickle.dumps([COORDS, np.array([True, False]), LABELS], protocol) for protocol in (0, 2, 3, 4, 5)]
OPCODES = sorted(opcode.code.encode("latin-1") for opcode in pickletools.opcodes)
NAMES = [
    b"cos\nsystem\n",
    b"cbuiltins\nbytearray\n",
    b"cnumpy\ndtype\n",
    b"c_codecs\nencode\n",
    b"cnumpy\nndarray\n",
]


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(PICKLES), st.data())
def test_steps_of_pickles(pickled, data):
    bad = bytearray(pickled)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(bad) - 1))
        what = data.draw(st.sampled_from(["byte", "step", "name", "cut"]))
        if what == "byte":
            bad[at] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del bad[at : at + data.draw(st.integers(1, 8))]
        else:
            bad[at:at] = data.draw(st.sampled_from(OPCODES if what == "step" else NAMES))
        if not bad:
            break
    assert read_or_refused("label_file", bytes(bad))


def test_a_whole_label_file_is_read():
    read = FUZZ.read_label_file(FUZZ.label_file_of(PICKLES[1]))
    assert np.array_equal(read.labels, LABELS)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_bytes_of_label_files(data):
    bad = bytearray(FUZZ.label_file_of(PICKLES[1]))
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    assert read_or_refused("label_file", bytes(bad))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once(path):
    assert read_or_refused(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("name", list(FUZZ.TARGETS))
def test_there_are_seeds_that_decode(name):
    """A fuzzer that begins with nothing but refused bytes learns nothing."""
    seeds = SEEDS.seeds(name)
    outcomes = [one for data in seeds for one in FUZZ.TARGETS[name](data)]
    assert {type(one) for one in outcomes if not isinstance(one, SlgWdsError)} == set(VALUES[name])
    if name == "record":
        assert msgpack.unpackb(seeds[0])["version"] == 1


@pytest.mark.parametrize("path", sorted((MALFORMED / "record").iterdir()), ids=lambda p: p.name)
def test_records_once_read_wrongly_are_read_alike_by_all(path):
    assert read_or_refused("record", path.read_bytes())
