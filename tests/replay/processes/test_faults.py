"""What a trainer hears of faults in processes, and that nothing of a process is left."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from itertools import islice
from pathlib import Path

import pytest

from slg_wds.errors import ChecksumError, ReplayError, SlgWdsError
from slg_wds.replay.processes import loader_processes
from support.jobs import slow_program
from support.sets.replay_sets import Made, comparable

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def gone(pid: int, most: float = 20.0) -> bool:
    """Whether a process ends within so many seconds; what its parent has not waited for has ended too."""
    end = time.monotonic() + most
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def copied(embedded, tmp_path):
    """A copy of the set, which a test may damage."""
    return Made(str(shutil.copytree(embedded.labels, tmp_path / "set")), None)


def flip(labels: str, shard: int) -> None:
    """Flip a bit of each kilobyte of a shard."""
    path = sorted(Path(labels).glob("*.tar"))[shard]
    data = bytearray(path.read_bytes())
    for at in range(700, len(data), 1024):
        data[at] ^= 1
    path.write_bytes(data)


def test_a_damaged_record_is_named_as_without_processes(copied, only_processes):
    options = {"global_batch_size": 8, "shuffle": False}
    flip(copied.labels, 1)
    with pytest.raises(ChecksumError) as here:
        list(copied.loader(**options))
    loader = only_processes(copied.loader(**options, processes=1))
    for _ in range(2):
        taken = []
        with pytest.raises(ChecksumError) as there:
            taken.extend(batch.key for batch in loader)
        assert str(there.value) == str(here.value) and there.value.shard is not None
        assert sum(map(len, taken)) == 8  # five images are in the first shard, four in a batch
        loader.set_epoch(0)


def test_a_set_that_went_away_before_a_process_opened_it(copied):
    loader = copied.loader(global_batch_size=8, processes=1, last="pad")
    shutil.rmtree(copied.labels)
    with pytest.raises(SlgWdsError):
        for _ in range(3):
            list(loader)


def test_a_process_that_is_killed_ends_the_epoch_and_the_next_has_another(embedded, only_processes):
    here = embedded.loader(global_batch_size=4)
    expected = comparable(here)
    loader = only_processes(embedded.loader(global_batch_size=4, prefetch=2, processes=2))
    walk = iter(loader)
    next(walk)
    victim = loader.processes[1]
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(ReplayError, match=f"process {victim} of the loader was ended by SIGKILL") as caught:
        deque(walk, maxlen=0)
    assert "memory" in caught.value.hint
    del caught  # its frames have a batch
    loader.set_epoch(0)
    slots = loader._processes._images
    assert sorted(slots._free) == list(range(slots.shape[0]))
    number = loader._processes.begin(None)
    assert victim not in loader.processes and gone(victim)
    loader._processes.end(number)
    assert comparable(only_processes(loader)) == expected


def test_nothing_is_written_to_a_slot_after_a_walk(embedded, monkeypatch):
    """The next walk's batches have these slots, while a thread of the last one still waits for a slow disk."""
    monkeypatch.setattr(loader_processes, "PROGRAM", "support.jobs.slow_program")
    expected = comparable(embedded.loader(global_batch_size=4, threads=1))
    loader = embedded.loader(global_batch_size=4, threads=1, prefetch=2, processes=1)
    loader.wait_for_processes()
    walk = iter(loader)
    assert comparable([next(walk)]) == expected[:1]
    walk.close()
    slots = loader._processes._images
    slots._memory[slots._free] = 7
    time.sleep(2 * slow_program.DELAY)
    assert (slots._memory[slots._free] == 7).all()
    assert comparable(islice(loader, 2)) == expected[:2], (
        "a new process makes them, or the loader's own threads"
    )


def test_ctrl_c_while_a_walk_ends_leaves_nothing_of_it_to_the_next(embedded, only_processes):
    """A notebook goes on with the same loader: what a process has said by then is of no batch of the next walk."""

    def interrupt(*_):
        raise KeyboardInterrupt

    expected = comparable(embedded.loader(global_batch_size=4))
    loader = only_processes(embedded.loader(global_batch_size=4, prefetch=2, processes=1))
    walk, (victim,) = iter(loader), loader.processes
    next(walk)
    os.kill(victim, signal.SIGSTOP)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            walk.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert gone(victim)
    loader._processes.end(loader._processes.begin(None))  # which starts another
    assert comparable(only_processes(loader)) == expected


def test_signals_for_the_trainer_are_none_of_a_processs_business(embedded, only_processes):
    """Slurm sends them to all processes of a step, and a trainer may want to save before it ends."""
    expected = comparable(embedded.loader(global_batch_size=4))
    loader = only_processes(embedded.loader(global_batch_size=4, prefetch=2, processes=1))
    walk = iter(loader)
    taken = comparable([next(walk)])
    (pid,) = loader.processes
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
        os.kill(pid, number)
    assert taken + comparable(walk) == expected and loader.processes == [pid]


def test_processes_end_with_the_loader(embedded, only_processes):
    loader = only_processes(embedded.loader(processes=1))
    walk = iter(loader)
    batch = next(walk)
    before, pids = comparable([batch]), loader.processes
    del walk, loader
    gc.collect()
    assert all(map(gone, pids))
    assert comparable([batch]) == before  # which the trainer still has


def interrupted(program: str, how: str) -> tuple[list[int], str]:
    """Run a trainer until its first line, the ids of its processes, and end it; return them and what it told.

    Ctrl-C reaches a trainer and its processes together, which is why it is sent to their group here.
    """
    trainer = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    pids = [int(pid) for pid in trainer.stdout.readline().split()]
    if how == "SIGINT":
        os.killpg(trainer.pid, signal.SIGINT)
    else:
        trainer.send_signal(signal.Signals[how])
    return pids, trainer.communicate(timeout=60)[1]


PROGRAM = """
import os, slg_wds, sys, time
loader = slg_wds.SoftLabelLoader({labels!r}, global_batch_size=4, threads=2, processes=2, prefetch=1)
loader.wait_for_processes()
for epoch in range(1000):
    for batch in loader:
        print(*loader.processes, flush=True)
        {then}
"""


@pytest.mark.parametrize(
    ("then", "how"),
    [
        ("pass", "SIGINT"),
        *(pytest.param("pass", how, marks=pytest.mark.slow) for how in ("SIGKILL", "SIGTERM")),
        pytest.param("time.sleep(60)", "SIGKILL", marks=pytest.mark.slow),
    ],
)
def test_processes_end_however_the_trainer_does(embedded, then, how):
    pids, told = interrupted(PROGRAM.format(labels=embedded.labels, then=then), how)
    assert len(pids) == 2 and all(map(gone, pids))
    assert told.count("Traceback") == (how == "SIGINT") and "leaked" not in told


def test_ctrl_c_while_processes_start(embedded):
    pids, told = interrupted(
        "import slg_wds, time\nmade = {'global_batch_size': 24, 'threads': 2, 'processes': 2}\n"
        f"loader = slg_wds.SoftLabelLoader({embedded.labels!r}, **made)\n"
        "time.sleep(0.3)\nprint(*loader.processes, flush=True)\ntime.sleep(60)",
        "SIGINT",
    )
    assert len(pids) == 2 and all(map(gone, pids))
    assert told.count("Traceback") == 1 and told.rstrip().endswith("KeyboardInterrupt")
