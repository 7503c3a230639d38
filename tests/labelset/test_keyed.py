"""Records of a set by key: found in its index parts, which must be its own, and checked byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from slg_wds.errors import ChecksumError, ShardError
from slg_wds.format.records.decoding import decode_record
from slg_wds.labelset.keyed import KeyedSet, Missing
from support.sets.made_sets import label_set

GONE, UNKNOWN = "class/image05", "class/other"
IMAGE = b"not looked into"


def test_a_record_is_found_by_key_whole_or_by_range(tmp_path):
    labels = label_set(tmp_path / "set", 1, left_out=(GONE,))
    keyed = KeyedSet(labels)
    assert keyed.labelled(GONE) is None and keyed.labelled(UNKNOWN) is None and keyed.find(GONE) == 5
    for prepared in (False, True):
        if prepared:
            keyed.prepare(range(4, 8))  # all that the second shard has: it is read whole
        for number, key in enumerate(labels.plan.keys):
            found = keyed.read(number)
            if key == GONE:
                assert found == Missing("torn")
            else:
                assert isinstance(found, type(labels[key])) and found.key == key
                assert keyed.labelled(key) == number
                assert decode_record(keyed.record_bytes(number)).key == key


def test_an_index_part_of_another_set_is_refused(tmp_path):
    labels, other = label_set(tmp_path / "set", 1), label_set(tmp_path / "other", 2)
    (tmp_path / "set/index/train-000001").write_bytes(other.index_part(1)[0])
    keyed = KeyedSet(labels)
    assert keyed.labelled(labels.plan.keys[0]) == 0
    for read in (
        keyed.read,
        keyed.image,
        keyed.record_bytes,
        lambda at: keyed.labelled(labels.plan.keys[at]),
    ):
        with pytest.raises(ShardError, match="its index is that of another label set") as caught:
            read(4)
        assert caught.value.shard == "train-000001.tar"


def test_an_image_that_is_not_whole_is_refused(tmp_path):
    labels = label_set(tmp_path / "set", 1, image=IMAGE)
    assert KeyedSet(labels).image(2) == IMAGE
    shard = Path(labels.url, "train-000000.tar")
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes().replace(IMAGE, IMAGE.swapcase()))
    with pytest.raises(ChecksumError) as caught:
        KeyedSet(labels).image(2)
    assert caught.value.key == labels.plan.keys[2]
