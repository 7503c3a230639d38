"""Rates: generation against the bare forward, the loader alone, a training step, and the simulation of this machine."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import timm
import torch

from gpu_parts import models
from gpu_parts.check import Check
from slg_wds import SoftCrossEntropy, SoftLabelLoader
from slg_wds.concurrency.cores import cores
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.generation.dry_run.variants import forward_rate
from slg_wds.generation.job import Job
from slg_wds.generation.worker import work

MODES = {
    "graph": {"cuda_graph": "auto"},
    "plain": {"cuda_graph": "off"},
    "compiled": {"cuda_graph": "off", "compile": True},
}
SECONDS = 2.5  # of one measurement


def generation(check: Check) -> None:
    """Measure the bare forward and generation, the most telling settings first."""
    models = ("small",) if check.quick else ("resnet50", "vit_b")
    modes = ("plain",) if check.quick or not check.gpu else tuple(MODES)
    sizes, threads = ((16,), (2,)) if check.quick else ((256, 50), (16, 4))
    for num_seg, mode, model in itertools.product(sizes, modes, models):
        name = f"{model}, {mode}, {num_seg} a forward"
        if check.begins("generation", name):
            measure(check, name, model, num_seg, MODES[mode], threads)


def measure(
    check: Check, name: str, model: str, num_seg: int, options: dict[str, Any], threads: tuple[int, ...]
) -> None:
    images = 8 if check.quick else 48
    job = check.job(
        check.config(model, images, num_crops=20 if check.quick else 500, num_seg=num_seg, **options)
    )
    bare = forward_rate(job.teacher, num_seg, 3 if check.quick else 30)
    found: dict[str, Any] = {"bare": round(bare), "graph": job.teacher.teachers[0].no_graph}
    for count in threads:
        rate = generation_rate(check, job, count, bare)
        found |= {f"{count} threads": round(rate), f"{count} threads / bare": round(rate / bare, 3)}
    check.found("generation", name, found)


def generation_rate(check: Check, job: Job, threads: int, bare: float) -> float:
    """Return the crops per second of the worker loop, from the first labels to the last."""
    each = job.config.num_crops
    few = job.labels.first(max(2, min(len(job.labels), int(bare * SECONDS / each))))
    config = dataclasses.replace(job.config, workers=threads)
    job = dataclasses.replace(job, labels=few, recipe=dataclasses.replace(job.recipe, config=config))
    meter = Meter()
    work(check.saved(job), None, meter)
    return meter.rate()


class Meter(RunObserver):
    """Notes when labels came."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def crops(self, count: int) -> None:
        self.seen.append((time.perf_counter(), count))

    def rate(self) -> float:
        return sum(count for _, count in self.seen[1:]) / (self.seen[-1][0] - self.seen[0][0])


def replay(check: Check) -> None:
    """Measure the loader alone."""
    labels = labels_for_students(check)
    for threads, crops in itertools.product((2,) if check.quick else (16, 4), (1, 4, 8)):
        name = f"{crops} crops an image, {threads} threads"
        if check.begins("replay", name):
            loader = loader_of(check, labels, crops, threads)
            batches, count = endless(loader), 0
            next(batches), next(batches)
            start = time.perf_counter()
            while time.perf_counter() - start < (0.3 if check.quick else SECONDS):
                count += len(next(batches))
            check.wait()
            check.found("replay", name, round(count / (time.perf_counter() - start)))
            batches.close()


def labels_for_students(check: Check) -> Job:
    """Return the job of a set with enough images for epochs of many batches."""
    if check.students is None:
        options = {"num_crops": 16, "num_seg": 256, "samples_per_shard": 64, "workers": cores()}
        check.students = check.saved(check.job(check.config("small", 64 if check.quick else 8192, **options)))
        work(check.students, None, RunObserver())
    return check.students


def loader_of(check: Check, labels: Job, crops: int, threads: int) -> Any:
    return SoftLabelLoader(
        labels.labels.url, labels.config.data, global_batch_size=64 if check.quick else 256, crops_per_image=crops,
        size=32 if check.quick else 224, threads=threads,
    ).to(check.device)  # fmt: skip


def endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def training(check: Check) -> None:
    """Measure a training step with the loader against one on a batch that is there already."""
    labels = labels_for_students(check)
    threads = 2 if check.quick else 16
    step = student(check)
    batches = endless(loader_of(check, labels, 4, threads))
    constant = next(batches)
    for batch in (constant, next(batches), constant):
        step(batch)
    times: dict[str, list[float]] = {"constant": [], "loader": []}
    for _, (name, source) in itertools.product(
        range(1 if check.quick else 3), (("constant", itertools.repeat(constant)), ("loader", batches))
    ):
        check.wait()
        start, steps = time.perf_counter(), 1 if check.quick else 40
        for batch in itertools.islice(source, steps):
            step(batch)
        check.wait()
        times[name].append((time.perf_counter() - start) / steps)
    batches.close()
    best = {name: min(values) for name, values in times.items()}
    check.found("training", "step, ms", {name: round(value * 1e3, 2) for name, value in best.items()})
    check.found("training", "crops/s with the loader", round(len(constant) / best["loader"]))
    check.found("training", "constant / loader", round(best["constant"] / best["loader"], 3))


def student(check: Check) -> Any:
    """Return the training step of a ResNet-50 at bf16, compiled; with --quick of a small network."""
    net = models.small() if check.quick else timm.create_model("resnet50", num_classes=100)
    net = net.to(check.device, memory_format=torch.channels_last).train()
    run = net if check.quick else torch.compile(net)
    criterion, optimizer = SoftCrossEntropy(), torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)

    def step(batch: Any) -> None:
        with torch.autocast(check.device.type, dtype=torch.bfloat16):
            logits = run(batch.images)
        criterion(logits.float(), batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def simulation(check: Check) -> None:
    """Simulate this machine: generation with the rates of its bare forwards, and its loader."""
    simulated_generation(check)
    try:
        simulated_replay(check)
    except ImportError as error:  # of the package that has the photographs of the demo
        check.left_out.append(f"simulation: the loader ({error})")


def simulated_generation(check: Check) -> None:
    from simulate_gpu import Setting
    from simulate_gpu import generation as simulated

    launches = {"graph": "graph", "plain": "eager", "compiled": "compiled"}
    for name, found in list(check.figures.get("generation", {}).items()):
        if not isinstance(found, dict) or not (check.quick or name.startswith("resnet50")):
            continue
        mode, num_seg = name.split(", ")[1], name.split(", ")[2].split()[0]
        if check.begins("simulation", name):
            sizes = {"threads": 2, "images": 4, "crops": 60} if check.quick else {}
            setting = Setting(rate=found["bare"], num_seg=int(num_seg), launch=launches[mode], **sizes)
            result = asdict(simulated(setting, check.new_folder()))
            told = {key: round(result[key], 3) for key in ("of_gpu", "launch_ms", "cpu")}
            check.found("simulation", name, told)


def simulated_replay(check: Check) -> None:
    from simulate_replay import ReplaySetting, lay_out_set
    from simulate_replay import replay as simulated

    folder = check.new_folder()
    lay_out_set(folder, 48 if check.quick else 2048, 12)
    for crops in (1, 4, 8):
        name = f"{crops} crops an image"
        if check.begins("simulation", name):
            setting = ReplaySetting(
                threads=2 if check.quick else 16, crops=crops, batch=32 if check.quick else 256
            )
            check.found("simulation", name, round(simulated(setting, folder).crops_per_second))
