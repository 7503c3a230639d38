"""The labels of one record -> the same labels with fewer classes, or without probabilities."""

from __future__ import annotations

import numpy as np

from slg_wds.console import counted
from slg_wds.ensembling.merge import Floats, LabelFormat, RecordLabels
from slg_wds.errors import UsageError
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import Tail, build_tail
from slg_wds.labels import largest, top
from slg_wds.labelset.combining.joining import tail_vector


def check_conversion(stored_k: int, full: bool, values: str, to: LabelFormat) -> None:
    """Check that one set alone holds what is asked of it.

    Args:
        stored_k: classes that the set stores for each crop.
        full: whether it stores all classes.
        values: its coding of probabilities; "none" where it stores none.
        to: what is asked.

    Raises:
        UsageError: the set stores fewer classes, or no probabilities.
    """
    if to.full and not full:
        raise UsageError(f"full labels cannot be made from {counted(stored_k, 'class', 'classes')} a crop")
    if to.k > stored_k:
        raise UsageError(
            f"label type {to.label} needs {counted(to.k, 'class', 'classes')} per crop, and the set stores {stored_k}",
            hint="from one set alone, only labels with fewer classes can be made",
        )
    if values == "none" and to.label.kind != "hard":
        raise UsageError(f"label type {to.label} needs probabilities, and only the top class is stored")


def convert(record: Record, to: LabelFormat) -> RecordLabels:
    """Return the stored labels of a record in another format. Stored probabilities stay exactly as they are.

    With the stored k the tail stays as it is. With a lower k the tail also gets the classes that are dropped.
    """
    if to.full:
        return RecordLabels(record.index, record.value, None)
    index, value = top(record, to.k)
    return RecordLabels(index, np.ones_like(value) if to.label.kind == "hard" else value, _tail(record, to))


def _tail(record: Record, to: LabelFormat) -> Tail | None:
    M = record.num_crops
    if not to.writes_tail or not M:
        return None
    kept = min(to.tail_classes, M // 4, record.num_classes - to.k)
    same = not record.full and to.k == record.k
    if same and record.tail is not None and len(record.tail.classes) <= kept:
        return record.tail
    v = _full_outside(record, to.k) if record.full else tail_vector(record)
    if not record.full and to.k < record.k:
        np.add.at(v, record.index[:, to.k :], record.value[:, to.k :].astype(np.float64) / M)
    return build_tail(v, to.tail_classes, M, to.k)


def _full_outside(record: Record, k: int) -> Floats:
    rows = record.value.astype(np.float64)
    np.put_along_axis(rows, largest(record.value, k)[0], 0.0, axis=1)
    v: Floats = rows.mean(axis=0)
    return v
