"""The Ray engine: a pool of actors on a cluster, which this process starts and watches.

The only module that imports Ray.
"""

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
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.engines.workers.pool import ENDS, Message, Reporter, Task, WorkerPool, perform
from slg_wds.engines.workers.resources import ActorRequest, ActorResources, actor_resources, no_room
from slg_wds.engines.workers.supervisor import GRACE_SECONDS, Supervisor
from slg_wds.errors import MissingDependencyError, SlgWdsError, UsageError

GATHER_SECONDS = 0.1  # messages of one actor within this time are sent together
ROOM_SECONDS = 30.0  # for an autoscaling cluster to show a node that has what an actor asks for
REMIND_SECONDS = 30.0  # between two reminders that no actor could be placed yet
ANSWER_SECONDS = 40.0  # for the head of a cluster to answer
_PASSED_ON = ("AWS_", "GOOGLE_", "AZURE_")  # environment variables that actors get


def run_ray(
    task_of: Callable[[WorkerPool], Task], request: ActorRequest, address: str | None, observer: RunObserver
) -> dict[str, str]:
    """Run a task in actors until no shard is missing.

    An actor that has no room yet joins when there is room. An actor that dies, or whose node is lost, is replaced.
    Shards and labels go to the store alone; this process receives only progress.

    Args:
        task_of: makes the task, once it is known how many actors there are and what each has.
        request: the resources to ask for.
        address: of the cluster; None: RAY_ADDRESS if it is set, else a new cluster on this machine, which
            ends with the run.
        observer: receives the progress.

    Returns:
        The names of the shards that were given up, each with how the last attempt ended.

    Raises:
        MissingDependencyError: Ray is not installed.
        UsageError: no node has what one actor asks for.
        SlgWdsError: the cluster does not answer; or the first SlgWdsError of any actor.
    """
    with connected(address) as ray:
        resources = _wait_for_resources(ray, request, ROOM_SECONDS if address is not None else 0.0)
        device = "cuda:0" if resources.gpus else "cpu"  # Ray shows an actor only its own GPUs
        pool = WorkerPool((device,) * resources.count, resources.cores)
        run = _RayRun(ray, task_of(pool), resources, observer)
        try:
            return run.finish()
        finally:
            run.close()


class _Worker:
    """The actor: a process that runs the task in a thread and passes on its messages."""

    def __init__(self, folder: str, environment: Mapping[str, str]) -> None:
        with contextlib.suppress(OSError):
            os.chdir(folder)  # relative paths mean the same as where the run was started
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        self._avoided: set[str] = set()

    def run(
        self, task: Task, worker: int, workers: int, retry_alone: Sequence[str], given_up: Sequence[str]
    ) -> Iterator[list[Message]]:
        """Run the task; yield its messages, several at a time."""
        messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        reporter = Reporter(messages.put, retry_alone, given_up)
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
        """Do not make this shard: the run has given it up."""
        self._avoided.add(name)


class _RayRun:
    def __init__(self, ray: Any, task: Task, resources: ActorResources, observer: RunObserver) -> None:
        self._ray = ray
        self._task = self._ray.put(task)
        self._resources = resources
        self._observer = observer
        self._supervisor = Supervisor(resources.count, observer, self._avoid)
        self._actors: dict[int, Any] = {}
        self._streams: dict[Any, int] = {}  # stream of messages -> number of its worker

    def finish(self) -> dict[str, str]:
        for worker in range(self._resources.count):
            self._start(worker, ())
        end: float | None = None
        reminded = time.monotonic()
        while self._streams and (end is None or time.monotonic() < end):
            ready, _ = self._ray.wait(list(self._streams), num_returns=1, timeout=0.5)
            for stream in ready:
                self._hear(stream)
            if self._supervisor.finished and end is None:
                end = time.monotonic() + GRACE_SECONDS
            if not ready and time.monotonic() > reminded + REMIND_SECONDS and not self._any_started():
                reminded = time.monotonic()
                self._observer.say("no actor has been placed yet: the cluster is busy; interrupt to give up")
        return self._supervisor.given_up

    def close(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)

    def _any_started(self) -> bool:
        return any(slot.started for slot in self._supervisor.slots)

    def _avoid(self, name: str) -> None:
        for actor in self._actors.values():
            actor.avoid.remote(name)

    def _start(self, worker: int, retry_alone: Sequence[str]) -> None:
        kind = self._ray.remote(_Worker)
        environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        # Two calls at once: `avoid` beside `run`. Ray does not restart actors, since the next one has to be told which
        # shards were in flight.
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
            how, blame = _how_ended(error)
        else:
            for message in batch:
                self._supervisor.hear(worker, message)
            return
        del self._streams[stream]
        self._ray.kill(self._actors.pop(worker))
        if not self._supervisor.slots[worker].done and not self._supervisor.finished:
            retry_alone = self._supervisor.ended(worker, how, blame)
            if retry_alone is not None:
                self._start(worker, retry_alone)


def _how_ended(error: Exception) -> tuple[str, bool]:
    """Return how an actor ended, in a few words, and whether its shards may be the cause: not if its node was lost."""
    text = " ".join(str(error).split())
    if "node has died" in text or "node died" in text.lower():
        return "its node was lost", False
    for mark in ("SYSTEM_ERROR", "OOM", "out of memory"):
        if mark in text:
            return f"its process died ({mark})", True
    if "connection error code" in text:
        return "its process was killed", True
    return f"{type(error).__name__}: {text[:200]}", True


def _wait_for_resources(ray: Any, request: ActorRequest, seconds: float) -> ActorResources:
    """Return what each actor gets. Raises UsageError if no node has that within the time given."""
    end = time.monotonic() + seconds
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        resources = actor_resources(nodes, request)
        if resources.count:
            return resources
        if time.monotonic() >= end:
            raise UsageError(
                no_room(nodes, resources),
                hint="add such a node to the cluster, or ask for less: --threads-per-forward, --gpus-per-actor",
            )
        time.sleep(1.0)


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Connect to a Ray cluster and yield the `ray` module; disconnect at the end.

    If the caller's program is connected already, that connection is used and left open.

    Args:
        address: of the cluster; None: RAY_ADDRESS if it is set, else a new cluster on this machine, which
            ends with the block.

    Raises:
        MissingDependencyError: Ray is not installed.
        UsageError: an address of Ray Client.
        SlgWdsError: the cluster does not answer.
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
        # Such as a full disk: what ended the run is worth more as an error.
        with contextlib.suppress(OSError):
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    if "://" in address:
        raise UsageError(
            f"--address {address}: Ray Client cannot stream progress",
            hint="give auto or host:port on a machine of the cluster, or submit the command with `ray job submit`",
        )
    if address == "local":
        # Ray starts actors at a niceness of 15, so that a busy cluster's own processes come first. On one machine every
        # other program would come first; the local engine does not wait for those either.
        os.environ.setdefault("RAY_worker_niceness", "0")
    else:
        _check_answer(address)
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SlgWdsError(f"no Ray cluster at {address}: {_first_line(str(error))}", hint=_ADDRESS) from None


def _check_answer(address: str) -> None:
    """Raise SlgWdsError if no cluster answers. Another process asks, since ray.init may wait for ever."""
    code = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='error')"
    command = [sys.executable, "-c", code, address]
    try:
        found = subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, text=True)
    except subprocess.TimeoutExpired:
        raise SlgWdsError(
            f"the Ray cluster at {address} does not answer within {ANSWER_SECONDS:.0f} s", hint=_ADDRESS
        ) from None
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["no message"])[-1]
        raise SlgWdsError(f"no Ray cluster at {address}: {_first_line(last)}", hint=_ADDRESS)


_ADDRESS = (
    "check --address; `ray start --head` starts a cluster; without --address one starts for this run alone"
)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[0][:300]


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Restore the signal handlers that Ray replaces: Ray's handlers end the process without a message.

    A SIGTERM that comes in the block, while Ray's handler is in place, is handed to the handler from before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except SystemExit as end:
        ours = kept[signal.SIGTERM]
        if end.code == signal.SIGTERM and callable(ours):
            ours(signal.SIGTERM, None)
        raise
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
