"""A batch in the making: threads fill in image after image, the last one closes it.

Shapes: n images, c crops of each, B = n * c, k classes stored per crop, S pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slg_wds.errors import ImageChangedError, RecordError, ReplayError, SlgWdsError, StoreUnavailableError
from slg_wds.format.records.views import Views, same_views
from slg_wds.images import LabelledImage
from slg_wds.labels.adaptation import adapted
from slg_wds.replay.assembly.context import LoaderContext
from slg_wds.replay.assembly.epoch import PlannedBatch
from slg_wds.replay.assembly.label_columns import LabelColumns
from slg_wds.replay.batch import Batch
from slg_wds.replay.sources.images import EmbeddedImages
from slg_wds.replay.sources.records import SampleLabels
from slg_wds.transforms.crops import cut
from slg_wds.transforms.replaying import apply_views

if TYPE_CHECKING:
    import torch

    from slg_wds.labels import SoftLabels

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SampleBytes:
    """The bytes of one sample: its record in each set, and its image."""

    records: list[SampleLabels]
    image: bytes


class BatchBuilder:
    """One batch of a rank.

    Args:
        planned: its samples and crops.
        images: uint8 [B, 3, S, S], channels_last, to be filled.
    """

    def __init__(self, context: LoaderContext, planned: PlannedBatch, images: torch.Tensor) -> None:
        self.context = context
        self.shards, self.positions = planned.shard.tolist(), planned.position.tolist()
        self.keys, self.crops, self.images = planned.keys, planned.crops, images
        n, self._c = self.crops.shape
        self._columns = [
            LabelColumns(context.sets, number, n, self._c) for number in range(len(context.sets.members))
        ]
        self._target = np.full(n, -1, np.int64)
        self._labelled = [LabelledImage("", "", (0, 0), None)] * n
        self._boxes, self._flips = np.zeros((n, self._c, 4), np.int64), np.zeros((n, self._c), np.bool_)
        self._views: list[Views | None] = [None] * n
        self._loading: set[int] = set()
        self._left = sum(number >= 0 for number in self.shards)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._batch: Batch | None = None
        self.error: BaseException | None = None
        if self._left == 0:
            self._close()

    @property
    def done(self) -> bool:
        """Whether the batch is filled, or has failed."""
        return self._done.is_set()

    def result(self, deadline: float) -> Batch:
        """Wait so many seconds for the batch.

        Raises the first error of a thread, at once; StoreUnavailableError where neither comes in time.
        """
        if not self._done.wait(deadline):
            self._late(deadline)
        if self.error is not None:
            raise self.error
        assert self._batch is not None
        return self._batch

    def _late(self, deadline: float) -> None:
        late = StoreUnavailableError(
            f"the batch is not there after {deadline:g} s",
            hint="see what its storage does, or raise deadline=",
        )
        waiting = sorted(self._loading) or [i for i, shard in enumerate(self.shards) if shard >= 0]
        self._fail(waiting[0], late)

    def load(self, i: int) -> SampleBytes | None:
        """Read image i's bytes, which may wait for a network; None if that failed, which `result` raises."""
        try:
            self._loading.add(i)
            if self.error is None:
                return self._read(i)
        except BaseException as error:
            self._fail(i, error)
        finally:
            self._loading.discard(i)
        self._some_done(1)
        return None

    def wait(self, i: int) -> bool:
        """Wait for image i's shard if it is coming; whether it is there."""
        self._loading.add(i)
        self.context.caches.wait(self.shards[i])
        self._loading.discard(i)
        return self.context.ready(self.shards[i])

    def fill_images(self, images: Sequence[int], loaded: SampleBytes | None = None) -> None:
        """Decode these images, whose labels are there, and cut their crops into the batch.

        Some together, for the same reason as their labels.
        """
        data = [self._attempt(self._checked_image, i, loaded) for i in images]
        done = None
        if self.error is None:
            done = self._attempt(lambda _: self._cut_together(images, data), images[0])
        for i, one, cut_already in zip(images, data, done or [False] * len(images), strict=True):
            if not cut_already:
                self._attempt(self._cut, i, one)
            self._attempt(self._apply_views, i)
        self._some_done(len(images))

    def _attempt(self, step: Callable[..., Any], i: int, *more: Any) -> Any:
        if self.error is None:
            try:
                return step(i, *more)
            except BaseException as error:
                self._fail(i, error)
        return None

    def _read(self, i: int) -> SampleBytes:
        images, sample = self.context.images, (self.shards[i], self.positions[i], self.keys[i])
        if isinstance(images, EmbeddedImages):
            image = images.place(*sample)
            return SampleBytes(*self.context.records.read_with_image(*sample, self.crops[i], image))
        return SampleBytes(self._read_records(i), self._read_image(i))

    def _read_records(self, i: int) -> list[SampleLabels]:
        return self.context.records.read(self.shards[i], self.positions[i], self.keys[i], self.crops[i])

    def _read_image(self, i: int) -> bytes:
        return self.context.images.read(self.shards[i], self.positions[i], self.keys[i])

    def _checked_image(self, i: int, loaded: SampleBytes | None) -> bytes:
        """The bytes of image i, whose labels are there: those that were labelled, else ImageChangedError."""
        data = loaded.image if loaded else self._read_image(i)
        labelled, images = self._labelled[i], self.context.images
        if not labelled.is_of(data) and images.forget(self.shards[i], self.positions[i]):
            data = self._read_image(i)  # what was cached is of another time
        try:
            labelled.check(data)
        except ImageChangedError as error:
            raise error.located(url=images.url(self.shards[i], self.positions[i])) from None
        return data

    def fill_labels(self, images: Sequence[int], loaded: SampleBytes | None = None) -> None:
        """Decode the records of these images.

        Many together, and not each before its image: between the pixels of two images their code and data fall out of
        the processor's caches, and decoding one takes three times as long.
        """
        data = [loaded.records if loaded else self._attempt(self._read_records, i) for i in images]
        if self.error is None:
            try:
                self._decode_labels(images, data)
            except SlgWdsError as error:
                if len(images) == 1:
                    self._fail(images[0], error)
                for i, one in (
                    zip(images, data, strict=True) if len(images) > 1 else ()
                ):  # which of them is it?
                    self._attempt(lambda i, one=one: self._decode_labels([i], [one]), i)
                if self.error is None:
                    self._fail(images[0], error)

    def _decode_labels(self, images: Sequence[int], data: Sequence[Any]) -> None:
        """The labels of some images from the bytes of their records, [image][set]."""
        at = np.array(images)
        for number, labels in enumerate(self.context.sets.members):
            try:
                rows = self.context.records.rows(number, [one[number] for one in data], self.crops[at])
                self._columns[number].put(at, rows)
            except SlgWdsError as error:
                raise error.located(url=labels.url) from None
            labelled = [LabelledImage.of_fields(one) for one in rows.fields]
            for i, image, one in zip(images, labelled, rows.fields, strict=True):
                if one["key"] != self.keys[i]:
                    raise RecordError(f"it holds the record of {one['key']!r}", url=labels.url)
                if number == 0:
                    self._labelled[i] = image
                    self._target[i] = -1 if one["target"] is None else one["target"]
            views = [None if rows.views is None else rows.views[place] for place in range(len(images))]
            if number == 0:
                self._boxes[at], self._flips[at] = rows.boxes, rows.flips
                for i, its_views in zip(images, views, strict=True):
                    self._views[i] = its_views
            elif not (
                [image.size for image in labelled] == [self._labelled[i].size for i in images]
                and (rows.boxes == self._boxes[at]).all()
                and (rows.flips == self._flips[at]).all()
                and all(map(same_views, (self._views[i] for i in images), views))
            ):
                raise ReplayError("its crops are not those of the first label set", url=labels.url)

    def _cut_together(self, images: Sequence[int], data: Sequence[bytes]) -> list[bool]:
        """Cut the images that are of the usual kind; whether each was."""
        from slg_wds.replay.assembly.jpeg_crops import cut_jpegs

        at = np.array(images)
        sizes, out = [self._labelled[i].size for i in images], [self._crops_of(i) for i in images]
        return cut_jpegs(data, sizes, self._boxes[at], self._flips[at], out, self.context.interpolation)

    def _cut(self, i: int, data: bytes) -> None:
        pixels = self._labelled[i].decode(data)
        cut(pixels, self._boxes[i], self._flips[i], self._crops_of(i), self.context.interpolation)

    def _apply_views(self, i: int) -> None:
        views = self._views[i]
        if views is not None:
            apply_views(self._crops_of(i), views)

    def _crops_of(self, i: int) -> torch.Tensor:
        return self.images[i * self._c : (i + 1) * self._c]

    def _fail(self, i: int, error: BaseException) -> None:
        if isinstance(error, Exception):
            labels = self.context.sets.members[0]
            place = {"url": labels.url, "shard": labels.shard_name(self.shards[i]), "key": self.keys[i]}
            if isinstance(error, SlgWdsError):
                error = error.located(**place)
            elif not isinstance(error, MemoryError):
                cause, error = error, ReplayError(f"{type(error).__name__}: {error}", **place)
                error.__cause__ = cause
        with self._lock:
            self.error = self.error or error
        self._done.set()

    def _some_done(self, images: int) -> None:
        with self._lock:
            self._left -= images
            last = self._left == 0
        if last:
            self._close()

    def _close(self) -> None:
        try:
            if self.error is None:
                self._batch = self._assembled()
        except BaseException as error:
            self.error = error
        self._done.set()

    def _assembled(self) -> Batch:
        import torch

        parts = [columns.labels(self.context.temperature) for columns in self._columns]
        c, present = self._c, np.repeat(np.array(self.shards) >= 0, self._c)
        target = torch.from_numpy(np.repeat(self._target, c))
        labels = self._adapted(self._mixed([part[2] for part in parts]), target, [part[1] for part in parts])
        crop = np.where(present, self.crops.reshape(-1), -1)
        if not present.all():
            self.images[torch.from_numpy(~present)] = 0
        return Batch(
            images=self.images,
            index=parts[0][0] if len(parts) == 1 else torch.cat([part[0] for part in parts], dim=1),
            value=parts[0][1] if len(parts) == 1 else torch.cat([part[1] for part in parts], dim=1),
            tail=parts[0][3] if len(parts) == 1 else None,
            labels=labels,
            target=target,
            key=[key for key in self.keys for _ in range(c)],
            crop=torch.from_numpy(crop),
            mask=torch.from_numpy(present),
        )

    def _mixed(self, labels: list[SoftLabels]) -> SoftLabels:
        from slg_wds.labels import mix

        return labels[0] if len(labels) == 1 else mix(labels, self.context.sets.weights)

    def _adapted(self, labels: SoftLabels, target: torch.Tensor, values: list[torch.Tensor]) -> SoftLabels:
        by, weights = self.context.adaptation, self.context.sets.weights
        if by is None:
            return labels
        # In float64, as a crop filter measures: one threshold then parts the crops the same way in both.
        confidence = sum(
            value.amax(dim=1).double() * weight for value, weight in zip(values, weights, strict=True)
        )
        return adapted(labels, target, confidence, by)  # type: ignore[arg-type]
