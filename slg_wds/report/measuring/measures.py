"""Measures the labels of one image in numpy, without dense rows where they are not needed.

Shapes: M crops, k classes stored per crop, n <= k classes that the label type uses, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slg_wds.arrays import F64, I64
from slg_wds.format.records.record import Record
from slg_wds.labels import LabelType, distribution, stored_columns, top

SHOWN = 5  # classes of a crop that a report names; the tail of full labels is the probability outside these


@dataclass(frozen=True)
class Measures:
    """What the labels of one image say, crop by crop.

    Attributes:
        index: the most probable classes, int64 [M, min(k, 5)].
        value: their probabilities, float64 [M, min(k, 5)].
        confidence: the largest probability, float64 [M].
        tail: probability outside the stored classes, float64 [M]; of full labels, outside the five most probable.
        entropy: entropy of the recovered distribution in nats, float64 [M].
        has_values: False if no probabilities are stored. Then value, confidence, tail and entropy mean nothing.
    """

    index: I64
    value: F64
    confidence: F64
    tail: F64
    entropy: F64
    has_values: bool

    @property
    def top(self) -> I64:
        """The most probable class of each crop [M]."""
        return self.index[:, 0]


def measure(record: Record, rule: str | None) -> Measures:
    """Measure one record.

    Args:
        record: the image's labels.
        rule: the label type by which distributions are recovered; None for the stored one.

    Raises:
        RuleError: the record does not store what the label type needs.
    """
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


def leading(record: Record) -> tuple[I64, F64]:
    """Return the most probable classes, at most five, and their probabilities: int64 and float64 [M, min(k, 5)]."""
    n = min(SHOWN, record.k)
    index, value = top(record, n)
    return index, value.astype(np.float64)


def entropy(record: Record, rule: LabelType) -> F64:
    """Return the entropy of the distribution of each crop, as `distribution(record, None, rule)` recovers it.

    No row of C numbers is made. The probability t outside the top is spread as q_c = t v_c / V, where V is the sum of v
    over the classes outside. Hence -sum q log q = -t log(t / V) - (t / V) sum v log v.

    Args:
        record: the image's labels.
        rule: the label type by which distributions are recovered.

    Returns:
        Nats, float64 [M].
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


def _outside(record: Record, n: int) -> tuple[F64, F64]:
    """Return V, the sum of the tail v over the classes outside the top n, and sum v log v over them: float64 [M]."""
    tail, C = record.tail, record.num_classes
    assert tail is not None
    probs, rest = np.asarray(tail.probs, np.float64), float(tail.rest)
    place = np.full(C, -1)
    place[tail.classes] = np.arange(len(probs))
    at = place[record.index[:, :n]]
    # The last column stands for classes that the tail does not keep.
    live = np.ones((len(at), len(probs) + 1))
    live[np.arange(len(at))[:, None], at] = 0.0
    live = live[:, :-1]
    others = C - n - live.sum(axis=1)
    mass = live @ probs + rest * others
    logs = -(live @ _plogp(probs)) - _plogp(np.array([rest]))[0] * others
    even = mass <= 0  # the tail says nothing of these classes: spread evenly
    return np.where(even, float(C - n), mass), np.where(even, 0.0, logs)


def _spread(left: F64, mass: F64, logs: F64) -> F64:
    """Return the entropy of `left`, spread in proportion to v, given V (`mass`) and sum v log v (`logs`): [M]."""
    safe = np.where(left > 0, left, 1.0)
    return np.where(left > 0, -safe * np.log(safe / mass) - safe / mass * logs, 0.0)


def _total(rows: F64) -> F64:
    """Return the entropy of each row in nats."""
    found: F64 = _plogp(rows).sum(axis=1)
    return found


def _plogp(p: F64) -> F64:
    """Return -p log p of each element; 0 where p is 0."""
    safe = np.where(p > 0, p, 1.0)
    found: F64 = -safe * np.log(safe)
    return found


def answer(measures: Measures) -> int:
    """Return the class that the teacher takes the image for: the one of most probability, summed over all crops.

    Only the classes in `index` count. Of equal sums, the lower class wins.
    """
    classes, place = np.unique(measures.index, return_inverse=True)
    return int(classes[np.argmax(np.bincount(place.ravel(), measures.value.ravel(), len(classes)))])


def area(record: Record) -> F64:
    """Return the area of each crop as a share of the image's area, in 0..1: float64 [M]."""
    height, width = record.size
    return record.crops[:, 2] * record.crops[:, 3] / float(height * width)
