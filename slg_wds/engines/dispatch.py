"""Work of CPUs alone, on whichever engine the options name."""

from __future__ import annotations

from collections.abc import Callable

from slg_wds.concurrency.cores import cores
from slg_wds.config import EngineConfig
from slg_wds.engines.local import run_local
from slg_wds.engines.run_stats import RunObserver
from slg_wds.engines.workers import Task, WorkerPool


def run_on_cpus(
    task: Task, config: EngineConfig, processes: int, most: int, observer: RunObserver
) -> dict[str, str]:
    """Let one-threaded workers make shards until none is missing; return those given up, and how each failed.

    processes: of the local engine, 0 for one a core. most: workers that are of use. Raises SlgWdsError.
    """
    if config.engine == "ray":
        from slg_wds.engines.ray import run_ray
        from slg_wds.engines.resources import ActorRequest

        constant: Callable[[WorkerPool], Task] = lambda pool: task  # noqa: E731
        return run_ray(constant, ActorRequest(config.actors, 1, 0, most), config.address, observer)
    count = max(1, min(processes or cores(), most))
    return run_local(task, WorkerPool(("cpu",) * count, 1), observer)
