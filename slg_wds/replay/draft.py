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

from slg_wds.crops import cut
from slg_wds.errors import ImageError, RecordError, ReplayError, SlgWdsError
from slg_wds.format.record import Record, decode_record
from slg_wds.images import MAX_PIXELS, decode
from slg_wds.replay.batch import Batch
from slg_wds.replay.pictures import Pictures
from slg_wds.replay.sets import Sets
from slg_wds.replay.shards import Shards

if TYPE_CHECKING:
    import torch

    from slg_wds.labels import SoftLabels, TailBatch

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reading:
    """What every batch is made from."""

    sets: Sets
    shards: list[Shards]
    pictures: Pictures
    size: int
    interpolation: str


@dataclass(frozen=True)
class Loaded:
    """The bytes of one sample: its record in each set, and its image."""

    records: list[bytes]
    image: bytes


class Draft:
    """One batch of a rank.

    Args:
        shard, position: int64 [n], -1 in padding. keys: [n]. crops: int64 [n, c], numbers in the record.
        images: uint8 [B, 3, S, S], channels_last, to be filled.
    """

    def __init__(
        self, reading: Reading, shard: I64, position: I64, keys: list[str], crops: I64, images: torch.Tensor
    ) -> None:
        self.reading = reading
        self.shards, self.positions = shard.tolist(), position.tolist()
        self.keys, self.crops, self.images = keys, crops, images
        n, self._c = crops.shape
        self._target = np.full(n, -1, np.int64)
        self._labels: list[list[Record | None]] = [[None] * n for _ in reading.sets.members]
        self._left = sum(number >= 0 for number in self.shards)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._batch: Batch | None = None
        self.error: BaseException | None = None
        if self._left == 0:
            self._close()

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def result(self) -> Batch:
        """Wait for the batch. Raises the error of the thread that failed."""
        self._done.wait()
        if self.error is not None:
            raise self.error
        assert self._batch is not None
        return self._batch

    def load(self, i: int) -> Loaded | None:
        """Read image i's bytes, which may wait for a network; None if that failed, which `result` raises."""
        try:
            if self.error is None:
                return Loaded(self._read_records(i), self._read_image(i))
        except BaseException as error:
            self._fail(i, error)
        self._one_done()
        return None

    def fill(self, images: Sequence[int], loaded: Loaded | None = None) -> None:
        """Decode these images' records, then their pixels, and cut their crops into the batch.

        All records first: between the pixels of two images their code and data fall out of the processor's caches,
        and decoding one takes three times as long.
        """
        for i in images:
            self._attempt(self._fill_labels, i, loaded)
        for i in images:
            self._attempt(self._fill_image, i, loaded)
            self._one_done()

    def _attempt(self, step: Callable[[int, Loaded | None], None], i: int, loaded: Loaded | None) -> None:
        if self.error is None:
            try:
                step(i, loaded)
            except BaseException as error:
                self._fail(i, error)

    def _read_records(self, i: int) -> list[bytes]:
        shard, position, key = self.shards[i], self.positions[i], self.keys[i]
        places = self.reading.sets.shard(shard).records
        return [
            shards.read(shard, place[position].tolist(), key)
            for shards, place in zip(self.reading.shards, places, strict=True)
        ]

    def _read_image(self, i: int) -> bytes:
        return self.reading.pictures.read(self.shards[i], self.positions[i], self.keys[i])

    def _fill_labels(self, i: int, loaded: Loaded | None) -> None:
        data = loaded.records if loaded else self._read_records(i)
        key, rows = self.keys[i], self.crops[i]
        for number, (labels, one) in enumerate(zip(self.reading.sets.members, data, strict=True)):
            record = decode_record(one, rows=rows, url=labels.url, key=key)
            if record.key != key:
                raise RecordError(f"it holds the record of {record.key!r}", url=labels.url)
            if number > 0:
                _check_same_crops(self._first(i), record, labels.url)
            self._labels[number][i] = record
        target = self._first(i).target
        self._target[i] = -1 if target is None else target

    def _first(self, i: int) -> Record:
        record = self._labels[0][i]
        assert record is not None
        return record

    def _fill_image(self, i: int, loaded: Loaded | None) -> None:
        data = loaded.image if loaded else self._read_image(i)
        record = self._first(i)
        height, width = record.size
        pixels = decode(data, max_pixels=max(MAX_PIXELS, height * width), path=self.keys[i])
        if tuple(pixels.shape[1:]) != record.size:
            raise ImageError(
                f"the image has {pixels.shape[1]} x {pixels.shape[2]} pixels, "
                f"and the labels were made of {height} x {width}",
                hint="replay the images that the labels were made from",
            )
        out = self.images[i * self._c : (i + 1) * self._c]
        cut(pixels, record.crops, record.flips, out, self.reading.interpolation)

    def _fail(self, i: int, error: BaseException) -> None:
        if isinstance(error, Exception):
            labels = self.reading.sets.members[0]
            place = {"url": labels.url, "shard": labels.shard_name(self.shards[i]), "key": self.keys[i]}
            if isinstance(error, SlgWdsError):
                error = error.located(**place)
            elif not isinstance(error, MemoryError):
                cause, error = error, ReplayError(f"{type(error).__name__}: {error}", **place)
                error.__cause__ = cause
        with self._lock:
            self.error = self.error or error

    def _one_done(self) -> None:
        with self._lock:
            self._left -= 1
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

        parts = [self._columns(number) for number in range(len(self._labels))]
        c, present = self._c, np.repeat(np.array(self.shards) >= 0, self._c)
        labels = self._mixed([part[2] for part in parts])
        crop = np.where(present, self.crops.reshape(-1), -1)
        if not present.all():
            self.images[torch.from_numpy(~present)] = 0
        return Batch(
            images=self.images,
            index=parts[0][0] if len(parts) == 1 else torch.cat([part[0] for part in parts], dim=1),
            value=parts[0][1] if len(parts) == 1 else torch.cat([part[1] for part in parts], dim=1),
            tail=parts[0][3] if len(parts) == 1 else None,
            labels=labels,
            target=torch.from_numpy(np.repeat(self._target, c)),
            key=[key for key in self.keys for _ in range(c)],
            crop=torch.from_numpy(crop),
            mask=torch.from_numpy(present),
        )

    def _mixed(self, labels: list[SoftLabels]) -> SoftLabels:
        from slg_wds.labels import mix

        return labels[0] if len(labels) == 1 else mix(labels, self.reading.sets.weights)

    def _columns(self, number: int) -> tuple[torch.Tensor, torch.Tensor, SoftLabels, TailBatch | None]:
        """(index [B, k], value [B, k], distributions, tails) of one set."""
        import torch

        from slg_wds.labels import from_topk, tail_batch

        sets, c = self.reading.sets, self._c
        records, rule, classes = self._labels[number], sets.rules[number], sets.num_classes
        identity = sets.members[number].identity
        full, k = sets.members[number].label_type == "full", int(identity["k"])
        n = len(records)
        index, value = np.zeros((n, c, k), np.int64), np.zeros((n, c, k), np.float32)
        if not full:
            index[:] = np.arange(k)  # padding, too, has distinct classes
        for i, record in enumerate(records):
            if record is not None:
                _check_width(record, k, full, sets.members[number].url)
                value[i] = record.value
                if not full:
                    index[i] = record.index
        value_Bk = torch.from_numpy(value.reshape(n * c, k))
        if full:
            labels = from_topk(None, value_Bk, classes, rule=rule)
            return torch.arange(classes).expand(n * c, -1), value_Bk, labels, None
        index_Bk = torch.from_numpy(index.reshape(n * c, k))
        tails: Any = None
        if int(identity.get("tail_classes", 0)) > 0:
            row = np.repeat(np.arange(n), c)
            tails = tail_batch([record and record.tail for record in records], row, classes)
        labels = from_topk(
            index_Bk, value_Bk, classes, rule=rule, tail=tails if rule.kind == "shared_tail" else None
        )
        return index_Bk, value_Bk, labels, tails


def _check_width(record: Record, k: int, full: bool, url: str) -> None:
    if record.value.shape[1] != k or record.full != full:
        raise RecordError(f"{record.value.shape[1]} classes per crop, not {k}", url=url, key=record.key)


def _check_same_crops(first: Record, other: Record, url: str) -> None:
    same = (
        first.size == other.size and (first.crops == other.crops).all() and (first.flips == other.flips).all()
    )
    if not same:
        raise ReplayError("its crops are not those of the first label set", url=url, key=other.key)
