"""How shards are shared out and read: a set that is another one by now, and a store that is gone."""

from __future__ import annotations

import pytest

from slg_wds.errors import LabelSetError, StoreUnavailableError
from slg_wds.labelset.opening import open_labels
from slg_wds.store import Location
from slg_wds.verification.work import GROUP_BYTES, VerifyTask, grouped
from support.sets.made_sets import label_set

GONE = StoreUnavailableError("no answer")


def task(url: str, digest: str) -> VerifyTask:
    return VerifyTask(Location(url), digest, (0, 1, 2), indexed=True, max_pixels=0, images=None)


def test_processes_share_the_shards(tmp_path):
    label_set(tmp_path / "set", 1)
    labels = open_labels(str(tmp_path / "set"))
    reports = [list(task(labels.url, labels.digest)(worker, 2)) for worker in range(2)]
    assert [[report.number for report in part] for part in reports] == [[0, 2], [1]]
    assert not any(report.problems for part in reports for report in part)


def test_a_set_that_was_replaced_meanwhile_is_not_checked_as_the_one_before(tmp_path):
    label_set(tmp_path / "set", 1)
    with pytest.raises(LabelSetError, match="the set has been replaced by another meanwhile"):
        list(task(str(tmp_path / "set"), "0" * 64)(0, 1))


def test_a_store_is_gone_after_three_shards_in_a_row():
    here = bytes(GROUP_BYTES)
    reads = [(0, GONE), (1, GONE), (2, here), (3, GONE), (4, GONE), (5, GONE), (6, here)]
    found = grouped(reads)
    assert [number for number, _ in next(found)] == [0, 1, 2]
    with pytest.raises(StoreUnavailableError, match="no answer"):
        next(found)


def test_small_shards_come_together():
    reads = [(number, bytes(GROUP_BYTES // 4)) for number in range(6)]
    assert [[number for number, _ in group] for group in grouped(reads)] == [[0, 1, 2, 3], [4, 5]]
