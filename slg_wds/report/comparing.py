"""Teacher against teacher: label sets of the same crops, pair by pair.

Shapes: M crops of an image, of which D are compared as dense rows, C classes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import LabelSetError
from slg_wds.format.records.record import Record
from slg_wds.report.measures import Measures
from slg_wds.report.statistics import AREAS, bin_of

Floats = NDArray[np.float64]
FLOOR = 1e-7  # the least probability in a divergence: labels without a tail give zeros
DENSE_CROPS, DENSE_NUMBERS = 12, 200_000  # of an image as dense rows at most; numbers of such rows
KL_BINS, LEAST_KL, MOST_KL = 40, 1e-4, 20.0


@dataclass
class Pair:
    """Two sets over all images so far, a and b their numbers among those given.

    kl: the mean of KL(a || b) and KL(b || a) in nats is kl_sum / dense. both: [AREAS, AREAS], confidence of a and of b.
    kl_counts: [KL_BINS] of the mean of both divergences, over log10 of LEAST_KL..MOST_KL. by_class: [2, C], crops by
    target (or a's answer without) and the sums of that mean.
    """

    a: int
    b: int
    num_classes: int
    crops: int = 0
    agree: int = 0
    dense: int = 0
    kl_ab: float = 0.0
    kl_ba: float = 0.0

    def __post_init__(self) -> None:
        self.both = np.zeros((AREAS, AREAS))
        self.kl_counts = np.zeros(KL_BINS)
        self.by_class = np.zeros((2, self.num_classes))

    @property
    def agreement(self) -> float:
        """The part of crops with the same most probable class."""
        return self.agree / max(self.crops, 1)

    def mean_kl(self, forward: bool = True) -> float:
        """KL(a || b) in nats, the mean over crops; not forward: KL(b || a)."""
        return (self.kl_ab if forward else self.kl_ba) / max(self.dense, 1)


class Comparison:
    """Every pair of the sets given. images: how many all sets have; differing: image number -> how far apart (nats)."""

    def __init__(self, num_sets: int, num_classes: int, rules: Sequence[str | None]) -> None:
        self.pairs = [Pair(a, b, num_classes) for a, b in itertools.combinations(range(num_sets), 2)]
        self.rules = rules
        self.images = 0
        self.differing: dict[int, float] = {}

    def add(
        self, number: int, group: int | None, records: Sequence[Record], measures: Sequence[Measures]
    ) -> None:
        """Count one image that all sets have. group: the class it counts for, None for the first set's answers.

        Raises LabelSetError where the sets' crops of it are not the same ones.
        """
        crops = min(record.num_crops for record in records)
        for record in records[1:]:
            _check_same_crops(records[0], record, crops)
        self.images += 1
        at = _spaced(crops, records[0].num_classes)
        rows = [dense(record, at, rule) for record, rule in zip(records, self.rules, strict=True)]
        apart = [self._add_pair(pair, group, at, crops, rows, measures) for pair in self.pairs]
        self.differing[number] = max(apart, default=0.0)

    def _add_pair(
        self,
        pair: Pair,
        group: int | None,
        at: NDArray[np.int64],
        crops: int,
        rows: Sequence[Floats],
        measures: Sequence[Measures],
    ) -> float:
        a, b = measures[pair.a], measures[pair.b]
        pair.crops += crops
        pair.agree += int((a.top[:crops] == b.top[:crops]).sum())
        flat = bin_of(a.confidence[:crops], AREAS) * AREAS + bin_of(b.confidence[:crops], AREAS)
        pair.both += np.bincount(flat, minlength=AREAS * AREAS).reshape(AREAS, AREAS)
        ab, ba = divergence(rows[pair.a], rows[pair.b]), divergence(rows[pair.b], rows[pair.a])
        both = (ab + ba) / 2
        pair.dense += len(at)
        pair.kl_ab += float(ab.sum())
        pair.kl_ba += float(ba.sum())
        span = np.log10(MOST_KL / LEAST_KL)
        place = np.log10(np.maximum(both, LEAST_KL) / LEAST_KL) / span
        pair.kl_counts += np.bincount(bin_of(place, KL_BINS), minlength=KL_BINS)
        classes = a.top[at] if group is None else np.full(len(at), group)
        np.add.at(pair.by_class[0], classes, 1)
        np.add.at(pair.by_class[1], classes, both)
        return float(both.mean()) if len(both) else 0.0


def dense(record: Record, at: NDArray[np.int64], rule: str | None) -> Floats:
    """The distributions of some crops under a rule, float64 [D, C]."""
    some = dataclasses.replace(
        record, crops=record.crops[at], flips=record.flips[at], index=record.index[at], value=record.value[at]
    )
    return some.distribution(None, rule).astype(np.float64)


def divergence(p: Floats, q: Floats) -> Floats:
    """KL(p || q) of each row in nats [D], probabilities below FLOOR counted as FLOOR."""
    p, q = np.maximum(p, FLOOR), np.maximum(q, FLOOR)
    return np.asarray((p * np.log(p / q)).sum(axis=1))


def _spaced(crops: int, num_classes: int) -> NDArray[np.int64]:
    count = min(crops, max(1, min(DENSE_CROPS, DENSE_NUMBERS // num_classes)))
    return (
        np.unique(np.linspace(0, crops - 1, count).round().astype(np.int64))
        if count
        else np.empty(0, np.int64)
    )


def _check_same_crops(a: Record, b: Record, crops: int) -> None:
    same = np.array_equal(a.crops[:crops], b.crops[:crops]) and np.array_equal(
        a.flips[:crops], b.flips[:crops]
    )
    if not same:
        raise LabelSetError(
            "the sets hold other crops of the image, so their teachers cannot be compared",
            key=a.key,
            hint="give sets made with one --seed and crop scale, or with --reference-path",
        )
