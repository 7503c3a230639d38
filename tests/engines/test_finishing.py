"""Which worker writes _info.json when several finish a set together."""

from __future__ import annotations

import threading
import time

import pytest

import slg_wds
from slg_wds.concurrency.rank import Rank
from slg_wds.engines import claims
from slg_wds.engines.claims import finish
from slg_wds.format.manifest.info import decode_info
from slg_wds.labelset import labelset
from slg_wds.labelset.objects import INDEX, INFO
from slg_wds.labelset.publishing import finish_set
from support.sets import trust_sets


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory):
    """A set of three shards."""
    folder = tmp_path_factory.mktemp("finishing")
    images = trust_sets.small_photographs(photographs, folder / "images")
    return trust_sets.make(images, folder / "set", samples_per_shard=3)


@pytest.fixture
def finished(made, tmp_path):
    """The set with all shards but without _info.json."""
    (trust_sets.copy_of(made, tmp_path / "set") / INFO).unlink()
    return slg_wds.open_labels(str(tmp_path / "set"))


@pytest.fixture
def reads(finished, monkeypatch):
    """The names of all index parts that are read."""
    found, read = [], type(finished.store).read

    def noted(store, name, *arguments):
        if name.startswith(f"{INDEX}/"):
            found.append(name)
        return read(store, name, *arguments)

    monkeypatch.setattr(type(finished.store), "read", noted)
    return found


def test_the_other_ranks_wait_for_the_first(finished, reads, monkeypatch):
    monkeypatch.setattr(claims.random, "uniform", lambda low, high: 60.0)
    others = [threading.Thread(target=finish, args=(finished, Rank(rank, 8))) for rank in range(1, 8)]
    for other in others:
        other.start()
    time.sleep(0.2)
    assert not finished.finished() and not reads
    assert finish(finished, Rank(0, 8))
    for other in others:
        other.join(10)
    assert not any(other.is_alive() for other in others)
    assert sorted(reads) == [f"{INDEX}/train-00000{number}" for number in range(3)]
    assert decode_info(finished.store.read(INFO)).shard_lengths == finished.plan.shard_sizes.tolist()


def test_a_first_rank_that_is_dead_is_not_waited_for(finished, reads):
    assert finish(finished, Rank(1, 2))
    assert finished.finished() and len(reads) == 3


@pytest.mark.parametrize("rank", [None, Rank(0, 2), Rank(1, 2)])
def test_a_set_with_a_shard_missing_is_not_finished(finished, rank):
    finished.store.delete("train-000001.tar")
    assert not finish(finished, rank)
    assert not finished.finished()


def test_the_parts_of_the_index_are_read_at_once(finished, monkeypatch):
    """Each read waits until all have begun; sequential reads would wait for ever."""
    together, part = threading.Barrier(3, timeout=20), labelset.LabelSet.index_part

    def meeting(labels, number):
        together.wait()
        return part(labels, number)

    monkeypatch.setattr(labelset.LabelSet, "index_part", meeting)
    assert finish_set(finished)
