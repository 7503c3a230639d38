"""Label sets of one plan, opened together: which samples there are, and where in the shards each lies."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from slg_wds.arrays import I64
from slg_wds.concurrency.locks import Locks
from slg_wds.errors import (
    ChecksumError,
    ManifestError,
    NotFoundError,
    RecordError,
    ReplayError,
    SlgWdsError,
    UsageError,
)
from slg_wds.format.manifest.info import MAX_INFO_BYTES, decode_info
from slg_wds.format.records.embeddings.fields import EMBEDDING
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.labels import LabelType, StoredColumns
from slg_wds.labels.shares import shares
from slg_wds.labelset.combining.averaging import check_averaged, embeddings_side_by_side, refuse_weights
from slg_wds.labelset.combining.joining import chains, joined_digest
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.objects import INFO
from slg_wds.labelset.opening import open_labels
from slg_wds.replay.sources.base_set import BaseSet

LabelSource = str | os.PathLike[str] | LabelSet  # where a set lies, or one that is open


class SamplePlace(NamedTuple):
    """A sample: the number of its shard, its position among the shard's samples, and its key."""

    shard: int
    position: int
    key: str


@dataclass(frozen=True)
class ShardSamples:
    """The samples of one shard, n of them.

    numbers: their numbers in the plan [n]. records: for each set int64 [n, 3] of offset, size, CRC-32 in its shard.
    images: the same of embedded images, or [n, 2] of offset, size within the tar of images; else None.
    files: for each set the shard's bytes and their SHA-256.
    bases: for each set, for each one that it extends, int64 [n, 4], see `BaseSet.places`.
    """

    numbers: Sequence[int]
    records: list[I64]
    images: I64 | None
    files: list[tuple[int, str]]
    bases: list[list[I64]]


class LabelSets:
    """One or several label sets, whose distributions are averaged or whose embeddings are joined.

    A set and those that extend it are one.

    Attributes:
        members: the sets, of such a chain the last; bases: what each extends, the oldest first.
        weights, rules: those of the members; weights sum to 1.
        sizes: int64 [shards], samples of each shard, 0 where an unfinished set lacks it.
        left_out: planned images that have no labels in the shards that are there.
        digest: of the samples and their labels, hex; for one complete set, that set's, for a chain that of the same
            labels made in one go.
        embedded: the number of the first set that has the images, else None.

    Raises:
        UsageError: weights that do not fit, a set without the one that it extends, embeddings of one name.
        IdentityMismatchError: sets of different classes, or, unless `any_temperature`, of different temperatures.
        ReplayError: sets of different crops.
        RuleError: a rule that the labels cannot give.
        LabelSetError, ManifestError, StoreError: as `open_labels`.
    """

    def __init__(
        self,
        given: Sequence[LabelSet],
        weights: Sequence[float] | None,
        rule: str | LabelType | None,
        any_temperature: bool = False,
    ) -> None:
        if not given:
            raise UsageError("no label set was given")
        together = chains(given, '["OLD", "NEW"]')
        self.members = [chain[-1] for chain in together]
        self.bases = [[BaseSet(one, chain[-1]) for one in chain[:-1]] for chain in together]
        self.weights = shares(weights, len(self.members), "label set")
        self._check_embeddings(weights, rule is not None or any_temperature)
        check_averaged(self.members, any_temperature)
        for other in self.members[1:]:
            _check_crops(self.members[0], other)
        self.rules = [_rule(labels, rule) for labels in self.members]
        sizes = [_sizes(labels) for labels in self.members]
        self.left_out = _left_out(self.members[0], sizes[0])
        for labels, found in zip(self.members[1:], sizes[1:], strict=True):
            if not np.array_equal(found, sizes[0]):
                shard = labels.shard_name(int(np.argmax(found != sizes[0])))
                raise ReplayError(
                    f"the shard has not as many samples here as in {self.url}", url=labels.url, shard=shard
                )
        self.sizes = sizes[0]
        self.digest = self._digest()
        having = [number for number, labels in enumerate(self.members) if labels.identity.embed_images]
        self.embedded = having[0] if having else None
        self._shards: dict[int, ShardSamples] = {}
        self._locks = Locks(64)

    @classmethod
    def open(
        cls,
        urls: LabelSource | Sequence[LabelSource],
        weights: Sequence[float] | None = None,
        rule: str | LabelType | None = None,
        *,
        any_temperature: bool = False,
        allow_incomplete: bool = False,
        store_options: Any = None,
    ) -> LabelSets:
        """Open the label sets at these URLs (or take those that are open); `any_temperature`: see `check_averaged`."""
        given = [urls] if isinstance(urls, (str, os.PathLike, LabelSet)) else list(urls)
        opened = [
            one
            if isinstance(one, LabelSet)
            else open_labels(one, allow_incomplete=allow_incomplete, store_options=store_options or {})
            for one in given
        ]
        return cls(opened, weights, rule, any_temperature)

    @property
    def plan(self) -> Any:
        """The plan, the same for all members."""
        return self.members[0].plan

    @property
    def url(self) -> str:
        """The URL of the first member, which errors name."""
        return self.members[0].url

    @property
    def num_classes(self) -> int:
        """Classes of every distribution."""
        return self.members[0].num_classes

    @property
    def holds_embeddings(self) -> bool:
        """Whether the sets hold embeddings in place of labels."""
        return self.members[0].holds_embeddings

    @property
    def has_mixing(self) -> bool:
        """Whether views may have a second view mixed in."""
        return self.members[0].has_mixing

    def _check_embeddings(self, weights: Sequence[float] | None, recovers: bool) -> None:
        """Raise an error if embeddings cannot be joined, or if they are to be averaged or made distributions."""
        if embeddings_side_by_side(self.members):
            refuse_weights(weights, "weights")
        if recovers:
            self.members[0].refuse_embeddings()

    @property
    def num_crops(self) -> int:
        """Crops of each image that every set has labels of."""
        return min(labels.num_crops for labels in self.members)

    def shard(self, number: int) -> ShardSamples:
        """The samples of a shard, read from the index at first use. From any thread."""
        found = self._shards.get(number)
        if found is None:
            with self._locks.of(number):  # read once, however many threads ask
                found = self._shards.get(number)
                if found is None:
                    found = self._shards[number] = self._read(number)
        return found

    def file_of(self, member: int) -> Callable[[int], tuple[int, str]]:
        """What gives the bytes and SHA-256 of a shard of one set by its number."""
        return lambda number: self.shard(number).files[member]

    def key(self, shard: int, position: int) -> str:
        """The key of a sample."""
        return str(self.plan.keys[self.numbers(np.array([shard]), np.array([position]))][0])

    def numbers(self, shard: I64, position: I64) -> I64:
        """The numbers of samples in the plan, int64 [n]. The index is read only of shards that left images out."""
        numbers: I64 = self.plan.starts[shard] + position
        for i in np.flatnonzero((self.sizes != self.plan.shard_sizes)[shard]).tolist():
            numbers[i] = self.shard(int(shard[i])).numbers[position[i]]
        return numbers

    def sample(self, number: int) -> SamplePlace:
        """Where the sample of a planned image lies.

        Raises:
            RecordError: no such image is planned, or it has no labels here.
        """
        if not 0 <= number < len(self.plan.keys):
            raise RecordError(f"a view has image {number} mixed in, and {len(self.plan.keys)} are planned")
        shard, key = int(self.plan.place(number)[0]), str(self.plan.keys[number])
        numbers = self.shard(shard).numbers if self.sizes[shard] else []
        position = bisect_left(numbers, number)
        if position == len(numbers) or numbers[position] != number:
            raise RecordError("a view has this image mixed in, which has no labels here", key=key)
        return SamplePlace(shard, position, key)

    def _read(self, number: int) -> ShardSamples:
        indexes = [labels.index(number) for labels in self.members]
        for labels, index in zip(self.members, indexes, strict=True):
            place = {"url": labels.url, "shard": labels.shard_name(number)}
            if (index.set_digest, index.shard) != (labels.digest, number):
                raise ManifestError("its index is that of another shard or set", **place)
            size = labels.store.size(labels.shard_name(number)) if labels.store.is_local else index.bytes
            if size not in (index.bytes, None):  # one that is missing is told of when it is read
                raise ChecksumError(
                    f"its {size} bytes are not the {index.bytes} of its index",
                    hint="slg-wds verify --fix makes the index again, or says that the shard is damaged",
                    **place,
                )
            if len(index.records) != self.sizes[number]:
                found = len(index.records)
                raise ManifestError(f"its index has {found} samples, {INFO} {self.sizes[number]}", **place)
            if index.left_out != indexes[0].left_out:
                raise ReplayError(f"other images were left out here than in {self.url}", **place)
        start, stop = (int(edge) for edge in self.plan.starts[number : number + 2])
        numbers: Sequence[int] = range(start, stop)
        if indexes[0].left_out:
            left_out = set(indexes[0].left_out)
            numbers = [n for n in numbers if self.plan.keys[n] not in left_out]
        images = indexes[self.embedded or 0].images
        keys = [self.plan.keys[number] for number in numbers]
        return ShardSamples(
            numbers=numbers,
            records=[np.array(index.records, np.int64).reshape(-1, 3) for index in indexes],
            images=None if images is None else np.array(images, np.int64),
            files=[(index.bytes, index.sha256) for index in indexes],
            bases=[[base.places(numbers, keys) for base in chain] for chain in self.bases],
        )

    def _digest(self) -> str:
        digests = [joined_digest(labels) for labels in self.members]
        if len(digests) == 1 and np.array_equal(self.sizes, self.plan.shard_sizes):
            return digests[0]
        state = hashlib.sha256(self.sizes.astype("<i8").tobytes())
        for digest in digests:
            state.update(bytes.fromhex(digest))
        return state.hexdigest()


def _check_crops(first: LabelSet, other: LabelSet) -> None:
    """Raise ReplayError where two sets say that they are of other crops."""
    if first.description.plan_sha256 != other.description.plan_sha256:
        raise ReplayError(
            f"its plan is not that of {first.url}",
            url=other.url,
            hint="to be averaged, sets must be made by slg-wds generate from the same images, --seed and "
            "--samples-per-shard",
        )
    if other.identity.reference:
        return  # its crops are another set's, and are compared where records are read
    if first.identity.views != other.identity.views:
        raise ReplayError(f"its crops have other views than those of {first.url}", url=other.url)
    for name in ("crop_scale", "crop_ratio", "flip_probability", "seed"):
        a, b = getattr(first.identity, name), getattr(other.identity, name)
        if a != b:
            raise ReplayError(f"its {name} is {b!r}, that of {first.url} {a!r}", url=other.url)


def _rule(labels: LabelSet, rule: str | LabelType | None) -> LabelType:
    """The rule of recovery to use for a set. Raises RuleError where its columns cannot give it."""
    if labels.holds_embeddings:
        return LabelType(EMBEDDING)
    identity, low_rank = labels.identity, labels.label_type == LOW_RANK
    stored = StoredColumns(
        k=identity.k or identity.num_classes,
        num_classes=labels.num_classes,
        full=labels.label_type == "full" or low_rank,
        low_rank=low_rank,
        values=identity.coding != "none",
        tail=identity.tail_classes > 0,
    )
    try:
        return stored.resolve(rule if rule is not None else labels.label_type)
    except SlgWdsError as error:
        raise error.located(url=labels.url) from None


def _sizes(labels: LabelSet) -> I64:
    """Samples of each shard: of `_info.json`, or from the index of each shard that exists."""
    try:
        info = decode_info(labels.store.read(INFO, MAX_INFO_BYTES))
    except NotFoundError:
        return _sizes_by_index(labels)
    except ManifestError as error:
        raise error.located(url=labels.store.url_of(INFO)) from None
    lengths = np.array(info.shard_lengths, np.int64)
    names = [labels.shard_name(number) for number in range(labels.num_shards)]
    if info.filenames != names or (lengths > labels.plan.shard_sizes).any():
        raise ManifestError("it does not list the planned shards", url=labels.store.url_of(INFO))
    return lengths


def _left_out(labels: LabelSet, sizes: I64) -> int:
    there = np.ones(labels.num_shards, np.bool_)
    if labels.allow_incomplete and not sizes.all():
        there[labels.missing()] = False
    return int((labels.plan.shard_sizes - sizes)[there].sum())


def _sizes_by_index(labels: LabelSet) -> I64:
    missing = labels.permitted_missing()
    sizes = np.zeros(labels.num_shards, np.int64)
    for number in range(labels.num_shards):
        if number not in missing:
            sizes[number] = len(labels.index(number).records)
    return sizes
