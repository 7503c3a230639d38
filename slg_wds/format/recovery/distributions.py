"""A record's columns -> distributions, in numpy: the reference for recovery.

Shapes: M crops, k classes stored per crop, N <= k classes that the rule reads, U classes of a union, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import F32, F64, I64
from slg_wds.errors import RuleError, UsageError
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.recovery.label_types import LabelType
from slg_wds.format.recovery.rules import StoredColumns
from slg_wds.format.recovery.temperature import LEAST_LEFT, tempered

if TYPE_CHECKING:
    from slg_wds.format.records.record import Record
    from slg_wds.format.records.tail import Tail

# With fewer crops, num_crops // 4 leaves a tail no class: it is even, and nothing is stored of it.
_MIN_CROPS_FOR_TAIL = 4
_LAST = 0x7FFFFFFF


def stored_columns(record: Record) -> StoredColumns:
    """Return what the columns of a record hold. Raises RuleError for a record of embeddings: it has no labels."""
    if record.embeddings is not None:
        raise RuleError("the record holds embeddings, not labels", hint="read them by record.embeddings")
    if record.low_rank is not None:
        return StoredColumns(k=record.num_classes, num_classes=record.num_classes, full=True, low_rank=True)
    crops, k = record.index.shape
    no_tail_possible = crops < _MIN_CROPS_FOR_TAIL or k == record.num_classes
    return StoredColumns(
        k=k,
        num_classes=record.num_classes,
        full=record.full,
        values=record.coding != "none",
        tail=not record.full and (record.tail is not None or no_tail_possible),
    )


def distribution(
    record: Record,
    num_classes: int | None = None,
    rule: str | LabelType | None = None,
    power: float = 1.0,
) -> F32:
    """Recover the labels of a record as distributions.

    Args:
        record: the record of M crops over C classes.
        num_classes: C, as a check; None for no check.
        rule: a label type or its name; None uses all that is stored.
        power: what the recovered probabilities are raised to, before they are divided by their sum; see `power_of`.

    Returns:
        float32 [M, C]; no entry is negative, and each row sums to 1 within 1e-6.

    Raises:
        UsageError: the rule is unknown, or `num_classes` is not the record's.
        RuleError: the stored columns cannot give the rule.
    """
    if num_classes not in (None, record.num_classes):
        raise UsageError(f"the labels are over {record.num_classes} classes, not {num_classes}")
    every = np.arange(record.num_classes)
    asked, least = stored_columns(record).resolve(rule), 0.0 if power == 1.0 else LEAST_LEFT
    rows_MC, _ = recover_over(record, asked, 1.0, every, every, least)
    return (rows_MC if power == 1.0 else tempered(rows_MC, power)).astype(np.float32)


def recover_over(
    record: Record, rule: LabelType, share: float, union: I64, place: I64, least: float = 0.0
) -> tuple[F64, F64]:
    """Recover the labels of a record over some of its classes; all others have the same probability within a crop.

    Args:
        record: the record of M crops over C classes.
        rule: the rule of recovery, resolved: the record's columns can give it.
        share: what the distributions are multiplied by.
        union: int64 [U], ascending: the classes wanted, among them every class that the record names.
        place: int64 [C], the position of each class in `union`; any number for others.
        least: if the top leaves no more than this, it leaves nothing.

    Returns:
        float64 [M, U] of the classes of the union, and float64 [M] of each other class.
    """
    if rule.kind in ("full", "lowrank"):
        value_MC = _never_zero(_every_value(record))
        return value_MC * (share / value_MC.sum(axis=1))[:, None], np.zeros(len(value_MC))
    n, record = rule.k or 1, as_full(record)
    index_MN, stored_MN = top(record, n)
    at_MN, value_MN = place[index_MN], stored_MN.astype(np.float64)
    if rule.kind == "hard":
        value_MN = np.ones_like(value_MN)
    if rule.kind not in ("hard", "marginal_renorm") and n < record.num_classes:
        tail = record.tail if rule.kind == "shared_tail" else None
        shape = _shape(tail, union, place)
        return _spread(at_MN, value_MN, _left(value_MN, least), share, *shape, record.num_classes)
    value_MN = _never_zero(value_MN)
    rows_MU = np.zeros((len(at_MN), len(union)))
    np.put_along_axis(rows_MU, at_MN, value_MN * (share / value_MN.sum(axis=1))[:, None], axis=1)
    return rows_MU, np.zeros(len(at_MN))


def _left(value_MN: F64, least: float) -> F64:
    """Return what the top leaves of 1, [M]; 0 where that is no more than `least`."""
    left_M: F64 = 1.0 - value_MN.sum(axis=1)
    left_M[left_M <= least] = 0.0
    return left_M


def _every_value(record: Record) -> F64:
    """Return the probabilities of full or low-rank labels, float64 [M, C]."""
    if record.low_rank is None:
        return record.value.astype(np.float64)
    return record.low_rank.distributions().reshape(record.num_crops, record.num_classes)


def as_full(record: Record) -> Record:
    """Return low-rank labels as full ones: float32 values [M, C] of every class. Other records stay as they are."""
    if record.low_rank is None:
        return record
    value_MC = _every_value(record).astype(np.float32)
    index_MC = np.broadcast_to(np.arange(record.num_classes), value_MC.shape)
    rule = "full" if record.rule == LOW_RANK else record.rule
    return replace(
        record, index=index_MC, value=value_MC, coding="float32", full=True, rule=rule, low_rank=None
    )


def _spread(
    at_MN: I64,
    value_MN: F64,
    left_M: F64,
    share: float,
    shape_U: F64,
    shape_rest: float,
    num_classes: int,
) -> tuple[F64, F64]:
    """Keep the top as it is and spread what it leaves over the other classes by their shape."""
    scale_M = share / (value_MN.sum(axis=1) + left_M)
    rows_MU = np.broadcast_to(shape_U, (len(at_MN), len(shape_U))).copy()
    np.put_along_axis(rows_MU, at_MN, 0.0, axis=1)
    mass_M = rows_MU.sum(axis=1) + shape_rest * (num_classes - len(shape_U))
    flat_M = mass_M == 0
    if flat_M.any():  # every class of the tail is in the top of this crop: spread evenly
        rows_MU[flat_M] = 1.0
        rows_MU[np.flatnonzero(flat_M)[:, None], at_MN[flat_M]] = 0.0
    others = num_classes - at_MN.shape[1]
    spread_M = np.where(flat_M, left_M / others, left_M / np.where(flat_M, 1.0, mass_M)) * scale_M
    rows_MU *= spread_M[:, None]
    np.put_along_axis(rows_MU, at_MN, value_MN * scale_M[:, None], axis=1)
    return rows_MU, spread_M * np.where(flat_M, 1.0, shape_rest)


def _shape(tail: Tail | None, union: I64, place: I64) -> tuple[F64, float]:
    """Return the tail's shares of the union's classes [U] and of each other one, scaled: no quotient overflows then."""
    if tail is None:
        return np.ones(len(union)), 1.0
    shape = np.full(len(union), tail.rest, np.float64)
    shape[place[tail.classes]] = tail.probs
    most = max(float(tail.probs.max()), tail.rest)
    return (shape / most, tail.rest / most) if most > 0 else (shape, 0.0)


def _never_zero(rows: F64) -> F64:
    """Return rows of zeros, which only rounding makes, as rows of ones: then all classes share evenly."""
    rows[rows.sum(axis=1) == 0] = 1.0
    return rows


def top(record: Record, n: int) -> tuple[I64, F32]:
    """Return the n most probable classes of each crop, int64 [M, n], and their probabilities, float32 [M, n]."""
    if record.full:
        return largest(record.value, n)
    return record.index[:, :n], record.value[:, :n]


def largest(values: F32, n: int) -> tuple[I64, F32]:
    """Find the n largest values of each row, in falling order; of equal values, the lower column first.

    Args:
        values: float32 [M, U], none negative.
        n: how many, 1 to U.

    Returns:
        The columns, int64 [M, n], and the values, float32 [M, n].
    """
    # The bits of floats >= 0 order as the floats do; below them the column. Adding 0 makes -0.0, the least bits, 0.0.
    packed: NDArray[Any] = (values + np.float32(0)).view(np.int32).astype(np.int64)
    packed <<= 32
    packed |= _LAST - np.arange(values.shape[1])
    if n < values.shape[1]:
        packed = np.partition(packed, -n, axis=1)[:, -n:]
    at = _LAST - (np.sort(packed, axis=1)[:, ::-1] & 0xFFFFFFFF)
    return at, np.take_along_axis(values, at, axis=1)
