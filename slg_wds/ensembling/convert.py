"""The labels of one record -> the same labels with fewer classes, or without probabilities."""

from __future__ import annotations

import numpy as np

from slg_wds.arrays import F64, I64
from slg_wds.console import counted
from slg_wds.ensembling.merge import LabelFormat, RecordLabels
from slg_wds.errors import UsageError
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import Tail, build_tail
from slg_wds.labels import top
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


class Conversion:
    """Converts the labels of one record to another format, one run of crops after the other.

    Stored probabilities stay exactly as they are. With the stored k the tail stays as it is. With a lower k the tail
    also gets the classes that are dropped.

    Args:
        to: the format to convert to.
    """

    def __init__(self, to: LabelFormat) -> None:
        self._to = to
        self._parts: list[RecordLabels] = []
        # The probability of each class outside the top k, summed over crops [C]; only full labels need it.
        self._outside: F64 | None = None
        self._tail: Tail | None = None

    def add(self, part: Record) -> RecordLabels:
        """Convert the labels of the next crops of the record, and return them without a tail.

        Only full labels may come in more than one part.
        """
        to = self._to
        index, value = (part.index, part.value) if to.full else top(part, to.k)
        if to.label.kind == "hard":
            value = np.ones_like(value)
        if to.writes_tail and part.full:
            self._add_outside(part, index)
        elif to.writes_tail:
            self._tail = _tail(part, to)
        self._parts.append(RecordLabels(index, value, None))
        return self._parts[-1]

    def finish(self) -> RecordLabels:
        """Return the labels of all crops."""
        parts, to = self._parts, self._to
        value = parts[0].value if len(parts) == 1 else np.concatenate([part.value for part in parts])
        crops = len(value)
        if to.full:
            return RecordLabels(np.broadcast_to(np.arange(to.num_classes), value.shape), value, None)
        tail = self._tail
        if self._outside is not None and crops:
            tail = build_tail(self._outside / crops, to.tail_classes, crops, to.k)
        return RecordLabels(np.concatenate([part.index for part in parts]), value, tail)

    def _add_outside(self, part: Record, index: I64) -> None:
        rows = part.value.astype(np.float64)
        np.put_along_axis(rows, index, 0.0, axis=1)
        if self._outside is None:
            self._outside = np.zeros(rows.shape[1])
        for row in rows:  # one after the other, so that the sum does not depend on the parts
            self._outside += row


def _tail(record: Record, to: LabelFormat) -> Tail | None:
    M = record.num_crops
    if not M:
        return None
    kept = min(to.tail_classes, M // 4, record.num_classes - to.k)
    if to.k == record.k and record.tail is not None and len(record.tail.classes) <= kept:
        return record.tail
    v = tail_vector(record)
    if to.k < record.k:
        np.add.at(v, record.index[:, to.k :], record.value[:, to.k :].astype(np.float64) / M)
    return build_tail(v, to.tail_classes, M, to.k)
