"""torch's thread counts: which part of a run may use how many, and that a run restores them."""

from __future__ import annotations

import threading

import pytest
import torch

import slg_wds
from slg_wds.concurrency.threads import threads_beside_forwards
from slg_wds.generation.dry_run import dry_run
from support.models.names import TINY


def here_and_in_a_new_thread():
    found = [torch.get_num_threads()]
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found


@pytest.fixture
def three():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_the_caller_has_its_own_number_and_the_others_one(three):
    with threads_beside_forwards(4, 2) as pool:
        together = threading.Barrier(4)
        assert list(pool.map(lambda _: (together.wait(), torch.get_num_threads())[1], range(4))) == [1] * 4
        assert torch.get_num_threads() == 2
    assert here_and_in_a_new_thread() == [3, 3]


def test_an_error_leaves_the_numbers_as_they_were_too(three):
    with pytest.raises(ZeroDivisionError), threads_beside_forwards(2, 1) as pool:
        pool.submit(lambda: 1 // 0).result()
    assert here_and_in_a_new_thread() == [3, 3]


@pytest.mark.parametrize("run", [slg_wds.generate, dry_run])
def test_a_run_in_a_program_of_its_own_leaves_its_threads_alone(three, photographs, tmp_path, run):
    """Otherwise, later results of the program would differ in the last bits, and again between threads."""
    config = slg_wds.GenerateConfig(
        data=str(photographs), arch=TINY, teacher_source="private", save_path=str(tmp_path / "set"),
        num_crops=20, num_seg=8, workers=4, threads_per_forward=2, samples_per_shard=9,
    )  # fmt: skip
    run(config)
    assert here_and_in_a_new_thread() == [3, 3]
