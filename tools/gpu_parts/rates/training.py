"""The step of `slg-wds train`: it never makes the host wait, and the loader keeps up with it."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from gpu_parts.equipment import models
from gpu_parts.equipment.loaders import endless, labels_of, loader_of, set_for_students
from gpu_parts.equipment.setup import Setup
from gpu_parts.supervision.findings import Findings
from slg_wds import SoftCrossEntropy, SoftLabelLoader
from slg_wds.training.flags import parse
from slg_wds.training.step import train_step
from slg_wds.training.student import make_student, set_up

CLASSES = 100  # of the small teacher
CROPS, TIMED = 256, 25  # of a batch whose steps are timed; steps in a go
BAR = "training step, constant batch / loader"
# Flags of the steps in which the host may not wait.
STEPS = {
    "plain": (),
    "mixup": ("--mixup_cutmix", "--mixup_switch_prob", "1"),
    "CutMix": ("--mixup_cutmix", "--mixup_switch_prob", "0"),
    "norm clipped": ("--clip-grad", "1"),
    "values clipped": ("--clip-grad", "0.1", "--clip-mode", "value"),
    "adaptive clipping": ("--clip-grad", "0.02", "--clip-mode", "agc"),
    "averaged weights": ("--ema", "0.999"),
    "in four pieces": ("--grad-accum-steps", "4"),
    "adamw": ("--opt", "adamw", "--filter-bias-and-bn"),
    "fp16": ("--amp", "fp16"),
    "fp16, norm clipped": ("--amp", "fp16", "--clip-grad", "1"),
    "all together": ("--mixup_cutmix", "--clip-grad", "1", "--ema", "0.999", "--grad-accum-steps", "2"),
}


def check(findings: Findings) -> None:
    setup = Setup(findings)
    config = set_for_students(setup)
    loader = loader_of(setup, config, 4, 2 if setup.quick else 8, 64)
    for name, flags in STEPS.items():
        if (setup.gpu or "fp16" not in flags) and findings.begins(f"steps: {name}", takes=3):
            with findings.going_on(f"steps: {name}"):
                steps_without_waits(setup, name, flags, loader)
    if findings.begins("steps: low-rank labels"):
        with findings.going_on("steps: low-rank labels"):
            labels = labels_of(setup, "lowrank", {"label_type": "lowrank"})
            loader = SoftLabelLoader(labels, global_batch_size=64, size=32 if setup.quick else 224, threads=2)
            steps_without_waits(setup, "low-rank labels", STEPS["all together"], loader.to(setup.device))
    loader = loader_of(setup, config, 4, 2 if setup.quick else 16, 64 if setup.quick else CROPS)
    for name, flags, takes in (("plain", (), 15), ("compiled", ("--compile",), 60)):
        if name == "compiled" and setup.quick:
            continue
        if findings.begins(f"{name} training", takes=takes):
            with findings.going_on(f"{name} training"):
                rates(setup, name, flags, loader)


def steps_without_waits(setup: Setup, name: str, flags: Sequence[str], loader: Any) -> None:
    """Take a few steps, then a few in which the host may not wait; the loss is a number."""
    step = step_of(setup, flags, 64, "small" if setup.quick else "resnet18")
    batches = endless(loader)
    try:
        for batch in itertools.islice(batches, 3):
            step(batch)
        with setup.steady():
            for _ in range(4):
                loss = step(next(batches))
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        setup.findings.note_error(f"a step makes the host wait: {name}", error)
        setup.findings.holds(f"no step makes the host wait: {name}", False)
        return
    finally:
        batches.close()
    setup.findings.holds(f"no step makes the host wait: {name}", bool(loss.isfinite()), float(loss))


def step_of(setup: Setup, flags: Sequence[str], crops: int, arch: str) -> Callable[[Any], torch.Tensor]:
    """Return the step of `slg-wds train` at bf16."""
    # Of flags of one name, the last one counts.
    args = parse(["-a", arch, "-b", str(crops), "--amp", "bf16", "--lr", "0.01", *flags])
    args.rank, args.ranks, args.device = 0, 1, setup.device
    torch.backends.cudnn.benchmark = True  # as the command has it without --seed
    model, preprocessing = make_student(args, CLASSES, {}) if arch != "small" else (models.small(), None)
    training = set_up(args, model, preprocessing)
    training.net.train()
    criterion: nn.Module = SoftCrossEntropy()

    def step(batch: Any) -> torch.Tensor:
        loss = train_step(args, training, criterion, batch)
        training.progress.step += 1
        return loss

    return step


def rates(setup: Setup, name: str, flags: Sequence[str], loader: Any) -> None:
    """Time steps with the loader and on a constant batch, in turns."""
    crops = 64 if setup.quick else CROPS
    step = step_of(setup, flags, crops, "small" if setup.quick else "resnet50")
    batches = endless(loader)
    constant = next(batches)
    start = time.perf_counter()
    for batch in (constant, next(batches), constant):
        step(batch)
    setup.wait()
    setup.findings.found(f"{name}: seconds of the first steps", round(time.perf_counter() - start, 1))
    sources = {"constant": itertools.repeat(constant), "loader": batches}
    times: dict[str, list[float]] = {kind: [] for kind in sources}
    for number in range(2 if setup.quick else 4):
        for kind in sorted(sources, reverse=bool(number % 2)):
            times[kind].append(seconds_of_a_step(setup, step, sources[kind]))
    batches.close()
    median = {kind: statistics.median(values) for kind, values in times.items()}
    ratio = round(median["constant"] / median["loader"], 4)
    setup.findings.found(
        f"{name}: ms of a step", {kind: [round(t * 1e3, 2) for t in times[kind]] for kind in times}
    )
    setup.findings.found(f"{name}: crops/s with the loader", round(crops / median["loader"]))
    setup.findings.found(f"{name}: constant / loader", ratio)
    if not setup.quick:
        setup.findings.reaches(BAR, ratio)


def seconds_of_a_step(setup: Setup, step: Callable[[Any], torch.Tensor], source: Iterator[Any]) -> float:
    setup.wait()
    count = 1 if setup.quick else TIMED
    start = time.perf_counter()
    for batch in itertools.islice(source, count):
        step(batch)
    setup.wait()
    return (time.perf_counter() - start) / count
