"""Replay inside a stock WebDataset pipeline with DataLoader workers: functions for `.map(...)`.

    decode = decode_record_stage(crops_per_image=4, seed=0, labels=open_labels(url))
    pipeline = webdataset.WebDataset(shards, shardshuffle=100).map(decode).map(cut_crops(224, "bicubic"))
    loader = torch.utils.data.DataLoader(pipeline, 32, num_workers=8, collate_fn=CollateCrops())
    for epoch in range(300):
        decode.epoch = epoch
        for batch in loader:
            ...

Nothing here touches object storage, holds a lock or starts a thread: it may be forked, spawned and pickled. A shard
that is cut off ends early without an error in stock WebDataset; `SoftLabelLoader` and `slg-wds verify` notice.

Shapes: c crops of an image, k classes stored per crop, B crops of a batch, S pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from slg_wds.errors import ImageError, RecordError, RuleError, UsageError
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.embeddings.by_name import joined_embeddings
from slg_wds.format.records.low_rank.blocks import joined
from slg_wds.format.records.low_rank.rows import LowRankRows
from slg_wds.format.records.record import Record
from slg_wds.format.recovery.temperature import checked_temperature, power_of
from slg_wds.format.shards.names import IMAGE_EXTS, RECORD_EXT
from slg_wds.images import LabelledImage
from slg_wds.labels import LabelType, stored_columns
from slg_wds.labelset.combining.joining import refuse_extending, take_crops
from slg_wds.replay.batch import Batch, embedding_answers
from slg_wds.replay.order.crop_schedule import crop_numbers
from slg_wds.replay.samples import PipelineSample, bytes_given, given_by, place_of
from slg_wds.replay.shared_number import SharedNumber
from slg_wds.transforms.crops import INTERPOLATIONS
from slg_wds.transforms.drawn import DrawnCrops

if TYPE_CHECKING:
    import torch

    from slg_wds.labels import SoftLabels, StoredColumns, TailBatch
    from slg_wds.labelset.labelset import LabelSet

DECODING = "decode_record_stage"  # the stage that gives a sample its record


def decode_record_stage(
    crops_per_image: int = 4, seed: int = 0, epoch: int = 0, labels: LabelSet | None = None
) -> DecodeRecord:
    """Make the stage that decodes a sample's record and takes an epoch's crops of it.

    They are the crops that SoftLabelLoader takes with the same seed and epoch. Each sample gets `record`, a Record of
    these crops, `crop`, their numbers, int64 [c], and `stored`, what the whole record stores of labels.

    Args:
        crops_per_image: crops of an image in an epoch, c.
        seed: decides which crops an epoch has.
        epoch: the first epoch. Set the stage's `epoch` before each of the others, else they have the same crops.
        labels: the label set, `open_labels(url)`. It says the type and temperature of the labels, which records do not
            store; see `CollateCrops`.

    Raises:
        UsageError: a number is out of its range, the set is not opened, or extends another one and so lacks crops.
    """
    if crops_per_image < 1:
        raise UsageError(f"crops_per_image {crops_per_image} is below 1")
    if labels is None:
        return DecodeRecord(crops_per_image, seed, epoch)
    if isinstance(labels, (str, os.PathLike)):
        raise UsageError(
            f"labels is no set that is open: {str(labels)!r}", hint="give slg_wds.open_labels(URL)"
        )
    refuse_extending(labels)
    return DecodeRecord(crops_per_image, seed, epoch, labels.label_type, labels.temperature)


def cut_crops(
    size: int, interpolation: str = "bicubic", image: Callable[[PipelineSample], bytes] | None = None
) -> CutCrops:
    """Make the stage that cuts the crops of `record` from the sample's image.

    Each sample gets `images`, uint8 [c, 3, size, size], channels_last.

    Args:
        size: pixels on each side. The teacher's own input size and interpolation, which `slg-wds inspect` shows, give
            exactly its input.
        interpolation: how crops are resized: bicubic, bilinear or nearest.
        image: takes a sample, which has its `record`, and returns the bytes of its image; for samples that do not have
            them themselves.

    Raises:
        UsageError: a size or interpolation that cannot be, or an image that is no function.
    """
    if image is not None and not callable(image):
        raise UsageError(f"image= is {image!r}, not a function of the sample")
    if size < 1 or interpolation not in INTERPOLATIONS:
        raise UsageError(f"crops of size {size}, {interpolation}", hint=f"one of {', '.join(INTERPOLATIONS)}")
    return CutCrops(size, interpolation, image)


class DecodeRecord:
    """The stage of decode_record_stage. `epoch` may be set between epochs; the workers of a DataLoader see it.

    Args:
        crops_per_image, seed, epoch: see decode_record_stage.
        rule: the label type of the set; None if it is not known.
        temperature: what the labels of the set were made at; None if it is not known.
    """

    def __init__(
        self,
        crops_per_image: int,
        seed: int,
        epoch: int,
        rule: str | None = None,
        temperature: float | None = None,
    ) -> None:
        self.crops_per_image, self.seed = crops_per_image, seed
        self.rule, self.temperature = rule, temperature
        self._epoch = SharedNumber(0)
        self.epoch = epoch

    @property
    def epoch(self) -> int:
        """Which epoch's crops are taken, from 0."""
        return int(self._epoch.value)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        if epoch < 0:
            raise UsageError(f"epoch {epoch} is below 0")
        self._epoch.value = epoch

    def __call__(self, sample: PipelineSample) -> PipelineSample:
        """Add the record of the epoch's crops, their numbers, and what is stored of labels."""
        data, place = sample.get(RECORD_EXT), place_of(sample)
        if not isinstance(data, bytes):
            raise RecordError(
                f"the sample has no {RECORD_EXT} of bytes", **place, hint="put this stage before .decode()"
            )
        whole = decode_record(data, **place)
        crops = crop_numbers(self.seed, whole.key, self.epoch, whole.num_crops, self.crops_per_image)
        record = replace(take_crops(whole, crops), rule=self.rule, temperature=self.temperature)
        stored = None if whole.embeddings is not None else stored_columns(whole)
        return {**sample, "record": record, "crop": crops, "stored": stored}


@dataclass
class CutCrops:
    """The stage of cut_crops."""

    size: int
    interpolation: str
    image: Callable[[PipelineSample], bytes] | None

    def __call__(self, sample: PipelineSample) -> PipelineSample:
        """Add the crops, uint8 [c, 3, size, size]. Raises RecordError for views with others mixed in."""
        record: Record = given_by(DECODING, sample, "record")
        if record.views is not None and record.views.mixing is not None:
            raise RecordError(
                "other images are mixed into its views, and this stage sees one sample at a time",
                **place_of(sample),
                hint="use slg_wds.replay.mixed_stage.cut_shards, or SoftLabelLoader",
            )
        return {**sample, "images": self.cut(sample, LabelledImage.of(record), DrawnCrops.of(record))}

    def cut(self, sample: PipelineSample, labelled: LabelledImage, crops: DrawnCrops) -> torch.Tensor:
        """Return crops of a sample's image, uint8 [n, 3, size, size], channels_last, before anything is mixed in."""
        import torch

        place = place_of(sample)
        data = self._bytes(sample, place)
        try:
            pixels = labelled.decode(data)
        except ImageError as error:
            raise error.located(**place) from None
        out = torch.empty((len(crops), self.size, self.size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        crops.cut(pixels, out, self.interpolation)
        return out

    def _bytes(self, sample: PipelineSample, place: Mapping[str, str | None]) -> bytes:
        if self.image is not None:
            return bytes_given(sample, self.image(sample))
        extension = next((ext for ext in IMAGE_EXTS if isinstance(sample.get(ext), bytes)), None)
        if extension is None:
            raise ImageError("the sample has no image", **place, hint="pass image= to cut_crops")
        data: bytes = sample[extension]
        return data


class CollateCrops:
    """Collate samples that went through both stages into a Batch. Its labels are those that SoftLabelLoader gives.

    Args:
        rule: the rule of recovery of `Batch.labels`; by default the label type of the set that `decode_record_stage`
            was given. Without a set it is needed wherever what is stored can be read in several ways.
        temperature: the teachers' temperature, at which labels are read, as of `SoftLabelLoader`; None: as they were
            made. It may be set between epochs.
        made_at: the temperature that the labels were made at, by default that of the set. Without a set it is needed
            with `temperature`.

    Raises RuleError where a rule is needed, or if the records cannot give it, and UsageError if `made_at` is needed.
    """

    def __init__(
        self,
        rule: str | LabelType | None = None,
        temperature: float | None = None,
        made_at: float | None = None,
    ) -> None:
        self.rule, self.made_at = rule, made_at
        self._temperature = SharedNumber(math.nan)
        self.temperature = temperature

    @property
    def temperature(self) -> float | None:
        """The temperature at which labels are read; None: as they were made."""
        found = self._temperature.value
        return None if math.isnan(found) else found

    @temperature.setter
    def temperature(self, temperature: float | None) -> None:
        self._temperature.value = math.nan if temperature is None else checked_temperature(temperature)

    def __call__(self, samples: Sequence[PipelineSample]) -> Batch:
        """Collate the samples of a batch."""
        import torch

        records: list[Record] = [given_by(DECODING, sample, "record") for sample in samples]
        views = [given_by("cut_crops", sample, "images") for sample in samples]
        counts = [len(record.crops) for record in records]
        targets = np.array([-1 if record.target is None else record.target for record in records], np.int64)
        return Batch(
            images=torch.cat(views),
            **self._answers(samples, records, counts),
            target=torch.from_numpy(np.repeat(targets, counts)),
            key=[record.key for record, count in zip(records, counts, strict=True) for _ in range(count)],
            crop=torch.from_numpy(np.concatenate([sample["crop"] for sample in samples])),
            mask=torch.ones(sum(counts), dtype=torch.bool),
            **_mixing(samples),
        )

    def _answers(
        self, samples: Sequence[PipelineSample], records: list[Record], counts: list[int]
    ) -> dict[str, Any]:
        """Return the fields of the batch for what the teachers answered: labels, or embeddings."""
        import torch

        embeddings = joined_embeddings([record.embeddings for record in records])
        if embeddings is not None:
            if self.rule is not None or self.temperature is not None:
                raise RuleError("the records hold embeddings, which have neither rule nor temperature")
            return embedding_answers(
                {name: torch.from_numpy(one.vectors) for name, one in embeddings.items()}
            )
        value = torch.from_numpy(np.concatenate([record.value for record in records]))
        index = torch.from_numpy(np.concatenate([record.index for record in records]))
        asked = self._rule(records[0], samples[0]["stored"])
        labels, tails = self._labels(records, counts, index, value, asked)
        return {"index": index, "value": value, "tail": tails, "labels": labels}

    def _labels(
        self,
        records: list[Record],
        counts: list[int],
        index: torch.Tensor,
        value: torch.Tensor,
        asked: LabelType,
    ) -> tuple[SoftLabels, TailBatch | None]:
        from slg_wds.labels import from_tables, from_topk, tail_batch
        from slg_wds.labels.logit_tables import logit_tables

        first = records[0]
        power = power_of(self.temperature, first.temperature if self.made_at is None else self.made_at)
        low_rank = [record.low_rank for record in records if record.low_rank is not None]
        if low_rank:
            return from_tables(logit_tables(LowRankRows.of(joined(low_rank)), power), asked), None
        tails = None
        if any(record.tail is not None for record in records) or asked.kind == "shared_tail":
            row = np.repeat(np.arange(len(records)), counts)
            tails = tail_batch([record.tail for record in records], row, first.num_classes)
        used, stored = tails if asked.kind == "shared_tail" else None, None if first.full else index
        return from_topk(stored, value, first.num_classes, rule=asked, tail=used, power=power), tails

    def _rule(self, record: Record, columns: StoredColumns) -> LabelType:
        rule = self.rule or record.rule
        if rule is None and columns.ambiguous:
            raise RuleError(
                "these records can be read in several ways, and do not say which one is their label set's",
                hint="give the set to decode_record_stage(labels=slg_wds.open_labels(...)), or pass "
                f"CollateCrops(rule=...): {columns.can_give()}",
            )
        return columns.resolve(rule)


def _mixing(samples: Sequence[PipelineSample]) -> dict[str, Any]:
    """Return the fields of the batch for what is mixed in; none where no sample says it."""
    import torch

    names = [name for name in ("target2", "lam") if name in samples[0]]
    return {name: torch.from_numpy(np.concatenate([sample[name] for sample in samples])) for name in names}
