"""Worker processes of this machine: start them, receive what they send, end them all together.

`concurrent.futures` is not enough: its results come only once a call is over, before Python 3.14 it cannot stop workers
that are at work, and its workers outlive a parent that was killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

from slg_wds.engines.workers.pool import Message, picklable
from slg_wds.errors import SlgWdsError

T = TypeVar("T")
END_SECONDS = 10.0  # for a worker to end once it was told to; then it is killed
EXITED = "exited"  # the kind of the message that stands for the end of a worker's process


class ParentPipe:
    """A worker's side of the pipe to the process that started it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send one message. If the parent is gone, end this process. Several threads may send at the same time."""
        with self._lock:
            try:
                self._pipe.send(message)
            except OSError:
                os.kill(os.getpid(), signal.SIGTERM)

    def listen(self, receive: Callable[[Any], object]) -> None:
        """Call `receive` with each message of the parent, in a thread of its own."""
        threading.Thread(target=self._listen, args=(receive,), daemon=True).start()

    def _listen(self, receive: Callable[[Any], object]) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                receive(self._pipe.recv())


class Processes:
    """Worker processes and the pipes to them. The end of the `with` block ends all that still run.

    Workers ignore Ctrl-C, which their parent handles for them, and end when their parent does, however it ends.
    """

    def __init__(self) -> None:
        self._running: dict[Connection, tuple[int, BaseProcess]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        end_processes([process for _, process in self._running.values()])
        for pipe in self._running:
            pipe.close()

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(self, worker: int, body: Callable[..., object], *arguments: object) -> None:
        """Start the process of a worker.

        Args:
            worker: its number, which `receive` gives with its messages.
            body: called in the process as body(parent, *arguments), where `parent` is a `ParentPipe`; picklable.
            arguments: further arguments of `body`; picklable.
        """
        # Spawn, not fork: threads, torch and obstore's clients do not survive a fork.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_run, args=(theirs, body, arguments), daemon=True)
        self._running[ours] = (worker, process)
        with _interrupts_blocked():
            process.start()
        theirs.close()  # now the worker alone holds that end, so its death closes the pipe

    def receive(self, timeout: float | None = None) -> list[tuple[int, Message]]:
        """Wait for messages, and return each with the number of its worker; an empty list after `timeout` seconds.

        The last message of a worker is (EXITED, how its process ended).
        """
        ready = wait(list(self._running), timeout)
        return [self._receive(pipe) for pipe in ready if isinstance(pipe, Connection)]

    def send(self, message: object) -> None:
        """Send a message to every worker that still runs."""
        for pipe in self._running:
            with contextlib.suppress(OSError):
                pipe.send(message)

    def _receive(self, pipe: Connection) -> tuple[int, Message]:
        worker, process = self._running[pipe]
        try:
            return worker, pipe.recv()
        except (EOFError, OSError):
            del self._running[pipe]
            pipe.close()
            how = _how_ended(process)
            end_processes([process])
            return worker, (EXITED, how)


def run_processes(
    function: Callable[[int, int], Iterable[T]], count: int, receive: Callable[[T], object]
) -> None:
    """Iterate over function(worker, count) in each of `count` processes; call `receive` here with every item.

    If `count` is 1, this process does the work itself.

    Args:
        function: picklable. It divides the work by the number of the worker, 0 to count - 1.
        count: number of processes.
        receive: called in this thread, one item at a time.

    Raises:
        SlgWdsError: a process died.
        Exception: the first error of any worker, with its own class. The other workers are ended.
    """
    if count == 1:
        for item in function(0, 1):
            receive(item)
        return
    with Processes() as processes:
        for worker in range(count):
            processes.start(worker, _send_items, function, worker, count)
        done = set()
        while processes:
            for worker, (kind, *content) in processes.receive():
                if kind == "item":
                    receive(content[0])
                elif kind == "error":
                    raise content[0]
                elif kind == "done":
                    done.add(worker)
                elif worker not in done:
                    raise _died(worker, content[0])


def _died(worker: int, how: str) -> SlgWdsError:
    return SlgWdsError(
        f"worker process {worker} ended without an error message ({how})",
        hint="check whether the machine ran out of memory, or use fewer processes; a script of your own must start the "
        "work under `if __name__ == '__main__':`",
    )


def _send_items(
    parent: ParentPipe, function: Callable[[int, int], Iterable[Any]], worker: int, count: int
) -> None:
    try:
        for item in function(worker, count):
            parent.send(("item", item))
    except Exception as error:
        parent.send(("error", picklable(error)))
    else:
        parent.send(("done",))


def _how_ended(process: BaseProcess) -> str:
    """Wait for the process and say how it ended: `signal 9`, `exit code 1`."""
    process.join(END_SECONDS)
    code = process.exitcode
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def end_processes(processes: Sequence[BaseProcess]) -> None:
    """Terminate the processes that still run, and kill those that have not all ended after END_SECONDS."""
    end = time.monotonic() + END_SECONDS
    started = [process for process in processes if process.pid is not None]
    for process in started:
        if process.is_alive():
            process.terminate()
    for process in started:
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C in this thread, so that a process started meanwhile ignores it from its first instruction on."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Python starts its own helper process with the first of ours, and unblocks interrupts as it does.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(pipe: Connection, body: Callable[..., object], arguments: Sequence[object]) -> None:
    """Run in the worker process: call `body`, and end cleanly on SIGTERM or when the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.unraisablehook = _interrupt_again
    with contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, _interrupt)
        threading.Thread(target=_follow_parent, daemon=True).start()
        body(ParentPipe(pipe), *arguments)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Repeat an interrupt that came while Python ran a finalizer: Python only prints it there."""
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
        os._exit(1)  # the main thread is in a call that no signal interrupts
