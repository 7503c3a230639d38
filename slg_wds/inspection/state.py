"""How much of a set exists, since when and how fast, by what a listing and few small files say."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from slg_wds.console import counted
from slg_wds.errors import FormatError, NotFoundError, SlgWdsError, UnsupportedStoreError
from slg_wds.format.canonical import MAX_JSON_BYTES
from slg_wds.format.manifest.manifest import MAX_INFO_BYTES, Info, ShardIndex, decode_index, decode_info
from slg_wds.labelset.labelset import INDEX, INFO, PLAN, LabelSet
from slg_wds.labelset.left_out import left_out_entries
from slg_wds.store import Entry, Store

LOOKED_AT = 64  # index parts that are read of an unfinished set, for images left out
REASONS_OF = 8  # shards whose trailer is read, for why
ASKED = 32  # shards asked after one by one where nothing can be listed
THREADS = 16
RECENT = 20  # commits that the rate is measured on at least
LISTED = 20


@dataclass(frozen=True)
class Pace:
    """When shards were committed (seconds since 1970 by the store's clock), and how fast of late.

    shards_per_second: over the last `measured` commits, None for fewer than two. left: seconds at that pace.
    """

    first: float
    last: float
    measured: int
    shards_per_second: float | None
    left: float | None

    def idle(self, now: float) -> bool:
        """Whether so long has passed since the last commit that nobody seems to be at work."""
        pause = now - self.last
        return pause > 60 and (self.shards_per_second is None or pause * self.shards_per_second > 20)


@dataclass
class State:
    """What is there.

    listed: whether the place could be listed; else `present` and `bytes` are of the `asked` shards alone, unless
    complete. samples: images labelled, -1 where unknown. left_out: images left out in the shards `looked_at`, and a
    few of them with the reasons. notes: what could not be read.
    """

    complete: bool
    listed: bool
    asked: int
    present: list[int]
    bytes: int
    samples: int
    info: Info | None
    pace: Pace | None
    left_out: int = 0
    looked_at: int = 0
    reasons: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    indexes: dict[int, ShardIndex] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """What a place holds: the bytes of _info.json, None without it; after that a listing, None where it gives none."""

    info: bytes | None
    entries: Sequence[Entry] | None


def see(store: Store) -> Seen:
    """Read _info.json, then list; in this order, so that no shard is missed that it tells of. Raises StoreError."""
    if store.size(PLAN) is None:
        return Seen(
            None, []
        )  # no set, of which the opener tells; to list what else is there may take minutes
    try:
        info = store.read(INFO, MAX_INFO_BYTES)
    except NotFoundError:
        info = None
    try:
        return Seen(info, list(store.list(deep=False)))
    except UnsupportedStoreError:
        return Seen(info, None)


def look(labels: LabelSet, seen: Seen) -> State:
    """What exists, by what has been seen and a bounded number of index parts. Raises StoreError."""
    notes: list[str] = []
    info = None if seen.info is None else _info(labels, seen.info, notes)
    if seen.entries is None:
        state = _unlisted(labels, info)
    else:
        entries = {entry.name: entry for entry in seen.entries}
        names = map(labels.shard_name, range(labels.num_shards))
        found = {number: entries[name] for number, name in enumerate(names) if name in entries}
        state = State(
            complete=info is not None and len(found) == labels.num_shards,
            listed=True,
            asked=labels.num_shards,
            present=list(found),
            bytes=sum(entry.size for entry in found.values()),
            samples=-1,
            info=info,
            pace=pace([entry.modified for entry in found.values()], labels.num_shards - len(found)),
        )
        if info is not None and not state.complete:
            notes.append(f"{INFO} says that every shard is there, but some are not: run slg-wds verify")
    state.notes += notes
    _see_left_out(labels, state)
    return state


def pace(times: Sequence[float], missing: int) -> Pace | None:
    """The pace of commits at these times, None without any."""
    if not times:
        return None
    ordered = sorted(times)
    recent = ordered[-max(RECENT, len(ordered) // 5) :]
    seconds = recent[-1] - recent[0]
    rate = (len(recent) - 1) / seconds if seconds > 0 else None
    return Pace(ordered[0], ordered[-1], len(recent), rate, missing / rate if rate else None)


def _info(labels: LabelSet, data: bytes, notes: list[str]) -> Info | None:
    try:
        info = decode_info(data)
    except FormatError as error:
        notes.append(f"{INFO} is damaged ({error.message}): run slg-wds verify --fix")
        return None
    if len(info.shard_lengths) != labels.num_shards:
        notes.append(f"{INFO} is of {counted(len(info.shard_lengths), 'shard')}: run slg-wds verify --fix")
        return None
    return info


def _unlisted(labels: LabelSet, info: Info | None) -> State:
    """What can be said over http: all is there, or which of a few shards are."""
    if info is not None:
        everything = list(range(labels.num_shards))
        return State(True, False, labels.num_shards, everything, -1, info.num_samples, info, None)
    asked = spread(list(range(labels.num_shards)), ASKED)
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = list(pool.map(lambda number: labels.store.size(labels.shard_name(number)), asked))
    found = [(number, size) for number, size in zip(asked, sizes, strict=True) if size is not None]
    total = sum(size for _, size in found)
    return State(False, False, len(asked), [number for number, _ in found], total, -1, None, None)


def spread(numbers: Sequence[int], count: int) -> list[int]:
    """At most `count` of the numbers, evenly chosen, first and last among them."""
    if len(numbers) <= count:
        return list(numbers)
    places = np.linspace(0, len(numbers) - 1, count).round().astype(np.int64)
    return [numbers[at] for at in places.tolist()]


def _see_left_out(labels: LabelSet, state: State) -> None:
    """Count the images left out: exactly by _info.json, else in the index parts of some shards."""
    planned = labels.plan.shard_sizes
    if state.complete and state.info is not None:
        lacking = planned - np.array(state.info.shard_lengths, np.int64)
        state.samples, state.left_out = state.info.num_samples, int(lacking.sum())
        state.looked_at = labels.num_shards
        read_indexes(labels, state, np.flatnonzero(lacking)[:REASONS_OF].tolist())
        with_some = [number for number in state.indexes if lacking[number]]
    else:
        chosen = spread(state.present, LOOKED_AT)
        read_indexes(labels, state, chosen)
        read = [state.indexes[number] for number in chosen if number in state.indexes]
        state.looked_at, state.left_out = len(read), sum(len(index.left_out) for index in read)
        with_some = [index.shard for index in read if index.left_out]
    for number in with_some[:REASONS_OF]:
        try:
            state.reasons += left_out_entries(labels, number, state.indexes[number])
        except SlgWdsError as error:
            state.notes.append(f"{labels.shard_name(number)}: {error.message}: run slg-wds verify")
    state.reasons = state.reasons[:LISTED]


def read_indexes(labels: LabelSet, state: State, numbers: Sequence[int]) -> None:
    """Read the index parts of these shards into the state, several at a time; what cannot be read is noted."""

    def read(number: int) -> ShardIndex | SlgWdsError:
        try:
            return decode_index(
                labels.store.read(f"{INDEX}/{labels.plan.shard_names[number]}", MAX_JSON_BYTES)
            )
        except SlgWdsError as error:
            return error

    wanted = [number for number in numbers if number not in state.indexes]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(read, wanted))
    for number, index in zip(wanted, found, strict=True):
        name = f"{INDEX}/{labels.plan.shard_names[number]}"
        if isinstance(index, NotFoundError):
            if state.complete:
                state.notes.append(f"{name} is missing: run slg-wds verify --fix")
        elif isinstance(index, SlgWdsError):
            state.notes.append(f"{name}: {index.message}: run slg-wds verify")
        elif (index.set_digest, index.shard) != (labels.digest, number):
            state.notes.append(f"{name} is of another shard: run slg-wds verify")
        else:
            state.indexes[number] = index


def now() -> float:
    """Seconds since 1970."""
    return time.time()
