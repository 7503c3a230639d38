"""`slg-wds import`: FKD's label files -> a label set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slg_wds.concurrency.rank import ALONE, Rank
from slg_wds.concurrency.threads import use_one_thread
from slg_wds.config import ImportConfig
from slg_wds.console import counted, duration, tell
from slg_wds.engines.claims import finish, launched_rank
from slg_wds.engines.dispatch import run_on_cpus
from slg_wds.engines.progress import RunProgress
from slg_wds.engines.run_stats import RunObserver, RunStarted
from slg_wds.engines.summary import RunFinished, listed, summary
from slg_wds.errors import InteropError, LabelFileError
from slg_wds.format.manifest.manifest import Plan
from slg_wds.format.shards.shard import load_writer
from slg_wds.images.targets import resolve_targets
from slg_wds.interop.fkd import LabelFolder, open_label_folder, stem_of
from slg_wds.interop.fkd.columns import asked_type, found_type
from slg_wds.interop.fkd.conversion import ImportJob, ImportStats, Kind, import_shards
from slg_wds.labelset.creating import create_labels, planned_paths
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.left_out import most_left_out


@dataclass(frozen=True)
class ImportResult:
    """What one run of `import` did, and the set as it is now.

    Attributes:
        labels: the label set.
        run: what was made and given up, and whether every shard exists.
        strangers: label files of no image.
    """

    labels: LabelSet
    run: RunFinished
    strangers: list[str]

    @property
    def complete(self) -> bool:
        """Whether every shard exists."""
        return self.run.complete

    @property
    def stats(self) -> ImportStats:
        """Images, crops, bytes, shards, and boxes that cannot be exact, of what this run made."""
        return self.run.stats  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ImportTask:
    """What every worker is told; picklable.

    launched: the rank of the process that starts them, None without. start: what was missing then.
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
    """Make the label set of FKD's label files, or finish or join one begun before.

    In a script, with more than one process, call it under `if __name__ == "__main__":`.

    Raises SlgWdsError; whatever was committed before stays, and the same call resumes.
    """
    result = run(config)
    result.run.check(result.labels)
    return result


def run(config: ImportConfig) -> ImportResult:
    """As `import_fkd`, but shards that were given up are told in the result alone."""
    config.check()
    prepared = prepare_import(config)
    labels = prepared.job.labels
    missing = labels.missing()
    launched = launched_rank() if config.engine == "local" else None
    task = ImportTask(config, launched, RunStarted.of(labels, missing, labels.num_crops))
    with RunProgress(ImportStats(), (launched or ALONE).world_size) as progress:
        given_up = run_on_cpus(task, config, config.processes, len(missing), progress) if missing else {}
        seconds = progress.seconds
    finished = RunFinished(progress.total, given_up, not given_up and finish(labels, task.launched), seconds)
    return ImportResult(labels, finished, prepared.strangers)


@dataclass(frozen=True)
class PreparedImport:
    """An import ready to run, and the label files that are of no image."""

    job: ImportJob
    strangers: list[str]


def prepare_import(config: ImportConfig) -> PreparedImport:
    """List images and label files, match them, and begin or join the label set. Raises SlgWdsError."""
    from slg_wds.images import open_source

    folder = open_label_folder(config.at(config.fkd_dir))
    planned = planned_paths(config.at(config.save_path))
    source = open_source(
        config.images, config, on_error=config.on_error, left_out=config.save_path, planned=planned
    )
    targets = resolve_targets(config, source.classes, config.num_classes, None)
    plan = source.plan(config.seed, config.samples_per_shard, target_of=targets.of_class)
    stems = [stem_of(path) for path in plan.paths]
    folder.match(stems, config.split or "train")
    sharing = _sharing(plan.paths, stems)
    strangers = sorted(folder.name(stem) for stem in folder.stems.difference(stems))
    if config.on_error == "fail":
        _refuse_partnerless(folder, plan, stems, sharing, strangers)
    kind = _kind(folder, sorted(folder.stems.intersection(stems) - sharing.keys()), config)
    coding = "none" if kind.label.kind == "hard" else config.values or ("float16" if kind.half else "float32")
    identity = _identity(config, kind, coding, folder.digest())
    provenance = _provenance(config)
    labels = create_labels(
        config.at(config.save_path),
        plan,
        identity,
        provenance,
        targets.class_names,
        targets_are_classes=targets.comparable,
    )
    most = most_left_out(plan.num_samples, config.max_left_out)
    job = ImportJob(
        labels, source, folder, kind, coding, sharing, config.on_error, provenance["software"], most
    )
    return PreparedImport(job, strangers)


def _sharing(paths: Sequence[str], stems: list[str]) -> dict[str, list[str]]:
    """The paths of images by stem, where several would share one label file and nobody knows whose labels it has."""
    if len(set(stems)) == len(stems):
        return {}
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for path, stem in zip(paths, stems, strict=True):
        groups[stem].append(path)
    return {stem: sorted(group) for stem, group in groups.items() if len(group) > 1}


def _refuse_partnerless(
    folder: LabelFolder,
    plan: Plan,
    stems: list[str],
    sharing: Mapping[str, list[str]],
    strangers: Sequence[str],
) -> None:
    problems = []
    if sharing:
        stem, paths = min(sharing.items())
        problems.append(
            f"{sum(map(len, sharing.values()))} images share a label file with another, since FKD cuts names at the "
            f"first dot: {' and '.join(paths[:3])} have {folder.name(stem)}"
        )
    lacking = sorted(p for p, stem in zip(plan.paths, stems, strict=True) if stem not in folder.stems)
    if lacking:
        problems.append(
            f"no label file for {len(lacking):,} of {counted(len(stems), 'image')}: {_few(lacking)}"
        )
    if strangers:
        problems.append(f"no image for {counted(len(strangers), 'label file')}: {_few(strangers)}")
    if problems:
        raise InteropError(
            "; ".join(problems), url=folder.url, hint="mend it, or leave such out with --on-error skip"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _kind(folder: LabelFolder, stems: list[str], config: ImportConfig) -> Kind:
    """What kind of labels these are, by the first file (the first readable one with --on-error skip)."""
    for stem in stems:
        try:
            read = folder.read(stem)
            name = config.label_type
            label = (
                asked_type(name, read.labels, config.num_classes)
                if name
                else found_type(read.labels, config.num_classes)
            )
            label.check(config.num_classes)
            return Kind(label, read.num_crops, read.half)
        except LabelFileError as error:
            if config.on_error == "fail":
                raise folder.located(error, stem) from None
    raise InteropError("no label file of these images can be read", url=folder.url)


def _identity(config: ImportConfig, kind: Kind, coding: str, digest: str) -> dict[str, Any]:
    """As that of `generate`, with None for what label files do not tell."""
    return {
        "imported_from": {
            "format": "fkd",
            "digest": digest,
            "precision": "float16" if kind.half else "float32",
        },
        "teachers": [],
        "label_type": str(kind.label),
        "k": kind.label.stored_k(config.num_classes),
        "values": coding,
        "tail_classes": 0,
        "temperature": None,
        "num_classes": config.num_classes,
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
    from datetime import datetime, timezone
    from importlib.metadata import version

    return {
        "software": {name: version(name) for name in ("slg-wds", "numpy", "zstandard", "webdataset")},
        "label_root": config.fkd_dir,
        "image_root": config.images,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def main(config: ImportConfig) -> int:
    """The body of the command, with a summary on stdout."""
    result = run(config)
    tell(*told(result))
    result.run.check(result.labels)
    return 0


def told(result: ImportResult) -> list[str]:
    """What was made, in lines for people."""
    labels, stats = result.labels, result.stats
    lines = []
    if stats.crops:
        files = stats.images / max(result.run.seconds, 1e-9)
        rate = f"  {files:,.0f} label files/s over {duration(result.run.seconds)}"
        lines = [rate, *_about_boxes(stats, labels)]
    text = summary(labels, result.run, f", values {labels.identity.coding}", lines)
    return [*text, *listed("LABEL FILES OF NO IMAGE", result.strangers)]


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
