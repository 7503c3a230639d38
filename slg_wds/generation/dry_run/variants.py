"""How long a run would take at other precisions: the forward alone is timed for each, for `--dry-run` on a GPU."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slg_wds.console import duration
from slg_wds.errors import SlgWdsError

if TYPE_CHECKING:
    from slg_wds.generation.job import Job
    from slg_wds.teachers import Ensemble

VARIANTS = (("fp32", False), ("bf16", False), ("bf16", True))  # (precision, compiled)
FORWARDS = 8  # timed, after two that warm up


def timed_variants(
    job: Job, crops: int, variants: Sequence[tuple[str, bool]] = VARIANTS, forwards: int = FORWARDS
) -> list[str]:
    """Load the job's teachers once for each variant, time their forward, and say what the whole run would take.

    Args:
        job: the run; its teachers stay loaded.
        crops: number of crops of the run.
        variants: (precision, whether to compile) of each variant.
        forwards: how many to time.

    Returns:
        One line for each variant, after a title. A variant that fails is named with its error.
    """
    lines = ["  the forward alone, by --precision and --compile:"]
    for precision, compile in variants:
        name = f"{precision} compiled" if compile else precision
        try:
            rate = _rate(job, precision, compile, forwards)
        except SlgWdsError as error:
            lines.append(f"    {name}: not possible, {error.message}")
        else:
            lines.append(f"    {name}: about {duration(crops / rate)} ({rate:,.1f} crops/s)")
    return lines


def _rate(job: Job, precision: str, compile: bool, forwards: int) -> float:
    from slg_wds.generation.setup import load_teachers

    given: dict[str, Any] = {"precision": precision, "compile": compile}
    config = dataclasses.replace(job.config, **given)
    teacher = load_teachers(config, job.source.classes, job.num_seg, str(job.teacher.device))
    return forward_rate(teacher, job.num_seg, forwards)


def forward_rate(teacher: Ensemble, rows: int, forwards: int) -> float:
    """Return the crops per second of the teachers alone, with their input on the device already.

    Args:
        teacher: the teachers.
        rows: crops in one forward.
        forwards: how many to time, after two that warm up.
    """
    import torch

    shapes = [(rows, size, size, 3) for size, _ in teacher.inputs]
    # Drawn by the CPU: where the recording of a CUDA graph has failed, some versions of torch draw nothing on the GPU.
    inputs = [
        torch.randint(0, 256, shape, dtype=torch.uint8).permute(0, 3, 1, 2).to(teacher.device)
        for shape in shapes
    ]
    start = 0.0
    for number in range(2 + forwards):
        if number == 2:
            _wait(teacher)
            start = time.perf_counter()
        teacher.answers(inputs)
    _wait(teacher)
    return forwards * rows / (time.perf_counter() - start)


def _wait(teacher: Ensemble) -> None:
    import torch

    if teacher.device.type == "cuda":
        torch.cuda.synchronize(teacher.device)
