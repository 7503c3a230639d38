"""What a run knows of its workers, and what it decides when one of them ends: the same for processes and actors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from slg_wds.engines.crew import Message
from slg_wds.errors import SlgWdsError
from slg_wds.tally import Watcher

FAILURES = 3  # of one shard, before the run gives it up
GRACE_SECONDS = 2.0  # for workers that make what exists already, once one has found nothing missing


@dataclass
class Place:
    """One worker's place, whoever holds it. claimed: shards begun and not yet committed; in vain: ends without any."""

    started: bool = False
    done: bool = False
    failure: str | None = None
    claimed: list[str] = field(default_factory=list)
    in_vain: int = 0


class Supervisor:
    """Hears what workers say, passes it on to the watcher, and says how those that end are started again.

    A worker that ends holds up to a few shards, and any of them may be at fault. The next in its place makes them one
    at a time, so that a shard is given up only after FAILURES failures of which it was alone in the last.

    Attributes:
        given_up: names of shards that this run will not make, and how the last attempt ended.
        finished: whether some worker has found nothing missing; the others then make what exists already.
    """

    def __init__(self, workers: int, watcher: Watcher) -> None:
        self.places = [Place() for _ in range(workers)]
        self.given_up: dict[str, str] = {}
        self.finished = False
        self._watcher = watcher
        self._failures: Counter[str] = Counter()
        self._ends = 0  # since the last shard
        self._most_ends = FAILURES * (workers + 2)

    def hear(self, worker: int, message: Message) -> None:
        """Take one message of a worker. Raises the error that it tells of."""
        place, (kind, *content) = self.places[worker], message
        if kind == "error":
            raise content[0]
        if kind == "started":
            place.started = True
        elif kind == "done":
            place.done = self.finished = True
        elif kind == "failed":
            place.failure = content[0]
        else:
            if kind == "claim":
                place.claimed.append(content[0])
            elif kind == "shard":
                place.claimed = [name for name in place.claimed if name != content[0]]
                place.in_vain = self._ends = 0
            getattr(self._watcher, kind)(*content)

    def ended(self, worker: int, how: str, blame: bool = True) -> list[str]:
        """A worker ended without being done: the shards that the next in its place is to make alone, first.

        how: in words, for people. blame: whether the shards that it held may be the reason.

        Raises SlgWdsError where another attempt has no hope.
        """
        place = self.places[worker]
        how, place.failure = place.failure or how, None
        self._ends += 1
        if self._ends >= max(2, len(self.places)) and not any(other.started for other in self.places):
            raise SlgWdsError(
                f"worker {worker} ended without a word ({how})",
                hint="out of memory? In a script of your own, start under `if __name__ == '__main__':`",
            )
        held, place.claimed = place.claimed, []
        self._count(place, worker, held, how, blame)
        again = [name for name in held if name not in self.given_up]
        at = f" at {', '.join(held)}" if held else ""
        self._watcher.say(f"worker {worker} ended{at}: {how}; it is started again")
        return again

    def _count(self, place: Place, worker: int, held: list[str], how: str, blame: bool) -> None:
        place.in_vain = 0 if held else place.in_vain + 1
        if place.in_vain >= FAILURES or self._ends > self._most_ends:
            raise SlgWdsError(f"workers end again and again, worker {worker} at last: {how}")
        if blame:
            self._failures.update(held)
        if len(held) == 1 and self._failures[held[0]] >= FAILURES:
            self.given_up[held[0]] = how
            self._watcher.say(f"{held[0]} is given up after {self._failures[held[0]]} failures: {how}")
