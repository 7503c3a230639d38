"""The replay order against a scalar restatement of its six steps, and its guarantees for any shape."""

from __future__ import annotations

import hashlib
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import ReplayError
from slg_wds.replay.order.shuffled import ShuffledOrder
from support.oracles.order_oracle import scalar_epoch

DIGEST = "8f" * 32

shapes = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.one_of(st.just(0), st.integers(0, 40)), min_size=0, max_size=12),
        "B": st.integers(1, 40),
        "L": st.integers(1, 50),
        "m": st.integers(1, 5),
        "seed": st.integers(-3, 2**70),
        "epoch": st.integers(0, 10**6),
    }
)


def order_of(shape, last="drop") -> ShuffledOrder:
    rest = (shape[name] for name in ("seed", "epoch", "B", "L", "m"))
    return ShuffledOrder(shape["sizes"], DIGEST, *rest, last=last)


@given(shapes)
@settings(max_examples=120, deadline=None)
def test_order_is_the_scalar_one(shape):
    expected = scalar_epoch(digest=DIGEST, **shape)
    order = order_of(shape, "pad")
    shard, sample = order.batches(0, len(order))
    found = {}
    for t, b in np.ndindex(shard.shape):
        if t < order.full_batches or b < order.remainder:
            found[t, b] = int(shard[t, b]), int(sample[t, b])
        else:
            assert shard[t, b] == sample[t, b] == -1
    assert found == expected


def random_shapes(count: int, seed: int):
    rng = random.Random(seed)
    for _ in range(count):
        most = rng.choice([1, 3, 50, 300])
        sizes = [rng.choice([0, most, rng.randint(0, most)]) for _ in range(rng.randint(1, 59))]
        yield (
            rng,
            {
                "sizes": sizes,
                "B": rng.randint(1, 199),
                "L": rng.randint(1, 100),
                "m": rng.randint(1, 5),
                "seed": rng.randrange(2**63),
                "epoch": rng.randrange(100),
            },
        )


def columns_of(rank: int, ranks: int, batch: int) -> tuple[int, int]:
    return rank * batch // ranks, (rank + 1) * batch // ranks


@pytest.mark.slow
def test_any_shape_is_read_exactly_once_by_any_ranks_from_anywhere():
    for rng, shape in random_shapes(1001, seed=1):
        B, N = shape["B"], sum(shape["sizes"])
        padded, dropped = order_of(shape, "pad"), order_of(shape)
        assert (len(padded), len(dropped)) == (math.ceil(N / B), N // B)
        shard, sample = padded.batches(0, len(padded))
        # Exactly once:
        real = shard >= 0
        seen = sorted(zip(shard[real].tolist(), sample[real].tolist(), strict=True))
        assert seen == [(i, j) for i, size in enumerate(shape["sizes"]) for j in range(size)]
        # What fills no batch is the last columns, and nothing before depends on it:
        assert real[: N // B].all() and (N % B == 0 or real[-1].tolist() == [b < N % B for b in range(B)])
        for whole, full in zip((shard, sample), dropped.batches(0, len(dropped)), strict=True):
            assert np.array_equal(whole[: N // B], full)
        # Whatever the ranks, and wherever one begins:
        if len(padded):
            t, R = rng.randrange(len(padded)), rng.choice([1, 2, 3, 5, 8, rng.randint(1, 2 * B)])
            fresh = order_of(shape, "pad")
            parts = {r: fresh.batch(t, *columns_of(r, R, B)) for r in rng.sample(range(R), R)}
            for i, whole in enumerate((shard, sample)):
                assert np.array_equal(whole[t], np.concatenate([parts[r][i] for r in range(R)]))


def used_between(order: ShuffledOrder, first: int, last: int) -> dict[int, list[int]]:
    shard, _ = order.batches(0, len(order), first, last)
    used: dict[int, list[int]] = {}
    for t, b in np.ndindex(shard.shape):
        if shard[t, b] >= 0:
            used.setdefault(int(shard[t, b]), []).append(t)
    return used


def test_spans_say_when_a_shard_is_needed():
    for rng, shape in random_shapes(250, seed=2):
        order = order_of(shape, rng.choice(["drop", "pad"]))
        first, last = sorted(rng.choices(range(shape["B"] + 1), k=2))
        used = used_between(order, first, last)
        spans = order.spans(first, last)
        listed = dict(
            zip(
                spans.shard.tolist(), zip(spans.start.tolist(), spans.stop.tolist(), strict=True), strict=True
            )
        )
        assert len(listed) == spans.shard.size and np.all(np.diff(spans.start) >= 0)
        exact = {shard: (times[0], times[-1] + 1) for shard, times in used.items()}
        if shape["m"] == 1:
            assert listed == exact
        for shard, (start, stop) in exact.items():
            assert 0 <= listed[shard][0] <= start < stop <= listed[shard][1] <= len(order)


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("ranks", [1, 8, 64])
def test_shards_are_read_about_once_and_few_at_a_time(window, ranks):
    """ImageNet's 1,282 shards, B = 1024, L = 256; the ranks divide L."""
    sizes = [1000] * 1281 + [167]
    order = ShuffledOrder(sizes, DIGEST, 0, 0, 1024, 256, window)
    reads, open_at_once = 0, []
    for rank in range(ranks):
        spans = order.spans(*columns_of(rank, ranks, 1024))
        reads += spans.shard.size
        changes = np.bincount(spans.start, minlength=len(order) + 1) - np.bincount(
            spans.stop, minlength=len(order) + 1
        )
        open_at_once.append(int(np.cumsum(changes).max()))
    assert reads <= 1282 + ranks - 1
    assert max(open_at_once) <= 256 // ranks * window + 2


# These values never change while ORDER_VERSION does not.


def test_golden_values():
    order = ShuffledOrder([3, 0, 7, 5, 4, 6], "ab" * 32, 42, 7, 6, 4, 2, last="pad")
    shard, sample = order.batches(0, 5)
    assert (shard * 10 + sample).tolist() == GOLDEN_EPOCH
    big = ShuffledOrder([256] * 299 + [17], DIGEST, 2**64 + 1, 12, 1000, 64, 3)
    digest = hashlib.sha256(b"".join(part.astype("<i8").tobytes() for part in big.batches(0, len(big))))
    assert digest.hexdigest() == GOLDEN_BIG


GOLDEN_EPOCH = [
    [26, 52, 51, 43, 30, 33],
    [21, 50, 53, 1, 32, 34],
    [23, 54, 55, 0, 31, 41],
    [24, 22, 25, 2, 40, 42],
    [20, -11, -11, -11, -11, -11],
]
GOLDEN_BIG = "1edd7819c88222a6609350f10069a29ce27a596250cfbcd75c2cfc351afade9e"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"lanes": 0}, "lanes is 0"),
        ({"window": -1}, "window is -1"),
        ({"epoch": -1}, "epoch is -1"),
        ({"last": "keep"}, "last is 'keep'"),
        ({"shard_sizes": [3, -1, 5]}, "shard 1 has -1 samples"),
        ({"shard_sizes": [1.5]}, "shard sizes are float64"),
        ({"shard_sizes": [[1], [2]]}, r"shard sizes are int64 \[2, 1\]"),
    ],
)
def test_what_cannot_be_is_refused(change, words):
    good = {"shard_sizes": [4], "digest": "", "seed": 0, "epoch": 0, "batch": 2, "lanes": 1, "window": 1}
    ShuffledOrder(**good)
    with pytest.raises(ReplayError, match=words):
        ShuffledOrder(**{**good, **change})


def test_batches_and_columns_out_of_range_are_refused():
    order = ShuffledOrder([10], "", 0, 0, 3, 1)
    for call, words in [
        (lambda: order.batch(3), "batches 3 to 4 of an epoch of 3"),
        (lambda: order.batch(-1), "batches -1 to 0"),
        (lambda: order.batch(0, 2, 1), "columns 2 to 1 of a batch of 3"),
        (lambda: order.spans(0, 4), "columns 0 to 4"),
    ]:
        with pytest.raises(ReplayError, match=words):
            call()


@pytest.mark.parametrize("sizes", [[], [0], [0, 0, 0]])
@pytest.mark.parametrize("last", ["drop", "pad"])
def test_a_set_without_samples_has_no_batches(sizes, last):
    order = ShuffledOrder(sizes, DIGEST, 0, 0, 4, 2, 3, last)
    assert len(order) == 0 and order.spans().shard.size == 0


def test_fewer_samples_than_a_batch():
    order = ShuffledOrder([2, 1], DIGEST, 0, 0, 8, 4, 2, "pad")
    assert len(order) == 1 and len(ShuffledOrder([2, 1], DIGEST, 0, 0, 8, 4, 2)) == 0
    shard, sample = order.batch(0)
    assert (shard >= 0).tolist() == [True] * 3 + [False] * 5
    assert sorted(zip(shard[:3].tolist(), sample[:3].tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0)]
