"""The order without shuffling: the plan's. As `ShuffledOrder`, for `shuffle=False` and for evaluation."""

from __future__ import annotations

from typing import Literal

import numpy as np

from slg_wds.arrays import I64
from slg_wds.replay.order.fingerprint import fingerprint
from slg_wds.replay.order.shuffled import Spans


class SequentialOrder:
    """Global batches of consecutive samples; len(order) of them, random access to any columns of any of them."""

    def __init__(
        self, sizes: I64, digest: str, seed: int, batch: int, last: Literal["drop", "pad"] = "drop"
    ) -> None:
        self.batch_size = batch
        self._edges = np.concatenate(([0], np.cumsum(sizes)))
        self.num_samples = int(self._edges[-1])
        self.full_batches, self.remainder = divmod(self.num_samples, batch)
        self._padded = last == "pad" and self.remainder > 0
        self.fingerprint = fingerprint(digest, seed, batch, 1, 1)

    def __len__(self) -> int:
        return self.full_batches + self._padded

    def batches(self, start: int, stop: int, first_column: int, last_column: int) -> tuple[I64, I64]:
        """Return shard and sample, int64 [stop - start, columns] each; both -1 in columns that are padding."""
        t = np.arange(start, stop, dtype=np.int64)[:, None]
        slot = t * self.batch_size + np.arange(first_column, last_column, dtype=np.int64)
        shard = np.searchsorted(self._edges, slot, side="right") - 1
        padding = slot >= self.num_samples
        shard[padding] = 0
        sample = slot - self._edges[shard]
        shard[padding] = sample[padding] = -1
        return shard, sample

    def spans(self, first_column: int, last_column: int) -> Spans:
        """Return when each shard is first needed and when it may be forgotten; never too narrow."""
        shard = np.flatnonzero(np.diff(self._edges)).astype(np.int64)
        start = self._edges[shard] // self.batch_size
        stop = np.minimum((self._edges[shard + 1] - 1) // self.batch_size + 1, len(self))
        used = start < stop
        return Spans(shard[used], start[used], stop[used])
