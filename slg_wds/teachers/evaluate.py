"""Top-1, top-5 and loss of teachers on images with targets, after each teacher's own evaluation transform."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slg_wds.console import counted
from slg_wds.errors import TeacherError, TeacherOutputError, UsageError
from slg_wds.teachers.ensemble import Ensemble
from slg_wds.teachers.faults import device_faults
from slg_wds.teachers.teacher import Teacher

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Accuracy:
    """How well a teacher classifies.

    Attributes:
        top1: share of images, in 0..1, whose target is the most probable class.
        top5: share of images, in 0..1, whose target is among the five most probable classes.
        loss: mean cross-entropy, in nats.
        count: number of images.
    """

    top1: float
    top5: float
    loss: float
    count: int

    def __str__(self) -> str:
        return f"top-1 {self.top1:.2%}, top-5 {self.top5:.2%}, loss {self.loss:.4f} on {counted(self.count, 'image')}"


def evaluate(
    teacher: Teacher | Ensemble,
    batches: Iterable[tuple[Sequence[torch.Tensor], torch.Tensor | Sequence[int]]],
) -> Accuracy:
    """Measure a teacher at temperature 1, over all of its classes even if the ensemble keeps a subset.

    Args:
        teacher: one teacher or an ensemble.
        batches: pairs of (images, targets), one pair per forward. images: for each of the ensemble's `preprocessings`
            in order, the same images after `eval_transform`, uint8 [N,3,S,S]. targets: integers [N], the teacher's
            class numbers.

    Returns:
        Top-1, top-5 and loss over all images.

    Raises:
        UsageError: no image, another number of targets than images, or a target that is not a class.
        TeacherError: another number of batches than preprocessings, or as `Teacher.logits`.
        TeacherOutputError: logits that are not finite.
        DeviceError: the device failed.
    """
    ensemble = teacher if isinstance(teacher, Ensemble) else Ensemble([teacher])
    correct1 = correct5 = count = rows = 0
    losses: list[float] = []
    for images, targets in batches:
        if not len(targets):
            continue
        rows = max(rows, len(targets))
        log_probs = _log_probabilities(ensemble, images, len(targets), rows)
        rank, loss = _score(log_probs, targets)
        correct1 += int((rank < 1).sum())
        correct5 += int((rank < 5).sum())
        losses.append(loss)
        count += len(targets)
    if not count:
        raise UsageError("no image to evaluate on")
    return Accuracy(correct1 / count, correct5 / count, math.fsum(losses) / count, count)


def _log_probabilities(
    ensemble: Ensemble, images: Sequence[torch.Tensor], count: int, rows: int
) -> torch.Tensor:
    """Return the log of the weighted mean of softmax(logits): float32 [count, C] on the CPU."""
    import torch

    if len(images) != len(ensemble.preprocessings):
        raise TeacherError(f"{len(images)} batches for {len(ensemble.preprocessings)} preprocessings")
    if any(len(batch) != count for batch in images):
        raise UsageError(f"{counted(count, 'target')} for {counted(len(images[0]), 'image')}")
    batch_of = dict(zip(ensemble.preprocessings, images, strict=True))
    parts = []
    for teacher, weight in zip(ensemble.teachers, ensemble.weights, strict=True):
        if weight == 0:
            continue
        batch = batch_of[teacher.preprocessing]
        # Smaller batches are padded: a compiled teacher would be compiled again for each new size.
        padding = batch.new_zeros(rows - count, *batch.shape[1:])
        with device_faults(teacher.device, f"{teacher.name} failed"):
            logits = teacher.logits(torch.cat([batch, padding]).to(teacher.device))[:count].cpu()
        if not bool(logits.isfinite().all()):
            raise TeacherOutputError(
                f"{teacher.name} gave NaN or infinity",
                hint="try --precision fp32 or bf16, and check its weights",
            )
        parts.append(logits.log_softmax(1) + math.log(weight))
    return torch.stack(parts).logsumexp(0)


def _score(log_probs: torch.Tensor, targets: torch.Tensor | Sequence[int]) -> tuple[torch.Tensor, float]:
    """Return (the target's rank int64 [N], 0 for the most probable class; the summed cross-entropy in nats).

    Of classes that are equally probable, the lower number goes first.
    """
    import torch

    target = torch.as_tensor(targets).long()
    classes = log_probs.shape[1]
    if int(target.min()) < 0 or int(target.max()) >= classes:
        raise UsageError(f"targets must be class numbers in 0..{classes - 1}")
    own = log_probs.gather(1, target[:, None])
    lower = torch.arange(classes)[None, :] < target[:, None]
    rank = ((log_probs > own) | ((log_probs == own) & lower)).sum(1)
    return rank, -float(own.double().sum())
