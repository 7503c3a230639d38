"""The local engine: a pool of processes on this machine. A process that ends too early is replaced."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.engines.workers.pool import Message, Reporter, Task, WorkerPool, perform
from slg_wds.engines.workers.processes import EXITED, ParentPipe, Processes
from slg_wds.engines.workers.supervisor import GRACE_SECONDS, Supervisor
from slg_wds.errors import DeviceError


def run_local(task: Task, pool: WorkerPool, observer: RunObserver) -> dict[str, str]:
    """Run the task in a pool of processes until no shard is missing.

    A pool of one worker runs in this very process, and its errors are raised as they are. After a DeviceError this
    process cannot use the device any more, so another process continues; the command line ends this one without the
    normal exit, which may hang in the driver.

    Args:
        task: what each worker does.
        pool: how many workers there are, and the device and cores of each.
        observer: receives the progress.

    Returns:
        The names of the shards that were given up, each with how the last attempt ended.

    Raises:
        SlgWdsError: the first one of any worker; or workers ended too often without an error of this kind.
        DeviceError: workers ended too often, the last one because its device failed.
    """
    if pool.workers == 1:
        try:
            task(0, 1, observer)
        except DeviceError as error:
            observer.say(f"{error.message}; another process continues")
        else:
            return {}
    with Processes() as processes:
        return _LocalRun(task, pool.workers, observer, processes).finish()


class _LocalRun:
    def __init__(self, task: Task, workers: int, observer: RunObserver, processes: Processes) -> None:
        self._task = task
        self._workers = workers
        self._supervisor = Supervisor(workers, observer, processes.send)
        self._processes = processes

    def finish(self) -> dict[str, str]:
        for worker in range(self._workers):
            self._start(worker, ())
        end: float | None = None
        while self._processes:
            messages = self._processes.receive(None if end is None else max(0.0, end - time.monotonic()))
            if not messages:
                break  # the others make shards that exist already
            for worker, message in messages:
                self._hear(worker, message)
            if self._supervisor.finished and end is None:
                end = time.monotonic() + GRACE_SECONDS
        return self._supervisor.given_up

    def _start(self, worker: int, retry_alone: Sequence[str]) -> None:
        given_up = tuple(self._supervisor.given_up)
        self._processes.start(worker, _work, self._task, worker, self._workers, retry_alone, given_up)

    def _hear(self, worker: int, message: Message) -> None:
        if message[0] != EXITED:
            self._supervisor.hear(worker, message)
        elif not self._supervisor.slots[worker].done and not self._supervisor.finished:
            retry_alone = self._supervisor.ended(worker, message[1])
            if retry_alone is not None:
                self._start(worker, retry_alone)


def _work(
    parent: ParentPipe,
    task: Task,
    worker: int,
    workers: int,
    retry_alone: Sequence[str],
    given_up: Sequence[str],
) -> None:
    """Run the task in a worker process."""
    reporter = Reporter(parent.send, retry_alone, given_up)
    parent.listen(reporter.avoided.add)
    if perform(task, worker, workers, reporter, parent.send) == "device":
        os._exit(1)  # a normal exit may hang for ever in the device's driver
