"""From the recipe of a run to a worker's job: images, reference, teachers, and the label set begun or joined."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from slg_wds.concurrency.threads import threads_of_forwards
from slg_wds.config import GenerateConfig, TeacherConfig
from slg_wds.config.checks import flag
from slg_wds.console import counted, first_few
from slg_wds.errors import ReferenceSetError, TeacherError, UsageError
from slg_wds.format.manifest.description import EXTENDS, MIXING, VIEWS
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.records.embeddings.fields import EMBEDDINGS, MAX_EMBEDDED
from slg_wds.format.records.embeddings.low_rank import LOW_RANK_EMBEDDINGS
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.generation.description import identity_of, run_provenance, shard_provenance
from slg_wds.generation.job import Job
from slg_wds.generation.recipe import Recipe
from slg_wds.images.class_folders import ClassFolders
from slg_wds.images.folder import ignored_kinds
from slg_wds.images.targets import classes_of_targets, resolve_targets
from slg_wds.interop.fkd.folder import other_files_named
from slg_wds.labelset.creating import begun_labels, create_labels, planned_paths
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.left_out import most_left_out
from slg_wds.labelset.opening import labels_at
from slg_wds.teachers.towers.prototypes import PrototypeTower

if TYPE_CHECKING:
    from slg_wds.generation.reference import Reference
    from slg_wds.images import ImageSource
    from slg_wds.teachers import Ensemble, Teacher


@other_files_named("options: reference: 'fkd:")
def open_job(recipe: Recipe, device: str | None = None, *, save: bool = True) -> Job:
    """Open everything that a worker needs, quick checks before slow ones.

    Args:
        recipe: the options of the run.
        device: where the teachers run; None for the GPU of the options, else this process's own device.
        save: begin or join the label set at --save-path. Otherwise nothing is written: a set that was begun there is
            only read, and a new one exists in memory only.

    Raises:
        SlgWdsError: something cannot be opened, or the set there was made otherwise.
    """
    from slg_wds.teachers import device_of

    config = recipe.config
    source = _open_images(recipe)
    reference = _open_reference(recipe)
    device = device or device_of(config)
    teacher = load_teachers(config, source.classes, config.crops_of_forward(device), device)
    recipe.label.check(teacher.num_classes, "--label-type")
    classes = teacher.full_classes if recipe.has_classes else classes_of_targets(source.classes)
    class_folders = class_folders_of(teacher.teachers) if recipe.has_classes else ClassFolders()
    targets = resolve_targets(config, source.classes, classes, teacher.class_subset, class_folders)
    plan = source.plan(config.seed, config.samples_per_shard, target_of=targets.of_class)
    _check_partners(recipe, plan, reference)
    lacking = 0 if reference is None else _count_lacking(reference, plan.keys, config.on_error)
    identity = identity_of(recipe, teacher, reference)
    _check_width(identity)
    provenance = run_provenance(config, teacher)
    if save:
        labels = create_labels(
            config.at(config.save_path),
            plan,
            identity,
            provenance,
            targets.class_names,
            requires=_features(identity, reference),
            targets_are_classes=targets.comparable and recipe.has_classes,
        )
    else:
        begun = begun_labels(config.at(config.save_path), plan, identity) if config.save_path else None
        labels = LabelSet.unsaved(plan, identity) if begun is None else begun
    most = most_left_out(plan.num_samples, config.max_left_out, lacking)
    return Job(recipe, labels, source, teacher, targets, reference, shard_provenance(provenance), most)


def _check_partners(recipe: Recipe, plan: Plan, reference: Reference | None) -> None:
    """Raise UsageError where a mixed set would be extended from other shards: its own crops would be drawn anew."""
    from slg_wds.generation.extension import Extension

    if recipe.mix_rule is None or not isinstance(reference, Extension):
        return
    base = reference.labels.plan
    if base.keys != plan.keys or not np.array_equal(base.shard_sizes, plan.shard_sizes):
        raise UsageError(
            "crops are mixed with images of the same shard, and the set to extend has other images or shards",
            url=reference.url,
            hint="give the images, --seed and --samples-per-shard that made it",
        )


def _check_width(identity: Identity) -> None:
    """Raise UsageError for more numbers of embeddings than a record holds, before any is computed."""
    width = sum(one["dim"] for one in identity.embeddings or [])
    if width * identity.num_crops > MAX_EMBEDDED:
        raise UsageError(
            f"--num-crops {identity.num_crops} of {width} numbers are more than the {MAX_EMBEDDED} that a record holds",
            hint=f"give --num-crops {MAX_EMBEDDED // width} or fewer",
        )


def _features(identity: Identity, reference: Reference | None) -> list[str]:
    """Return what readers of the set must know beyond what every new set asks of them."""
    views = identity.views is not None or (reference is not None and reference.has_views)
    mixing = "mixup_prob" in (identity.views or {}) or (reference is not None and reference.has_mixing)
    needed = {
        EXTENDS: identity.extends is not None,
        VIEWS: views,
        MIXING: mixing,
        LOW_RANK: identity.max_kl is not None,
        EMBEDDINGS: identity.embeddings is not None,
        LOW_RANK_EMBEDDINGS: any("min_cosine" in one for one in identity.embeddings or []),
    }
    return [name for name, need in needed.items() if need]


def _open_images(recipe: Recipe) -> ImageSource:
    from slg_wds.images import open_source

    config = recipe.config
    planned = planned_paths(config.at(config.save_path)) if config.save_path else ()
    return open_source(
        config.data, config, on_error=config.on_error, left_out=config.save_path or None, planned=planned
    )


def _open_reference(recipe: Recipe) -> Reference | None:
    """Open what gives the crops: the set to extend, the reference, or None where the seed draws all of them."""
    from slg_wds.generation.extension import Extension
    from slg_wds.generation.reference import open_reference

    config = recipe.config
    reference = None
    if config.reference_path is not None:
        strict = config.on_error == "fail"
        reference = open_reference(config.at(config.reference_path), config.num_crops, strict)
    if config.extend is None:
        return reference
    extended = labels_at(config.at(config.extend), embeddings=recipe.embeds)
    return Extension(extended, config.num_crops, reference)


def _count_lacking(reference: Reference, keys: Sequence[str], on_error: str) -> int:
    """Count the images that a reference set never planned. Raise ReferenceSetError unless they may be left out."""
    from slg_wds.generation.reference import SetReference

    missing = reference.missing(keys)
    if missing and on_error == "fail":
        raise ReferenceSetError(
            f"the reference lacks {len(missing)} of {counted(len(keys), 'image')}: {first_few(missing)}",
            url=reference.url,
            hint="give the reference's own images, or leave the others out with --on-error skip",
        )
    return len(missing) if isinstance(reference, SetReference) else 0


def load_teachers(
    config: TeacherConfig, classes: list[str] | None, rows: int, device: str | None = None
) -> Ensemble:
    """Load the teachers of the options, keep the classes of --class-subset, and try the teachers on a forward.

    Args:
        config: which teachers, and how they run.
        classes: names of the class folders, for --class-subset auto; None where there are none.
        rows: crops in one forward of the work that follows.
        device: where they run; None for the GPU of the options, else this process's own device.
    """
    from slg_wds.concurrency.memory import keep_freed_memory
    from slg_wds.images.targets import class_subset
    from slg_wds.teachers import load_ensemble

    keep_freed_memory()
    with threads_of_forwards(config.forward_threads):
        return load_ensemble(
            config,
            lambda teachers: class_subset(
                config, classes, teachers[0].num_classes, class_folders_of(teachers)
            ),
            device,
            rows=rows,
        )


def class_folders_of(teachers: Sequence[Teacher]) -> ClassFolders:
    """Return what the checkpoints of teachers say of class folders.

    Raises:
        TeacherError: two of them say different things.
    """
    classes: dict[str, int | None] = {}
    found = [(one.name, ClassFolders.of(one.class_folders)) for one in teachers]
    known = [(name, folders) for name, folders in found if folders.known]
    for name, folders in known:
        for folder, number in folders.classes.items():
            if classes.setdefault(folder, number) != number or folders.subset != known[0][1].subset:
                raise TeacherError(
                    f"the teachers number classes differently: {folder!r} is another class of {name}",
                    hint="teachers of one ensemble must have the same classes",
                )
    return ClassFolders(classes, known[0][1].subset) if known else ClassFolders()


def opening_lines(job: Job) -> list[str]:
    """Describe the start of a run: teachers, their input and device, and images that are not used."""
    from slg_wds.teachers.about import about_device

    config = job.config
    asked = config.devices is not None or config.engine == "ray"
    return [
        *_teacher_lines(job.teacher),
        *about_device(job.teacher, config.forward_threads, asked, "give --devices cpu"),
        *_source_lines(job.source),
        *_target_lines(job),
        *_unused_crop_options(config),
    ]


def _teacher_lines(teacher: Ensemble) -> list[str]:
    if isinstance(teacher, PrototypeTower):
        labels = f"labels over {teacher.bank}, at temperature {teacher.temperature:g}"
        return [f"teacher {teacher.teachers[0]}", labels]
    if len(teacher.teachers) == 1:
        return [f"teacher {teacher.teachers[0]}"]
    pairs = zip(teacher.teachers, teacher.weights, strict=True)
    return [f"teacher {one}; weight {weight:.3f}" for one, weight in pairs]


def _source_lines(source: ImageSource) -> list[str]:
    lines = []
    if source.ignored:
        lines.append(f"not used in {source.url}: {ignored_kinds(source.ignored)}")
    if source.gone:
        gone = counted(len(source.gone), "image")
        lines.append(f"gone since the set was planned: {gone}, such as {source.gone[0]}")
    return lines


def _target_lines(job: Job) -> list[str]:
    plan = job.labels.plan
    without = int((plan.targets < 0).sum())
    lines = [job.targets.note] if job.targets.note else []
    if without and job.source.classes is not None and not job.config.no_targets:
        lines.append(f"without a target: {without:,} of {counted(plan.num_samples, 'image')}")
    return lines


def _unused_crop_options(config: GenerateConfig) -> list[str]:
    names = ("min_scale_crops", "max_scale_crops", "ratio", "flip_prob")
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    given = [flag(name) for name in names if getattr(config, name) != defaults[name]]
    if config.reference_path is None or not given:
        return []
    return [f"not used, since the reference gives the crops: {', '.join(given)}"]
