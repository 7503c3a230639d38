"""`slg-wds generate --dry-run`: predict from a few measured forwards what a run would do."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from slg_wds.config import GenerateConfig
from slg_wds.console import counted, data_size, duration
from slg_wds.engines.reports.summary import bytes_a_crop, listed
from slg_wds.generation.dry_run.sizes import PredictedSizes, predict_sizes
from slg_wds.generation.dry_run.variants import timed_variants
from slg_wds.generation.recipe import Recipe
from slg_wds.generation.setup import open_job

if TYPE_CHECKING:
    from slg_wds.format.shards.shard import EncodedSample
    from slg_wds.generation.inference import Labelled
    from slg_wds.generation.job import Job

FORWARDS = 8  # at least, where there are enough images; the first one warms up


@dataclass(frozen=True)
class DryRun:
    """What a run would do. Shards that the set has already are no part of it.

    Attributes:
        images: images to label.
        shards: shards to make.
        crops: crops to label.
        forwards: forwards that they take.
        bytes: predicted size of the shards to make.
        seconds: predicted time on one device like the one that was measured; 0 as of the rate.
        crops_per_second: measured rate; 0 where there were too few crops to measure it.
        summary: lines that tell a person all this, and describe the teacher.
    """

    images: int
    shards: int
    crops: int
    forwards: int
    bytes: int
    seconds: float
    crops_per_second: float
    summary: list[str] = field(repr=False)


def dry_run(config: GenerateConfig, device: str | None = None) -> DryRun:
    """Predict the images, shards, bytes and hours of a run. Nothing is written.

    The first images to label are labelled in memory, by the code of a run: enough of them for eight forwards, at least
    one image. On a GPU the forward is also timed at other precisions.

    Args:
        config: the options of the run.
        device: where to measure, such as "cuda:0"; None for the GPU of the options, else this process's own device.

    Raises:
        SlgWdsError: images or teachers cannot be loaded, an image cannot be labelled, or a run would be refused since
            there is something else at its --save-path.
    """
    from slg_wds.teachers.faults import hint_if_full
    from slg_wds.teachers.forwards.backends import current_device

    with current_device(device or "cpu"), hint_if_full(config.IF_MEMORY_IS_FULL):
        job = open_job(Recipe.of(config), device, save=False)
        missing = job.labels.missing()
        if not missing:
            every = job.labels.num_shards
            done = f"nothing is left to label: {every:,} of {counted(every, 'shard')} are there"
            return DryRun(0, 0, 0, 0, 0, 0.0, 0.0, [done])
        samples, steps, left_out = _measured(job, missing[0])
        found = _predicted(job, missing, predict_sizes(job, samples, missing), steps)
        return dataclasses.replace(found, summary=[*found.summary, *left_out])


def _measured(job: Job, number: int) -> tuple[list[EncodedSample], list[float], list[str]]:
    """Label a few images of shard `number` as a run does.

    Returns:
        Their samples; the seconds of each forward but the first; lines about the images that are left out.
    """
    from slg_wds.generation.collation import finished_shards
    from slg_wds.generation.worker import labelled_batches, labelling_threads

    alone = 2 if job.mixes else 1  # a lone image stays unmixed
    few = job.labels.first(max(alone, -(-FORWARDS * job.num_seg // job.crops_each)), number)
    job = dataclasses.replace(job, labels=few)
    times: list[float] = []
    with labelling_threads(job) as pool:
        (shard,) = finished_shards(job, _timed(labelled_batches(job, [number], pool), times), pool)
        encoded = [sample.result() for sample in shard.samples]
    paths = job.labels.plan.paths
    reasons = [f"{paths[one.number]}: {one.reason}" for one in shard.left_out]
    title = f"LEFT OUT among the {counted(len(few.plan.shard(number)), 'image')} that were measured"
    return encoded, [float(step) for step in np.diff(times)], listed(title, reasons)


def _predicted(job: Job, missing: Sequence[int], sizes: PredictedSizes, steps: list[float]) -> DryRun:
    """Predict a run over the missing shards, if all images and forwards are like the measured ones."""
    plan, each = job.labels.plan, job.config.num_crops
    keys = list(itertools.chain.from_iterable(plan.shard(number).keys for number in missing))
    images, shards = len(keys), len(missing)
    there = job.extension.count_labelled(keys) if job.extension else 0
    crops = images * each - there * (each - job.crops_each)
    forwards = -(-crops // job.num_seg)
    seconds = float(np.median(steps)) if steps else 0.0
    rate = job.num_seg / seconds if seconds else 0.0
    summary = [
        f"would label {counted(images, 'image')} in {counted(shards, 'shard')}{_made(plan.num_shards, shards)}, "
        f"{_crops_each(job, images, there)} each: "
        f"{counted(crops, 'crop')} in about {counted(forwards, 'forward')} of {job.num_seg}",
        f"  {job.teacher.name} on {job.teacher.device_name}, {_answers(job)}",
        f"  about {data_size(sizes.shards)} ({bytes_a_crop(sizes.shards, sizes.images, crops)} measured on "
        f"{counted(sizes.samples, 'image')})",
        f"  about {duration(seconds * forwards)} on this device "
        f"({rate:,.1f} crops/s measured over {counted(len(steps), 'forward')})"
        if steps
        else f"  too few crops to measure how long it takes: that needs two forwards of {job.num_seg}",
    ]
    if job.teacher.device.type == "cuda":
        summary += timed_variants(job, crops)
    return DryRun(images, shards, crops, forwards, sizes.shards, seconds * forwards, rate, summary)


def _made(planned: int, missing: int) -> str:
    """Say how many shards are there already; nothing where there are none."""
    return f" ({planned - missing:,} of {planned:,} are there)" if missing < planned else ""


def _crops_each(job: Job, images: int, there: int) -> str:
    """Say how many crops of an image are labelled, where the set to extend has `there` of the images to label."""
    new = f"{job.config.num_crops} or " if 0 < there < images else ""
    return new + counted(job.crops_each if there else job.config.num_crops, "crop")


def _answers(job: Job) -> str:
    """Describe what the set would hold of each crop."""
    if job.labels.holds_embeddings:
        return ", ".join(
            f"{one['name']}: {one['dim']} numbers" for one in job.labels.identity.embeddings or []
        )
    return f"{counted(job.teacher.num_classes, 'class', 'classes')}, {job.recipe.label}"


def _timed(labelled: Iterable[Labelled], times: list[float]) -> Iterator[Labelled]:
    for batch in labelled:
        if batch.batch.filled:  # the end of a shard may come without crops, and takes no forward
            times.append(time.perf_counter())
        yield batch
