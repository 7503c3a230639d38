"""The labels of one image in several sets -> top-k and shared tail of their weighted mean, without dense rows.

Within a crop, all classes that no set stores for the image have the same probability. So a distribution is kept as the
probabilities of a union of classes, a few hundred, and one number for every other class. The top-k and the tail of the
mean follow from that.

Shapes: M crops, k classes stored per crop, U classes of the union, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slg_wds.arrays import F32, F64, I64
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import Tail, build_tail
from slg_wds.labels import LabelType, largest, recover_over, stored_columns


@dataclass(frozen=True)
class LabelFormat:
    """The format of the labels that are made.

    Attributes:
        label: the label type.
        coding: how probabilities are stored, if the label type stores any.
        tail_classes: the most classes that a shared tail keeps; 0 for no tail.
        num_classes: C.
        max_kl: of low-rank labels, the largest mean KL divergence of an image in nats; None for other types.
    """

    label: LabelType
    coding: str
    tail_classes: int
    num_classes: int
    max_kl: float | None = None

    @property
    def k(self) -> int:
        """Classes stored per crop."""
        return self.label.stored_k(self.num_classes)

    @property
    def full(self) -> bool:
        """Whether every probability is stored."""
        return self.label.kind == "full"

    @property
    def writes_tail(self) -> bool:
        """Whether records get a shared tail."""
        return self.tail_classes > 0 and self.label.can_have_tail

    @property
    def stored_coding(self) -> str:
        """The coding that records name: "none" for hard labels, which store no probabilities."""
        if self.max_kl:
            return LOW_RANK
        return "none" if self.label.kind == "hard" else self.coding


@dataclass(frozen=True)
class RecordLabels:
    """The labels of one record.

    Attributes:
        index: int64 [M, k], the classes of each crop, most probable first; for full labels all, in order.
        value: float32 [M, k], their probabilities; ones for hard labels.
        tail: the shared tail; None without one.
    """

    index: I64
    value: F32
    tail: Tail | None


@dataclass(frozen=True)
class UnionRows:
    """Distributions over C classes, given as probabilities of a union of classes and one number for all others.

    Attributes:
        union: int64 [U], the classes, ascending.
        rows: float64 [M, U], their probabilities in each crop.
        rest: float64 [M], the probability of each single class outside the union.
    """

    union: I64
    rows: F64
    rest: F64


def merge(
    records: Sequence[Record], rules: Sequence[str | None], shares: Sequence[float], to: LabelFormat
) -> RecordLabels:
    """Return the labels of the weighted mean of an image's distributions.

    Args:
        records: the image's record in each set; all have the same crops and classes.
        rules: the rule of recovery for each record; None to use all that it stores.
        shares: the weight of each record; they sum to 1.
        to: the format of the result.
    """
    return reduce(mean_rows(records, rules, shares, to.k), to)


def mean_rows(
    records: Sequence[Record], rules: Sequence[str | None], shares: Sequence[float], k: int
) -> UnionRows:
    """Return the weighted mean of the records. Its union holds the top k classes of every crop; see `merge`."""
    C, M = records[0].num_classes, records[0].num_crops
    union = _union(records, k)
    place = np.full(C, -1, np.int64)
    place[union] = np.arange(len(union))
    rows, rest = np.zeros((M, len(union))), np.zeros(M)
    for record, rule, share in zip(records, rules, shares, strict=True):
        part, other = recover_over(record, stored_columns(record).resolve(rule), share, union, place)
        rows += part
        rest += other
        del part  # so that the next record's rows take its memory
    return UnionRows(union, rows, rest)


def _union(records: Sequence[Record], k: int) -> I64:
    C = records[0].num_classes
    if any(record.full for record in records):
        return np.arange(C)
    seen = np.zeros(C, bool)
    for record in records:
        seen[record.index.ravel()] = True
        if record.tail is not None:
            seen[record.tail.classes] = True
    # All other classes are equally probable, and ties go to the lower class: only the k lowest can reach a top-k.
    seen[np.flatnonzero(~seen)[:k]] = True
    return np.flatnonzero(seen)


def reduce(mean: UnionRows, to: LabelFormat) -> RecordLabels:
    """Return labels of the given format. Of equally probable classes the lower one comes first.

    The tail is the mean over crops of the probability outside the top-k. `mean.rows` is overwritten.
    """
    M, C = len(mean.rows), to.num_classes
    values = mean.rows.astype(np.float32)
    if to.full:
        dense = np.broadcast_to(mean.rest.astype(np.float32)[:, None], (M, C)).copy()
        dense[:, mean.union] = values
        return RecordLabels(np.broadcast_to(np.arange(C), (M, C)), dense, None)
    at, value = largest(values, to.k)
    if to.label.kind == "hard":
        value = np.ones_like(value)
    tail = None
    if to.writes_tail and M:
        np.put_along_axis(mean.rows, at, 0.0, axis=1)
        v = np.full(C, mean.rest.mean())
        v[mean.union] = mean.rows.mean(axis=0)
        tail = build_tail(v, to.tail_classes, M, to.k)
    return RecordLabels(mean.union[at], value, tail)
