"""The worker loop of an import: label files and images -> records -> shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from isal.isal_zlib import crc32 as crc32_of

from slg_wds.concurrency.rank import Rank
from slg_wds.console import counted
from slg_wds.engines.claims import claims
from slg_wds.engines.committing import Committer
from slg_wds.engines.reports.run_stats import RunObserver, RunStats
from slg_wds.errors import FormatError, ImageError, InteropError, LabelFileError, SlgWdsError, StoreError
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.record import Record
from slg_wds.format.shards.shard import EncodedSample, Sample
from slg_wds.images import ImageSource, image_size
from slg_wds.images.gone import LATER
from slg_wds.interop.fkd import LARGE, CutBoxes, FkdLabels, LabelFolder, cut_boxes, stem_of
from slg_wds.interop.fkd.columns import asked_type, columns_of
from slg_wds.interop.fkd.folder import MEND
from slg_wds.labels import LabelType
from slg_wds.labelset.labelset import LabelSet

THREADS = 2  # one waits for the disk while the other converts


@dataclass
class ImportStats(RunStats):
    """Counts of what was converted.

    Attributes:
        inexact: boxes that may differ from those that the teacher saw.
        clamped: boxes that reached out of their image and were cut at its edge.
        highest: the highest class that a label names; -1 if none was read, or every label names all classes.
    """

    inexact: int = 0
    clamped: int = 0
    highest: int = -1

    def add(self, other: RunStats) -> None:
        """Add the counts of another object, and keep the highest class of both."""
        highest = max(self.highest, other.highest if isinstance(other, ImportStats) else -1)
        super().add(other)
        self.highest = highest


@dataclass(frozen=True)
class FileKind:
    """What all label files of a set have in common.

    Attributes:
        label: their label type.
        num_crops: crops with a label in each file.
        half: whether they hold float16, as FKD's --use_fp16 writes.
    """

    label: LabelType
    num_crops: int
    half: bool

    def check(self, read: FkdLabels, num_classes: int) -> None:
        """Raise LabelFileError if a label file is not of this kind."""
        asked_type(str(self.label), read.labels, num_classes)
        if read.half != self.half:
            names = {True: "float16", False: "float32"}
            raise LabelFileError(f"it is {names[read.half]}, other files are {names[self.half]}")
        if read.num_crops != self.num_crops:
            raise LabelFileError(
                f"it has {counted(read.num_crops, 'crop')}, other files have {self.num_crops}"
            )


@dataclass(frozen=True)
class ImportJob:
    """What a worker of an import has open.

    Attributes:
        labels: the label set to write into.
        source: the images.
        folder: the label files.
        kind: what all label files have in common.
        coding: how probabilities are stored.
        shared: paths of images by label file, for each that several images would share.
        on_error: "fail" or "skip".
        software: versions of the software, for the trailer of each shard.
        most_left_out: how many images the whole set may leave out; see `left_out.most_left_out`.
    """

    labels: LabelSet
    source: ImageSource
    folder: LabelFolder
    kind: FileKind
    coding: str
    shared: Mapping[str, list[str]]
    on_error: str
    software: Mapping[str, str]
    most_left_out: int


@dataclass(frozen=True)
class ImportedImage:
    """One image of a shard.

    Attributes:
        number: its number in the plan.
        sample: its encoded sample; None if it is left out.
        inexact: its boxes that may differ from those that the teacher saw.
        clamped: its boxes that were cut at the image's edge.
        highest: the highest class that its labels name; -1 if they name all.
        reason: why it is left out.
    """

    number: int
    sample: EncodedSample | None
    inexact: int = 0
    clamped: int = 0
    highest: int = -1
    reason: str = ""


def import_shards(job: ImportJob, rank: Rank | None, observer: RunObserver) -> ImportStats:
    """Make shards until none is missing.

    Args:
        job: what this worker has open.
        rank: which worker this is; None for one without a block of shards of its own.
        observer: is told of crops and shards.

    Returns:
        Counts of what this worker made.

    Raises:
        SlgWdsError: the first error of any image; nothing is committed after it.
    """
    total = ImportStats()
    committer = Committer(job.labels, observer, job.most_left_out)
    pool = ThreadPoolExecutor(THREADS, "slg-import")
    try:
        for number in claims(job.labels, rank, observer, committer.lost):
            part = job.labels.plan.shard(number)
            convert = partial(_import_image, job, job.source.reader(job.labels.plan, number))
            images = list(pool.map(convert, range(part.start, part.stop)))
            total.add(_commit(job, number, images, observer, committer))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return total


def _import_image(job: ImportJob, read_image: Callable[[int], bytes], number: int) -> ImportedImage:
    plan = job.labels.plan
    path = plan.paths[number]
    name = job.folder.name(stem_of(path))
    try:
        if name in job.shared:
            others = [other for other in job.shared[name] if other != path]
            raise LabelFileError(f"it may have the labels of {path} or of {' or '.join(others)}")
        if name not in job.folder.files:
            raise LabelFileError("the image has no label file")
        read = job.folder.read(name)
        job.kind.check(read, job.labels.num_classes)
        image = read_image(number)
        size = image_size(image, path)
        cut = cut_boxes(read.coords, size)
        record = replace(_record(job, number, read, size, cut), image_crc32=crc32_of(image))
        sample = job.labels.encode_sample(Sample(record))
    except (InteropError, FormatError, ImageError) as error:
        if job.on_error == "fail":
            raise _named(job, error, name) from None
        return ImportedImage(number, None, reason=f"{name}: {error.message}")
    except StoreError as error:
        error.hint = error.hint or LATER
        raise error.located(key=path) from None
    highest = -1 if record.full else int(record.index.max(initial=-1))
    return ImportedImage(number, sample, int(cut.inexact.sum()), int(cut.clamped.sum()), highest)


def _named(job: ImportJob, error: SlgWdsError, name: str) -> SlgWdsError:
    if isinstance(error, FormatError):  # of the record that the file would have made
        error = LabelFileError(error.message)
    error.hint = error.hint or MEND
    return job.folder.located(error, name) if isinstance(error, InteropError) else error


def try_labels(read: FkdLabels, kind: FileKind, coding: str, num_classes: int) -> None:
    """Make a record of what a label file holds, as if of a large image. Raises LabelFileError if there can be none."""
    kind.check(read, num_classes)
    cut = cut_boxes(read.coords, LARGE)
    try:
        encode_record(_record_of(read, kind, coding, num_classes, cut, LARGE, key="a", path="a", target=None))
    except FormatError as error:
        raise LabelFileError(error.message) from None


def _record(job: ImportJob, number: int, read: FkdLabels, size: tuple[int, int], cut: CutBoxes) -> Record:
    plan = job.labels.plan
    target = int(plan.targets[number])
    image = {"key": plan.keys[number], "path": plan.paths[number], "target": target if target >= 0 else None}
    return _record_of(read, job.kind, job.coding, job.labels.num_classes, cut, size, **image)


def _record_of(
    read: FkdLabels,
    kind: FileKind,
    coding: str,
    num_classes: int,
    cut: CutBoxes,
    size: tuple[int, int],
    **image: Any,
) -> Record:
    columns = columns_of(read.labels, kind.label, num_classes)
    return Record(
        **image,
        size=size,
        crops=cut.boxes,
        flips=read.flips,
        index=columns.index,
        value=columns.value,
        tail=None,
        coding=coding,
        full=kind.label.kind == "full",
        num_classes=num_classes,
    )


def _commit(
    job: ImportJob, number: int, images: list[ImportedImage], observer: RunObserver, committer: Committer
) -> ImportStats:
    samples = [image.sample for image in images if image.sample is not None]
    left_out = [(image.number, image.reason) for image in images if image.sample is None]
    stats = ImportStats(
        images=len(samples),
        crops=len(samples) * job.kind.num_crops,
        inexact=sum(image.inexact for image in images),
        clamped=sum(image.clamped for image in images),
        highest=max(image.highest for image in images),
    )
    observer.crops(stats.crops)
    boxes = {"inexact": stats.inexact, "clamped": stats.clamped}
    provenance = {"software": dict(job.software), "boxes": boxes}
    return committer.commit(number, samples, left_out, provenance, stats)
