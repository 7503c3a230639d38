"""Top-1, top-5 and loss of teachers on images with targets, by their own evaluation transforms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slg_wds.errors import UsageError
from slg_wds.teachers.ensemble import Ensemble, check_finite
from slg_wds.teachers.preprocessing import Preprocessing, check_overrides, eval_transform
from slg_wds.teachers.teacher import Teacher

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Accuracy:
    """Attributes:
    top1, top5: shares of images in 0..1 whose target is the likeliest class, is among the five likeliest.
    loss: mean cross-entropy in nats.
    count: images.
    """

    top1: float
    top5: float
    loss: float
    count: int

    def __str__(self) -> str:
        return f"top-1 {self.top1:.2%}, top-5 {self.top5:.2%}, loss {self.loss:.4f} on {self.count} images"


def evaluate(
    teacher: Teacher | Ensemble,
    batches: Iterable[tuple[Sequence[torch.Tensor], Sequence[int]]],
    *,
    crop_pct: float | None = None,
    workers: int = 1,
) -> Accuracy:
    """Measure a teacher, at temperature 1 and over all of its classes whatever the ensemble's subset.

    Args:
        batches: decoded images, each uint8 [3,H,W] of any size, and their targets as the teacher's class numbers. One
            batch is one forward.
        crop_pct: in place of the teachers' own.
        workers: threads that resize.

    Raises:
        UsageError: no image, or a target that is not a class.
        TeacherOutputError: logits that are not finite.
    """
    check_overrides({"crop_pct": crop_pct})
    ensemble = teacher if isinstance(teacher, Ensemble) else Ensemble([teacher])
    wanted = [
        dataclasses.replace(t.preprocessing, crop_pct=crop_pct or t.preprocessing.crop_pct)
        for t in ensemble.teachers
    ]
    correct1 = correct5 = count = 0
    losses: list[float] = []
    with ThreadPoolExecutor(workers) as pool:
        for images, targets in batches:
            if not len(images):
                continue
            cut = {
                settings: list(pool.map(lambda image, s=settings: eval_transform(image, s), images))
                for settings in dict.fromkeys(wanted)
            }
            log_probs = _log_probabilities(ensemble, wanted, cut)
            rank, loss = _score(log_probs, targets, ensemble.teacher_classes)
            correct1 += int((rank < 1).sum())
            correct5 += int((rank < 5).sum())
            losses.append(loss)
            count += len(images)
    if not count:
        raise UsageError("no image to evaluate on")
    return Accuracy(correct1 / count, correct5 / count, math.fsum(losses) / count, count)


def _log_probabilities(
    ensemble: Ensemble, wanted: list[Preprocessing], cut: dict[Preprocessing, list[torch.Tensor]]
) -> torch.Tensor:
    """float32 [N,C] on the host: log of the weighted mean of softmax(logits)."""
    import torch

    parts = []
    for teacher, weight, settings in zip(ensemble.teachers, ensemble.weights, wanted, strict=True):
        if weight > 0:
            logits = teacher.logits(torch.stack(cut[settings]).to(teacher.device)).cpu()
            check_finite(logits, teacher.name)
            parts.append(logits.log_softmax(1) + math.log(weight))
    return torch.stack(parts).logsumexp(0)


def _score(log_probs: torch.Tensor, targets: Sequence[int], classes: int) -> tuple[torch.Tensor, float]:
    """int64 [N]: how many classes come before the target, ties to the lower class; and the summed cross-entropy."""
    import torch

    wanted = torch.as_tensor(targets).long()
    if len(wanted) != len(log_probs) or int(wanted.min()) < 0 or int(wanted.max()) >= classes:
        raise UsageError(f"targets must be one class number in 0..{classes - 1} per image")
    own = log_probs.gather(1, wanted[:, None])
    lower = torch.arange(classes)[None, :] < wanted[:, None]
    rank = ((log_probs > own) | ((log_probs == own) & lower)).sum(1)
    return rank, -float(own.double().sum())
