"""Processes that share work: the items of all arrive, and the first failure ends every worker."""

from __future__ import annotations

import os
import time

import pytest

from slg_wds.engines.workers.processes import run_processes
from slg_wds.errors import ChecksumError, SlgWdsError
from support.jobs import process_jobs


def are_gone(pids):
    """Whether all processes have ended and were waited for."""
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    return bool(pids)


@pytest.mark.parametrize("count", [1, 3])
def test_items_of_all_workers_arrive(count):
    found = []
    run_processes(process_jobs.numbers, count, found.append)
    assert sorted(number for number, _ in found) == list(range(10))
    assert len({pid for _, pid in found}) == count
    assert (os.getpid() in {pid for _, pid in found}) == (count == 1)


def test_a_worker_that_is_killed_ends_the_others_with_a_clear_error():
    pids = []
    began = time.monotonic()
    with pytest.raises(
        SlgWdsError, match=r"worker process 1 ended without an error message \(signal 9\)"
    ) as caught:
        run_processes(process_jobs.killed, 3, pids.append)
    assert "memory" in caught.value.hint and are_gone(pids) and time.monotonic() - began < 50


def test_the_first_error_of_a_worker_is_raised_with_its_class_and_place():
    pids = []
    with pytest.raises(ChecksumError, match="a byte is wrong") as caught:
        run_processes(process_jobs.failing, 3, pids.append)
    assert caught.value.shard == "train-000001.tar" and are_gone(pids)


def test_an_interrupt_here_ends_all_workers():
    pids = []

    def receive(pid):
        pids.append(pid)
        if len(pids) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_processes(process_jobs.waiting, 2, receive)
    assert are_gone(pids)


def test_workers_that_do_not_end_are_killed_together(monkeypatch):
    monkeypatch.setattr("slg_wds.engines.workers.processes.END_SECONDS", 1.0)
    pids, began = [], 0.0

    def receive(pid):
        nonlocal began
        pids.append(pid)
        if len(pids) == 4:
            began = time.monotonic()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_processes(process_jobs.stuck, 4, receive)
    assert are_gone(pids) and time.monotonic() - began < 3
