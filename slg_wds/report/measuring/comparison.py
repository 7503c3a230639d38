"""Compares teachers: label sets of the same crops, pair by pair.

Shapes: M crops of an image, D of them compared as dense rows, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slg_wds.arrays import F64, I64
from slg_wds.errors import LabelSetError
from slg_wds.format.records.record import Record
from slg_wds.format.records.views import same_views
from slg_wds.labelset.combining.joining import take_crops
from slg_wds.report.measuring.measures import Measures
from slg_wds.report.measuring.statistics import AREAS, bin_of

FLOOR = 1e-7  # smaller probabilities count as this in a divergence: labels without a tail have zeros
DENSE_CROPS, DENSE_NUMBERS = 12, 200_000  # most dense rows of an image, and most numbers in them
KL_BINS, LEAST_KL, MOST_KL = 40, 1e-4, 20.0


@dataclass
class TeacherPair:
    """Two label sets, counted over all images so far.

    Attributes:
        a, b: numbers of the sets in the report.
        num_classes: classes of the labels.
        crops, agree: how many crops, and how many of them have the same most probable class in both.
        dense: crops whose divergence was computed.
        kl_ab, kl_ba: sums over the latter of KL(a || b) and KL(b || a), in nats.
        both: [AREAS, AREAS]. Crops by confidence of a and of b.
        kl_counts: [KL_BINS]. Crops by the mean of both divergences, over log10 of LEAST_KL..MOST_KL.
        by_class: [2, C]. For each class: crops whose image has it as target (without targets, crops for which it is a's
            most probable class), and the sum over them of the mean of both divergences.
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
        """Share of crops with the same most probable class."""
        return self.agree / max(self.crops, 1)

    def mean_kl(self, forward: bool = True) -> float:
        """Return the mean over crops of KL(a || b) in nats; if not `forward`, of KL(b || a)."""
        return (self.kl_ab if forward else self.kl_ba) / max(self.dense, 1)


class Comparison:
    """Counts every pair of label sets.

    Args:
        num_sets: how many sets.
        num_classes: classes of the labels.
        rules: for each set, the label type by which its distributions are recovered.

    Attributes:
        pairs: every pair of two sets.
        images: images that all sets have.
        differing: by an image's number, the mean divergence over its crops of the pair that differs most, in nats.
    """

    def __init__(self, num_sets: int, num_classes: int, rules: Sequence[str | None]) -> None:
        self.pairs = [TeacherPair(a, b, num_classes) for a, b in itertools.combinations(range(num_sets), 2)]
        self.rules = rules
        self.images = 0
        self.differing: dict[int, float] = {}

    def add(
        self, number: int, group: int | None, records: Sequence[Record], measures: Sequence[Measures]
    ) -> None:
        """Count one image that all sets have.

        Args:
            number: the image's number in the plan.
            group: the class that the image counts for; None for each crop's most probable class in a pair's first set.
            records: the image's labels in every set.
            measures: what was measured of each.

        Raises:
            LabelSetError: the sets hold different crops of the image.
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
        pair: TeacherPair,
        group: int | None,
        at: I64,
        crops: int,
        rows: Sequence[F64],
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


def dense(record: Record, at: I64, rule: str | None) -> F64:
    """Return the distributions of the crops `at`, recovered by a label type: float64 [D, C]."""
    return take_crops(record, at).distribution(None, rule).astype(np.float64)


def divergence(p: F64, q: F64) -> F64:
    """Return KL(p || q) of each row in nats, with probabilities below FLOOR counted as FLOOR.

    Args:
        p: distributions, float64 [D, C].
        q: distributions, float64 [D, C].

    Returns:
        float64 [D].
    """
    p, q = np.maximum(p, FLOOR), np.maximum(q, FLOOR)
    return np.asarray((p * np.log(p / q)).sum(axis=1))


def _spaced(crops: int, num_classes: int) -> I64:
    """Return the numbers of the crops that are compared as dense rows, evenly spaced, [D]."""
    count = min(crops, max(1, min(DENSE_CROPS, DENSE_NUMBERS // num_classes)))
    if not count:
        return np.empty(0, np.int64)
    return np.unique(np.linspace(0, crops - 1, count).round().astype(np.int64))


def _check_same_crops(a: Record, b: Record, crops: int) -> None:
    same = np.array_equal(a.crops[:crops], b.crops[:crops]) and np.array_equal(
        a.flips[:crops], b.flips[:crops]
    )
    if not same:
        raise LabelSetError(
            "the sets hold other crops of the image, so their teachers cannot be compared",
            key=a.key,
            hint="give sets that slg-wds generate made with the same --seed and crop options, or with --reference-path",
        )
    views = [None if record.views is None else record.views[:crops] for record in (a, b)]
    if not same_views(*views):
        raise LabelSetError(
            "the sets do other things to the crops of the image (operations, erased boxes or other images mixed in), "
            "so their teachers saw other pixels and cannot be compared",
            key=a.key,
            hint="label with slg-wds generate --reference-path FIRST-SET",
        )
