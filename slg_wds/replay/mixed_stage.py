"""Replay of mixed views inside a stock WebDataset pipeline: a stage that sees whole shards.

The partner of a mixed view is another image of its shard. So the stage comes right after the shards are read, before
samples of several shards are shuffled together:

    labels = open_labels(url)
    pipeline = (
        webdataset.WebDataset(shards, shardshuffle=100)
        .map(decode_record_stage(crops_per_image=4, seed=0, labels=labels))
        .compose(cut_shards(labels.plan.keys, 224, "bicubic"))
        .shuffle(1000)
    )

Epochs are chosen as in `stages`. It keeps the files of one shard in memory. `SoftLabelLoader` does not, and also serves
partners of other shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from slg_wds.errors import RecordError, SlgWdsError
from slg_wds.format.records.mixing import Mixing
from slg_wds.format.records.record import Record
from slg_wds.format.records.rows import decode_rows
from slg_wds.format.shards.names import RECORD_EXT
from slg_wds.images import LabelledImage
from slg_wds.replay.samples import PipelineSample, given_by, place_of
from slg_wds.replay.stages import DECODING, CutCrops, cut_crops
from slg_wds.transforms.drawn import DrawnCrops
from slg_wds.transforms.mixing import mix_partners

if TYPE_CHECKING:
    import torch


def cut_shards(
    keys: Sequence[str],
    size: int,
    interpolation: str = "bicubic",
    image: Callable[[PipelineSample], bytes] | None = None,
) -> CutShards:
    """Make the stage that cuts the crops of `record` as `cut_crops` does, and mixes their partners in.

    It sees whole shards, so it goes into `.compose(...)`. Each sample also gets `target2`, int64 [c], and `lam`,
    float32 [c]; see `Batch`. Sets without mixed views are served too.

    Args:
        keys: the keys of the label set's plan, `open_labels(url).plan.keys`. Records name partners by their numbers in
            it.
        size: pixels on each side.
        interpolation: as of `cut_crops`.
        image: as of `cut_crops`.

    Raises:
        UsageError: a size or interpolation that cannot be.
    """
    return CutShards(keys, cut_crops(size, interpolation, image))


@dataclass
class CutShards:
    """The stage of cut_shards."""

    keys: Sequence[str]
    cutting: CutCrops

    def __call__(self, samples: Iterable[PipelineSample]) -> Iterator[PipelineSample]:
        """Yield the samples with their crops, uint8 [c, 3, size, size]."""
        for _, of_shard in groupby(samples, lambda sample: sample.get("__url__")):
            shard = {given_by(DECODING, sample, "record").key: sample for sample in of_shard}
            for sample in shard.values():
                record: Record = sample["record"]
                views = self.cutting.cut(sample, LabelledImage.of(record), DrawnCrops.of(record))
                mixing = None if record.views is None else record.views.mixing
                more = {} if mixing is None else self._mixed(sample, views, mixing, shard)
                yield {**sample, "images": views, **more}

    def _mixed(
        self, sample: PipelineSample, views: torch.Tensor, mixing: Mixing, shard: Mapping[str, PipelineSample]
    ) -> PipelineSample:
        """Mix partners into the views [c] of a sample; return `target2` and `lam`."""
        partners = {number: self._partner(sample, number, shard) for number in mixing.partners().tolist()}
        mix_partners(views, mixing, lambda number, crops: self._crops(partners[number], crops))
        target2 = np.full(len(views), -1)
        for number, partner in partners.items():
            target = partner["record"].target
            target2[mixing.partner == number] = -1 if target is None else target
        return {"target2": target2, "lam": mixing.weights().astype(np.float32)}

    def _partner(
        self, sample: PipelineSample, number: int, shard: Mapping[str, PipelineSample]
    ) -> PipelineSample:
        key = str(self.keys[number]) if number < len(self.keys) else f"image {number}"
        if key not in shard:
            raise RecordError(
                f"{key} is mixed into its views, and is not among the samples of its shard",
                **place_of(sample),
                hint="put this stage before .shuffle(), with the keys of this set's plan, or use SoftLabelLoader",
            )
        return shard[key]

    def _crops(self, partner: PipelineSample, crops: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return the pixels of some crops of a partner, uint8 [n, 3, S, S]."""
        try:
            rows = decode_rows([partner[RECORD_EXT]], crops[None], labels=False)
        except SlgWdsError as error:
            raise error.located(**place_of(partner)) from None
        drawn = DrawnCrops(rows.boxes[0], rows.flips[0], None if rows.views is None else rows.views[0])
        return self.cutting.cut(partner, LabelledImage.of(partner["record"]), drawn)
