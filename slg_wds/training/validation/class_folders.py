"""Which class of the student the images of val are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slg_wds import LabelSet
from slg_wds.config import EvaluateConfig
from slg_wds.console import counted, first_few
from slg_wds.errors import NoTargetsError
from slg_wds.images.class_folders import ClassFolders
from slg_wds.images.classes import IMAGENET, folder_numbers, imagenet_targets
from slg_wds.images.order import TargetOf
from slg_wds.images.targets import resolve_targets
from slg_wds.labelset.class_names import class_folders
from slg_wds.training.flags import Settings
from slg_wds.training.processes import say


def known_folders(labels: Sequence[LabelSet], checkpoint: Mapping[str, Any] | None) -> ClassFolders:
    """Return what the sets say, or without sets the checkpoint. Of sets that differ the first one counts."""
    if not labels:
        return ClassFolders.of((checkpoint or {}).get("class_folders"))
    classes: dict[str, int | None] = {}
    for one in reversed(labels):
        classes.update(class_folders(one))
    subset = labels[0].identity.class_subset
    return ClassFolders(classes, None if subset is None else list(subset))


def targets_of_val(
    args: Settings, class_folders: ClassFolders, folders: Sequence[str] | None, num_classes: int
) -> TargetOf | None:
    """Return the student's class of each class of val, as `ImageSource.plan` takes it.

    --class-map decides, then what the sets say, and else the rules of `slg-wds evaluate`.

    Args:
        args: the flags.
        class_folders: what the sets, or the checkpoint, say of class folders.
        folders: val's class folders in the order of their numbers; None if its samples have class numbers.
        num_classes: the student's.

    Raises:
        NoTargetsError: it is not known which classes they are.
    """
    if folders is None and class_folders.subset is None:
        return None  # `HardTargets` says which number is no class of the student
    config = EvaluateConfig(data=args.data or "", arch=args.arch, class_map=args.class_map)
    targets = resolve_targets(config, folders, num_classes, None, class_folders)
    if not targets.comparable:
        raise NoTargetsError(
            f"nothing says which of the student's classes {counted(len(folders or ()), 'class folder')} of val "
            f"{'is' if len(folders or ()) == 1 else 'are'}",
            hint="name them as the train folders or by WordNet ids, or give --class-map",
            url=args.data,
        )
    if folders is not None and isinstance(targets.of_class, Sequence):
        _tell(args, class_folders, folders, targets.of_class, num_classes)
    return targets.of_class


def _tell(
    args: Settings,
    class_folders: ClassFolders,
    folders: Sequence[str],
    of_class: Sequence[int | None],
    num_classes: int,
) -> None:
    """Say which folders are of no class, and whether they are numbered by nothing but their order."""
    if args.class_map is None and not class_folders.known and _in_order(folders, num_classes):
        say(args, "nothing says which of the student's classes the class folders of val are, so they are numbered "
            "in the order of their names; --class-map says it")  # fmt: skip
    if without := [name for name, number in zip(folders, of_class, strict=True) if number is None]:
        say(args, f"{counted(len(without), 'class folder')} of val of no class of the student: "
            f"{first_few(without)}")  # fmt: skip


def _in_order(folders: Sequence[str], num_classes: int) -> bool:
    """Return whether folders that are as many as classes are numbered by nothing but their order."""
    by_id = num_classes == IMAGENET and imagenet_targets(folders) is not None
    return not by_id and folder_numbers(folders) is None
