"""A record's columns -> dense distributions, in numpy.

Shapes: M crops, k classes stored per crop, N <= k classes that the rule reads, C classes.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import UsageError
from slg_wds.labels.rules import StoredColumns
from slg_wds.labels.types import LabelType

# With fewer crops num_crops // 4 leaves a tail no class; such a tail is even and nothing of it is stored.
_MIN_CROPS_FOR_TAIL = 4
_LAST = 0x7FFFFFFF


class RecordColumns(Protocol):
    """The part of slg_wds.format.records.record.Record that recovery reads."""

    @property
    def index(self) -> NDArray[np.int64]: ...
    @property
    def value(self) -> NDArray[np.float32]: ...
    @property
    def tail(self) -> Any: ...
    @property
    def coding(self) -> str: ...
    @property
    def full(self) -> bool: ...
    @property
    def num_classes(self) -> int: ...


def stored_columns(record: RecordColumns) -> StoredColumns:
    """What a record's columns hold."""
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
    record: RecordColumns, num_classes: int | None = None, rule: str | LabelType | None = None
) -> NDArray[np.float32]:
    """The labels of a record as distributions: float32 [M, C], each row >= 0 with a sum within 1e-6 of 1.

    num_classes: None, or the record's own, which it must be. rule: a label type or its name; None uses all that
    is stored. Raises UsageError for an unknown rule or another num_classes, RuleError where the columns cannot
    give the rule.
    """
    if num_classes not in (None, record.num_classes):
        raise UsageError(f"the labels are over {record.num_classes} classes, not {num_classes}")
    asked = stored_columns(record).resolve(rule)
    if asked.kind == "full":
        return _normalised(record.value.astype(np.float64))
    index_MN, value_MN = _top(record, asked.k or 1)
    if asked.kind == "hard":
        value_MN = np.ones_like(value_MN)
    # The sum of the top is never 0 in real labels; where rounding made it so, they share evenly.
    elif asked.kind == "marginal_renorm":
        value_MN[value_MN.sum(axis=1) == 0] = 1.0
    rows_MC = np.zeros((len(index_MN), record.num_classes))
    if asked.kind not in ("hard", "marginal_renorm"):
        _fill_outside(rows_MC, index_MN, value_MN, record.tail if asked.kind == "shared_tail" else None)
    np.put_along_axis(rows_MC, index_MN, value_MN, axis=1)
    return _normalised(rows_MC)


def _top(record: RecordColumns, n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The n most probable classes of each crop and their probabilities, both [M, n]."""
    index, value = record.index, record.value
    if record.full:
        # Probabilities are >= 0, so their bits order as they do; below them the class, ties to the lower one.
        # Adding 0 turns a -0.0, whose bits would be the least of all, into 0.0.
        bits = (value + np.float32(0)).view(np.int32).astype(np.int64)
        packed = (bits << 32) | (_LAST - np.arange(value.shape[1]))
        largest = np.partition(packed, -n, axis=1)[:, -n:]
        index = _LAST - (np.sort(largest, axis=1)[:, ::-1] & 0xFFFFFFFF)
        value = np.take_along_axis(value, index, axis=1)
    return index[:, :n], value[:, :n].astype(np.float64)


def _fill_outside(
    rows_MC: NDArray[np.float64], index_MN: NDArray[np.int64], value_MN: NDArray[np.float64], tail: Any
) -> None:
    """Spread what the top leaves, t = max(0, 1 - their sum), over the other classes of zeroed rows, in place."""
    others = rows_MC.shape[1] - index_MN.shape[1]
    if others == 0:
        return
    left_M1 = np.maximum(0.0, 1.0 - value_MN.sum(axis=1, keepdims=True))
    if tail is None:
        rows_MC[:] = left_M1 / others
        return
    shape_C = np.full(rows_MC.shape[1], tail.rest, np.float64)
    shape_C[tail.classes] = tail.probs
    rows_MC[:] = shape_C
    np.put_along_axis(rows_MC, index_MN, 0.0, axis=1)
    mass_M1 = rows_MC.sum(axis=1, keepdims=True)
    rows_MC *= left_M1 / np.where(mass_M1 > 0, mass_M1, 1.0)
    rows_MC += np.where(
        mass_M1 > 0, 0.0, left_M1 / others
    )  # the classes of the top are overwritten by the caller


def _normalised(rows_MC: NDArray[np.float64]) -> NDArray[np.float32]:
    total_M1 = rows_MC.sum(axis=1, keepdims=True)
    rows_MC /= np.where(total_M1 > 0, total_M1, 1.0)
    rows_MC += np.where(total_M1 > 0, 0.0, 1.0 / rows_MC.shape[1])
    return rows_MC.astype(np.float32)
