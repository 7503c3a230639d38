"""The Ray engine: a pool of actors on a cluster, driven and watched from here. The only module that imports Ray."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from slg_wds.concurrency import memory
from slg_wds.engines.resources import ActorRequest, ActorResources, actor_resources, no_room
from slg_wds.engines.run_stats import RunObserver
from slg_wds.engines.supervisor import GRACE_SECONDS, Supervisor
from slg_wds.engines.workers import ENDS, Message, Reporter, Task, WorkerPool, perform
from slg_wds.errors import MissingDependencyError, SlgWdsError, UsageError

GATHER_SECONDS = 0.1  # messages of one actor that travel together
ROOM_SECONDS = 30.0  # for a cluster that grows on demand to show a node with what an actor asks for
SAY_SECONDS = 30.0
ANSWER_SECONDS = 40.0  # for the head of a cluster
_PASSED_ON = ("AWS_", "GOOGLE_", "AZURE_")


def run_ray(
    task_of: Callable[[WorkerPool], Task], request: ActorRequest, address: str | None, observer: RunObserver
) -> dict[str, str]:
    """Let actors make shards until none is missing; return the shards given up, and how the last attempt ended.

    An actor for which there is no room yet joins when there is; one that dies, or whose node is lost, gets a
    successor. Shards and labels go to the store alone, the driver is told of progress.

    Raises MissingDependencyError without Ray, UsageError for actors that the cluster has no room for, SlgWdsError
    where it does not answer, and the first error of ours of any actor.
    """
    with connected(address) as ray:
        resources = _resources_for(ray, request, wait=address is not None)
        device = "cuda:0" if resources.gpus else "cpu"  # Ray shows an actor its own GPUs alone
        pool = WorkerPool((device,) * resources.count, resources.cores)
        run = _Run(ray, task_of(pool), resources, observer)
        try:
            return run.finish()
        finally:
            run.close()


class _Worker:
    """The actor: one process, which runs the worker loop in a thread and hands on what it says."""

    def __init__(self, folder: str, environment: Mapping[str, str]) -> None:
        with contextlib.suppress(OSError):
            os.chdir(folder)  # relative paths mean what they mean to the driver
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        self._avoided: set[str] = set()

    def run(
        self, task: Task, worker: int, workers: int, retry_alone: Sequence[str], avoided: Sequence[str]
    ) -> Iterator[list[Message]]:
        """Run the task; yield its messages, a few at a time."""
        messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        reporter = Reporter(messages.put, retry_alone, avoided)
        self._avoided = reporter.avoided
        arguments = (task, worker, workers, reporter, messages.put)
        threading.Thread(target=perform, args=arguments, daemon=True).start()
        ended = False
        while not ended:
            batch = [messages.get()]
            time.sleep(GATHER_SECONDS)
            while not messages.empty():
                batch.append(messages.get())
            ended = batch[-1][0] in ENDS
            yield batch

    def avoid(self, name: str) -> None:
        """The run has given up a shard."""
        self._avoided.add(name)


class _Run:
    def __init__(self, ray: Any, task: Task, resources: ActorResources, observer: RunObserver) -> None:
        self._ray = ray
        self._task = self._ray.put(task)
        self._resources = resources
        self._observer = observer
        self._supervisor = Supervisor(resources.count, observer)
        self._actors: dict[int, Any] = {}
        self._streams: dict[Any, int] = {}

    def finish(self) -> dict[str, str]:
        for worker in range(self._resources.count):
            self._start(worker, ())
        end: float | None = None
        said = time.monotonic()
        while self._streams and (end is None or time.monotonic() < end):
            ready, _ = self._ray.wait(list(self._streams), num_returns=1, timeout=0.5)
            for stream in ready:
                self._hear(stream)
            if self._supervisor.finished and end is None:
                end = time.monotonic() + GRACE_SECONDS
            if not ready and time.monotonic() > said + SAY_SECONDS and not self._begun():
                said = time.monotonic()
                self._observer.say("no actor has been placed yet: the cluster is busy; interrupt to give up")
        return self._supervisor.given_up

    def close(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)

    def _begun(self) -> bool:
        return any(place.started for place in self._supervisor.slots)

    def _start(self, worker: int, retry_alone: Sequence[str]) -> None:
        kind = self._ray.remote(_Worker)
        environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        # Two calls at once: `avoid` beside `run`. Restarts are ours, since the next worker is told what the last held.
        options = {"num_cpus": self._resources.cpus, "num_gpus": self._resources.gpus, "max_concurrency": 2}
        runtime = {"env_vars": memory.ENVIRONMENT}
        actor = kind.options(max_restarts=0, runtime_env=runtime, **options).remote(os.getcwd(), environment)  # noqa: PTH109
        given_up = list(self._supervisor.given_up)
        call = actor.run.options(num_returns="streaming")
        self._actors[worker] = actor
        self._streams[call.remote(self._task, worker, self._resources.count, retry_alone, given_up)] = worker

    def _hear(self, stream: Any) -> None:
        worker = self._streams[stream]
        try:
            batch = self._ray.get(next(stream))
        except StopIteration:
            how, blame = "it failed", True
        except self._ray.exceptions.RayError as error:
            how, blame = _said(error)
        else:
            for message in batch:
                self._supervisor.hear(worker, message)
            return
        del self._streams[stream]
        self._ray.kill(self._actors.pop(worker))
        if not self._supervisor.slots[worker].done and not self._supervisor.finished:
            self._again(worker, how, blame)

    def _again(self, worker: int, how: str, blame: bool) -> None:
        known = set(self._supervisor.given_up)
        retry_alone = self._supervisor.ended(worker, how, blame)
        for name in set(self._supervisor.given_up) - known:
            for actor in self._actors.values():
                actor.avoid.remote(name)
        if retry_alone is not None:
            self._start(worker, retry_alone)


def _said(error: Exception) -> tuple[str, bool]:
    """How an actor ended, in a few words, and whether its shards may be the reason: not where its node was lost."""
    text = " ".join(str(error).split())
    if "node has died" in text or "node died" in text.lower():
        return "its node was lost", False
    for mark in ("SYSTEM_ERROR", "OOM", "out of memory", "connection error code"):
        if mark in text:
            return {"connection error code": "its process was killed"}.get(
                mark, f"its process died ({mark})"
            ), True
    return f"{type(error).__name__}: {text[:200]}", True


def _resources_for(ray: Any, request: ActorRequest, wait: bool) -> ActorResources:
    """What each actor gets. Raises UsageError where no node has that, after a while on a cluster that may grow."""
    end = time.monotonic() + (ROOM_SECONDS if wait else 0.0)
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        resources = actor_resources(nodes, request)
        if resources.count:
            return resources
        if time.monotonic() >= end:
            raise UsageError(no_room(nodes, resources))
        time.sleep(1.0)


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Give Ray, joined to the cluster at the address (or RAY_ADDRESS), or to one of this machine that ends with it.

    A connection that the caller's program has made is used and left as it is.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("Ray is not installed", hint="pip install 'slg-wds[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with _handlers_kept():
        _connect(ray, address)
    try:
        yield ray
    finally:
        with contextlib.suppress(OSError):  # on a full disk, where what ended the run is to be told
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    if "://" in address:
        raise UsageError(
            f"--address {address}: Ray Client cannot stream progress",
            hint="give auto or host:port on a machine of the cluster, or submit the command with `ray job submit`",
        )
    if address == "local":
        # Ray starts actors at a niceness of 15, so that a busy cluster's own processes come first; here any other
        # program of the machine would, and a run of the other engines would not wait for it.
        os.environ.setdefault("RAY_worker_niceness", "0")
    else:
        _check_answer(address)
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SlgWdsError(f"no Ray cluster at {address}: {_first(str(error))}", hint=_ADDRESS) from None


def _check_answer(address: str) -> None:
    """Raise SlgWdsError where no cluster answers: asked by another process, since ray.init may wait for ever."""
    code = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='error')"
    command = [sys.executable, "-c", code, address]
    try:
        found = subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, text=True)
    except subprocess.TimeoutExpired:
        raise SlgWdsError(
            f"the Ray cluster at {address} does not answer within {ANSWER_SECONDS:.0f} s", hint=_ADDRESS
        ) from None
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["no word"])[-1]
        raise SlgWdsError(f"no Ray cluster at {address}: {_first(last)}", hint=_ADDRESS)


_ADDRESS = "check --address; `ray start --head` starts a cluster, no --address one for this run alone"


def _first(text: str) -> str:
    return (text.strip().splitlines() or ["no word"])[0][:300]


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep the signal handlers that Ray would replace with its own, which end the process without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)
