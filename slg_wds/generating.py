"""`slg-wds generate`: from options to the run of a crew, and the summary."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slg_wds.claims import finish, launched_rank
from slg_wds.config import GenerateConfig
from slg_wds.console import tell
from slg_wds.cores import cores
from slg_wds.engines.crew import Crew
from slg_wds.labelset import LabelSet, open_labels
from slg_wds.launch import ALONE, Rank
from slg_wds.preparing import crops_each, opening, prepare_run
from slg_wds.progress import Finished, Progress, duration, summary
from slg_wds.tally import Start, Watcher

if TYPE_CHECKING:
    from slg_wds.labelling.shards import LabelTally


@dataclass(frozen=True)
class GenerateResult:
    """What one run of `generate` did, and the set as it is now.

    Attributes:
        labels: the label set.
        run: what was made and given up, and whether every shard exists.
    """

    labels: LabelSet
    run: Finished

    @property
    def complete(self) -> bool:
        """Whether every shard exists."""
        return self.run.complete

    @property
    def tally(self) -> LabelTally:
        """Images, crops, bytes, shards and label statistics of what this run made."""
        return self.run.tally  # type: ignore[no-any-return]

    @property
    def crops_per_second(self) -> float:
        """Crops labelled by this run a second."""
        return float(self.tally.crops / self.run.seconds) if self.run.seconds else 0.0


@dataclass(frozen=True)
class GenerateTask:
    """What every worker of a run is told; picklable, so it names everything and holds nothing loaded.

    devices: of each worker. launched: the rank of the process that starts them, None without.
    """

    config: GenerateConfig
    devices: tuple[str, ...]
    launched: Rank | None

    def __call__(self, worker: int, workers: int, watcher: Watcher) -> None:
        """Open all that the options name, begin or join the set, and make shards until none is missing."""
        from slg_wds.format.shard import load_writer
        from slg_wds.images.pixels import torchvision_decoders
        from slg_wds.labelling.work import work

        load_writer()
        torchvision_decoders()  # loads them: seconds that are not of the first shard
        device = self.devices[worker]
        _use(device)
        prepared = prepare_run(self.config, device)
        job = prepared.job(create=True)
        missing = job.labels.missing()
        crops = int(job.labels.plan.shard_sizes[missing].sum()) * crops_each(self.config, prepared.reference)
        start = Start(job.labels.digest, len(missing), crops, opening(prepared, job.labels.plan))
        watcher.begin(start)
        work(job, (self.launched or ALONE).within(worker, workers), watcher)


def _use(device: str) -> None:
    """Make a GPU the current one, or pinned memory would take some of the first GPU's for every process."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.set_device(device)


def generate(config: GenerateConfig) -> GenerateResult:
    """Make the label set that the config asks for, or finish or join one begun before.

    In a script, with more than one device, call it under `if __name__ == "__main__":`.

    Raises SlgWdsError; whatever was committed before stays, and the same call resumes.
    """
    result = run(config)
    result.run.check(result.labels)
    return result


def run(config: GenerateConfig) -> GenerateResult:
    """As `generate`, but shards that were given up are told in the result alone."""
    from slg_wds.labelling.shards import LabelTally

    config.check()
    launched = launched_rank() if config.engine == "local" else None
    with Progress(LabelTally(), (launched or ALONE).world_size) as progress:
        if config.engine == "ray":
            from slg_wds.engines.ray import run_ray
            from slg_wds.engines.sharing import Wish

            wish = Wish(config.actors, config.threads_per_forward, config.gpus_per_actor)
            given_up = run_ray(lambda crew: _task(config, crew, None), wish, config.address, progress)
        else:
            from slg_wds.engines.devices import local_crew
            from slg_wds.engines.processes import run_local

            crew = local_crew(config.devices, config.gpu, _visible_gpus(), cores())
            given_up = run_local(_task(config, crew, launched), crew, progress)
        seconds = progress.seconds
    labels = open_labels(config.save_path, allow_incomplete=True, store_options=config.store_options)
    complete = not given_up and finish(labels, launched)
    return GenerateResult(labels, Finished(progress.total, given_up, complete, seconds))


def _visible_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _task(config: GenerateConfig, crew: Crew, launched: Rank | None) -> GenerateTask:
    settled = dataclasses.replace(
        config,
        threads_per_forward=config.threads_per_forward or crew.cores,
        workers=config.workers or crew.cores,
    )
    return GenerateTask(settled, crew.devices, launched)


def main(config: GenerateConfig) -> int:
    """The body of the command: evaluate, dry run, or generate, with a summary on stdout."""
    config.check()
    if config.evaluate:
        from slg_wds.config import EvaluateConfig
        from slg_wds.evaluating import main as evaluate_main

        shared = {
            field.name: getattr(config, field.name)
            for field in dataclasses.fields(EvaluateConfig)
            if hasattr(config, field.name)
        }
        return evaluate_main(EvaluateConfig(**shared))
    if config.dry_run:
        from slg_wds.dry_run import dry_run

        tell(*dry_run(config))
        return 0
    result = run(config)
    tell(*told(result))
    result.run.check(result.labels)
    return 0


def told(result: GenerateResult) -> list[str]:
    """What was made, in lines for people."""
    tally = result.tally
    lines = []
    if tally.crops:
        meant = tally.targeted and result.labels.targets_are_classes
        agreed = tally.agreed / tally.targeted if meant else None
        lines = [
            f"  {result.crops_per_second:,.1f} crops/s over {duration(result.run.seconds)}",
            f"  mean top-1 confidence {tally.top1 / tally.crops:.3f}, mean tail mass {tally.tail / tally.crops:.3f}"
            + ("" if agreed is None else f", top-1 agrees with the target on {agreed:.1%}"),
        ]
    return summary(result.labels, result.run, "", lines)
