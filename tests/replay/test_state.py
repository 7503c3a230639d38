"""Where a loader is, as its trainer walks, stops, chooses another epoch and goes on: no loader is needed for that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slg_wds.errors import ReplayError
from slg_wds.replay.order.fingerprint import fingerprint
from slg_wds.replay.state import LoaderProgress, from_state, to_state
from slg_wds.replay.temperature import LabelTemperature

LENGTH = 3
ORDER = fingerprint("digest", 0, 24, 6, 1)
AS_MADE = LabelTemperature(None)


def walk(progress: LoaderProgress) -> Iterator[int]:
    """What `SoftLabelLoader.walk` tells of each batch: yields how many there were of the epoch."""
    epoch, start = progress.begin()
    for number in range(start + 1, LENGTH + 1):
        progress.take(epoch, number)
        yield number
    progress.end(epoch)


def test_walks_follow_each_other_whether_or_not_the_end_is_heard():
    progress = LoaderProgress(LENGTH)
    assert list(walk(progress)) == [1, 2, 3] and progress.place == (1, 0)
    assert [number for _, number in zip(range(LENGTH), walk(progress), strict=False)] == [1, 2, 3]
    assert progress.place == (1, 3)  # the end of this epoch, not the beginning of the next one
    assert next(walk(progress)) == 1 and progress.place == (2, 1)


def test_an_epoch_of_which_all_was_taken_can_be_chosen_again():
    progress = LoaderProgress(LENGTH)
    for _ in zip(range(LENGTH), walk(progress), strict=False):
        pass
    progress.choose(0)
    assert list(walk(progress)) == [1, 2, 3] and progress.place == (1, 0)


def test_a_walk_that_is_left_begins_again():
    progress = LoaderProgress(LENGTH)
    assert next(walk(progress)) == 1
    assert next(walk(progress)) == 1 and progress.place == (0, 1)


def test_the_end_of_an_old_walk_changes_nothing():
    progress = LoaderProgress(LENGTH)
    old = walk(progress)
    assert next(old) == 1
    progress.choose(7)
    new = walk(progress)
    assert next(new) == 1
    progress.end(0)
    assert progress.place == (7, 1) and progress.epoch == 7


def test_an_epoch_chosen_during_a_walk_is_the_next_one():
    progress = LoaderProgress(LENGTH)
    for number in walk(progress):
        if number == 2:
            progress.choose(5)
            assert progress.epoch == 5 and progress.place == (5, 0)
    assert progress.place == (5, 0) and progress.begin() == (5, 0)


def test_a_loaded_place_stays_where_its_own_epoch_is_chosen():
    progress = LoaderProgress(LENGTH)
    progress.go_to((4, 2))
    progress.choose(4)
    assert progress.place == (4, 2) and list(walk(progress)) == [3]
    progress.go_to((4, 2))
    progress.choose(3)
    assert progress.place == (3, 0)


def test_a_loaded_place_at_the_end_of_its_epoch_is_walked_as_it_is():
    progress = LoaderProgress(LENGTH)
    progress.go_to((4, LENGTH))
    progress.choose(4)
    assert list(walk(progress)) == [] and progress.place == (5, 0)


def test_a_state_says_where_it_was_taken():
    assert from_state(to_state(3, 2, ORDER, AS_MADE), ORDER, AS_MADE) == (3, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "not a loader's state of version 1"),
        ({"fingerprint": None}, "says nothing of the order"),
        ({"fingerprint": {**ORDER, "seed": 1}}, "seed is 1 there and 0 here"),
        ({"fingerprint": {**ORDER, "rows": 1}}, "rows is 1 there and 'unknown' here"),
        ({"epoch": -1}, "at batch 2 of epoch -1"),
        ({"epoch": True}, "at batch 2 of epoch True"),
        ({"epoch": None}, "at batch 2 of epoch None"),
        ({"batches": -1}, "at batch -1 of epoch 3"),
        ({"batches": 1.0}, r"at batch 1\.0 of epoch 3"),
    ],
)
def test_a_state_that_cannot_be_is_refused(change, words):
    with pytest.raises(ReplayError, match=words):
        from_state({**to_state(3, 2, ORDER, AS_MADE), **change}, ORDER, AS_MADE)


def test_what_is_no_state_is_refused():
    with pytest.raises(ReplayError, match="not a loader's state of version 1: 7"):
        from_state(7, ORDER, AS_MADE)
