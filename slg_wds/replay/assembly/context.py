"""What all batches of a loader are made from, and which reads need a network."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from slg_wds.labels import LabelAdaptation
from slg_wds.replay.cache.caches import Caches
from slg_wds.replay.crop_input import CropInput
from slg_wds.replay.sources.files import OpenFiles
from slg_wds.replay.sources.images import Images, open_images
from slg_wds.replay.sources.label_sets import LabelSets
from slg_wds.replay.sources.records import Records, open_records
from slg_wds.store import Location

FEW_VALUES = 64  # of a crop: with more of them, labels are arithmetic rather than calls


@dataclass(frozen=True)
class LoaderContext:
    """The sources of a loader and what it makes of them.

    Attributes:
        size: pixels on each side of a crop.
        interpolation: the name of the filter that resizes crops.
        in_turn: held by a thread that works on labels, if these are small. Their work is some hundred calls of numpy
            and torch a batch. Each call gives the interpreter away, so that threads which do it at the same time take
            turns at every call, which costs twice the work. Large labels are computed at the same time.
        adaptation: of the labels at read time; None leaves them as stored.
        temperature: of the labels in this epoch; None: as they were made.
    """

    sets: LabelSets
    records: Records
    images: Images
    files: OpenFiles
    caches: Caches
    size: int
    interpolation: str
    in_turn: AbstractContextManager[Any]
    adaptation: LabelAdaptation | None = None
    temperature: float | None = None

    @classmethod
    def open(
        cls,
        sets: LabelSets,
        images: Location | None,
        files: OpenFiles,
        caches: Caches,
        crops: CropInput,
        adaptation: LabelAdaptation | None,
    ) -> LoaderContext:
        """Open the records of label sets and their images."""
        records = open_records(sets, files, caches)
        opened = open_images(sets, records.shards, images, files, caches)
        few = not sets.holds_embeddings and _most_values(sets) <= FEW_VALUES
        in_turn = threading.Lock() if few else nullcontext()
        return cls(sets, records, opened, files, caches, *crops, in_turn, adaptation)

    @property
    def first_records(self) -> Records:
        """The records of the first set alone, which decide what is done to the crops of all sets."""
        return Records(self.sets, self.records.shards[:1], self.records.bases[:1])

    @property
    def remote(self) -> bool:
        """Whether a read may have to wait for a network."""
        return self.records.remote or self.images.remote

    @property
    def never_cached(self) -> bool:
        """Whether every sample needs the network, however many shards are cached."""
        return self.images.never_cached or self.records.never_cached

    def ready(self, shard: int) -> bool:
        """Return whether samples of a shard can be read without waiting for a network."""
        return self.images.ready(shard) and self.records.ready(shard)


def _most_values(sets: LabelSets) -> int:
    return max(labels.identity.k or labels.num_classes for labels in sets.members)
