"""A pool of workers that run one loop, each with a device; and what a worker sends to the run that started it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from slg_wds.console import note_traceback
from slg_wds.engines.reports.run_stats import RunObserver, RunStarted
from slg_wds.errors import DeviceError, SlgWdsError

Message = tuple[Any, ...]  # a kind, then its content
ENDS = ("done", "error", "device", "failed")  # kinds of a worker's last message


@dataclass(frozen=True)
class WorkerPool:
    """The workers of a run.

    Attributes:
        devices: the device of each worker, such as `cpu` or `cuda:0`.
        cores: CPU cores that each worker may use.
    """

    devices: tuple[str, ...]
    cores: int

    @property
    def workers(self) -> int:
        """Number of workers."""
        return len(self.devices)


class Task(Protocol):
    """What every worker of a run does. It is pickled, so its class must be importable where workers run."""

    def __call__(self, worker: int, workers: int, observer: RunObserver) -> object:
        """Make shards until none is missing.

        Args:
            worker: number of this worker, 0 to workers - 1.
            workers: number of workers of the run.
            observer: receives the progress.
        """


class Reporter(RunObserver):
    """The observer of a worker in another process: sends every call to the parent as a message.

    Args:
        send: sends one message; must be thread-safe.
        retry_alone: what `retry_alone()` returns.
        avoided: names of the shards that the run has given up.

    Attributes:
        avoided: the same, as a set. The parent adds to it while the worker runs.
    """

    def __init__(
        self, send: Callable[[Message], None], retry_alone: Sequence[str] = (), avoided: Iterable[str] = ()
    ) -> None:
        self._send = send
        self._retry_alone = tuple(retry_alone)
        self.avoided = set(avoided)

    def begin(self, start: RunStarted) -> None:
        """Send ("begin", start)."""
        self._send(("begin", start))

    def retry_alone(self) -> Sequence[str]:
        """Return the names of shards to make first, one at a time."""
        return self._retry_alone

    def claim(self, name: str) -> bool:
        """Send ("claim", name), unless the run has given the shard up: then return False."""
        if name in self.avoided:
            return False
        self._send(("claim", name))
        return True

    def crops(self, count: int) -> None:
        """Send ("crops", count)."""
        self._send(("crops", count))

    def shard(self, name: str, stats: Any, made: bool) -> None:
        """Send ("shard", name, stats, made)."""
        self._send(("shard", name, stats, made))

    def say(self, text: str) -> None:
        """Send ("say", text)."""
        self._send(("say", text))


def perform(
    task: Task, worker: int, workers: int, reporter: Reporter, send: Callable[[Message], None]
) -> str:
    """Run the task in a worker, and send ("started",) before it and how it ended after it.

    Args:
        task: what the worker does.
        worker: number of this worker, 0 to workers - 1.
        workers: number of workers of the run.
        reporter: the observer that the task reports to.
        send: sends one message to the parent; must be thread-safe.

    Returns:
        The kind of the last message. "done"; "error" for an SlgWdsError, which ends the run; "device" for a
        DeviceError and "failed" for any other exception, after which another worker tries again.
    """
    send(("started",))
    end = _end(task, worker, workers, reporter)
    send(end)
    return str(end[0])


def _end(task: Task, worker: int, workers: int, reporter: Reporter) -> Message:
    try:
        task(worker, workers, reporter)
    except DeviceError as error:
        return "device", error.message
    except SlgWdsError as error:
        return "error", picklable(error)
    except Exception as error:
        note_traceback(error)
        first_line = (str(error) or "no message").splitlines()[0]
        return "failed", f"{type(error).__name__}: {first_line}"
    return ("done",)


def picklable(error: Exception) -> Exception:
    """Return the error; or, if it cannot be pickled, an SlgWdsError with its class name and message."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return SlgWdsError(f"{type(error).__name__}: {error}")
    return error
