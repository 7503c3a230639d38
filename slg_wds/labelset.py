"""A label set at a URL: create it, see what is missing, commit a shard, finish it, read it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, SupportsIndex, TypeVar

import numpy as np

from slg_wds.errors import (
    FormatError,
    IdentityMismatchError,
    IncompleteSetError,
    LabelSetError,
    ManifestError,
    NotALabelSetError,
    NotFoundError,
    UnsupportedStoreError,
)
from slg_wds.format.canonical import MAX_JSON_BYTES
from slg_wds.format.identity import check_identity
from slg_wds.format.index import MAX_SHARD_BYTES
from slg_wds.format.manifest import (
    TRAILER_FEATURE,
    Description,
    Info,
    Plan,
    ShardIndex,
    build_index,
    decode_description,
    decode_index,
    decode_plan,
    differences,
    digest_of,
    encode_description,
    encode_index,
    encode_info,
    encode_plan,
    numbers_classes,
)
from slg_wds.format.record import Record, decode_record
from slg_wds.format.shard import (
    EncodedSample,
    Sample,
    Shard,
    ShardHeader,
    check_payload,
    encode_sample,
    encode_shard,
    read_shard,
)
from slg_wds.keys import KeyNumbers
from slg_wds.lookup import number_of, record_of
from slg_wds.masking import masked
from slg_wds.store import Store, open_store

PLAN, DESCRIPTION, INFO, INDEX = "plan", "slg.json", "_info.json", "index"
READERS = 32  # threads
MANY = 1 << 22  # images whose names take half a second to unpack and check
_NO_OPTIONS: Mapping[str, str] = {}
D = TypeVar("D")
T = TypeVar("T")


@dataclass(frozen=True)
class LabelSet:
    """A label set: its plan, its description, and the store that its shards are in.

    Iterating yields every `Record` in plan order, each shard checked whole before its first. `labels[i]` and
    `labels[key]` read one.
    """

    store: Store
    plan: Plan
    description: Description
    digest: str
    allow_incomplete: bool = False

    @property
    def url(self) -> str:
        """Where the set is."""
        return self.store.url

    @property
    def identity(self) -> Mapping[str, Any]:
        """How the labels are made: what two runs must share to write into one set."""
        return self.description.identity

    @property
    def label_type(self) -> str:
        """The label type given when the set was made, its default rule of recovery."""
        return str(self.identity["label_type"])

    @property
    def num_classes(self) -> int:
        """Number of classes of every distribution."""
        return int(self.identity["num_classes"])

    @property
    def num_crops(self) -> int:
        """Crops of each image."""
        return int(self.identity["num_crops"])

    @property
    def targets_are_classes(self) -> bool:
        """Whether the targets number the classes of the labels; else they only number the images' folders."""
        return numbers_classes(self.description)

    @classmethod
    def unsaved(cls, plan: Plan, identity: Mapping[str, Any]) -> LabelSet:
        """A set that exists in memory only, for a dry run."""
        description = Description(0, 0, "", dict(identity), requires=[TRAILER_FEATURE], image_checksums=True)
        return cls(open_store("unsaved"), plan, description, "")

    def first(self, count: int) -> LabelSet:
        """The same with only the first images of the first shard, for a dry run."""
        sizes = self.plan.shard_sizes.copy()
        sizes[0] = min(sizes[0], count)
        return dataclasses.replace(self, plan=dataclasses.replace(self.plan, shard_sizes=sizes))

    def __len__(self) -> int:
        return len(self.plan.keys)

    def __iter__(self) -> Iterator[Record]:
        """Yield the records. Raises IncompleteSetError, or FormatError for the first shard that is damaged."""
        present = self._readable_shards()
        for number in present:
            shard = self.shard(number)
            for position in range(len(shard.samples)):
                yield self._with_rule(shard.record(position))

    def __getitem__(self, image: SupportsIndex | str) -> Record:
        """Read the record of one image: of that place in the plan (negative: from the end), or of that key.

        Raises IndexError, KeyError for an image that is not planned, LabelSetError for one that has no labels (yet).
        """
        return record_of(self, number_of(self, image))

    @functools.cached_property
    def key_numbers(self) -> KeyNumbers:
        """The numbers of the planned images by their keys."""
        return KeyNumbers(self.plan.keys)

    def __repr__(self) -> str:
        return (
            f"LabelSet({short(masked(self.url))!r}, {len(self):,} images, {self.num_shards:,} shards, "
            f"{self.num_crops} crops an image, {self.label_type} of {self.num_classes} classes)"
        )

    def permitted_missing(self) -> set[int]:
        """The numbers of shards that are missing. Raises IncompleteSetError for any, without `allow_incomplete`."""
        missing = set(self.missing())
        if missing and not self.allow_incomplete:
            raise IncompleteSetError(
                f"{len(missing)} of {self.num_shards} shards are missing",
                url=self.url,
                hint="finish it with the command that began it, or in Python pass allow_incomplete=True",
            )
        return missing

    def _readable_shards(self) -> list[int]:
        missing = self.permitted_missing()
        return [number for number in range(self.num_shards) if number not in missing]

    def _with_rule(self, record: Record) -> Record:
        return dataclasses.replace(record, rule=self.label_type)

    @property
    def num_shards(self) -> int:
        """Number of shards when the set is complete."""
        return len(self.plan.shard_names)

    def shard_name(self, number: int) -> str:
        """The object name of a shard."""
        return f"{self.plan.shard_names[number]}.tar"

    def exists(self, number: int) -> bool:
        """Whether a shard is there, and so whole and final."""
        return self.store.size(self.shard_name(number)) is not None

    def missing(self) -> list[int]:
        """The numbers of the shards that are not there yet, from one listing (or one question each over http)."""
        try:
            present = {entry.name for entry in self.store.list(deep=False)}
        except UnsupportedStoreError:  # http: nothing can be listed
            if self.finished():  # written last, so every shard is there
                return []
            return [number for number in range(self.num_shards) if not self.exists(number)]
        return [number for number in range(self.num_shards) if self.shard_name(number) not in present]

    def shard(self, number: int) -> Shard:
        """Read one shard whole and check every byte of it and that it belongs here.

        Raises NotFoundError, FormatError.
        """
        name = self.shard_name(number)
        shard = read_shard(self.store.read(name, MAX_SHARD_BYTES), url=self.url, shard=name)
        part = self.plan.shard(number)
        shard.check(self.digest, number, part.name, part.keys)
        return shard

    def index(self, number: int) -> ShardIndex:
        """Where each record of a shard lies: the index part, or made from the shard where that is missing."""
        name = f"{INDEX}/{self.plan.shard_names[number]}"
        try:
            data = self.store.read(name, MAX_JSON_BYTES)
        except NotFoundError:
            return build_index(self.shard(number), self.plan, number)
        return _located(decode_index, data, self.store.url_of(name))

    def record(self, number: int, position: int, index: ShardIndex | None = None) -> Record:
        """Read one record by a range read: that of `position` in shard `number`'s index."""
        data = self.record_bytes(number, position, index)
        return self._with_rule(decode_record(data, url=self.url, shard=self.shard_name(number)))

    def record_bytes(self, number: int, position: int, index: ShardIndex | None = None) -> bytes:
        """The bytes of `record`, checked against the index."""
        name = self.shard_name(number)
        offset, size, crc32 = (index or self.index(number)).records[position]
        data = self.store.read_range(name, offset, size)
        check_payload(data, size, crc32, url=self.url, shard=name)
        return data

    def encode_sample(self, sample: Sample) -> EncodedSample:
        """The members of a sample; from any thread. In a set begun without checksums of images they are left out.

        Raises RecordError, ShardError.
        """
        if not self.description.image_checksums:
            record = dataclasses.replace(sample.record, image_crc32=None, source_crc32=None)
            sample = dataclasses.replace(sample, record=record)
        return encode_sample(sample)

    def encode_shard(
        self,
        number: int,
        samples: Iterable[EncodedSample],
        left_out: Sequence[Mapping[str, str]],
        provenance: Mapping[str, Any],
    ) -> bytes:
        """The bytes of shard `number`, of this set's form.

        Args:
            left_out: key, path and reason of each planned image that has no sample.
            provenance: what could move the last bits of a probability, as JSON.
        """
        name = self.plan.shard_names[number]
        header = ShardHeader(self.digest, number, name, [dict(entry) for entry in left_out], dict(provenance))
        return encode_shard(samples, header, self.description.trailer)

    def commit(self, number: int, data: bytes) -> bool:
        """Publish a shard and its index part. False where another worker's was there first; ours is then dropped.

        Raises LabelSetError for a shard over 2 GiB, StoreError.
        """
        name = self.shard_name(number)
        if len(data) > MAX_SHARD_BYTES:
            raise LabelSetError(
                f"the shard has {len(data)} bytes, over 2 GiB", shard=name, hint="lower --samples-per-shard"
            )
        made = self.store.create(name, data)
        if made:
            self._put_index(number, read_shard(data, url=self.url, shard=name))
        return made

    def _put_index(self, number: int, shard: Shard) -> None:
        self.store.create(
            f"{INDEX}/{self.plan.shard_names[number]}", encode_index(build_index(shard, self.plan, number))
        )

    def finish(self) -> bool:
        """Write what index parts are missing, then _info.json, if every shard exists; whether it does."""
        if self.missing():
            return False
        indexed = {entry.name for entry in self.store.list(f"{INDEX}/")}
        for number, name in enumerate(self.plan.shard_names):
            if f"{INDEX}/{name}" not in indexed:
                self._put_index(number, self.shard(number))
        if not self.finished():
            self.store.create(INFO, encode_info(self._count()))
        return True

    def finished(self) -> bool:
        """Whether somebody has seen that every shard exists, and said so."""
        return self.store.size(INFO) is not None

    def _count(self) -> Info:
        # Tens of thousands of small reads, each of which is mostly waiting.
        with ThreadPoolExecutor(READERS) as pool:
            lengths = list(pool.map(lambda number: len(self.index(number).records), range(self.num_shards)))
        files = [self.shard_name(number) for number in range(self.num_shards)]
        return Info(self.split, files, lengths)

    @property
    def split(self) -> str:
        """The split's name: what the shards' names begin with, as in train-000000."""
        return self.plan.shard_names[0].rpartition("-")[0] or "train" if self.num_shards else "train"


def open_labels(
    url: str, *, allow_incomplete: bool = False, store_options: Mapping[str, str] = _NO_OPTIONS
) -> LabelSet:
    """Open the label set at a URL for reading.

    An unfinished set is refused unless `allow_incomplete`; then iterating gives the shards that exist at its start.

    Raises NotALabelSetError, IncompleteSetError, ManifestError, UnsupportedFeatureError, StoreError.
    """
    labels = dataclasses.replace(_open(open_store(url, store_options)), allow_incomplete=allow_incomplete)
    if not allow_incomplete and not labels.finished():
        labels._readable_shards()
    return labels


def glance_at(store: Store) -> LabelSet:
    """`open_labels` of a set, finished or not, to say what it is: over MANY names are read only when asked for."""
    return dataclasses.replace(_open(store, all_names=False), allow_incomplete=True)


def _open(store: Store, all_names: bool = True) -> LabelSet:
    try:
        plan_bytes = store.read(PLAN)
        description_bytes = store.read(DESCRIPTION, MAX_JSON_BYTES)
    except NotFoundError as error:
        raise NotALabelSetError(
            f"there is no label set here: {error.message}", url=store.url, hint="check the path"
        ) from None
    description = _located(decode_description, description_bytes, store.url_of(DESCRIPTION))
    plan_sha256 = hashlib.sha256(plan_bytes).hexdigest()
    if plan_sha256 != description.plan_sha256:
        raise ManifestError(
            f"the plan is not the one that {DESCRIPTION} was written with", url=store.url_of(PLAN)
        )
    _located(check_identity, description.identity, store.url_of(DESCRIPTION))
    names_later = not all_names and description.num_samples > MANY
    decode = functools.partial(decode_plan, names_later=names_later)
    plan = _located(decode, plan_bytes, store.url_of(PLAN))
    if (plan.num_samples, plan.num_shards) != (description.num_samples, description.num_shards):
        raise ManifestError(
            "its numbers of images and shards are not the plan's", url=store.url_of(DESCRIPTION)
        )
    return LabelSet(store, plan, description, digest_of(plan_sha256, description.identity))


def short(url: str) -> str:
    """A URL of at most 100 characters: the middle of a longer one left out."""
    return url if len(url) <= 100 else f"{url[:48]}...{url[-48:]}"


def _located(decode: Callable[[D], T], data: D, url: str) -> T:
    try:
        return decode(data)
    except FormatError as error:
        raise error.located(url=url) from None


def create_labels(
    url: str,
    plan: Plan,
    identity: Mapping[str, Any],
    provenance: Mapping[str, Any],
    class_names: list[str] | None,
    store_options: Mapping[str, str] = _NO_OPTIONS,
    requires: Sequence[str] = (),
    image_checksums: bool = True,
    targets_are_classes: bool | None = None,
) -> LabelSet:
    """Begin a label set, or join the one that is there if its plan and identity are the same.

    A set that is joined keeps its form: what slg.json says of features and checksums goes on to the end.

    Args:
        requires: the features that its readers must know, of `manifest.FEATURES`, beside those of every new set.
        image_checksums: whether its records will have the checksums of their images.
        targets_are_classes: whether targets number the classes of the labels; None where that is not known.

    Raises:
        NotALabelSetError: the place holds something else.
        IdentityMismatchError: it holds a set made otherwise; each difference is named.
        StoreError: the place cannot be written to, or lacks what atomic commits need.
    """
    store = open_store(url, store_options)
    store.check_writable()
    if store.size(PLAN) is None:
        _refuse_other_content(store)
    plan_bytes = encode_plan(plan)
    if not store.create(PLAN, plan_bytes):
        plan_bytes = store.read(PLAN)
        _check_plan(_located(decode_plan, plan_bytes, store.url_of(PLAN)), plan, store.url)
    plan_sha256 = hashlib.sha256(plan_bytes).hexdigest()
    description = Description(
        num_samples=plan.num_samples,
        num_shards=plan.num_shards,
        plan_sha256=plan_sha256,
        identity=masked(dict(identity)),
        provenance=masked(dict(provenance)),
        class_names=class_names,
        requires=[*requires, TRAILER_FEATURE],
        image_checksums=image_checksums,
        targets_are_classes=targets_are_classes,
    )
    if not store.create(DESCRIPTION, encode_description(description)):
        stored = _located(
            decode_description, store.read(DESCRIPTION, MAX_JSON_BYTES), store.url_of(DESCRIPTION)
        )
        _check_identity(stored.identity, description.identity, store.url)
        description = stored
    return LabelSet(store, plan, description, digest_of(plan_sha256, description.identity))


def _refuse_other_content(store: Store) -> None:
    other = next((entry.name for entry in store.list()), None)
    if other is not None and store.size(PLAN) is None:  # a worker beside this one may just have put the plan
        raise NotALabelSetError(
            f"it holds something else, {other!r} among it", url=store.url, hint="choose an empty --save_path"
        )


_ELSE = "choose another --save_path, or give the options that made it"


def _check_plan(stored: Plan, wanted: Plan, url: str) -> None:
    if stored != wanted:
        found = _plan_difference(stored, wanted)
        raise IdentityMismatchError(
            f"the label set there was planned from other images or options: {found}", url=url, hint=_ELSE
        )


def _plan_difference(stored: Plan, wanted: Plan) -> str:
    if len(stored.keys) != len(wanted.keys):
        return f"{len(stored.keys)} images there, {len(wanted.keys)} now"
    pairs = enumerate(zip(stored.paths, wanted.paths, strict=True))
    moved = next(((number, a, b) for number, (a, b) in pairs if a != b), None)
    if moved:
        return f"image {moved[0]} is {moved[1]!r} there and {moved[2]!r} now (other files, --seed or --list)"
    if not np.array_equal(stored.targets, wanted.targets):
        return "the targets differ (class folders, --class-map or --class-subset)"
    if not np.array_equal(stored.shard_sizes, wanted.shard_sizes):
        return f"shards of {stored.shard_sizes[0]} images there, of {wanted.shard_sizes[0]} now"
    return "the names of keys or shards differ (--keep-extensions or --split)"


def _check_identity(stored: Mapping[str, Any], wanted: Mapping[str, Any], url: str) -> None:
    found = differences(dict(stored), dict(wanted))
    if found:
        raise IdentityMismatchError(
            f"the label set there was made otherwise: {'; '.join(found)}", url=url, hint=_ELSE
        )
