"""`slg-wds import`: FKD's label files and the images -> a label set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slg_wds.concurrency.rank import ALONE, Rank
from slg_wds.concurrency.threads import use_one_thread
from slg_wds.config import ImportConfig
from slg_wds.console import duration, note, warn, warnings_as_notes
from slg_wds.engines.commands import RunResult, print_summary, run_to_the_end
from slg_wds.engines.dispatch import run_on_cpus
from slg_wds.engines.reports.run_stats import RunObserver, RunStarted
from slg_wds.engines.reports.summary import listed
from slg_wds.errors import InteropError, LabelFileError, SlgWdsError
from slg_wds.format.shards.shard import load_writer
from slg_wds.images.classes import wordnet_id
from slg_wds.images.targets import resolve_targets
from slg_wds.interop.fkd import LabelFolder, open_label_folder
from slg_wds.interop.fkd.columns import asked_type, columns_of, found_type
from slg_wds.interop.fkd.conversion import FileKind, ImportJob, ImportStats, import_shards, try_labels
from slg_wds.interop.fkd.files import read_label_file
from slg_wds.interop.fkd.folder import other_files_named
from slg_wds.interop.fkd.matching import match_files
from slg_wds.labelset.creating import create_labels, planned_paths
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.left_out import most_left_out
from slg_wds.labelset.provenance import now, versions


@dataclass(frozen=True)
class ImportResult(RunResult):
    """What one run of `import` did, and the label set as it is now.

    Attributes:
        unmatched: names of label files that belong to no image.
    """

    unmatched: list[str]

    @property
    def stats(self) -> ImportStats:
        """Images, crops, bytes, shards, and boxes that cannot be exact, of what this run made."""
        return self.run.stats  # type: ignore[no-any-return]

    def _about_labels(self) -> str:
        return f", values {self.labels.identity.coding}"

    def _about_work(self) -> list[str]:
        files = self.stats.images / max(self.run.seconds, 1e-9)
        rate = f"  {files:,.0f} label files/s over {duration(self.run.seconds)}"
        highest = f"  highest class in a label: {self.stats.highest} of 0..{self.labels.num_classes - 1}"
        return [rate, *([highest] if self.stats.highest >= 0 else []), *_about_boxes(self.stats, self.labels)]

    def _about_findings(self) -> list[str]:
        return listed("LABEL FILES OF NO IMAGE", self.unmatched)


@dataclass(frozen=True)
class ImportTask:
    """The work of every worker of an import. Picklable.

    Attributes:
        config: the options.
        launched: the rank that a launcher gave the process that starts the workers; None without a launcher.
        start: what was missing when the run began.
    """

    config: ImportConfig
    launched: Rank | None
    start: RunStarted

    def __call__(self, worker: int, workers: int, observer: RunObserver) -> ImportStats:
        """Open everything again, and make shards until none is missing."""
        if workers > 1:
            use_one_thread()
        rank = (self.launched or ALONE).within(worker, workers)
        job = prepare_import(self.config).job
        load_writer()
        observer.begin(self.start)
        return import_shards(job, rank, observer)


def import_fkd(config: ImportConfig) -> ImportResult:
    """Turn FKD's label files into a label set, or finish or join an import that was begun before.

    In a script that uses more than one process, call this under `if __name__ == "__main__":`, since the workers are
    new processes that import the script.

    Args:
        config: the options, as on the command line.

    Returns:
        The label set and what this run made.

    Raises:
        SlgWdsError: the run stopped. Shards that were committed stay, and the same call resumes.
    """
    result = run(config)
    result.check()
    return result


def run(config: ImportConfig) -> ImportResult:
    """Do the same as `import_fkd`, but return a result with missing shards instead of raising an error for it."""
    config.check()
    prepared = prepare_import(config)
    note(*prepared.notes)
    labels = prepared.job.labels
    missing = labels.missing()

    def run_workers(launched: Rank | None, observer: RunObserver) -> dict[str, str]:
        task = ImportTask(config, launched, RunStarted.of(labels, missing, labels.num_crops))
        return run_on_cpus(task, config, config.processes, len(missing), observer)

    ended = run_to_the_end(run_workers, ImportStats(), config, lambda: labels)
    result = ImportResult(*ended, prepared.unmatched)
    if not (prepared.says_classes or config.num_classes):
        _warn_of_default(result)
    return result


def _warn_of_default(result: ImportResult) -> None:
    """Warn of labels that are over ImageNet's 1000 classes by default and name none of the upper half."""
    labels, highest = result.labels, result.stats.highest
    target = int(labels.plan.targets.max(initial=-1)) if labels.targets_are_classes else -1
    if highest >= 0 and max(highest, target) < labels.num_classes // 2:
        warn(
            f"--num-classes is not given, so the labels are over {labels.num_classes} classes, and none names a class "
            f"above {highest}. What they leave of 1 is spread over all classes: if the teacher had fewer, import again "
            "with --num-classes and another --save-path",
            level=2,
        )


@dataclass(frozen=True)
class PreparedImport:
    """An import that is ready to run.

    Attributes:
        job: the import.
        unmatched: names of label files that belong to no image.
        notes: lines for the user about the targets.
        says_classes: whether the images or labels themselves show that the number of classes is right.
    """

    job: ImportJob
    unmatched: list[str]
    notes: list[str]
    says_classes: bool


def prepare_import(config: ImportConfig) -> PreparedImport:
    """List images and label files, match them, and begin or join the label set.

    Raises:
        SlgWdsError: images or label files cannot be listed or do not go together, or the set there was made otherwise.
    """
    from slg_wds.images import open_source

    folder = open_label_folder(config.at(config.fkd_dir))
    planned = planned_paths(config.at(config.save_path))
    source = open_source(
        config.images, config, on_error=config.on_error, left_out=config.save_path, planned=planned
    )
    targets = resolve_targets(config, source.classes, config.classes, None)
    plan = source.plan(config.seed, config.samples_per_shard, target_of=targets.of_class)
    matching = match_files(folder, plan, config.split or "train", config.on_error)
    kind = _kind(folder, matching.usable, config)
    coding = _coding(kind, config)
    provenance = _provenance(config)
    identity = _identity(config, kind, coding, _digest(folder, kind, coding, config))
    with other_files_named("imported_from.digest: "):
        labels = create_labels(
            config.at(config.save_path),
            plan,
            identity,
            provenance,
            targets.class_names,
            targets_are_classes=targets.comparable,
        )
    most = most_left_out(plan.num_samples, config.max_left_out)
    software = provenance["software"]
    job = ImportJob(labels, source, folder, kind, coding, matching.shared, config.on_error, software, most)
    says_classes = kind.label.kind == "full" or any(map(wordnet_id, source.classes or ()))
    return PreparedImport(job, matching.unmatched, [targets.note] if targets.note else [], says_classes)


def _digest(folder: LabelFolder, kind: FileKind, coding: str, config: ImportConfig) -> str:
    """Return the digest of the label files, of which none is known to be wrong: it is mended before a set is begun."""

    def check(_: str, data: bytes) -> None:
        try_labels(read_label_file(data), kind, coding, config.classes)

    return folder.digest(check if config.on_error == "fail" else None)


def _kind(folder: LabelFolder, names: list[str], config: ImportConfig) -> FileKind:
    """Return what all label files have in common, from the first one (with --on-error skip the first readable one).

    Its labels are read too, so that a wrong --num-classes or --label-type is told before a set is begun with it.
    """
    first: SlgWdsError | None = None
    for name in names:
        try:
            read = folder.read(name)
            asked = config.label_type
            label = (
                asked_type(asked, read.labels, config.classes)
                if asked
                else found_type(read.labels, config.classes)
            )
            label.check(config.classes)
            columns_of(read.labels, label, config.classes)
            return FileKind(label, read.num_crops, read.half)
        except LabelFileError as error:
            if config.on_error == "fail":
                raise folder.located(error, name) from None
            first = first or error.located(key=name)
    said, hint, key = (": " + first.message, first.hint, first.key) if first else ("", None, None)
    raise InteropError(f"no label file of these images can be read{said}", url=folder.url, key=key, hint=hint)


def _coding(kind: FileKind, config: ImportConfig) -> str:
    """Return how probabilities are stored: as --values says, else exactly as the label files have them."""
    if kind.label.kind == "hard":
        return "none"
    return config.values or ("float16" if kind.half else "float32")


def _identity(config: ImportConfig, kind: FileKind, coding: str, digest: str) -> dict[str, Any]:
    """Return an identity as `generate` makes it, with None for what label files do not say."""
    return {
        "imported_from": {
            "format": "fkd",
            "digest": digest,
            "precision": "float16" if kind.half else "float32",
        },
        "teachers": [],
        "label_type": str(kind.label),
        "k": kind.label.stored_k(config.classes),
        "values": coding,
        "tail_classes": 0,
        "temperature": None if config.temp is None else float(config.temp),
        "num_classes": config.classes,
        "class_subset": None,
        "num_crops": kind.num_crops,
        "crop_scale": None,
        "crop_ratio": None,
        "flip_probability": None,
        "seed": config.seed,
        "precision": None,
        "embed_images": None,
        "reference": None,
        "on_error": config.on_error,
        "decode": "RGB, no EXIF rotation",
        "resize": "Pillow",
    }


def _provenance(config: ImportConfig) -> dict[str, Any]:
    return {
        "software": versions(),
        "label_root": config.fkd_dir,
        "image_root": config.images,
        "date": now(),
    }


def main(config: ImportConfig) -> int:
    """Run the command, and print a summary to stdout."""
    with warnings_as_notes("slg-wds import"):
        result = run(config)
    return print_summary(result)


def _about_boxes(stats: ImportStats, labels: LabelSet) -> list[str]:
    lines = [f"  boxes that cannot be exact: {stats.inexact:,} of {stats.crops:,}"]
    if stats.inexact:
        half = (labels.identity.imported_from or {}).get("precision") == "float16"
        lines[0] += (
            ", as float16 coordinates are rounded; they are what FKD's reader cuts"
            if half
            else ", since the images have another size than those labelled; they are what FKD's reader cuts"
        )
    if stats.clamped:
        lines.append(
            f"  boxes cut at the image's edge: {stats.clamped:,} (FKD's reader adds a black line there)"
        )
    return lines
