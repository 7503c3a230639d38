"""How fast a set grows, by the times of its shards: pauses between runs and jumps of a clock do not count."""

from __future__ import annotations

import numpy as np
import pytest

from slg_wds.inspection.pace import pace

DAY = 86400.0


def times(*waits: float) -> list[float]:
    return (1.7e9 + np.cumsum([0.0, *waits])).tolist()


@pytest.mark.parametrize(
    "waits",
    [
        [60.0] * 10 + [8 * 3600.0] + [60.0] * 9,  # the run of yesterday, and that of today
        [DAY] + [60.0] * 12,  # the first one was only a try
        [60.0] * 12 + [DAY],  # a shard of a machine whose clock is a day ahead
        [60.0] * 11 + [DAY] + [60.0] * 11 + [3 * DAY] + [60.0] * 11 + [5000.0],
    ],
)
def test_pauses_do_not_count(waits):
    found = pace(times(*waits), 30)
    assert found.shards_per_second == pytest.approx(1 / 60) and found.left == pytest.approx(1800)


@pytest.mark.parametrize(
    "waits",
    [
        [1.0] * 7 + [6000.0] + [1.0] * 7 + [6000.0],  # eight workers, which commit at the same time
        [5.0, 7200.0],  # too few to tell
        [600.0] * 18 + [5000.0],  # a slow shard
    ],
)
def test_long_shards_do(waits):
    assert pace(times(*waits), 30).shards_per_second == pytest.approx(len(waits) / sum(waits))


def test_only_late_commits_count():
    found = pace(times(*[600.0] * 100, *[60.0] * 30), 1)
    assert found.measured == 26 and found.shards_per_second == pytest.approx(1 / 60)


def test_without_waits_there_is_no_pace():
    assert pace([], 3) is None
    for few in (times(), times(0.0, 0.0)):
        found = pace(few, 3)
        assert found.shards_per_second is None and found.left is None
