"""What is published of a shard: nothing that is not whole and the planned one."""

from __future__ import annotations

import pytest

from slg_wds.errors import LabelSetError
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.publishing import commit_shard, finish_set
from support.sets.made_sets import label_set

SHARD, PART = "train-000002.tar", "index/train-000002"


@pytest.fixture
def labels(tmp_path) -> LabelSet:
    return label_set(tmp_path / "set", 1, complete=False)


@pytest.fixture
def whole(tmp_path) -> bytes:
    return label_set(tmp_path / "same", 1).store.read(SHARD)


def test_a_whole_shard_is_published_with_its_index_part(labels, whole):
    assert commit_shard(labels, 2, whole) and not commit_shard(labels, 2, whole)
    assert labels.store.read(SHARD) == whole and labels.store.size(PART)
    assert finish_set(labels)


@pytest.mark.parametrize("place", ["header", "record", "trailer", "end", "cut"])
def test_a_shard_that_is_spoiled_between_making_and_commit_is_not_published(labels, whole, place):
    spoiled = bytearray(whole)
    at = {
        "header": 3,
        "record": 600,
        "trailer": whole.index(b"members_crc32"),
        "end": len(whole) - 1,
        "cut": 0,
    }
    spoiled[at[place]] ^= place != "cut"
    with pytest.raises(LabelSetError, match=r"damaged before it was published: .*nothing was published"):
        commit_shard(labels, 2, bytes(spoiled[: -10240 if place == "cut" else None]))
    assert labels.store.size(SHARD) is None and labels.store.size(PART) is None
    assert commit_shard(labels, 2, whole)


def test_a_shard_of_another_place_or_set_is_not_published(tmp_path, labels):
    other = label_set(tmp_path / "other", 2)
    for data in (labels.store.read("train-000001.tar"), other.store.read(SHARD)):
        with pytest.raises(LabelSetError, match="it is another shard"):
            commit_shard(labels, 2, data)
    assert labels.missing() == [2] and labels.store.size(PART) is None
