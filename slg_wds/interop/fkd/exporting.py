"""`slg-wds export`: a label set -> FKD's label files."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
from collections.abc import Iterable, Iterator
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
from slg_wds.interop.fkd.folder import EXTENSION, stem_of
from slg_wds.labels import LabelType, parse_label_type
from slg_wds.labelset.combining.joining import refuse_extending
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.opening import open_labels
from slg_wds.store.urls import output_path

# How many of the last components of an image's path each reader appends to its --softlabel_path.
COMPONENTS = {"fkd": 3, "mealv2": 4}


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
    labels = open_labels(config.labels, store_options=config.store_options)
    labels.refuse_embeddings()
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
        stats = _write_all(folder, labels, names, config.use_fp16)
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


def _write_all(folder: Path, labels: LabelSet, names: LabelFileNames, half: bool) -> ExportStats:
    with RunProgress(ExportStats()) as progress:
        progress.begin(RunStarted.of(labels, range(labels.num_shards), labels.num_crops))
        for number in range(labels.num_shards):
            shard = labels.shard(number)
            stats = ExportStats(shards=1)
            stats.left_out = [(str(entry["path"]), str(entry["reason"])) for entry in shard.header.left_out]
            for position in range(len(shard.samples)):
                _write(folder, shard.record(position), labels, names, half, stats)
                progress.crops(labels.num_crops)
            progress.shard(labels.plan.shard_names[number], stats, True)
        return progress.total  # type: ignore[return-value]


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


class LabelFileNames:
    """The names under which the readers look for label files: an image's last path components, cut at the first dot.

    Args:
        labels: the label set.
        config: the layout, and the name of the data set's folder.

    Raises:
        UsageError: the layout needs a data set's name and has none, or the name is no folder's.
    """

    def __init__(self, labels: LabelSet, config: ExportConfig) -> None:
        self._count = COMPONENTS[config.layout]
        self._url = labels.url
        # The reader takes the components from the path of the image: ROOT/DATASET/SPLIT/CLASS/NAME.
        folders = [_dataset(labels) if config.dataset is None else config.dataset, labels.split]
        if config.dataset is not None and config.layout != "mealv2":
            raise UsageError("--dataset goes with --layout mealv2 only")
        if self._count == 4 and not folders[0]:
            raise UsageError("--layout mealv2 needs --dataset, the name of the folder that holds train")
        if any("/" in folder for folder in folders):
            raise UsageError(f"{'/'.join(folders)!r} is not the name of a data set and of a folder in it")
        self._folders = folders[4 - self._count :]

    def of(self, path: str) -> str:
        """Return the name of an image's label file, relative to --softlabel_path.

        Raises:
            InteropError: FKD's reader would look for another name, or the file would lie outside the folder.
        """
        inside = path.split("/")
        if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in [*inside, *self._folders]):
            raise self._refused(f"the label file of {path!r} would lie outside the folder")
        parts = [*self._folders, *inside][-self._count :]
        if any("." in part for part in parts[:-1]):
            raise self._refused(
                f"FKD's reader cuts {'/'.join(parts)} at its first dot, so folders cannot have one"
            )
        stem = stem_of("/".join(parts))
        if stem.endswith("/"):
            raise self._refused(f"the image {path!r} has no name before its first dot")
        return stem + EXTENSION

    def check(self, paths: Iterable[str]) -> None:
        """Check that every image has a label file of its own.

        Raises:
            InteropError: two images would share one; both are named. Or an image has no name; see `of`.
        """
        seen: dict[str, str] = {}
        for path in paths:
            other = seen.setdefault(self.of(path), path)
            if other != path:
                raise self._refused(
                    f"{other} and {path} would share the label file {self.of(path)}: "
                    "FKD cuts names at the first dot"
                )

    def _refused(self, message: str) -> InteropError:
        return InteropError(message, url=self._url)


def _dataset(labels: LabelSet) -> str:
    """Return the name of the folder that holds the split's folder, by the path of the labelled images."""
    root = str(labels.description.provenance.get("image_root") or "").rstrip("/")
    folder, _, base = root.rpartition("/")
    return folder.rpartition("/")[2] if base == labels.split else base


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


def _write(
    folder: Path, record: Record, labels: LabelSet, names: LabelFileNames, half: bool, stats: ExportStats
) -> None:
    coords, exact = exact_coords(record.crops, record.size, half)
    record = as_full(record)
    stored = stored_labels(Columns(record.index, record.value), _type_of(labels), half)
    data = encode_label_file(coords, record.flips, stored)
    file = folder / names.of(record.path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    stats.images += 1
    stats.crops += record.num_crops
    stats.bytes += len(data)
    stats.inexact += int((~exact).sum())


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
