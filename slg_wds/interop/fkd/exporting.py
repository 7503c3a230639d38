"""`slg-wds export`: a label set -> FKD's label files."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slg_wds.config import ExportConfig
from slg_wds.console import counted, tell
from slg_wds.engines.reports.progress import RunProgress
from slg_wds.engines.reports.run_stats import RunStarted, RunStats
from slg_wds.engines.reports.summary import listed
from slg_wds.errors import InteropError, UsageError
from slg_wds.files import folder_fault
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.records.record import Record
from slg_wds.format.recovery.distributions import as_full
from slg_wds.interop.fkd import encode_label_file, exact_coords
from slg_wds.interop.fkd.columns import FP16_WHOLE, Columns, stored_labels
from slg_wds.interop.fkd.naming import LabelFileNames
from slg_wds.labels import LabelType, parse_label_type
from slg_wds.labelset.combining.joining import refuse_extending
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.opening import labels_at
from slg_wds.labelset.places import output_path


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        folder: the --softlabel_path to give to the training script.
        files: number of label files.
        crops: number of crops in them.
        inexact: boxes that FKD's reader will not cut as the teacher saw them. Always 0 without use_fp16.
        without_tail: whether the set has shared tails, which label files cannot hold.
        left_out: paths of images that the set has no labels of.
    """

    folder: str
    files: int
    crops: int
    inexact: int
    without_tail: bool
    left_out: list[str]


def export_fkd(config: ExportConfig) -> ExportResult:
    """Write the labels of a set as FKD's label files into a new folder, which appears only when all are written.

    Args:
        config: the options, as on the command line.

    Returns:
        What was written.

    Raises:
        InteropError: the folder is not empty or cannot be written, or an image's path gives no name that FKD's reader
            would find inside the folder.
        LabelSetError, FormatError, StoreError: the set cannot be read or is not complete.
    """
    target = output_path(config.fkd_dir)
    labels = labels_at(config.at(config.labels))
    refuse_extending(labels)
    _check_precision(labels, config)
    if labels.has_views:
        done = "images mixed into its crops" if labels.has_mixing else "operations or erased boxes"
        raise UsageError(
            f"FKD's label files hold boxes and flips, and cannot hold the views of this set: {done}",
            url=labels.url,
            hint="train on the set itself",
        )
    names = LabelFileNames(labels, config)
    names.check(labels.plan.paths)
    _check_apart(labels, target)
    with _new_folder(target) as folder:
        stats = LabelFileWriter(folder, labels, names, config.use_fp16).write_all()
    tails = labels.identity.tail_classes > 0 or _type_of(labels).kind == "shared_tail"
    left_out = sorted(path for path, _ in stats.left_out)
    return ExportResult(str(target), stats.images, stats.crops, stats.inexact, tails, left_out)


@dataclass
class ExportStats(RunStats):
    """Counts of what was written.

    Attributes:
        inexact: boxes that FKD's reader will not cut as the teacher saw them.
    """

    inexact: int = 0


@dataclass(frozen=True)
class LabelFileWriter:
    """Writes the label files of a set.

    Attributes:
        folder: where they go.
        labels: the set.
        names: of the files.
        half: whether numbers are stored as float16.
    """

    folder: Path
    labels: LabelSet
    names: LabelFileNames
    half: bool

    def write_all(self) -> ExportStats:
        """Write the files of all shards, and show the progress."""
        labels = self.labels
        with RunProgress(ExportStats()) as progress:
            progress.begin(RunStarted.of(labels, range(labels.num_shards), labels.num_crops))
            for number in range(labels.num_shards):
                progress.shard(labels.plan.shard_names[number], self._shard(number, progress), True)
            return progress.total  # type: ignore[return-value]

    def _shard(self, number: int, progress: RunProgress) -> ExportStats:
        shard, stats = self.labels.shard(number), ExportStats(shards=1)
        stats.left_out = [(str(entry["path"]), str(entry["reason"])) for entry in shard.header.left_out]
        for position in range(len(shard.samples)):
            self._write(shard.record(position), stats)
            progress.crops(self.labels.num_crops)
        return stats

    def _write(self, record: Record, stats: ExportStats) -> None:
        coords, exact = exact_coords(record.crops, record.size, self.half)
        record = as_full(record)
        stored = stored_labels(Columns(record.index, record.value), _type_of(self.labels), self.half)
        data = encode_label_file(coords, record.flips, stored)
        file = self.folder / self.names.of(record.path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        stats.images += 1
        stats.crops += record.num_crops
        stats.bytes += len(data)
        stats.inexact += int((~exact).sum())


def _check_precision(labels: LabelSet, config: ExportConfig) -> None:
    if (
        config.use_fp16
        and labels.num_classes > FP16_WHOLE + 1
        and labels.label_type not in ("full", LOW_RANK)
    ):
        raise UsageError(
            f"float16 holds no class numbers above {FP16_WHOLE}, and the labels are of {labels.num_classes} classes",
            hint="leave out --use-fp16",
        )


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` at the end. If anything fails, it is removed.

    If `target` is a link to a folder, the new folder takes the place of that folder.

    Raises:
        InteropError: the place is not empty, or cannot be written.
    """
    place = Path(os.path.realpath(target))
    unfinished = place.parent / f".{place.name[:40]}.unfinished-{secrets.token_hex(8)}"
    try:
        _check_empty(place, target)
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(place)  # onto an empty folder too; a folder that was filled meanwhile is an error
    except OSError as error:
        raise InteropError(f"cannot be written: {folder_fault(error)}", url=str(target)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_apart(labels: LabelSet, target: Path) -> None:
    """Raise InteropError if the new folder would lie among the class folders of the images, as one more class."""
    root = os.path.realpath(str(labels.description.provenance.get("image_root") or os.devnull))
    among = os.path.realpath(target).startswith(f"{root}/")
    if among and labels.plan.num_samples and os.path.lexists(f"{root}/{labels.plan.paths[0]}"):
        raise InteropError(
            "it would lie among the class folders of the images, as one more class",
            url=str(target),
            hint="choose another",
        )


def _check_empty(place: Path, target: Path) -> None:
    if place.exists() and not place.is_dir():
        raise InteropError("it is not a folder", url=str(target))
    if target.is_symlink() and not place.exists():
        raise InteropError("it is a link to a place that does not exist", url=str(target))
    if place.exists() and any(place.iterdir()):
        raise InteropError("the folder is not empty", url=str(target), hint="choose another")


def _type_of(labels: LabelSet) -> LabelType:
    label = parse_label_type(labels.label_type)
    if label.kind == LOW_RANK:
        return LabelType("full")
    return LabelType("marginal_smoothing", label.k) if label.kind == "shared_tail" else label


def main(config: ExportConfig) -> int:
    """Run the command, and print a summary to stdout."""
    tell(*summary(export_fkd(config)))
    return 0


def summary(result: ExportResult) -> list[str]:
    """Return lines that tell a person what was written."""
    lines = [
        f"{counted(result.files, 'label file')} of {counted(result.crops, 'crop')} in {result.folder}",
        f"  boxes that FKD's reader will cut otherwise: {result.inexact:,}"
        + (", as float16 coordinates are rounded" if result.inexact else ""),
    ]
    if result.without_tail:
        lines.append("  shared tails stayed behind: FKD spreads what is outside the top-k evenly")
    lines.append(f"  train with --softlabel_path {shlex.quote(result.folder)}")
    return [*lines, *listed("IMAGES WITHOUT LABELS, at which its reader stops", result.left_out)]
