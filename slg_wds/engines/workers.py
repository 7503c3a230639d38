"""A pool: workers that run one worker loop, each with a device; and the worker's side of their talk with the run."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from slg_wds.console import note_traceback
from slg_wds.engines.run_stats import RunObserver, RunStarted
from slg_wds.errors import DeviceError, SlgWdsError

Message = tuple[Any, ...]
ENDS = ("done", "error", "device", "failed")  # the kinds of the last message of a worker


@dataclass(frozen=True)
class WorkerPool:
    """Who will work: the device of each worker, and the CPU cores that each may use."""

    devices: tuple[str, ...]
    cores: int

    @property
    def workers(self) -> int:
        """How many there are."""
        return len(self.devices)


class Task(Protocol):
    """What every worker does; picklable, and of modules that can be imported where it runs."""

    def __call__(self, worker: int, workers: int, observer: RunObserver) -> object:
        """Make shards until none is missing."""


class Reporter(RunObserver):
    """Send every call to the parent as a message; the observer of a worker in another process.

    Args:
        send: sends one message; must be thread-safe.
        retry_alone: what `retry_alone()` returns.
        avoided: names of the shards that the run has given up.

    Attributes:
        avoided: the same as a set. The parent's messages add to it while the worker runs.
    """

    def __init__(
        self, send: Callable[[Message], None], retry_alone: Sequence[str] = (), avoided: Iterable[str] = ()
    ) -> None:
        self._send = send
        self._retry_alone = tuple(retry_alone)
        self.avoided = set(avoided)

    def begin(self, start: RunStarted) -> None:
        self._send(("begin", start))

    def retry_alone(self) -> Sequence[str]:
        return self._retry_alone

    def claim(self, name: str) -> bool:
        if name in self.avoided:
            return False
        self._send(("claim", name))
        return True

    def crops(self, count: int) -> None:
        self._send(("crops", count))

    def shard(self, name: str, stats: Any, made: bool) -> None:
        self._send(("shard", name, stats, made))

    def say(self, text: str) -> None:
        self._send(("say", text))


def perform(
    task: Task, worker: int, workers: int, reporter: Reporter, send: Callable[[Message], None]
) -> str:
    """Run the task, send how it ended, one of ENDS, and return that.

    done; an error of ours, which ends the run; or for another try: a device's error, and whatever else failed.
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
        said = (str(error) or "no message").splitlines()[0]
        return "failed", f"{type(error).__name__}: {said}"
    return ("done",)


def picklable(error: Exception) -> Exception:
    """The error, or where another package's does not survive the way, one that tells of it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return SlgWdsError(f"{type(error).__name__}: {error}")
    return error
