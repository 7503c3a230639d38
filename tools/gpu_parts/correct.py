"""Checks that need a GPU: equal bytes, equal bits, no memory used too early, no wait of the host."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import slg_wds
from gpu_parts import models
from gpu_parts.check import Check
from slg_wds.concurrency.copy_stream import CopyStream
from slg_wds.concurrency.threads import threads_beside_forwards
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.generation.batching import Buffers, CropBatch, full_batches
from slg_wds.generation.decoding import prepared_images
from slg_wds.generation.inference import Forward
from slg_wds.generation.job import Job
from slg_wds.generation.setup import load_teachers
from slg_wds.generation.worker import work
from slg_wds.labels import tail_sums, topk
from slg_wds.training.flags import parse
from slg_wds.training.step import train_step
from slg_wds.training.student import set_up

CYCLES = 20_000_000  # of a delay: about 10 ms
POISON = 0xA5
RULES = {
    "shared_tail_k5": ("shared_tail_k5", "marginal_smoothing_k4", "marginal_renorm_k2", "smoothing", "hard"),
    "full": ("full", "marginal_smoothing_k5", "hard"),
    "hard": ("hard",),
    "lowrank": ("lowrank", "marginal_smoothing_k5", "hard"),
}


def check(check: Check) -> None:
    same_bytes(check)
    for model, precision in [("small", "bf16")] if check.quick else MODELS:
        graph_equals_plain(check, model, precision)
    for slow in (None, "copies", "kernels") if check.gpu else (None,):
        labels_equal_a_synchronous_loop(check, slow)
    for label_type, rules in RULES.items():
        batches_equal_those_of_the_cpu(check, label_type, rules)
    for label_type, amp in (
        (("shared_tail_k5", "fp16"), ("lowrank", "bf16")) if check.gpu else (("lowrank", "bf16"),)
    ):
        training_steps_wait_for_nothing(check, label_type, amp)


MODELS = (("resnet50", "bf16"), ("resnet50", "fp32"), ("vit_b", "bf16"))


def usual(check: Check) -> dict[str, Any]:
    """Return the options of the sets that are compared."""
    if check.quick:
        return {"model": "small", "images": 8, "num_crops": 6, "num_seg": 16, "samples_per_shard": 4}
    return {"model": "resnet50", "images": 16, "num_crops": 100, "samples_per_shard": 8}


def same_bytes(check: Check) -> None:
    """Make one set again and again: alone, by two processes, and with little free memory."""
    config = check.config(**usual(check))
    job = check.job(config)
    first, second = made(check, job), made(check, job)
    check.holds("two runs make the same bytes", first == second)
    if check.gpu:
        with full_memory(check):
            check.holds("nearly full memory changes no byte", made(check, check.job(config)) == first)
    if not check.quick and check.begins("correct", "two processes on one device"):
        devices = f"{check.device.index or 0},{check.device.index or 0}" if check.gpu else "cpu:2"
        slg_wds.generate(dataclasses.replace(config, devices=devices))
        check.holds("two processes make the same bytes", shards(Path(config.save_path)) == first)


def made(check: Check, job: Job) -> dict[str, bytes]:
    job = check.saved(job)
    work(job, None, RunObserver())
    return shards(Path(job.labels.url))


def shards(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each shard of a set."""
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


@contextlib.contextmanager
def full_memory(check: Check, left: float = 6e9) -> Iterator[None]:
    """Fill the device's memory up to `left` bytes."""
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(check.device)
    filling = torch.empty(max(0, int(free - left)), dtype=torch.uint8, device=check.device)
    yield
    del filling
    torch.cuda.empty_cache()


def graph_equals_plain(check: Check, model: str, precision: str) -> None:
    """Compare a CUDA graph with the plain forward on random crops, bit for bit."""
    name = f"the graph of {model} at {precision} gives the plain forward's bits"
    if not check.gpu or not check.begins("correct", name):
        return
    rows = 256
    config = check.config(model, 8, precision=precision, cuda_graph="off")
    (teacher,) = load_teachers(config, None, rows, str(check.device)).teachers
    side = teacher.preprocessing.input_size
    crops = [
        torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, device=check.device) for _ in range(3)
    ]
    plain = [teacher.logits(batch) for batch in crops]
    teacher.use_graph(rows)
    check.found("correct", f"{model} at {precision}: weights cast once", teacher.weights_cast)
    check.found("correct", f"{model} at {precision}: graph", teacher.no_graph or "made")
    check.holds(
        name, all(torch.equal(teacher.logits(batch), one) for batch, one in zip(crops, plain, strict=True))
    )


def labels_equal_a_synchronous_loop(check: Check, slow: str | None) -> None:
    """Label with delays on a stream, and with buffers that are overwritten when they are given back."""
    name = f"labels are those of a synchronous loop, delayed: {slow or 'nothing'}"
    options = {**usual(check), "samples_per_shard": usual(check)["images"]}
    job = check.job(check.config(**options))
    expected = list(labels_of(check, job, synchronous))
    with delays(slow):
        found = list(labels_of(check, job, overlapping))
    same = len(expected) == len(found) and all(
        np.array_equal(a, b)
        for one, other in zip(expected, found, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    check.holds(name, same and len(found) > 2)


Labels = tuple[np.ndarray, np.ndarray, np.ndarray]


def labels_of(check: Check, job: Job, label: Callable[..., Iterator[Labels]]) -> Iterator[Labels]:
    buffers = Poisoned(job.teacher.inputs, job.num_seg, pinned=check.gpu)
    with threads_beside_forwards(2, 1) as pool:
        yield from label(check, job, batches_of(job, buffers, pool), buffers)


def batches_of(job: Job, buffers: Buffers, pool: ThreadPoolExecutor) -> Iterator[CropBatch]:
    for batch in full_batches(prepared_images(job, [0], pool), buffers, pool, ahead=0):
        if batch.spans:  # the end of the shard may come in a batch without crops
            yield batch


class Poisoned(Buffers):
    """Buffers that are overwritten when they are given back."""

    def give_back(self, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            tensor.fill_(POISON)
        super().give_back(tensors)


def synchronous(check: Check, job: Job, batches: Iterator[CropBatch], buffers: Buffers) -> Iterator[Labels]:
    """Label one batch after the other, waiting for the device after each step."""
    for batch in batches:
        with torch.inference_mode():
            inputs = [tensor.to(check.device) for tensor in batch.inputs]
            check.wait()
            probs = job.teacher.probabilities(inputs)[: batch.filled]
            check.wait()
            index, value = topk(probs, 5)
            sums = tail_sums(probs, index, [(span.start, span.start + span.count) for span in batch.spans])
            check.wait()
            yield index.cpu().numpy(), value.cpu().numpy(), sums.cpu().numpy()


def overlapping(check: Check, job: Job, batches: Iterator[CropBatch], buffers: Buffers) -> Iterator[Labels]:
    """Label as `generate` does; while a batch is launched, nothing may wait."""
    forward = Forward(job.teacher, job.recipe.label, True, check.device, buffers)
    launch = forward._launch

    def watched(batch: CropBatch) -> Any:
        with no_waits(check):
            return launch(batch)

    forward._launch = watched  # type: ignore[method-assign]
    for labelled in forward.label_all(batches):
        assert labelled.index is not None and labelled.tail_sums is not None
        yield labelled.index, labelled.value, labelled.tail_sums


@contextlib.contextmanager
def no_waits(check: Check) -> Iterator[None]:
    """Raise an error where the host waits for the device."""
    if not check.gpu:
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextlib.contextmanager
def delays(slow: str | None) -> Iterator[None]:
    """Delay the copies to the device, or its kernels."""
    from slg_wds.teachers import Ensemble

    begin, probabilities = CopyStream.begin, Ensemble.probabilities

    def late_copy(copies: CopyStream, copy: Any) -> Any:
        with torch.cuda.stream(copies._stream):
            torch.cuda._sleep(CYCLES)
        return begin(copies, copy)

    def late_kernels(ensemble: Ensemble, batches: Any) -> Any:
        torch.cuda._sleep(CYCLES)
        return probabilities(ensemble, batches)

    with contextlib.ExitStack() as stack:
        if slow == "copies":
            stack.enter_context(mock.patch.object(CopyStream, "begin", late_copy))
        if slow == "kernels":
            stack.enter_context(mock.patch.object(Ensemble, "probabilities", late_kernels))
        yield


def batches_equal_those_of_the_cpu(check: Check, label_type: str, rules: tuple[str, ...]) -> None:
    """Compare a loader's batches on the device with those on the CPU, for every rule of recovery."""
    job = check.saved(
        check.job(
            check.config("small", 32, label_type=label_type, num_crops=8, num_seg=64, samples_per_shard=8)
        )
    )
    work(job, None, RunObserver())
    for rule in rules:
        name = f"batches on the device are those on the CPU: {rule} of {label_type}"
        if not check.begins("correct", name):
            return
        options = {"global_batch_size": 32, "crops_per_image": 4, "rule": rule, "threads": 2}
        loaders = [
            slg_wds.SoftLabelLoader(job.labels.url, str(check.images(32)), **options) for _ in range(2)
        ]
        on_device, on_cpu = loaders[0].to(check.device), loaders[1].to("cpu")
        same = [equal(*pair) for pair in zip(watched(check, on_device), on_cpu, strict=True)]
        check.holds(name, all(same) and len(same) == len(loaders[0]))


STEP = ("--mixup_cutmix", "--clip-grad", "1", "--grad-accum-steps", "2", "--ema", "0.9")


def training_steps_wait_for_nothing(check: Check, label_type: str, amp: str) -> None:
    """Train with all that a step may do; from the second step on nothing may wait."""
    name = f"a training step waits for nothing: {label_type} at {amp}"
    if not check.begins("correct", name):
        return
    options = {"label_type": label_type, "num_crops": 8, "num_seg": 64, "samples_per_shard": 8}
    job = check.saved(check.job(check.config("small", 32, **options)))
    work(job, None, RunObserver())
    args = parse([*STEP, "--amp", amp])
    args.rank, args.ranks, args.device = 0, 1, check.device
    preprocessing = job.teacher.teachers[0].preprocessing
    training = set_up(args, models.small().train(), preprocessing)
    loader = slg_wds.SoftLabelLoader(job.labels.url, str(check.images(32)), global_batch_size=32, threads=2)
    losses = []
    for batch in watched(check, loader.to(check.device)):
        with no_waits(check) if losses else contextlib.nullcontext():
            losses.append(train_step(args, training, slg_wds.SoftCrossEntropy(), batch))
        training.progress.step += 1
    check.holds(name, len(losses) > 2 and all(torch.isfinite(loss).item() for loss in losses))


def watched(check: Check, loader: Any) -> Iterator[Any]:
    """Yield a loader's batches, with an error if handing one over waits for the device."""
    batches = iter(loader)
    for number in itertools.count():
        with no_waits(check) if number else contextlib.nullcontext():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def equal(one: Any, other: Any) -> bool:
    """Return whether two batches have the same bits."""
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return one.key == other.key and all(torch.equal(a.cpu(), b) for a, b in pairs)
