"""The loader's side of its processes."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from slg_wds.concurrency.waiting import wait_running
from slg_wds.errors import ReplayError
from slg_wds.replay.assembly.context import LoaderContext
from slg_wds.replay.assembly.epoch import PlannedBatch
from slg_wds.replay.batch import Batch
from slg_wds.replay.crop_input import CropInput
from slg_wds.replay.processes.messages import (
    END_WALK,
    READY,
    WALK_ENDED,
    Make,
    Opening,
    Walk,
    unpacked,
)
from slg_wds.replay.processes.shared_images import SharedImages, memory_file
from slg_wds.replay.settings import Pace
from slg_wds.store import Location

PROGRAM = "slg_wds.replay.processes.program"  # whose `main` a process runs
GRACE = 30.0  # seconds for an answer beyond the deadline of a batch, which the process knows itself
END_SECONDS = 5.0  # for a process to end, before it is killed
# Signals that reach all processes of a terminal or of a Slurm step. What they mean is for the trainer to say, which may
# want to save first; when it ends, so does a process, and SIGKILL ends one at any time.
LOADERS_OWN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class LoaderProcesses:
    """Processes that make batches. They end with the object, or with this process.

    Args:
        count: of processes.
        opening: what each is told first.
        images: where they put the images of batches.
    """

    def __init__(self, count: int, opening: Opening, images: SharedImages) -> None:
        self._images, self._turn, self._walk = images, 0, 0
        self._opening = memory_file("slg-wds opening")
        with open(self._opening, "wb", closefd=False) as file:
            pickle.dump(opening, file, protocol=5)
        self._processes = [LoaderProcess(self._opening, images) for _ in range(count)]
        weakref.finalize(self, _end_all, self._processes, self._opening)

    @property
    def pids(self) -> list[int]:
        """The ids of the processes."""
        return [process.pid for process in self._processes]

    def wait(self) -> None:
        """Wait until all processes can make batches. Raises the error of one that cannot."""
        while not all(process.ready for process in self._processes):
            time.sleep(0.02)

    def begin(self, temperature: float | None) -> int:
        """Begin a walk whose labels have this temperature; None: as they were made.

        An older walk that has not ended loses the processes: a trainer that was interrupted may keep it for ever.

        Returns:
            The number of the walk.
        """
        self._walk += 1
        for number, process in enumerate(self._processes):
            process.end_walk()
            if process.ended:
                self._processes[number] = process = LoaderProcess(self._opening, self._images)
            process.begin(temperature)
        return self._walk

    def make(self, walk: int, planned: Sequence[PlannedBatch], context: LoaderContext) -> list[MadeElsewhere]:
        """Let the next process make these batches of a walk; none where it cannot, and this process has to.

        That is while the process still starts, while the trainer keeps the images of more batches than there are slots,
        where a sample has to come over a network, and where a newer walk has begun.
        """
        if walk != self._walk:
            return []
        process = self._processes[self._turn]
        shards = _shards(planned) if context.remote else set()
        if not process.ready or (context.remote and not _here(context, shards)):
            return []
        slots = self._images.take(len(planned))
        if not slots:
            return []
        self._turn = (self._turn + 1) % len(self._processes)
        pairs = list(zip(planned, slots, strict=True))
        found = [MadeElsewhere(process, self._images, *pair) for pair in pairs]
        process.make(Make(pairs, context.caches.paths(shards)), found)
        return found

    def end(self, walk: int) -> None:
        """End a walk, unless a newer one has begun: batches that are under way are dropped."""
        if walk == self._walk:
            for process in self._processes:
                process.end_walk()


def start_processes(
    context: LoaderContext, images: Location | None, pace: Pace, crops: int
) -> LoaderProcesses:
    """Start a loader's processes.

    Args:
        context: of the loader, of which each process opens its own.
        images: where the images lie; None inside the sets.
        pace: how many processes, and how many threads of each.
        crops: in a batch.
    """
    # One slot for each batch that is under way, and two for those that the trainer has in hand.
    memory = SharedImages((pace.under_way + 2, crops, context.size, context.size, 3))
    opening = Opening(
        sets=context.sets,
        images=images,
        cache=context.caches.options,
        crops=CropInput(context.size, context.interpolation),
        adaptation=context.adaptation,
        threads=pace.threads_each,
        together=pace.together,
        deadline=pace.deadline,
        shape=memory.shape,
        descriptor=memory.descriptor,
    )
    return LoaderProcesses(pace.processes, opening, memory)


def _shards(planned: Sequence[PlannedBatch]) -> set[int]:
    return {sample.shard for batch in planned for sample in batch.samples if sample.shard >= 0}


def _here(context: LoaderContext, shards: set[int]) -> bool:
    """Return whether local disks have all of a batch; of mixed views, nobody knows before the labels are read."""
    return not context.sets.has_mixing and all(map(context.ready, shards))


def _end_all(processes: list[LoaderProcess], opening: int) -> None:
    for process in processes:
        process.let_go()
    for process in processes:
        process.end()
    os.close(opening)


class MadeElsewhere:
    """A batch that a process makes, in a slot of the shared images.

    Attributes:
        planned: its samples and crops.
        dropped: whether the process makes it no more, since its walk ended or a newer one began.
    """

    def __init__(
        self, process: LoaderProcess, images: SharedImages, planned: PlannedBatch, slot: int
    ) -> None:
        self._process, self._images, self._slot = process, images, slot
        self.planned, self.dropped = planned, False

    def result(self, deadline: float) -> Batch:
        """Return the batch, for which it waits `deadline` seconds at most. Raises as `BatchBuilder.result`."""
        answer = self._process.answer(self, deadline)
        images = self._images.lent(self._slot)
        if isinstance(answer, Exception):
            raise answer
        batch: Batch = unpacked(answer, images)
        return batch

    def drop(self) -> None:
        """Give the slot back, to which nobody writes any more."""
        self.dropped = True
        self._images.give_back(self._slot)


class LoaderProcess:
    """One process, and the batches that it was told to make."""

    def __init__(self, opening: int, images: SharedImages) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = _start(theirs.fileno(), opening, images.descriptor)
            self._pipe = Connection(ours.detach())
        self._expected: deque[MadeElsewhere] = deque()
        self._started = self._walking = self._torn = False
        self._temperature: float | None = None

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    @property
    def ready(self) -> bool:
        """Whether it can make batches. Raises the error with which it ended where it should have begun."""
        if not self._started and self._pipe.poll():
            answer = self._received(GRACE)
            if isinstance(answer, Exception):
                raise answer
            self._started = answer == READY
            if self._walking:
                self._said(Walk(self._temperature))
        return self._started

    def begin(self, temperature: float | None) -> None:
        """Begin a walk; see `LoaderProcesses.begin`."""
        self._walking, self._temperature = True, temperature
        if self._started:
            self._said(Walk(temperature))

    def make(self, message: Make, expected: Sequence[MadeElsewhere]) -> None:
        """Let it make batches, which it gives in this order."""
        self._expected.extend(expected)
        self._said(message)

    def answer(self, expected: MadeElsewhere, deadline: float) -> Any:
        """Wait for a batch; return it as bytes, or the error that it ended with."""
        if self._expected[0] is not expected:
            raise RuntimeError("batches of a process are to be asked for in their order")
        answer = self._received(deadline + GRACE)
        self._expected.popleft()
        return answer

    def end_walk(self) -> None:
        """Let it drop what is under way, and wait until it has."""
        walked, self._walking = self._walking and self._started, False
        try:
            if walked:
                self._said(END_WALK)
                while self._received(END_SECONDS + GRACE) != WALK_ENDED:
                    pass
        except BaseException as error:
            # After Ctrl-C too: what it still says would be taken for batches of the next walk, which has a new process.
            self._process.kill()
            self.end()
            if not isinstance(error, ReplayError):  # which the walk has met itself
                raise
        finally:
            while self._expected:
                self._expected.popleft().drop()

    def let_go(self) -> None:
        """Close the pipe, at which the process ends."""
        self._pipe.close()

    def end(self) -> None:
        """End the process, and wait until it has."""
        self.let_go()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _said(self, message: object) -> None:
        with contextlib.suppress(OSError):  # it has ended, which the next answer tells
            self._pipe.send(message)

    def _received(self, seconds: float) -> Any:
        try:
            if self._torn or not wait_running(self._pipe.poll, seconds):
                raise ReplayError(f"process {self.pid} of the loader does not answer")
            self._torn = True  # until all of it is there: Ctrl-C may come in between
            message = self._pipe.recv()
            self._torn = False
            return message
        except (EOFError, OSError):
            raise ReplayError(
                f"process {self.pid} of the loader {_how_ended(self._process)}",
                hint="if the system killed it, memory was short: pass fewer processes=, or a smaller prefetch=",
            ) from None


def _start(pipe: int, opening: int, images: int) -> subprocess.Popen[bytes]:
    """Start a process. Its main module is not that of this one, which needs no `if __name__ == "__main__"`."""
    ignored = f"for number in {list(map(int, LOADERS_OWN))}: signal.signal(number, signal.SIG_IGN)"
    begin = f"import signal, sys\n{ignored}\nsys.path[:] = {sys.path!r}"
    program = f"{begin}\nfrom {PROGRAM} import main\nmain({pipe}, {opening})"
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, pass_fds=(pipe, opening, images)
    )


def _how_ended(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        return "does not answer"
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
