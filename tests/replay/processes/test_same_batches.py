"""What processes make are the loader's batches, to the bit, whatever a trainer does with them."""

from __future__ import annotations

import itertools
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import slg_wds
from slg_wds.errors import UsageError
from slg_wds.replay.assembly.epoch import PADDING, PlannedBatch
from slg_wds.replay.batch import Batch
from slg_wds.replay.processes.messages import packed, unpacked
from slg_wds.replay.sources.label_sets import SamplePlace
from support.sets.label_kinds import of_every_kind
from support.sets.mixed_sets import mixed_of
from support.sets.replay_sets import Made, comparable, make
from support.sets.same_batches import assert_same, assert_same_walk

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

QUICK, OTHERS = ("full", "mixed"), ("tail", "hard", "lowrank", "views", "embeddings")
KINDS = [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS)]


@pytest.fixture(scope="module")
def sets(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    more = {
        "lowrank": {"label_type": "lowrank"},
        "views": {"label_type": "shared_tail_k5", "aa": "ra-n2-m9", "reprob": 0.25},
        "embeddings": {"output": "embedding"},
    }
    made = of_every_kind(photographs, folder)
    for name, options in more.items():
        labels = make(photographs, folder / name, embed_images="original", num_crops=4, **options)
        made[name] = Made(labels, None)
    return {**made, "mixed": Made(mixed_of(made["lowrank"].labels, str(folder / "mixed")), None)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_labels(sets, only_processes, kind):
    options = {"last": "pad", "prefetch": 2}
    here = sets[kind].loader(**options)
    expected = [list(here), list(here)]
    loader = only_processes(sets[kind].loader(**options, processes=1))
    assert len(expected[0]) >= 3
    for epoch in expected:
        assert_same_walk(loader, epoch)


@pytest.mark.slow
def test_several_sets_a_temperature_of_each_epoch_and_images_of_a_folder(places, only_processes):
    made = places["folder"]
    options = {"temperature": lambda epoch: 1.0 + epoch, "weights": [0.25, 0.75], "images": made.images}
    options |= {"global_batch_size": 24, "threads": 2}
    here = slg_wds.SoftLabelLoader([made.labels] * 2, **options)
    expected = [list(here), list(here)]
    assert not torch.equal(expected[0][0].labels.dense(), expected[1][0].labels.dense())
    loader = only_processes(slg_wds.SoftLabelLoader([made.labels] * 2, **options, processes=1))
    for epoch in expected:
        assert_same_walk(loader, epoch)


@pytest.mark.slow
def test_a_set_and_what_extends_it(places, only_processes, photographs, tmp_path):
    old = make(photographs, tmp_path / "old", num_crops=4, embed_images="original")
    new = make(photographs, tmp_path / "new", num_crops=6, extend=old, embed_images="original")
    options = {"global_batch_size": 24, "crops_per_image": 4, "threads": 2}
    expected = list(slg_wds.SoftLabelLoader([old, new], **options))
    loader = only_processes(slg_wds.SoftLabelLoader([old, new], **options, processes=1))
    assert_same_walk(loader, expected)


@pytest.mark.slow
def test_small_batches_are_begun_together(embedded, only_processes):
    options = {"global_batch_size": 4, "prefetch": 6}
    expected = list(embedded.loader(**options))
    loader = embedded.loader(**options, processes=1)
    assert loader._pace.group > 1
    assert_same_walk(only_processes(loader), expected)


def test_walks_that_are_broken_off_and_gone_on_with(embedded, only_processes):
    here = embedded.loader(global_batch_size=8)
    whole = [comparable(here), comparable(here)]
    loader = only_processes(embedded.loader(global_batch_size=8, processes=2))
    for taken in (1, 3):
        loader.set_epoch(0)
        walk = iter(loader)
        assert comparable(itertools.islice(walk, taken)) == whole[0][:taken]
        state = loader.state_dict()
        walk.close()
        assert sorted(loader._processes._images._free) == list(range(loader._processes._images.shape[0]))
        loader.load_state_dict(state)
        assert [comparable(loader), comparable(loader)] == [whole[0][taken:], whole[1]]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("processes", [0, 1])
def test_a_walk_that_was_not_ended_changes_nothing_of_a_newer_one(embedded, processes):
    """A notebook that was interrupted keeps the old walk in its traceback, and lets it go at any time."""
    expected = comparable(embedded.loader(global_batch_size=4))
    options = {"global_batch_size": 4, "prefetch": 2, "processes": processes}
    loader = embedded.loader(**options, temperature=lambda epoch: 1.0 + 2 * epoch)
    loader.wait_for_processes()
    old = iter(loader)
    taken = comparable([next(old)])
    loader.set_epoch(1)
    new = iter(loader)
    newer = comparable([next(new)])
    taken += comparable(itertools.islice(old, 3))
    newer += comparable([next(new)])
    old.close()
    newer += comparable(new)
    assert taken == expected[:4]
    chosen = embedded.loader(global_batch_size=4, temperature=3.0)
    chosen.set_epoch(1)
    assert newer == comparable(chosen)


def test_a_trainer_that_keeps_all_batches_has_each_as_it_was(embedded):
    """There are slots for some; what the trainer keeps beyond is made in memory of its own."""
    here = embedded.loader(global_batch_size=4, prefetch=1)
    expected = [comparable(here), comparable(here)]
    loader = embedded.loader(global_batch_size=4, prefetch=1, processes=1)
    loader.wait_for_processes()
    kept = list(loader)
    slots = loader._processes._images
    assert not slots._free and slots.shape[0] < len(kept)
    assert [comparable(kept), comparable(loader)] == expected
    assert comparable(kept) == expected[0]
    del kept
    assert len(slots._free) == slots.shape[0]


def test_a_program_needs_no_guard_around_its_main_part(embedded, tmp_path):
    """Processes of multiprocessing would run it again."""
    program = tmp_path / "train.py"
    program.write_text(
        "import slg_wds\n"
        "made = {'global_batch_size': 24, 'crops_per_image': 2, 'threads': 2, 'processes': 2}\n"
        f"loader = slg_wds.SoftLabelLoader({embedded.labels!r}, **made)\n"
        "loader.wait_for_processes()\n"
        "print(sum(len(batch) for batch in loader), loader.processes)\n"
    )
    ran = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=120)
    count, _, pids = ran.stdout.partition(" ")
    assert (ran.returncode, ran.stderr, int(count)) == (0, "", 72)
    for pid in map(int, pids.strip("[]\n").split(",")):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("processes", [-1, 3])
def test_numbers_that_cannot_be(embedded, processes):
    with pytest.raises(UsageError, match=f"processes is {processes}"):
        embedded.loader(threads=2, processes=processes)


def test_tensors_that_repeat_themselves_stay_so_and_are_sent_once():
    images = torch.zeros(2, 3, 4, 4)
    index = torch.arange(1_000_000).expand(50, -1)
    batch = Batch(
        images, index, torch.rand(2, 3).t(), None, None, *[torch.zeros(2)] * 2, torch.zeros(2), math.inf
    )
    data = packed(batch)
    assert len(data) < 8_100_000
    found = unpacked(data, images)
    assert found.images is images
    assert_same(found, batch)
    found.target[0] = 7  # memory of its own, which may be written to


@pytest.mark.slow
def test_a_batch_is_asked_for_in_its_turn(embedded, only_processes):
    loader = only_processes(embedded.loader(global_batch_size=4, prefetch=4, processes=1))
    walk = iter(loader)
    next(walk)
    process = loader._processes._processes[0]
    with pytest.raises(RuntimeError, match="in their order"):
        process.answer(process._expected[1], 1.0)
    walk.close()


def test_a_planned_batch_is_the_same_in_another_process():
    places = [
        SamplePlace(3, 0, "a/b"),
        PADDING,
        SamplePlace(0, 70_000, "猫/三毛猫"),
        SamplePlace(3, 0, "a/b"),
    ]
    planned = PlannedBatch(places, np.arange(8).reshape(4, 2), 0.75)
    found = pickle.loads(pickle.dumps(planned))
    assert found.samples == planned.samples and {type(one) for one in found.samples} == {SamplePlace}
    assert np.array_equal(found.crops, planned.crops) and found.crops.dtype == np.int64
    assert found.weight == planned.weight and type(found) is PlannedBatch
