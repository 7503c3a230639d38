"""The labels of one image in several sets -> their weighted mean's top-k and shared tail, without dense rows.

A class that no set has among an image's stored classes or kept in its tail gets, within a crop, the same probability
as every other such class. So a crop's row is kept as the classes of a union, a few hundred, and one number for all
the others; the top-k and the tail of the mean need no more.

Shapes: M crops, k classes stored per crop, N <= k that the rule reads, U classes of the union, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.format.records.record import Record, Tail, build_tail
from slg_wds.labels import LabelType, stored_columns

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LAST = 0x7FFFFFFF


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
        return self.tail_classes > 0 and self.label.kind not in ("hard", "full")


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
        _add(rows, rest, record, stored_columns(record).resolve(rule), share, union, place)
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


def _add(
    rows_MU: Floats, rest_M: Floats, record: Record, rule: LabelType, share: float, union: Ints, place: Ints
) -> None:
    """Add a record's recovered distributions times a share, in place: the arithmetic of slg_wds.labels.distribution."""
    if record.full and rule.kind == "full":
        value = record.value.astype(np.float64)
        rows_MU += value * (share / _positive(value.sum(axis=1)))[:, None]
        return
    n = rule.k or 1
    index_MN, value_MN = _top(record, n)
    at_MN = place[index_MN]
    if rule.kind == "hard":
        value_MN = np.ones_like(value_MN)
    elif rule.kind == "marginal_renorm":
        value_MN[value_MN.sum(axis=1) == 0] = 1.0
    top_M = value_MN.sum(axis=1)
    if rule.kind in ("hard", "marginal_renorm") or n == record.num_classes:
        _add_at(rows_MU, at_MN, value_MN * (share / _positive(top_M))[:, None])
        return
    left_M = np.maximum(0.0, 1.0 - top_M)
    scale_M = share / _positive(top_M + left_M)
    shape_U, shape_rest = _shape(record.tail if rule.kind == "shared_tail" else None, union, place)
    part_MU = np.broadcast_to(shape_U, rows_MU.shape).copy()
    np.put_along_axis(part_MU, at_MN, 0.0, axis=1)
    mass_M = part_MU.sum(axis=1) + shape_rest * (record.num_classes - len(union))
    flat_M = mass_M == 0
    if flat_M.any():  # a tail all of whose classes are in the top of this crop: spread evenly
        part_MU[flat_M] = 1.0
        part_MU[np.flatnonzero(flat_M)[:, None], at_MN[flat_M]] = 0.0
    spread_M = (
        np.where(flat_M, left_M / (record.num_classes - n), left_M / np.where(flat_M, 1.0, mass_M)) * scale_M
    )
    part_MU *= spread_M[:, None]
    np.put_along_axis(part_MU, at_MN, value_MN * scale_M[:, None], axis=1)
    rows_MU += part_MU
    rest_M += spread_M * np.where(flat_M, 1.0, shape_rest)


def _top(record: Record, n: int) -> tuple[Ints, Floats]:
    if record.full:
        index, value = largest(record.value, n)
        return index, value.astype(np.float64)
    return record.index[:, :n], record.value[:, :n].astype(np.float64)


def _add_at(rows_MU: Floats, at_MN: Ints, value_MN: Floats) -> None:
    lines = np.arange(len(rows_MU))[:, None]
    rows_MU[lines, at_MN] += value_MN  # the classes of a row are distinct


def _shape(tail: Tail | None, union: Ints, place: Ints) -> tuple[Floats, float]:
    """The tail's shares of the union's classes [U] and of each other class, scaled so that no quotient overflows."""
    if tail is None:
        return np.ones(len(union)), 1.0
    shape = np.full(len(union), tail.rest, np.float64)
    shape[place[tail.classes]] = tail.probs
    most = max(float(tail.probs.max()), tail.rest)
    return (shape / most, tail.rest / most) if most > 0 else (shape, 0.0)


def _positive(total: Floats) -> Floats:
    return np.where(total > 0, total, 1.0)


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


def largest(values: NDArray[np.float32], n: int) -> tuple[Ints, NDArray[np.float32]]:
    """The n largest of each row of float32 [M, U], all >= 0, in falling order, ties to the lower column.

    Returns their columns, int64 [M, n], and values, float32 [M, n].
    """
    # The bits of floats >= 0 order as they do; below them the column. Adding 0 makes -0.0, the least bits, 0.0.
    packed: NDArray[Any] = (values + np.float32(0)).view(np.int32).astype(np.int64)
    packed <<= 32
    packed |= _LAST - np.arange(values.shape[1])
    if n < values.shape[1]:
        packed = np.partition(packed, -n, axis=1)[:, -n:]
    at = _LAST - (np.sort(packed, axis=1)[:, ::-1] & 0xFFFFFFFF)
    return at, np.take_along_axis(values, at, axis=1)
