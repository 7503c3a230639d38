"""Labels a random sample of crops again with the teachers, and compares the result with the stored labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slg_wds.config import VerifyConfig
from slg_wds.console import counted
from slg_wds.errors import UsageError
from slg_wds.format.records.record import Record
from slg_wds.labelset.labelset import LabelSet
from slg_wds.verification.answers.asking import Question, exact_rows, load_named_teachers
from slg_wds.verification.answers.embeddings import EmbeddingCheck, compared_embeddings
from slg_wds.verification.answers.low_rank import MeasuredKL, mean_kl, measured_kl, over_stated
from slg_wds.verification.records import rounding

# Limits within which the same teacher agrees with itself on another machine, by precision: the largest difference of a
# probability beyond rounding, the mean difference, and the least share of crops with the same most probable class.
# Another teacher is off by far more.
LIMITS = {
    "fp32": (0.05, 0.002, 0.98),
    "tf32": (0.3, 0.01, 0.95),
    "bf16": (0.3, 0.01, 0.95),
    "fp16": (0.3, 0.01, 0.95),
}
MERGED = (1.0, 0.05, 0.85)  # a merge equals the mean of the teachers only as far as its parts' top-k go


@dataclass(frozen=True)
class TeacherCheck:
    """How stored labels compare with what the teachers answer now.

    Attributes:
        crops: crops that were compared.
        largest: largest difference of a probability, beyond rounding.
        mean: mean difference of a probability, beyond rounding.
        agreement: share of crops whose most probable class is the same.
        problems: which of these values are beyond their limits, in words.
        kl: of low-rank labels: their mean KL divergence from the answers, in nats; `largest` and `mean` are then 0.
            None for other types.
        hard: whether only the most probable class is stored; `largest` and `mean` are then 0.
        stated: whether there are limits. Low-rank labels that were made of other labels state no divergence from the
            teachers.
    """

    crops: int
    largest: float
    mean: float
    agreement: float
    problems: list[str] = field(default_factory=list)
    kl: float | None = None
    hard: bool = False
    stated: bool = True

    def __str__(self) -> str:
        verdict = "the labels are " + ("NOT the teachers'" if self.problems else "the teachers'")
        if not self.stated:
            verdict = (
                "the labels were made of other labels, and do not say how far from the teachers' they may be"
            )
        found = f", probabilities differ by {self.mean:.5f} on average and {self.largest:.4f} at most"
        if self.kl is not None:
            found = f", mean KL {self.kl:.4f} nats"
        return (
            f"{verdict}: {counted(self.crops, 'crop')} asked again{'' if self.hard else found}, "
            f"and the most probable class is the same for {self.agreement:.1%}"
        )


def compare(
    config: VerifyConfig, labels: LabelSet, shards: Collection[int], seed: int | None = None
) -> TeacherCheck | EmbeddingCheck:
    """Label a random sample of crops again with the teachers of the config, and compare.

    Args:
        config: the teachers, the images and how many crops.
        labels: the label set.
        shards: the numbers of the shards to take crops from, those that are whole.
        seed: seed of the sample; None for another sample each time.

    Raises:
        UsageError: the teachers are not those that slg.json names, or no images are given and none are embedded.
        ImageSourceError: the images are not those of the set.
    """
    images = config.teacher or config.images
    if images is None and not labels.identity.embed_images:
        raise UsageError("-a needs --images IMAGES, since the set does not embed its images")
    question = Question(config, None if images is None else config.at(images), config.bank)
    teacher = load_named_teachers(question, labels)
    asked = exact_rows(question, labels, teacher, np.random.default_rng(seed), _images_of(labels, shards))
    if labels.holds_embeddings:
        return compared_embeddings(asked, labels)
    apart = _Differences()
    coded: list[MeasuredKL] = []
    for record, exact in asked:
        if record.low_rank is not None:
            coded.append(measured_kl(record, exact))
        else:
            apart.add(record, exact)
    if coded:
        return _of_low_rank(coded, labels)
    found = dataclasses.replace(apart.check(), hard=labels.identity.coding == "none")
    return dataclasses.replace(found, problems=_beyond(found, labels))


@dataclass
class _Differences:
    """How far stored probabilities are from the teachers' own, beyond rounding, over the crops so far."""

    largest: float = 0.0
    total: float = 0.0
    numbers: int = 0
    same: int = 0
    crops: int = 0

    def add(self, record: Record, exact: NDArray[np.float64]) -> None:
        """Compare the crops of a record with what the teachers answer, [M, C]."""
        asked = exact if record.full else np.take_along_axis(exact, record.index, axis=1)
        if record.coding != "none" and len(asked):
            apart = np.abs(asked - record.value) - rounding(record.coding, 1) * asked
            self.largest = max(self.largest, float(apart.max()))
            self.total += float(np.maximum(apart, 0.0).sum())
            self.numbers += apart.size
        first = record.value.argmax(axis=1) if record.full else record.index[:, 0]
        self.same += int((first == exact.argmax(axis=1)).sum())
        self.crops += len(first)

    def check(self) -> TeacherCheck:
        """Return the figures of all crops."""
        mean, agreement = self.total / max(1, self.numbers), self.same / max(1, self.crops)
        return TeacherCheck(self.crops, self.largest, mean, agreement)


def _of_low_rank(coded: list[MeasuredKL], labels: LabelSet) -> TeacherCheck:
    crops = sum(len(one.each) for one in coded)
    problems = over_stated(coded, labels.identity.precision or "fp32")
    agreement = sum(one.same for one in coded) / max(1, crops)
    stated = any(one.stated is not None for one in coded)
    return TeacherCheck(crops, 0.0, 0.0, agreement, problems, mean_kl(coded), stated=stated)


def _images_of(labels: LabelSet, shards: Collection[int]) -> NDArray[np.int64]:
    """Return the numbers in the plan of the images of some shards, ascending."""
    sizes = labels.plan.shard_sizes
    chosen = np.zeros(len(sizes), np.bool_)
    chosen[list(shards)] = True
    return np.flatnonzero(np.repeat(chosen, sizes))


def _beyond(found: TeacherCheck, labels: LabelSet) -> list[str]:
    precision = labels.identity.precision or "fp32"
    largest, mean, agreement = MERGED if labels.identity.parents else LIMITS[precision]
    problems = []
    if found.largest > largest:
        problems.append(
            f"a probability differs from the teachers' by {found.largest:.4f}, more than {largest:g}"
        )
    if found.mean > mean:
        problems.append(
            f"probabilities differ from the teachers' by {found.mean:.5f} on average, more than {mean:g}"
        )
    if found.agreement < agreement:
        problems.append(
            f"the most probable class is the teachers' for {found.agreement:.1%} of the crops, "
            f"less than {agreement:.0%}"
        )
    return problems
