"""`slg-wds generate`: from options to the run of a worker pool, and the summary."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slg_wds.concurrency.cores import cores
from slg_wds.concurrency.rank import ALONE, Rank
from slg_wds.config import EvaluateConfig, GenerateConfig
from slg_wds.console import counted, duration, tell
from slg_wds.engines.commands import RunResult, print_summary, run_to_the_end
from slg_wds.engines.reports.run_stats import RunObserver, RunStarted
from slg_wds.engines.workers.pool import WorkerPool
from slg_wds.generation.recipe import Recipe
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.opening import labels_at

if TYPE_CHECKING:
    from slg_wds.generation.collation import LabelStats
    from slg_wds.generation.dry_run import DryRun
    from slg_wds.teachers import Accuracy


@dataclass(frozen=True)
class GenerateResult(RunResult):
    """What one run of `generate` did, and the label set as it is now.

    Attributes:
        extended: the label set that this one extends; None without --extend.
    """

    extended: LabelSet | None = None

    @property
    def stats(self) -> LabelStats:
        """Images, crops, bytes, shards and label statistics of what this run made."""
        return self.run.stats  # type: ignore[no-any-return]

    def _extended(self) -> list[str]:
        old = self.extended
        if old is None:
            return []
        return [*(["SET_THAT_IT_EXTENDS"] if old.identity.extends else []), old.url]

    def _about_work(self) -> list[str]:
        stats, identity = self.stats, self.labels.identity
        rate = f"  {self.crops_per_second:,.1f} crops/s over {duration(self.run.seconds)}"
        if stats.unmixed:
            rate += f"; {counted(stats.unmixed, 'crop')} not mixed, since the images to mix in are left out"
        if self.labels.holds_embeddings:
            return [rate]
        labels = f"mean top-1 confidence {stats.top1 / stats.crops:.3f}"
        if identity.k not in (None, identity.num_classes):  # else every class is stored
            labels += f", mean tail mass {stats.tail / stats.crops:.3f}"
        if stats.targeted and self.labels.targets_are_classes:
            labels += f", top-1 agrees with the target on {stats.agreed / stats.targeted:.1%}"
        return [rate, f"  {labels}"]


@dataclass(frozen=True)
class GenerateTask:
    """The work of every worker of a run. Picklable: it names everything and holds nothing that is open or loaded.

    Attributes:
        recipe: the options of the run.
        devices: the device of each worker.
        launched: the rank that a launcher gave the process that starts the workers; None without a launcher.
    """

    recipe: Recipe
    devices: tuple[str, ...]
    launched: Rank | None

    def __call__(self, worker: int, workers: int, observer: RunObserver) -> None:
        """Open everything, begin or join the label set, and make shards until none is missing."""
        from slg_wds.format.shards.shard import load_writer
        from slg_wds.images.pixels import torchvision_decoders
        from slg_wds.teachers.faults import hint_if_full
        from slg_wds.teachers.forwards.backends import current_device

        # Loaded here, so that the clock of the first shard does not count the seconds that they take to import.
        load_writer()
        torchvision_decoders()
        hint = self.recipe.config.IF_MEMORY_IS_FULL
        with current_device(self.devices[worker]), hint_if_full(hint):
            self._work(worker, workers, observer)

    def _work(self, worker: int, workers: int, observer: RunObserver) -> None:
        from slg_wds.generation.other_code import warnings_of_code
        from slg_wds.generation.setup import open_job, opening_lines
        from slg_wds.generation.worker import work

        job = open_job(self.recipe, self.devices[worker])
        missing = job.labels.missing()
        notes = [*opening_lines(job), *warnings_of_code(job, missing)]
        observer.begin(RunStarted.of(job.labels, missing, job.crops_each, notes))
        work(job, (self.launched or ALONE).within(worker, workers), observer)


def generate(config: GenerateConfig) -> GenerateResult | DryRun | Accuracy:
    """Make a label set, or finish or join one that was begun before.

    With `evaluate` or `dry_run` nothing is written. In a script that uses more than one device, call this under
    `if __name__ == "__main__":`, since the workers are new processes that import the script.

    Args:
        config: the options, as on the command line.

    Returns:
        The set and what this run made; with `evaluate` the teacher's accuracy, with `dry_run` what a run would do.

    Raises:
        SlgWdsError: the run stopped. Shards that were committed stay, and the same call resumes.
    """
    result = run(config)
    if isinstance(result, GenerateResult):
        result.check()
    return result


def run(config: GenerateConfig) -> GenerateResult | DryRun | Accuracy:
    """Do the same as `generate`, but return a result with missing shards instead of raising an error for it."""
    config.check()
    if not (config.evaluate or config.dry_run):
        return _label(config)
    pool = _local_pool(config)
    if config.evaluate:
        from slg_wds.generation.evaluation import evaluate

        return evaluate(_evaluation(config), pool.devices[0] if config.devices else None)
    from slg_wds.generation.dry_run import dry_run

    return dry_run(_with_cores(config, pool), pool.devices[0])


def _evaluation(config: GenerateConfig) -> EvaluateConfig:
    names = [field.name for field in dataclasses.fields(EvaluateConfig) if hasattr(config, field.name)]
    return EvaluateConfig(**{name: getattr(config, name) for name in names})


def _label(config: GenerateConfig) -> GenerateResult:
    from slg_wds.generation.collation import LabelStats

    def run_workers(launched: Rank | None, observer: RunObserver) -> dict[str, str]:
        if config.engine == "ray":
            from slg_wds.engines.ray import run_ray
            from slg_wds.engines.workers.resources import ActorRequest

            request = ActorRequest(config.actors, config.threads_per_forward, config.gpus_per_actor)
            return run_ray(lambda pool: _task(config, pool, None), request, config.address, observer)
        from slg_wds.engines.local import run_local

        pool = _local_pool(config)
        return run_local(_task(config, pool, launched), pool, observer)

    def open_set() -> LabelSet:
        return labels_at(config.at(config.save_path), allow_incomplete=True, embeddings=True)

    labels, finished = run_to_the_end(run_workers, LabelStats(), config, open_set)
    old = labels_at(config.at(config.extend), embeddings=True) if config.extend else None
    return GenerateResult(labels, finished, old)


def _local_pool(config: GenerateConfig) -> WorkerPool:
    import torch

    from slg_wds.engines.devices import local_pool

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return local_pool(config.devices, config.gpu, gpus, cores())


def _task(config: GenerateConfig, pool: WorkerPool, launched: Rank | None) -> GenerateTask:
    return GenerateTask(Recipe.of(_with_cores(config, pool)), pool.devices, launched)


def _with_cores(config: GenerateConfig, pool: WorkerPool) -> GenerateConfig:
    """Fill in the numbers of threads that the options leave open: each worker's share of the cores."""
    return dataclasses.replace(
        config,
        threads_per_forward=config.threads_per_forward or pool.cores,
        workers=config.workers or pool.cores,
    )


def main(config: GenerateConfig) -> int:
    """Run the command: label, evaluate or only predict, and print the result to stdout."""
    result = run(config)
    if isinstance(result, GenerateResult):
        return print_summary(result)
    from slg_wds.generation.dry_run import DryRun
    from slg_wds.generation.evaluation import figures

    tell(*(result.summary if isinstance(result, DryRun) else [figures(config, result)]))
    return 0
