"""One set, made in one run, by several at once, or again after a kill: the same bytes; and what is refused."""

from __future__ import annotations

import re
import resource
import subprocess
from functools import partial

import numpy as np
import pytest
from PIL import Image

import slg_wds
from slg_wds import errors
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.generation.recipe import Recipe
from slg_wds.generation.setup import open_job
from slg_wds.generation.worker import work
from support.models.names import TINY
from support.programs import made_here, tool
from support.sets.replay_sets import tiny_run

KILL = tool("kill_test")
VIEWS = ("--aa", "rand-m9-mstd0.5-inc1", "--reprob", "0.25", "--mixup", "0.8", "--cutmix", "1")

config = partial(tiny_run, num_crops=30)


def test_records_follow_the_plan_and_hold_what_was_asked(photographs, undisturbed):
    labels = slg_wds.open_labels(str(undisturbed))
    records = list(labels)
    assert [record.key for record in records] == list(labels.plan.keys)
    assert sorted(record.path for record in records) == sorted(
        str(p.relative_to(photographs / "train")) for p in (photographs / "train").rglob("*.jpg")
    )
    for record in records:
        assert record.crops.shape == (30, 4) and record.index.shape == (30, 5)
        with Image.open(photographs / "train" / record.path) as image:
            assert record.size == (image.height, image.width)
        assert (
            record.path.split("/")[0]
            == sorted(p.name for p in (photographs / "train").iterdir())[record.target]
        )


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 5}, {"batch_size": 1}, {"batch_size": 50}])
def test_bytes_do_not_depend_on_threads_or_read_ahead(photographs, undisturbed, tmp_path, options):
    slg_wds.generate(config(photographs, tmp_path / "set", **options))
    assert KILL.contents(tmp_path / "set") == KILL.contents(undisturbed)


def test_a_second_run_makes_nothing_and_a_lost_shard_comes_back_the_same(photographs, undisturbed, tmp_path):
    target = tmp_path / "set"
    slg_wds.generate(config(photographs, target))
    assert slg_wds.generate(config(photographs, target)).stats.shards == 0
    (target / "train-000003.tar").unlink()
    (target / "index" / "train-000001").unlink()
    (target / "_info.json").unlink()
    assert slg_wds.generate(config(photographs, target)).stats.shards == 1
    assert KILL.contents(target) == KILL.contents(undisturbed)


def test_killed_at_random_moments_the_set_is_byte_identical(tmp_path):
    kills, _ = KILL.kill_and_compare(tmp_path, 2, 24, 1, *VIEWS)
    assert kills > 0


def test_two_processes_share_the_work(photographs, tmp_path, monkeypatch):
    """Both load before either begins, so that the time to import torch does not count."""
    more = [
        "--samples-per-shard",
        "1",
        "--num_crops",
        "100",
        "-j",
        "1",
        "-a",
        TINY.replace(":tiny", ":unhurried"),
        *VIEWS,
    ]
    made_here(KILL.command(photographs, tmp_path / "alone", *more))
    (tmp_path / "meeting").mkdir()
    monkeypatch.setenv("SLG_TEST_MEETING", f"{tmp_path / 'meeting'}:2")
    command = KILL.command(photographs, tmp_path / "set", *more)
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(2)]
    outputs = [process.communicate()[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert KILL.contents(tmp_path / "set") == KILL.contents(tmp_path / "alone")
    made = [int(re.search(r"(\d+) shards?, [\d.]+ MB", output)[1]) for output in outputs]
    lost = [int(found[1]) if (found := re.search(r"(\d+) shards? made by", o)) else 0 for o in outputs]
    assert sum(made) == 36
    assert all(m + x <= 0.65 * 36 for m, x in zip(made, lost, strict=True)), (made, lost)


def test_crops_of_several_images_share_a_forward_and_labels_do_not_move(photographs, undisturbed, tmp_path):
    """num_seg is provenance: other packing, same boxes, and labels that differ in the last bits at most."""
    slg_wds.generate(config(photographs, tmp_path / "set", num_seg=7))
    pairs = zip(
        slg_wds.open_labels(str(undisturbed)), slg_wds.open_labels(str(tmp_path / "set")), strict=True
    )
    for a, b in pairs:
        assert np.array_equal(a.crops, b.crops) and np.array_equal(a.flips, b.flips)
        assert np.abs(a.value - b.value).max() < 1e-3


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"num_crops": 31}, "num_crops: 30 != 31"),
        ({"seed": 1}, "seed"),
        ({"temp": 2.0}, "temperature: 1.0 != 2.0"),
        ({"label_type": "shared_tail_k5"}, "label_type"),
        ({"max_scale_crops": 0.936}, "crop_scale"),
        ({"values": "log8"}, "values"),
        ({"input_size": 40}, "input_size"),
        ({"samples_per_shard": 6}, "shards of 5 images there, of 6 now"),
    ],
)
def test_another_identity_is_refused_and_named(photographs, undisturbed, changed, named):
    before = KILL.contents(undisturbed)
    with pytest.raises(errors.IdentityMismatchError, match=named):
        slg_wds.generate(config(photographs, undisturbed, **changed))
    assert KILL.contents(undisturbed) == before


def test_an_unfinished_set_is_refused_unless_allowed(photographs, undisturbed, tmp_path):
    import shutil

    target = tmp_path / "set"
    shutil.copytree(undisturbed, target)
    (target / "_info.json").unlink()
    (target / "train-000002.tar").unlink()
    with pytest.raises(errors.IncompleteSetError, match="1 of 8 shards"):
        slg_wds.open_labels(str(target))
    assert len(list(slg_wds.open_labels(str(target), allow_incomplete=True))) == 31


def test_interrupted_runs_leave_whole_shards_and_say_how_to_resume(photographs, tmp_path):
    import signal
    import time

    command = KILL.command(photographs, tmp_path / "set", "--num_crops", "5000")
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "set").glob("*.tar")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "resume" in err.decode()
    labels = slg_wds.open_labels(str(tmp_path / "set"), allow_incomplete=True)
    assert 0 < len(list(labels)) < 36


def test_after_a_shard_that_cannot_be_committed_no_other_is(photographs, tmp_path):
    """A store that fails would be waited for again, for each of the shards that are ready by then."""

    class Obstacle(RunObserver):
        def claim(self, name):
            if not list(tmp_path.glob("*.tar")):
                (tmp_path / f"{name}.tar").mkdir()  # takes its name once the worker has seen that it is free
            return True

    job = open_job(Recipe.of(config(photographs, tmp_path, num_crops=2, samples_per_shard=2)), "cpu")
    with pytest.raises(errors.StoreError, match="a folder has the name"):
        work(job, None, Obstacle())
    assert len(list(tmp_path.glob("*.tar"))) == 1


def test_a_shard_that_does_not_fit_says_how_to_go_on(photographs, tmp_path):
    run = config(photographs, tmp_path, num_crops=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    job = open_job(Recipe.of(run), "cpu")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(errors.StoreFullError) as caught:
            work(job, None, RunObserver())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "run the same command again: it goes on where it stopped" in str(caught.value)
    assert slg_wds.generate(run).complete
