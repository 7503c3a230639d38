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
    ShardTruncatedError,
    SlgWdsError,
    StoreError,
)
from slg_wds.format.manifest.index import MAX_SHARD_BYTES
from slg_wds.format.manifest.plan import PlannedShard
from slg_wds.format.records.decoding import decode_record, unpack_record
from slg_wds.format.records.values import OVER_ONE
from slg_wds.format.shards.names import split_member
from slg_wds.format.shards.shard import Shard, read_shard
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import made_by
from slg_wds.verification.fields import check_extras, check_fields
from slg_wds.verification.images import ImageChecks, is_of_image
from slg_wds.verification.index_parts import index_problems
from slg_wds.verification.partners import PartnerChecks
from slg_wds.verification.problems import (
    DAMAGED,
    FOREIGN,
    IMAGE,
    MISSING,
    UNREADABLE,
    Problem,
    ShardReport,
    kind_of,
)
from slg_wds.verification.records import all_sound, rounding

SUM_IMPORTED = 2.0**-6  # `import` allows the float16 probabilities of FKD's files to sum to 1 + this
LISTED = 20  # problems of one shard that are listed; the others are counted


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
                check_fields(fields, self.labels, one.part, planned[sample.key])
                number = one.part.start + planned[sample.key]
                self._partners.check(fields, one.part, number, there)
                check_extras(shard, i, fields)
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
        for kind, what in index_problems(self.labels, shard, one.part, self.indexed):
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


def _why(error: SlgWdsError) -> str:
    names: dict[type[SlgWdsError], str] = {ShardTruncatedError: "truncated: ", ChecksumError: "checksum: "}
    return names.get(type(error), "") + error.message


def _foreign(labels: LabelSet, shard: Shard, part: PlannedShard) -> str | None:
    """Return why a whole shard is not the planned one; None if it is."""
    try:
        shard.check(labels.digest, part.number, part.name, part.keys)
    except FormatError as error:
        return error.message
    return None


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
