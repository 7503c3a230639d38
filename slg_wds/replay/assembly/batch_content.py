"""The content of one batch while it is being filled, some images at a time: their labels first, then their pixels.

Shapes: n images, c crops of each, B = n * c, k classes stored per crop, S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from slg_wds.arrays import I64
from slg_wds.errors import ImageChangedError, RecordError, ReplayError
from slg_wds.format.records.rows import Rows
from slg_wds.format.records.views import Views, same_views
from slg_wds.images import LabelledImage
from slg_wds.labels.adaptation import adapted
from slg_wds.replay.assembly.context import LoaderContext
from slg_wds.replay.assembly.embedding_columns import EmbeddingColumns
from slg_wds.replay.assembly.epoch import PlannedBatch
from slg_wds.replay.assembly.label_columns import LabelColumns, LabelsOfSet
from slg_wds.replay.assembly.partners import PartnerBytes, PartnerCrops
from slg_wds.replay.batch import Batch, embedding_answers
from slg_wds.replay.sources.files import Contents
from slg_wds.transforms.crops import cut
from slg_wds.transforms.replaying import apply_views

if TYPE_CHECKING:
    import torch

    from slg_wds.labels import SoftLabels

OTHER_CROPS = "its crops are not those of the first label set"


class BatchContent:
    """Labels and pixels of a batch. Threads fill in disjoint images. What fails may be tried again.

    Args:
        planned: the samples and crops of the batch.
        images: uint8 [B, 3, S, S], channels_last, to be filled.
    """

    def __init__(self, context: LoaderContext, planned: PlannedBatch, images: torch.Tensor) -> None:
        self._context, (self._samples, self._crops, self._weight) = context, planned
        n, c = planned.crops.shape
        self._images = images
        members = context.sets.members
        self._embeds = context.sets.holds_embeddings
        self._embeddings = [EmbeddingColumns(labels, n, c) for labels in members if self._embeds]
        labelled = [] if self._embeds else range(len(members))
        self._columns = [LabelColumns(context.sets, number, n, c) for number in labelled]
        self._target = np.full(n, -1, np.int64)
        self._sizes, self._crc32, self._paths = np.zeros((n, 2), np.int64), [None] * n, [""] * n
        self._boxes, self._flips = np.zeros((n, c, 4), np.int64), np.zeros((n, c), np.bool_)
        self._views: list[Views | None] = [None] * n
        self._partners = PartnerCrops(context, n, c) if context.sets.has_mixing else None

    def put_rows(self, number: int, images: Sequence[int], rows: Rows) -> None:
        """Take the labels of some images from set `number`."""
        at = np.array(images)
        columns = self._embeddings[number] if self._embeds else self._columns[number]
        columns.put(at, rows)
        self._put_fields(number, at, rows)

    def put_partners(self, images: Sequence[int], loaded: Sequence[PartnerBytes] | None) -> None:
        """Find what is mixed into some images of a set with mixing, whose labels are there; read it if not `loaded`."""
        assert self._partners is not None
        self._partners.put(images, [self._views[i] for i in images], loaded)

    def _put_fields(self, number: int, at: I64, rows: Rows) -> None:
        """Put in what set `number` says of images beside their labels: the first set decides, the others must agree."""
        for i, fields in zip(at.tolist(), rows.fields, strict=True):
            if fields["key"] != self._samples[i].key:
                raise RecordError(f"it holds the record of {fields['key']!r}")
            if number == 0:
                target = fields["target"]
                self._target[i] = -1 if target is None else target
                self._paths[i], self._crc32[i] = fields["path"], fields.get("image_crc32")
        if number == 0:
            self._sizes[at] = rows.sizes
        elif (rows.sizes != self._sizes[at]).any():
            raise ReplayError(OTHER_CROPS)
        self._put_views(number, at, rows)

    def _put_views(self, number: int, at: I64, rows: Rows) -> None:
        """Put in the boxes of crops, their flips, and what else is done to them, as `_put_fields` does all else."""
        if number == 0:
            self._boxes[at], self._flips[at] = rows.boxes, rows.flips
            if rows.views is not None:
                for j, i in enumerate(at.tolist()):
                    self._views[i] = rows.views[j]
            return
        views = [None if rows.views is None else rows.views[j] for j in range(len(at))]
        if (
            (rows.boxes != self._boxes[at]).any()
            or (rows.flips != self._flips[at]).any()
            or not all(map(same_views, [self._views[i] for i in at.tolist()], views))
        ):
            raise ReplayError(OTHER_CROPS)

    def put_pixels(self, images: Sequence[int], data: Contents | None) -> None:
        """Decode some images, whose labels are there, and cut their crops; read their files if they are not given."""
        from slg_wds.replay.assembly.jpeg_crops import cut_jpegs

        if data is None:
            data = self._context.images.read([self._samples[i] for i in images])
        data = self._checked(images, data)
        at, c, interpolation = np.array(images), self._crops.shape[1], self._context.interpolation
        boxes, flips = self._boxes[at], self._flips[at]
        usual = cut_jpegs(data, self._sizes[at], boxes, flips, self._images, at, interpolation)
        for j, i in enumerate(images):
            if usual[j] and self._views[i] is None:
                continue
            out = self._images[i * c : (i + 1) * c]
            if not usual[j]:
                cut(self._labelled(i).decode(bytes(data.parts[j])), boxes[j], flips[j], out, interpolation)
            if (views := self._views[i]) is not None:
                apply_views(out, views)
        if self._partners is not None:
            self._partners.mix_into(images, [self._images[i * c : (i + 1) * c] for i in images])

    def _checked(self, images: Sequence[int], data: Contents) -> Contents:
        """Return the bytes of images, whose labels are there: those that were labelled, else ImageChangedError."""
        for j, i in enumerate(images):
            if self._crc32[i] == data.crc32[j] or self._labelled(i).is_of(data.parts[j]):
                continue
            labelled, sample, source = self._labelled(i), self._samples[i], self._context.images
            if source.forget(sample):  # what was cached is of another time
                data = data.with_part(j, source.read([sample]).parts[0])
            try:
                labelled.check(data.parts[j])
            except ImageChangedError as error:
                raise error.located(url=source.url(sample)) from None
        return data

    def _labelled(self, i: int) -> LabelledImage:
        """Return what the labels of image i, which are there, say about it."""
        height, width = self._sizes[i].tolist()
        return LabelledImage(self._samples[i].key, self._paths[i], (height, width), self._crc32[i])

    def crops(self, images: Sequence[int]) -> I64:
        """Return the numbers of the crops of some images, int64 [len(images), c]."""
        crops: I64 = self._crops[np.array(images)]
        return crops

    def batch(self) -> Batch:
        """Make the batch, once the labels of all its images are there. Their pixels may be filled in later.

        Decoding pixels evicts the code that works on labels from the processor's caches, so labels come first.
        """
        import torch

        c = self._crops.shape[1]
        present = np.repeat(np.array([sample.shard >= 0 for sample in self._samples]), c)
        mask, target = torch.from_numpy(present), torch.from_numpy(np.repeat(self._target, c))
        answers = self._answers(target)
        if not present.all():
            self._images[~mask] = 0
            if answers["labels"] is not None:
                answers["labels"].mask = mask
        return Batch(
            images=self._images,
            **answers,
            target=target,
            key=[sample.key for sample in self._samples for _ in range(c)],
            crop=torch.from_numpy(np.where(present, self._crops.reshape(-1), -1)),
            mask=mask,
            weight=self._weight,
            **self._mixing,
        )

    @property
    def _mixing(self) -> dict[str, Any]:
        """The fields of the batch for what is mixed in; none for sets without mixing."""
        return {} if self._partners is None else self._partners.tensors()

    def _answers(self, target: torch.Tensor) -> dict[str, Any]:
        """Return what the teachers answered for the crops: the fields of the batch for labels, or for embeddings."""
        import torch

        if self._embeds:
            of_sets = [columns.tensors() for columns in self._embeddings]
            return embedding_answers({name: rows for one in of_sets for name, rows in one.items()})
        parts = [columns.labels(self._context.temperature) for columns in self._columns]
        alone = len(parts) == 1
        return {
            "index": parts[0].index if alone else torch.cat([part.index for part in parts], dim=1),
            "value": parts[0].value if alone else torch.cat([part.value for part in parts], dim=1),
            "tail": parts[0].tail if alone else None,
            "labels": self._adapted(self._mixed([part.labels for part in parts]), target, parts),
        }

    def _mixed(self, labels: list[SoftLabels]) -> SoftLabels:
        from slg_wds.labels import mix

        return labels[0] if len(labels) == 1 else mix(labels, self._context.sets.weights)

    def _adapted(self, labels: SoftLabels, target: torch.Tensor, parts: list[LabelsOfSet]) -> SoftLabels:
        by, weights = self._context.adaptation, self._context.sets.weights
        if by is None:
            return labels
        # In float64, as a crop filter measures: one threshold then parts the crops the same way in both.
        confidence = sum(
            part.confidence().double() * weight for part, weight in zip(parts, weights, strict=True)
        )
        return adapted(labels, target, confidence, by, **self._mixing)  # type: ignore[arg-type]
