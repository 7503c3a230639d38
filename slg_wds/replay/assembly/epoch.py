"""One epoch of one rank: which samples and crops are in which batch. No IO but the index.

Shapes: n images of this rank in a batch, c crops of each.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from slg_wds.replay.assembly.selection import Selection
from slg_wds.replay.order.crop_schedule import batch_crop_numbers, hash_keys
from slg_wds.replay.order.sequential import SequentialOrder
from slg_wds.replay.order.shuffled import ShuffledOrder
from slg_wds.replay.sources.label_sets import LabelSets

I64 = npt.NDArray[np.int64]
BLOCK = 16  # batches whose indices are computed together: a call costs as much as about a thousand images


class Epoch:
    """The batches of an epoch.

    Args:
        columns: [first, last) of each global batch, the rank's.
        crops_per_image: c; None takes each image's first crop.
    """

    def __init__(
        self,
        sets: LabelSets,
        selection: Selection,
        order: ShuffledOrder | SequentialOrder,
        columns: tuple[int, int],
        seed: int,
        epoch: int,
        crops_per_image: int | None,
    ) -> None:
        self._sets, self._selection = sets, selection
        self.order, self.columns = order, columns
        self._seed, self._epoch, self._c = seed, epoch, crops_per_image

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, start: int) -> Iterator[tuple[I64, I64, list[str], I64]]:
        """Yield (shard [n], position [n], keys [n], crops [n, c]) of the batches from `start` on.

        Shard and position are -1 in padding, the key is empty there and the crops are 0.
        """
        for first in range(start, len(self), BLOCK):
            last = min(first + BLOCK, len(self))
            shards, samples = self.order.batches(first, last, *self.columns)
            yield from self._block(shards, samples)

    def _block(self, shards: I64, samples: I64) -> Iterator[tuple[I64, I64, list[str], I64]]:
        shape = shards.shape
        present = np.flatnonzero(shards.reshape(-1) >= 0)
        shard, sample = shards.reshape(-1)[present], samples.reshape(-1)[present]
        position = self._selection.positions(shard, sample)
        keys = [self._sets.key(s, p) for s, p in zip(shard.tolist(), position.tolist(), strict=True)]
        positions = np.full(shards.size, -1, np.int64)
        positions[present] = position
        crops = np.zeros((shards.size, self._c or 1), np.int64)
        if self._c is not None:
            counts = self._selection.counts(shard, sample)
            chosen = batch_crop_numbers(self._seed, hash_keys(keys), self._epoch, counts, self._c)
            crops[present] = self._selection.crops(shard, sample, chosen)
        names = [""] * shards.size
        for at, key in zip(present.tolist(), keys, strict=True):
            names[at] = key
        for t in range(shape[0]):
            row = slice(t * shape[1], (t + 1) * shape[1])
            yield shards[t], positions[row], names[row], crops[row]
