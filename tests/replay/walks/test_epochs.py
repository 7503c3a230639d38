"""Which epoch comes next, for every way in which trainers iterate."""

from __future__ import annotations

import threading
from itertools import islice

import pytest

from support.sets.replay_sets import Made, comparable, make


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory):
    labels = make(photographs, tmp_path_factory.mktemp("epochs") / "set", embed_images="original")
    return Made(labels, None)


def by_next(loader):
    walk = iter(loader)
    return walk, [next(walk) for _ in range(len(loader))]


def by_islice(loader):
    walk = iter(loader)
    return walk, list(islice(walk, len(loader)))


def by_zip(loader):
    walk = iter(loader)
    return walk, [batch for _, batch in zip(range(len(loader)), walk, strict=False)]


ASKED = pytest.mark.parametrize("ask", [by_next, by_islice, by_zip])
KIND = pytest.mark.parametrize("kind", ["plain", "device"])


def loader_of(made, kind, **options):
    loader = made.loader(**options)
    return loader if kind == "plain" else loader.to("cpu")


@ASKED
@KIND
@pytest.mark.parametrize("options", [{}, {"last": "pad"}, {"prefetch": 7}, {"rank": 1, "world_size": 2}])
def test_a_loader_asked_exactly_len_times_goes_on_to_the_next_epoch(made, ask, kind, options):
    by_loops = loader_of(made, kind, **options)
    expected = [comparable(by_loops) for _ in range(3)]
    loader, walks = loader_of(made, kind, **options), []
    for epoch in range(3):
        walk, batches = ask(loader)
        walks.append(walk)  # a trainer may keep it
        assert comparable(batches) == expected[epoch]
        assert loader.state_dict()["epoch"] == epoch
    assert expected[0] != expected[1] != expected[2]


@ASKED
def test_the_last_batch_ends_the_threads(made, ask):
    before = set(threading.enumerate())
    walk, _ = ask(made.loader(threads=3))
    assert set(threading.enumerate()) <= before
    assert next(walk, None) is None


def test_a_walk_that_is_asked_once_more_changes_nothing(made):
    loader = made.loader()
    first, _ = by_next(loader)
    assert next(first, None) is None and loader.epoch == 1
    second, _ = by_next(loader)
    by_next(loader)
    assert next(second, None) is None and loader.epoch == 2, "an old walk does not move the loader"


def test_set_epoch_chooses_after_exactly_len_batches(made):
    loader = made.loader()
    _, zero = by_next(loader)
    for epoch in (0, 1, 0):
        loader.sampler.set_epoch(epoch)
        _, batches = by_next(loader)
        assert (comparable(batches) == comparable(zero)) == (epoch == 0)


def test_a_state_after_the_last_batch_has_nothing_left_of_its_epoch(made):
    """As torchdata's StatefulDataLoader does: the loop that was cut off there ends, and the next one is whole."""
    loader = made.loader()
    by_next(loader)
    state = loader.state_dict()
    resumed = made.loader()
    resumed.load_state_dict(state)
    assert comparable(resumed) == [] and comparable(resumed) == comparable(loader)
    chosen = made.loader()
    chosen.load_state_dict(state)
    chosen.set_epoch(1)
    loader.set_epoch(1)
    assert comparable(chosen) == comparable(loader)


@KIND
def test_a_state_never_mixes_the_batches_of_two_epochs(made, kind):
    """set_epoch in mid-epoch: until the new epoch begins, the trainer's place is where it takes batches."""
    loader = loader_of(made, kind)
    whole = comparable(loader_of(made, kind))
    chosen = loader_of(made, kind)
    chosen.set_epoch(5)
    walk = iter(loader)
    assert comparable([next(walk)]) == whole[:1]
    loader.set_epoch(5)
    assert place(loader) == (5, 0), "nothing was taken since"
    assert comparable([next(walk)]) == whole[1:2]
    assert place(loader) == (0, 2)
    resumed = loader_of(made, kind)
    resumed.load_state_dict(loader.state_dict())
    assert comparable(resumed) == whole[2:]
    assert comparable(walk) == whole[2:] and place(loader) == (5, 0)
    assert comparable(loader) == comparable(chosen) and place(loader) == (6, 0)


def place(loader):
    state = loader.state_dict()
    return state["epoch"], state["batches"]


def test_an_epoch_that_is_chosen_in_the_last_batch_comes_next(made):
    loader, chosen = made.loader(), made.loader()
    chosen.set_epoch(3)
    for number, _ in enumerate(loader, 1):
        if number == len(loader):
            loader.set_epoch(3)
    assert comparable(loader) == comparable(chosen)


def test_a_loaded_state_is_gone_on_with_whatever_an_old_walk_gave(made):
    loader = made.loader()
    walk = iter(loader)
    next(walk)
    state = loader.state_dict()
    next(walk)
    loader.load_state_dict(state)
    assert comparable(loader) == comparable(made.loader())[1:]


@pytest.mark.usefixtures("no_thread_is_left")
def test_after_an_epoch_comes_the_next_and_set_epoch_goes_anywhere(embedded):
    loader = embedded.loader()
    first, second = comparable(loader), comparable(loader)
    assert first != second
    loader.set_epoch(0)
    assert comparable(loader) == first
    loader.set_epoch(1)
    assert comparable(loader) == second
    iterator = iter(loader)
    next(iterator)
    iterator.close()
    assert loader.state_dict()["batches"] == 1 and len(comparable(loader)) == len(
        loader
    )  # a new walk of epoch 2
