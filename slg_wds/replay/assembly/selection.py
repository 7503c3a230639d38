"""Which samples and which of their crops take part: all, or those that a filter keeps.

Shapes: n samples of a batch, c crops of each, M crops of a record.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from slg_wds.arrays import F64, I64, U8, Bools
from slg_wds.concurrency.prefetch import window
from slg_wds.errors import ReplayError, UsageError
from slg_wds.format.records.low_rank.blocks import LowRank
from slg_wds.format.records.record import Record
from slg_wds.replay.sources.label_sets import LabelSets

MEASURES = ("confidence", "tail")


class AllCrops:
    """Every sample with all its crops."""

    left_out = repeating = 0
    digest = None

    def __init__(self, sizes: I64, num_crops: int) -> None:
        self.sizes, self._num_crops = sizes, num_crops

    def positions(self, shard: I64, sample: I64) -> I64:
        """Return the position in its shard of each sample that takes part, int64 [n]; `sample` counts only these."""
        return sample

    def counts(self, shard: I64, sample: I64) -> I64 | int:
        """Return how many crops there are to choose from, one number for all or int64 [n]."""
        return self._num_crops

    def crops(self, shard: I64, sample: I64, chosen: I64) -> I64:
        """Return the numbers of crops in their records, int64 [n, c]; `chosen` counts only the crops to choose from."""
        return chosen


@dataclass(frozen=True)
class CropFilter:
    """A range, both ends included, of a measure of each crop's labels as stored.

    measure: "confidence", the largest probability, or "tail", what the stored classes leave of 1; for low-rank labels
    that is the probability of the classes that are not kept. Of several label sets the weighted mean counts.
    """

    measure: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UsageError(
                f"crops are not filtered by {self.measure!r}", hint=f"by {' or '.join(MEASURES)}"
            )
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise UsageError(f"a crop filter from {self.low} to {self.high} is no range")

    def measured(self, record: Record) -> F64:
        """Return the measure of every crop, float64 [M]."""
        if record.low_rank is not None:
            return self._of_low_rank(record.low_rank)
        value = record.value.astype(np.float64)
        if self.measure == "confidence":
            return np.asarray(value.max(axis=1, initial=0.0))
        return np.asarray(np.maximum(0.0, 1.0 - value.sum(axis=1)))

    def _of_low_rank(self, labels: LowRank) -> F64:
        found = np.empty(len(labels.block_of))
        for number, block in enumerate(labels.blocks):
            mine = np.flatnonzero(labels.block_of == number)
            rows = block.distributions(labels.coefficients[mine, : block.rank])
            kept = rows[:, block.classes]
            sure = self.measure == "confidence"
            found[mine] = rows.max(axis=1) if sure else np.maximum(0.0, 1.0 - kept.sum(axis=1))
        return found

    def keeps(self, measure: F64) -> Bools:
        """Say which crops are within the range, bounds included."""
        return (measure >= self.low) & (measure <= self.high)


class FilteredCrops:
    """The samples with a crop that a filter keeps, and these crops.

    Every record is read once to find out: on 2 cores about 3 minutes for ImageNet's 1.28 million records of 500
    crops, and the whole of the labels over the network where they are remote. Kept are M bits a sample.

    Attributes:
        left_out: samples without any crop left. repeating: samples with fewer than `crops_per_image`.
        digest: of which crops are kept, hex. More decides that than the filter: the weights of several sets do, too.
    """

    def __init__(
        self,
        sets: LabelSets,
        crop_filter: CropFilter,
        crops_per_image: int,
        threads: int,
        read: Callable[[int, int], list[Record]],
    ) -> None:
        self._num_crops = sets.num_crops
        shards = [number for number in range(len(sets.sizes)) if sets.sizes[number]]
        with ThreadPoolExecutor(threads, "slg-filter") as pool:
            tasks = (pool.submit(_kept, sets, crop_filter, number, read) for number in shards)
            kept = dict(zip(shards, (task.result() for task in window(tasks, 2 * threads)), strict=True))
        self.digest = _digest(kept)
        self._positions = {number: np.flatnonzero(bits.any(axis=1)) for number, bits in kept.items()}
        self._bits = {number: bits[self._positions[number]] for number, bits in kept.items()}
        self._counts = {
            number: np.unpackbits(bits, axis=1).sum(axis=1, dtype=np.int64)
            for number, bits in self._bits.items()
        }
        self.sizes = np.zeros_like(sets.sizes)
        for number, positions in self._positions.items():
            self.sizes[number] = len(positions)
        self.left_out = int(sets.sizes.sum() - self.sizes.sum())
        self.repeating = sum(int((counts < crops_per_image).sum()) for counts in self._counts.values())
        if not self.sizes.any():
            raise ReplayError(
                f"no crop of any image has a {crop_filter.measure} in {crop_filter.low:g} to {crop_filter.high:g}",
                url=sets.url,
            )

    def positions(self, shard: I64, sample: I64) -> I64:
        """See AllCrops."""
        return _gathered(self._positions, shard, sample)

    def counts(self, shard: I64, sample: I64) -> I64 | int:
        """See AllCrops."""
        return _gathered(self._counts, shard, sample)

    def crops(self, shard: I64, sample: I64, chosen: I64) -> I64:
        """See AllCrops."""
        out = np.empty_like(chosen)
        for i, (s, p) in enumerate(zip(shard.tolist(), sample.tolist(), strict=True)):
            kept = np.flatnonzero(np.unpackbits(self._bits[s][p], count=self._num_crops))
            out[i] = kept[chosen[i]]
        return out


Selection = AllCrops | FilteredCrops


def select(
    sets: LabelSets,
    crop_filter: CropFilter | None,
    crops_per_image: int,
    threads: int,
    read: Callable[[int, int], list[Record]],
) -> Selection:
    """Return all crops, or those that a filter keeps; see FilteredCrops.

    Raises:
        LabelSetError, UsageError: a filter for a set of embeddings, or of hard labels, which have nothing to measure.
    """
    if crop_filter is None:
        return AllCrops(sets.sizes, sets.num_crops)
    for labels in sets.members:
        labels.refuse_embeddings()
        labels.refuse_hard(f"a crop filter by {crop_filter.measure}")
    return FilteredCrops(sets, crop_filter, crops_per_image, threads, read)


def _digest(kept: Mapping[int, U8]) -> str:
    state = hashlib.sha256()
    for bits in kept.values():
        state.update(bits.tobytes())
    return state.hexdigest()


def _gathered(table: dict[int, I64], shard: I64, sample: I64) -> I64:
    pairs = zip(shard.tolist(), sample.tolist(), strict=True)
    return np.fromiter((table[s][p] for s, p in pairs), np.int64, len(shard))


def _kept(
    sets: LabelSets, crop_filter: CropFilter, shard: int, read: Callable[[int, int], list[Record]]
) -> U8:
    """Return which crops of a shard's samples are kept, as bits [samples, ceil(M / 8)]."""
    rows = [
        crop_filter.keeps(sum(_measures(sets, crop_filter, read(shard, position))))  # type: ignore[arg-type]
        for position in range(int(sets.sizes[shard]))
    ]
    return np.packbits(np.stack(rows), axis=1)


def _measures(sets: LabelSets, crop_filter: CropFilter, records: list[Record]) -> Iterator[F64]:
    for weight, record in zip(sets.weights, records, strict=True):
        yield weight * crop_filter.measured(record)[: sets.num_crops]
