"""A crew: workers that run one worker loop, each with a device; and the worker's side of their talk with the run."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from slg_wds.console import note_traceback
from slg_wds.engines.run_stats import Start, Watcher
from slg_wds.errors import DeviceError, SlgWdsError

Message = tuple[Any, ...]
ENDS = ("done", "error", "device", "failed")  # the kinds of the last message of a worker


@dataclass(frozen=True)
class Crew:
    """Who will work: the device of each worker, and the CPU cores that each may use."""

    devices: tuple[str, ...]
    cores: int

    @property
    def workers(self) -> int:
        """How many there are."""
        return len(self.devices)


class Task(Protocol):
    """What every worker does; picklable, and of modules that can be imported where it runs."""

    def __call__(self, worker: int, workers: int, watcher: Watcher) -> object:
        """Make shards until none is missing."""


class Reporter(Watcher):
    """A worker's watcher: each call becomes a message to the run.

    send: may be called by threads at once. careful: see Watcher. avoided: names of shards that the run has given up;
    may grow at any time.
    """

    def __init__(
        self, send: Callable[[Message], None], careful: Sequence[str] = (), avoided: Iterable[str] = ()
    ) -> None:
        self._send = send
        self._careful = tuple(careful)
        self.avoided = set(avoided)

    def begin(self, start: Start) -> None:
        self._send(("begin", start))

    def careful(self) -> Sequence[str]:
        return self._careful

    def claim(self, name: str) -> bool:
        if name in self.avoided:
            return False
        self._send(("claim", name))
        return True

    def crops(self, count: int) -> None:
        self._send(("crops", count))

    def shard(self, name: str, tally: Any, made: bool) -> None:
        self._send(("shard", name, tally, made))

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
