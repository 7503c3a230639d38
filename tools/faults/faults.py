"""The faults of fault_test.py: each disturbs one run of `slg-wds generate`, at a moment drawn by chance."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fault_jobs import Run, alive, below, command_line, kill, wait_until
from kill_test import command

from support.servers.fault_proxy import Request, by_seed, shaky
from support.servers.s3 import KillableS3, S3Server, killable_s3

SMALL = ("--samples-per-shard", "2", "--num_crops", "300")
SHARDS = 18  # of the demo's 36 photographs
TWO = ("--devices", "cpu:2")
RAY = ("--engine", "ray", "--actors", "2")
ACTOR = "ray::_Worker"


@dataclass(frozen=True)
class Round:
    """One round: its folders and its source of chance. `target` is where the finished set will be."""

    data: Path
    folder: Path
    chance: random.Random

    @property
    def target(self) -> Path:
        return self.folder / "set"

    def command(self, *more: str, target: str | None = None) -> list[str]:
        """Return the command line of a run."""
        arguments = command(self.data, self.target, *SMALL, *more)
        if target is not None:
            arguments[arguments.index("--save-path") + 1] = target
        return arguments

    def moment(self, run: Run) -> bool:
        """Wait for a random moment in the first half of the work; return whether the run is still going."""
        if run.wait_for_shards(self.chance.randint(1, SHARDS // 2)):
            time.sleep(self.chance.uniform(0, 0.2))
        return run.running and run.shards < SHARDS

    def kill_one(self, run: Run, word: str = "spawn_main") -> bool:
        """Kill one of its workers at a random moment; return whether that worker was working."""
        if not self.moment(run):
            return False
        pids = run.workers(word)
        return bool(pids) and kill(self.chance.choice(pids))


# It returns whether it met a run under way, and how often something began anew.
Fault = Callable[[Round], tuple[bool, int]]


def killed_worker(at: Round) -> tuple[bool, int]:
    """One of two processes of --devices: the run starts another in its place."""
    run = Run(at.command(*TWO))
    hit = at.kill_one(run)
    run.check()
    return hit, run.restarts


def killed_driver(at: Round) -> tuple[bool, int]:
    """The process that the user started: its workers end with it, and the same command resumes."""
    run = Run(at.command(*TWO))
    hit = at.moment(run)
    workers = run.workers()
    run.kill()
    run.end()
    wait_until(lambda: not any(alive(pid) for pid in workers))
    Run(at.command(*TWO)).check()
    return hit, 1


def killed_rank(at: Round) -> tuple[bool, int]:
    """One of two ranks, each of its own torchrun as on two machines: the other finishes the set."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", port]
    ranks = [
        Run([*torchrun, "--node-rank", str(number), *at.command()[1:]], OMP_NUM_THREADS="1")
        for number in range(2)
    ]
    victim, other = at.chance.sample(ranks, 2)
    hit = at.kill_one(victim, "slg_wds generate")
    wait_until(lambda: not other.workers("slg_wds generate"))
    assert (at.target / "_info.json").exists(), other.text
    for rank in ranks:
        rank.kill()  # torchrun itself waits five minutes for the machine that was lost
        rank.end()
    return hit, 0


def killed_server(at: Round) -> tuple[bool, int]:
    """The S3 server, at a moment when half of a shard has been sent; it comes back seconds later."""
    doomed = f"train-{at.chance.randrange(SHARDS):06d}.tar"
    down = threading.Event()

    def fault(request: Request) -> str:
        first = request.method == "PUT" and request.path.endswith(doomed) and not down.is_set()
        return "torn" if first else ""

    with killable_s3() as machine, shaky(machine.server, fault) as proxy:
        proxy.torn = lambda: (machine.kill(), down.set())  # type: ignore[func-returns-value]
        run = Run(at.command(target=_url(at)), **_environment(proxy.server))
        wait_until(lambda: down.is_set() or not run.running)
        time.sleep(at.chance.uniform(0, 2))
        if down.is_set():
            machine.start()
        run.check()
        download(at, machine.server)
    return down.is_set(), int(down.is_set())


def slow_server(at: Round) -> tuple[bool, int]:
    """A quarter of all answers late, others 503, or lost after the server has done its part."""
    with _lasting() as machine:
        fault = by_seed(at.chance.randrange(1 << 30), status=0.1, late=0.15, lost=0.05, refused=0.05)
        with shaky(machine.server, fault) as proxy:
            proxy.late = 0.5
            Run(at.command(target=_url(at)), **_environment(proxy.server)).check()
            hit = sum(proxy.failed.values()) > 0
        download(at, machine.server)
    return hit, 0


def full_disk(at: Round) -> tuple[bool, int]:
    """A file system too small for the set, enlarged after the run has failed."""
    room = at.chance.randrange(40, 140) << 10
    with _little_room(at, room) as enlarge:
        run = Run(at.command())
        failed = run.end() == 1
        assert not failed or ("nothing more fits" in run.said[-1] and "Traceback" not in run.text), run.text
        assert not list(at.target.rglob(".tmp-*")), "temporary files are left"
        enlarge()
        Run(at.command()).check()
        shutil.copytree(at.target, at.folder / "copy")
    shutil.rmtree(at.target)
    (at.folder / "copy").rename(at.target)
    return failed, 1


def two_jobs(at: Round) -> tuple[bool, int]:
    """Two whole jobs at once on one save path, one of them of two processes; all three begin together."""
    meeting = at.folder / "meeting"
    meeting.mkdir()
    both = [Run(at.command(*more), SLG_TEST_MEETING=f"{meeting}:3") for more in (TWO, ())]
    for run in both:
        run.check()
    return all(run.shards for run in both), 0


def killed_actor(at: Round) -> tuple[bool, int]:
    """One of two Ray actors: the run starts another in its place."""
    run = Run(at.command(*RAY))
    hit = at.kill_one(run, ACTOR)
    run.check()
    return hit, run.restarts


def killed_ray_driver(at: Round) -> tuple[bool, int]:
    """The driver of a Ray run: its actors end with it, and the same command resumes."""
    run = Run(at.command(*RAY))
    hit = at.moment(run)
    # Ray's agents look for their cluster once in a while, and end a minute later.
    processes = [pid for pid in below(run.process.pid) if "Agent" not in command_line(pid)]
    run.kill()
    run.process.wait()
    wait_until(lambda: not any(alive(pid) for pid in processes))
    Run(at.command(*RAY)).check()
    return hit, 1


def _url(at: Round) -> str:
    return f"s3://labels/{at.folder.name}"


def _environment(server: S3Server) -> dict[str, str]:
    return {**server.environment(), "NO_PROXY": "127.0.0.1"}


def download(at: Round, server: S3Server) -> None:
    """Copy a set to the round's target; by another process, since obstore's clients survive no fork."""
    code = (
        "import pathlib, sys; from slg_wds.store import open_store; store = open_store(sys.argv[1])\n"
        "for entry in store.list():\n"
        "    path = pathlib.Path(sys.argv[2], entry.name); path.parent.mkdir(parents=True, exist_ok=True)\n"
        "    path.write_bytes(store.read(entry.name))"
    )
    Run([sys.executable, "-c", code, _url(at), str(at.target)], **_environment(server)).check()


_servers = contextlib.ExitStack()
_kept: list[KillableS3] = []


def _lasting() -> contextlib.AbstractContextManager[KillableS3]:
    """Return a server that is kept over the rounds."""
    if not _kept:
        _kept.append(_servers.enter_context(killable_s3()))
    return contextlib.nullcontext(_kept[0])


@contextlib.contextmanager
def _little_room(at: Round, room: int) -> Iterator[Callable[[], None]]:
    """Limit the target to `room` bytes, by a file system or, without root, a limit on files; yield what lifts it."""
    if os.geteuid() != 0:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9 << 10, limit[1]))
        try:
            yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        return
    at.target.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    Run([*mount, f"size={room}", "none", str(at.target)]).check()
    larger = [*mount, "remount,size=64m", "none", str(at.target)]
    try:
        yield lambda: Run(larger).check()
    finally:
        Run(["umount", str(at.target)]).check()


FAULTS: dict[str, Fault] = {
    "worker": killed_worker,
    "driver": killed_driver,
    "rank": killed_rank,
    "server": killed_server,
    "slow": slow_server,
    "full": full_disk,
    "two": two_jobs,
    "actor": killed_actor,
    "ray-driver": killed_ray_driver,
}
