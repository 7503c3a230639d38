"""Crops per second of the loader alone."""

from __future__ import annotations

import itertools
import time
from typing import Any

from gpu_parts.equipment.loaders import endless, loader_of, set_for_students
from gpu_parts.equipment.setup import Setup
from gpu_parts.supervision.findings import Findings

SECONDS = 3.0  # of one measurement
BATCH = 128  # crops, as in the predictions
THREADS = [(16, 0), (4, 0), (16, 2)]  # and in how many processes beside the trainer's; 0: in its own
QUICK = [(2, 0)]


def check(findings: Findings) -> None:
    setup = Setup(findings)
    config = set_for_students(setup)
    for (threads, processes), crops in itertools.product(QUICK if setup.quick else THREADS, (1, 4, 8)):
        name = f"{crops} crops an image, {threads} threads" + f" in {processes} processes" * bool(processes)
        if findings.begins(name, takes=SECONDS + 2):
            with findings.going_on(name):
                size = 32 if setup.quick else BATCH
                rate = rate_of(setup, loader_of(setup, config, crops, threads, size, processes))
                findings.found(name, round(rate))
                if (threads, processes) == (16, 0):
                    what = f"{crops} crop{'s' * (crops > 1)} an image"
                    findings.reaches(f"loader, crops/s at {what}", round(rate))


def rate_of(setup: Setup, loader: Any) -> float:
    """Return the crops per second of a loader over several epochs, as the simulation has it."""
    batches, count = endless(loader), 0
    next(batches), next(batches)
    start = time.perf_counter()
    while time.perf_counter() - start < (0.3 if setup.quick else SECONDS):
        count += len(next(batches))
    setup.wait()
    seconds = time.perf_counter() - start
    batches.close()
    return count / seconds
