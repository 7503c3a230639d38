"""The labels of one image in several sets -> their weighted mean's top-k and shared tail, without dense rows.

A class that no set has among an image's stored classes or kept in its tail gets, within a crop, the same probability
as every other such class. So a crop's row is kept as the classes of a union, a few hundred, and one number for all
the others; the top-k and the tail of the mean need no more.

Shapes: M crops, k classes stored per crop, N <= k that the rule reads, U classes of the union, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slg_wds.format.records.record import Record, Tail, build_tail
from slg_wds.labels import LabelType, largest, recover_over, stored_columns

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LabelFormat:
    """What is made of the mean: the label type, its coding of values, and how many classes a tail keeps."""

    label: LabelType
    coding: str
    tail_classes: int
    num_classes: int

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


@dataclass(frozen=True)
class RecordLabels:
    """What a record says of its crops: index int64 [M, k], value float32 [M, k], a tail or none."""

    index: Ints
    value: NDArray[np.float32]
    tail: Tail | None


@dataclass(frozen=True)
class UnionRows:
    """Distributions over the classes of a union.

    union: int64 [U], ascending. rows: float64 [M, U]. rest: float64 [M], the probability of each class outside.
    """

    union: Ints
    rows: Floats
    rest: Floats


def merge(
    records: Sequence[Record], rules: Sequence[str | None], shares: Sequence[float], to: LabelFormat
) -> RecordLabels:
    """The labels of the mean of an image's distributions, each recovered under its rule (None: all that is stored).

    records: of the same crops and classes. shares: sum 1.
    """
    return reduce(mean_rows(records, rules, shares, to.k), to)


def mean_rows(
    records: Sequence[Record], rules: Sequence[str | None], shares: Sequence[float], k: int
) -> UnionRows:
    """The weighted mean over a union that holds the top k of every crop."""
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


def _union(records: Sequence[Record], k: int) -> Ints:
    C = records[0].num_classes
    if any(record.full for record in records):
        return np.arange(C)
    seen = np.zeros(C, bool)
    for record in records:
        seen[record.index.ravel()] = True
        if record.tail is not None:
            seen[record.tail.classes] = True
    # The classes outside are all alike, so in a top-k, where ties go to the lower class, only these can be.
    seen[np.flatnonzero(~seen)[:k]] = True
    return np.flatnonzero(seen)


def reduce(mean: UnionRows, to: LabelFormat) -> RecordLabels:
    """The top-k of each row, ties to the lower class, and the tail: the mean over crops of what is outside."""
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
