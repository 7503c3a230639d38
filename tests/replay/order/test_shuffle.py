"""How good the shuffle is: epochs beside perfect shuffles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from slg_wds.replay.order.shuffled import ShuffledOrder

DIGEST = "8f" * 32
CLASSES, PER_CLASS, SHARD = 10_240, 12, 256
N = CLASSES * PER_CLASS


def distinct(source: np.ndarray) -> dict[str, int]:
    return {
        "classes": np.unique(source // PER_CLASS).size,
        "neighbourhoods": np.unique(source // 4).size,
        "neighbours": np.unique(np.concatenate([source - 1, source + 1])).size,
    }


def quality(source_of_sample: np.ndarray, lanes: int, window: int) -> tuple[dict, dict]:
    """Return the worst and the best ratio to perfect shuffles, over all 4,096 consecutive samples of an epoch."""
    rng = np.random.default_rng(0)
    perfect = [distinct(rng.choice(N, 4096, replace=False)) for _ in range(20)]
    order = ShuffledOrder([SHARD] * (N // SHARD), DIGEST, 5, 3, 1024, lanes, window)
    shard, sample = order.batches(0, len(order))
    source = source_of_sample[shard.reshape(-1) * SHARD + sample.reshape(-1)]
    found = [distinct(source[i : i + 4096]) for i in range(0, source.size - 4095, 1024)]
    ratios = {
        name: [f[name] / np.mean([p[name] for p in perfect]) for f in found]
        for name in ("classes", "neighbourhoods", "neighbours")
    }
    return {k: min(v) for k, v in ratios.items()}, {k: max(v) for k, v in ratios.items()}


@pytest.mark.parametrize(("lanes", "window"), [(1, 1), (64, 1), (256, 1), (256, 4)])
def test_shuffle_is_as_good_as_a_perfect_one(lanes, window):
    """The source is sorted by class, and shuffled once when it is planned."""
    worst, best = quality(np.random.default_rng(7).permutation(N), lanes, window)
    assert min(worst.values()) > 0.95 and max(best.values()) < 1.05


def test_shards_written_in_class_order_would_show():
    worst, _ = quality(np.arange(N), 64, 1)
    assert worst["classes"] < 0.7 and worst["neighbours"] < 0.8


def test_epochs_and_seeds_are_unlike():
    sizes = [100] * 50
    orders = [
        ShuffledOrder(sizes, d, s, e, 50, 8, 2)
        for d, s, e in [("a", 0, 0), ("b", 0, 0), ("a", 1, 0), ("a", 0, 1)]
    ]
    flat = [(lambda r: r[0] * 100 + r[1])(order.batches(0, 100)).reshape(-1) for order in orders]
    for one, two in itertools.combinations(flat, 2):
        assert np.count_nonzero(one == two) < 10  # 1 expected
        assert abs(np.corrcoef(one % 100, two % 100)[0, 1]) < 0.05


def test_samples_of_neighbouring_shards_are_unlike():
    order = ShuffledOrder([64] * 400, DIGEST, 0, 0, 64, 1)  # a batch is a shard
    _, sample = order.batches(0, 400)
    same = [(one == two).sum() for one, two in itertools.pairwise(sample)]
    assert 0.8 < np.mean(same) < 1.2  # 1 for independent permutations
    serial = np.corrcoef(sample[:, :-1].reshape(-1), sample[:, 1:].reshape(-1))[0, 1]
    assert abs(serial + 1 / 63) < 0.025
