"""What the loader hands over on the device: the CPU's batches, bit for bit, and no wait of the host."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch

import slg_wds
from gpu_parts.equipment.loaders import labels_of
from gpu_parts.equipment.setup import Setup, apart, delays
from gpu_parts.supervision.findings import Findings
from slg_wds import EmbeddingLoss, SoftCrossEntropy
from slg_wds.replay.batch import Batch

VIEWS = {"aa": "rand-m9-mstd0.5-inc1", "reprob": 0.25}
# By the kind of set: what it is made with, and by which rules it is read.
KINDS: dict[str, tuple[dict[str, Any], tuple[str | None, ...]]] = {
    "tail": ({}, ("shared_tail_k5", "marginal_smoothing_k4", "marginal_renorm_k2", "smoothing", "hard")),
    "full": ({"label_type": "full"}, ("full", "marginal_smoothing_k5", "hard")),
    "hard": ({"label_type": "hard"}, ("hard",)),
    "lowrank": ({"label_type": "lowrank"}, ("lowrank", "marginal_smoothing_k5", "hard")),
    "views": (VIEWS, ("shared_tail_k5",)),
    "mixed views": ({**VIEWS, "mixup": 0.8, "cutmix": 1.0}, ("shared_tail_k5",)),
    "embeddings": ({"output": "embedding"}, (None,)),
}
NEAR = 1e-5  # sums of floats have another order on a GPU


def check(findings: Findings) -> None:
    setup, made = Setup(findings), {}
    for kind, (options, rules) in KINDS.items():
        if not findings.begins(kind):
            continue
        with findings.going_on(kind):
            made[kind] = labels_of(setup, kind, options)
            for rule in rules:
                compare(setup, f"{kind}, {rule or 'as stored'}", made[kind], rule=rule)
    if "tail" in made and findings.begins("several sets, other temperatures, late copies"):
        with findings.going_on("several sets, other temperatures, late copies"):
            others(setup, made)


def others(setup: Setup, made: dict[str, str]) -> None:
    """Sets that are averaged, labels at another temperature, a last batch that is padded, and a late copy stream."""
    tail = made["tail"]
    compare(setup, "two sets", [tail, tail], weights=[0.3, 0.7])
    compare(setup, "at temperature 3", tail, temperature=3.0)
    compare(setup, "padded", tail, last="pad", global_batch_size=28)
    compare(setup, "normalised to bf16", tail, dtype=torch.bfloat16)
    compare(setup, "of another process", tail, processes=1)
    if setup.gpu:
        with delays("copies"):
            compare(setup, "with late copies", tail)


def compare(setup: Setup, name: str, labels: Any, dtype: torch.dtype | None = None, **options: Any) -> None:
    """Walk two loaders, one of each device, and compare batches and losses."""
    given = {"global_batch_size": 32, "crops_per_image": 4, "threads": 2, **options}
    loader, plain = (slg_wds.SoftLabelLoader(labels, **given) for _ in range(2))
    loader.wait_for_processes()
    there, here = loader.to(setup.device, dtype=dtype), plain.to("cpu", dtype=dtype)
    same, worst, count = True, 0.0, 0
    for one, other in zip(watched(setup, there), here, strict=True):
        same, count = same and equal(one, other), count + 1
        worst = max(
            worst, *(apart(*pair) for pair in zip(losses(setup, one), losses(None, other), strict=True))
        )
    setup.findings.holds(f"{name}: the CPU's batches", same and count == len(there))
    setup.findings.holds(f"{name}: the CPU's loss and gradient, nearly", worst < NEAR, worst)


def watched(setup: Setup, loader: Any) -> Iterator[Batch]:
    """Yield a loader's batches, with an error if handing one over waits for the device; the first one may."""
    batches = iter(loader)
    for number in itertools.count():
        with setup.steady() if number else contextlib.nullcontext():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def equal(one: Batch, other: Batch) -> bool:
    """Return whether two batches have the same bits."""
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return one.key == other.key and all(torch.equal(a.cpu(), b) for a, b in pairs)


def losses(setup: Setup | None, batch: Batch) -> list[torch.Tensor]:
    """Return the loss of made-up outputs of a student, and its gradient; on a GPU the host may not wait for it."""
    if batch.labels is None:
        (wanted,) = batch.embedding.values()
        outputs, criterion = made_up(wanted.shape, batch), EmbeddingLoss()
    else:
        outputs, criterion = made_up((len(batch), batch.labels.num_classes), batch), SoftCrossEntropy()
        wanted = batch.labels
    with contextlib.nullcontext() if setup is None else setup.steady():
        loss = criterion(outputs, wanted)
        loss.backward()
    assert outputs.grad is not None
    return [loss, outputs.grad]


def made_up(shape: Any, batch: Batch) -> torch.Tensor:
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return numbers.to(batch.images.device).requires_grad_()
