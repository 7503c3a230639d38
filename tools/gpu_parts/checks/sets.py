"""Bytes of label sets: the same in every run, and those of a loop that waits after each step."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

import slg_wds
from gpu_parts.equipment.setup import Setup, delays, shards
from gpu_parts.supervision.findings import Findings
from slg_wds.banks import Bank, DenseLayer, encode_bank
from slg_wds.concurrency.threads import threads_beside_forwards
from slg_wds.generation.batching import Buffers, CropBatch, full_batches
from slg_wds.generation.decoding import prepared_images
from slg_wds.generation.inference import Forward
from slg_wds.generation.job import Job
from slg_wds.labels import tail_sums, topk

POISON = 0xA5
VIEWS = {"aa": "rand-m9-mstd0.5-inc1", "reprob": 0.25, "mixup": 0.8, "cutmix": 1.0}
OTHERS: dict[str, dict[str, Any]] = {
    "views": VIEWS,
    "full": {"label_type": "full"},
    "lowrank": {"label_type": "lowrank"},
    "embeddings": {"output": "embedding"},
    "prototypes": {"output": "prototypes", "label_type": "shared_tail_k5"},
}


def check(findings: Findings) -> None:
    setup = Setup(findings)
    with findings.going_on("labels of a synchronous loop"):
        for slow in (None, "copies", "kernels") if setup.gpu else (None,):
            labels_equal_a_synchronous_loop(setup, slow)
    with findings.going_on("the same bytes"):
        same_bytes(setup)
    for name, options in OTHERS.items():
        if findings.begins(f"the same bytes: {name}", takes=6):
            with findings.going_on(name):
                same_bytes_of(setup, name, options)
    for name in ("classes", "prototypes"):
        if findings.begins(f"labels of the GPU and of the CPU: {name}"):
            with findings.going_on(f"labels of the GPU and of the CPU: {name}"):
                near_those_of_the_cpu(setup, name, OTHERS.get(name, {}))


def usual(setup: Setup) -> dict[str, Any]:
    """Return the options of the sets that are compared."""
    if setup.quick:
        return {"model": "small", "images": 8, "num_crops": 6, "num_seg": 16, "samples_per_shard": 4}
    return {"model": "resnet50", "images": 16, "num_crops": 100, "samples_per_shard": 8}


def same_bytes(setup: Setup) -> None:
    """Make one set again and again: alone, with little free memory, and by two processes."""
    config, findings = setup.config(**usual(setup)), setup.findings
    job = setup.job(config)
    first, second = (bytes_of(setup.made(job)) for _ in range(2))
    findings.holds("two runs make the same bytes", first == second)
    if setup.gpu and findings.begins("without a CUDA graph", takes=6):
        plain = bytes_of(setup.made(setup.job(dataclasses.replace(config, cuda_graph="off"))))
        findings.holds("without a CUDA graph the bytes are the same", plain == first)
    if setup.gpu and findings.begins("nearly full memory", takes=8):
        with findings.going_on("nearly full memory"), full_memory(setup):
            again = bytes_of(setup.made(setup.job(config)))
            findings.holds("nearly full memory changes no byte", again == first)
    if not setup.quick and findings.begins("two processes on one device", takes=25):
        number = setup.device.index or 0
        devices = f"{number},{number}" if setup.gpu else "cpu:2"
        slg_wds.generate(dataclasses.replace(config, devices=devices))
        findings.holds("two processes make the same bytes", shards(Path(config.save_path)) == first)


def same_bytes_of(setup: Setup, name: str, options: dict[str, Any]) -> None:
    """Make a set of another kind twice, with a small network."""
    given = {"num_crops": 8, "num_seg": 64, "samples_per_shard": 8, **with_bank(setup, options)}
    job = setup.job(setup.config(model_of(options), 16, **given))
    first, second = (bytes_of(setup.made(job)) for _ in range(2))
    setup.findings.holds(f"two runs make the same bytes: {name}", first == second and len(first) == 2)


def bytes_of(job: Job) -> dict[str, bytes]:
    return shards(Path(job.labels.url))


def near_those_of_the_cpu(setup: Setup, name: str, options: dict[str, Any]) -> None:
    """The same boxes and flips, and nearly the same distributions at fp32, though the caller allows TF32 for itself."""
    given = {"precision": "fp32", "label_type": "full", "values": "float32", "num_crops": 8, "num_seg": 64}
    config = setup.config(model_of(options), 16, **{**with_bank(setup, options), **given})
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    try:
        there, here = (setup.made(setup.job(config, device)) for device in (str(setup.device), "cpu"))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    worst = 0.0
    for one, other in zip(there.labels, here.labels, strict=True):
        same = np.array_equal(one.crops, other.crops) and np.array_equal(one.flips, other.flips)
        distance = np.abs(one.distribution() - other.distribution()).sum(1).max() / 2 if same else 1.0
        worst = max(worst, float(distance))
    what = f"labels of the GPU are near the CPU's, of the same boxes: {name}"
    setup.findings.holds(what, worst < 1e-4, worst)


def model_of(options: dict[str, Any]) -> str:
    return "small_tower" if "output" in options else "small"


def with_bank(setup: Setup, options: dict[str, Any]) -> dict[str, Any]:
    """Return options with the file of a bank of random prototypes, where they need one."""
    if options.get("output") != "prototypes":
        return options
    rows = np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)
    bank = Bank(
        DenseLayer(rows / np.linalg.norm(rows, axis=1, keepdims=True), None), unit=True, temperature=0.1
    )
    path = setup.findings.folder / "bank.safetensors"
    path.write_bytes(encode_bank(bank))
    return {**options, "bank": str(path)}


@contextlib.contextmanager
def full_memory(setup: Setup, left: float = 8e9) -> Iterator[None]:
    """Fill the device's memory up to `left` bytes."""
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(setup.device)
    filling = [torch.empty(max(0, int(free - left)), dtype=torch.uint8, device=setup.device)]
    try:
        yield
    finally:
        filling.clear()
        torch.cuda.empty_cache()


def labels_equal_a_synchronous_loop(setup: Setup, slow: str | None) -> None:
    """Label with delays on a stream, and with buffers that are overwritten when they are given back."""
    name = f"labels are those of a synchronous loop, delayed: {slow or 'nothing'}"
    if not setup.findings.begins(name, takes=8):
        return
    options = {**usual(setup), "samples_per_shard": usual(setup)["images"]}
    job = setup.job(setup.config(**options))
    expected = list(labels_of(setup, job, synchronous))
    with delays(slow):
        found = list(labels_of(setup, job, overlapping))
    same = len(expected) == len(found) and all(
        np.array_equal(a, b)
        for one, other in zip(expected, found, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    setup.findings.holds(name, same and len(found) > 2)


Labels = tuple[np.ndarray, np.ndarray, np.ndarray]


def labels_of(setup: Setup, job: Job, label: Callable[..., Iterator[Labels]]) -> Iterator[Labels]:
    buffers = Poisoned(job.teacher.inputs, job.num_seg, pinned=setup.gpu)
    with threads_beside_forwards(2, 1) as pool:
        yield from label(setup, job, batches_of(job, buffers, pool), buffers)


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


def synchronous(setup: Setup, job: Job, batches: Iterator[CropBatch], buffers: Buffers) -> Iterator[Labels]:
    """Label one batch after the other, waiting for the device after each step."""
    for batch in batches:
        with torch.inference_mode():
            inputs = [tensor.to(setup.device) for tensor in batch.inputs]
            setup.wait()
            probs = job.teacher.probabilities(inputs)[: batch.filled]
            setup.wait()
            index, value = topk(probs, 5)
            sums = tail_sums(probs, index, [(span.start, span.start + span.count) for span in batch.spans])
            setup.wait()
            yield index.cpu().numpy(), value.cpu().numpy(), sums.cpu().numpy()


def overlapping(setup: Setup, job: Job, batches: Iterator[CropBatch], buffers: Buffers) -> Iterator[Labels]:
    """Label as `generate` does; while a batch is launched, nothing may wait."""
    forward = Forward(job.teacher, job.recipe.label, True, setup.device, buffers)
    launch = forward._launch

    def watched(batch: CropBatch) -> Any:
        with setup.steady():
            return launch(batch)

    forward._launch = watched  # type: ignore[method-assign]
    for labelled in forward.label_all(batches):
        assert labelled.index is not None and labelled.tail_sums is not None
        yield labelled.index, labelled.value, labelled.tail_sums
