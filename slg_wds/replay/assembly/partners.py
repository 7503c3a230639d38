"""The partners of a batch's mixed crops: which crops of which images are mixed in, with which weight, and their pixels.

Shapes: n images of the batch, c crops of each, P partner images, at most m crops of each, S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from slg_wds.arrays import I64, U8, Bools
from slg_wds.errors import ImageChangedError, RecordError, SlgWdsError
from slg_wds.format.records.mixing import Mixing
from slg_wds.format.records.rows import Rows
from slg_wds.format.records.views import Views
from slg_wds.images import LabelledImage
from slg_wds.replay.assembly.context import LoaderContext
from slg_wds.replay.sources.files import FileBytes
from slg_wds.replay.sources.images import EmbeddedImages
from slg_wds.replay.sources.label_sets import LabelSets, SamplePlace
from slg_wds.replay.sources.records import SampleLabels
from slg_wds.transforms.drawn import DrawnCrops
from slg_wds.transforms.mixing import mix_view

if TYPE_CHECKING:
    import torch

NOBODY = (-1, -1)
AT_A_TIME = 8  # images whose partners are read at a time: they may have c records each, of megabytes for `full` labels


@dataclass(frozen=True)
class PartnerBytes:
    """What was read of a partner: its record in the first set, and its image."""

    record: SampleLabels
    image: FileBytes


@dataclass(frozen=True)
class WantedPartners:
    """The partners of some crops, each image once.

    Attributes:
        samples: [P], where each lies.
        crops: int64 [P, m], the numbers of its crops that are wanted; where there are fewer, the last one repeats.
        at: int64 [..., 2], for each of the crops its partner's row and column in `crops`; NOBODY for unmixed ones.
    """

    samples: list[SamplePlace]
    crops: I64
    at: I64

    @classmethod
    def of(cls, sets: LabelSets, mixing: Mixing) -> WantedPartners:
        """Find the partners. Raises RecordError for one that has no labels."""
        mixed = mixing.partner >= 0
        pairs = mixing.partner[mixed] << 16 | mixing.crop[mixed]
        distinct, which = np.unique(pairs, return_inverse=True)
        numbers, first, row, counts = np.unique(
            distinct >> 16, return_index=True, return_inverse=True, return_counts=True
        )
        column = np.arange(len(distinct)) - first[row]
        most = np.minimum(np.arange(counts.max(initial=0)), counts[:, None] - 1)
        at = np.full((*mixed.shape, 2), NOBODY)
        at[mixed] = np.stack([row, column], axis=-1)[which.reshape(-1)]
        crops = distinct[first[:, None] + most] & 0xFFFF
        return cls([sets.sample(number) for number in numbers.tolist()], crops, at)


@dataclass(frozen=True, eq=False)
class _Partners:
    """The crops [P, m] of the partners of some images; `files` are their image files if these were read before.

    Only what is needed of the records, whose bytes would stay in memory with them until the batch is made.
    """

    samples: list[SamplePlace]
    labelled: list[LabelledImage]
    boxes: I64
    flips: Bools
    views: Views | None
    files: list[FileBytes] | None

    @classmethod
    def of(cls, samples: list[SamplePlace], rows: Rows, files: list[FileBytes] | None) -> _Partners:
        labelled = [LabelledImage.of_fields(fields) for fields in rows.fields]
        return cls(samples, labelled, rows.boxes, rows.flips, rows.views, files)

    def crops(self, row: int, columns: list[int]) -> DrawnCrops:
        """Return some crops of one partner, before anything is mixed into them."""
        at = row, columns
        views = None if self.views is None else replace(self.views[at], mixing=None)
        return DrawnCrops(self.boxes[at], self.flips[at], views)


class _Mix(NamedTuple):
    """One crop of a batch, uint8 [3, S, S], the number of the partner's crop, and how it is mixed in."""

    view: torch.Tensor
    column: int
    lam: int
    box: U8


class PartnerCrops:
    """What is mixed into the crops of a batch. Threads fill in disjoint images.

    Args:
        context: of the loader.
        n: images of the batch.
        c: crops of each.
    """

    def __init__(self, context: LoaderContext, n: int, c: int) -> None:
        self._context = context
        self._found: list[tuple[_Partners, I64, Mixing] | None] = [None] * n
        self._target2, self._lam = np.full((n, c), -1), np.ones((n, c), np.float32)

    def put(
        self, images: Sequence[int], views: Sequence[Views | None], loaded: Sequence[PartnerBytes] | None
    ) -> None:
        """Find what is mixed into some images.

        Args:
            images: their numbers in the batch.
            views: of the crops of each, [c].
            loaded: what `load_partners` returned for the only image; None to read it here.
        """
        for first in range(0, len(images), AT_A_TIME):
            some = slice(first, first + AT_A_TIME)
            self._put(images[some], _mixing_of(views[some]), loaded)

    def _put(self, images: Sequence[int], mixing: Mixing, loaded: Sequence[PartnerBytes] | None) -> None:
        wanted = WantedPartners.of(self._context.sets, mixing)
        if not wanted.samples:
            return
        records = self._records(wanted) if loaded is None else [one.record for one in loaded]
        files = None if loaded is None else [one.image for one in loaded]
        rows = self._decoded(wanted.samples, records, wanted.crops)
        partners = _Partners.of(wanted.samples, rows, files)
        targets = [-1 if fields["target"] is None else fields["target"] for fields in rows.fields]
        row = wanted.at[..., 0]
        self._target2[images] = np.array([*targets, -1])[row]  # the last one is nobody's
        self._lam[images] = mixing.weights()
        for j, i in enumerate(images):
            self._found[i] = (partners, wanted.at[j], mixing[j])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return `target2` and `lam` of a batch, [B]."""
        import torch

        found = {"target2": self._target2, "lam": self._lam}
        return {name: torch.from_numpy(one.reshape(-1)) for name, one in found.items()}

    def _records(self, wanted: WantedPartners) -> list[SampleLabels]:
        return [one for [one] in self._context.first_records.read(wanted.samples, wanted.crops)]

    def _decoded(self, samples: list[SamplePlace], records: Sequence[SampleLabels], crops: I64) -> Rows:
        """Return the crops of partners. Raises an error that names the one at fault."""
        try:
            with self._context.in_turn:
                rows = self._context.first_records.rows(0, records, crops, labels=False)
            for sample, fields in zip(samples, rows.fields, strict=True):
                if fields["key"] != sample.key:
                    raise RecordError(f"it holds the record of {fields['key']!r}")
            return rows
        except SlgWdsError as error:
            for number in range(len(samples) if len(samples) > 1 else 0):
                one = slice(number, number + 1)
                self._decoded(samples[one], records[one], crops[one])
            labels, sample = self._context.sets.members[0], samples[0]
            shard = labels.shard_name(sample.shard)
            raise error.located(url=labels.url, shard=shard, key=sample.key) from None

    def mix_into(self, images: Sequence[int], views: Sequence[torch.Tensor]) -> None:
        """Mix partners into views of some images, uint8 [c, 3, S, S] of each. A partner is decoded once for all."""
        uses: dict[_Partners, dict[int, list[_Mix]]] = {}
        for i, of_image in zip(images, views, strict=True):
            if (found := self._found[i]) is not None:
                partners, at, mixing = found
                for crop in np.flatnonzero(at[:, 0] >= 0).tolist():
                    row, column = at[crop].tolist()
                    mix = _Mix(of_image[crop], column, int(mixing.lam[crop]), mixing.box[crop])
                    uses.setdefault(partners, {}).setdefault(row, []).append(mix)
        for partners, by_row in uses.items():
            for (row, mixes), data in zip(by_row.items(), self._files(partners, list(by_row)), strict=True):
                self._mix(partners, row, data, mixes)

    def _files(self, partners: _Partners, rows: list[int]) -> Sequence[FileBytes]:
        if partners.files is not None:
            return [partners.files[row] for row in rows]
        return self._context.images.read([partners.samples[row] for row in rows]).parts

    def _mix(self, partners: _Partners, row: int, data: FileBytes, mixes: list[_Mix]) -> None:
        import torch

        columns, size = sorted({mix.column for mix in mixes}), self._context.size
        crops = torch.empty((len(columns), size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        pixels = self._pixels(partners.samples[row], partners.labelled[row], data)
        partners.crops(row, columns).cut(pixels, crops, self._context.interpolation)
        for mix in mixes:
            mix_view(mix.view, crops[columns.index(mix.column)], mix.lam, mix.box)

    def _pixels(self, sample: SamplePlace, labelled: LabelledImage, data: FileBytes) -> torch.Tensor:
        """Return the pixels of a partner. Raises ImageChangedError unless it is the image that was labelled."""
        images = self._context.images
        if not labelled.is_of(data) and images.forget(sample):
            [data] = images.read([sample]).parts  # what was cached is of another time
        try:
            return labelled.decode(bytes(data))
        except ImageChangedError as error:
            shard = self._context.sets.members[0].shard_name(sample.shard)
            raise error.located(url=images.url(sample), shard=shard) from None


def _mixing_of(views: Sequence[Views | None]) -> Mixing:
    """Return the mixing of several images' crops. Raises RecordError for a record without it, where the set has it."""
    found = [None if one is None else one.mixing for one in views]
    if None in found:
        raise RecordError("its views do not say what is mixed in, though the set says that they do")
    return Mixing(
        *(np.stack([getattr(one, part) for one in found]) for part in ("partner", "crop", "lam", "box"))
    )


def load_partners(context: LoaderContext, record: SampleLabels, crops: I64) -> list[PartnerBytes]:
    """Read what is mixed into some crops of one image, in the order of `WantedPartners`; may wait for a network.

    Args:
        context: of the loader.
        record: of the image in the first set.
        crops: int64 [c], their numbers in it.
    """
    views = context.first_records.rows(0, [record], crops[None], labels=False).views
    wanted = WantedPartners.of(context.sets, _mixing_of([views]))
    return [_load(context, *one) for one in zip(wanted.samples, wanted.crops, strict=True)]


def _load(context: LoaderContext, sample: SamplePlace, crops: I64) -> PartnerBytes:
    records, images = context.first_records, context.images
    if isinstance(images, EmbeddedImages) and context.sets.embedded == 0:
        [record], image = records.read_with_image(sample, crops, images.place(sample))
        return PartnerBytes(record, image.parts[0])
    return PartnerBytes(records.read([sample], crops[None])[0][0], images.read([sample]).parts[0])
