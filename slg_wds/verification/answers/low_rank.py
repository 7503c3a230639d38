"""Low-rank labels against what the teachers answer now: no crop may be further off than its record states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from slg_wds.arrays import F64
from slg_wds.format.records.record import Record

TINY = 1e-30
# How many times the stated divergence another machine may find, by precision; and in nats, where that is about 0.
SLACK = {"fp32": 1.1, "tf32": 2.0, "bf16": 2.0, "fp16": 2.0}
LEAST = {"fp32": 1e-3, "tf32": 0.05, "bf16": 0.05, "fp16": 0.05}
LISTED = 3


@dataclass(frozen=True)
class MeasuredKL:
    """KL(teachers || stored) of some crops of an image.

    Attributes:
        key: the image's.
        each: float64 [n], nats, of each crop.
        same: crops whose most probable class is the teachers'.
        stated: the largest of a crop that the record states; None if it states the divergence from other labels.
    """

    key: str
    each: F64
    same: int
    stated: float | None


def measured_kl(record: Record, exact: F64) -> MeasuredKL:
    """Compare low-rank labels with the teachers' distributions of the same crops, float64 [n, C]."""
    assert record.low_rank is not None
    stored, kl = record.low_rank.distributions(), record.low_rank.kl
    logs = np.log(np.maximum(exact, TINY)) - np.log(np.maximum(stored, TINY))
    same = int((stored.argmax(axis=1) == exact.argmax(axis=1)).sum())
    stated = kl.worst if kl.against == "teacher" else None
    return MeasuredKL(record.key, (exact * logs).sum(axis=1), same, stated)


def mean_kl(found: Sequence[MeasuredKL]) -> float:
    """Return the mean over all crops, in nats; rounding alone never makes it negative."""
    return max(0.0, float(np.concatenate([one.each for one in found]).mean())) if found else 0.0


def over_stated(found: Sequence[MeasuredKL], precision: str) -> list[str]:
    """Return a line for each image with a crop that is further off than stated; a few of them."""
    return list(_over(found, precision))[:LISTED]


def _over(found: Sequence[MeasuredKL], precision: str) -> Iterator[str]:
    for one in found:
        worst = float(one.each.max(initial=0.0))
        if one.stated is not None and worst > SLACK[precision] * one.stated + LEAST[precision]:
            yield (
                f"a crop of {one.key} is {worst:.4f} nats from the teachers, and its record says "
                f"at most {one.stated:.4f}"
            )
