"""What is counted over the sampled images: fixed arrays, whatever their number.

Shapes: M crops of an image, C classes, G cells along each side of the coverage.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slg_wds.format.records.record import Record
from slg_wds.images import LabelledImage
from slg_wds.report.measures import Measures, answer, area

Floats = NDArray[np.float64]
BINS = 200  # of histograms; figures join several
CELLS = 24
AREAS, RELIABILITY = 25, 10
LEAST_TAIL = 1e-6  # smaller tails count as this one on the logarithmic axis
ALIKE, OTHER = (
    0,
    1,
)  # rows of histograms: crops that agree with the target, and those that do not (or have none)


@dataclass(frozen=True)
class Row:
    """One sampled image in short.

    number: in the plan. image: what its labels are of. answer: the class it is taken for. agreement: part of its
    crops; None without a target.
    """

    number: int
    image: LabelledImage
    target: int | None
    answer: int
    agreement: float | None
    confidence: float
    entropy: float

    @property
    def key(self) -> str:
        return self.image.key

    @property
    def disagrees(self) -> bool:
        return self.target is not None and self.answer != self.target


@dataclass
class ClassStatistics:
    """Per class, each [C]: images and crops with this target, how many crops agree, the sum of their confidence;
    and how many of all crops are taken for it."""

    num_classes: int
    crops: Floats = field(init=False)
    images: Floats = field(init=False)
    agree: Floats = field(init=False)
    confidence: Floats = field(init=False)
    said: Floats = field(init=False)

    def __post_init__(self) -> None:
        for name in ("crops", "images", "agree", "confidence", "said"):
            setattr(self, name, np.zeros(self.num_classes))


class Statistics:
    """Counts over images of one set.

    comparable: whether targets and labels number the same classes. entropy_top: log C, the largest entropy in nats.
    confidence, entropy, tail: histograms [2, BINS], rows ALIKE and OTHER; of the tail over log10 of LEAST_TAIL..1.
    covered, sure: [G, G], how many crops show a cell of the image, and the sum of their confidence.
    by_area: [AREAS, AREAS] of area and confidence. reliability: [3, 10] crops, confidence and agreement by confidence.
    """

    def __init__(self, num_classes: int, comparable: bool) -> None:
        self.comparable = comparable
        self.images = self.crops = self.with_target = self.agree = self.flips = self.disagreeing = 0
        self.images_with_target = 0
        self.sums = {"confidence": 0.0, "entropy": 0.0, "tail": 0.0, "area": 0.0}
        self.has_values = True
        self.entropy_top = math.log(max(num_classes, 2))
        self.confidence, self.entropy, self.tail = (np.zeros((2, BINS)) for _ in range(3))
        self.covered, self.sure = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
        self.by_area = np.zeros((AREAS, AREAS))
        self.reliability = np.zeros((3, RELIABILITY))
        self.classes = ClassStatistics(num_classes)
        self.confusions: Counter[tuple[int, int]] = Counter()
        self.rows: list[Row] = []

    def add(self, number: int, record: Record, measures: Measures) -> Row:
        """Count one image."""
        target = record.target if self.comparable else None
        alike = np.zeros(len(measures.top), bool) if target is None else measures.top == target
        self.has_values = self.has_values and measures.has_values
        self._add_sums(record, measures)
        self._add_histograms(measures, alike)
        self._add_geometry(record, measures)
        if target is not None:
            self._add_target(target, measures, alike)
        np.add.at(self.classes.said, measures.top, 1)
        row = Row(
            number,
            LabelledImage.of(record),
            target,
            answer(measures),
            None if target is None else float(alike.mean()),
            float(measures.confidence.mean()),
            float(measures.entropy.mean()),
        )
        self.disagreeing += row.disagrees
        self.rows.append(row)
        return row

    def mean(self, name: str) -> float:
        """The mean over crops of confidence, entropy (nats), tail or area."""
        return self.sums[name] / max(self.crops, 1)

    @property
    def agreement(self) -> float | None:
        """The part of crops with a target whose most probable class it is."""
        return self.agree / self.with_target if self.with_target else None

    def _add_sums(self, record: Record, measures: Measures) -> None:
        self.images += 1
        self.crops += len(record.crops)
        self.flips += int(record.flips.sum())
        for name in ("confidence", "entropy", "tail"):
            self.sums[name] += float(getattr(measures, name).sum())
        self.sums["area"] += float(area(record).sum())

    def _add_histograms(self, measures: Measures, alike: NDArray[np.bool_]) -> None:
        logs = 1 - np.log10(np.maximum(measures.tail, LEAST_TAIL)) / math.log10(LEAST_TAIL)
        places = (measures.confidence, measures.entropy / self.entropy_top, logs)
        for counts, place in zip((self.confidence, self.entropy, self.tail), places, strict=True):
            at = bin_of(place, BINS)
            counts[ALIKE] += np.bincount(at[alike], minlength=BINS)
            counts[OTHER] += np.bincount(at[~alike], minlength=BINS)

    def _add_target(self, target: int, measures: Measures, alike: NDArray[np.bool_]) -> None:
        crops, agree = len(alike), int(alike.sum())
        self.with_target += crops
        self.images_with_target += 1
        self.agree += agree
        of = self.classes
        of.images[target] += 1
        of.crops[target] += crops
        of.agree[target] += agree
        of.confidence[target] += measures.confidence.sum()
        at = bin_of(measures.confidence, RELIABILITY)
        for counts, weights in zip(self.reliability, (None, measures.confidence, alike), strict=True):
            counts += np.bincount(at, weights, RELIABILITY)
        self.confusions.update((target, int(other)) for other in measures.top[~alike])

    def _add_geometry(self, record: Record, measures: Measures) -> None:
        down = overlaps(record.crops[:, 0], record.crops[:, 2], record.size[0])
        along = overlaps(record.crops[:, 1], record.crops[:, 3], record.size[1])
        self.covered += down.T @ along
        self.sure += (down * measures.confidence[:, None]).T @ along
        flat = bin_of(area(record), AREAS) * AREAS + bin_of(measures.confidence, AREAS)
        self.by_area += np.bincount(flat, minlength=AREAS * AREAS).reshape(AREAS, AREAS)


def bin_of(values: Floats, bins: int) -> NDArray[np.int64]:
    """The bin of each value of 0..1 among equal ones; what lies outside counts at the edge."""
    return np.clip((values * bins).astype(np.int64), 0, bins - 1)


def overlaps(start: NDArray[np.int64], extent: NDArray[np.int64], size: int) -> Floats:
    """How much of each of CELLS equal cells along a side of `size` pixels each crop covers: [M, CELLS], 0..1."""
    edges = np.arange(CELLS + 1) * (size / CELLS)
    low = np.maximum(edges[:-1], start[:, None])
    high = np.minimum(edges[1:], (start + extent)[:, None])
    return np.asarray(np.maximum(high - low, 0.0) / (size / CELLS))
