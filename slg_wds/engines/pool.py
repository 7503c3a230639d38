"""Several processes of this machine that share one piece of work."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

from slg_wds.engines.workers import picklable
from slg_wds.errors import SlgWdsError

T = TypeVar("T")
END_SECONDS = 10.0  # for a worker that is told to end, before it is killed


class Reports:
    """What a worker tells its parent: every call of a method `x.name(...)` becomes one of the parent's observer."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def send(self, kind: str, *content: Any) -> None:
        """Threads may send at once."""
        with self._lock:
            self._pipe.send((kind, *content))

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments: self.send("report", name, arguments)


def run_processes(function: Callable[[int, int, Any], T], count: int, observer: Any) -> list[T]:
    """Call function(worker, count, observer) in `count` processes; return what each returned, in their order.

    function: picklable, at the top of a module, and called here itself where count is 1. The observer that it gets
    passes each call on to `observer`, one at a time.

    Raises the first error of any worker, with its own class, when all have ended; KeyboardInterrupt likewise.
    """
    if count == 1:
        return [function(0, 1, observer)]
    # Not fork: threads, torch and obstore's clients do not survive one.
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    pipes: list[Connection] = []
    try:
        for worker in range(count):
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(function, worker, count, theirs), daemon=True)
            processes.append(process)
            pipes.append(mine)
            with no_interrupt():
                process.start()
            theirs.close()  # so that the worker's end is the only one, and its death is seen
        return _gather(pipes, processes, observer)
    finally:
        end_processes(processes)
        for pipe in pipes:
            pipe.close()


def _gather(pipes: Sequence[Connection], processes: Sequence[BaseProcess], observer: Any) -> list[Any]:
    results: dict[int, Any] = {}
    number = {pipe: worker for worker, pipe in enumerate(pipes)}
    open_pipes = list(pipes)
    while open_pipes:
        for pipe in wait(open_pipes):
            assert isinstance(pipe, Connection)
            try:
                kind, *content = pipe.recv()
            except (EOFError, ConnectionResetError):
                open_pipes.remove(pipe)
                if number[pipe] not in results:
                    raise _died(processes[number[pipe]], number[pipe]) from None
                continue
            if kind == "error":
                raise content[0]
            if kind == "result":
                results[number[pipe]] = content[0]
            else:
                getattr(observer, content[0])(*content[1])
    return [results[worker] for worker in range(len(pipes))]


def _died(process: BaseProcess, worker: int) -> SlgWdsError:
    return SlgWdsError(
        f"worker process {worker} ended without a word ({how_ended(process)})",
        hint="out of memory? In a script of your own, start under `if __name__ == '__main__':`, or use one process",
    )


def how_ended(process: BaseProcess) -> str:
    """Wait for the process and say how it ended: signal 9, exit code 1."""
    process.join(END_SECONDS)
    code = process.exitcode
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def end_processes(processes: Sequence[BaseProcess]) -> None:
    """Tell those that are still there to end, then see to it."""
    started = [process for process in processes if process.pid is not None]
    for process in started:
        if process.is_alive():
            process.terminate()
    for process in started:
        process.join(END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


@contextlib.contextmanager
def no_interrupt() -> Iterator[None]:
    """Start a process deaf to Ctrl-C, which is its parent's to handle, from its first instruction on."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Python's own helper process is started with the first of them, and would let interrupts through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(function: Callable[[int, int, Any], Any], worker: int, count: int, pipe: Connection) -> None:
    end_with_parent()
    reports = Reports(pipe)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        try:
            reports.send("result", function(worker, count, reports))
        except Exception as error:
            reports.send("error", picklable(error))


def end_with_parent() -> None:
    """In a worker: Ctrl-C is the parent's to handle; SIGTERM, and the parent's death, end it cleanly."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    sys.unraisablehook = _interrupt_again
    threading.Thread(target=_follow_parent, daemon=True).start()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """An interrupt that comes while Python runs a finalizer is dropped there with a traceback: have it come again."""
    if unraisable.exc_type is KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        sys.__unraisablehook__(unraisable)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(END_SECONDS)
        os._exit(1)  # in a call that no signal interrupts
