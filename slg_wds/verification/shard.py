"""Checks one shard: every byte, every value, its images and its index part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from slg_wds.console import counted
from slg_wds.errors import (
    ChecksumError,
    FormatError,
    ImageChangedError,
    NotFoundError,
    RecordError,
    ShardTruncatedError,
    SlgWdsError,
    StoreError,
    UnsupportedFeatureError,
)
from slg_wds.format.canonical import MAX_JSON_BYTES
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.manifest.index import MAX_SHARD_BYTES, ShardIndex, decode_index, encode_index, index_of
from slg_wds.format.manifest.plan import PlannedShard
from slg_wds.format.records.decoding import decode_record, unpack_record
from slg_wds.format.records.embeddings.fields import EMBEDDING, EMBEDDINGS
from slg_wds.format.records.embeddings.low_rank import LOW_RANK_VALUES, WORST
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.records.tail_sums import TAIL_SUMS, decode_tail_sums
from slg_wds.format.records.values import OVER_ONE
from slg_wds.format.shards.names import split_member
from slg_wds.format.shards.shard import Shard, read_shard
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import made_by
from slg_wds.labelset.objects import INDEX
from slg_wds.verification.images import ImageChecks, is_of_image
from slg_wds.verification.partners import PartnerChecks
from slg_wds.verification.records import all_sound, rounding

SUM_IMPORTED = 2.0**-6  # `import` allows the float16 probabilities of FKD's files to sum to 1 + this
ROUNDING_OF_COSINES = 1e-6  # of a stated cosine, by float32
LISTED = 20  # problems of one shard that are listed; the others are counted

MISSING, DAMAGED, FOREIGN, UNREADABLE = "missing", "damaged", "foreign", "unreadable"
UNSUPPORTED, INDEX_PART, INFO_FILE, TEACHER, IMAGE = "unsupported", "index", "info", "teacher", "image"


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a label set.

    Attributes:
        kind: missing, damaged, foreign (a whole shard, but of another set or number), unreadable (the store failed),
            unsupported (written by a newer version), index (an index part), info (_info.json), teacher (the labels are
            not the teachers'), or image (one that differs from the labelled one, or is gone).
        what: what is wrong, in words.
        shard: name of the shard concerned; None if there is none.
        key: key of the image concerned; None if there is none.
        number: number of the shard concerned; -1 if there is none.
    """

    kind: str
    what: str
    shard: str | None = None
    key: str | None = None
    number: int = -1


@dataclass
class ShardReport:
    """What was found in one shard.

    Attributes:
        number: number of the shard.
        bytes, crops: how many were checked.
        samples: labelled images; -1 if the shard cannot be read, is foreign or is damaged.
        images: embedded images that were decoded.
        compared: images that were read and compared with the labelled ones.
        left_out: planned images for which the shard has no labels.
        made: how the shard was made, see `made_by`; None if it cannot be read or is foreign.
        problems: what is wrong.
    """

    number: int
    bytes: int = 0
    samples: int = -1
    crops: int = 0
    images: int = 0
    compared: int = 0
    left_out: int = 0
    made: dict[str, str] | None = None
    problems: list[Problem] = field(default_factory=list)


@dataclass
class _OpenShard:
    """A shard while it is checked.

    Attributes:
        report: what was found so far.
        part: the shard in the plan.
        shard: its members; None if it is not whole.
        unpacked: of each sound record, its position in the shard and its fields.
        wrong: of each damaged record or image, its key and what is wrong.
    """

    report: ShardReport
    part: PlannedShard
    shard: Shard | None = None
    unpacked: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    wrong: list[tuple[str | None, str]] = field(default_factory=list)

    def add(self, kind: str, what: str, key: str | None = None) -> None:
        """Add a problem to the report."""
        self.report.problems.append(Problem(kind, what, f"{self.part.name}.tar", key, self.report.number))


@dataclass(frozen=True)
class ShardChecks:
    """Checks the shards of one label set.

    Attributes:
        labels: the label set.
        indexed: True if a missing index part is a problem.
        max_pixels: largest embedded image that is decoded; 0 to decode none.
        images: compares the images; None to compare none.
    """

    labels: LabelSet
    indexed: bool
    max_pixels: int
    images: ImageChecks | None = None

    def read(self, number: int) -> bytes | SlgWdsError:
        """Read the bytes of a shard. Returns the error instead if that fails."""
        try:
            return self.labels.store.read(self.labels.shard_name(number), MAX_SHARD_BYTES)
        except StoreError as error:
            return error

    def check(self, number: int, data: bytes | SlgWdsError) -> ShardReport:
        """Check one shard, as `check_all`."""
        return self.check_all([(number, data)])[0]

    def check_all(self, shards: Sequence[tuple[int, bytes | SlgWdsError]]) -> list[ShardReport]:
        """Check several shards. The labels of small shards are checked together, in a fraction of the time.

        Args:
            shards: number of each shard, and its bytes or the error with which reading it failed.

        Returns:
            The report of each shard. Damage is reported, never raised.
        """
        opened = [self._open(number, data) for number, data in shards]
        together = [fields for one in opened for _, fields in one.unpacked]
        sound = all_sound(together, self._over_one)
        for one in opened:
            if one.shard is not None:
                self._look(one, one.shard, sound)
        return [one.report for one in opened]

    @cached_property
    def _partners(self) -> PartnerChecks:
        return PartnerChecks(self.labels)

    @property
    def _over_one(self) -> float:
        return SUM_IMPORTED if self.labels.identity.imported_from else OVER_ONE

    def _open(self, number: int, data: bytes | SlgWdsError) -> _OpenShard:
        """Check the tar, whose shard it is, and each record by itself."""
        part = self.labels.plan.shard(number)
        one = _OpenShard(ShardReport(number), part)
        if isinstance(data, SlgWdsError):
            one.add(MISSING if isinstance(data, NotFoundError) else UNREADABLE, data.message)
            return one
        one.report.bytes = len(data)
        try:
            shard = read_shard(data)
        except FormatError as error:
            one.add(kind_of(error), _why(error), error.key)
            return one
        if (foreign := _foreign(self.labels, shard, part)) is not None:
            one.add(FOREIGN, foreign)
            return one
        one.shard = shard
        one.report.left_out = len(shard.header.left_out)
        one.report.made = made_by(shard.header.provenance)
        self._unpack(one, shard)
        return one

    def _unpack(self, one: _OpenShard, shard: Shard) -> None:
        planned = {key: at for at, key in enumerate(one.part.keys)}
        there = {sample.key for sample in shard.samples}
        for i, sample in enumerate(shard.samples):
            try:
                fields = unpack_record(shard.content(sample.record))
                self._check_fields(fields, one.part, planned[sample.key])
                number = one.part.start + planned[sample.key]
                self._partners.check(fields, one.part, number, there)
                _check_extras(shard, i, fields)
                one.unpacked.append((i, fields))
            except FormatError as error:
                one.wrong.append((sample.key, error.message))
        one.report.crops = sum(int(fields["num_crops"]) for _, fields in one.unpacked)

    def _look(self, one: _OpenShard, shard: Shard, sound: bool) -> None:
        """Check the labels, the images and the index part.

        Args:
            one: the shard.
            shard: its members.
            sound: True if its labels are known to be sound already.
        """
        wrong, over_one = one.wrong, self._over_one
        if not sound and not all_sound([fields for _, fields in one.unpacked], over_one):
            wrong += _one_by_one(shard, [i for i, _ in one.unpacked], over_one)
        if self.max_pixels:
            wrong += _image_problems(shard, one.unpacked, one.report, self.max_pixels)
        for key, what in wrong[:LISTED]:
            one.add(DAMAGED, what, key)
        if len(wrong) > LISTED:
            one.add(
                DAMAGED,
                f"and {counted(len(wrong) - LISTED, 'more problem')} of its records or images",
            )
        if not wrong:
            one.report.samples = len(shard)
        for kind, what in self._index_problems(shard, one.part):
            one.add(kind, what)
        if self.images is not None:
            self._compare(one, self.images)

    def _compare(self, one: _OpenShard, images: ImageChecks) -> None:
        """Report every image that differs from the labelled one or is gone, however many there are."""
        one.report.compared = len(one.unpacked)
        for key, error in images.wrong(one.part, [fields for _, fields in one.unpacked]):
            if not isinstance(error, ImageChangedError):
                one.report.compared -= 1  # there were no bytes to compare
            one.add(IMAGE if is_of_image(error) else UNREADABLE, error.message, key)

    def _index_problems(self, shard: Shard, part: PlannedShard) -> Iterator[tuple[str, str]]:
        name = f"{INDEX}/{part.name}"
        wanted = index_of(shard, part)
        try:
            data = self.labels.store.read(name, MAX_JSON_BYTES)
            found = wanted if data == encode_index(wanted) else decode_index(data)
        except NotFoundError:
            if self.indexed:
                yield INDEX_PART, "its index part is missing"
        except UnsupportedFeatureError as error:
            yield UNSUPPORTED, f"its index part: {error.message}"
        except FormatError as error:
            yield INDEX_PART, f"its index part is damaged: {error.message}"
        except StoreError as error:
            yield UNREADABLE, f"its index part: {error.message}"
        else:
            if found != wanted:
                yield INDEX_PART, f"its index part is not the shard's: {_index_difference(found, wanted)}"

    def _check_fields(self, fields: dict[str, Any], part: PlannedShard, at: int) -> None:
        """Check that a record belongs to the planned image and is labelled as slg.json says. Raises RecordError."""
        identity = self.labels.identity
        target = int(part.targets[at])
        wanted: dict[str, Any] = {
            "key": part.keys[at],
            "path": part.paths[at],
            "target": target if target >= 0 else None,
            "coding": _coding(identity),
            "k": identity.k,
            "num_classes": identity.num_classes,
            "full": identity.label_type == "full",
            EMBEDDINGS: _embeddings_field(identity),
        }
        for name, value in wanted.items():
            if fields.get(name) != value and (value is not None or name == "target"):
                raise RecordError(f"its {name} is {fields.get(name)!r}, where {value!r} belongs")
        if identity.max_kl and fields["kl_mean"] > identity.max_kl * (1.0 + 1e-6):
            raise RecordError(f"its mean KL is {fields['kl_mean']:g}, above {identity.max_kl:g}")
        _check_cosines(fields, identity)
        if self.labels.description.image_checksums and "image_crc32" not in fields:
            raise RecordError("it has no checksum of its image, where slg.json says that all have")
        crops, base = identity.num_crops, identity.extends
        allowed = {crops, crops - base.first_crop} if base else {crops}
        if fields["num_crops"] not in allowed:
            raise RecordError(f"it has {counted(fields['num_crops'], 'crop')}, where {min(allowed)} belong")


def _embeddings_field(identity: Identity) -> list[list[Any]] | None:
    """The field `embeddings` that every record of a set has; None for a set of labels."""
    if identity.embeddings is None:
        return None
    return [[one["name"], one["dim"], one["values"]] for one in identity.embeddings]


def _check_cosines(fields: dict[str, Any], identity: Identity) -> None:
    """Check that low-rank embeddings state the cosine that the set asks for. Raises RecordError."""
    for one, stated in zip(identity.embeddings or [], fields.get(LOW_RANK_VALUES, []), strict=False):
        if "min_cosine" not in one:
            continue
        mean = one["min_cosine"]
        for what, cosine, least in (
            ("mean", stated[0], mean),
            ("least", stated[1], 1.0 - WORST * (1.0 - mean)),
        ):
            if cosine < least - ROUNDING_OF_COSINES:
                raise RecordError(f"its {what} cosine is {cosine:.7g}, below {least:g}")


def _coding(identity: Identity) -> str | None:
    """The coding of the set's records; None if the identity does not say it."""
    if identity.embeddings:
        return EMBEDDING
    return LOW_RANK if identity.label_type == LOW_RANK else identity.coding


def kind_of(error: SlgWdsError) -> str:
    """The kind of problem that an error stands for."""
    if isinstance(error, UnsupportedFeatureError):
        return UNSUPPORTED
    return DAMAGED if isinstance(error, FormatError) else UNREADABLE


def _why(error: SlgWdsError) -> str:
    names: dict[type[SlgWdsError], str] = {ShardTruncatedError: "truncated: ", ChecksumError: "checksum: "}
    return names.get(type(error), "") + error.message


def _foreign(labels: LabelSet, shard: Shard, part: PlannedShard) -> str | None:
    """Why a whole shard is not the planned one; None if it is."""
    try:
        shard.check(labels.digest, part.number, part.name, part.keys)
    except FormatError as error:
        return error.message
    return None


def _check_extras(shard: Shard, i: int, fields: dict[str, Any]) -> None:
    """Check the members beside the record, and the sums that an extendable set stores. Raises RecordError."""
    sample = shard.samples[i]
    wanted = (
        None if fields["target"] is None or sample.image is None else str(fields["target"]).encode("ascii")
    )
    if wanted != (bytes(shard.content(sample.target)) if sample.target else None):
        raise RecordError(f"its cls member does not agree with its target, {fields['target']}")
    if sample.image is not None and fields.get("image_crc32", sample.image_crc32) != sample.image_crc32:
        raise RecordError("the image beside it is not the one that was labelled")
    if TAIL_SUMS in fields["columns"]:
        decode_tail_sums(bytes(shard.content(sample.record)))


def _one_by_one(shard: Shard, which: list[int], over_one: float) -> Iterator[tuple[str, str]]:
    for i in which:
        sample = shard.samples[i]
        try:
            record = decode_record(shard.content(sample.record))
        except FormatError as error:
            yield sample.key, error.message
            continue
        total = record.value.sum(axis=1, dtype=np.float64)
        if record.k and len(total) and total.max() > 1.0 + over_one + rounding(record.coding, record.k):
            row = int(total.argmax())
            yield sample.key, f"the probabilities of crop {row} sum to {total[row]:.6f}"


def _image_problems(
    shard: Shard, unpacked: list[tuple[int, dict[str, Any]]], report: ShardReport, max_pixels: int
) -> Iterator[tuple[str, str]]:
    if not any(sample.image for sample in shard.samples):
        return  # decoding takes torch
    from slg_wds.images import decode, image_extension

    for i, fields in unpacked:
        sample = shard.samples[i]
        if sample.image is None:
            continue
        data = bytes(shard.content(sample.image))
        report.images += 1
        try:
            height, width = decode(data, max_pixels=max_pixels).shape[1:]
            found = image_extension(data)
        except SlgWdsError as error:
            yield sample.key, f"its image: {error.message}"
            continue
        if (height, width) != (fields["height"], fields["width"]):
            yield (
                sample.key,
                f"its image is of {height} x {width} pixels, its record of {fields['height']} x {fields['width']}",
            )
        if found != split_member(sample.image.name)[1]:
            yield sample.key, f"its image is {found}, not {split_member(sample.image.name)[1]}"


def _index_difference(found: ShardIndex, wanted: ShardIndex) -> str:
    for name in ("set_digest", "shard", "name", "bytes", "sha256", "left_out", "image_shard"):
        mine, theirs = getattr(found, name), getattr(wanted, name)
        if mine != theirs:
            return f"{name} is {str(mine)[:70]}, where {str(theirs)[:70]} belongs"
    return "the places of its members differ"
