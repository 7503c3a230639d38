"""The local engine: a pool of processes on this machine, each started again when it ends before its time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from slg_wds.engines.pool import end_processes, end_with_parent, how_ended, no_interrupt
from slg_wds.engines.run_stats import RunObserver
from slg_wds.engines.supervisor import GRACE_SECONDS, Supervisor
from slg_wds.engines.workers import Message, Reporter, Task, WorkerPool, perform
from slg_wds.errors import DeviceError


def run_local(task: Task, pool: WorkerPool, observer: RunObserver) -> dict[str, str]:
    """Let a pool make shards until none is missing; return the shards given up, each with how its last attempt ended.

    A pool of one works in this very process, where every error is raised as it is, but for one of its device: that
    leaves nothing to go on with here, and another process goes on.

    Raises the first error of ours of any worker; SlgWdsError where workers end again and again, DeviceError where that
    is the last device's doing.
    """
    if pool.workers == 1:
        try:
            task(0, 1, observer)
        except DeviceError as error:
            observer.say(f"{error.message}; another process goes on")
        else:
            return {}
    run = _Run(task, pool.workers, observer)
    try:
        return run.finish()
    finally:
        run.close()


class _Run:
    def __init__(self, task: Task, workers: int, observer: RunObserver) -> None:
        self._task = task
        self._workers = workers
        self._supervisor = Supervisor(workers, observer)
        self._pool: dict[Connection, tuple[int, BaseProcess]] = {}

    def finish(self) -> dict[str, str]:
        for worker in range(self._workers):
            self._start(worker, ())
        end: float | None = None
        while self._pool:
            ready = wait(list(self._pool), None if end is None else max(0.0, end - time.monotonic()))
            if not ready:
                break  # the others make what exists already
            for pipe in ready:
                assert isinstance(pipe, Connection)
                self._hear(pipe)
            if self._supervisor.finished and end is None:
                end = time.monotonic() + GRACE_SECONDS
        return self._supervisor.given_up

    def close(self) -> None:
        end_processes([process for _, process in self._pool.values()])
        for pipe in self._pool:
            pipe.close()

    def _start(self, worker: int, retry_alone: Sequence[str]) -> None:
        # Not fork: threads, torch and obstore's clients do not survive one.
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        arguments = (self._task, worker, self._workers, theirs, retry_alone, tuple(self._supervisor.given_up))
        process = context.Process(target=_work, args=arguments, daemon=True)
        self._pool[mine] = (worker, process)
        with no_interrupt():
            process.start()
        theirs.close()  # so that the worker's end is the only one, and its death is seen

    def _hear(self, pipe: Connection) -> None:
        worker, process = self._pool[pipe]
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            del self._pool[pipe]
            pipe.close()
            if not self._supervisor.slots[worker].done:
                self._again(worker, how_ended(process))
            process.join()
            return
        self._supervisor.hear(worker, message)

    def _again(self, worker: int, how: str) -> None:
        if self._supervisor.finished:
            return
        known = set(self._supervisor.given_up)
        retry_alone = self._supervisor.ended(worker, how)
        for name in set(self._supervisor.given_up) - known:
            for pipe in self._pool:
                with contextlib.suppress(OSError):
                    pipe.send(name)
        if retry_alone is not None:
            self._start(worker, retry_alone)


def _work(
    task: Task,
    worker: int,
    workers: int,
    pipe: Connection,
    retry_alone: Sequence[str],
    avoided: Sequence[str],
) -> None:
    """The body of a worker."""
    end_with_parent()
    lock = threading.Lock()

    def send(message: Message) -> None:
        with lock:
            try:
                pipe.send(message)
            except OSError:  # the run is gone
                os.kill(os.getpid(), signal.SIGTERM)

    reporter = Reporter(send, retry_alone, avoided)
    threading.Thread(target=_listen, args=(pipe, reporter.avoided), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        if perform(task, worker, workers, reporter, send) == "device":
            os._exit(1)  # what the device's driver does at an orderly end, it may do for ever
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _listen(pipe: Connection, avoided: set[str]) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            avoided.add(pipe.recv())
