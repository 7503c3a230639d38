"""Counts the labels of all sampled images in arrays of fixed size.

Shapes: M crops of an image, C classes, G = CELLS cells along each side of a map of the image.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from slg_wds.arrays import F64, I64, Bools
from slg_wds.format.records.record import Record
from slg_wds.images import LabelledImage
from slg_wds.inspection.low_rank import CodedImage
from slg_wds.report.measuring.measures import Measures, answer, area

BINS = 200  # of a histogram; figures join several bins into a bar
CELLS = 24
AREAS, RELIABILITY = 25, 10
LEAST_TAIL = 1e-6  # smaller tails count as this on the logarithmic axis
# Rows of a histogram: crops that agree with the target; crops that do not, or have no target.
ALIKE, OTHER = 0, 1


@dataclass(frozen=True)
class ImageSummary:
    """One sampled image in short.

    Attributes:
        number: the image's number in the plan.
        image: which file was labelled.
        target: number of its hard label; None without one.
        answer: the class that the teacher takes it for.
        agreement: share of its crops whose most probable class is the target; None without a target.
        confidence: mean over crops of the largest probability.
        entropy: mean over crops of the entropy, in nats.
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
        """The image's key."""
        return self.image.key

    @property
    def disagrees(self) -> bool:
        """True if the teacher takes the image for another class than its target."""
        return self.target is not None and self.answer != self.target


@dataclass
class ClassStatistics:
    """Counts per class, each float64 [C].

    Attributes:
        images, crops: how many have this class as target.
        agree: of these crops, those whose most probable class is the target.
        confidence: sum of the confidence of these crops.
        said: crops of all images whose most probable class this is.
    """

    num_classes: int
    crops: F64 = field(init=False)
    images: F64 = field(init=False)
    agree: F64 = field(init=False)
    confidence: F64 = field(init=False)
    said: F64 = field(init=False)

    def __post_init__(self) -> None:
        for name in ("crops", "images", "agree", "confidence", "said"):
            setattr(self, name, np.zeros(self.num_classes))


class Statistics:
    """Counts over the images of one label set.

    Args:
        num_classes: classes of the labels.
        comparable: True if the images' targets are class numbers of the labels.

    Attributes:
        images, crops, flips: how many were counted, and how many of the crops are flipped.
        images_with_target, with_target: images with a target, and their crops.
        agree: crops whose most probable class is the target.
        sums: sums over crops of confidence, entropy in nats, tail and area.
        disagreeing: images that the teacher takes for another class than their target.
        has_values: False if a label stores no probabilities.
        entropy_top: log C, the largest possible entropy, in nats.
        confidence, entropy, tail: histograms [2, BINS] with the rows ALIKE and OTHER: of confidence over 0..1, of
            entropy over 0..entropy_top, of the tail's probability over log10 of LEAST_TAIL..1.
        covered, sure: [G, G]. How many crops show a cell of the image, and the sum of their confidence.
        by_area: [AREAS, AREAS]. Crops by area and confidence.
        reliability: [3, RELIABILITY]. By confidence: crops, sum of confidence, crops that agree.
        classes: counts per class.
        confusions: how many crops with a target have another most probable class, by (target, that class).
        rows: a summary of every image.
        coded: what the low-rank labels of each image are; empty for other labels.
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
        self.rows: list[ImageSummary] = []
        self.coded: list[CodedImage] = []

    def add(self, number: int, record: Record, measures: Measures) -> ImageSummary:
        """Count one image, given by its number in the plan, its record and its measures."""
        target = record.target if self.comparable else None
        alike = np.zeros(len(measures.top), bool) if target is None else measures.top == target
        self.has_values = self.has_values and measures.has_values
        self._add_sums(record, measures)
        self._add_histograms(measures, alike)
        self._add_geometry(record, measures)
        if target is not None:
            self._add_target(target, measures, alike)
        np.add.at(self.classes.said, measures.top, 1)
        row = ImageSummary(
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
        """Return the mean over crops of `confidence`, `entropy` (nats), `tail` or `area`."""
        return self.sums[name] / max(self.crops, 1)

    @property
    def agreement(self) -> float | None:
        """Share of crops with a target whose most probable class is the target; None without any."""
        return self.agree / self.with_target if self.with_target else None

    def _add_sums(self, record: Record, measures: Measures) -> None:
        self.images += 1
        self.crops += len(record.crops)
        self.flips += int(record.flips.sum())
        for name in ("confidence", "entropy", "tail"):
            self.sums[name] += float(getattr(measures, name).sum())
        self.sums["area"] += float(area(record).sum())

    def _add_histograms(self, measures: Measures, alike: Bools) -> None:
        logs = 1 - np.log10(np.maximum(measures.tail, LEAST_TAIL)) / math.log10(LEAST_TAIL)
        places = (measures.confidence, measures.entropy / self.entropy_top, logs)
        for counts, place in zip((self.confidence, self.entropy, self.tail), places, strict=True):
            at = bin_of(place, BINS)
            counts[ALIKE] += np.bincount(at[alike], minlength=BINS)
            counts[OTHER] += np.bincount(at[~alike], minlength=BINS)

    def _add_target(self, target: int, measures: Measures, alike: Bools) -> None:
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


def bin_of(values: F64, bins: int) -> I64:
    """Return the bin of each value among equal bins over 0..1. Values outside go into the first or last bin."""
    return np.clip((values * bins).astype(np.int64), 0, bins - 1)


def overlaps(start: I64, extent: I64, size: int) -> F64:
    """Return how much of each cell along one side of the image each crop covers.

    Args:
        start: where each crop starts along this side, in pixels, int64 [M].
        extent: length of each crop along this side, in pixels, int64 [M].
        size: length of the side in pixels.

    Returns:
        Shares in 0..1, float64 [M, CELLS].
    """
    edges = np.arange(CELLS + 1) * (size / CELLS)
    low = np.maximum(edges[:-1], start[:, None])
    high = np.minimum(edges[1:], (start + extent)[:, None])
    return np.asarray(np.maximum(high - low, 0.0) / (size / CELLS))
