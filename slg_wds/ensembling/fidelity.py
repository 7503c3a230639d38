"""How far labels are from the exact ensemble of their teachers, measured on a random sample of crops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slg_wds.console import counted
from slg_wds.errors import UsageError
from slg_wds.labels import parse_label_type
from slg_wds.labelset.labelset import LabelSet
from slg_wds.verification.answers.asking import Question, exact_rows, load_named_teachers

_TINY = 1e-12  # stands for 0 in a logarithm


@dataclass(frozen=True)
class Fidelity:
    """How near labels are to their teachers.

    Attributes:
        kl: mean KL(exact || labels) in nats, with labels recovered from all that is stored.
        kl_by_type: the same with labels recovered by their label type, where that ignores stored tails; else None.
        label_type: the label type.
        agreement: share of crops, 0..1, for which both have the same most probable class.
        crops: number of crops in the sample.
    """

    kl: float
    kl_by_type: float | None
    label_type: str
    agreement: float
    crops: int

    def __str__(self) -> str:
        by_type = (
            "" if self.kl_by_type is None else f" ({self.kl_by_type:.4f} when read as {self.label_type})"
        )
        return (
            f"measured on {counted(self.crops, 'crop')} against the teachers: KL {self.kl:.4f} nats{by_type}, "
            f"the same top class for {self.agreement:.1%}"
        )


def measure(question: Question, labels: LabelSet, seed: int = 0) -> Fidelity:
    """Run the teachers on a random sample of crops, and compare their distributions with the labels.

    Args:
        question: the teachers, the images and the number of crops.
        labels: the label set.
        seed: draws the sample.

    Raises:
        UsageError: the teachers are not those of the labels, or no image of the labels is left.
        SlgWdsError: teachers, images or labels cannot be read.
    """
    teacher = load_named_teachers(question, labels)
    tails = labels.identity.tail_classes > 0
    both = tails and parse_label_type(labels.label_type).kind != "shared_tail"
    kls: list[NDArray[np.float64]] = []
    by_type: list[NDArray[np.float64]] = []
    same: list[NDArray[np.bool_]] = []
    for record, exact in exact_rows(question, labels, teacher, np.random.default_rng(seed)):
        read = record.distribution(rule=None if tails else labels.label_type)
        kls.append(_divergence(exact, read))
        if both:
            by_type.append(_divergence(exact, record.distribution(rule=labels.label_type)))
        same.append(exact.argmax(axis=1) == read.argmax(axis=1))
    if not kls:
        raise UsageError("the labels leave out every image of the sample", url=labels.url)
    return Fidelity(
        kl=max(0.0, float(np.concatenate(kls).mean())),  # rounding may make it negative
        kl_by_type=max(0.0, float(np.concatenate(by_type).mean())) if both else None,
        label_type=labels.label_type,
        agreement=float(np.concatenate(same).mean()),
        crops=sum(map(len, kls)),
    )


def _divergence(exact: NDArray[np.float64], read: NDArray[np.float32]) -> NDArray[np.float64]:
    ratio = np.log(np.maximum(exact, _TINY)) - np.log(np.maximum(read.astype(np.float64), _TINY))
    divergence: NDArray[np.float64] = (exact * ratio).sum(axis=1)
    return divergence
