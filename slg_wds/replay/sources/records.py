"""The labels of samples: read from every set and decoded; the records of sets that extend each other are joined.

Shapes: n samples, c crops of each, k classes stored per crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np

from slg_wds.arrays import I64, Bools
from slg_wds.errors import LabelSetError, SlgWdsError
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.low_rank.rows import LowRankRows
from slg_wds.format.records.record import Record
from slg_wds.format.records.rows import Rows, decode_rows
from slg_wds.format.records.views import with_views
from slg_wds.labelset.combining.joining import check_same_image, join_records, tail_covers_all
from slg_wds.replay.cache.caches import Caches
from slg_wds.replay.sources.files import Contents, FileBytes, OpenFiles
from slg_wds.replay.sources.label_sets import LabelSets, SamplePlace
from slg_wds.replay.sources.shards import ShardRange, Shards, open_shards

Place = tuple[I64, I64]  # numbers of images, and of crops of each


class ChainPart(NamedTuple):
    """A sample's record in one set of a chain: crops [first, first + crops); data is None if not requested."""

    place: int  # of the set in the chain, the oldest first
    first: int
    crops: int
    data: FileBytes | None


# A sample's record in one member, or its records in the sets of the member's chain, the newest last.
SampleLabels = FileBytes | list[ChainPart]


@dataclass(frozen=True)
class Records:
    """The records of all members, readable from any thread.

    Attributes:
        sets: the label sets.
        shards: of each member.
        bases: of each set that a member extends, [member][set], the oldest first.
    """

    sets: LabelSets
    shards: Sequence[Shards]
    bases: Sequence[Sequence[Shards]]

    @property
    def remote(self) -> bool:
        """Whether reading may have to wait for a network."""
        return any(one.remote for chain in (self.shards, *self.bases) for one in chain)

    @property
    def never_cached(self) -> bool:
        """Whether reading needs a network whatever is cached."""
        return any(one.never_cached for chain in (self.shards, *self.bases) for one in chain)

    def ready(self, shard: int) -> bool:
        """Say whether this shard can be read without waiting for a network."""
        chains = zip(self.shards, self.bases, strict=True)
        return all(one.ready(shard) for last, bases in chains for one in (*bases, last))

    def read(self, samples: Sequence[SamplePlace], crops: I64 | None = None) -> Sequence[list[SampleLabels]]:
        """Read the labels of samples in every member, [sample][member]: those of crops [n, c], or all.

        Raises:
            SlgWdsError: it names the shard and the key.
        """
        newest = [
            shards.read([self._place(member, sample) for sample in samples]).parts
            for member, shards in enumerate(self.shards)
        ]
        return self._chained(samples, [list(of_sample) for of_sample in zip(*newest, strict=True)], crops)

    def read_with_image(
        self, sample: SamplePlace, crops: I64, image: ShardRange
    ) -> tuple[list[SampleLabels], Contents]:
        """Read a sample's labels as `read` does; the request for a record also fetches the image embedded beside it."""
        newest: list[SampleLabels] = []
        found = Contents([], [])
        for member, shards in enumerate(self.shards):
            record = self._place(member, sample)
            ranges = [record, image] if member == self.sets.embedded else [record]
            read = shards.read_together(ranges)
            newest.append(read.parts[0])
            if member == self.sets.embedded:
                found = Contents(read.parts[1:], read.crc32[1:])
        return self._chained([sample], [newest], crops[None])[0], found

    def _place(self, member: int, sample: SamplePlace) -> ShardRange:
        place = self.sets.shard(sample.shard).records[member][sample.position].tolist()
        return ShardRange(sample.shard, sample.key, *place)

    def _chained(
        self, samples: Sequence[SamplePlace], newest: Sequence[list[SampleLabels]], crops: I64 | None
    ) -> Sequence[list[SampleLabels]]:
        """Add the records that older sets of a chain have of samples to those of the chain's newest set."""
        for member in range(len(self.shards)):
            if self.bases[member]:
                for i, sample in enumerate(samples):
                    data, of_sample = newest[i][member], None if crops is None else crops[i]
                    newest[i][member] = self._parts(member, sample, cast(FileBytes, data), of_sample)
        return newest

    def _parts(
        self, member: int, sample: SamplePlace, newest: FileBytes, crops: I64 | None
    ) -> list[ChainPart]:
        last = self.sets.members[member]
        if not tail_covers_all(last):
            crops = None  # the joined tail is made from all parts
        parts, first = [], 0
        places = zip(self.sets.bases[member], self.sets.shard(sample.shard).bases[member], strict=True)
        for place, (base, where) in enumerate(places):
            shard, *at = where[sample.position].tolist()
            if shard >= 0:
                stop, data = base.labels.num_crops, None
                if crops is None or ((crops >= first) & (crops < stop)).any():
                    [data] = self.bases[member][place].read([ShardRange(shard, sample.key, *at)]).parts
                parts.append(ChainPart(place, first, stop - first, data))
                first = stop
        return [*parts, ChainPart(len(self.bases[member]), first, last.num_crops - first, newest)]

    def whole(self, shard: int, position: int) -> list[Record]:
        """Return the records of a sample with all their crops, one of each member."""
        sample = SamplePlace(shard, position, self.sets.key(shard, position))
        found = []
        for member, data in enumerate(self.read([sample])[0]):
            labels = self.sets.members[member]
            if isinstance(data, list):
                found.append(join_records(self._decoded(member, data), labels))
            else:
                found.append(decode_record(data, url=labels.url, shard=labels.shard_name(shard)))
        return found

    def _decoded(self, member: int, parts: Sequence[ChainPart]) -> list[Record]:
        return [decode_record(part.data, url=self._url(member, part.place)) for part in parts if part.data]

    def _url(self, member: int, place: int) -> str:
        bases = self.sets.bases[member]
        return bases[place].labels.url if place < len(bases) else self.sets.members[member].url

    def rows(self, member: int, data: Sequence[Any], crops: I64, labels: bool = True) -> Rows:
        """Decode crops [n, c] of samples from what `read` returned for one member. Raises FormatError.

        Without `labels`, boxes, flips and views are enough; others may be there too.
        """
        if not self.bases[member]:
            return decode_rows(data, crops, labels)
        found = self._rows(member, [parts[-1] for parts in data], crops)
        for place in range(len(self.bases[member])):
            at = [
                i for i, parts in enumerate(data) for part in parts[:-1] if part.place == place and part.data
            ]
            if not at:
                continue
            parts = [next(part for part in data[i] if part.place == place) for i in at]
            some = self._rows(member, parts, crops[at])
            some = replace(some, views=self.sets.bases[member][place].renumbered(some.views))
            self._check(member, [found.fields[i] for i in at], some.fields)
            i, j = np.nonzero(_inside(parts, crops[at]))
            found = _with_crops(found, (np.array(at)[i], j), some, (i, j))
        if tail_covers_all(self.sets.members[member]):
            return found
        joined = [join_records(self._decoded(member, parts), self.sets.members[member]) for parts in data]
        return replace(found, tails=[record.tail for record in joined])

    def _rows(self, member: int, parts: Sequence[ChainPart], crops: I64) -> Rows:
        """Decode the crops that lie in these parts. Crops outside a part are arbitrary; the caller overwrites them."""
        first = np.array([[part.first] for part in parts])
        own = np.where(_inside(parts, crops), crops - first, 0)
        try:
            return decode_rows([part.data or b"" for part in parts], own)
        except SlgWdsError as error:
            raise error.located(url=self._url(member, parts[0].place)) from None

    def _check(self, member: int, fields: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> None:
        for one, other in zip(fields, others, strict=True):
            if any(
                one[name] != other[name] for name in ("key", "height", "width", "target", "num_classes", "k")
            ):
                raise LabelSetError(
                    "the sets joined differ in its size or target",
                    url=self.sets.members[member].url,
                    key=one["key"],
                )
            crc32s = [fields.get("image_crc32") for fields in (one, other)]
            check_same_image(one["key"], crc32s, self.sets.members[member].url)


def _with_crops(rows: Rows, to: Place, other: Rows, at: Place) -> Rows:
    """Return the rows, with the crops at the places `to` taken from the places `at` of `other`."""
    boxes, flips, value = rows.boxes.copy(), rows.flips.copy(), rows.value.copy()
    boxes[to], flips[to], value[to] = other.boxes[at], other.flips[at], other.value[at]
    index, low_rank = rows.index, rows.low_rank
    if index is not None and other.index is not None:
        index = index.copy()
        index[to] = other.index[at]
    if low_rank is not None and other.low_rank is not None:
        low_rank = _with_low_rank(low_rank, to, other.low_rank, at)
    views, embeddings = with_views(rows.views, to, other.views, at), rows.embeddings
    if embeddings is not None:
        embeddings = {name: one.copy() for name, one in embeddings.items()}
        for name, one in (other.embeddings or {}).items():
            embeddings[name][to] = one[at]
    changed: dict[str, Any] = {"boxes": boxes, "flips": flips, "index": index, "value": value, "views": views}
    return replace(rows, **changed, low_rank=low_rank, embeddings=embeddings)


def _with_low_rank(rows: LowRankRows, to: Place, other: LowRankRows, at: Place) -> LowRankRows:
    n = len(rows.block)
    both = LowRankRows.joined([rows, other])
    block, coefficients = both.block[:n].copy(), both.coefficients[:n].copy()
    block[to], coefficients[to] = both.block[n:][at], both.coefficients[n:][at]
    return replace(both, block=block, coefficients=coefficients)


def _inside(parts: Sequence[ChainPart], crops: I64) -> Bools:
    """Return which crops [n, c] lie in the parts, bool [n, c]."""
    bounds = np.array([[part.first, part.first + part.crops] for part in parts])
    return np.asarray((crops >= bounds[:, :1]) & (crops < bounds[:, 1:]))


def open_records(sets: LabelSets, files: OpenFiles, caches: Caches) -> Records:
    """Open the shards of all members and of the sets that they extend; remote ones with a cache.

    A base of another plan has no cache: it is not read shard by shard.
    """
    shards = [
        open_shards(labels, caches.of_labels(labels, sets.file_of(member)), files)
        for member, labels in enumerate(sets.members)
    ]
    bases = [
        [
            open_shards(
                base.labels, caches.of_labels(base.labels, base.file) if base.aligned else None, files
            )
            for base in chain
        ]
        for chain in sets.bases
    ]
    return Records(sets, shards, bases)
