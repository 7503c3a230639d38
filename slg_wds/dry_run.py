"""`slg-wds generate --dry-run`: what a run would do, from a few measured forwards."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from slg_wds.config import GenerateConfig
from slg_wds.preparing import prepare_run
from slg_wds.progress import duration
from slg_wds.threads import threads_beside_forwards

if TYPE_CHECKING:
    from slg_wds.labelling.forward import Labelled

FORWARDS = 8  # measured, after one that warms up
TAR_BYTES = 512


def dry_run(config: GenerateConfig) -> list[str]:
    """Say in lines how many images, shards, bytes and hours a run would take; nothing is written.

    Labels the first images in memory: enough of them for eight forwards, at least one image.
    """
    from slg_wds.labelling.batches import Buffers, full_batches
    from slg_wds.labelling.forward import Forward
    from slg_wds.labelling.prepare import prepared_images
    from slg_wds.labelling.shards import finished_shards

    job = prepare_run(config).job(create=False)
    plan, recipe = job.labels.plan, job.recipe
    total = plan.num_samples
    wanted = max(1, -(-FORWARDS * recipe.num_seg // recipe.num_crops))
    job.labels = job.labels.first(wanted)
    buffers = Buffers(job.teacher.inputs, recipe.num_seg, pinned=job.device.type == "cuda")
    forward = Forward(job.teacher, recipe.label, recipe.writes_tail, job.device, buffers)
    times: list[float] = []
    with threads_beside_forwards(job.workers, job.threads_per_forward) as pool:
        images = prepared_images(job, [0], pool)
        labelled = forward.label_all(full_batches(images, buffers, pool))
        (shard,) = finished_shards(job, _timed(labelled, times), pool)
        encoded = [sample.result() for sample in shard.samples]
    sizes = [
        sum(TAR_BYTES + -(-len(data) // TAR_BYTES) * TAR_BYTES for data in e.fields.values()) for e in encoded
    ]
    per_image = float(np.mean(sizes)) if sizes else 0.0
    steps = np.diff(times)
    seconds = float(np.median(steps)) if len(steps) else 0.0
    forwards = -(-total * recipe.num_crops // recipe.num_seg)
    return [
        f"would label {total:,} images in {plan.num_shards:,} shards, {recipe.num_crops} crops each: "
        f"{total * recipe.num_crops:,} crops in about {forwards:,} forwards of {recipe.num_seg}",
        f"  {job.teacher.name} on {job.teacher.device_name}, {job.teacher.num_classes} classes, {recipe.label}",
        f"  about {per_image * total / 1e9:,.3f} GB ({per_image / recipe.num_crops:.2f} bytes/crop measured)",
        f"  about {duration(seconds * forwards)} on this device "
        f"({recipe.num_seg / seconds if seconds else 0:,.1f} crops/s measured over {len(steps)} forwards)",
    ]


def _timed(labelled: Iterable[Labelled], times: list[float]) -> Iterator[Labelled]:
    for batch in labelled:
        times.append(time.perf_counter())
        yield batch
