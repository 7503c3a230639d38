"""Which sample is read when: a pure function of set, seed, epoch and global batch size; no IO.

The order is a contract across versions, platforms and numbers of ranks; tests pin its values.

S shards that hold samples, in the epoch's order; N samples; B columns (images) of a global batch; L lanes;
T = N // B full batches. A *slot* is a place in the sequence of shards laid end to end, 0 <= slot < N.

1. One 64-bit key from SHA-256 of (digest, seed, epoch); further keys from it by splitmix64's finaliser.
   numpy's Generator is not used: its streams are not promised across versions.
2. Shards are sorted by mix(key, shard), which is injective, so no two tie.
3. Lane l owns columns [l*B//L, (l+1)*B//L) and its share of the slots: the sequence is cut by samples, in
   proportion to columns, so that all lanes end together whatever the sizes of shards.
4. Even lanes walk their slots upwards, odd ones downwards: neighbours read the shard they share at one time.
5. Inside a lane, slots are permuted within windows of m shards (m = 1: this step does nothing).
6. A slot's shard is the one that holds it; the sample in it is a keyed permutation of the slot's place there.

A rank takes a range of the columns of every batch, so global batches do not depend on the number of ranks.
tests/support/oracles/order_oracle.py restates all six steps in scalar Python.
"""

from __future__ import annotations

import operator
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from slg_wds.arrays import I64, U64, Bools
from slg_wds.errors import ReplayError
from slg_wds.replay.order.fingerprint import ORDER_VERSION, fingerprint
from slg_wds.replay.order.permutation import hashed_key, permute, subkey, subkeys


class Segments:
    """Runs of consecutive slots, each with a permutation of its own."""

    def __init__(self, edges: I64, keys: U64) -> None:
        self.edges = edges  # int64 [n + 1], rising strictly
        self.keys = keys  # uint64 [n]
        self.sizes: U64 = np.diff(edges).view(np.uint64)

    def find(self, slot: I64) -> I64:
        """Return which segment holds each slot."""
        return np.searchsorted(self.edges, slot, side="right") - 1

    def permuted(self, segment: I64, slot: I64) -> I64:
        """Return where each slot goes within its segment, counted from the segment's first slot."""
        place = (slot - self.edges[segment]).view(np.uint64)
        return permute(place, self.sizes[segment], self.keys[segment]).view(np.int64)


class Spans(NamedTuple):
    """The shards a rank reads, in order of first use: shard[i] only in batches start[i] <= t < stop[i]."""

    shard: I64
    start: I64
    stop: I64


class ShuffledOrder:
    """The order of one epoch: len(order) global batches, random access to any columns of any of them.

    Args:
        shard_sizes: samples in each shard [shards], zero allowed.
        digest: the label set's, as text or bytes (which count as their hexadecimal text).
        seed, epoch: the seed is part of the fingerprint, the epoch is not.
        batch: B, images in a global batch.
        lanes: L, how many places of the shard sequence are read at once; taken as B where it is more.
        window: m, shards that are mixed with each other inside a lane.
        last: "drop" leaves out the N % B images that fill no batch, "pad" adds a batch for them.

    Raises:
        ReplayError: a number that cannot be; so do the methods, for batches or columns out of range.
    """

    def __init__(
        self,
        shard_sizes: npt.ArrayLike,
        digest: str | bytes,
        seed: int,
        epoch: int,
        batch: int,
        lanes: int,
        window: int = 1,
        last: Literal["drop", "pad"] = "drop",
    ) -> None:
        if last not in ("drop", "pad"):
            raise ReplayError(f"last is {last!r}", hint="it is 'drop' or 'pad'")
        self.batch_size, self.window = _at_least(1, "batch", batch), _at_least(1, "window", window)
        self.lanes = min(_at_least(1, "lanes", lanes), self.batch_size)
        self.epoch, self.last = _at_least(0, "epoch", epoch), last
        self.fingerprint = fingerprint(digest, seed, batch, lanes, window)
        identity = self.fingerprint["digest"], self.fingerprint["seed"], self.epoch
        key = hashed_key(f"slg-wds order {ORDER_VERSION}", *identity)
        self._shard_ids, self._shards = _sequence(_checked_sizes(shard_sizes), subkey(key, 1), subkey(key, 3))
        self._window_key = _array(subkey(key, 2))
        self.num_samples = int(self._shards.edges[-1])
        self.full_batches, self.remainder = divmod(self.num_samples, self.batch_size)
        self._lay_lanes()

    def _lay_lanes(self) -> None:
        columns = np.arange(self.lanes + 1, dtype=np.int64) * self.batch_size // self.lanes
        slots = self.full_batches * columns + np.minimum(columns, self.remainder)
        self._lane_columns, self._lane_slots = columns, slots
        # Batch t's slot in column b is origin[b] + t * stride[b].
        column = np.arange(self.batch_size, dtype=np.int64)
        lane = ((column + 1) * self.lanes - 1) // self.batch_size
        into, width, odd = column - columns[lane], np.diff(columns)[lane], lane % 2 == 1
        self._origin = np.where(odd, slots[lane + 1] - 1 - into, slots[lane] + into)
        self._stride = np.where(odd, -width, width)

    @cached_property
    def _windows(self) -> Segments:
        """Runs of m whole shards, cut where lanes are cut, which start later from lane to lane."""
        borders, lanes = self._shards.edges[1:-1], self._lane_slots
        before = np.searchsorted(borders, lanes)  # borders before each lane
        stagger = np.arange(self.lanes) % self.window - self._shards.find(lanes[:-1])
        shard_in_lane = np.arange(1, borders.size + 1) + np.repeat(stagger, np.diff(before))
        edges = np.union1d(lanes, borders[shard_in_lane % self.window == 0])
        return Segments(edges, subkeys(self._window_key, edges[:-1].view(np.uint64)))

    def __len__(self) -> int:
        return self.full_batches + (self.last == "pad" and self.remainder > 0)

    def batch(self, t: int, first_column: int = 0, last_column: int | None = None) -> tuple[I64, I64]:
        """Return shard and sample, int64 [columns] each, of batch t; both -1 in columns that are padding."""
        shard, sample = self.batches(t, t + 1, first_column, last_column)
        return shard[0], sample[0]

    def batches(
        self, start: int, stop: int, first_column: int = 0, last_column: int | None = None
    ) -> tuple[I64, I64]:
        """Return shard and sample, int64 [stop - start, columns] each, of several batches.

        Cheaper than one by one: a call costs as much as about a thousand images.
        """
        slot, shape = self._slots(start, stop, first_column, last_column)
        place = self._shards.find(slot)
        shard, sample = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
        shard.reshape(-1)[: slot.size] = self._shard_ids[place]
        sample.reshape(-1)[: slot.size] = self._shards.permuted(place, slot)
        return shard, sample

    def spans(self, first_column: int = 0, last_column: int | None = None) -> Spans:
        """Return when each shard is first needed by these columns and when it may be forgotten.

        With m = 1 the bounds are exact. With m > 1 they are the window's: never too narrow, and where the
        columns are part of a lane, or a shard has few samples, one may be listed that is not read.
        """
        first, last = self._checked(0, 0, first_column, last_column)
        window_edges, shard_edges = self._windows.edges, self._shards.edges
        used, start, stop = self._window_spans(first, last)
        edges = np.union1d(window_edges, shard_edges)[:-1]
        window = self._windows.find(edges)
        edges, window = edges[used[window]], window[used[window]]
        if not edges.size:
            return Spans(*(np.empty(0, np.int64) for _ in range(3)))
        place = self._shards.find(edges)
        heads = np.flatnonzero(np.diff(place, prepend=-1))
        start, stop = np.minimum.reduceat(start[window], heads), np.maximum.reduceat(stop[window], heads)
        by_use = np.argsort(start, kind="stable")
        return Spans(self._shard_ids[place[heads]][by_use], start[by_use], stop[by_use])

    def _window_spans(self, first: int, last: int) -> tuple[Bools, I64, I64]:
        """Return for each window whether the columns read it, the first such batch, and one past the last."""
        edges = self._windows.edges
        lane = np.searchsorted(self._lane_slots, edges[:-1], side="right") - 1
        bottom, top = self._lane_slots[lane], self._lane_slots[lane + 1]
        odd = lane % 2 == 1
        low = np.where(odd, top - edges[1:], edges[:-1] - bottom)  # steps of the lane, low <= q < high
        high = np.where(odd, top - edges[:-1], edges[1:] - bottom)
        width = np.diff(self._lane_columns)[lane]
        if self.last == "drop":
            high = np.minimum(high, self.full_batches * width)
        left, right = (np.clip(column - self._lane_columns[lane], 0, width) for column in (first, last))
        # Step q reads column q % width: move low up, and high - 1 down, to the nearest step in the columns.
        column = low % width
        low = low + np.where(column < left, left, np.where(column < right, column, width + left)) - column
        column = (high - 1) % width
        top_step = high - 1 - column
        top_step += np.where(column >= right, right - 1, np.where(column >= left, column, right - 1 - width))
        return (left < right) & (low < high), low // width, top_step // width + 1

    def _slots(
        self, start: int, stop: int, first_column: int, last_column: int | None
    ) -> tuple[I64, tuple[int, int]]:
        """Return the slots of all columns, batch after batch without the padding, and the shape with it."""
        first, last = self._checked(start, stop, first_column, last_column)
        columns = last - first
        t = np.arange(start, stop, dtype=np.int64)[:, None]
        slot = (self._origin[first:last] + t * self._stride[first:last]).reshape(-1)
        if stop > self.full_batches:
            slot = slot[: slot.size - columns + min(max(self.remainder - first, 0), columns)]
        if self.window > 1:
            window = self._windows.find(slot)
            slot = self._windows.edges[window] + self._windows.permuted(window, slot)
        return slot, (stop - start, columns)

    def _checked(self, start: int, stop: int, first: int, last: int | None) -> tuple[int, int]:
        last = self.batch_size if last is None else last
        if not 0 <= start <= stop <= len(self):
            raise ReplayError(f"batches {start} to {stop} of an epoch of {len(self)}")
        if not 0 <= first <= last <= self.batch_size:
            raise ReplayError(f"columns {first} to {last} of a batch of {self.batch_size}")
        return first, last


def _sequence(sizes: I64, order_key: int, sample_key: int) -> tuple[I64, Segments]:
    """Return the epoch's sequence of shards, empty ones left out: their ids, and their slots."""
    ids = np.flatnonzero(sizes).astype(np.int64)
    ids = ids[np.argsort(subkeys(_array(order_key), ids.view(np.uint64)))]
    edges = np.concatenate(([0], np.cumsum(sizes[ids])))
    return ids, Segments(edges, subkeys(_array(sample_key), ids.view(np.uint64)))


def _array(key: int) -> U64:
    return np.array([key], np.uint64)


def _checked_sizes(shard_sizes: npt.ArrayLike) -> I64:
    sizes = np.asarray(shard_sizes)
    if sizes.ndim != 1 or not (sizes.size == 0 or np.issubdtype(sizes.dtype, np.integer)):
        raise ReplayError(
            f"shard sizes are {sizes.dtype} {list(sizes.shape)}", hint="one whole number per shard"
        )
    sizes = sizes.astype(np.int64)
    if (sizes < 0).any():
        raise ReplayError(f"shard {int(np.argmax(sizes < 0))} has {int(sizes.min())} samples")
    return sizes


def _at_least(least: int, name: str, value: int) -> int:
    if operator.index(value) < least:
        raise ReplayError(f"{name} is {value}", hint=f"{least} is the least")
    return operator.index(value)
