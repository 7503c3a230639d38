"""The end of every worker loop: what is committed, counted and reported, also where another worker was first."""

from __future__ import annotations

from typing import Any

import pytest

from slg_wds.engines.committing import Committer
from slg_wds.engines.reports.run_stats import RunObserver, RunStats
from slg_wds.format.shards.shard import Sample
from slg_wds.labelset.labelset import LabelSet
from support.sets.made_sets import label_set, probabilities, record


class Told(RunObserver):
    """Keeps what is said of shards."""

    def __init__(self) -> None:
        self.shards: list[tuple[str, int, bool]] = []

    def shard(self, name: str, stats: Any, made: bool) -> None:
        self.shards.append((name, stats.bytes, made))


@pytest.fixture
def labels(tmp_path) -> LabelSet:
    """A set of ten images that lacks its last shard, of the last two."""
    return label_set(tmp_path / "set", 1, complete=False)


def commit(committer: Committer, labels: LabelSet, crops: int = 24) -> RunStats:
    key = labels.plan.keys[8]
    sample = Sample(record(key, probabilities(0, crops, 60), "shared_tail_k5"), None, None)
    stats = RunStats(images=1, crops=crops)
    return committer.commit(2, [labels.encode_sample(sample)], [(9, "it is torn")], {}, stats)


def test_of_two_workers_that_make_a_shard_one_commits_it(labels):
    observers = Told(), Told()
    first, second = (Committer(labels, observer) for observer in observers)
    made, dropped = commit(first, labels), commit(second, labels, crops=12)
    size = labels.store.size("train-000002.tar")
    assert made == RunStats(1, 24, size, 1, left_out=[("class/image09.jpg", "it is torn")])
    assert dropped == RunStats(lost_races=1)
    assert (first.lost, second.lost) == (set(), {2})
    assert [told.shards[0][2] for told in observers] == [True, False]
    assert observers[0].shards == [("train-000002", size, True)]
    assert labels.shard(2).header.left_out == [
        {"key": "class/image09", "path": "class/image09.jpg", "reason": "it is torn"}
    ]
