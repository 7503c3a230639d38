"""What a run knows of its workers, and what it decides when one of them ends: the same for processes and actors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from slg_wds.engines.run_stats import RunObserver
from slg_wds.engines.workers import Message
from slg_wds.errors import DeviceError, SlgWdsError

FAILURES = 3  # of one shard, before the run gives it up
GRACE_SECONDS = 2.0  # for workers that make what exists already, once one has found nothing missing


@dataclass
class WorkerSlot:
    """One worker's place, whoever holds it.

    failure: what the worker said of its end, and sick: whether it was its device's. claimed: shards begun and not yet
    committed. in_vain: ends in a row for which no shard is to blame. closed: nobody is started there again.
    """

    started: bool = False
    done: bool = False
    closed: bool = False
    failure: str | None = None
    sick: bool = False
    claimed: list[str] = field(default_factory=list)
    in_vain: int = 0


class Supervisor:
    """Hears what workers say, passes it on to the observer, and says how those that end are started again.

    A worker that ends holds up to a few shards, and any of them may be at fault. The next in its place makes them one
    at a time, so that a shard is given up only after FAILURES failures of which it was alone in the last. Where no
    shard is to blame, because none was held or the device failed, the place is: after FAILURES ends in vain nobody is
    started there again, and the others go on.

    Attributes:
        given_up: names of shards that this run will not make, and how the last attempt ended.
        finished: whether some worker has found nothing missing; the others then make what exists already.
    """

    def __init__(self, workers: int, observer: RunObserver) -> None:
        self.slots = [WorkerSlot() for _ in range(workers)]
        self.given_up: dict[str, str] = {}
        self.finished = False
        self._observer = observer
        self._failures: Counter[str] = Counter()
        self._ends = 0  # since the last shard
        self._most_ends = FAILURES * (workers + 2)

    def hear(self, worker: int, message: Message) -> None:
        """Take one message of a worker. Raises the error that it tells of."""
        place, (kind, *content) = self.slots[worker], message
        if kind == "error":
            raise content[0]
        if kind == "started":
            place.started = True
        elif kind == "done":
            place.done = self.finished = True
        elif kind in ("failed", "device"):
            place.failure, place.sick = content[0], kind == "device"
        else:
            if kind == "claim":
                place.claimed.append(content[0])
            elif kind == "shard":
                place.claimed = [name for name in place.claimed if name != content[0]]
                place.in_vain = self._ends = 0
            getattr(self._observer, kind)(*content)

    def ended(self, worker: int, how: str, blame: bool = True) -> list[str] | None:
        """A worker ended without being done: the shards that the next in its place is to make alone, first.

        None: nobody is to be started in its place. how: in words, for people. blame: whether the shards that it held
        may be the reason.

        Raises SlgWdsError where another attempt has no hope, DeviceError where that is the last device's doing.
        """
        place = self.slots[worker]
        how, place.failure = place.failure or how, None
        sick, place.sick = place.sick, False
        self._ends += 1
        if self._ends >= max(2, len(self.slots)) and not any(other.started for other in self.slots):
            raise SlgWdsError(
                f"worker {worker} ended without a word ({how})",
                hint="out of memory? In a script of your own, start under `if __name__ == '__main__':`",
            )
        held, place.claimed = place.claimed, []
        place.in_vain = 0 if held and not sick else place.in_vain + 1
        place.closed = place.in_vain >= FAILURES
        if self._ends > self._most_ends or all(other.closed for other in self.slots):
            kind = DeviceError if sick else SlgWdsError
            raise kind(f"workers end again and again, worker {worker} at last: {how}")
        self._count(held, how, blame and not sick)
        at = f" at {', '.join(held)}" if held else ""
        then = (
            f"after {FAILURES} ends in vain it is not started again"
            if place.closed
            else "it is started again"
        )
        self._observer.say(f"worker {worker} ended{at}: {how}; {then}")
        return None if place.closed else [name for name in held if name not in self.given_up and not sick]

    def _count(self, held: list[str], how: str, blame: bool) -> None:
        if blame:
            self._failures.update(held)
        if len(held) == 1 and self._failures[held[0]] >= FAILURES:
            self.given_up[held[0]] = how
            self._observer.say(f"{held[0]} is given up after {self._failures[held[0]]} failures: {how}")
