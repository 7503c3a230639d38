"""What a run knows about its workers, and what it does when one of them ends: the same for processes and actors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.engines.workers.pool import Message
from slg_wds.errors import DeviceError, SlgWdsError

FAILURES = 3  # of one shard or one slot before the run gives it up
GRACE_SECONDS = 2.0  # for the other workers to end, once one has found that no shard is missing


@dataclass
class WorkerSlot:
    """The state of one worker slot. Workers follow each other in a slot: one crashes, the next takes its place.

    Attributes:
        started: a worker of this slot has run its first instruction.
        done: its worker found that no shard is missing.
        closed: no worker is started here again.
        failure: why the worker ended, in its own words; None if it reported nothing.
        device_failed: the worker ended because its device failed.
        claimed: names of the shards in flight: claimed and not yet committed.
        blameless_exits: number of consecutive exits with no shard in flight or because of the device.
    """

    started: bool = False
    done: bool = False
    closed: bool = False
    failure: str | None = None
    device_failed: bool = False
    claimed: list[str] = field(default_factory=list)
    blameless_exits: int = 0


class Supervisor:
    """Passes workers' messages on to the observer, and decides how a worker that ended is replaced.

    A worker that ends may have several shards in flight, and each of them may be the cause. The next worker of the slot
    makes them one at a time. A shard is given up when it fails as the only one in flight, and for the FAILURES-th
    time or more.

    If no shard is to blame, because none was in flight or the device failed, the slot is: after FAILURES such exits in
    a row, no worker is started there again. The other slots continue.

    Args:
        workers: number of slots.
        observer: receives what workers report.
        avoid: called with the name of each shard that is given up, to tell the running workers.

    Attributes:
        slots: the state of each slot.
        given_up: name of each shard that this run will not make -> how the last attempt ended.
        finished: a worker found that no shard is missing; the others now make shards that exist already.
    """

    def __init__(
        self, workers: int, observer: RunObserver, avoid: Callable[[str], object] = lambda name: None
    ) -> None:
        self.slots = [WorkerSlot() for _ in range(workers)]
        self.given_up: dict[str, str] = {}
        self.finished = False
        self._observer = observer
        self._avoid = avoid
        self._failures: Counter[str] = Counter()  # of each shard
        self._exits = 0  # since the last commit
        self._most_exits = FAILURES * (workers + 2)

    def hear(self, worker: int, message: Message) -> None:
        """Handle one message of a worker. Raises the error that the message contains."""
        slot, (kind, *content) = self.slots[worker], message
        if kind == "error":
            raise content[0]
        if kind == "started":
            slot.started = True
        elif kind == "done":
            slot.done = self.finished = True
        elif kind in ("failed", "device"):
            slot.failure, slot.device_failed = content[0], kind == "device"
        else:
            if kind == "claim":
                slot.claimed.append(content[0])
            elif kind == "shard":
                slot.claimed = [name for name in slot.claimed if name != content[0]]
                slot.blameless_exits = self._exits = 0
            getattr(self._observer, kind)(*content)

    def ended(self, worker: int, how: str, blame: bool = True) -> list[str] | None:
        """Decide what follows the end of a worker that was not done.

        Args:
            worker: the number of its slot.
            how: how it ended, in words.
            blame: whether the shards in flight may be the cause.

        Returns:
            The names of the shards that the next worker of the slot makes first, one at a time; None if the slot is
            closed.

        Raises:
            DeviceError: workers ended too often or every slot is closed, and this worker's device failed.
            SlgWdsError: the same for another reason; or workers ended before they started.
        """
        slot = self.slots[worker]
        how, slot.failure = slot.failure or how, None
        device_failed, slot.device_failed = slot.device_failed, False
        self._exits += 1
        self._check_started(worker, how)
        in_flight, slot.claimed = slot.claimed, []
        slot.blameless_exits = 0 if in_flight and not device_failed else slot.blameless_exits + 1
        slot.closed = slot.blameless_exits >= FAILURES
        if self._exits > self._most_exits or all(other.closed for other in self.slots):
            kind = DeviceError if device_failed else SlgWdsError
            raise kind(
                f"workers end again and again, worker {worker} at last: {how}",
                hint="run the same command when the cause is mended; committed shards are kept",
            )
        self._count(in_flight, how, blame and not device_failed)
        self._say_ended(worker, in_flight, how)
        if slot.closed:
            return None
        return [] if device_failed else [name for name in in_flight if name not in self.given_up]

    def _check_started(self, worker: int, how: str) -> None:
        """Raise SlgWdsError if as many workers as there are slots, but at least two, ended before they started."""
        if self._exits >= max(2, len(self.slots)) and not any(slot.started for slot in self.slots):
            raise SlgWdsError(
                f"worker {worker} ended before it started its work ({how})",
                hint="check whether the machine ran out of memory; a script of your own must start the run under "
                "`if __name__ == '__main__':`",
            )

    def _say_ended(self, worker: int, in_flight: list[str], how: str) -> None:
        at = f" at {', '.join(in_flight)}" if in_flight else ""
        then = "it is started again"
        if self.slots[worker].closed:
            then = f"it ended {FAILURES} times without a shard to blame and is not started again"
        self._observer.say(f"worker {worker} ended{at}: {how}; {then}")

    def _count(self, in_flight: list[str], how: str, blame: bool) -> None:
        if blame:
            self._failures.update(in_flight)
        if len(in_flight) == 1 and self._failures[in_flight[0]] >= FAILURES:
            (name,) = in_flight
            self.given_up[name] = how
            self._avoid(name)
            self._observer.say(f"{name} is given up after {self._failures[name]} failures: {how}")
