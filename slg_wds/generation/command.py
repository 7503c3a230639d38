"""`slg-wds generate`: from options to the run of a pool, and the summary."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slg_wds.concurrency.cores import cores
from slg_wds.concurrency.rank import ALONE, Rank
from slg_wds.config import EvaluateConfig, GenerateConfig
from slg_wds.console import duration, tell
from slg_wds.engines.claims import finish, launched_rank
from slg_wds.engines.progress import RunProgress
from slg_wds.engines.run_stats import RunObserver, RunStarted
from slg_wds.engines.summary import RunFinished, summary
from slg_wds.engines.workers import WorkerPool
from slg_wds.generation.setup import crops_each, opening, prepare_run
from slg_wds.labelset.labelset import LabelSet, open_labels

if TYPE_CHECKING:
    from slg_wds.generation.collation import LabelStats
    from slg_wds.generation.dry_run import DryRun
    from slg_wds.teachers import Accuracy


@dataclass(frozen=True)
class GenerateResult:
    """What one run of `generate` did, and the set as it is now.

    Attributes:
        labels: the label set.
        run: what was made and given up, and whether every shard exists.
    """

    labels: LabelSet
    run: RunFinished

    @property
    def complete(self) -> bool:
        """Whether every shard exists."""
        return self.run.complete

    @property
    def stats(self) -> LabelStats:
        """Images, crops, bytes, shards and label statistics of what this run made."""
        return self.run.stats  # type: ignore[no-any-return]

    @property
    def crops_per_second(self) -> float:
        """Crops labelled by this run a second."""
        return float(self.stats.crops / self.run.seconds) if self.run.seconds else 0.0


@dataclass(frozen=True)
class GenerateTask:
    """What every worker of a run is told; picklable, so it names everything and holds nothing loaded.

    devices: of each worker. launched: the rank of the process that starts them, None without.
    """

    config: GenerateConfig
    devices: tuple[str, ...]
    launched: Rank | None

    def __call__(self, worker: int, workers: int, observer: RunObserver) -> None:
        """Open all that the options name, begin or join the set, and make shards until none is missing."""
        from slg_wds.format.shards.shard import load_writer
        from slg_wds.images.pixels import torchvision_decoders
        from slg_wds.teachers.backends import current_device

        load_writer()
        torchvision_decoders()  # loads them: seconds that are not of the first shard
        with current_device(self.devices[worker]):
            self._work(worker, workers, observer)

    def _work(self, worker: int, workers: int, observer: RunObserver) -> None:
        from slg_wds.generation.worker import work

        device = self.devices[worker]
        prepared = prepare_run(self.config, device)
        job = prepared.job(create=True)
        missing = job.labels.missing()
        said = opening(prepared, job.labels.plan)
        observer.begin(RunStarted.of(job.labels, missing, crops_each(self.config, prepared.reference), said))
        work(job, (self.launched or ALONE).within(worker, workers), observer)


def generate(config: GenerateConfig) -> GenerateResult | DryRun | Accuracy:
    """Make the label set that the config asks for, or finish or join one begun before.

    As on the command line, nothing is made with `evaluate`, which gives the teacher's accuracy, nor with `dry_run`,
    which gives what would be done.

    In a script, with more than one device, call it under `if __name__ == "__main__":`.

    Raises SlgWdsError; whatever was committed before stays, and the same call resumes.
    """
    result = run(config)
    if isinstance(result, GenerateResult):
        result.run.check(result.labels)
    return result


def run(config: GenerateConfig) -> GenerateResult | DryRun | Accuracy:
    """As `generate`, but shards that were given up are told in the result alone."""
    config.check()
    if not (config.evaluate or config.dry_run):
        return _label(config)
    pool = _local_pool(config)
    if config.evaluate:
        from slg_wds.generation.evaluation import evaluate

        return evaluate(_evaluation(config), pool.devices[0] if config.devices else None)
    from slg_wds.generation.dry_run import dry_run

    return dry_run(_settled(config, pool), pool.devices[0])


def _evaluation(config: GenerateConfig) -> EvaluateConfig:
    names = [field.name for field in dataclasses.fields(EvaluateConfig) if hasattr(config, field.name)]
    return EvaluateConfig(**{name: getattr(config, name) for name in names})


def _label(config: GenerateConfig) -> GenerateResult:
    from slg_wds.generation.collation import LabelStats

    launched = launched_rank() if config.engine == "local" else None
    with RunProgress(LabelStats(), (launched or ALONE).world_size) as progress:
        if config.engine == "ray":
            from slg_wds.engines.ray import run_ray
            from slg_wds.engines.resources import ActorRequest

            request = ActorRequest(config.actors, config.threads_per_forward, config.gpus_per_actor)
            given_up = run_ray(lambda pool: _task(config, pool, None), request, config.address, progress)
        else:
            from slg_wds.engines.local import run_local

            pool = _local_pool(config)
            given_up = run_local(_task(config, pool, launched), pool, progress)
        seconds = progress.seconds
    labels = open_labels(config.save_path, allow_incomplete=True, store_options=config.store_options)
    complete = not given_up and finish(labels, launched)
    return GenerateResult(labels, RunFinished(progress.total, given_up, complete, seconds))


def _local_pool(config: GenerateConfig) -> WorkerPool:
    import torch

    from slg_wds.engines.devices import local_pool

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return local_pool(config.devices, config.gpu, gpus, cores())


def _task(config: GenerateConfig, pool: WorkerPool, launched: Rank | None) -> GenerateTask:
    return GenerateTask(_settled(config, pool), pool.devices, launched)


def _settled(config: GenerateConfig, pool: WorkerPool) -> GenerateConfig:
    """The config with its share of the cores, where it does not say how many."""
    return dataclasses.replace(
        config,
        threads_per_forward=config.threads_per_forward or pool.cores,
        workers=config.workers or pool.cores,
    )


def main(config: GenerateConfig) -> int:
    """The body of the command: evaluate, dry run, or generate, with a summary on stdout."""
    result = run(config)
    if isinstance(result, GenerateResult):
        tell(*told(result))
        result.run.check(result.labels)
        return 0
    from slg_wds.generation.dry_run import DryRun
    from slg_wds.generation.evaluation import figures

    tell(*(result.said if isinstance(result, DryRun) else [figures(config, result)]))
    return 0


def told(result: GenerateResult) -> list[str]:
    """What was made, in lines for people."""
    stats = result.stats
    lines = []
    if stats.crops:
        meant = stats.targeted and result.labels.targets_are_classes
        agreed = stats.agreed / stats.targeted if meant else None
        lines = [
            f"  {result.crops_per_second:,.1f} crops/s over {duration(result.run.seconds)}",
            f"  mean top-1 confidence {stats.top1 / stats.crops:.3f}, mean tail mass {stats.tail / stats.crops:.3f}"
            + ("" if agreed is None else f", top-1 agrees with the target on {agreed:.1%}"),
        ]
    return summary(result.labels, result.run, "", lines)
