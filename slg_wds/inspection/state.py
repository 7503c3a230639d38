"""Finds how much of a set exists, from a listing and a few small files."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from slg_wds.console import counted
from slg_wds.errors import FormatError, NotFoundError, SlgWdsError, UnsupportedStoreError
from slg_wds.format.canonical import MAX_JSON_BYTES
from slg_wds.format.manifest.index import ShardIndex, decode_index
from slg_wds.format.manifest.info import MAX_INFO_BYTES, Info, decode_info
from slg_wds.inspection.pace import CommitPace, pace
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import spread
from slg_wds.labelset.objects import INDEX, INFO, PLAN
from slg_wds.store import Entry, Store

INDEXES = 64  # index parts of an unfinished set that are read to count the images left out
REASONS = 8  # shards whose trailer is read to say why images were left out
ASKED = 32  # shards that are asked for one by one if the store cannot list
THREADS = 16
LISTED = 20  # names in a list


@dataclass
class SetState:
    """How much of a set exists.

    Attributes:
        complete: True if every shard and _info.json exist.
        listed: True if the store could list. If not, and the set is not complete, `present` and `bytes` cover only the
            shards that were asked for.
        asked: how many shards were looked for.
        present: numbers of the shards that exist.
        bytes: their size together; -1 if unknown.
        samples: labelled images; -1 if unknown.
        info: _info.json; None if it does not exist, is damaged, or does not fit the plan.
        pace: when and how fast shards were committed; None if unknown.
        left_out: images left out of the shards that were examined.
        looked_at: how many shards were examined for this.
        reasons: some of these images, each with its path and reason.
        notes: what could not be read, in words.
        indexes: the index parts that were read, by the shard's number.
    """

    complete: bool
    listed: bool
    asked: int
    present: list[int]
    bytes: int
    samples: int
    info: Info | None
    pace: CommitPace | None
    left_out: int = 0
    looked_at: int = 0
    reasons: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    indexes: dict[int, ShardIndex] = field(default_factory=dict)
    _noted: set[str] = field(default_factory=set)

    def note(self, name: str, what: str) -> None:
        """Add a note of what is wrong with an object. The first one counts: several parts look at one object."""
        if name not in self._noted:
            self._noted.add(name)
            self.notes.append(f"{name}{what}")


@dataclass(frozen=True)
class SetListing:
    """What lies at a set's URL.

    Attributes:
        info: the bytes of _info.json; None if it does not exist.
        entries: all objects, listed after _info.json was read; None if the store cannot list.
    """

    info: bytes | None
    entries: Sequence[Entry] | None


def list_set(store: Store) -> SetListing:
    """Read _info.json, then list the set. In this order, no shard that _info.json counts can be missing in the list.

    Raises:
        StoreError: the store fails.
    """
    if store.size(PLAN) is None:
        # No label set, which opening it says. Listing what else is here may take minutes.
        return SetListing(None, [])
    try:
        info = store.read(INFO, MAX_INFO_BYTES)
    except NotFoundError:
        info = None
    try:
        return SetListing(info, list(store.list(deep=False)))
    except UnsupportedStoreError:
        return SetListing(info, None)


def read_state(labels: LabelSet, listing: SetListing) -> SetState:
    """Find out how much of a set exists, from its listing and a bounded number of index parts.

    Raises:
        StoreError: the store fails.
    """
    notes: list[str] = []
    info = None if listing.info is None else _info(labels, listing.info, notes)
    if listing.entries is None:
        state = _unlisted(labels, info)
    else:
        entries = {entry.name: entry for entry in listing.entries}
        names = map(labels.shard_name, range(labels.num_shards))
        found = {number: entries[name] for number, name in enumerate(names) if name in entries}
        state = SetState(
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
            notes.append(f"{INFO} says that every shard exists, but some are missing: run slg-wds verify")
    state.notes = notes
    _count_left_out(labels, state)
    return state


def _info(labels: LabelSet, data: bytes, notes: list[str]) -> Info | None:
    try:
        info = decode_info(data)
    except FormatError as error:
        notes.append(f"{INFO} is damaged ({error.message}): run slg-wds verify --fix")
        return None
    if len(info.shard_lengths) != labels.num_shards:
        notes.append(
            f"{INFO} counts {counted(len(info.shard_lengths), 'shard')}, unlike the plan: run slg-wds verify --fix"
        )
        return None
    return info


def _unlisted(labels: LabelSet, info: Info | None) -> SetState:
    """Return the state if the store cannot list, as over http: from _info.json, else from asking for a few shards."""
    if info is not None:
        everything = list(range(labels.num_shards))
        return SetState(True, False, labels.num_shards, everything, -1, info.num_samples, info, None)
    asked = spread(list(range(labels.num_shards)), ASKED)
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = list(pool.map(lambda number: labels.store.size(labels.shard_name(number)), asked))
    found = [(number, size) for number, size in zip(asked, sizes, strict=True) if size is not None]
    total = sum(size for _, size in found)
    return SetState(False, False, len(asked), [number for number, _ in found], total, -1, None, None)


def _count_left_out(labels: LabelSet, state: SetState) -> None:
    """Count the images left out: all of them if _info.json exists, else those of some shards."""
    planned = labels.plan.shard_sizes
    if state.complete and state.info is not None:
        lacking = planned - np.array(state.info.shard_lengths, np.int64)
        state.samples, state.left_out = state.info.num_samples, int(lacking.sum())
        state.looked_at = labels.num_shards
        read_indexes(labels, state, np.flatnonzero(lacking)[:REASONS].tolist())
        with_some = [number for number in state.indexes if lacking[number]]
    else:
        chosen = spread(state.present, INDEXES)
        read_indexes(labels, state, chosen)
        read = [state.indexes[number] for number in chosen if number in state.indexes]
        state.looked_at, state.left_out = len(read), sum(len(index.left_out) for index in read)
        with_some = [index.shard for index in read if index.left_out]
    for number in with_some[:REASONS]:
        try:
            state.reasons += labels.trailer(number, state.indexes[number]).left_out
        except SlgWdsError as error:
            state.note(labels.shard_name(number), f": {error.message}: run slg-wds verify")
    state.reasons = state.reasons[:LISTED]


def read_indexes(labels: LabelSet, state: SetState, numbers: Sequence[int]) -> None:
    """Read the index parts of these shards into `state.indexes`, in threads. Failures are added to `state.notes`."""

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
                state.note(name, " is missing: run slg-wds verify --fix")
        elif isinstance(index, SlgWdsError):
            state.note(name, f": {index.message}: run slg-wds verify")
        elif (index.set_digest, index.shard) != (labels.digest, number):
            state.note(name, " belongs to another shard: run slg-wds verify")
        else:
            state.indexes[number] = index
