"""From the options of `slg-wds generate` to a job: images, teachers, identity and provenance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slg_wds.concurrency.cores import cores
from slg_wds.concurrency.threads import threads_of_forwards
from slg_wds.config import GenerateConfig, TeacherConfig
from slg_wds.console import counted
from slg_wds.errors import ReferenceSetError, UsageError
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.manifest.manifest import EXTENDS
from slg_wds.images.folder import ignored_kinds
from slg_wds.images.targets import Targets, resolve_targets
from slg_wds.labels import LabelType, parse_label_type
from slg_wds.labelset.creating import create_labels, planned_paths
from slg_wds.labelset.labelset import LabelSet, open_labels
from slg_wds.labelset.left_out import most_left_out
from slg_wds.transforms.crops import CropRule

if TYPE_CHECKING:
    from slg_wds.format.manifest.manifest import Plan
    from slg_wds.generation.job import Embedding, Job
    from slg_wds.generation.reference import Reference
    from slg_wds.images import ImageSource
    from slg_wds.teachers import Ensemble


@dataclass
class PreparedRun:
    """Everything that is known before the first forward."""

    config: GenerateConfig
    source: ImageSource
    label: LabelType
    teacher: Ensemble
    targets: Targets
    reference: Reference | None

    def job(self, create: bool) -> Job:
        """The job; with `create`, its label set begun or joined at --save_path."""
        from slg_wds.generation.job import Job

        config = self.config
        recipe = _recipe(config, self.label)
        plan = self.source.plan(
            config.seed,
            config.samples_per_shard,
            target_of=self.targets.of_class,
        )
        lacking = 0
        if self.reference is not None:
            lacking = _check_reference(self.reference, plan.keys, config)
        identity = identity_of(config, self.label, self.teacher, self.reference)
        provenance = run_provenance(config, self.teacher)
        labels = (
            create_labels(
                config.at(config.save_path),
                plan,
                identity,
                provenance,
                self.targets.class_names,
                requires=[EXTENDS] if identity.extends else [],
                targets_are_classes=self.targets.comparable,
            )
            if create
            else LabelSet.unsaved(plan, identity)
        )
        return Job(
            labels=labels,
            source=self.source,
            teacher=self.teacher,
            recipe=recipe,
            device=self.teacher.device,
            workers=config.num_workers,
            ahead=images_ahead(config.batch_size, config.num_seg, crops_each(config, self.reference)),
            threads_per_forward=config.threads_per_forward or cores(),
            reference=self.reference,
            provenance=shard_provenance(provenance),
            most_left_out=most_left_out(plan.num_samples, config.max_left_out, lacking),
        )


def prepare_run(config: GenerateConfig, device: str | None = None) -> PreparedRun:
    """Open the images, the reference and the teachers, cheap checks first. Raises SlgWdsError.

    device: where to run; None: the config's GPU, else this process's own device.
    """
    from slg_wds.images import open_source

    label = parse_label_type(config.label_type)
    if label.kind == "shared_tail" and config.tail_classes == 0:
        raise UsageError(f"--label_type {label} needs --tail-classes above 0, not 0")
    recipe = _recipe(config, label)
    if config.extendable and not recipe.writes_tail:
        raise UsageError(
            f"--extendable is for shared tails, and {label} labels have none here",
            hint="leave it out: such sets can always be extended",
        )
    planned = planned_paths(config.at(config.save_path)) if config.save_path else ()
    source = open_source(
        config.data, config, on_error=config.on_error, left_out=config.save_path or None, planned=planned
    )
    reference = _reference(config)
    teacher = load_teachers(config, source.classes, config.num_seg, device)
    label.check(teacher.num_classes, "--label_type")
    targets = resolve_targets(config, source.classes, teacher.full_classes, teacher.class_subset)
    return PreparedRun(config, source, label, teacher, targets, reference)


def opening(run: PreparedRun, plan: Plan) -> list[str]:
    """What a run begins with, in lines: teachers, how they want their pixels, where they run, what data is not used."""
    from slg_wds.teachers.backends import about_device

    shares = zip(run.teacher.teachers, run.teacher.weights, strict=True)
    several = len(run.teacher.teachers) > 1
    lines = [
        f"teacher {teacher}" + (f"; weight {weight:.3f}" if several else "") for teacher, weight in shares
    ]
    asked = run.config.devices is not None or run.config.engine == "ray"
    lines += about_device(run.teacher, run.config.threads_per_forward or cores(), asked)
    without = int((plan.targets < 0).sum())
    lines += (
        [f"not used in {run.source.url}: {ignored_kinds(run.source.ignored)}"] if run.source.ignored else []
    )
    if run.source.gone:
        lines += [
            f"gone since the set was planned: {counted(len(run.source.gone), 'image')}, "
            f"such as {run.source.gone[0]}"
        ]
    lines += [run.targets.said] if run.targets.said else []
    if without and run.source.classes is not None and not run.config.no_targets:
        lines += [f"without a target: {without:,} of {counted(plan.num_samples, 'image')}"]
    return lines


def load_teachers(
    config: TeacherConfig, classes: list[str] | None, rows: int, device: str | None = None
) -> Ensemble:
    """Load the teachers of a config onto a device, by default the config's, with its class subset, and try them.

    rows: crops in a forward of what follows.
    """
    from slg_wds.concurrency.memory import keep_freed_memory
    from slg_wds.images.targets import class_subset
    from slg_wds.teachers import load_ensemble

    keep_freed_memory()
    with threads_of_forwards(config.threads_per_forward or cores()):
        return load_ensemble(
            config, lambda num_classes: class_subset(config, classes, num_classes), device, rows=rows
        )


def images_ahead(asked: int | None, num_seg: int, crops: int) -> int:
    """Images to decode ahead of the teacher: as many as were asked, else as many as fill two forwards.

    At least 8, or a source that answers slowly would starve the teacher; at most 128, which bounds the memory that
    decoded images take.

    Args:
        asked: --batch-size, None where it is not given.
        num_seg: crops in one forward.
        crops: crops of an image that are labelled.
    """
    return asked or min(max(8, -(-2 * num_seg // max(crops, 1))), 128)


def crops_each(config: GenerateConfig, reference: Reference | None) -> int:
    """Crops of most images, for the display: those that the set to extend lacks, or all."""
    from slg_wds.generation.extension import Extension

    return config.num_crops - (reference.labels.num_crops if isinstance(reference, Extension) else 0)


def _reference(config: GenerateConfig) -> Reference | None:
    from slg_wds.generation.reference import open_reference

    reference = None
    if config.reference_path is not None:
        reference = open_reference(config.at(config.reference_path), config.num_crops)
    if config.extend is None:
        return reference
    from slg_wds.generation.extension import Extension

    rule = CropRule((config.min_scale_crops, config.max_scale_crops), config.ratio, config.flip_prob)
    extended = open_labels(config.extend, store_options=config.store_options)
    return Extension(extended, config.num_crops, config.seed, rule, reference)


def _check_reference(reference: Reference, keys: Any, config: GenerateConfig) -> int:
    """Count the images that the reference set never had. Raises an error unless --on-error skip leaves them out."""
    from slg_wds.generation.reference import SetReference

    missing = reference.missing(keys)
    if missing and config.on_error == "fail":
        raise ReferenceSetError(
            f"the reference lacks {len(missing)} of {len(keys)} images: {', '.join(missing[:5])}"
            + (" ..." if len(missing) > 5 else ""),
            url=reference.url,
            hint="give the reference's own images, or leave the others out with --on-error skip",
        )
    return len(missing) if isinstance(reference, SetReference) else 0


def _recipe(config: GenerateConfig, label: LabelType) -> Any:
    from slg_wds.generation.job import Recipe

    return Recipe(
        label=label,
        coding=config.coding,
        num_crops=config.num_crops,
        num_seg=config.num_seg,
        tail_classes=config.tail_classes,
        crop_rule=CropRule((config.min_scale_crops, config.max_scale_crops), config.ratio, config.flip_prob),
        seed=config.seed,
        embedding=parse_embedding(config.embed_images),
        max_pixels=config.max_pixels,
        on_error=config.on_error,
        extendable=config.extendable,
    )


def parse_embedding(text: str | None) -> Embedding | None:
    """`original`, or `max-side=N[,quality=Q]` with Q in 1..100. Raises UsageError."""
    from slg_wds.generation.job import Embedding

    if text is None:
        return None
    if text == "original":
        return Embedding()
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    try:
        numbers = {name: int(value) for name, value in fields.items()}
        embedding = Embedding(numbers.pop("max-side"), numbers.pop("quality", 90))
    except (ValueError, KeyError):
        raise UsageError(
            f"--embed-images {text!r} is neither `original` nor `max-side=512[,quality=90]`"
        ) from None
    if numbers or not embedding.max_side or embedding.max_side < 1 or not 1 <= embedding.quality <= 100:
        raise UsageError(f"--embed-images {text!r}: max-side is at least 1, quality 1..100, and nothing else")
    return embedding


def identity_of(
    config: GenerateConfig, label: LabelType, teacher: Ensemble, reference: Reference | None
) -> Identity:
    """What two runs must share to write into one set: every option that moves a label or a byte on purpose."""
    from slg_wds.generation.extension import Extension

    embedding = parse_embedding(config.embed_images)
    extension = reference if isinstance(reference, Extension) else None
    crops_of = extension.crops_of if extension else reference
    fields = {
        "teachers": teacher.describe(),
        "label_type": str(label),
        "k": label.stored_k(teacher.num_classes),
        "values": "none" if label.kind == "hard" else config.coding,
        "tail_classes": 0 if label.kind in ("hard", "full") else config.tail_classes,
        "temperature": config.temp,
        "num_classes": teacher.num_classes,
        "class_subset": teacher.class_subset,
        "num_crops": config.num_crops,
        "crop_scale": [config.min_scale_crops, config.max_scale_crops],
        "crop_ratio": list(config.ratio),
        "flip_probability": config.flip_prob,
        "seed": config.seed,
        "precision": config.precision,
        "embed_images": dataclasses.asdict(embedding) if embedding else None,
        "reference": crops_of.identity if crops_of else None,
        "decode": "RGB, no EXIF rotation",
        "resize": "torchvision v2 uint8 antialias",
    }
    if config.extendable:
        fields["extendable"] = True
    if extension:
        extension.check(fields)
        fields["extends"] = extension.described
    return Identity.from_json(fields)


def run_provenance(config: GenerateConfig, teacher: Ensemble) -> dict[str, Any]:
    """What is noted of a run but never compared."""
    from datetime import datetime, timezone
    from importlib.metadata import version

    on_cpu = teacher.device.type == "cpu"  # elsewhere they move no bit
    return {
        "num_seg": config.num_seg,
        "compile": config.compile,
        **({"threads_per_forward": config.threads_per_forward or cores()} if on_cpu else {}),
        "device": teacher.device_name,
        "software": {
            name: version(name)
            for name in (
                "slg-wds",
                "torch",
                "torchvision",
                "timm",
                "numpy",
                "zstandard",
                "pillow",
                "webdataset",
            )
        },
        "image_root": config.data,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def shard_provenance(provenance: Mapping[str, Any]) -> dict[str, object]:
    """The part of a run's provenance that can move bits, for its trailer: no dates, no paths."""
    names = ("num_seg", "compile", "threads_per_forward", "device", "software")
    return {name: provenance[name] for name in names if name in provenance}
