"""The accuracy of a teacher of classes, to see that it is loaded and fed as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slg_wds.concurrency.threads import threads_beside_forwards
from slg_wds.config import EvaluateConfig, TeacherConfig
from slg_wds.console import counted, note
from slg_wds.errors import NoTargetsError, UsageError
from slg_wds.generation.evaluation.images import batches

if TYPE_CHECKING:
    from slg_wds.format.manifest.plan import Plan
    from slg_wds.images import ImageSource
    from slg_wds.teachers import Accuracy, Ensemble


def evaluate(config: EvaluateConfig, device: str | None = None) -> Accuracy:
    """Measure the accuracy of a teacher under its own evaluation transform.

    The images are those of DATA/val, or of the split that the options name, or DATA itself if it has no val folder.
    The teacher answers with all of its classes, also where the options keep a subset of them for labels: so the figures
    can be compared with published ones.

    Args:
        config: the options, as on the command line.
        device: where the teacher runs, such as "cuda:0"; None for the GPU of the options, else this process's own.

    Returns:
        Top-1 and top-5 accuracy in 0..1, mean loss in nats, and the number of images.

    Raises:
        NoTargetsError: the images have no class folders, or it is not known which classes of the teacher these are.
        UsageError: the options ask for embeddings, which `evaluate_embeddings` is for.
        SlgWdsError: images or teacher cannot be loaded.
    """
    from slg_wds.teachers.faults import hint_if_full

    config.check()
    if config.output == "embedding":
        raise UsageError("output is 'embedding'", hint="call slg_wds.evaluate_embeddings")
    with hint_if_full(config.IF_MEMORY_IS_FULL):
        return _measured(config, device)


def _measured(config: EvaluateConfig, device: str | None) -> Accuracy:
    from slg_wds.generation.setup import load_teachers
    from slg_wds.images import open_source
    from slg_wds.teachers import evaluate as measure
    from slg_wds.teachers.about import about_device

    source = open_source(config.data, config, default_split="val", need_targets=True)
    teacher = load_teachers(config, source.classes, config.images_of_forward, device)
    threads = config.forward_threads
    lines = [f"teacher {one}" for one in teacher.teachers]
    note(*lines, *about_device(teacher, threads, cpu_asked=device == "cpu"))
    plan = _plan(config, source, teacher)
    with threads_beside_forwards(config.num_workers, threads) as pool:
        return measure(teacher, batches(config, source, plan, teacher.preprocessings, pool))


def _plan(config: EvaluateConfig, source: ImageSource, teacher: Ensemble) -> Plan:
    """Plan all images with their targets in the teacher's classes. Raise NoTargetsError if these are not known."""
    from slg_wds.generation.setup import class_folders_of
    from slg_wds.images.targets import resolve_targets

    class_folders = class_folders_of(teacher.teachers)
    # No subset: `teachers.evaluate` scores all of the teacher's classes and takes its own class numbers.
    targets = resolve_targets(config, source.classes, teacher.full_classes, None, class_folders)
    if source.classes is not None and not targets.comparable:
        how = "as the teacher learned them" if class_folders.known else "by WordNet ids"
        raise NoTargetsError(
            f"nothing assigns {counted(len(source.classes), 'class folder')} to "
            f"the teacher's {teacher.full_classes} classes",
            hint=f"name them {how} or give --class-map",
            url=config.data,
        )
    if targets.note:
        note(targets.note)
    if teacher.class_subset is not None:
        note(
            f"accuracy is over all {teacher.full_classes} classes of the teacher: --class-subset is for labels"
        )
    plan = source.plan(0, 1 << 20, target_of=targets.of_class)
    without = int((plan.targets < 0).sum())
    if without == plan.num_samples:
        raise NoTargetsError("no image has a target", url=config.data)
    if without:
        note(f"left out, without a target: {without:,} of {counted(plan.num_samples, 'image')}")
    return plan


def figures(config: TeacherConfig, accuracy: Accuracy) -> str:
    """Describe a teacher's accuracy in one line."""
    return (
        f"{config.arch} on {counted(accuracy.count, 'image')} of {config.data}: "
        f"top-1 {accuracy.top1:.2%}, top-5 {accuracy.top5:.2%}, loss {accuracy.loss:.4f}"
    )
