"""Crops per second of the loader alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator
from typing import Any

from gpu_parts.check import Check
from gpu_parts.findings import Findings
from slg_wds import GenerateConfig, SoftLabelLoader, open_labels
from slg_wds.concurrency.cores import cores
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.generation.recipe import Recipe
from slg_wds.generation.setup import open_job
from slg_wds.generation.worker import work

SECONDS = 3.0  # of one measurement
IMAGES = 8192
BATCH = 128  # crops, as in the predictions


def check(findings: Findings) -> None:
    check = Check(findings)
    config = set_for_students(check)
    for threads, crops in itertools.product((2,) if check.quick else (16, 4), (1, 4, 8)):
        name = f"{crops} crops an image, {threads} threads"
        if findings.begins(name, takes=SECONDS + 2):
            with findings.going_on(name):
                rate = rate_of(check, loader_of(check, config, crops, threads, 32 if check.quick else BATCH))
                findings.found(name, round(rate))
                if threads == 16:
                    what = f"{crops} crop{'s' * (crops > 1)} an image"
                    findings.reaches(f"loader, crops/s at {what}", round(rate))


def rate_of(check: Check, loader: Any) -> float:
    """Return the crops per second of a loader over several epochs, as the simulation has it."""
    batches, count = endless(loader), 0
    next(batches), next(batches)
    start = time.perf_counter()
    while time.perf_counter() - start < (0.3 if check.quick else SECONDS):
        count += len(next(batches))
    check.wait()
    seconds = time.perf_counter() - start
    batches.close()
    return count / seconds


def set_for_students(check: Check) -> GenerateConfig:
    """Return the options of a set with enough images for epochs of many batches; make it unless it is there."""
    count = 128 if check.quick else IMAGES
    config = check.config(
        "small", count, num_crops=16, num_seg=256 if not check.quick else 64, samples_per_shard=64, workers=cores(),
        save_path=str(check.findings.folder / "students"),
    )  # fmt: skip
    work(open_job(Recipe.of(config), str(check.device)), None, RunObserver())
    assert len(open_labels(config.save_path, allow_incomplete=True)) == count
    return config


def loader_of(check: Check, config: GenerateConfig, crops: int, threads: int, batch: int) -> Any:
    return SoftLabelLoader(
        config.save_path, config.data, global_batch_size=batch, crops_per_image=crops,
        size=32 if check.quick else 224, threads=threads, allow_incomplete=True,
    ).to(check.device)  # fmt: skip


def endless(loader: Any) -> Generator[Any, None, None]:
    while True:
        yield from loader
