"""Run a task that needs only CPUs on the engine that the options name."""

from __future__ import annotations

from slg_wds.concurrency.cores import cores
from slg_wds.config import EngineConfig
from slg_wds.engines.local import run_local
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.engines.workers.pool import Task, WorkerPool


def run_on_cpus(
    task: Task, config: EngineConfig, processes: int, most: int, observer: RunObserver
) -> dict[str, str]:
    """Run the task in workers of one thread each until no shard is missing.

    Args:
        task: what each worker does.
        config: names the engine.
        processes: number of processes of the local engine; 0 for one per core.
        most: the largest number of workers that have work; 0 runs nothing.
        observer: receives the progress.

    Returns:
        The names of the shards that were given up, each with how the last attempt ended.

    Raises:
        SlgWdsError: as `run_local` and `run_ray`.
    """
    if not most:
        return {}
    if config.engine == "ray":
        from slg_wds.engines.ray import run_ray
        from slg_wds.engines.workers.resources import ActorRequest

        request = ActorRequest(config.actors, threads=1, gpus=0, most=most)
        return run_ray(lambda pool: task, request, config.address, observer)
    count = max(1, min(processes or cores(), most))
    return run_local(task, WorkerPool(("cpu",) * count, cores=1), observer)
