"""What is measured of one image's labels, in numpy, without a dense row where that is not needed.

Shapes: M crops, k classes stored per crop, N <= k classes that the rule reads, m classes kept of a tail, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slg_wds.format.records.record import Record
from slg_wds.labels import LabelType, distribution, stored_columns, top

Floats = NDArray[np.float64]
SHOWN = 5  # classes of a crop that are told by name; of full labels the tail is what these leave


@dataclass(frozen=True)
class Measures:
    """What one image's labels say, crop by crop.

    index, value: the most probable classes, int64 and float64 [M, min(k, 5)]. confidence: the largest probability [M].
    tail: what the stored top-k leaves [M], of full labels what their five largest leave. entropy: of the
    recovered distributions, in nats [M]. has_values: False where only the class is stored, and the three mean nothing.
    """

    index: NDArray[np.int64]
    value: Floats
    confidence: Floats
    tail: Floats
    entropy: Floats
    has_values: bool

    @property
    def top(self) -> NDArray[np.int64]:
        """The most probable class of each crop [M]."""
        return self.index[:, 0]


def measure(record: Record, rule: str | None) -> Measures:
    """Measure one record; entropy is that of its labels under a rule of recovery. Raises RuleError."""
    index, value = leading(record)
    k = record.k if not record.full else min(SHOWN, record.num_classes)
    left = value[:, :k].sum(axis=1) if record.full else record.value.sum(axis=1, dtype=np.float64)
    return Measures(
        index=index,
        value=value,
        confidence=value[:, 0],
        tail=np.clip(1.0 - left, 0.0, 1.0),
        entropy=entropy(record, stored_columns(record).resolve(rule)),
        has_values=record.coding != "none",
    )


def leading(record: Record) -> tuple[NDArray[np.int64], Floats]:
    """The most probable classes, at most five, and their probabilities: int64 and float64 [M, min(k, 5)]."""
    n = min(SHOWN, record.k)
    index, value = top(record, n)
    return index, value.astype(np.float64)


def entropy(record: Record, rule: LabelType) -> Floats:
    """The entropy of each crop's distribution under a rule, in nats [M]: that of distribution(record, None, rule).

    The probability outside the top, t, is spread as q_c = t v_c / V with V the sum of v over the classes outside, so
    -sum q log q = -t log(t / V) - (t / V) sum v log v: no row of C numbers is made.
    """
    M, C = len(record.crops), record.num_classes
    if rule.kind == "hard":
        return np.zeros(M)
    if rule.kind == "full" or record.full:
        return _total(distribution(record, None, rule).astype(np.float64))
    n = rule.k or 1
    top = record.value[:, :n].astype(np.float64)
    total = top.sum(axis=1)
    if rule.kind == "marginal_renorm" or n == C:
        top[total == 0] = 1.0
        return _total(top / top.sum(axis=1, keepdims=True))
    left = np.maximum(0.0, 1.0 - total)
    inside = _total(top / np.maximum(total, 1.0)[:, None])
    if rule.kind != "shared_tail" or record.tail is None:
        return inside + _spread(left, np.full(M, float(C - n)), np.zeros(M))
    return inside + _spread(left, *_outside(record, n))


def _outside(record: Record, n: int) -> tuple[Floats, Floats]:
    """V = the tail's sum over the classes outside each crop's top n, and sum v log v over them, each [M]."""
    tail, C = record.tail, record.num_classes
    assert tail is not None
    probs, rest = np.asarray(tail.probs, np.float64), float(tail.rest)
    place = np.full(C, -1)
    place[tail.classes] = np.arange(len(probs))
    at = place[record.index[:, :n]]
    live = np.ones((len(at), len(probs) + 1))  # the last column takes what is at no kept class
    live[np.arange(len(at))[:, None], at] = 0.0
    live = live[:, :-1]
    others = C - n - live.sum(axis=1)
    mass = live @ probs + rest * others
    logs = -(live @ _plogp(probs)) - _plogp(np.array([rest]))[0] * others
    even = mass <= 0  # nothing is known of the tail there: evenly
    return np.where(even, float(C - n), mass), np.where(even, 0.0, logs)


def _spread(left: Floats, mass: Floats, logs: Floats) -> Floats:
    """The entropy of what is left, spread in proportion to a v of this sum and sum v log v."""
    safe = np.where(left > 0, left, 1.0)
    return np.where(left > 0, -safe * np.log(safe / mass) - safe / mass * logs, 0.0)


def _total(rows: Floats) -> Floats:
    """The entropy of each row."""
    found: Floats = _plogp(rows).sum(axis=1)
    return found


def _plogp(p: Floats) -> Floats:
    """-p log p, 0 at 0."""
    safe = np.where(p > 0, p, 1.0)
    found: Floats = -safe * np.log(safe)
    return found


def answer(measures: Measures) -> int:
    """The class an image is taken for: that of the most probability over all crops; ties to the lower class."""
    classes, place = np.unique(measures.index, return_inverse=True)
    return int(classes[np.argmax(np.bincount(place.ravel(), measures.value.ravel(), len(classes)))])


def area(record: Record) -> Floats:
    """The part of the image that each crop shows [M], 0..1."""
    height, width = record.size
    return record.crops[:, 2] * record.crops[:, 3] / float(height * width)
