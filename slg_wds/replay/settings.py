"""What the caller of a loader chose, checked and with defaults filled in, before anything is opened."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from slg_wds.concurrency.cores import cores
from slg_wds.errors import UsageError
from slg_wds.replay.assembly.selection import CropFilter
from slg_wds.replay.process import OwnProcess
from slg_wds.replay.ranks import images_of

LANES = 256
READERS = 16  # threads that wait for a network, where something is remote
IMAGES_TOGETHER = 16  # that a thread decodes and cuts at a time
# Of more than MANY_THREADS, each takes CROPS_TOGETHER crops if these are more images: many threads wait for the
# interpreter, which then works less for each image. Of few threads, one would be idle at the end of an epoch.
MANY_THREADS, CROPS_TOGETHER = 8, 32
RECORDS_TOGETHER = 64


@dataclass(frozen=True)
class BatchShare:
    """The part of every global batch that this rank makes.

    Attributes:
        process: whose rank it is.
        images: of a global batch, over all ranks.
        crops_per_image: crops of an image in a batch.
    """

    process: OwnProcess
    images: int
    crops_per_image: int

    @classmethod
    def of(
        cls, crops: int, crops_per_image: int, rank: int | None, world_size: int | None, evaluation: bool
    ) -> BatchShare:
        """Divide a global batch of so many crops. Evaluation takes one crop of an image.

        Raises:
            ReplayError: the batch does not divide.
            UsageError: numbers below 1, or a rank that cannot be.
        """
        process = OwnProcess(rank, world_size)
        each = 1 if evaluation else crops_per_image
        return cls(process, images_of(crops, process.world_size, each), each)

    @property
    def columns(self) -> tuple[int, int]:
        """[first, last) of each global batch's images, those of this rank."""
        n = self.images // self.process.world_size
        return self.process.rank * n, (self.process.rank + 1) * n

    @property
    def crops(self) -> int:
        """Crops in a batch of this rank."""
        return self.images // self.process.world_size * self.crops_per_image


@dataclass(frozen=True)
class Pace:
    """How fast batches are made, and how long they are waited for.

    Attributes:
        threads: that decode and cut, of all processes together.
        processes: that make batches beside this one, each with its part of the threads.
        prefetch: batches that are made ahead.
        deadline: seconds that the trainer waits for a batch.
        together: images that a thread decodes and cuts at a time, fewer where so few are under way that threads would
            have nothing to do.
        group: batches that are begun together, so that their records are decoded together where a batch has few.
    """

    threads: int
    processes: int
    prefetch: int
    deadline: float
    together: int
    group: int

    @property
    def threads_each(self) -> int:
        """Threads of one process, where others than the loader's make batches."""
        return -(-self.threads // max(1, self.processes))

    @property
    def under_way(self) -> int:
        """Batches that are under way at the most."""
        return self.prefetch + self.group

    @classmethod
    def of(
        cls,
        share: BatchShare,
        threads: int | None,
        processes: int,
        prefetch: int | None,
        deadline: float,
    ) -> Pace:
        """Fill in defaults: a thread for each core, and batches enough that each thread has its images twice."""
        threads = _positive("threads", max(cores(), processes) if threads is None else threads)
        if not 0 <= processes <= threads:
            raise UsageError(
                f"processes is {processes}", hint=f"0 to threads={threads}: each has one thread at least"
            )
        images = share.images // share.process.world_size
        many = CROPS_TOGETHER // share.crops_per_image if threads > MANY_THREADS else 0
        most = max(IMAGES_TOGETHER, many)
        enough = 1 + -(-2 * threads * most // images)
        prefetch = _positive("prefetch", enough if prefetch is None else prefetch)
        if not deadline > 0:
            raise UsageError(f"deadline is {deadline}", hint="seconds, more than 0")
        together = max(1, min(most, prefetch * images // (2 * threads)))
        group = max(1, min(RECORDS_TOGETHER // images, prefetch))
        return cls(threads, processes, prefetch, min(deadline, threading.TIMEOUT_MAX), together, group)


@dataclass(frozen=True)
class OrderSettings:
    """Which images and crops come in which order; see SoftLabelLoader."""

    shuffle: bool
    seed: int
    last: Literal["drop", "pad"]
    evaluation: bool
    lanes: int
    window: int
    crop_filter: CropFilter | None

    @classmethod
    def of(
        cls,
        share: BatchShare,
        shuffle: bool,
        seed: int,
        last: Literal["drop", "pad"],
        evaluation: bool,
        lanes: int | None,
        window: int,
        crop_filter: tuple[str, float, float] | None,
    ) -> OrderSettings:
        """Check the choices. Evaluation walks in plan order and pads.

        Raises:
            UsageError: choices that do not exist or do not go together.
        """
        if evaluation and crop_filter is not None:
            raise UsageError(
                "evaluation takes every image's first crop, so a crop filter does not go with it"
            )
        if last not in ("drop", "pad"):
            raise UsageError(f"last is {last!r}", hint="it is 'drop' or 'pad'")
        return cls(
            shuffle=shuffle and not evaluation,
            seed=seed,
            last="pad" if evaluation else last,
            evaluation=evaluation,
            lanes=min(LANES if lanes is None else lanes, share.images),
            window=window,
            crop_filter=None if crop_filter is None else CropFilter(*crop_filter),
        )


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise UsageError(f"{name} is {value}", hint="1 is the least")
    return value
