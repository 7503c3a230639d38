"""What the worker loop does on clusters of 1 to 4,096 workers: efficiency, work done twice, requests, their price.

usage: simulate_cluster.py [--crops-per-second 2000] [--images 1281167] [--num-crops 500]
                           [--samples-per-shard 16 64 256] [--workers 1 8 64] [--lose-every 600] ...
       simulate_cluster.py --check

It runs the package's own loop (`claims`) against a simulated store and clock. A shard takes its crops divided by
the rate, times a spread of its own, times the speed of its worker; some workers are stragglers. Every so often a node
of workers is lost with what it was making, and comes back later as the same ranks. Efficiency is the time to make each
shard once at the mean speed, divided by the time that all workers were there until the set was complete.

--check makes a set with two real processes and compares: with the shard times that were seen, the simulation has to
say how long the two take together.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from slg_wds.concurrency.rank import Rank
from slg_wds.engines.claims import claims
from slg_wds.labelset.labelset import LabelSet

PAGE = 1000  # names in one answer to a listing
# US dollars for 1,000 requests, S3 Standard, us-east-1 (aws.amazon.com/s3/pricing, 2025)
PRICE = {"PUT": 0.005, "LIST": 0.005, "HEAD": 0.0004}


@dataclass(frozen=True)
class Scene:
    """A cluster and its work. Times are in seconds, spread and slowness are fractions of the mean."""

    workers: int
    shards: int
    shard_seconds: float
    spread: float = 0.1
    stragglers: float = 0.02
    straggler_factor: float = 2.0
    node: int = 8
    lose_every: float = 0.0
    back_after: float = 300.0
    start_up: float = 30.0
    request: float = 0.02
    ranks: bool = True


@dataclass
class Outcome:
    """The result of one simulation."""

    seconds: float = 0.0
    useful: float = 0.0
    there: float = 0.0
    twice: int = 0
    lost: int = 0
    requests: Counter[str] = field(default_factory=Counter)

    @property
    def efficiency(self) -> float:
        return self.useful / self.there

    @property
    def dollars(self) -> float:
        return sum(PRICE[name] * count / 1000 for name, count in self.requests.items())


class Worker:
    """One worker. The worker loop takes it for a label set; its answers are simulated and take time."""

    def __init__(self, cluster: Cluster, number: int, speed: float) -> None:
        self._cluster, self.number, self.speed = cluster, number, speed
        self.num_shards = cluster.scene.shards
        self.life, self.waited, self.making = 0, 0.0, -1
        self.since = 0.0

    def exists(self, number: int) -> bool:
        self._ask("HEAD")
        return self._cluster.made[number]

    def missing(self) -> list[int]:
        made = self._cluster.made
        for _ in range(1 + sum(made) // PAGE):
            self._ask("LIST")
        return [number for number, there in enumerate(made) if not there]

    def _ask(self, what: str) -> None:
        self._cluster.outcome.requests[what] += 1
        self.waited += self._cluster.scene.request

    def begin(self, now: float) -> None:
        """Start the worker loop again, as a new process does."""
        scene = self._cluster.scene
        rank = Rank(self.number, scene.workers) if scene.ranks and scene.workers > 1 else None
        self.lost: set[int] = set()
        self.loop: Iterator[int] = claims(cast(LabelSet, self), rank, lost=self.lost)
        self.since, self.making = now, -1


class Cluster:
    """The clock, the store and the workers."""

    def __init__(self, scene: Scene, seed: int, durations: list[float] | None = None) -> None:
        self.scene, self.chance = scene, random.Random(seed)
        self.outcome = Outcome()
        self.made = [False] * scene.shards
        self.left = scene.shards
        self.seconds = durations or [
            scene.shard_seconds * max(0.2, self.chance.gauss(1.0, scene.spread)) for _ in range(scene.shards)
        ]
        self.workers = [Worker(self, n, self._speed()) for n in range(scene.workers)]
        self._events: list[tuple[float, int, str, int, int]] = []
        self._count = 0

    def _speed(self) -> float:
        slow = self.chance.random() < self.scene.stragglers and self.scene.workers > 1
        return 1.0 / self.scene.straggler_factor if slow else 1.0

    def _at(self, when: float, what: str, who: int, life: int = 0) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what, who, life))

    def run(self) -> Outcome:
        for worker in self.workers:
            self._at(0.0, "start", worker.number)
        if self.scene.lose_every:
            self._at(self.scene.lose_every, "lose", -1)
        while self._events:
            now, _, what, who, life = heapq.heappop(self._events)
            if what == "lose":
                self._lose(now)
            elif what == "start":
                self.workers[who].begin(now)
                self._next(self.workers[who], now)
            elif self.workers[who].life == life:
                self._finished(self.workers[who], now)
            if self.left == 0:
                break
        self.outcome.seconds = now
        self.outcome.useful = sum(self.seconds)
        for worker in self.workers:
            if worker.since >= 0:
                self.outcome.there += now - worker.since
        return self.outcome

    def _next(self, worker: Worker, now: float) -> None:
        worker.waited = 0.0
        worker.making = next(worker.loop, -1)
        if worker.making >= 0:
            end = now + worker.waited + self.seconds[worker.making] / worker.speed
            self._at(end, "finish", worker.number, worker.life)

    def _finished(self, worker: Worker, now: float) -> None:
        self.outcome.requests["PUT"] += 1
        if self.made[worker.making]:
            self.outcome.twice += 1
            worker.lost.add(worker.making)
        else:
            self.made[worker.making] = True
            self.left -= 1
            self.outcome.requests["PUT"] += 1  # its part of the index
        self._next(worker, now)

    def _lose(self, now: float) -> None:
        scene = self.scene
        node = self.chance.randrange(-(-scene.workers // scene.node))
        for worker in self.workers[node * scene.node : (node + 1) * scene.node]:
            if worker.since >= 0:
                self.outcome.there += now - worker.since
                self.outcome.lost += worker.making >= 0
                worker.since, worker.life = -1.0, worker.life + 1
                self._at(now + scene.back_after + scene.start_up, "start", worker.number)
        self._at(now + scene.lose_every, "lose", -1)


def main() -> int:
    options = parse()
    if options.check:
        return check(options)
    crops = options.images * options.num_crops
    print(
        f"{options.images:,} images x {options.num_crops} crops at {options.crops_per_second:g} crops/s and worker; "
        f"spread {options.spread:.0%}, {options.stragglers:.0%} of workers at half speed, "
        + (
            f"a node of {options.node} lost every {options.lose_every:g} s, back after {options.back_after:g} s"
            if options.lose_every
            else "none lost"
        )
    )
    print(
        "| workers | samples/shard | shards | s/shard | hours | efficiency | made twice | lost | requests | USD |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for workers in options.workers:
        for samples in options.samples_per_shard:
            shards = -(-options.images // samples)
            scene = Scene(
                workers=workers,
                shards=shards,
                shard_seconds=crops / options.crops_per_second / shards,
                spread=options.spread,
                stragglers=options.stragglers,
                node=options.node,
                lose_every=options.lose_every,
                back_after=options.back_after,
                ranks=not options.no_ranks,
            )
            print(row(samples, scene, Cluster(scene, options.seed).run()), flush=True)
    return 0


def row(samples: int, scene: Scene, found: Outcome) -> str:
    cells: list[Any] = [
        f"{scene.workers:,}", samples, f"{scene.shards:,}", f"{scene.shard_seconds:.0f}", f"{found.seconds / 3600:.2f}",
        f"{found.efficiency:.3f}", found.twice, found.lost, f"{found.requests.total():,}", f"{found.dollars:.2f}",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def check(options: argparse.Namespace) -> int:
    """Compare two real processes with the simulation of two. Return 1 if they differ by more than 10%."""
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(here), str(here.parent / "faults")]
    import kill_test
    from bench_generate import lay_out

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder / "photographs", 60)
        (folder / "meeting").mkdir()
        command = kill_test.command(
            folder / "photographs",
            folder / "set",
            "--samples-per-shard",
            "1",
            "--num_crops",
            "2000",
            "-j",
            "1",
        )
        real, durations = two_launches(command, f"{folder / 'meeting'}:2")
    scene = Scene(workers=2, shards=60, shard_seconds=0, stragglers=0, request=0.0, ranks=False)
    pool = random.Random(options.seed)
    simulated = statistics.mean(
        Cluster(scene, seed, pool.choices(durations, k=60)).run().seconds for seed in range(50)
    )
    print(f"two launches, 60 shards: {real:.2f} s, simulated {simulated:.2f} s: {simulated / real:.3f}")
    return 0 if 0.9 <= simulated / real <= 1.1 else 1


def two_launches(command: list[str], meeting: str) -> tuple[float, list[float]]:
    """Run two processes; return seconds from the start of labelling to the last commit, and seconds of each shard."""
    environment = {**os.environ, "SLG_TEST_MEETING": meeting}
    stamps: list[list[float]] = [[], []]
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
        )
        for _ in stamps
    ]

    def follow(process: subprocess.Popen[str], seen: list[float]) -> None:
        assert process.stderr is not None
        seen.extend(time.monotonic() for line in process.stderr if line.startswith(("teacher", "train-")))

    threads = [threading.Thread(target=follow, args=pair) for pair in zip(processes, stamps, strict=True)]
    for thread in threads:
        thread.start()
    for thread, process in zip(threads, processes, strict=True):
        thread.join()
        if process.wait():
            raise SystemExit(f"a process ended with {process.returncode}")
    durations = [b - a for seen in stamps for a, b in itertools.pairwise(seen)]
    return max(map(max, stamps)) - min(map(min, stamps)), durations


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--num-crops", type=int, default=500)
    parser.add_argument("--crops-per-second", type=float, default=2000.0, help="of one worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 512, 1024, 4096])
    parser.add_argument("--samples-per-shard", type=int, nargs="+", default=[16, 32, 64, 256])
    parser.add_argument("--spread", type=float, default=0.1)
    parser.add_argument("--stragglers", type=float, default=0.02)
    parser.add_argument("--node", type=int, default=8)
    parser.add_argument("--lose-every", type=float, default=600.0)
    parser.add_argument("--back-after", type=float, default=300.0)
    parser.add_argument("--no-ranks", action="store_true", help="plain launches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
