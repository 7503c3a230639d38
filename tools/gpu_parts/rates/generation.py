"""Crops per second of generation, against those of the bare forward."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np
import torch

from gpu_parts.equipment.setup import Setup, apart
from gpu_parts.supervision.findings import Findings
from slg_wds.concurrency.memory import keep_freed_memory
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.generation.dry_run.variants import forward_rate
from slg_wds.generation.job import Job
from slg_wds.generation.worker import work
from slg_wds.labelset.labelset import LabelSet
from slg_wds.teachers.forwards.functions import plain_forward

MODES: dict[str, dict[str, Any]] = {
    "graph": {"cuda_graph": "auto"},
    "plain": {"cuda_graph": "off"},
    "compiled and graph": {"cuda_graph": "auto", "compile": True},
    "compiled": {"cuda_graph": "off", "compile": True},
}
# Seconds of a setting, at the beginning of a fresh machine.
TAKES = {"graph": 16.0, "plain": 14.0, "compiled and graph": 55.0, "compiled": 25.0}
SECONDS = 4.0  # of one measurement


class Setting(NamedTuple):
    """What is measured in one go.

    Attributes:
        model: of models.py.
        mode: of MODES.
        num_seg: crops of a forward.
        threads: that cut.
        crops: of an image.
    """

    model: str
    mode: str
    num_seg: int = 256
    threads: tuple[int, ...] = (16,)
    crops: int = 500

    def __str__(self) -> str:
        return f"{self.model}, {self.mode}, {self.num_seg} a forward, {self.crops} crops an image"


USUAL = (
    Setting("resnet50", "graph"),
    Setting("vit_b", "graph"),
    Setting("resnet50", "plain"),
    Setting("resnet50", "compiled and graph"),
    Setting("vit_b", "compiled and graph"),
    Setting("resnet50", "compiled"),
)
OTHER = (
    Setting("resnet50", "graph", 256, (4,)),
    Setting("resnet50", "graph", 256, (16,), 32),
    Setting("resnet50", "graph", 256, (16,), 4),
    Setting("resnet50", "graph", 50, (16, 4)),
    Setting("resnet50", "plain", 50, (16, 4)),
    Setting("vit_b", "plain"),
    Setting("resnet50", "compiled", 50, (16, 4)),
    Setting("vit_b", "graph", 50),
    Setting("vit_b", "compiled", 50),
)
QUICK = (Setting("small", "plain", 16, (2,), 20),)


def usual_settings(findings: Findings) -> None:
    """Those that have bars, and the plain forward beside them."""
    measure_all(findings, USUAL)


def other_settings(findings: Findings) -> None:
    """Those that tell where the limits lie."""
    measure_all(findings, OTHER)


def measure_all(findings: Findings, settings: tuple[Setting, ...]) -> None:
    keep_freed_memory()
    setup, best = Setup(findings), dict.fromkeys(("resnet50", "vit_b"), 0.0)
    for setting in QUICK if setup.quick else settings:
        if not setup.gpu and setting.mode != "plain":
            continue
        if findings.begins(str(setting), takes=TAKES[setting.mode]):
            with findings.going_on(str(setting)):
                share = measure(setup, setting)
                if settings is USUAL and setting.model in best and setting.mode != "plain":
                    best[setting.model] = max(best[setting.model], share)
                    findings.reaches(f"generation / bare forward, {setting.model}", best[setting.model])


def measure(setup: Setup, setting: Setting) -> float:
    """Measure the bare forward before and after, and generation in between. Return the best share of the forward."""
    config = setup.config(
        setting.model, 8 if setup.quick else 4096 if setting.crops < 100 else 128,
        num_crops=setting.crops, num_seg=setting.num_seg, **MODES[setting.mode],
    )  # fmt: skip
    start = time.perf_counter()
    job = setup.job(config)
    (teacher,) = job.teacher.teachers
    found: dict[str, Any] = {
        "seconds to load": round(time.perf_counter() - start, 1),
        "graph": teacher.no_graph,
    }
    bare = bare_rate(setup, job)
    rates = {threads: generation_rate(setup, job, threads, bare) for threads in setting.threads}
    after = bare_rate(setup, job)
    mean, found["bare"] = (bare + after) / 2, [round(bare), round(after)]
    for threads, rate in rates.items():
        found |= {f"{threads} threads": round(rate), f"{threads} threads / bare": round(rate / mean, 4)}
    if "compiled" in setting.mode:
        found["compiled: distance of logits from the plain ones"] = distance_from_plain(setup, job)
    if setup.gpu:
        found["GPU memory, at most"] = torch.cuda.max_memory_reserved(setup.device)
    setup.findings.found(str(setting), found)
    return round(max(rates.values()) / mean, 4)


def bare_rate(setup: Setup, job: Job) -> float:
    """Return the crops per second of the forward alone."""
    few = 3 if setup.quick else 10
    rate = forward_rate(job.teacher, job.num_seg, few)
    return (
        rate
        if setup.quick
        else forward_rate(job.teacher, job.num_seg, max(few, int(rate / job.num_seg * 1.5)))
    )


def generation_rate(setup: Setup, job: Job, threads: int, bare: float) -> float:
    """Return the crops per second of the worker loop, from the first labels to the last."""
    most = min(bare, 4000.0) if job.config.num_crops < 100 else bare
    images = int(most * SECONDS / job.config.num_crops)
    few = first_images(job.labels, max(2, min(len(job.labels), images)))
    config = dataclasses.replace(job.config, workers=threads)
    job = dataclasses.replace(job, labels=few, recipe=dataclasses.replace(job.recipe, config=config))
    meter = Meter()
    work(setup.saved(job), None, meter)
    return meter.rate()


def first_images(labels: LabelSet, count: int) -> LabelSet:
    """Return a set that is planned for some of the images alone."""
    plan = labels.plan
    columns = (StringColumn.of(column[:count]) for column in (plan.paths, plan.keys))
    few = Plan(plan.shard_names[:1], np.array([count]), *columns, plan.targets[:count])
    return LabelSet.unsaved(few, labels.identity)


class Meter(RunObserver):
    """Notes when labels came."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def crops(self, count: int) -> None:
        self.seen.append((time.perf_counter(), count))

    def rate(self) -> float:
        return sum(count for _, count in self.seen[1:]) / (self.seen[-1][0] - self.seen[0][0])


def distance_from_plain(setup: Setup, job: Job) -> float:
    (teacher,) = job.teacher.teachers
    side = teacher.preprocessing.input_size
    shape = (job.num_seg, side, side, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=setup.device).permute(0, 3, 1, 2)
    run = plain_forward(teacher.module, teacher.preprocessing, teacher.device, teacher.precision)
    with torch.inference_mode():
        return apart(teacher.logits(images), run(images))
