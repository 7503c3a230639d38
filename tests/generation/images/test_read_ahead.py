"""Images of a slow source are read early, in order, by as many threads as it takes; -b limits how many."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

import slg_wds
from slg_wds.generation.job import Job
from slg_wds.generation.read_ahead import ReadAhead
from slg_wds.generation.recipe import Recipe
from slg_wds.generation.setup import open_job
from slg_wds.images.folder import FolderSource
from support.models.names import TINY
from support.programs import tool
from support.sets.replay_sets import tiny_run

KILL = tool("kill_test")


class Source:
    """Answers after `seconds`, and counts how many reads are under way."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now, self.most, self.threads = seconds, 0, 0, set()
        self.lock = threading.Lock()

    def read(self, number: int) -> bytes:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
        if number == 13:
            raise KeyError(number)
        return b"%d" % number


def taken(source: Source, most: int, images: int = 150) -> list[bytes | str]:
    """Every image read as generation reads them: two threads take what was begun."""
    ahead, found = ReadAhead(most), []
    with ThreadPoolExecutor(2) as pool:
        for number, read in ahead.reads(range(images), source.read):
            task = pool.submit(read, number)
            try:
                found.append(task.result())
            except KeyError:
                found.append("error")
    ahead.close()
    return found


EXPECTED = ["error" if number == 13 else b"%d" % number for number in range(150)]


def test_a_slow_source_is_asked_for_many_at_once_and_answers_in_order():
    source = Source(0.01)
    start = time.perf_counter()
    assert taken(source, 64) == EXPECTED
    assert source.most > 16
    assert time.perf_counter() - start < 150 * 0.01 / 3, "one by one it would take 1.5 s"


def test_never_more_than_the_limit():
    source = Source(0.004)
    assert taken(source, 3) == EXPECTED
    assert 2 <= source.most <= 4  # the threads that decode may read one themselves


def test_a_fast_source_is_read_by_the_threads_that_decode():
    source = Source(0.0)
    assert taken(source, 64) == EXPECTED
    assert not [name for name in source.threads if name.startswith("slg-read")]


@pytest.mark.parametrize(
    ("batch_size", "crops", "decoded", "read"),
    [
        (None, 500, 8, 128), (None, 4, 25, 128), (1, 500, 1, 0), (20, 500, 8, 12), (20, 4, 20, 0),
        (1000, 500, 8, 128), (1000, 1, 100, 128),
    ],
)  # fmt: skip
def test_an_explicit_b_is_the_most_images_ahead(batch_size, crops, decoded, read):
    config = slg_wds.GenerateConfig(data="d", arch="a", num_crops=crops, num_seg=50, batch_size=batch_size)
    job = SimpleNamespace(config=config, num_seg=50, crops_each=crops)
    job.images_ahead = Job.images_ahead.fget(job)
    assert (job.images_ahead, Job.reads_ahead.fget(job)) == (decoded, read)


def test_a_slow_source_changes_no_byte(photographs, tmp_path, monkeypatch):
    def config(name):
        return slg_wds.GenerateConfig(
            data=str(photographs), arch=TINY, teacher_source="private", save_path=str(tmp_path / name),
            num_crops=2, num_seg=16, threads_per_forward=1, workers=2, samples_per_shard=18,
        )  # fmt: skip

    slg_wds.generate(config("fast"))
    plain, threads = FolderSource.read, set()

    def slowly(source, path):
        time.sleep(0.003)
        threads.add(threading.current_thread().name.rpartition("_")[0])
        return plain(source, path)

    monkeypatch.setattr(FolderSource, "read", slowly)
    slg_wds.generate(config("slow"))
    assert "slg-read" in threads
    assert KILL.contents(tmp_path / "slow") == KILL.contents(tmp_path / "fast")


@pytest.mark.parametrize(
    ("options", "ahead"),
    [
        ({"num_crops": 500}, 8),
        ({"num_crops": 4}, 25),
        ({"num_crops": 1}, 100),
        ({"num_crops": 1, "num_seg": 256}, 128),
        ({"num_crops": 1, "batch_size": 3}, 3),
    ],
)
def test_few_crops_an_image_are_read_further_ahead(photographs, tmp_path, options, ahead):
    """Otherwise, two forwards would need more images than are being read, and the teacher would wait."""
    recipe = Recipe.of(tiny_run(photographs, tmp_path / "set", **{"num_seg": 50, **options}))
    assert open_job(recipe, save=False).images_ahead == ahead
