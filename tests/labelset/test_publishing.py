"""What is published of a shard: nothing that is not whole and the planned one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slg_wds.errors import LabelSetError
from slg_wds.format.manifest.description import encode_description
from slg_wds.format.manifest.index import build_index, encode_index
from slg_wds.format.shards.shard import read_shard
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.objects import DESCRIPTION
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


def made_elsewhere(labels: LabelSet, whole: bytes) -> bytes:
    """The same shard with other provenance, so that it has other bytes and is longer."""
    shard = read_shard(whole)
    samples = [labels.encode_sample(sample) for sample in shard]
    return labels.encode_shard(2, samples, [], {"device": "another one " * 1000})


def test_the_index_part_is_of_the_shard_that_was_first(labels, whole):
    assert commit_shard(labels, 2, whole)
    part = labels.store.read(PART)
    assert not commit_shard(labels, 2, made_elsewhere(labels, whole))
    assert labels.store.read(PART) == part and labels.store.read(SHARD) == whole


def test_an_index_part_of_a_shard_that_was_replaced_is_made_again(labels, whole):
    assert commit_shard(labels, 2, whole)
    labels.store.delete(SHARD)
    other = made_elsewhere(labels, whole)
    assert len(other) != len(whole) and labels.store.create(SHARD, other)
    assert finish_set(labels)
    assert labels.store.read(PART) == encode_index(build_index(read_shard(other), labels.plan, 2))


def test_nothing_is_written_to_a_set_of_another_form(labels, whole):
    """Of the same labels, but begun anew in a form in which records have no checksums of images."""
    other = replace(labels.description, image_checksums=not labels.description.image_checksums)
    labels.store.delete(DESCRIPTION)
    labels.store.create(DESCRIPTION, encode_description(other))
    with pytest.raises(LabelSetError, match="another label set is in this place"):
        commit_shard(labels, 2, whole)
    assert labels.missing() == [2]


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
