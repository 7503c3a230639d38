"""Which shards concurrent workers take: few are made twice, and no worker follows another."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from slg_wds.concurrency.rank import Rank
from slg_wds.engines import claims
from support.programs import tool

SIMULATED = tool("simulate_cluster")


@dataclasses.dataclass
class Shards:
    """A label set as the loop sees it."""

    num_shards: int
    made: set[int] = dataclasses.field(default_factory=set)
    looks: list[str] = dataclasses.field(default_factory=list)  # what was asked of the store

    def exists(self, number):
        self.looks.append("shard")
        return number in self.made

    def missing(self):
        self.looks.append("all")
        return [number for number in range(self.num_shards) if number not in self.made]


@pytest.fixture
def chance(monkeypatch):
    """The same draws in every run."""
    drawn = iter(range(1000))
    monkeypatch.setattr(claims.os, "urandom", lambda count: next(drawn).to_bytes(count, "big"))


def test_a_worker_alone_makes_each_shard_once_and_walks():
    shards, order = Shards(500), []
    for number in claims.claims(shards, None):
        order.append(number)
        shards.made.add(number)
    assert sorted(order) == list(range(500))
    jumps = sum(after != before + 1 for before, after in itertools.pairwise(order))
    assert jumps < 30  # about log2(500); in a random order 499


def test_a_block_is_walked_first_and_what_exists_is_passed_over():
    shards = Shards(100, {51, 52, 60})
    loop = claims.claims(shards, Rank(1, 2))
    order = []
    for number in loop:
        order.append(number)
        shards.made.add(number)
    assert order[:47] == [number for number in range(50, 100) if number not in (51, 52, 60)]
    assert sorted(order) == sorted(set(range(100)) - {51, 52, 60})


@pytest.mark.parametrize("rank", [Rank(0, 2), Rank(1, 2)])
def test_two_workers_of_one_rank_part_when_one_has_lost_a_shard(chance, rank):
    """The same job started twice; at the same speed both would otherwise make their whole block."""
    shards, lost = Shards(1000), [set(), set()]
    both = [claims.claims(shards, rank, lost=found) for found in lost]
    twice = 0
    for _ in range(100):
        begun = [next(loop) for loop in both]
        for number, found in zip(begun, lost, strict=True):
            if number in shards.made:
                found.add(number)
                twice += 1
            shards.made.add(number)
    assert twice == 1


def test_a_worker_that_comes_to_what_another_makes_begins_elsewhere(chance):
    """The other worker is at 21 and has made 20. Walking on behind it would follow it to the end."""
    shards = Shards(1000)
    loop = claims.claims(shards, Rank(0, 10))
    for number in range(20):
        assert next(loop) == number
        shards.made.add(number)
    shards.made.add(20)
    assert next(loop) > 22


def test_a_run_of_missing_shards_ends_at_one_that_exists(chance):
    """Behind it another worker may be at work, so the next run begins at a random shard."""
    shards, order = Shards(1000, set(range(0, 1000, 2))), []
    for number in claims.claims(shards, None):
        order.append(number)
        shards.made.add(number)
    assert sorted(order) == list(range(1, 1000, 2))
    assert sum(after == before + 2 for before, after in itertools.pairwise(order)) < 25


def test_missing_shards_are_listed_again_once_looks_have_cost_as_much(chance):
    """A listing of 9,500 shards costs ten requests. What others made meanwhile is then not looked for one by one."""
    shards = Shards(9500, set(range(0, 9500, 2)))
    loop = claims.claims(shards, None)
    for _ in range(35):
        shards.made.add(next(loop))
    runs = [len(list(looks)) for kind, looks in itertools.groupby(shards.looks) if kind == "shard"]
    assert runs == [10, 10, 10, 5]


def test_many_launches_without_ranks_make_little_twice_before_the_end(chance):
    scene = SIMULATED.Scene(workers=64, shards=5005, shard_seconds=64.0, lose_every=600.0, ranks=False)
    cluster = SIMULATED.Cluster(scene, 0)
    before_the_end = []
    finished = cluster._finished
    cluster._finished = lambda worker, now: (
        before_the_end.append(cluster.made[worker.making] and cluster.left > 500),
        finished(worker, now),
    )
    found = cluster.run()
    assert sum(before_the_end) <= 40  # in a random order about 130
    assert found.twice < 250  # about 320
    assert all(cluster.made)
