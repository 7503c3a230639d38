"""Which samples and crops are in which batch of which epoch, for one rank. Reads nothing but the index.

Shapes: n images of this rank in a batch, c crops of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from slg_wds.arrays import I64
from slg_wds.console import counted
from slg_wds.errors import BatchTooLargeError
from slg_wds.replay.assembly.selection import Selection
from slg_wds.replay.order.crop_schedule import KeyHashes, batch_crop_numbers
from slg_wds.replay.order.sequential import SequentialOrder
from slg_wds.replay.order.shuffled import ShuffledOrder, Spans
from slg_wds.replay.settings import BatchShare, OrderSettings
from slg_wds.replay.sources.label_sets import LabelSets, SamplePlace

PADDING = SamplePlace(-1, -1, "")
BLOCK = 16  # batches whose indices are computed together: a call costs as much as about a thousand images


class PlannedBatch(NamedTuple):
    """The samples and crops of one batch of this rank.

    Attributes:
        samples: [n], PADDING in padding.
        crops: numbers in the record, int64 [n, c], 0 in padding.
        weight: see `Batch`.
    """

    samples: list[SamplePlace]
    crops: I64
    weight: float

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the places as columns, which takes a tenth of the time."""
        return _unpickled, (*map(list, zip(*self.samples, strict=True)), self.crops, self.weight)


def _unpickled(
    shards: list[int], positions: list[int], keys: list[str], crops: I64, weight: float
) -> PlannedBatch:
    return PlannedBatch(list(map(SamplePlace, shards, positions, keys)), crops, weight)


class Epochs:
    """All epochs of a loader.

    Args:
        sets: label sets of one plan.
        selection: the samples and crops that take part.
        share: of each global batch, this rank's.
        settings: of the order.

    Attributes:
        fingerprint: all that the order depends on besides the epoch; a state of another one is refused.
        num_samples: images of an epoch over all ranks, before a partial batch is dropped.

    Raises:
        BatchTooLargeError: the samples do not fill one batch.
    """

    def __init__(
        self, sets: LabelSets, selection: Selection, share: BatchShare, settings: OrderSettings
    ) -> None:
        self._sets, self._selection, self._share, self._settings = sets, selection, share, settings
        self._hashes = KeyHashes(len(sets.plan.keys))
        order = self._order(0)
        self._length, self.num_samples = len(order), order.num_samples
        self.fingerprint: dict[str, Any] = {
            **order.fingerprint,
            "crops_per_image": share.crops_per_image,
            "shuffle": settings.shuffle,
            "evaluation": settings.evaluation,
            "last": settings.last,
        }
        if selection.digest is not None:
            self.fingerprint["kept_crops"] = selection.digest
        if not self._length:
            raise self._too_large(sets.url)

    def _too_large(self, url: str) -> BatchTooLargeError:
        images, each = self._share.images, self._share.crops_per_image
        error = BatchTooLargeError(
            f"{counted(self.num_samples, 'image')} cannot fill a batch of {counted(images, 'image')}, "
            f"{counted(each, 'crop')} of each",
            url=url,
            hint="lower global_batch_size, or pass last='pad'",
        )
        error.images = self.num_samples
        return error

    def __len__(self) -> int:
        return self._length

    def epoch(self, number: int) -> Epoch:
        """Return the batches of one epoch, numbered from 0."""
        c = None if self._settings.evaluation else self._share.crops_per_image
        order, columns = self._order(number), self._share.columns
        return Epoch(
            self._sets, self._selection, self._hashes, order, columns, self._settings.seed, number, c
        )

    def _order(self, epoch: int) -> ShuffledOrder | SequentialOrder:
        choice, sizes, batch = self._settings, self._selection.sizes, self._share.images
        if not choice.shuffle:
            return SequentialOrder(sizes, self._digest, choice.seed, batch, choice.last)
        lanes, window, last = choice.lanes, choice.window, choice.last
        return ShuffledOrder(sizes, self._digest, choice.seed, epoch, batch, lanes, window, last)

    @property
    def _digest(self) -> str:
        """The digest of the samples, and of the filter if there is one."""
        crop_filter = self._settings.crop_filter
        if crop_filter is None:
            return self._sets.digest
        return hashlib.sha256(f"{self._sets.digest} {crop_filter}".encode()).hexdigest()


class Epoch:
    """The batches of one epoch.

    Args:
        columns: [first, last) of each global batch, those of this rank.
        crops_per_image: c; None takes each image's first crop.
    """

    def __init__(
        self,
        sets: LabelSets,
        selection: Selection,
        hashes: KeyHashes,
        order: ShuffledOrder | SequentialOrder,
        columns: tuple[int, int],
        seed: int,
        epoch: int,
        crops_per_image: int | None,
    ) -> None:
        self._sets, self._selection, self._hashes = sets, selection, hashes
        self._order, self._columns = order, columns
        self._seed, self._epoch, self._c = seed, epoch, crops_per_image

    def __len__(self) -> int:
        return len(self._order)

    def spans(self) -> Spans:
        """Return when this rank first needs each shard, and when it needs it no more."""
        return self._order.spans(*self._columns)

    def batches(self, start: int) -> Iterator[PlannedBatch]:
        """Yield the batches from number `start` on."""
        for first in range(start, len(self), BLOCK):
            last = min(first + BLOCK, len(self))
            shards, samples = self._order.batches(first, last, *self._columns)
            yield from self._block(first, shards, samples)

    def _block(self, first: int, shards: I64, samples: I64) -> Iterator[PlannedBatch]:
        batches, n = shards.shape
        present = np.flatnonzero(shards.reshape(-1) >= 0)
        shard, sample = shards.reshape(-1)[present], samples.reshape(-1)[present]
        position = self._selection.positions(shard, sample)
        numbers = self._sets.numbers(shard, position)
        keys = self._sets.plan.keys[numbers]
        crops = np.zeros((shards.size, self._c or 1), np.int64)
        if self._c is not None:
            counts = self._selection.counts(shard, sample)
            hashes = self._hashes.of(numbers, keys)
            chosen = batch_crop_numbers(self._seed, hashes, self._epoch, counts, self._c)
            crops[present] = self._selection.crops(shard, sample, chosen)
        places = [PADDING] * shards.size
        found = map(SamplePlace, shard.tolist(), position.tolist(), keys)
        for at, place in zip(present.tolist(), found, strict=True):
            places[at] = place
        for t in range(batches):
            row = slice(t * n, (t + 1) * n)
            yield PlannedBatch(
                places[row], crops[row], self._weight(first + t, float((shards[t] >= 0).mean()))
            )

    def _weight(self, batch: int, present: float) -> float:
        """Return this rank's share of images that are no padding, over that of all ranks together."""
        size = self._order.batch_size
        return present * size / min(size, self._order.num_samples - batch * size)
